//! The ops of the language: their arguments, their inverses, and how many tensors they take and
//! give.

use crate::diagnostic::codes::{OP_ARGUMENTS, UNKNOWN_OP};
use crate::diagnostic::{Diagnostic, Place, did_you_mean};
use crate::key::Slot;
use crate::syntax::ast::{Arg, Expr, OpCall};
use crate::tensor::Dtype;

use super::value::{Scope, as_name};

/// An op; `E` is an expression in checked rules and a number once they are bound to a config.
#[derive(Clone, Debug, PartialEq)]
pub enum Op<E> {
    /// `stack(e)`, `stack(e, dim)`: the tensors of a capture's values, by number, as a new
    /// dimension.
    Stack {
        /// The capture that is consumed.
        over: Slot,
        /// The new dimension.
        dim: E,
    },
    /// `unstack(e)`, `unstack(e, dim)`: the inverse.
    Unstack {
        /// The capture that is made.
        over: Slot,
        /// The dimension that goes.
        dim: E,
    },
    /// `concat(dim)`, `concat(dim, a, b, c)`: all tensors, one after the other; with proportions,
    /// which are then checked.
    Concat {
        /// Along which dimension.
        dim: E,
        /// Proportions; equal parts if empty.
        parts: Vec<E>,
    },
    /// `concat(dim, over s)`: the tensors of a capture's values, by number, one after the other.
    ConcatOver {
        /// The capture that is consumed.
        over: Slot,
        /// Along which dimension.
        dim: E,
    },
    /// `split(dim)`, `split(dim, a, b, c)`: parts in proportion, equal if not said.
    Split {
        /// Along which dimension.
        dim: E,
        /// Proportions; as many equal parts as there are targets if empty.
        parts: Vec<E>,
    },
    /// `split(dim, over s)`: equal parts, as many as the capture's range has values.
    SplitOver {
        /// The capture that is made.
        over: Slot,
        /// Along which dimension.
        dim: E,
    },
    /// `transpose(i, j)`
    Transpose {
        /// One dimension.
        a: E,
        /// The other.
        b: E,
    },
    /// `permute(2, 0, 1)`: result dim `i` is input dim `dims[i]`.
    Permute {
        /// A permutation.
        dims: Vec<E>,
        /// The other way round: result dim `dims[i]` is input dim `i`.
        inverted: bool,
    },
    /// `reshape([4, -1])`, `reshape([4, -1], [-1])`: to a shape, from a shape.
    Reshape {
        /// The shape; one size may be -1.
        to: Vec<E>,
        /// The shape before, needed to read it backwards.
        from: Option<Vec<E>>,
    },
    /// `slice(dim, a..b)`, `slice(dim, 0..b, of)`: a part of a dimension; `of` is the whole size,
    /// needed to read it backwards.
    Slice {
        /// Which dimension.
        dim: E,
        /// First element, 0 if not said.
        start: Option<E>,
        /// One past the last, the size if not said.
        end: Option<E>,
        /// The size before.
        of: Option<E>,
    },
    /// `pad(dim, to)`, `pad(dim, to, from)`: zeros at the end; `from` is the size before, needed to
    /// read it backwards.
    Pad {
        /// Which dimension.
        dim: E,
        /// The size after.
        to: E,
        /// The size before.
        from: Option<E>,
    },
    /// `interleave(dim)`: first and second half, element by element in turn.
    Interleave {
        /// Which dimension.
        dim: E,
    },
    /// `deinterleave(dim)`: the inverse.
    Deinterleave {
        /// Which dimension.
        dim: E,
    },
    /// `rope_halves(heads)`: in each head, pairs (x0 y0 x1 y1 …) become halves (x0 x1 … y0 y1 …),
    /// along dim 0.
    RopeHalves {
        /// How many heads dim 0 holds.
        heads: E,
    },
    /// `rope_pairs(heads)`: the inverse.
    RopePairs {
        /// How many heads dim 0 holds.
        heads: E,
    },
    /// `qkv_group(heads, kv_heads)`: q, k, v become one, for each kv head its q heads, then k, then
    /// v, along dim 0.
    QkvGroup {
        /// Query heads.
        heads: E,
        /// Key and value heads.
        kv_heads: E,
    },
    /// `qkv_ungroup(heads, kv_heads)`: the inverse.
    QkvUngroup {
        /// Query heads.
        heads: E,
        /// Key and value heads.
        kv_heads: E,
    },
    /// `add(c)`
    Add {
        /// The summand.
        value: E,
        /// Subtract instead.
        inverted: bool,
    },
    /// `mul(c)`
    Mul {
        /// The factor.
        value: E,
        /// Divide instead.
        inverted: bool,
    },
    /// `neg`
    Neg,
    /// `exp`
    Exp,
    /// `log`
    Log,
    /// `cast(F32)`, `cast(F32, BF16)`: to a dtype, from a dtype.
    Cast {
        /// The dtype after.
        to: Dtype,
        /// The dtype before, needed to read it backwards.
        from: Option<Dtype>,
    },
    /// `dequant_fp8(block, dtype)`: a matrix and its block scales (`block` rows and columns, 128 if
    /// not said) to a dtype (BF16).
    DequantFp8 {
        /// Rows and columns of a block.
        block: E,
        /// The dtype of the result.
        to: Dtype,
    },
    /// `dequant_mxfp4(dtype)`: blocks of two FP4 a byte and their power-of-two scales.
    DequantMxfp4 {
        /// The dtype of the result.
        to: Dtype,
    },
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
    /// A capture's tensors become one.
    Gather(Slot),
    /// One becomes a capture's tensors.
    Scatter(Slot),
}

/// A place where an op stands.
#[derive(Clone, Debug)]
pub struct OpUse<E> {
    /// The op.
    pub op: Op<E>,
    /// Where it is written.
    pub place: Place,
}

/// Every op's name, for did-you-mean.
pub const NAMES: &[&str] = &[
    "stack",
    "unstack",
    "concat",
    "split",
    "transpose",
    "permute",
    "reshape",
    "slice",
    "pad",
    "interleave",
    "deinterleave",
    "rope_halves",
    "rope_pairs",
    "qkv_group",
    "qkv_ungroup",
    "add",
    "sub",
    "mul",
    "div",
    "neg",
    "exp",
    "log",
    "cast",
    "dequant_fp8",
    "dequant_mxfp4",
];

/// Ops that make a source instead of changing one.
pub const MAKERS: &[&str] = &["zeros", "ones", "sinusoids"];

impl<E: Clone> Op<E> {
    /// How many tensors it takes and gives.
    pub fn arity(&self) -> Arity {
        match self {
            Op::Stack { over, .. } | Op::ConcatOver { over, .. } => Arity::Gather(*over),
            Op::Unstack { over, .. } | Op::SplitOver { over, .. } => Arity::Scatter(*over),
            Op::Concat { parts, .. } => Arity::Join((!parts.is_empty()).then_some(parts.len())),
            Op::Split { parts, .. } => Arity::Part((!parts.is_empty()).then_some(parts.len())),
            Op::QkvGroup { .. } => Arity::Join(Some(3)),
            Op::QkvUngroup { .. } => Arity::Part(Some(3)),
            Op::DequantFp8 { .. } | Op::DequantMxfp4 { .. } => Arity::Join(Some(2)),
            _ => Arity::Each,
        }
    }

    /// The op that undoes it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn inverse(&self) -> Result<Op<E>, &'static str> {
        Ok(match self.clone() {
            Op::Stack { over, dim } => Op::Unstack { over, dim },
            Op::Unstack { over, dim } => Op::Stack { over, dim },
            Op::Concat { dim, parts } => Op::Split { dim, parts },
            Op::Split { dim, parts } => Op::Concat { dim, parts },
            Op::ConcatOver { over, dim } => Op::SplitOver { over, dim },
            Op::SplitOver { over, dim } => Op::ConcatOver { over, dim },
            Op::Transpose { a, b } => Op::Transpose { a, b },
            Op::Permute { dims, inverted } => Op::Permute { dims, inverted: !inverted },
            Op::Reshape { to, from: Some(from) } => Op::Reshape { to: from, from: Some(to) },
            Op::Reshape { from: None, .. } => {
                return Err(
                    "a reshape can be undone only if the shape before is written too: reshape([after], [before])",
                );
            }
            Op::Slice { dim, start: None, end: Some(end), of: Some(of) } => {
                Op::Pad { dim, to: of, from: Some(end) }
            }
            Op::Slice { start: Some(_), .. } => {
                return Err(
                    "only a slice from the start can be undone, by padding with zeros: slice(dim, ..end, of)",
                );
            }
            Op::Slice { .. } => {
                return Err(
                    "a slice can be undone, by padding, only if its end and the whole size are written: slice(dim, ..end, of)",
                );
            }
            Op::Pad { dim, to, from: Some(from) } => {
                Op::Slice { dim, start: None, end: Some(from), of: Some(to) }
            }
            Op::Pad { from: None, .. } => {
                return Err(
                    "a pad can be undone only if the size before is written too: pad(dim, to, from)",
                );
            }
            Op::Interleave { dim } => Op::Deinterleave { dim },
            Op::Deinterleave { dim } => Op::Interleave { dim },
            Op::RopeHalves { heads } => Op::RopePairs { heads },
            Op::RopePairs { heads } => Op::RopeHalves { heads },
            Op::QkvGroup { heads, kv_heads } => Op::QkvUngroup { heads, kv_heads },
            Op::QkvUngroup { heads, kv_heads } => Op::QkvGroup { heads, kv_heads },
            Op::Add { value, inverted } => Op::Add { value, inverted: !inverted },
            Op::Mul { value, inverted } => Op::Mul { value, inverted: !inverted },
            Op::Neg => Op::Neg,
            Op::Exp => Op::Log,
            Op::Log => Op::Exp,
            Op::Cast { to, from: Some(from) } if widens(from, to) => {
                Op::Cast { to: from, from: Some(to) }
            }
            Op::Cast { from: Some(_), .. } => {
                return Err("this cast rounds, so it can't be undone");
            }
            Op::Cast { from: None, .. } => {
                return Err(
                    "a cast can be undone only if it widens and the dtype before is written too: cast(after, before)",
                );
            }
            Op::DequantFp8 { .. } | Op::DequantMxfp4 { .. } => {
                return Err("dequantizing can't be undone exactly");
            }
        })
    }

    /// The op with its numbers turned into something else.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map<F, X>(&self, f: &mut impl FnMut(&E) -> Result<F, X>) -> Result<Op<F>, X> {
        let list = |items: &[E], f: &mut dyn FnMut(&E) -> Result<F, X>| {
            items.iter().map(f).collect::<Result<Vec<_>, _>>()
        };
        Ok(match self {
            Op::Stack { over, dim } => Op::Stack { over: *over, dim: f(dim)? },
            Op::Unstack { over, dim } => Op::Unstack { over: *over, dim: f(dim)? },
            Op::Concat { dim, parts } => Op::Concat { dim: f(dim)?, parts: list(parts, f)? },
            Op::ConcatOver { over, dim } => Op::ConcatOver { over: *over, dim: f(dim)? },
            Op::Split { dim, parts } => Op::Split { dim: f(dim)?, parts: list(parts, f)? },
            Op::SplitOver { over, dim } => Op::SplitOver { over: *over, dim: f(dim)? },
            Op::Transpose { a, b } => Op::Transpose { a: f(a)?, b: f(b)? },
            Op::Permute { dims, inverted } => {
                Op::Permute { dims: list(dims, f)?, inverted: *inverted }
            }
            Op::Reshape { to, from } => Op::Reshape {
                to: list(to, f)?,
                from: from.as_ref().map(|from| list(from, f)).transpose()?,
            },
            Op::Slice { dim, start, end, of } => Op::Slice {
                dim: f(dim)?,
                start: start.as_ref().map(&mut *f).transpose()?,
                end: end.as_ref().map(&mut *f).transpose()?,
                of: of.as_ref().map(&mut *f).transpose()?,
            },
            Op::Pad { dim, to, from } => {
                Op::Pad { dim: f(dim)?, to: f(to)?, from: from.as_ref().map(&mut *f).transpose()? }
            }
            Op::Interleave { dim } => Op::Interleave { dim: f(dim)? },
            Op::Deinterleave { dim } => Op::Deinterleave { dim: f(dim)? },
            Op::RopeHalves { heads } => Op::RopeHalves { heads: f(heads)? },
            Op::RopePairs { heads } => Op::RopePairs { heads: f(heads)? },
            Op::QkvGroup { heads, kv_heads } => {
                Op::QkvGroup { heads: f(heads)?, kv_heads: f(kv_heads)? }
            }
            Op::QkvUngroup { heads, kv_heads } => {
                Op::QkvUngroup { heads: f(heads)?, kv_heads: f(kv_heads)? }
            }
            Op::Add { value, inverted } => Op::Add { value: f(value)?, inverted: *inverted },
            Op::Mul { value, inverted } => Op::Mul { value: f(value)?, inverted: *inverted },
            Op::Neg => Op::Neg,
            Op::Exp => Op::Exp,
            Op::Log => Op::Log,
            Op::Cast { to, from } => Op::Cast { to: *to, from: *from },
            Op::DequantFp8 { block, to } => Op::DequantFp8 { block: f(block)?, to: *to },
            Op::DequantMxfp4 { to } => Op::DequantMxfp4 { to: *to },
        })
    }
}

/// Whether every value of one dtype is a value of the other, so that casting there and back changes
/// nothing.
pub fn widens(from: Dtype, to: Dtype) -> bool {
    use Dtype::{
        BF16, Bool, F4, F6_E2M3, F6_E3M2, F8_E4M3, F8_E4M3FNUZ, F8_E5M2, F8_E5M2FNUZ, F8_E8M0, F16,
        F32, F64, I8, I16, I32, I64, U8, U16, U32, U64,
    };
    if from == to {
        return true;
    }
    match from {
        Bool => matches!(to, U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64 | F16 | BF16 | F32 | F64),
        U8 => matches!(to, U16 | I16 | U32 | I32 | U64 | I64 | F16 | BF16 | F32 | F64),
        I8 => matches!(to, I16 | I32 | I64 | F16 | BF16 | F32 | F64),
        U16 => matches!(to, U32 | I32 | U64 | I64 | F32 | F64),
        I16 => matches!(to, I32 | I64 | F32 | F64),
        U32 => matches!(to, U64 | I64 | F64),
        I32 => matches!(to, I64 | F64),
        F4 | F6_E2M3 | F6_E3M2 | F8_E4M3 | F8_E5M2 | F8_E4M3FNUZ | F8_E5M2FNUZ => {
            matches!(to, F16 | BF16 | F32 | F64)
        }
        F8_E8M0 => matches!(to, BF16 | F32 | F64),
        F16 | BF16 => matches!(to, F32 | F64),
        F32 => to == F64,
        U64 | I64 | F64 | Dtype::C64 => false,
    }
}

/// Reads an op of a rule. `slot` finds a capture by name.
///
/// # Errors
/// An unknown op, or arguments that don't fit it.
pub fn resolve(
    call: &OpCall,
    scope: &Scope,
    slot: &dyn Fn(&str) -> Option<Slot>,
) -> Result<OpUse<Expr>, Box<Diagnostic>> {
    let arguments = Arguments { call, scope };
    let args = call.args.as_slice();
    let zero = || Expr { kind: crate::syntax::ast::ExprKind::Int(0), span: call.span };
    let op = match call.name.text.as_str() {
        "stack" | "unstack" => {
            arguments.count(1, 2, "a capture, and a dimension (0 if not said)")?;
            let over = arguments.capture(0, slot)?;
            let dim = if args.len() > 1 { arguments.value(1)? } else { zero() };
            if call.name.text == "stack" {
                Op::Stack { over, dim }
            } else {
                Op::Unstack { over, dim }
            }
        }
        "concat" | "split" => {
            arguments.count(
                1,
                65,
                "a dimension, then nothing, proportions, or `over` a capture",
            )?;
            let dim = arguments.value(0)?;
            let joins = call.name.text == "concat";
            match args.get(1) {
                Some(Arg::Over(_)) => {
                    arguments.count(2, 2, "a dimension, and `over` a capture")?;
                    let over = arguments.capture(1, slot)?;
                    if joins { Op::ConcatOver { over, dim } } else { Op::SplitOver { over, dim } }
                }
                _ => {
                    let parts = (1..args.len())
                        .map(|at| arguments.value(at))
                        .collect::<Result<Vec<_>, _>>()?;
                    if joins { Op::Concat { dim, parts } } else { Op::Split { dim, parts } }
                }
            }
        }
        "transpose" => {
            arguments.count(2, 2, "two dimensions")?;
            Op::Transpose { a: arguments.value(0)?, b: arguments.value(1)? }
        }
        "permute" => {
            arguments.count(1, 64, "the dimensions in their new order")?;
            Op::Permute {
                dims: (0..args.len()).map(|at| arguments.value(at)).collect::<Result<_, _>>()?,
                inverted: false,
            }
        }
        "reshape" => {
            arguments.count(1, 2, "a shape, and the shape before if it is to be undone")?;
            let from = if args.len() > 1 { Some(arguments.list(1)?) } else { None };
            Op::Reshape { to: arguments.list(0)?, from }
        }
        "slice" => {
            arguments.count(
                2,
                3,
                "a dimension, a range, and the whole size if it is to be undone",
            )?;
            let Some(Arg::Range(start, end)) = args.get(1) else {
                return Err(arguments.wrong("a range, as in `slice(0, 2..8)`"));
            };
            let of = if args.len() > 2 { Some(arguments.value(2)?) } else { None };
            Op::Slice { dim: arguments.value(0)?, start: start.clone(), end: end.clone(), of }
        }
        "pad" => {
            arguments.count(
                2,
                3,
                "a dimension, the size after, and the size before if it is to be undone",
            )?;
            let from = if args.len() > 2 { Some(arguments.value(2)?) } else { None };
            Op::Pad { dim: arguments.value(0)?, to: arguments.value(1)?, from }
        }
        "interleave" | "deinterleave" => {
            arguments.count(1, 1, "a dimension")?;
            let dim = arguments.value(0)?;
            if call.name.text == "interleave" {
                Op::Interleave { dim }
            } else {
                Op::Deinterleave { dim }
            }
        }
        "rope_halves" | "rope_pairs" => {
            arguments.count(1, 1, "the number of heads")?;
            let heads = arguments.value(0)?;
            if call.name.text == "rope_halves" {
                Op::RopeHalves { heads }
            } else {
                Op::RopePairs { heads }
            }
        }
        "qkv_group" | "qkv_ungroup" => {
            arguments.count(1, 2, "the number of heads, and of key and value heads")?;
            let heads = arguments.value(0)?;
            let kv_heads = if args.len() > 1 { arguments.value(1)? } else { heads.clone() };
            if call.name.text == "qkv_group" {
                Op::QkvGroup { heads, kv_heads }
            } else {
                Op::QkvUngroup { heads, kv_heads }
            }
        }
        "add" | "sub" => {
            arguments.count(1, 1, "a number")?;
            Op::Add { value: arguments.value(0)?, inverted: call.name.text == "sub" }
        }
        "mul" | "div" => {
            arguments.count(1, 1, "a number")?;
            Op::Mul { value: arguments.value(0)?, inverted: call.name.text == "div" }
        }
        "neg" | "exp" | "log" => {
            arguments.count(0, 0, "nothing")?;
            match call.name.text.as_str() {
                "neg" => Op::Neg,
                "exp" => Op::Exp,
                _ => Op::Log,
            }
        }
        "cast" => {
            arguments.count(1, 2, "a dtype, and the dtype before if it is to be undone")?;
            Op::Cast {
                to: arguments.dtype(0)?,
                from: if args.len() > 1 { Some(arguments.dtype(1)?) } else { None },
            }
        }
        "dequant_fp8" => {
            arguments.count(
                0,
                2,
                "the block size (128 if not said), and the dtype of the result (BF16 if not said)",
            )?;
            let block = if args.is_empty() {
                Expr { kind: crate::syntax::ast::ExprKind::Int(128), span: call.span }
            } else {
                arguments.value(0)?
            };
            Op::DequantFp8 {
                block,
                to: if args.len() > 1 { arguments.dtype(1)? } else { Dtype::BF16 },
            }
        }
        "dequant_mxfp4" => {
            arguments.count(0, 1, "the dtype of the result (BF16 if not said)")?;
            Op::DequantMxfp4 { to: if args.is_empty() { Dtype::BF16 } else { arguments.dtype(0)? } }
        }
        name if MAKERS.contains(&name) => {
            return Err(Box::new(
                Diagnostic::error(
                    OP_ARGUMENTS,
                    format!("`{name}` makes a tensor, so it stands where a source stands"),
                )
                .at(scope.place(call.span), "not an op on a tensor")
                .hint(format!("write it as a source of a map: map \"a\", {name}([4], F32) -> …")),
            ));
        }
        name => {
            let mut diagnostic = Diagnostic::error(UNKNOWN_OP, format!("there is no op `{name}`"))
                .at(scope.place(call.name.span), "unknown op");
            if let Some(close) = did_you_mean(name, NAMES.iter().copied()) {
                diagnostic = diagnostic.hint(format!("did you mean `{close}`?"));
            } else {
                diagnostic = diagnostic.hint(format!("the ops are {}", NAMES.join(", ")));
            }
            return Err(Box::new(diagnostic));
        }
    };
    Ok(OpUse { op, place: scope.place(call.span) })
}

/// Reads a dtype by name, in any case.
///
/// # Errors
/// A name that no dtype has.
pub fn dtype(name: &str, place: Place) -> Result<Dtype, Box<Diagnostic>> {
    name.to_uppercase().parse().map_err(|_| {
        let mut diagnostic = Diagnostic::error(OP_ARGUMENTS, format!("there is no dtype `{name}`"))
            .at(place, "unknown dtype");
        let upper = name.to_uppercase();
        if let Some(close) = did_you_mean(&upper, Dtype::ALL.iter().map(|dtype| dtype.name())) {
            diagnostic = diagnostic.hint(format!("did you mean `{close}`?"));
        } else {
            diagnostic = diagnostic
                .hint("dtypes are named as in safetensors: F32, BF16, F16, I64, U8, F8_E4M3, …");
        }
        Box::new(diagnostic)
    })
}

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
    let arguments = Arguments { call, scope };
    let content = match call.name.text.as_str() {
        "zeros" => Content::Value(0.0),
        "ones" => Content::Value(1.0),
        "sinusoids" => Content::Sinusoids,
        name => {
            let code = if NAMES.contains(&name) { OP_ARGUMENTS } else { UNKNOWN_OP };
            return Err(Box::new(
                Diagnostic::error(code, format!("`{name}` doesn't make a tensor"))
                    .at(scope.place(call.name.span), "not a source")
                    .hint("what makes a tensor is zeros(shape, dtype), ones(shape, dtype) or sinusoids([rows, columns], dtype)"),
            ));
        }
    };
    arguments.count(2, 2, "a shape and a dtype, as in `zeros([4, 8], F32)`")?;
    Ok(Made {
        content,
        shape: arguments.list(0)?,
        dtype: arguments.dtype(1)?,
        place: scope.place(call.span),
    })
}

struct Arguments<'a> {
    call: &'a OpCall,
    scope: &'a Scope,
}

impl Arguments<'_> {
    fn wrong(&self, takes: &str) -> Box<Diagnostic> {
        let name = &self.call.name.text;
        Box::new(
            Diagnostic::error(OP_ARGUMENTS, format!("wrong arguments for `{name}`"))
                .at(self.scope.place(self.call.span), format!("`{name}` takes {takes}")),
        )
    }

    fn count(&self, least: usize, most: usize, takes: &str) -> Result<(), Box<Diagnostic>> {
        if (least..=most).contains(&self.call.args.len()) { Ok(()) } else { Err(self.wrong(takes)) }
    }

    fn value(&self, at: usize) -> Result<Expr, Box<Diagnostic>> {
        match self.call.args.get(at) {
            Some(Arg::Value(expr)) => Ok(expr.clone()),
            _ => Err(self.wrong("a number here")),
        }
    }

    fn list(&self, at: usize) -> Result<Vec<Expr>, Box<Diagnostic>> {
        match self.call.args.get(at) {
            Some(Arg::Value(Expr { kind: crate::syntax::ast::ExprKind::List(items), .. })) => {
                Ok(items.clone())
            }
            _ => Err(self.wrong("a shape in brackets here, as in `[4, -1]`")),
        }
    }

    fn capture(
        &self,
        at: usize,
        slot: &dyn Fn(&str) -> Option<Slot>,
    ) -> Result<Slot, Box<Diagnostic>> {
        let name = match self.call.args.get(at) {
            Some(Arg::Over(name)) => name.clone(),
            Some(Arg::Value(expr)) => as_name(expr).ok_or_else(|| self.wrong("a capture here"))?,
            _ => return Err(self.wrong("a capture here")),
        };
        slot(&name.text).ok_or_else(|| {
            Box::new(
                Diagnostic::error(
                    OP_ARGUMENTS,
                    format!("no pattern of this rule has a capture `{}`", name.text),
                )
                .at(self.scope.place(name.span), "not a capture of this rule"),
            )
        })
    }

    fn dtype(&self, at: usize) -> Result<Dtype, Box<Diagnostic>> {
        match self.call.args.get(at) {
            Some(Arg::Value(expr)) => {
                let name = as_name(expr).ok_or_else(|| self.wrong("a dtype here"))?;
                dtype(&name.text, self.scope.place(name.span))
            }
            _ => Err(self.wrong("a dtype here")),
        }
    }
}
