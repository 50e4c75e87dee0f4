//! Patterns as automata over segments: shortest keys that some patterns match and others don't.
//!
//! A state is a set of parts, one bit each (bit `n` for the end), so following a key needs no
//! construction beforehand.

use std::collections::{HashMap, HashSet, VecDeque};

use super::alphabet::{Alphabet, accepts};
use super::effort::{Effort, weight, weight_of};
use crate::key::{Atom, Part, Pattern};

/// States that a search visits before it gives up.
const BUDGET: usize = 50_000;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A key.
    Key(String),
    /// No key at all.
    Nothing,
    /// The search grew too large.
    Unknown,
}

/// A pattern that reads keys segment by segment.
pub(super) struct Automaton<'p> {
    parts: &'p [Part],
    /// For each symbol of the alphabet, the parts that accept it.
    accepting: Vec<u64>,
    rests: u64,
    /// For each symbol of the alphabet, the `**` that may hold it.
    holding: Vec<u64>,
}

impl<'p> Automaton<'p> {
    /// `None` for a pattern of more than 60 parts, and once the effort is spent.
    pub(super) fn new(pattern: &'p Pattern, alphabet: &Alphabet, effort: &Effort) -> Option<Self> {
        let parts = pattern.parts();
        if parts.len() > 60
            || !effort.spend(weight_of(pattern).saturating_mul(alphabet.symbols().len()))
        {
            return None;
        }
        let rests = parts
            .iter()
            .enumerate()
            .filter(|(_, part)| matches!(part, Part::Rest(_)))
            .fold(0, |bits, (at, _)| bits | (1 << at));
        let accepting = alphabet
            .symbols()
            .iter()
            .map(|symbol| {
                parts
                    .iter()
                    .enumerate()
                    .filter(|(_, part)| accepts(part, symbol))
                    .fold(0, |bits, (at, _)| bits | (1 << at))
            })
            .collect();
        let holding = vec![rests; alphabet.symbols().len()];
        Some(Self { parts, accepting, rests, holding })
    }

    /// Captures of segments, and of whole segments' text, hold none of these symbols any more; one
    /// at the end may hold those that `last` allows.
    pub(super) fn restrict_captures(&mut self, not: &[bool], last: impl Fn(usize) -> bool) {
        let is_text = |part: &Part| matches!(part, Part::Segment(atoms) if matches!(&atoms[..], [Atom::Chars(_)]));
        let texts = self
            .parts
            .iter()
            .enumerate()
            .filter(|(_, part)| is_text(part))
            .fold(0, |bits, (at, _)| bits | (1u64 << at));
        let end = self.parts.len().checked_sub(1).map_or(0, |at| 1u64 << at);
        for (symbol, _) in not.iter().enumerate().filter(|(_, not)| **not) {
            let stays = if last(symbol) { end } else { 0 };
            self.accepting[symbol] &= !texts | stays;
            self.holding[symbol] &= stays;
        }
    }

    /// `**` may match nothing: what follows it is reached too.
    fn close(&self, mut state: u64) -> u64 {
        loop {
            let next = state | ((state & self.rests) << 1);
            if next == state {
                return state;
            }
            state = next;
        }
    }

    fn start(&self) -> u64 {
        self.close(1)
    }

    fn step(&self, state: u64, symbol: usize) -> u64 {
        let taken = (state & !self.rests & self.accepting[symbol]) << 1;
        self.close(taken | (state & self.holding[symbol]))
    }

    fn accepts(&self, state: u64) -> bool {
        state >> self.parts.len() & 1 == 1
    }
}

/// Whether a key may match both patterns, by a quick look, and once the effort is spent: segments
/// with captures are taken to fit each other.
pub(super) fn may_overlap(a: &[Part], b: &[Part], effort: &Effort) -> bool {
    // A part that may be several segments isn't followed here.
    if a.iter().chain(b).any(|part| part.is_wide() && matches!(part, Part::Segment(_))) {
        return true;
    }
    let is_rest = |part: Option<&Part>| matches!(part, Some(Part::Rest(_)));
    let fits = |a: &Part, b: &Part| match (a, b) {
        (Part::Literal(text), other) | (other, Part::Literal(text)) => accepts(other, text),
        _ => true,
    };
    // What stands at both starts, or at both ends, tells most patterns apart.
    let differ =
        |(x, y): (&Part, &Part)| matches!((x, y), (Part::Literal(x), Part::Literal(y)) if x != y);
    let both_fixed = |(x, y): &(&Part, &Part)| !is_rest(Some(x)) && !is_rest(Some(y));
    if a.iter().zip(b).take_while(both_fixed).any(differ)
        || a.iter().rev().zip(b.iter().rev()).take_while(both_fixed).any(differ)
    {
        return false;
    }
    let mut seen = HashSet::from([(0, 0)]);
    let mut open = vec![(0, 0)];
    while let Some((p, q)) = open.pop() {
        if !effort.spend(1 + a.get(p).into_iter().chain(b.get(q)).map(weight).sum::<usize>()) {
            return true;
        }
        let (x, y) = (a.get(p), b.get(q));
        if x.is_none() && y.is_none() {
            return true;
        }
        let fixed =
            x.zip(y).is_some_and(|(x, y)| !is_rest(Some(x)) && !is_rest(Some(y)) && fits(x, y));
        let next = [
            fixed.then_some((p + 1, q + 1)),
            (is_rest(x) || (is_rest(y) && x.is_some())).then_some((p + 1, q)),
            (is_rest(y) || (is_rest(x) && y.is_some())).then_some((p, q + 1)),
        ];
        open.extend(next.into_iter().flatten().filter(|state| seen.insert(*state)));
    }
    false
}

/// The shortest key for which `wanted` holds, given which automata accept it.
pub(super) fn search(
    automata: &[Automaton<'_>],
    alphabet: &Alphabet,
    effort: &Effort,
    wanted: impl Fn(&[bool]) -> bool,
) -> Found {
    let start: Vec<u64> = automata.iter().map(Automaton::start).collect();
    let mut seen: HashMap<Vec<u64>, usize> = HashMap::new();
    let mut trail: Vec<(usize, usize)> = vec![(usize::MAX, 0)];
    let mut open = VecDeque::from([start.clone()]);
    seen.insert(start, 0);
    while let Some(state) = open.pop_front() {
        let at = seen[&state];
        for symbol in 0..alphabet.symbols().len() {
            if !effort.spend(1 + automata.len() / 8) {
                return Found::Unknown;
            }
            let next: Vec<u64> = automata
                .iter()
                .zip(&state)
                .map(|(automaton, state)| automaton.step(*state, symbol))
                .collect();
            if next.iter().all(|state| *state == 0) || seen.contains_key(&next) {
                continue;
            }
            let accepted: Vec<bool> = automata
                .iter()
                .zip(&next)
                .map(|(automaton, state)| automaton.accepts(*state))
                .collect();
            trail.push((at, symbol));
            if wanted(&accepted) {
                return Found::Key(spell(&trail, alphabet));
            }
            if trail.len() > BUDGET {
                return Found::Unknown;
            }
            seen.insert(next.clone(), trail.len() - 1);
            open.push_back(next);
        }
    }
    Found::Nothing
}

/// The key that leads to the last step of a trail.
fn spell(trail: &[(usize, usize)], alphabet: &Alphabet) -> String {
    let mut segments = Vec::new();
    let mut at = trail.len() - 1;
    while let Some((before, symbol)) = trail.get(at).filter(|(before, _)| *before != usize::MAX) {
        segments.push(alphabet.symbols()[*symbol].as_str());
        at = *before;
    }
    segments.reverse();
    segments.join(".")
}

/// Keys that both patterns match so that, somewhere, a segment is a fixed part of both (and not the
/// same part, for one pattern with itself): where one pattern's fixed middle overlaps the other's.
/// Shortest first, up to `limit`.
pub(super) fn overlaps(
    a: &Pattern,
    b: &Pattern,
    with_itself: bool,
    alphabet: &Alphabet,
    effort: &Effort,
    limit: usize,
) -> Vec<String> {
    type State = (usize, usize, bool);
    let fixed = |part: &Part| !matches!(part, Part::Rest(_));
    // Moves of one automaton on a symbol: where to, and whether a fixed part took it.
    let moves = |parts: &[Part], at: usize, symbol: &str| -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut at = at;
        loop {
            match parts.get(at) {
                Some(Part::Rest(_)) => {
                    found.push((at, at));
                    at += 1;
                }
                Some(part) if accepts(part, symbol) => {
                    found.push((at, at + 1));
                    break;
                }
                _ => break,
            }
        }
        found
    };
    let ends =
        |parts: &[Part], at: usize| parts[at..].iter().all(|part| matches!(part, Part::Rest(_)));
    let (a, b) = (a.parts(), b.parts());
    let mut found = Vec::new();
    let mut seen: HashSet<State> = HashSet::from([(0, 0, false)]);
    let mut trail: Vec<(usize, usize)> = vec![(usize::MAX, 0)];
    let mut open: VecDeque<(State, usize)> = VecDeque::from([((0, 0, false), 0)]);
    while let Some(((p, q, flag), at)) = open.pop_front() {
        for (number, symbol) in alphabet.symbols().iter().enumerate() {
            // Parts that were taken are tried again for each state that they are in.
            if !effort.spend(1 + a.get(p).into_iter().chain(b.get(q)).map(weight).sum::<usize>()) {
                return found;
            }
            for (p_took, p_next) in moves(a, p, symbol) {
                for (q_took, q_next) in moves(b, q, symbol) {
                    let both = fixed(&a[p_took])
                        && fixed(&b[q_took])
                        && !(with_itself && p_took == q_took);
                    let next = (p_next, q_next, flag || both);
                    if next.2 && ends(a, p_next) && ends(b, q_next) {
                        trail.push((at, number));
                        found.push(spell(&trail, alphabet));
                        if found.len() >= limit {
                            return found;
                        }
                        trail.pop();
                    }
                    if seen.insert(next) {
                        trail.push((at, number));
                        open.push_back((next, trail.len() - 1));
                    }
                }
            }
        }
    }
    found
}
