//! `rename` and `map`: what becomes of the keys that their rules take.

use std::collections::BTreeMap;

use crate::check::reading::Rewrite;
use crate::check::value::Scope;
use crate::check::{Direction, Rule};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::{TAKEN_AGAIN, UNDECIDED};
use crate::key::{Bindings, Key, Segments};
use crate::plan::bind::{BoundRule, Looked, bind};
use crate::plan::context::{Context, with_environment};
use crate::plan::draft::{Draft, Rewriter};
use crate::plan::pass::instance::instance;
use crate::plan::pass::lossy::leave_one_way;
use crate::plan::pass::matching::{Judged, Members, Taken, match_keys};
use crate::plan::state::Current;
use crate::plan::{Renamed, RuleId, counted};
use crate::syntax::ast::Arrow;

pub(in crate::plan) fn rewrite(
    context: &Context<'_>,
    draft: &mut Draft,
    rewrite: Rewrite<'_>,
    scope: &Scope,
    direction: Direction,
) -> Result<(), Box<Diagnostic>> {
    // A one-way rule isn't read backwards; what it would have to undo stays as it is.
    let readable: Vec<&Rule> = rewrite.rules().map(|read| read.rule).collect();
    draft.evidence.rewrites += usize::from(!readable.is_empty());
    draft.evidence.needed += readable.iter().filter(|rule| !rule.optional).count();
    let bound = with_environment(context, draft, |environment| {
        readable
            .iter()
            .map(|rule| bind(rule, scope, environment, direction))
            .collect::<Result<Vec<_>, _>>()
    })?;
    // Looked for among what no rule takes: keys that are results already.
    let undone = with_environment(context, draft, |environment| {
        readable
            .iter()
            .filter(|rule| rule.arrow == Arrow::TwoWay)
            .map(|rule| bind(rule, scope, environment, direction.opposite()))
            .collect::<Result<Vec<_>, _>>()
    })?;
    for rule in rewrite.left_out() {
        leave_one_way(context, draft, rule, scope);
    }
    let (taken, judged) = match_keys(context, draft, &bound, &undone, scope)?;
    let mut change = Change::default();
    for (bound, taken) in bound.iter().zip(taken) {
        let id = draft.rule_id(bound.rule.into());
        draft.rewrites.insert(id, Rewriter { alone: bound.rule.alone, built_in: scope.built_in });
        note_taken(draft, id, bound, &taken);
        if let Some(survey) = context.survey {
            survey.borrow_mut().note(draft, bound, &taken);
        }
        change.rename(draft, bound, id, taken.renames);
        for (shared, members) in taken.instances {
            // All at once: a tree of what is in order already is made without looking for places.
            let members: Vec<Members> =
                members.into_iter().map(|members| members.into_iter().collect()).collect();
            let before = change.made.len();
            let made = &mut change.made;
            match instance(context, draft, bound, id, shared, &members, scope, made) {
                Ok(()) => change.gone.extend(members.iter().flat_map(BTreeMap::values)),
                Err(diagnostic) => {
                    change.made.truncate(before);
                    draft.report_instance(*diagnostic);
                }
            }
        }
    }
    change.apply(draft);
    bear_out(context, draft, &bound, judged, scope)
}

/// Counts what a rule took, as evidence of the layout.
fn note_taken(draft: &mut Draft, id: RuleId, bound: &BoundRule<'_>, taken: &Taken) {
    let count = taken.renames.len() + taken.instances.len();
    draft.count(id, count as u64);
    draft.evidence.matched += count;
    draft.evidence.same += taken.same.len();
    let by = draft.evidence.rewrites;
    draft.evidence.kept.extend(taken.same.iter().map(|key| (key.clone(), by)));
    if count == 0 && taken.same.is_empty() && !bound.rule.optional {
        draft.unmatched(bound.rule.into(), "this rule");
    }
    if taken.again > 0 && taken.again == taken.renames.len() {
        taken_again(draft, bound, &taken.renames);
    }
}

/// What a statement does to the state, at once: keys may change places.
#[derive(Default)]
struct Change {
    /// What gets another key, and by which rule.
    renamed: Vec<(usize, Key, RuleId)>,
    /// Entries that come.
    made: Vec<Current>,
    /// Places of those that leave.
    gone: Vec<usize>,
}

impl Change {
    /// What a rule renames.
    fn rename(
        &mut self,
        draft: &mut Draft,
        bound: &BoundRule<'_>,
        id: RuleId,
        renames: Vec<(usize, Key)>,
    ) {
        for (place, to) in renames {
            let entry = draft.state.at(place).filter(|_| bound.rule.arrow == Arrow::OneWay);
            if let Some(from) = entry.map(|entry| entry.key.clone()) {
                draft.renamed.push(Renamed {
                    file: bound.rule.place.source.name.clone(),
                    rule: bound.rule.text.clone(),
                    from,
                    to: to.clone(),
                });
            }
            self.renamed.push((place, to, id));
        }
    }

    fn apply(self, draft: &mut Draft) {
        for place in self.gone {
            draft.state.take(place);
        }
        for (place, ..) in &self.renamed {
            draft.state.forget(*place);
        }
        for (place, to, rule) in self.renamed {
            let named = draft.state.name(place, to, rule);
            draft.check_name(named);
        }
        for entry in self.made {
            draft.put(entry);
        }
    }
}

/// Reading backwards, `exists` was asked of the keys as they were, and is about those that come
/// out: both have to answer alike.
fn bear_out(
    context: &Context<'_>,
    draft: &Draft,
    bound: &[BoundRule<'_>],
    judged: Vec<Judged>,
    scope: &Scope,
) -> Result<(), Box<Diagnostic>> {
    let (mut segments, mut bindings) = (Segments::default(), Bindings::default());
    with_environment(context, draft, |environment| {
        for Judged { rule, source, key, held } in judged {
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
fn taken_again(draft: &mut Draft, bound: &BoundRule<'_>, renames: &[(usize, Key)]) {
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
