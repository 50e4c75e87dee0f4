//! The key graph: nodes, targets, ties and drops. Plain data (serde): it can be printed, drawn,
//! compared, stored and run elsewhere.
//!
//! Ops of the language lower to few primitive nodes. [`Op::Narrow`], [`Op::Permute`],
//! [`Op::Reshape`], [`Op::Expand`] and [`Op::Concat`] only move elements (index maps); the others
//! compute values, element by element but for [`Op::Reduce`] and
//! [`Op::Product`]. So scales are no op of their own:
//! they are expanded to the shape of what they scale, and both are multiplied.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::TieDecision;
use crate::diagnostic::Diagnostic;
use crate::key::Key;
use crate::plan::List;
use crate::tensor::TensorInfo;

/// Which node; inputs always have smaller numbers than the node that uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

/// Which rule, an index into [`Plan::rules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub u32);

/// A step of the key graph and the tensor that it gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What is done.
    pub op: Op,
    /// To what.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub inputs: List<NodeId>,
    /// dtype and shape of the result.
    pub info: TensorInfo,
}

/// The primitive ops of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// A tensor of the checkpoint. No inputs.
    Source {
        /// Its key there.
        key: Key,
    },
    /// A made tensor, every element the same. No inputs.
    Fill {
        /// The value, converted to the node's dtype.
        #[serde(with = "value")]
        value: f64,
    },
    /// Sinusoidal positions, `[rows, columns]`: in row `p`, the sines of `p / 10000^(2i/columns)`
    /// for `i` in `0..columns/2`, then their cosines, computed in F64. No inputs. Source: Marian's
    /// positions, after "Attention Is All You Need", 3.5.
    Sinusoids,
    /// Elements `start..start+len` of one dimension. Index map.
    Narrow {
        /// Which dimension.
        dim: usize,
        /// First element.
        start: u64,
        /// How many.
        len: u64,
    },
    /// Dimensions in another order: result dim `i` is input dim `dims[i]`. Index map.
    Permute {
        /// A permutation of `0..rank`.
        dims: Vec<usize>,
    },
    /// The same elements in row-major order under the node's shape. Index map.
    Reshape,
    /// Dimensions of one element repeated up to those of the node's shape. Index map.
    Expand,
    /// All inputs, one after the other along a dimension. Index map.
    Concat {
        /// Which dimension.
        dim: usize,
    },
    /// Elements converted to the node's dtype, rounded to nearest even.
    Cast,
    /// `x + value`, in the dtype's own arithmetic.
    Add {
        /// What is added.
        #[serde(with = "value")]
        value: f64,
    },
    /// `x * value`
    Mul {
        /// The factor.
        #[serde(with = "value")]
        value: f64,
    },
    /// `-x`
    Neg,
    /// `e^x`
    Exp,
    /// Natural logarithm.
    Log,
    /// Two inputs of one shape, element by element: in `f32`, or `f64` if one of them or the result
    /// is, rounded once to the node's dtype.
    Binary {
        /// What is done with both.
        with: Arithmetic,
    },
    /// What is left of some dimensions, each of which becomes one element long.
    Reduce {
        /// What is taken of the elements.
        take: Reduction,
        /// Which dimensions, in order.
        dims: Vec<usize>,
    },
    /// Inputs: matrices, or as many of them as the dimensions before the last two say. Each times
    /// the other of its place: the sum of what is multiplied is taken from the first to the last,
    /// each product added with one rounding. All have one dtype, F32 or F64.
    Product,
    /// The codes that each element of the input is made of, low bits first, along a new last
    /// dimension; one to a byte.
    Unpack {
        /// Bits of a code: 4, or 8.
        bits: u32,
    },
    /// Codes in bytes as the numbers that they stand for.
    Decode {
        /// How numbers are coded.
        code: Code,
    },
    /// Inputs: whole numbers, and a list. For each of them, the element of the list at this place.
    Lookup,
    /// 0, 1, 2, … in a row. No inputs.
    Count,
    /// `x`, and one where it is zero: what is divided by.
    OneForZero,
}

/// What is done with two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
}

impl Arithmetic {
    /// The op of the language that does it.
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::Add => "add_by",
            Arithmetic::Sub => "sub_by",
            Arithmetic::Mul => "mul_by",
            Arithmetic::Div => "div_by",
        }
    }
}

/// What is taken of several elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// The root of the sum of their squares, summed in F64 if they are F64, else in F32.
    Norm,
    /// The largest of their magnitudes; NaN if one of them is.
    AbsMax,
}

impl Reduction {
    /// How it prints.
    pub fn name(self) -> &'static str {
        match self {
            Reduction::Norm => "norm",
            Reduction::AbsMax => "absmax",
        }
    }
}

/// How a number is coded in a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// FP4 in the low four bits: sign, two bits of exponent, one of mantissa.
    E2m1,
    /// `2^(code - 127)`; 255 counts as infinity, as in the `ldexp` that GPT-OSS is unpacked with.
    E8m0,
}

impl Code {
    /// How it prints.
    pub fn name(self) -> &'static str {
        match self {
            Code::E2m1 => "e2m1",
            Code::E8m0 => "e8m0",
        }
    }
}

/// A key of the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The key.
    pub key: Key,
    /// The tensor.
    pub node: NodeId,
    /// The rules that made it, in the order in which they applied; empty if it passed through.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub rules: List<RuleId>,
    /// The key of this plan that it is one tensor with, by a tie: this one need not be written to a
    /// file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied_to: Option<Key>,
}

/// A key of the checkpoint that no target uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// The key, as it is in the checkpoint.
    pub key: Key,
    /// Why.
    pub reason: DropReason,
}

/// Why a source tensor isn't used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// A `drop` or `keep` rule says so.
    Rule(RuleId),
    /// It is one tensor with this key, which stays.
    TiedTo(Key),
    /// The target manifest doesn't ask for what it gives.
    NotWanted,
}

/// A rule as a plan names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RuleInfo {
    /// The rule file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// The rule in one line, as the formatter prints it.
    pub text: String,
    /// How many keys or instances it applied to.
    pub count: u64,
}

/// In which layout the checkpoint was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// In the source layout: it converts.
    Converts,
    /// In the target layout already: nothing to do.
    Already,
    /// Keys of both.
    Mixed,
    /// Keys of neither: no rewrite fits, none is undone.
    Neither,
}

/// The key graph: how each key of the result is made from the keys of the checkpoint.
///
/// A plan reads back from its JSON what it is, and data that isn't a plan ([`Plan::check`]) is
/// refused when it is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Plan {
    /// Every step, inputs first.
    pub nodes: Vec<Node>,
    /// The result's keys in natural order.
    pub targets: Vec<Target>,
    /// Source tensors that no target uses, in natural order.
    pub dropped: Vec<Dropped>,
    /// The rules of the program.
    pub rules: Vec<RuleInfo>,
    /// In which layout the checkpoint was found; `None` if no rule could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Whether word embeddings are tied, and what decided.
    pub tied: Option<TieDecision>,
    /// Keys that a one-way rename or a prefix rule changed, for a [`Record`](super::Record).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renamed: Vec<super::Renamed>,
    /// Keys that a statement took away or rounded, for a [`Record`](super::Record).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<super::Lost>,
    /// How the keys meet the target manifest, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<super::Coverage>,
    /// Missing keys that a `tie … if absent fallback` leaves as the model holds them, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Key>,
    /// What became of each tie, in the order in which they applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ties: Vec<super::TieFact>,
    /// What bytes would have to tell and nobody did: ties whose tensors were not compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<super::Question>,
    /// What shapes told the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<super::Told>,
    /// What was found while planning: notes and warnings, no errors.
    pub findings: Vec<Diagnostic>,
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The derived one, which is a function of the type.
        Plan::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let plan = Plan::deserialize(deserializer)?;
        plan.check().map_err(D::Error::custom)?;
        Ok(plan)
    }
}

/// A value as JSON, which has no infinite numbers: those are text.
mod value {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        match value.is_finite() {
            true => serializer.serialize_f64(*value),
            false => serializer.serialize_str(&value.to_string()),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(value) => Ok(value),
            Written::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

impl Plan {
    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// dtype and shape of a target.
    pub fn info(&self, target: &Target) -> &TensorInfo {
        &self.node(target.node).info
    }

    /// The target of a key.
    pub fn target(&self, key: &str) -> Option<&Target> {
        self.targets
            .binary_search_by(|target| crate::key::natural_order(&target.key, key))
            .ok()
            .map(|i| &self.targets[i])
    }
}

impl Op {
    /// Whether it only moves elements.
    pub fn is_index_map(&self) -> bool {
        matches!(
            self,
            Op::Narrow { .. } | Op::Permute { .. } | Op::Reshape | Op::Expand | Op::Concat { .. }
        )
    }
}
