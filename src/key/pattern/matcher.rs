//! [`Matcher`]: the search for a way to divide a key among the parts of a pattern.

use std::collections::HashSet;

use super::{Atom, Binding, Bindings, Number, Part, Reach, Segments, Slot};

/// Solves `mul * n + add == number` for a whole `n >= 0`.
fn solve(number: u64, mul: i64, add: i64) -> Option<u64> {
    let rest = i64::try_from(number).ok()?.checked_sub(add)?;
    if rest.checked_rem(mul)? != 0 {
        return None;
    }
    u64::try_from(rest.checked_div(mul)?).ok()
}

/// What is left of a segment.
#[derive(Clone, Copy)]
struct Text<'a> {
    segment: usize,
    /// Where it begins in the key.
    start: usize,
    text: &'a str,
}

impl Text<'_> {
    /// Without so many bytes at its start.
    fn after(self, bytes: usize) -> Self {
        Self { start: self.start + bytes, text: &self.text[bytes..], ..self }
    }
}

/// One look at a key: how it is divided among the parts of a pattern.
pub(super) struct Matcher<'a> {
    key: &'a str,
    segments: &'a Segments,
    /// How far it got.
    pub(super) reach: Reach,
    /// For patterns with many ways to divide a key: what of the pattern (by its address) doesn't
    /// match from which place on. Without it, keys of a thousand segments would be divided in some
    /// hundred million ways, and `{a: x|xx}{b: x|xx}…` in ways that double with each.
    failed: Option<HashSet<(usize, usize), foldhash::fast::RandomState>>,
}

impl<'a> Matcher<'a> {
    /// For a key; `forks` tells that there may be many ways to divide it.
    pub(super) fn new(key: &'a str, segments: &'a Segments, forks: bool) -> Self {
        Self { key, segments, reach: Reach::default(), failed: forks.then(HashSet::default) }
    }

    /// Matches all parts but the first `done` against the segments from `at` on.
    pub(super) fn parts(
        &mut self,
        parts: &[Part],
        done: usize,
        at: usize,
        bindings: &mut Bindings,
    ) -> bool {
        self.reach = self.reach.max(Reach { parts: done, segment: at });
        let count = self.segments.len();
        let Some(part) = parts.get(done) else { return at == count };
        match part {
            Part::Literal(text) => {
                at < count
                    && self.segments.get(self.key, at) == &**text
                    && self.parts(parts, done + 1, at + 1, bindings)
            }
            Part::Segment(atoms) => {
                if at >= count {
                    return false;
                }
                let segment = self.segments.get(self.key, at);
                let start = self.segments.start(at);
                let text = Text { segment: at, start, text: segment };
                self.atoms(atoms, text, bindings, &mut |this, bindings, last| {
                    this.parts(parts, done + 1, last + 1, bindings)
                })
            }
            Part::Rest(slot) => {
                let after = &parts[done + 1..];
                let fixed = after.len();
                if after.iter().any(Part::is_wide) {
                    let place = (parts[done..].as_ptr().addr(), at);
                    if self.has_failed(place) {
                        return false;
                    }
                    let found =
                        (at..=count).any(|end| self.rest(parts, done, at, end, *slot, bindings));
                    self.failed.as_mut().filter(|_| !found).map(|failed| failed.insert(place));
                    found
                } else {
                    // What follows takes one segment each, so there is only one place where it can
                    // start.
                    match count.checked_sub(fixed) {
                        Some(end) if end >= at => self.rest(parts, done, at, end, *slot, bindings),
                        _ => false,
                    }
                }
            }
        }
    }

    fn has_failed(&self, place: (usize, usize)) -> bool {
        self.failed.as_ref().is_some_and(|failed| failed.contains(&place))
    }

    fn rest(
        &mut self,
        parts: &[Part],
        done: usize,
        at: usize,
        end: usize,
        slot: Slot,
        bindings: &mut Bindings,
    ) -> bool {
        let (from, to) = self.segments.range(at, end);
        self.bind(slot, text_binding(from, to), bindings, &mut |this, bindings| {
            this.parts(parts, done + 1, end, bindings)
        })
    }

    /// Matches atoms against the text of a segment, and of those after it where a word goes on there;
    /// then goes on after the last of them.
    fn atoms(
        &mut self,
        atoms: &[Atom],
        from: Text<'a>,
        bindings: &mut Bindings,
        then: &mut dyn FnMut(&mut Self, &mut Bindings, usize) -> bool,
    ) -> bool {
        let Text { segment, start, text } = from;
        let Some((atom, others)) = atoms.split_first() else {
            return text.is_empty() && then(self, bindings, segment);
        };
        match atom {
            Atom::Text(literal) => {
                text.starts_with(&**literal)
                    && self.atoms(others, from.after(literal.len()), bindings, then)
            }
            Atom::Index { slot, mul, add, range } => {
                let Some((number, digits)) = leading_number(text) else { return false };
                let Some(value) = solve(number, *mul, *add) else { return false };
                if range.as_ref().is_some_and(|range| !range.contains(&value)) {
                    return false;
                }
                self.bind(*slot, Binding::Index(value), bindings, &mut |this, bindings| {
                    this.atoms(others, from.after(digits), bindings, then)
                })
            }
            Atom::Calculated { number, .. } => {
                let Some((found, digits)) = leading_number(text) else { return false };
                let solved = match number {
                    Number::Sum(sum) => sum.solve(found),
                    Number::Calculation(_) | Number::Unknown => Some(Vec::new()),
                };
                let Some(solved) = solved else { return false };
                self.bind_all(&solved, bindings, &mut |this, bindings| {
                    this.atoms(others, from.after(digits), bindings, then)
                })
            }
            Atom::Chars(slot) => {
                if others.is_empty() {
                    let whole = text_binding(start, start + text.len());
                    return !text.is_empty()
                        && self.bind(*slot, whole, bindings, &mut |this, bindings| {
                            then(this, bindings, segment)
                        });
                }
                let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
                for end in ends {
                    let bound = text_binding(start, start + end);
                    if self.bind(*slot, bound, bindings, &mut |this, bindings| {
                        this.atoms(others, from.after(end), bindings, then)
                    }) {
                        return true;
                    }
                }
                false
            }
            Atom::Words { slot, words } => {
                let place = (atoms.as_ptr().addr(), start);
                if self.has_failed(place) {
                    return false;
                }
                for (which, word) in words.iter().enumerate() {
                    let Some(rest) = self.after_word(from, word) else { continue };
                    let bound = Binding::Word(u16::try_from(which).unwrap_or(u16::MAX));
                    if self.bind(*slot, bound, bindings, &mut |this, bindings| {
                        this.atoms(others, rest, bindings, then)
                    }) {
                        return true;
                    }
                }
                self.failed.as_mut().map(|failed| failed.insert(place));
                false
            }
        }
    }

    /// What follows a word in the last segment that it reaches.
    fn after_word(&self, from: Text<'a>, word: &str) -> Option<Text<'a>> {
        let dots = word.bytes().filter(|byte| *byte == b'.').count();
        if dots == 0 {
            return from.text.starts_with(word).then(|| from.after(word.len()));
        }
        let segment = from.segment + dots;
        if segment >= self.segments.len() || !self.key.get(from.start..)?.starts_with(word) {
            return None;
        }
        let start = from.start + word.len();
        let (_, end) = self.segments.range(segment, segment + 1);
        Some(Text { segment, start, text: self.key.get(start..end)? })
    }

    /// Binds slots to numbers, and goes on.
    fn bind_all(
        &mut self,
        solved: &[(Slot, u64)],
        bindings: &mut Bindings,
        then: &mut dyn FnMut(&mut Self, &mut Bindings) -> bool,
    ) -> bool {
        let Some(((slot, value), others)) = solved.split_first() else {
            return then(self, bindings);
        };
        self.bind(*slot, Binding::Index(*value), bindings, &mut |this, bindings| {
            this.bind_all(others, bindings, then)
        })
    }

    /// Binds a slot, goes on, and takes the binding back if that fails. A slot that is bound
    /// already must agree.
    fn bind(
        &mut self,
        slot: Slot,
        binding: Binding,
        bindings: &mut Bindings,
        then: &mut dyn FnMut(&mut Self, &mut Bindings) -> bool,
    ) -> bool {
        match bindings.get(slot) {
            Binding::Unbound => {
                bindings.set(slot, binding);
                if then(self, bindings) {
                    return true;
                }
                bindings.set(slot, Binding::Unbound);
                false
            }
            bound => {
                let equal = match (bound, &binding) {
                    (Binding::Text(..), Binding::Text(start, end)) => {
                        bindings.text(slot, self.key)
                            == self.key.get(*start as usize..*end as usize)
                    }
                    (bound, binding) => bound == binding,
                };
                equal && then(self, bindings)
            }
        }
    }
}

fn text_binding(start: usize, end: usize) -> Binding {
    #[allow(clippy::cast_possible_truncation)]
    Binding::Text(start as u32, end as u32)
}

/// The decimal number that text begins with, without leading zeros, and how long it is.
fn leading_number(text: &str) -> Option<(u64, usize)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = &text[..digits];
    if digits > 1 && number.starts_with('0') {
        return None;
    }
    Some((number.parse().ok()?, digits))
}
