//! `rename` and `map`: one pass over the keys finds the first rule that takes each, and looks for
//! keys that are results already.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use crate::check::value::Scope;
use crate::check::{Direction, Rule};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::{NOT_ONE_TO_ONE, PADDED_NUMBER, TAKEN_AGAIN, UNDECIDED};
use crate::key::{Binding, Bindings, Key, Pattern, PatternSet, Segments, Slot};
use crate::plan::bind::{BoundItem, BoundRule, BoundSide, Looked, bind};
use crate::plan::context::{Context, with_environment};
use crate::plan::draft::{Draft, Rewriter};
use crate::plan::pass::instance::instance;
use crate::plan::pass::lossy::leave_one_way;
use crate::plan::state::Entry;
use crate::plan::{Renamed, counted};

/// What one rule took.
#[derive(Default)]
struct Taken {
    /// Renames: the place of the entry and its new key.
    renames: Vec<(usize, String)>,
    /// Maps: by the values of the shared captures.
    instances: IndexMap<Vec<Binding>, Vec<Members>, foldhash::fast::RandomState>,
    /// Keys that fit and stay as they are: in both layouts their name is the same.
    same: usize,
    /// Of the renames, those of keys that look like results of the rule, and would so again.
    again: usize,
}

/// What a condition that asks for keys of the result answered, of a key.
struct Asked {
    rule: usize,
    source: usize,
    key: Key,
    held: bool,
}

/// The entries that one source of an instance took, by the values of its own captures.
pub(super) type Members = BTreeMap<Vec<Binding>, usize>;

pub(in crate::plan) fn rewrite(
    context: &Context<'_>,
    draft: &mut Draft,
    rules: &[Rule],
    scope: &Scope,
    direction: Direction,
) -> Result<(), Box<Diagnostic>> {
    use crate::syntax::ast::Arrow;
    // A one-way rule isn't read backwards; what it would have to undo stays as it is.
    let readable: Vec<(usize, &Rule)> = rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| direction == Direction::Forward || rule.arrow == Arrow::TwoWay)
        .collect();
    draft.evidence.rewrites += usize::from(!readable.is_empty());
    draft.evidence.needed += readable.iter().filter(|(_, rule)| !rule.optional).count();
    let bound = with_environment(context, draft, |environment| {
        readable
            .iter()
            .map(|(_, rule)| bind(rule, scope, environment, direction))
            .collect::<Result<Vec<_>, _>>()
    })?;
    // Looked for among what no rule takes: keys that are results already.
    let undone = with_environment(context, draft, |environment| {
        readable
            .iter()
            .filter(|(_, rule)| rule.arrow == Arrow::TwoWay)
            .map(|(_, rule)| bind(rule, scope, environment, direction.opposite()))
            .collect::<Result<Vec<_>, _>>()
    })?;
    if direction == Direction::Reverse {
        for rule in rules.iter().filter(|rule| rule.arrow == Arrow::OneWay) {
            leave_one_way(context, draft, rule, scope);
        }
    }
    let (taken, asked) = match_keys(context, draft, &bound, &undone, scope)?;
    let mut made: Vec<Entry> = Vec::new();
    let mut gone: Vec<usize> = Vec::new();
    for (((at, _), bound), taken) in readable.iter().zip(&bound).zip(taken) {
        let id = draft.rule_id(&bound.rule.place, *at, &bound.rule.text);
        draft.rewrites.insert(id, Rewriter { alone: bound.rule.alone, built_in: scope.built_in });
        let count = taken.renames.len() + taken.instances.len();
        draft.count(id, count as u64);
        draft.evidence.matched += count;
        draft.evidence.same += taken.same;
        if count == 0 && taken.same == 0 && !bound.rule.optional {
            draft.unmatched(&bound.rule.place, "this rule");
        }
        if taken.again > 0 && taken.again == taken.renames.len() {
            taken_again(draft, bound, &taken.renames);
        }
        for (place, key) in taken.renames {
            if let Some(entry) = draft.state.at(place) {
                let mut entry = entry.clone();
                let to = Key::from(key);
                if bound.rule.arrow == Arrow::OneWay {
                    let (file, rule) =
                        (bound.rule.place.source.name.clone(), bound.rule.text.clone());
                    draft.renamed.push(Renamed {
                        file,
                        rule,
                        from: entry.key.clone(),
                        to: to.clone(),
                    });
                }
                entry.key = to;
                entry.rules.push(id);
                made.push(entry);
                gone.push(place);
            }
        }
        for (shared, members) in taken.instances {
            let before = made.len();
            match instance(context, draft, bound, id, shared, &members, scope, &mut made) {
                Ok(()) => gone.extend(members.iter().flat_map(BTreeMap::values)),
                Err(diagnostic) => {
                    made.truncate(before);
                    draft.report_instance(*diagnostic);
                }
            }
        }
    }
    for place in gone {
        draft.state.take(place);
    }
    for entry in made {
        draft.evidence.made.insert(entry.key.clone());
        draft.put(entry);
    }
    bear_out(context, draft, &bound, asked, scope)
}

/// Reading backwards, `exists` was asked of the keys as they were, and is about those that come
/// out: both have to answer alike.
fn bear_out(
    context: &Context<'_>,
    draft: &Draft,
    bound: &[BoundRule<'_>],
    asked: Vec<Asked>,
    scope: &Scope,
) -> Result<(), Box<Diagnostic>> {
    let (mut segments, mut bindings) = (Segments::default(), Bindings::default());
    with_environment(context, draft, |environment| {
        for Asked { rule, source, key, held } in asked {
            let Some(bound) = bound.get(rule) else { continue };
            segments.split(&key);
            let looked = Looked { key: &key, segments: &segments, shape: &[] };
            if bound.fits(source, &looked, &mut bindings)
                && bound.holds(&looked, &bindings, scope, environment)? != held
            {
                let finding = Diagnostic::error(
                    UNDECIDED,
                    "reading backwards can't tell whether this condition held",
                );
                let finding = finding
                    .at(
                        bound.rule.place.clone(),
                        "asks for keys that this statement itself gives back",
                    )
                    .keys([key.as_str()]);
                return Err(Box::new(
                    finding.hint(
                        "ask for keys that the statement leaves alone, or for a config field",
                    ),
                ));
            }
        }
        Ok(())
    })
}

/// A rename that takes only what looks like its own results, and makes them longer: it was
/// applied before, as like as not.
fn taken_again(draft: &mut Draft, bound: &BoundRule<'_>, renames: &[(usize, String)]) {
    let Some((first, (place, to))) = renames.len().checked_sub(1).zip(renames.first()) else {
        return;
    };
    let Some(key) = draft.state.at(*place).map(|entry| entry.key.clone()) else { return };
    let all = if first == 0 {
        "the key".to_owned()
    } else {
        format!("all {}", counted(first + 1, "key"))
    };
    let message =
        format!("{all} that this rule takes may be its own results: `{key}` becomes `{to}`");
    let keys: Vec<Key> =
        renames.iter().filter_map(|(place, _)| Some(draft.state.at(*place)?.key.clone())).collect();
    let finding = Diagnostic::warning(TAKEN_AGAIN, message)
        .at(bound.rule.place.clone(), "reads what it gives");
    let hint = "was this checkpoint converted already? then there is nothing to do; else give the rule an `unless` that leaves results alone";
    draft.findings.push(finding.keys(keys.iter().map(|key| key.as_str())).hint(hint));
}

fn match_keys(
    context: &Context<'_>,
    draft: &mut Draft,
    bound: &[BoundRule<'_>],
    undone: &[BoundRule<'_>],
    scope: &Scope,
) -> Result<(Vec<Taken>, Vec<Asked>), Box<Diagnostic>> {
    let index = Index::new(bound);
    let results = Index::new(undone);
    // For each rule that is named at all in its results, its inverse.
    let mut rest = undone.iter().peekable();
    let inverses: Vec<Option<&BoundRule<'_>>> = bound
        .iter()
        .map(|bound| rest.next_if(|inverse| std::ptr::eq(inverse.rule, bound.rule)))
        .map(|inverse| {
            inverse.filter(|inverse| {
                inverse.source_pattern(0).is_some_and(|pattern| pattern.literals().next().is_some())
            })
        })
        .collect();
    let mut taken: Vec<Taken> = bound.iter().map(|_| Taken::default()).collect();
    let (mut already, mut asked): (Vec<Key>, _) = (Vec::new(), Vec::new());
    let mut fresh = false;
    let mut padded: BTreeMap<usize, Vec<Key>> = BTreeMap::new();
    let (mut segments, mut candidates, mut bindings) =
        (Segments::default(), Vec::new(), Bindings::default());
    with_environment(context, draft, |environment| {
        for (place, entry) in draft.state.iter() {
            segments.split(&entry.key);
            let looked = Looked {
                key: &entry.key,
                segments: &segments,
                shape: &draft.graph.info(entry.node).shape,
            };
            index.candidates(&entry.key, &segments, &mut candidates);
            let (mut hit, mut identity) = (None, false);
            for candidate in &candidates {
                let (rule, source) = index.places[*candidate as usize];
                let bound = &bound[rule];
                if !bound.fits(source, &looked, &mut bindings) {
                    continue;
                }
                let held = bound.holds(&looked, &bindings, scope, environment)?;
                if bound.asks_result {
                    asked.push(Asked { rule, source, key: entry.key.clone(), held });
                }
                if !held {
                    continue;
                }
                if bound.rename {
                    let Some(BoundItem::Pattern(target)) =
                        bound.targets.first().map(|side| &side.item)
                    else {
                        continue;
                    };
                    let Some(key) = target.render(&entry.key, &bindings) else { continue };
                    if key == *entry.key {
                        taken[rule].same += 1;
                        identity = true;
                        continue;
                    }
                    if bound.rule.ambiguous {
                        reads_back(&entry.key, &key, bound, undone)?;
                    }
                    taken[rule].again += usize::from(
                        inverses[rule]
                            .is_some_and(|inverse| grows(&looked, &key, inverse, &mut bindings)),
                    );
                    taken[rule].renames.push((place, key));
                } else {
                    let own = own_slots(bound, source);
                    let values = |slots: &[Slot]| {
                        slots
                            .iter()
                            .map(|slot| owned(&bindings, *slot, &entry.key))
                            .collect::<Vec<_>>()
                    };
                    let members = taken[rule]
                        .instances
                        .entry(values(&bound.shared))
                        .or_insert_with(|| vec![Members::new(); bound.sources.len()]);
                    members[source].insert(values(&own), place);
                }
                hit = Some(rule);
                break;
            }
            if hit.is_none()
                && let Some(rule) = index.but_for_zeros(&entry.key, bound, &mut bindings)
            {
                padded.entry(rule).or_default().push(entry.key.clone());
            }
            // What an earlier statement gave, or what has one name in both layouts, is no
            // evidence.
            if identity || draft.evidence.made.contains(&entry.key) {
                continue;
            }
            let mut is_result = |named: bool| -> Result<bool, Box<Diagnostic>> {
                results.candidates(&entry.key, &segments, &mut candidates);
                for candidate in &candidates {
                    let (rule, source) = results.places[*candidate as usize];
                    let is_named = |pattern: &Pattern| pattern.literals().next().is_some();
                    if (!named || undone[rule].source_pattern(source).is_some_and(is_named))
                        && undone[rule].matches(
                            source,
                            &looked,
                            &mut bindings,
                            scope,
                            environment,
                        )?
                    {
                        return Ok(true);
                    }
                }
                Ok(false)
            };
            match hit {
                None if !undone.is_empty() && is_result(true)? => already.push(entry.key.clone()),
                Some(rule) if context.repeated && !fresh => {
                    fresh = !(is_result(false)? || bound[rule].gives(&looked))
                }
                _ => {}
            }
        }
        Ok::<(), Box<Diagnostic>>(())
    })?;
    draft.evidence.already.extend(already);
    draft.evidence.fresh |= fresh;
    for (rule, keys) in padded {
        let are = if keys.len() == 1 { "has a number" } else { "have numbers" };
        let message = format!(
            "{} that this rule would take {are} with leading zeros",
            counted(keys.len(), "key")
        );
        let finding = Diagnostic::warning(PADDED_NUMBER, message)
            .at(bound[rule].rule.place.clone(), "takes numbers as they are counted");
        let finding = finding.keys(keys.iter().map(|key| key.as_str()));
        draft.findings
                .push(finding.hint("write `{l*}` where the number may have leading zeros: it is text then, the same on both sides"));
    }
    Ok((taken, asked))
}

impl Draft {
    /// Hundreds of layers fail alike: the first failure of a rule is told whole, the keys of the
    /// others are added to it.
    pub(in crate::plan) fn report_instance(&mut self, diagnostic: Diagnostic) {
        let start = |diagnostic: &Diagnostic| {
            diagnostic.primary.as_ref().map(|(place, _)| place.span.start)
        };
        let same = self.findings.iter_mut().find(|finding| {
            finding.code == diagnostic.code
                && diagnostic.primary.is_some()
                && start(finding) == start(&diagnostic)
        });
        match same {
            Some(first) => first.keys.extend(diagnostic.keys),
            None => self.findings.push(diagnostic),
        }
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
    let Some(inverse) = undone.iter().find(|inverse| std::ptr::eq(inverse.rule, bound.rule)) else {
        return Ok(());
    };
    let (Some(read), Some(BoundItem::Pattern(write))) =
        (inverse.source_pattern(0), inverse.targets.first().map(|side| &side.item))
    else {
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
    let slots = bound.source_pattern(source).map(Pattern::slots).unwrap_or_default();
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
struct Index {
    set: PatternSet,
    /// Rule and source of each pattern of the set; regexes come after, tried on every key.
    places: Vec<(usize, usize)>,
    regexes: std::ops::Range<u32>,
}

impl Index {
    fn new(bound: &[BoundRule<'_>]) -> Self {
        let sides = || {
            bound.iter().enumerate().flat_map(|(rule, bound)| {
                bound.sources.iter().enumerate().map(move |(at, side)| (rule, at, side))
            })
        };
        let mut patterns: Vec<(&Pattern, (usize, usize))> = Vec::new();
        let mut regexes: Vec<(usize, usize)> = Vec::new();
        for (rule, at, side) in sides() {
            match side as &BoundSide<'_> {
                BoundSide { item: BoundItem::Pattern(pattern), .. } => {
                    patterns.push((pattern, (rule, at)))
                }
                BoundSide { item: BoundItem::Regex(_), .. } => regexes.push((rule, at)),
                BoundSide { item: BoundItem::Made(_), .. } => {}
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
            bound[*rule].source_pattern(*source).is_some_and(Pattern::has_index)
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
