//! What an instance of a `map` lacks, said with the keys that would be it.

use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::INCOMPLETE;
use crate::key::{Atom, Binding, Bindings, Part, Pattern, Slot};
use crate::plan::bind::BoundRule;

/// An instance that lacks a source, or some values of a gathered capture.
pub(super) fn incomplete(
    bound: &BoundRule<'_>,
    bindings: &Bindings,
    source: usize,
    missing: &[(Slot, Binding)],
    keys: &[String],
) -> Box<Diagnostic> {
    let at = source.min(bound.sources.len().saturating_sub(1));
    let side = &bound.sources[at];
    let lacking: Vec<String> = match bound.names.sources[at].pattern() {
        Some(pattern) if missing.is_empty() => {
            vec![sketch(pattern, bindings, bound)]
        }
        Some(pattern) => missing
            .iter()
            .map(|(slot, value)| {
                let mut bindings = bindings.clone();
                bindings.set(*slot, value.clone());
                sketch(pattern, &bindings, bound)
            })
            .collect(),
        None => Vec::new(),
    };
    let there = keys.len();
    Box::new(
        Diagnostic::error(
            INCOMPLETE,
            format!(
                "incomplete: {} {} missing",
                lacking.len(),
                if lacking.len() == 1 { "source is" } else { "sources are" }
            ),
        )
        .at(
            side.side.place.clone(),
            format!("{there} other {} there", if there == 1 { "source is" } else { "sources are" }),
        )
        .keys(lacking)
        .hint("is a shard missing? A source that may be missing is marked `optional`"),
    )
}

/// A key as far as it is known; what isn't stands in braces.
fn sketch(pattern: &Pattern, bindings: &Bindings, bound: &BoundRule<'_>) -> String {
    if let Some(key) = pattern.render("", bindings) {
        return key;
    }
    let name = |slot: Slot| {
        bound.rule.captures.get(usize::from(slot.0)).map_or("?", |capture| capture.name.as_str())
    };
    let mut parts = Vec::new();
    for part in pattern.parts() {
        match part {
            Part::Literal(text) => parts.push(text.to_string()),
            Part::Rest(slot) => match bindings.text(*slot, "") {
                Some("") => {}
                Some(text) => parts.push(text.to_owned()),
                None => parts.push("**".to_owned()),
            },
            Part::Segment(atoms) => {
                let whole = Pattern::new(vec![Part::Segment(atoms.clone())]);
                parts.push(whole.render("", bindings).unwrap_or_else(|| {
                    let shown = atoms.iter().map(|atom| match atom {
                        Atom::Text(text) => text.to_string(),
                        other => {
                            let names = other.slots().iter().map(|slot| name(*slot));
                            format!("{{{}}}", names.collect::<Vec<_>>().join("+"))
                        }
                    });
                    shown.collect()
                }));
            }
        }
    }
    parts.join(".")
}
