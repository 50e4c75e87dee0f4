//! Which rule of a `rename` or `map` takes each key: the first that fits, found in one look at the
//! key. The same look tells which keys are results already.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use crate::check::takes::Named;
use crate::check::value::{Environment, Scope};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::{NOT_ONE_TO_ONE, PADDED_NUMBER};
use crate::key::{Binding, Bindings, Key, Pattern, PatternSet, Segments, Slot};
use crate::plan::bind::{BoundRule, Looked};
use crate::plan::context::{Context, with_environment};
use crate::plan::counted;
use crate::plan::draft::Draft;

/// What one rule took.
#[derive(Default)]
pub(in crate::plan) struct Taken {
    /// Renames: the place of the entry and its new key.
    pub(in crate::plan) renames: Vec<(usize, Key)>,
    /// Maps: by the values of the shared captures, what each source took.
    pub(in crate::plan) instances: IndexMap<Vec<Binding>, Vec<Took>, foldhash::fast::RandomState>,
    /// Keys that fit and stay as they are: in both layouts their name is the same.
    pub(in crate::plan) same: Vec<Key>,
    /// Of the renames, those of keys that look like results of the rule, and would so again.
    pub(in crate::plan) again: usize,
}

/// What a condition that asks for keys of the result answered, of a key.
pub(super) struct Judged {
    pub(super) rule: usize,
    pub(super) source: usize,
    pub(super) key: Key,
    pub(super) held: bool,
}

/// The entries that one source of an instance took, with the values of its own captures, in the
/// order of the keys.
type Took = Vec<(Vec<Binding>, usize)>;

/// The same by the values.
pub(in crate::plan) type Members = BTreeMap<Vec<Binding>, usize>;

/// Looks at each key once: which rule takes it, and whether it is a result already.
pub(super) fn match_keys(
    context: &Context<'_>,
    draft: &mut Draft,
    bound: &[BoundRule<'_>],
    undone: &[BoundRule<'_>],
    scope: &Scope,
) -> Result<(Vec<Taken>, Vec<Judged>), Box<Diagnostic>> {
    let mut matching = Matching::new(bound, undone, scope);
    let mut segments = Segments::default();
    with_environment(context, draft, |environment| {
        for (place, entry) in draft.state.iter() {
            segments.split(&entry.key);
            let shape = &draft.graph.info(entry.node).shape;
            let looked = Looked { key: &entry.key, segments: &segments, shape };
            let hit = matching.take(place, &entry.key, &looked, environment)?;
            // What an earlier statement gave, or what has one name in both layouts, is no
            // evidence.
            if !hit.same && !entry.given {
                let repeated = context.repeated;
                matching.note_result(hit.rule, repeated, &entry.key, &looked, environment)?;
            }
        }
        Ok::<(), Box<Diagnostic>>(())
    })?;
    draft.evidence.already.extend(matching.already);
    draft.evidence.fresh |= matching.fresh;
    for (rule, keys) in matching.padded {
        draft.findings.push(padded(&bound[rule], &keys));
    }
    Ok((matching.taken, matching.judged))
}

/// Keys that a rule would take if their numbers were written as it writes them.
fn padded(bound: &BoundRule<'_>, keys: &[Key]) -> Diagnostic {
    let are = if keys.len() == 1 { "has a number" } else { "have numbers" };
    let message = format!(
        "{} that this rule would take {are} with leading zeros",
        counted(keys.len(), "key")
    );
    Diagnostic::warning(PADDED_NUMBER, message)
        .at(bound.rule.place.clone(), "takes numbers as they are counted")
        .keys(keys.iter().map(|key| key.as_str()))
        .hint("write `{l*}` where the number may have leading zeros: it is text then, the same on both sides")
}

/// What became of one key.
struct Hit {
    /// The rule that took it.
    rule: Option<usize>,
    /// Whether it fits a rename that gives it the name that it has.
    same: bool,
}

/// The rules of a statement, and what they found in the keys so far.
struct Matching<'a> {
    bound: &'a [BoundRule<'a>],
    /// The two-way ones, read the other way.
    undone: &'a [BoundRule<'a>],
    scope: &'a Scope,
    sources: SideSet,
    results: SideSet,
    /// For each rule that is named at all in its results, its inverse.
    inverses: Vec<Option<&'a BoundRule<'a>>>,
    /// For each source of each rule, the captures that tell its tensors apart.
    own: Vec<Vec<Vec<Slot>>>,
    candidates: Vec<u32>,
    bindings: Bindings,
    taken: Vec<Taken>,
    judged: Vec<Judged>,
    already: Vec<Key>,
    fresh: bool,
    /// By rule, keys that it would take but for leading zeros.
    padded: BTreeMap<usize, Vec<Key>>,
}

impl<'a> Matching<'a> {
    fn new(bound: &'a [BoundRule<'a>], undone: &'a [BoundRule<'a>], scope: &'a Scope) -> Self {
        let own = |bound: &BoundRule<'_>| {
            (0..bound.sources.len()).map(|source| own_slots(bound, source)).collect()
        };
        let mut rest = undone.iter().peekable();
        let inverses = bound
            .iter()
            .map(|bound| rest.next_if(|inverse| inverse.rule.id == bound.rule.id))
            .map(|inverse| inverse.filter(|inverse| inverse.takes_by_name(0)))
            .collect();
        Self {
            bound,
            undone,
            scope,
            sources: SideSet::new(bound),
            results: SideSet::new(undone),
            inverses,
            own: bound.iter().map(own).collect(),
            candidates: Vec::new(),
            bindings: Bindings::default(),
            taken: bound.iter().map(|_| Taken::default()).collect(),
            judged: Vec::new(),
            already: Vec::new(),
            fresh: false,
            padded: BTreeMap::new(),
        }
    }

    /// Gives a key to the first rule that takes it.
    fn take(
        &mut self,
        place: usize,
        key: &Key,
        looked: &Looked<'_>,
        environment: &Environment<'_>,
    ) -> Result<Hit, Box<Diagnostic>> {
        let mut hit = Hit { rule: None, same: false };
        self.sources.candidates(key, looked.segments, &mut self.candidates);
        for at in 0..self.candidates.len() {
            let (rule, source) = self.sources.places[self.candidates[at] as usize];
            let bound = &self.bound[rule];
            if !bound.fits(source, looked, &mut self.bindings) {
                continue;
            }
            let held = bound.holds(looked, &self.bindings, self.scope, environment)?;
            if bound.asks_result {
                self.judged.push(Judged { rule, source, key: key.clone(), held });
            }
            if !held {
                continue;
            }
            if !bound.rename {
                self.add_member(place, rule, source, key);
            } else if let Some(to) = bound.names.renamed(key, &self.bindings) {
                if to == **key {
                    self.taken[rule].same.push(key.clone());
                    hit.same = true;
                    return Ok(hit);
                }
                self.add_rename(place, rule, looked, to)?;
            } else {
                continue;
            }
            hit.rule = Some(rule);
            return Ok(hit);
        }
        if let Some(rule) = self.sources.but_for_zeros(key, self.bound, &mut self.bindings) {
            self.padded.entry(rule).or_default().push(key.clone());
        }
        Ok(hit)
    }

    fn add_rename(
        &mut self,
        place: usize,
        rule: usize,
        looked: &Looked<'_>,
        to: String,
    ) -> Result<(), Box<Diagnostic>> {
        if self.bound[rule].rule.ambiguous {
            reads_back(looked.key, &to, &self.bound[rule], self.undone)?;
        }
        let again = self.inverses[rule]
            .is_some_and(|inverse| grows(looked, &to, inverse, &mut self.bindings));
        self.taken[rule].again += usize::from(again);
        self.taken[rule].renames.push((place, Key::from(to)));
        Ok(())
    }

    fn add_member(&mut self, place: usize, rule: usize, source: usize, key: &str) {
        let bound = &self.bound[rule];
        let own = &self.own[rule][source];
        let values = |slots: &[Slot]| -> Vec<Binding> {
            slots.iter().map(|slot| owned(&self.bindings, *slot, key)).collect()
        };
        let members = self.taken[rule]
            .instances
            .entry(values(&bound.shared))
            .or_insert_with(|| vec![Vec::new(); bound.sources.len()]);
        members[source].push((values(own), place));
    }

    /// Takes note of a key that no rule took and that is a result already; and, where the stage was
    /// applied before, of one that a rule took and that is none.
    fn note_result(
        &mut self,
        rule: Option<usize>,
        repeated: bool,
        key: &Key,
        looked: &Looked<'_>,
        environment: &Environment<'_>,
    ) -> Result<(), Box<Diagnostic>> {
        match rule {
            None if !self.undone.is_empty() && self.is_result(true, looked, environment)? => {
                self.already.push(key.clone())
            }
            Some(rule) if repeated && !self.fresh => {
                self.fresh = !(self.is_result(false, looked, environment)?
                    || self.bound[rule].names.gives(looked.key, looked.segments))
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a key looks like a result; of those that are `named` only, like one with a name.
    fn is_result(
        &mut self,
        named: bool,
        looked: &Looked<'_>,
        environment: &Environment<'_>,
    ) -> Result<bool, Box<Diagnostic>> {
        self.results.candidates(looked.key, looked.segments, &mut self.candidates);
        for candidate in &self.candidates {
            let (rule, source) = self.results.places[*candidate as usize];
            let undone = &self.undone[rule];
            if (!named || undone.takes_by_name(source))
                && undone.matches(source, looked, &mut self.bindings, self.scope, environment)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a key that a rename takes looks like a result of it, and becomes a longer one.
fn grows(
    looked: &Looked<'_>,
    image: &str,
    inverse: &BoundRule<'_>,
    bindings: &mut Bindings,
) -> bool {
    let dots = |key: &str| key.bytes().filter(|byte| *byte == b'.').count();
    image.len() > looked.key.len()
        && dots(image) > dots(looked.key)
        && inverse.fits(0, looked, bindings)
}

/// Looks whether what a rename gives reads back as the key it came from.
fn reads_back(
    key: &str,
    image: &str,
    bound: &BoundRule<'_>,
    undone: &[BoundRule<'_>],
) -> Result<(), Box<Diagnostic>> {
    let Some(inverse) = undone.iter().find(|inverse| inverse.rule.id == bound.rule.id) else {
        return Ok(());
    };
    let (Some(read), Some(write)) = (
        inverse.names.sources.first().and_then(Named::pattern),
        inverse.names.targets.first().and_then(Named::pattern),
    ) else {
        return Ok(());
    };
    let mut segments = Segments::default();
    segments.split(image);
    let mut bindings = Bindings::new(bound.rule.captures.len());
    let back = read
        .matches(image, &segments, &mut bindings)
        .then(|| write.render(image, &bindings))
        .flatten();
    if back.as_deref() == Some(key) {
        return Ok(());
    }
    let reads = back
        .map_or_else(|| "doesn't read back".to_owned(), |back| format!("reads back as `{back}`"));
    Err(Box::new(
        Diagnostic::error(
            NOT_ONE_TO_ONE,
            format!("not one-to-one here: `{key}` becomes `{image}`, which {reads}"),
        )
        .at(bound.rule.place.clone(), "can't be inverted for this key")
        .keys([key])
        .hint("write `->` if the rule is meant to go one way, or name more of the key"),
    ))
}

/// A key with the numbers of its segments written without leading zeros, if one has any.
fn without_zeros(key: &str) -> Option<String> {
    let bytes = key.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let is_padding = |at: usize| bytes[at] == b'0' && digit(at + 1) && !(at > 0 && digit(at - 1));
    if !(0..bytes.len()).any(is_padding) {
        return None;
    }
    let mut plain = String::with_capacity(key.len());
    let mut leading = true;
    for (at, c) in key.char_indices() {
        leading &= c == '0' && digit(at + 1);
        if !leading {
            plain.push(c);
        }
        leading = !digit(at) || leading;
    }
    Some(plain)
}

/// The captures of a source that tell its tensors apart within an instance.
pub(super) fn own_slots(bound: &BoundRule<'_>, source: usize) -> Vec<Slot> {
    let pattern = bound.names.sources.get(source).and_then(Named::pattern);
    let slots = pattern.map(Pattern::slots).unwrap_or_default();
    slots.into_iter().filter(|slot| !bound.shared.contains(slot)).collect()
}

/// A binding that doesn't point into the key.
fn owned(bindings: &Bindings, slot: Slot, key: &str) -> Binding {
    match bindings.text(slot, key) {
        Some(text) => Binding::Owned(text.into()),
        None => bindings.get(slot).clone(),
    }
}

/// The sources of all rules of a group, found in one look at a key.
struct SideSet {
    set: PatternSet,
    /// Rule and source of each pattern of the set; regexes come after, tried on every key.
    places: Vec<(usize, usize)>,
    regexes: std::ops::Range<u32>,
}

impl SideSet {
    fn new(bound: &[BoundRule<'_>]) -> Self {
        let sides = || {
            bound.iter().enumerate().flat_map(|(rule, bound)| {
                bound.names.sources.iter().enumerate().map(move |(at, name)| (rule, at, name))
            })
        };
        let mut patterns: Vec<(&Pattern, (usize, usize))> = Vec::new();
        let mut regexes: Vec<(usize, usize)> = Vec::new();
        for (rule, at, name) in sides() {
            match name {
                Named::Pattern(pattern) => patterns.push((pattern, (rule, at))),
                Named::Regex(_) => regexes.push((rule, at)),
                Named::Made(_) => {}
            }
        }
        let set = PatternSet::new(patterns.iter().map(|(pattern, _)| *pattern));
        let mut places: Vec<(usize, usize)> =
            patterns.into_iter().map(|(_, place)| place).collect();
        let count = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let first = count(places.len());
        places.extend(regexes);
        let regexes = first..count(places.len());
        Self { set, places, regexes }
    }

    /// The first rule that would take a key if its numbers had no leading zeros.
    fn but_for_zeros(
        &self,
        key: &str,
        bound: &[BoundRule<'_>],
        bindings: &mut Bindings,
    ) -> Option<usize> {
        let key = without_zeros(key)?;
        let (mut segments, mut candidates) = (Segments::default(), Vec::new());
        segments.split(&key);
        let looked = Looked { key: &key, segments: &segments, shape: &[] };
        self.candidates(&key, &segments, &mut candidates);
        let places = candidates.iter().map(|candidate| self.places[*candidate as usize]);
        let counts = |(rule, source): &(usize, usize)| {
            bound[*rule].names.sources[*source].pattern().is_some_and(Pattern::has_index)
        };
        places
            .filter(counts)
            .find(|(rule, source)| bound[*rule].fits(*source, &looked, bindings))
            .map(|(rule, _)| rule)
    }

    /// Candidates in the order of the rules.
    fn candidates(&self, key: &str, segments: &Segments, candidates: &mut Vec<u32>) {
        self.set.candidates(key, segments, candidates);
        if !self.regexes.is_empty() {
            candidates.extend(self.regexes.clone());
            candidates.sort_by_key(|candidate| self.places[*candidate as usize]);
        }
    }
}
