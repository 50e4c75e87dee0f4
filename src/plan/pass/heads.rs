//! Whether heads that were turned for rotary embeddings agree: what attends to each other has heads
//! of one size.
//!
//! `rope_halves(heads)` fits whatever number divides the rows, and a wrong one gives no error but a
//! model that talks gibberish. Queries and keys of one module have heads of one size, though. So a
//! second size in one module tells that one of the numbers is wrong.

use std::collections::HashMap;

use crate::check::value::Scope;
use crate::diagnostic::codes::HEAD_SIZES;
use crate::diagnostic::{Diagnostic, Place};
use crate::key::Key;
use crate::plan::draft::Draft;
use crate::plan::graph::Turned;
use crate::plan::state::Current;

/// The first tensor of each module that was turned, by one rule file.
#[derive(Clone, Debug, Default)]
pub(in crate::plan) struct Heads(
    HashMap<Attention, (Turned, Key, Place), foldhash::fast::RandomState>,
);

/// The number of a rule file's scope, and where an attention is.
type Attention = (usize, Box<str>);

/// Takes note of what an instance turned, and compares it with what else the module has.
pub(super) fn note_heads(draft: &mut Draft, made: &[Current], place: &Place, scope: &Scope) {
    let turned = std::mem::take(&mut draft.graph.turned);
    let Some(key) = made.first().map(|entry| &entry.key) else { return };
    for here in turned {
        let first = draft
            .evidence
            .heads
            .0
            .entry((scope.number, module(key)))
            .or_insert_with(|| (here, key.clone(), place.clone()));
        // One tensor may be turned twice, by heads of two sizes: that is no second opinion of
        // them.
        if first.0.size == here.size || first.1 == *key {
            continue;
        }
        let (there, other, other_place) = first.clone();
        let same = |finding: &&mut Diagnostic| {
            finding.code == HEAD_SIZES
                && finding.primary.as_ref().is_some_and(|(at, _)| at.span == place.span)
        };
        if let Some(known) = draft.findings.iter_mut().find(same) {
            known.keys.extend([other.as_str().to_owned(), key.as_str().to_owned()]);
            continue;
        }
        let said = |turned: Turned| format!("{} heads of {} rows", turned.heads, turned.size);
        let message = format!(
            "heads of two sizes in one attention: `{other}` as {}, `{key}` as {}",
            said(there),
            said(here)
        );
        let finding = Diagnostic::error(HEAD_SIZES, message)
            .at(place.clone(), said(here))
            .label(other_place, said(there));
        let finding = finding.keys([other.as_str(), key.as_str()]);
        draft.findings.push(finding.hint(
                "queries and keys have heads of one size, so one of the numbers of heads is wrong: give both as the model has them \
                 (num_attention_heads and num_key_value_heads of its config.json)"));
    }
}

/// Where an attention is, and which of its tensors are alike: `layers.0.attn.wq.weight` and
/// `layers.0.attn.wk.weight` are.
fn module(key: &Key) -> Box<str> {
    let (rest, leaf) = key.rsplit_once('.').unwrap_or(("", key));
    let (module, _) = rest.rsplit_once('.').unwrap_or(("", rest));
    format!("{module}.{leaf}").into()
}
