//! `same` and `same(over r)`: tensors of which one is as good as another.

use crate::diagnostic::codes::{UNDECIDED, UNEQUAL};
use crate::diagnostic::{Diagnostic, Place};
use crate::key::Key;
use crate::plan::context::Context;
use crate::plan::draft::Draft;
use crate::plan::graph::Walks;
use crate::plan::pass::relation::{Relation, differing, made_alike};
use crate::plan::{DropReason, NodeId, Op};

/// Sees to it that tensors are equal byte for byte, of which the first is taken.
///
/// # Errors
/// Those that aren't.
pub(super) fn same(
    context: &Context<'_>,
    draft: &mut Draft,
    nodes: &[NodeId],
    place: &Place,
) -> Result<(), Box<Diagnostic>> {
    let Some((first, others)) = nodes.split_first() else { return Ok(()) };
    let taken = source_of(draft, *first);
    let (mut unequal, mut unknown) = (Vec::new(), Vec::new());
    for other in others {
        let key = source_of(draft, *other);
        match made_alike(context, draft, *first, *other, 0) {
            Relation::Same => {}
            Relation::Equal => draft.drop_sources(*other, &DropReason::TiedTo(taken.clone())),
            Relation::Differ(bytes) => unequal.push((key, bytes)),
            Relation::Unknown | Relation::Elsewhere => {
                draft.drop_sources(*other, &DropReason::TiedTo(taken.clone()));
                unknown.push(key);
            }
        }
    }
    if let Some(other) = unknown.first() {
        let message = format!(
            "`{taken}` stands for `{other}` if they are equal byte for byte, which is not compared here"
        );
        let finding = Diagnostic::note(UNDECIDED, message).at(place.clone(), "the same in all");
        let keys = std::iter::once(&taken).chain(&unknown).map(|key| key.as_str());
        draft.report_instance(finding.keys(keys));
    }
    let Some((other, bytes)) = unequal.first() else { return Ok(()) };
    let message = format!("`{other}` differs from `{taken}`{}", differing(*bytes));
    let keys = std::iter::once(&taken).chain(unequal.iter().map(|(key, _)| key));
    let finding = Diagnostic::error(UNEQUAL, message).at(place.clone(), "the same in all");
    Err(Box::new(finding.keys(keys.map(|key| key.as_str())).hint(
        "are these tensors of one model? To take one of them all the same, rename it and `drop` the others",
    )))
}

/// A tensor of the checkpoint that a node is made of.
fn source_of(draft: &Draft, node: NodeId) -> Key {
    let mut found = None;
    Walks::default().walk(&draft.graph, node, |_, node| {
        if let (Op::Source { key }, None) = (&node.op, &found) {
            found = Some(key.clone());
        }
        found.is_none()
    });
    found.unwrap_or_else(|| Key::from("a made tensor"))
}
