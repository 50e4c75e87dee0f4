//! Ops of checked rules. What there is to say of an op stands in its row of
//! [`crate::syntax::op`]; here its arguments have been read, captures are slots, and numbers are
//! expressions or, once rules are bound to a config, numbers.

mod made;
mod resolve;

pub use made::{Content, MAKERS, Made, made};
pub use resolve::{dtype, resolve};

use crate::diagnostic::Place;
use crate::key::Slot;
pub use crate::syntax::op::OpKind;
use crate::syntax::op::{self, Flow, Many, NoInverse, ParameterKind, Undone};
use crate::tensor::Dtype;
pub use crate::tensor::widens;

/// An op with its arguments; `E` is an expression in checked rules and a number once they are bound
/// to a config.
#[derive(Clone, Debug, PartialEq)]
pub struct Call<E> {
    /// Which op.
    pub kind: OpKind,
    /// One for each parameter of its row.
    arguments: Vec<Argument<E>>,
    /// Whether the inverse of the permutation that its arguments are is meant.
    pub inverted: bool,
}

/// An argument of a checked op.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument<E> {
    /// `2`
    Number(E),
    /// `4, 1, 1`
    Numbers(Vec<E>),
    /// `[4, -1]`
    Shape(Vec<E>),
    /// `2..8`
    Range(Option<E>, Option<E>),
    /// `e`, `over e`
    Capture(Slot),
    /// `BF16`
    Dtype(Dtype),
    /// It may be left out, and was.
    Absent,
}

/// How many tensors an op takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Each tensor by itself.
    Each,
    /// So many become one.
    Join(Option<usize>),
    /// One becomes so many.
    Part(Option<usize>),
    /// The last changes each of the others.
    With,
    /// A capture's tensors become one.
    Gather(Slot),
    /// One becomes a capture's tensors.
    Scatter(Slot),
}

impl Arity {
    /// Whether the last of so many tensors, after it changed the others ([`Arity::With`]), is still
    /// there: as many targets wait for as many tensors, and no later op joins or parts them.
    pub fn last_stays(tensors: usize, targets: usize, later: impl Iterator<Item = Arity>) -> bool {
        let mut later = later;
        tensors == targets && !later.any(|one| matches!(one, Arity::Join(_) | Arity::Part(_)))
    }
}

/// A place where an op stands.
#[derive(Clone, Debug)]
pub struct OpUse<E> {
    /// The op.
    pub op: Call<E>,
    /// Where it is written.
    pub place: Place,
}

impl<E: Clone> Call<E> {
    /// An op of these arguments, one for each parameter.
    fn new(kind: OpKind, arguments: Vec<Argument<E>>) -> Self {
        Self { kind, arguments, inverted: false }
    }

    /// How many tensors it takes and gives.
    pub fn arity(&self) -> Arity {
        let many = |many| match many {
            Many::Exactly(count) => Some(count),
            Many::Listed => self.arguments.iter().find_map(|one| match one {
                Argument::Numbers(list) => (!list.is_empty()).then_some(list.len()),
                _ => None,
            }),
        };
        match (self.kind.row().flow, self.capture()) {
            (Flow::Join(count), _) => Arity::Join(many(count)),
            (Flow::Part(count), _) => Arity::Part(many(count)),
            (Flow::With, _) => Arity::With,
            (Flow::Gather, Some(slot)) => Arity::Gather(slot),
            (Flow::Scatter, Some(slot)) => Arity::Scatter(slot),
            // A test holds that each op of a capture has one.
            (Flow::Each | Flow::Gather | Flow::Scatter, _) => Arity::Each,
        }
    }

    /// The op that undoes it.
    ///
    /// # Errors
    /// If there is none; the error says why.
    pub fn inverse(&self) -> Result<Call<E>, NoInverse> {
        Ok(match self.kind.undo(&self.arguments)? {
            Undone::By(kind, arguments) => Call::new(kind, arguments),
            Undone::ByPermutation => Call { inverted: !self.inverted, ..self.clone() },
        })
    }

    /// The capture that it consumes or makes.
    pub fn capture(&self) -> Option<Slot> {
        self.arguments.iter().find_map(|one| match one {
            Argument::Capture(slot) => Some(*slot),
            _ => None,
        })
    }

    /// The argument of a parameter, by its name.
    pub fn argument(&self, name: &str) -> Option<&Argument<E>> {
        let at = self.kind.row().parameters.iter().position(|one| one.name == name)?;
        self.arguments.get(at)
    }

    /// The op with its numbers turned into something else.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map<F, X>(&self, f: &mut impl FnMut(&E) -> Result<F, X>) -> Result<Call<F>, X> {
        let arguments =
            self.arguments.iter().map(|one| one.try_map(f)).collect::<Result<_, _>>()?;
        Ok(Call { kind: self.kind, arguments, inverted: self.inverted })
    }
}

impl<E> Argument<E> {
    fn try_map<F, X>(&self, f: &mut impl FnMut(&E) -> Result<F, X>) -> Result<Argument<F>, X> {
        Ok(match self {
            Argument::Number(number) => Argument::Number(f(number)?),
            Argument::Numbers(list) => {
                Argument::Numbers(list.iter().map(f).collect::<Result<_, _>>()?)
            }
            Argument::Shape(sizes) => {
                Argument::Shape(sizes.iter().map(f).collect::<Result<_, _>>()?)
            }
            Argument::Range(start, end) => Argument::Range(
                start.as_ref().map(&mut *f).transpose()?,
                end.as_ref().map(f).transpose()?,
            ),
            Argument::Capture(slot) => Argument::Capture(*slot),
            Argument::Dtype(dtype) => Argument::Dtype(*dtype),
            Argument::Absent => Argument::Absent,
        })
    }
}

impl<E: Clone> op::Argument for Argument<E> {
    fn is_written(&self) -> bool {
        !matches!(self, Argument::Absent)
    }

    fn has_start(&self) -> bool {
        matches!(self, Argument::Range(Some(_), _))
    }

    fn fit(&self, parameter: ParameterKind) -> Option<Self> {
        match (self, parameter) {
            (Argument::Range(None, Some(end)), ParameterKind::Number) => {
                Some(Argument::Number(end.clone()))
            }
            (Argument::Range(..), ParameterKind::Number) => None,
            (Argument::Number(end), ParameterKind::Range) => {
                Some(Argument::Range(None, Some(end.clone())))
            }
            _ => Some(self.clone()),
        }
    }

    fn dtype(&self) -> Option<Dtype> {
        match self {
            Argument::Dtype(dtype) => Some(*dtype),
            _ => None,
        }
    }
}
