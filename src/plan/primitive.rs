//! [`Primitive`]: what an op is called and what it was given, told once, for texts and for those
//! that carry plans out elsewhere.

use std::fmt;

use super::node::{Node, Op};
use crate::diagnostic::plain::one_line;
use crate::tensor::TensorInfo;

/// An op of a plan by name.
pub struct Primitive<'p> {
    /// Its name in plans.
    pub name: &'static str,
    /// What it was given besides its inputs, in order.
    pub arguments: Vec<Argument<'p>>,
    /// What rules call it, where that differs.
    in_rules: Option<&'static str>,
    /// Which of the facts of its result are its doing.
    gives: Gives,
    info: &'p TensorInfo,
}

/// Something that an op was given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument<'p> {
    /// The key of a checkpoint.
    Key(&'p str),
    /// A dimension.
    Dim(usize),
    /// Dimensions.
    Dims(&'p [usize]),
    /// First element, and how many.
    Range(u64, u64),
    /// A number.
    Value(f64),
    /// How many bits.
    Bits(u32),
    /// A word.
    Word(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gives {
    Nothing,
    Shape,
    Dtype,
    /// A dtype that isn't worth a word beside what it does.
    DtypeByTheWay,
    Both,
}

impl Node {
    /// Its op by name.
    pub fn primitive(&self) -> Primitive<'_> {
        use Argument::{Bits, Dim, Dims, Key, Range, Value, Word};
        let (name, arguments, gives) = match &self.op {
            Op::Source { key } => ("source", vec![Key(key)], Gives::Nothing),
            Op::Fill { value } => ("fill", vec![Value(*value)], Gives::Both),
            Op::Sinusoids => ("sinusoids", Vec::new(), Gives::Both),
            Op::Narrow { dim, start, len } => {
                ("narrow", vec![Dim(*dim), Range(*start, *len)], Gives::Nothing)
            }
            Op::Permute { dims } => ("permute", vec![Dims(dims)], Gives::Nothing),
            Op::Reshape => ("reshape", Vec::new(), Gives::Shape),
            Op::Expand => ("expand", Vec::new(), Gives::Shape),
            Op::Concat { dim } => ("concat", vec![Dim(*dim)], Gives::Nothing),
            Op::Cast => ("cast", Vec::new(), Gives::Dtype),
            Op::Add { value } => ("add", vec![Value(*value)], Gives::Nothing),
            Op::Mul { value } => ("mul", vec![Value(*value)], Gives::Nothing),
            Op::Neg => ("neg", Vec::new(), Gives::Nothing),
            Op::Exp => ("exp", Vec::new(), Gives::Nothing),
            Op::Log => ("log", Vec::new(), Gives::Nothing),
            Op::Binary { with } => (with.name(), Vec::new(), Gives::DtypeByTheWay),
            Op::Reduce { take, dims } => (take.name(), vec![Dims(dims)], Gives::Nothing),
            Op::Product => ("product", Vec::new(), Gives::Nothing),
            Op::Unpack { bits } => ("unpack", vec![Bits(*bits)], Gives::Nothing),
            Op::Decode { code } => ("decode", vec![Word(code.name())], Gives::Nothing),
            Op::Lookup => ("lookup", Vec::new(), Gives::Nothing),
            Op::Count => ("count", Vec::new(), Gives::Shape),
            Op::OneForZero => ("one_for_zero", Vec::new(), Gives::Nothing),
        };
        let in_rules = matches!(self.op, Op::Narrow { .. }).then_some("slice");
        Primitive { name, arguments, in_rules, gives, info: &self.info }
    }
}

impl Primitive<'_> {
    /// What stands behind its inputs in the text of a plan: `dim 1, 0..4`.
    pub(super) fn detail(&self) -> String {
        let told = |argument: &Argument<'_>| match argument {
            Argument::Dim(dim) => format!("dim {dim}"),
            Argument::Dims(dims) => format!("{dims:?}"),
            other => other.to_string(),
        };
        let mut said: Vec<String> = self.arguments.iter().map(told).collect();
        let given = match self.gives {
            Gives::Nothing => None,
            Gives::Shape => Some(self.info.shape.to_string()),
            Gives::Dtype | Gives::DtypeByTheWay => Some(self.info.dtype.to_string()),
            Gives::Both => Some(self.info.to_string()),
        };
        said.extend(given);
        said.join(if self.gives == Gives::Both { " as " } else { ", " })
    }
}

/// As people write it: `slice(1, 0..4)`, `reshape [2, 3]`.
impl fmt::Display for Primitive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [Argument::Key(key)] = self.arguments[..] {
            return f.write_str(&one_line(key));
        }
        f.write_str(self.in_rules.unwrap_or(self.name))?;
        let mut said: Vec<String> = self.arguments.iter().map(Argument::to_string).collect();
        said.extend((self.gives == Gives::Dtype).then(|| self.info.dtype.to_string()));
        if !said.is_empty() {
            write!(f, "({})", said.join(", "))?;
        }
        if self.gives == Gives::Shape {
            write!(f, " {}", self.info.shape)?;
        }
        Ok(())
    }
}

impl fmt::Display for Argument<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Argument::Key(key) => f.write_str(&one_line(key)),
            Argument::Dim(dim) => write!(f, "{dim}"),
            Argument::Dims(dims) => {
                let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
                f.write_str(&dims.join(", "))
            }
            Argument::Range(start, len) => write!(f, "{start}..{}", start.saturating_add(*len)),
            Argument::Value(value) => write!(f, "{value}"),
            Argument::Bits(bits) => write!(f, "{bits}"),
            Argument::Word(word) => f.write_str(word),
        }
    }
}
