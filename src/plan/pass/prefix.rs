//! `prefix`: a base prefix is added or stripped, key by key, so that keys meet the target manifest;
//! without one, nothing happens.

use crate::check::value::Scope;
use crate::check::{Direction, Step};
use crate::diagnostic::Diagnostic;
use crate::plan::Renamed;
use crate::plan::base::prefix_changed;
use crate::plan::context::Context;
use crate::plan::draft::Draft;
use crate::plan::pass::lossy::restore;
use crate::plan::pass::strip::{below, rejoin, without};

pub(in crate::plan) fn prefix(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    prefix: &[String],
    scope: &Scope,
    direction: Direction,
) -> Result<(), Box<Diagnostic>> {
    if direction == Direction::Reverse {
        restore(context, draft, step.into());
        return Ok(());
    }
    let Some(wanted) = context.options.wanted else { return Ok(()) };
    let mut changes = Vec::new();
    let (mut added, mut stripped) = (0usize, 0usize);
    for (at, entry) in draft.state.iter() {
        if wanted.contains(&entry.key) {
            continue;
        }
        let Some(rest) = below(&entry.key, &scope.under) else { continue };
        let shorter = without(rest, prefix).map(|rest| rejoin(&scope.under, &[rest]));
        let longer = rejoin(&scope.under, &[prefix.join(".").as_str(), rest]);
        let free = |key: &str| wanted.contains(key) && !draft.state.contains(key);
        match shorter {
            Some(shorter) if free(&shorter) => {
                stripped += 1;
                changes.push((at, shorter));
            }
            _ if free(&longer) => {
                added += 1;
                changes.push((at, longer));
            }
            _ => {}
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    for (from, to) in draft.rename_all(step, changes) {
        draft.renamed.push(Renamed {
            file: step.place.source.name.clone(),
            rule: step.text.clone(),
            from,
            to,
        });
    }
    draft.findings.push(prefix_changed(&prefix.join("."), added, stripped));
    Ok(())
}
