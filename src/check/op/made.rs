//! Tensors that rules make instead of taking them from a checkpoint.

use super::resolve::Arguments;
use crate::check::value::{Scope, as_name};
use crate::diagnostic::codes::{OP_ARGUMENTS, UNKNOWN_OP};
use crate::diagnostic::{Diagnostic, Place};
use crate::syntax::ast::{Arg, Expr, OpCall};
use crate::syntax::op;
use crate::tensor::Dtype;

/// What makes a tensor, by name: it stands where a source stands.
pub const MAKERS: &[(&str, Content)] = &[
    ("zeros", Content::Value(0.0)),
    ("ones", Content::Value(1.0)),
    ("sinusoids", Content::Sinusoids),
];

/// Instead of a dtype: that of the first tensor which the rule takes.
const LIKE: &str = "like";

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
    /// Its dtype; `None` if it is that of the first tensor that the rule takes.
    pub dtype: Option<Dtype>,
    /// Where it is written.
    pub place: Place,
}

/// Reads `zeros(shape, dtype)`, `ones(shape, dtype)` or `sinusoids([rows, columns], dtype)`, where
/// `like` may stand for a dtype if a rule takes a tensor too.
///
/// # Errors
/// Any other op, or arguments that don't fit.
pub fn made(call: &OpCall, scope: &Scope, takes: bool) -> Result<Made, Box<Diagnostic>> {
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
    let like = match call.args.get(1) {
        Some(Arg::Value(expr)) => as_name(expr).is_some_and(|name| name.text == LIKE),
        _ => false,
    };
    if like && !takes {
        return Err(Box::new(
            Diagnostic::error(OP_ARGUMENTS, "there is no tensor here that this one could be like")
                .at(scope.place(call.span), "needs a dtype")
                .hint("`like` is the dtype of the first tensor that a `map` takes"),
        ));
    }
    Ok(Made {
        content: *content,
        shape: arguments.list(0)?,
        dtype: if like { None } else { Some(arguments.dtype(1)?) },
        place: scope.place(call.span),
    })
}
