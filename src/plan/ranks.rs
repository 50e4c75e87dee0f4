//! Which ranks are there, for rules whose left layout is the files of ranks (`shards`).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use indexmap::IndexMap;

use crate::check::value::Value;
use crate::check::{Direction, Rules, Shards};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::INCOMPLETE;
use crate::key::rank_of;
use crate::plan::context::{Context, with_environment};
use crate::plan::draft::Draft;
use crate::plan::{PlanOptions, Stage, counted};
use crate::syntax::ast::ExprKind;
use crate::tensor::Header;

/// How many missing ranks are named.
const NAMED: usize = 8;

/// The rules that are read from the files of ranks.
fn readers<'s>(stages: &'s [Stage<'_>]) -> impl Iterator<Item = (&'s Rules, &'s Shards)> {
    let forward = stages.iter().filter(|stage| stage.direction == Direction::Forward);
    forward.filter_map(|stage| Some((stage.rules, stage.rules.shards.as_ref()?)))
}

/// The numbers before keys.
fn there(header: &Header) -> BTreeSet<u64> {
    header.tensors.keys().filter_map(|key| Some(rank_of(key)?.0)).collect()
}

/// The parameters to which the files of ranks give a value, how many there are: those without a
/// value of their own with which a range of `shards` ends.
pub fn count_ranks(stages: &[Stage<'_>], header: &Header) -> IndexMap<String, Value> {
    let open = readers(stages).filter_map(|(rules, shards)| {
        let (_, end) = shards.range.as_ref()?;
        let ExprKind::Name(name) = &end.kind else { return None };
        let (value, _) = shards.scope(rules)?.lets.get(name)?;
        value.is_none().then_some(name)
    });
    let open: Vec<&String> = open.collect();
    if open.is_empty() {
        return IndexMap::new();
    }
    let count = there(header).last().map_or(0, |last| last.saturating_add(1));
    let count = Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    open.into_iter().map(|name| (name.clone(), count.clone())).collect()
}

/// Options with these parameters, where they have no value.
pub(super) fn with_count<'o, 'p>(
    stages: &[Stage<'_>],
    header: &Header,
    options: &'o PlanOptions<'p>,
) -> Cow<'o, PlanOptions<'p>> {
    let mut options = Cow::Borrowed(options);
    for (name, count) in count_ranks(stages, header) {
        if !options.parameters.contains_key(&name) {
            options.to_mut().parameters.insert(name, count);
        }
    }
    options
}

/// Every rank has to be there, and none beyond the range that the rules say. A checkpoint without a
/// number before any key isn't made of such files.
pub(super) fn check_ranks(context: &Context<'_>, draft: &mut Draft, stages: &[Stage<'_>]) {
    for (rules, shards) in readers(stages) {
        let there = there(context.header);
        let (Some(last), Some(scope)) = (there.last(), shards.scope(rules)) else { continue };
        let expected = with_environment(context, draft, |environment| {
            let Some((start, end)) = &shards.range else { return Ok(0..last.saturating_add(1)) };
            let bound =
                |expr| environment.int(scope, expr).map(|value| u64::try_from(value).unwrap_or(0));
            let start = bound(start)?;
            Ok::<_, Box<Diagnostic>>(start..bound(end)?.max(start))
        });
        match expected {
            Ok(expected) => draft.findings.extend(differing(&there, &expected, shards)),
            Err(finding) => draft.findings.push(*finding),
        }
    }
}

fn differing(there: &BTreeSet<u64>, expected: &Range<u64>, shards: &Shards) -> Option<Diagnostic> {
    let inside = there.range(expected.clone()).count();
    let missing = expected.end.saturating_sub(expected.start).saturating_sub(inside as u64);
    let beyond = there.len() - inside;
    let (message, hint) = if missing > 0 {
        let named: Vec<String> = expected
            .clone()
            .filter(|rank| !there.contains(rank))
            .take(NAMED)
            .map(|rank| rank.to_string())
            .collect();
        let more = if missing > named.len() as u64 { ", …" } else { "" };
        let of = expected.end.saturating_sub(expected.start);
        let (which, are) = (named.join(", "), if missing == 1 { "is" } else { "are" });
        (
            format!("{missing} of {of} ranks {are} missing: {which}{more}"),
            "fetch what is missing: each rank holds a part of the tensors",
        )
    } else if beyond > 0 {
        let range = format!("{}..{}", expected.start, expected.end);
        (
            format!(
                "{} there than the rules ask for, which is {range}",
                counted(beyond, "more rank")
            ),
            "is the number of ranks right?",
        )
    } else {
        return None;
    };
    let finding = Diagnostic::error(INCOMPLETE, message);
    Some(finding.at(shards.place.clone(), "the files of ranks").hint(hint))
}
