//! Whether applying rules to their own output changes anything.
//!
//! Say that a second application takes a key. The first one gave it, or it would have been taken
//! then; so it looks like a result of the *maker*, the rule that changed it last, and fits a
//! *reader*, which stands no later. For each such pair of rules the languages are intersected. What
//! is proven so holds for every key, whatever conditions and ranges say, where no target manifest
//! moves prefixes.
//!
//! Nearly every rule with a `**` reads its own result if a name is doubled (`a.**` of `a.a.a.x`),
//! or if two rules of a group fit one key. Where only such keys are left, the proof holds for
//! *plain* keys, and says so: those in which the captures of each rule that takes them hold none of
//! the names, but for a `weight` or `bias` at the end, that the sources of its statement or an
//! earlier one have. A key that refutes is plain, and has been followed through the rules twice, by
//! rules that depend on nothing but keys.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::super::keys::Keys;
use super::super::reading::{Act, ReadRule, Reading, Statement};
use super::super::rules::pattern_of;
use super::super::rules::{CaptureKind, Direction, Rule, Rules, Selection, SideItem};
use super::alphabet::{Alphabet, MAX_SYMBOLS, accepts};
use super::automaton::{Automaton, Found, may_overlap, overlaps, search};
use super::effort::Effort;
use super::group::{Owned, weight_of_rule};
use super::nearby::Nearby;
use super::trace::{backward, captured, takes};
use crate::check::op::{Op, OpKind};
use crate::key::{Atom, Part, Pattern, Slot};
use crate::syntax::ast::Expr;

/// Witnesses that are followed for a pair of rules.
const WITNESSES: usize = 48;

/// Why nothing is said where the effort is spent.
const TOO_MUCH: &str = "there is too much to compare";

/// Whether applying rules to their own output changes anything.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Idempotence {
    /// No key is rewritten twice.
    Proven {
        /// Shown only for plain keys: the captures of each rule that takes one hold none of the
        /// names in the sources so far.
        plain: bool,
        /// A key that isn't so, and is rewritten twice.
        #[serde(skip_serializing_if = "Option::is_none")]
        except: Option<Twice>,
    },
    /// This key is, though it is plain.
    Refuted(Twice),
    /// It can't be told from the rules alone; the plan's verdict guards against it.
    Undecided {
        /// Why.
        because: String,
    },
}

/// A key that is rewritten twice.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Twice {
    /// A key of the source layout.
    pub key: String,
    /// What it becomes.
    pub once: String,
    /// What that becomes when the rules are applied again; the same, if only its tensor is changed
    /// again.
    pub twice: String,
}

/// A rule as it is read, and where it stands.
struct Placed<'r> {
    at: usize,
    rule: Cow<'r, Rule>,
    /// Whether the checkpoint's config decides that it is read at all.
    guarded: bool,
    /// Whether it takes each key that fits.
    certain: bool,
    weight: usize,
}

impl<'r> Placed<'r> {
    fn new(at: usize, rule: Cow<'r, Rule>, guarded: bool) -> Self {
        Self {
            at,
            guarded,
            certain: !guarded && takes_for_certain(&rule),
            weight: weight_of_rule(&rule),
            rule,
        }
    }

    fn has_regex(&self) -> bool {
        self.rule.left.iter().any(|side| matches!(side.item, SideItem::Regex(_)))
    }
}

/// What takes keys away or shortens them.
struct Taker<'r> {
    at: usize,
    text: &'r str,
    kind: TakerKind<'r>,
}

enum TakerKind<'r> {
    Drop(&'r Selection),
    Keep,
    Strip { wrappers: &'r [Vec<String>], leading: bool },
}

/// The statements of a file in the order in which they are read.
struct Program<'r> {
    rules: Vec<Placed<'r>>,
    takers: Vec<Taker<'r>>,
    /// Keys that are made from nothing, or by a tie.
    made: Vec<(usize, &'r str, &'r Pattern)>,
    open: Option<String>,
    effort: Effort,
}

impl<'r> Program<'r> {
    fn of(rules: &'r Rules, direction: Direction) -> Self {
        let (placed, takers, made) = (Vec::new(), Vec::new(), Vec::new());
        let mut program =
            Self { rules: placed, takers, made, open: None, effort: Effort::of_proof() };
        for (at, statement) in Reading::of(rules, direction).everywhere().into_iter().enumerate() {
            program.read(at, &statement);
        }
        program
    }

    fn open(&mut self, because: impl FnOnce() -> String) {
        self.open.get_or_insert_with(because);
    }

    fn read(&mut self, at: usize, statement: &Statement<'r>) {
        let step = statement.step;
        let forward = statement.direction == Direction::Forward;
        let mut taker = |kind| self.takers.push(Taker { at, text: &step.text, kind });
        match &statement.act {
            Act::Rewrite(rewrite) => {
                let guarded = !statement.guards.is_empty();
                let rule = |read: ReadRule<'r>| match read.direction {
                    Direction::Forward => Cow::Borrowed(read.rule),
                    Direction::Reverse => Cow::Owned(turned(read.rule)),
                };
                self.rules.extend(rewrite.rules().map(|read| Placed::new(at, rule(read), guarded)));
            }
            Act::StripAnywhere { wrappers } => taker(TakerKind::Strip { wrappers, leading: false }),
            Act::StripLeading { wrappers, .. } => {
                taker(TakerKind::Strip { wrappers, leading: true })
            }
            Act::Drop(keys) if forward => taker(TakerKind::Drop(keys)),
            Act::Keep(_) if forward => taker(TakerKind::Keep),
            Act::Create { target, .. } if forward => self.made.push((at, &step.text, target)),
            Act::Create { .. } => {
                self.open(|| format!("`{}`, read backwards, takes a key away", step.text))
            }
            Act::Tie(tie) => {
                let patterns = tie.targets.iter().chain(&tie.sources).map(Keys::without_ranges);
                self.made.extend(patterns.map(|pattern| (at, step.text.as_str(), pattern)));
            }
            // What config.json decides, it decides both times. The branches come as statements.
            Act::When { condition, .. } => {
                if condition.asks_layout(&|_| None) || names_something(condition) {
                    self.open(|| "a `when` may be decided by the keys themselves".to_owned());
                }
            }
            Act::Prefix(_)
            | Act::Drop(_)
            | Act::Keep(_)
            | Act::Cast { .. }
            | Act::Expect { .. } => {}
        }
    }
}

/// A program with what finds its rules and names.
struct Lookup<'p> {
    rules: &'p [Placed<'p>],
    program: &'p Program<'p>,
    sources: Owned,
    has_regex: bool,
    /// What the sources name: literal segments and words, but no bare numbers. Each once, with the
    /// first statement that has it.
    names: Vec<(usize, &'p Part)>,
    /// The literals of them.
    literals: HashMap<&'p str, usize>,
}

impl<'p> Lookup<'p> {
    fn new(program: &'p Program<'p>) -> Self {
        let rules = &program.rules[..];
        let mut known = HashSet::new();
        let all = rules.iter().flat_map(|placed| names(&placed.rule).map(|part| (placed.at, part)));
        let names: Vec<(usize, &Part)> = all.filter(|(_, part)| known.insert(*part)).collect();
        let literal = |(at, part): &(usize, &'p Part)| {
            if let Part::Literal(text) = part { Some((&**text, *at)) } else { None }
        };
        Self {
            sources: Owned::new(
                rules.iter().enumerate().map(|(number, placed)| (number, &placed.rule.left[..])),
            ),
            has_regex: rules.iter().any(Placed::has_regex),
            literals: names.iter().filter_map(literal).collect(),
            names,
            rules,
            program,
        }
    }

    fn effort(&self) -> &'p Effort {
        &self.program.effort
    }

    /// A key through all rules once, with the rules that took it; `None` where a statement takes it
    /// away or shortens it, or where it grows beyond reason.
    fn through(&self, key: &str) -> Option<(String, Vec<(&'p Placed<'p>, String)>)> {
        let (mut key, mut by) = (key.to_owned(), Vec::new());
        let mut from = 0;
        loop {
            let mut takers = self
                .sources
                .of(&key)
                .into_iter()
                .skip_while(|number| *number < from)
                .map(|number| &self.rules[number]);
            let taken = takers.find_map(|placed| {
                let next = self.effort().spend(placed.weight).then(|| takes(&placed.rule, &key))?;
                Some((placed, next?))
            });
            if self.effort().is_spent() {
                return None;
            }
            let Some((placed, next)) = taken else { return Some((key, by)) };
            // The plan refuses a key that doesn't read back.
            let ambiguous =
                placed.rule.ambiguous && backward(&placed.rule, &next).as_ref() != Some(&key);
            if placed.guarded
                || ambiguous
                || !depends_on_keys_alone(&placed.rule)
                || next.len() > 4096
            {
                return None;
            }
            by.push((placed, std::mem::replace(&mut key, next)));
            from = self.rules.partition_point(|other| other.at <= placed.at);
        }
    }

    /// A key that is rewritten twice, and whether it is plain.
    fn twice(&self, key: String) -> Option<(Twice, bool)> {
        if !self.program.takers.is_empty() || self.takes_part(&key) || self.has_regex {
            return None;
        }
        let (once, by) = self.through(&key)?;
        let (twice, again) = self.through(&once)?;
        if by.is_empty() || again.is_empty() {
            return None;
        }
        let plain = by.iter().all(|(placed, key)| self.is_plain(placed, key));
        Some((Twice { key, once, twice }, plain))
    }

    /// What the sources name up to a statement.
    fn names(&self, at: usize) -> impl Iterator<Item = &'p Part> {
        self.names.iter().take_while(move |(first, _)| *first <= at).map(|(_, part)| *part)
    }

    /// Whether the captures of a rule that takes a key hold none of the names of the sources so
    /// far, but for what nearly every key ends with.
    fn is_plain(&self, placed: &Placed<'_>, key: &str) -> bool {
        let held = captured(&placed.rule, key);
        let others = || self.names(placed.at).filter(|part| !matches!(part, Part::Literal(_)));
        let literal =
            |segment: &str| self.literals.get(segment).is_some_and(|first| *first <= placed.at);
        let named = |segment: &str| {
            literal(segment)
                || !self.effort().spend(self.names.len())
                || others().any(|part| accepts(part, segment))
        };
        held.iter().all(|text| {
            let text = match text.rsplit_once('.').unwrap_or(("", text)) {
                (rest, leaf) if is_leaf(leaf) && key.ends_with(text.as_str()) => rest,
                _ => text,
            };
            !text.split('.').any(named)
        })
    }

    /// Whether a tie or a `create` speaks of a key.
    fn takes_part(&self, key: &str) -> bool {
        let made = &self.program.made;
        !self.effort().spend(made.len())
            || made.iter().any(|(_, _, pattern)| super::trace::fits(pattern, key))
    }
}

/// A plain key that one of the rules, read backwards, takes again after it gave it: `"rank0.**" <->
/// "**"` makes `rank0.rank0.x` of `x`. Only each rule with itself is looked at.
///
/// # Errors
/// Why it isn't known, where there is too much to look at.
pub fn repeats_backwards(rules: &Rules) -> Result<Option<Twice>, String> {
    let program = Program::of(rules, Direction::Reverse);
    let lookup = Lookup::new(&program);
    for rule in lookup.rules {
        let found = witnesses(&lookup, rule, rule)
            .into_iter()
            .find_map(|(found, plain)| plain.then_some(found));
        if found.is_some() {
            return Ok(found);
        }
        if lookup.effort().is_spent() {
            return Err(TOO_MUCH.to_owned());
        }
    }
    Ok(None)
}

/// Whether applying the rules to their own output changes anything.
pub fn idempotence(rules: &Rules) -> Idempotence {
    let mut program = Program::of(rules, Direction::Forward);
    let (mut plain, mut except) = (false, None);
    let mut open = program.open.take();
    let lookup = Lookup::new(&program);
    let effort = lookup.effort();
    let mut nearby = Nearby::default();
    for (number, placed) in program.rules.iter().enumerate() {
        placed
            .rule
            .left
            .iter()
            .filter_map(pattern_of)
            .for_each(|source| nearby.add(source, number));
    }
    for maker in &program.rules {
        for reader in
            readers(&lookup, &nearby, maker).into_iter().map(|number| &program.rules[number])
        {
            if !effort.spend(1) {
                return Idempotence::Undecided {
                    because: open.unwrap_or_else(|| TOO_MUCH.to_owned()),
                };
            }
            match meet(&lookup, maker, reader) {
                Meeting::Never => continue,
                Meeting::Doubled => {
                    plain = true;
                    if except.is_some() {
                        continue;
                    }
                }
                Meeting::Possible => {
                    open.get_or_insert_with(|| {
                        format!("`{}` may read what `{}` gives", reader.rule.text, maker.rule.text)
                    });
                }
            }
            for (found, is_plain) in witnesses(&lookup, maker, reader) {
                if is_plain {
                    return Idempotence::Refuted(found);
                }
                except.get_or_insert(found);
            }
        }
        for taker in program.takers.iter().filter(|taker| taker.at <= maker.at) {
            if open.is_none() && may_take(taker, &maker.rule, effort) {
                open = Some(format!("`{}` may take what `{}` gives", taker.text, maker.rule.text));
            }
        }
    }
    for (at, text, pattern) in &program.made {
        let read = program.rules.iter().filter(|reader| reader.at <= *at).find(|reader| {
            let sources = reader.rule.left.iter().filter_map(pattern_of);
            !sources
                .into_iter()
                .all(|source| apart(pattern, source, &reader.rule.unless_left, effort))
        });
        if let Some(reader) = read.filter(|_| open.is_none()) {
            open = Some(format!("`{}` may read what `{text}` gives", reader.rule.text));
        }
    }
    let open = open.or_else(|| effort.is_spent().then(|| TOO_MUCH.to_owned()));
    match open {
        Some(because) => Idempotence::Undecided { because },
        None => Idempotence::Proven { plain, except },
    }
}

/// Rules that may read what another gives: those whose sources may fit its results, and stand no
/// later. Where a rule has a regex, any may.
fn readers(lookup: &Lookup<'_>, nearby: &Nearby<'_>, maker: &Placed<'_>) -> Vec<usize> {
    let end = lookup.rules.partition_point(|reader| reader.at <= maker.at);
    if lookup.has_regex {
        return (0..end).collect();
    }
    let images = maker.rule.right.iter().filter_map(pattern_of);
    let mut found: Vec<usize> = images
        .flat_map(|image| nearby.of(image, lookup.effort()))
        .filter(|number| *number < end)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// How the results of one rule meet the sources of another.
enum Meeting {
    Never,
    /// Only if a capture of the maker holds one of its own names.
    Doubled,
    Possible,
}

fn meet(lookup: &Lookup<'_>, maker: &Placed<'_>, reader: &Placed<'_>) -> Meeting {
    let effort = lookup.effort();
    let mut meeting = Meeting::Never;
    if reader.has_regex() {
        return Meeting::Possible;
    }
    for image in maker.rule.right.iter().filter_map(pattern_of) {
        for source in reader.rule.left.iter().filter_map(pattern_of) {
            // A regex of the maker may put dots where its groups stand.
            if maker.has_regex() {
                return Meeting::Possible;
            }
            if apart(image, source, &reader.rule.unless_left, effort) {
                continue;
            }
            // What a later statement takes for certain is not what the first application gives in
            // the end.
            let from = lookup.rules.partition_point(|later| later.at <= maker.at);
            let names: Vec<&Part> = lookup.names(maker.at).collect();
            if !effort.spend(lookup.rules.len() - from + names.len())
                || names.iter().filter(|part| matches!(part, Part::Literal(_))).count()
                    > MAX_SYMBOLS
            {
                return Meeting::Possible;
            }
            let later: Vec<&Pattern> = lookup.rules[from..]
                .iter()
                .filter(|later| later.certain)
                .flat_map(|later| later.rule.left.iter().filter_map(pattern_of))
                .collect();
            let excluded: Vec<&Pattern> = certain(&reader.rule.unless_left).chain(later).collect();
            let named: Vec<Pattern> =
                names.iter().map(|part| Pattern::new(vec![(*part).clone()])).collect();
            let patterns: Vec<&Pattern> =
                [image, source].into_iter().chain(excluded.iter().copied()).collect();
            let all: Vec<&Pattern> = patterns.iter().copied().chain(&named).collect();
            let alphabet = Alphabet::new(&all, effort);
            if !alphabet.is_exact(&all) {
                return Meeting::Possible;
            }
            let automata: Option<Vec<Automaton<'_>>> =
                patterns.iter().map(|pattern| Automaton::new(pattern, &alphabet, effort)).collect();
            let Some(mut automata) = automata else { return Meeting::Possible };
            let own: Vec<bool> = alphabet
                .symbols()
                .iter()
                .map(|symbol| names.iter().any(|part| accepts(part, symbol)))
                .collect();
            automata[0].restrict_captures(&own, |symbol| is_leaf(&alphabet.symbols()[symbol]));
            match search(&automata, &alphabet, effort, |accepted| {
                accepted[0] && accepted[1] && !accepted[2..].contains(&true)
            }) {
                Found::Nothing => meeting = Meeting::Doubled,
                Found::Key(_) | Found::Unknown => return Meeting::Possible,
            }
        }
    }
    meeting
}

/// Whether no key fits both patterns and none of the exceptions; `false` if that isn't certain.
fn apart(image: &Pattern, source: &Pattern, unless: &[Keys], effort: &Effort) -> bool {
    if !may_overlap(image.parts(), source.parts(), effort) {
        return true;
    }
    let patterns: Vec<&Pattern> = [image, source].into_iter().chain(certain(unless)).collect();
    let alphabet = Alphabet::new(&patterns, effort);
    if !alphabet.is_exact(&patterns) {
        return false;
    }
    let automata: Option<Vec<Automaton<'_>>> =
        patterns.iter().map(|pattern| Automaton::new(pattern, &alphabet, effort)).collect();
    let Some(automata) = automata else { return false };
    let meets = search(&automata, &alphabet, effort, |accepted| {
        accepted[0] && accepted[1] && !accepted[2..].contains(&true)
    });
    meets == Found::Nothing
}

fn fits_both(key: &str, patterns: [&Pattern; 2]) -> bool {
    patterns.iter().all(|pattern| super::trace::fits(pattern, key))
}

/// Keys that a reader may take after a maker gave them, as sources of the maker; each followed
/// through all rules.
fn witnesses(lookup: &Lookup<'_>, maker: &Placed<'_>, reader: &Placed<'_>) -> Vec<(Twice, bool)> {
    let effort = lookup.effort();
    let mut found = Vec::new();
    for image in maker.rule.right.iter().filter_map(pattern_of) {
        for source in reader.rule.left.iter().filter_map(pattern_of) {
            let unless = &reader.rule.unless_left;
            let patterns: Vec<&Pattern> = [image, source]
                .into_iter()
                .chain(unless.iter().map(Keys::without_ranges))
                .collect();
            let alphabet = Alphabet::new(&patterns, effort);
            let automata: Option<Vec<Automaton<'_>>> =
                patterns.iter().map(|pattern| Automaton::new(pattern, &alphabet, effort)).collect();
            let mut keys = overlaps(image, source, false, &alphabet, effort, WITNESSES);
            let fits =
                |accepted: &[bool]| accepted[0] && accepted[1] && !accepted[2..].contains(&true);
            if let Some(Found::Key(key)) =
                automata.map(|automata| search(&automata, &alphabet, effort, fits))
            {
                keys.insert(0, key);
            }
            // A capture that may be empty is so in the shortest keys, of which nothing may be left.
            let longer: Vec<String> = keys.iter().take(1).map(|key| format!("{key}.w")).collect();
            let longer = longer.into_iter().filter(|key| fits_both(key, [image, source]));
            found.extend(keys.iter().cloned().chain(longer).filter_map(|key| {
                if !effort.spend(maker.weight) {
                    return None;
                }
                // A map may give the key that it takes.
                let before = backward(&maker.rule, &key)
                    .or_else(|| (!maker.rule.is_rename()).then(|| key.clone()))?;
                lookup.twice(before)
            }));
        }
    }
    // A plain one tells more.
    found.sort_by_key(|(_, plain)| !plain);
    found
}

/// The patterns of exceptions that certainly match what an automaton says they do: a range may
/// forbid it, and so may a name that stands twice.
fn certain(exceptions: &[Keys]) -> impl Iterator<Item = &Pattern> {
    exceptions.iter().map(Keys::without_ranges).filter(|pattern| is_certain(pattern))
}

fn is_certain(pattern: &Pattern) -> bool {
    let atoms = pattern.parts().iter().flat_map(|part| match part {
        Part::Segment(atoms) => atoms.to_vec(),
        _ => Vec::new(),
    });
    let rests = pattern
        .parts()
        .iter()
        .filter_map(|part| if let Part::Rest(slot) = part { Some(*slot) } else { None });
    let mut slots: Vec<Slot> = atoms.clone().filter_map(|atom| atom.slot()).chain(rests).collect();
    let count = slots.len();
    slots.sort_unstable();
    slots.dedup();
    slots.len() == count && !atoms.into_iter().any(|atom| matches!(atom, Atom::Index { .. }))
}

/// Whether a rule takes each key that fits its source: nothing but the key decides.
fn takes_for_certain(rule: &Rule) -> bool {
    let plain = |pattern: &Pattern| {
        pattern.parts().iter().all(|part| match part {
            Part::Segment(atoms) => atoms.iter().all(
                |atom| !matches!(atom, Atom::Index { mul, add, .. } if (*mul, *add) != (1, 0)),
            ),
            _ => true,
        })
    };
    let sources: Vec<&Pattern> = rule.left.iter().filter_map(pattern_of).collect();
    rule.condition.is_none()
        && rule.unless_left.is_empty()
        && rule.unless_right.is_empty()
        && rule.captures.iter().all(|capture| match &capture.kind {
            CaptureKind::Index(_) => false,
            CaptureKind::Words { left, right } => left == right,
            CaptureKind::Chars | CaptureKind::Rest => true,
        })
        && sources.iter().all(|pattern| is_certain(pattern))
        && rule.left.iter().chain(&rule.right).filter_map(pattern_of).all(plain)
        // A result that is the key itself is no change; with other names around the captures it
        // can't be.
        && rule.is_rename()
        && sources.first().is_some_and(|left| rule.right.iter().filter_map(pattern_of).all(|right| literals(left) != literals(right)))
}

fn literals(pattern: &Pattern) -> Vec<&str> {
    let mut found: Vec<&str> = pattern
        .parts()
        .iter()
        .filter_map(|part| if let Part::Literal(text) = part { Some(&**text) } else { None })
        .collect();
    found.sort_unstable();
    found
}

/// Whether a witness may go by a rule: nothing but keys decides, and one key is a whole instance of
/// it.
fn depends_on_keys_alone(rule: &Rule) -> bool {
    rule.condition.is_none()
        && rule.captures.iter().all(|capture| !capture.has_range() && capture.left == capture.right)
        && rule.left.len() == 1
        && rule.right.len() == 1
        && rule
            .joint
            .iter()
            .chain(rule.left.iter().chain(&rule.right).flat_map(|side| &side.ops))
            .all(|used| fits_all(&used.op))
}

/// Whether an op fits any matrix of floats.
fn fits_all(op: &Op<Expr>) -> bool {
    use OpKind::{Add, Div, Exp, Log, Mul, Neg, Sub, Transpose};
    matches!(op.kind, Transpose | Add | Sub | Mul | Div | Neg | Exp | Log)
}

/// What nearly every key ends with.
fn is_leaf(segment: &str) -> bool {
    matches!(segment, "weight" | "bias")
}

/// What a rule's sources name.
fn names(rule: &Rule) -> impl Iterator<Item = &Part> {
    rule.left.iter().filter_map(pattern_of).flat_map(Pattern::parts).filter(|part| match part {
        Part::Literal(_) => true,
        Part::Segment(atoms) => {
            !atoms.iter().any(|atom| matches!(atom, Atom::Chars(_)))
                && atoms.iter().any(|atom| matches!(atom, Atom::Text(_) | Atom::Words { .. }))
        }
        Part::Rest(_) => false,
    })
}

/// Whether a statement that takes keys away, or shortens them, may do so with a result of a rule.
fn may_take(taker: &Taker<'_>, maker: &Rule, effort: &Effort) -> bool {
    let mut images = maker.right.iter().filter_map(pattern_of);
    match &taker.kind {
        TakerKind::Drop(keys) => images.any(|image| {
            !keys.keys.iter().all(|one| apart(image, one.without_ranges(), &keys.unless, effort))
        }),
        // Everything that isn't kept goes.
        TakerKind::Keep => true,
        // Strips go to a fixed point, so only a rule can put a wrapper there again.
        TakerKind::Strip { wrappers, leading } => {
            let gives = |part: &Part, segment: &str| {
                !matches!(part, Part::Rest(_)) && accepts(part, segment)
            };
            let wrapped = |image: &Pattern| {
                wrappers.iter().any(|wrapper| {
                    wrapper.len() > 1
                        || image
                            .parts()
                            .iter()
                            .any(|part| wrapper.iter().any(|segment| gives(part, segment)))
                })
            };
            let same_start = maker.left.iter().filter_map(pattern_of).all(|left| {
                maker.right.iter().filter_map(pattern_of).all(|right| {
                    match (left.parts().first(), right.parts().first()) {
                        (left, right @ Some(Part::Rest(_))) => left == right,
                        (_, Some(_)) => true,
                        (_, None) => false,
                    }
                })
            });
            images.any(wrapped) || (*leading && !same_start)
        }
    }
}

/// A rule as reading backwards sees it.
fn turned(rule: &Rule) -> Rule {
    Rule {
        left: rule.right.clone(),
        right: rule.left.clone(),
        unless_left: rule.unless_right.clone(),
        unless_right: rule.unless_left.clone(),
        captures: rule
            .captures
            .iter()
            .map(|one| super::super::rules::Capture {
                left: one.right,
                right: one.left,
                ..one.clone()
            })
            .collect(),
        ..rule.clone()
    }
}

/// Whether a condition has a name, behind which a question about keys may stand.
fn names_something(condition: &crate::syntax::ast::Expr) -> bool {
    let mut found = Vec::new();
    super::super::value::names(condition, &mut found);
    !found.is_empty()
}
