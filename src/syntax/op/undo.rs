//! What undoes a call of an op, by what its row says: one answer for arguments as they are written,
//! as they are checked, and as numbers.

use std::fmt;

use super::{Inverse, OpKind, ParameterKind};
use crate::syntax::ast::{Arg, Expr, ExprKind};
use crate::tensor::{Dtype, widens};

/// An argument, written or checked, as far as undoing an op has to know it.
pub trait Argument: Clone {
    /// Whether it was written.
    fn is_written(&self) -> bool;

    /// Whether it is a range that doesn't begin at the start.
    fn has_start(&self) -> bool;

    /// The same as an argument of another parameter: a number n as the range `..n` and the other
    /// way round, everything else as it is.
    fn fit(&self, parameter: ParameterKind) -> Option<Self>;

    /// The dtype that it is.
    fn dtype(&self) -> Option<Dtype>;
}

/// Why nothing undoes a call of an op: it loses something, or its arguments don't say enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoInverse(&'static str);

impl NoInverse {
    /// The reason in words, as a message says it.
    pub const fn reason(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for NoInverse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NoInverse {}

/// The call that undoes another.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Undone<A> {
    /// This op with these arguments.
    By(OpKind, Vec<A>),
    /// The same op with the inverse of the permutation that its arguments are, which only numbers
    /// tell.
    ByPermutation,
}

impl OpKind {
    /// The call that undoes a call of this op with these arguments.
    ///
    /// # Errors
    /// If nothing does; the error says why.
    pub fn undo<A: Argument>(self, arguments: &[A]) -> Result<Undone<A>, NoInverse> {
        let undone = match self.row().inverse {
            Inverse::Op(kind) => Ok(Undone::By(kind, arguments.to_vec())),
            Inverse::Reordered(..) if arguments.iter().any(A::has_start) => Err(
                "only a slice from the start can be undone, by padding with zeros: slice(dim, ..end, of)",
            ),
            Inverse::Reordered(kind, order, needs) => {
                reordered(kind, order, arguments).map(|moved| Undone::By(kind, moved)).ok_or(needs)
            }
            Inverse::Widening(kind, needs) => {
                let moved = reordered(kind, &[1, 0], arguments).ok_or(NoInverse(needs))?;
                match (moved[0].dtype(), moved[1].dtype()) {
                    (Some(from), Some(to)) if widens(from, to) => Ok(Undone::By(kind, moved)),
                    _ => Err("this cast rounds, so it can't be undone"),
                }
            }
            Inverse::Permutation => Ok(Undone::ByPermutation),
            Inverse::None(why) => Err(why),
        };
        undone.map_err(NoInverse)
    }
}

fn reordered<A: Argument>(kind: OpKind, order: &[usize], arguments: &[A]) -> Option<Vec<A>> {
    let parameters = kind.row().parameters.iter();
    order
        .iter()
        .zip(parameters)
        .map(|(at, parameter)| {
            arguments.get(*at).filter(|one| one.is_written())?.fit(parameter.kind)
        })
        .collect()
}

impl Argument for Arg {
    fn is_written(&self) -> bool {
        true
    }

    fn has_start(&self) -> bool {
        matches!(self, Arg::Range(Some(_), _))
    }

    fn fit(&self, parameter: ParameterKind) -> Option<Self> {
        match (self, parameter) {
            (Arg::Range(None, Some(end)), ParameterKind::Number) => Some(Arg::Value(end.clone())),
            (Arg::Range(..), ParameterKind::Number) => None,
            (Arg::Value(end), ParameterKind::Range) => Some(Arg::Range(None, Some(end.clone()))),
            _ => Some(self.clone()),
        }
    }

    fn dtype(&self) -> Option<Dtype> {
        match self {
            Arg::Value(Expr { kind: ExprKind::Name(name), .. }) => name.to_uppercase().parse().ok(),
            _ => None,
        }
    }
}
