//! Tensors that rules make instead of taking them from a checkpoint.

use super::resolve::Arguments;
use crate::check::value::Scope;
use crate::diagnostic::codes::{OP_ARGUMENTS, UNKNOWN_OP};
use crate::diagnostic::{Diagnostic, Place};
use crate::syntax::ast::{Expr, OpCall};
use crate::syntax::op;
use crate::tensor::Dtype;

/// What makes a tensor, by name: it stands where a source stands.
pub const MAKERS: &[(&str, Content)] = &[
    ("zeros", Content::Value(0.0)),
    ("ones", Content::Value(1.0)),
    ("sinusoids", Content::Sinusoids),
];

/// What a made tensor holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Content {
    /// The same number everywhere.
    Value(f64),
    /// Sinusoidal positions: in row `p` of `d` columns, the sines of `p / 10000^(2i/d)`, then their
    /// cosines.
    Sinusoids,
}

/// A tensor that a rule makes: `zeros([4, 8], F32)`.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its elements.
    pub content: Content,
    /// Its shape.
    pub shape: Vec<Expr>,
    /// Its dtype.
    pub dtype: Dtype,
    /// Where it is written.
    pub place: Place,
}

/// Reads `zeros(shape, dtype)`, `ones(shape, dtype)` or `sinusoids([rows, columns], dtype)`.
///
/// # Errors
/// Any other op, or arguments that don't fit.
pub fn made(call: &OpCall, scope: &Scope) -> Result<Made, Box<Diagnostic>> {
    let name = call.name.text.as_str();
    let Some((_, content)) = MAKERS.iter().find(|(maker, _)| *maker == name) else {
        let code = if op::names().contains(&name) { OP_ARGUMENTS } else { UNKNOWN_OP };
        return Err(Box::new(
            Diagnostic::error(code, format!("`{name}` doesn't make a tensor"))
                .at(scope.place(call.name.span), "not a source")
                .hint("what makes a tensor is zeros(shape, dtype), ones(shape, dtype) or sinusoids([rows, columns], dtype)"),
        ));
    };
    let arguments = Arguments { call, scope };
    arguments.count(2, 2, "a shape and a dtype, as in `zeros([4, 8], F32)`")?;
    Ok(Made {
        content: *content,
        shape: arguments.list(0)?,
        dtype: arguments.dtype(1)?,
        place: scope.place(call.span),
    })
}
