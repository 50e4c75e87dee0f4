//! The rows: every op of the language, in the order of the reference.

use super::{Flow, Inverse, Many, Parameter, ParameterKind, Presence, Row};
use crate::tensor::Dtype;

macro_rules! ops {
    ($($kind:ident = $name:literal {
        parameters: [$($parameter:expr),*],
        wants: $wants:literal,
        flow: $flow:expr,
        inverse: $inverse:expr,
        docs: [$takes:literal, $does:literal, $undone:literal, $needs:literal],
    })*) => {
        /// Which op of the language.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum OpKind {
            $(#[doc = concat!("`", $name, "`: ", $does, ".")] $kind,)*
        }

        /// Every op of the language, in the order of the reference.
        pub static OPS: &[Row] = &[$(Row {
            kind: OpKind::$kind,
            name: $name,
            parameters: &[$($parameter),*],
            wants: $wants,
            flow: $flow,
            inverse: $inverse,
            docs: [$takes, $does, $undone, $needs],
        },)*];
    };
}

ops! {
    Stack = "stack" {
        parameters: [capture("e"), number("dim").or(0)],
        wants: "a capture, and a dimension (0 if not said)",
        flow: Flow::Gather,
        inverse: Inverse::Op(OpKind::Unstack),
        docs: ["all values of `e` → 1", "a new dimension (0), ordered by the number; gapless from 0, or the capture's range or words", "`unstack`", "equal shapes and dtypes"],
    }
    Unstack = "unstack" {
        parameters: [capture("e"), number("dim").or(0)],
        wants: "a capture, and a dimension (0 if not said)",
        flow: Flow::Scatter,
        inverse: Inverse::Op(OpKind::Stack),
        docs: ["1 → all values of `e`", "the inverse; `e` counts from 0, or from its range's start", "`stack`", "with a range: its length"],
    }
    Concat = "concat" {
        parameters: [number("dim"), many("parts", 0)],
        wants: "a dimension, then nothing, proportions, or `over` a capture",
        flow: Flow::Join(Many::Listed),
        inverse: Inverse::Op(OpKind::Split),
        docs: ["all → 1", "one after the other; with numbers as many as these, and sizes must be in this proportion", "`split`, with the same numbers", "equal dtypes, and shapes but for `dim`"],
    }
    ConcatOver = "concat" {
        parameters: [number("dim"), over("s"), many("parts", 0)],
        wants: "a dimension, `over` a capture, then nothing or proportions",
        flow: Flow::Gather,
        inverse: Inverse::Op(OpKind::SplitOver),
        docs: ["all values of `s` → 1", "as `stack`, along a dimension that is there; with numbers as many as these, and sizes must be in this proportion", "`split(dim, over s)`, with the same numbers", "for `<->`: a range, `{s: 0..4}`, or words"],
    }
    Split = "split" {
        parameters: [number("dim"), many("parts", 0)],
        wants: "a dimension, then nothing, proportions, or `over` a capture",
        flow: Flow::Part(Many::Listed),
        inverse: Inverse::Op(OpKind::Concat),
        docs: ["1 → one per target", "equal parts; with numbers, parts in this proportion", "`concat`, with the same numbers", "size a multiple of the count, or of a+b+…"],
    }
    SplitOver = "split" {
        parameters: [number("dim"), over("s"), many("parts", 0)],
        wants: "a dimension, `over` a capture, then nothing or proportions",
        flow: Flow::Scatter,
        inverse: Inverse::Op(OpKind::ConcatOver),
        docs: ["1 → all values of `s`", "equal parts; with numbers, parts in this proportion", "`concat(dim, over s)`, with the same numbers", "a range, or words"],
    }
    Same = "same" {
        parameters: [],
        wants: "nothing, or `over` a capture",
        flow: Flow::Join(Many::Listed),
        inverse: Inverse::Op(OpKind::Copy),
        docs: ["all → 1", "the first of them, as all are equal byte for byte; else an error", "`copy`", "equal bytes"],
    }
    SameOver = "same" {
        parameters: [over("s")],
        wants: "`over` a capture",
        flow: Flow::Gather,
        inverse: Inverse::Op(OpKind::CopyOver),
        docs: ["all values of `s` → 1", "the first of them, as all are equal byte for byte; else an error", "`copy(over s)`", "equal bytes; for `<->`: a range, `{s: 0..4}`"],
    }
    Copy = "copy" {
        parameters: [],
        wants: "nothing, or `over` a capture",
        flow: Flow::Part(Many::Listed),
        inverse: Inverse::Op(OpKind::Same),
        docs: ["1 → one per target", "the same tensor under each key", "`same`", "nothing"],
    }
    CopyOver = "copy" {
        parameters: [over("s")],
        wants: "`over` a capture",
        flow: Flow::Scatter,
        inverse: Inverse::Op(OpKind::SameOver),
        docs: ["1 → all values of `s`", "the same tensor under each key", "`same(over s)`", "a range"],
    }
    Transpose = "transpose" {
        parameters: [number("i"), number("j")],
        wants: "two dimensions",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Transpose),
        docs: ["each", "swaps two dimensions", "itself", "both there"],
    }
    Permute = "permute" {
        parameters: [many("dims", 1)],
        wants: "the dimensions in their new order",
        flow: Flow::Each,
        inverse: Inverse::Permutation,
        docs: ["each", "result dimension 0 is input dimension a, …", "yes", "each dimension once"],
    }
    Reshape = "reshape" {
        parameters: [shape("to"), shape("from").optional()],
        wants: "a shape, and the shape before if it is to be undone",
        flow: Flow::Each,
        inverse: Inverse::Reordered(OpKind::Reshape, &[1, 0], "a reshape can be undone only if the shape before is written too: reshape([after], [before])"),
        docs: ["each", "same elements in row-major order; one size may be -1", "with `from` only", "equal count of elements"],
    }
    Squeeze = "squeeze" {
        parameters: [number("dim")],
        wants: "a dimension",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Unsqueeze),
        docs: ["each", "a dimension of size 1 goes", "`unsqueeze`", "size 1"],
    }
    Unsqueeze = "unsqueeze" {
        parameters: [number("dim")],
        wants: "a dimension",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Squeeze),
        docs: ["each", "a new dimension of size 1; -1 is the last of the result", "`squeeze`", "at most one more than there are"],
    }
    Slice = "slice" {
        parameters: [number("dim"), range("range"), number("of").optional()],
        wants: "a dimension, a range, and the whole size if it is to be undone",
        flow: Flow::Each,
        inverse: Inverse::Reordered(OpKind::Pad, &[0, 2, 1], "a slice can be undone, by padding, only if its end and the whole size are written: slice(dim, ..end, of)"),
        docs: ["each", "elements a up to b, each of which may be left out", "with `of` and no start only: `pad` with zeros", "within the size; size is `of`"],
    }
    Pad = "pad" {
        parameters: [number("dim"), number("to"), number("from").optional()],
        wants: "a dimension, the size after, and the size before if it is to be undone",
        flow: Flow::Each,
        inverse: Inverse::Reordered(OpKind::Slice, &[0, 2, 1], "a pad can be undone only if the size before is written too: pad(dim, to, from)"),
        docs: ["each", "zeros at the end, up to a size", "with `from` only: `slice`", "not larger already"],
    }
    Interleave = "interleave" {
        parameters: [number("dim")],
        wants: "a dimension",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Deinterleave),
        docs: ["each", "first and second half in turn", "`deinterleave`", "even size"],
    }
    Deinterleave = "deinterleave" {
        parameters: [number("dim")],
        wants: "a dimension",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Interleave),
        docs: ["each", "even positions, then odd ones", "`interleave`", "even size"],
    }
    RopeHalves = "rope_halves" {
        parameters: [number("heads")],
        wants: "the number of heads",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::RopePairs),
        docs: ["each", "in each head, pairs x0 y0 x1 y1 … become halves x0 x1 … y0 y1 …, along dimension 0", "`rope_pairs`", "size = heads × an even number"],
    }
    RopePairs = "rope_pairs" {
        parameters: [number("heads")],
        wants: "the number of heads",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::RopeHalves),
        docs: ["each", "the inverse", "`rope_halves`", "as above"],
    }
    QkvGroup = "qkv_group" {
        parameters: [number("heads"), number("kv_heads").optional()],
        wants: "the number of heads, and of key and value heads",
        flow: Flow::Join(Many::Exactly(3)),
        inverse: Inverse::Op(OpKind::QkvUngroup),
        docs: ["q, k, v → 1", "for each key/value head its q heads, then k, then v, along dimension 0", "`qkv_ungroup`", "heads a multiple of kv_heads"],
    }
    QkvUngroup = "qkv_ungroup" {
        parameters: [number("heads"), number("kv_heads").optional()],
        wants: "the number of heads, and of key and value heads",
        flow: Flow::Part(Many::Exactly(3)),
        inverse: Inverse::Op(OpKind::QkvGroup),
        docs: ["1 → q, k, v", "the inverse", "`qkv_group`", "as above"],
    }
    Add = "add" {
        parameters: [number("c")],
        wants: "a number",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Sub),
        docs: ["each", "adds c to each element", "`sub`, not bitwise", "a float dtype"],
    }
    Sub = "sub" {
        parameters: [number("c")],
        wants: "a number",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Add),
        docs: ["each", "subtracts c from each element", "`add`, not bitwise", "a float dtype"],
    }
    Mul = "mul" {
        parameters: [number("c")],
        wants: "a number",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Div),
        docs: ["each", "multiplies each element by c", "`div`, not bitwise", "a float dtype; a finite c, not 0"],
    }
    Div = "div" {
        parameters: [number("c")],
        wants: "a number",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Mul),
        docs: ["each", "divides each element by c", "`mul`, not bitwise", "a float dtype; a finite c, not 0"],
    }
    Neg = "neg" {
        parameters: [],
        wants: "nothing",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Neg),
        docs: ["each", "changes the sign", "itself", "a float dtype"],
    }
    Exp = "exp" {
        parameters: [],
        wants: "nothing",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Log),
        docs: ["each", "e to the power of each element", "`log`, not bitwise", "a float dtype"],
    }
    Log = "log" {
        parameters: [],
        wants: "nothing",
        flow: Flow::Each,
        inverse: Inverse::Op(OpKind::Exp),
        docs: ["each", "the natural logarithm", "`exp`, not bitwise", "a float dtype"],
    }
    AddBy = "add_by" {
        parameters: [],
        wants: "nothing",
        flow: Flow::With,
        inverse: Inverse::Op(OpKind::SubBy),
        docs: ["x, …, s → x, …[, s]", "adds the last to each of the others", "`sub_by`, not bitwise, where `s` stays", "float dtypes, and shapes that broadcast"],
    }
    SubBy = "sub_by" {
        parameters: [],
        wants: "nothing",
        flow: Flow::With,
        inverse: Inverse::Op(OpKind::AddBy),
        docs: ["x, …, s → x, …[, s]", "subtracts the last from each of the others", "`add_by`, not bitwise, where `s` stays", "as above"],
    }
    MulBy = "mul_by" {
        parameters: [],
        wants: "nothing",
        flow: Flow::With,
        inverse: Inverse::Op(OpKind::DivBy),
        docs: ["x, …, s → x, …[, s]", "multiplies each of the others by the last", "`div_by`, not bitwise, where `s` stays", "as above"],
    }
    DivBy = "div_by" {
        parameters: [],
        wants: "nothing",
        flow: Flow::With,
        inverse: Inverse::Op(OpKind::MulBy),
        docs: ["x, …, s → x, …[, s]", "divides each of the others by the last", "`mul_by`, not bitwise, where `s` stays", "as above"],
    }
    Norm = "norm" {
        parameters: [many("dims", 1)],
        wants: "the dimensions along which squares are added",
        flow: Flow::Each,
        inverse: Inverse::None("many tensors have one norm, so it can't be undone"),
        docs: ["each", "the root of the sum of squares along dimensions, each of which stays, with one element", "none", "a float dtype"],
    }
    WeightNorm = "weight_norm" {
        parameters: [number("dim").or(0)],
        wants: "the dimension along which lengths stay apart (0 if not said)",
        flow: Flow::Join(Many::Exactly(2)),
        inverse: Inverse::None("length and direction are one tensor after it: many pairs give the same"),
        docs: ["g, v → 1", "`v * (g / norm(v))`: lengths and directions of PyTorch's weight norm", "none", "float dtypes; `g` with one element for each of dimension `dim`"],
    }
    Sum = "sum" {
        parameters: [over("s")],
        wants: "`over` a capture",
        flow: Flow::Gather,
        inverse: Inverse::None("many tensors have one sum, so it can't be undone"),
        docs: ["all values of `s` → 1", "their sum, one after the other", "none", "a float dtype; equal shapes and dtypes"],
    }
    Mean = "mean" {
        parameters: [over("s")],
        wants: "`over` a capture",
        flow: Flow::Gather,
        inverse: Inverse::None("many tensors have one mean, so it can't be undone"),
        docs: ["all values of `s` → 1", "their sum, one after the other, over their number", "none", "a float dtype; equal shapes and dtypes"],
    }
    AddLowrank = "add_lowrank" {
        parameters: [number("alpha"), number("rank").optional(), flag("root").or(0), flag("twice").or(0)],
        wants: "by what the product is scaled, what its rank must be, whether the scale is over the root of the rank, and whether the product is rounded before it is added",
        flow: Flow::Join(Many::Exactly(3)),
        inverse: Inverse::None("what was added can't be taken off exactly"),
        docs: ["x, A, B → 1", "`x + alpha / rank * (B @ A)`, rounded once; with `root`, over the root of the rank; with `twice`, the product is rounded to the dtype of `x` before it is added", "none", "float dtypes; `A [rank, n]`, `B [m, rank]`, `x [m, n]`, or as many of each; or those of a convolution"],
    }
    Cast = "cast" {
        parameters: [dtype("to"), dtype("from").optional()],
        wants: "a dtype, and the dtype before if it is to be undone",
        flow: Flow::Each,
        inverse: Inverse::Widening(OpKind::Cast, "a cast can be undone only if it widens and the dtype before is written too: cast(after, before)"),
        docs: ["each", "elements converted to a dtype, rounded to nearest even", "with `from` only, where `to` holds every value of it", "neither `C64` nor smaller than a byte"],
    }
    DequantFp8 = "dequant_fp8" {
        parameters: [block("block").or(128), dtype("to").optional(), dtype("from").optional()],
        wants: "the size of a block (128 if not said; [1, -1] for rows), the dtype of the result (if not said, that of the scales if they have 16 bits, else BF16), and the one before if it is to be undone",
        flow: Flow::Join(Many::Exactly(2)),
        inverse: Inverse::Reordered(OpKind::QuantFp8, &[0, 2, 1], "dequantizing can be undone, though not exactly, only if the dtype before is written too: dequant_fp8(block, after, before)"),
        docs: ["matrix, scales → 1", "each element times its scale, in `to`, else in the scales' dtype if that has 16 bits, else in `BF16`", "with `from` only: `quant_fp8`, not bitwise", "`F8_E4M3` or `F8_E5M2`; a scale for each block of 128 × 128 (or `block`, or `[rows, columns]`, -1 for all), for each row, for each matrix, or one"],
    }
    QuantFp8 = "quant_fp8" {
        parameters: [block("block").or(128), dtype("to").or_dtype(Dtype::F8_E4M3), dtype("from").optional()],
        wants: "the size of a block (128 if not said; [1, -1] for rows), the dtype of the result (F8_E4M3 if not said), and the one before if it is to be undone",
        flow: Flow::Part(Many::Exactly(2)),
        inverse: Inverse::Reordered(OpKind::DequantFp8, &[0, 2, 1], "quantizing can be undone, though not exactly, only if the dtype before is written too: quant_fp8(block, after, before)"),
        docs: ["1 → matrix, scales", "each element over the scale of its block, which is the largest magnitude in it over the largest of FP8, in `F32`", "with `from` only: `dequant_fp8`, not bitwise", "a matrix of floats"],
    }
    QuantFp8By = "quant_fp8_by" {
        parameters: [block("block").or(128), dtype("to").or_dtype(Dtype::F8_E4M3)],
        wants: "the size of a block (128 if not said; [1, -1] for rows), and the dtype of the result (F8_E4M3 if not said)",
        flow: Flow::With,
        inverse: Inverse::None("what it was before can't be told from what is left of it: undo it with `dequant_fp8` in a rule of its own"),
        docs: ["matrix, …, scales → matrix, …[, scales]", "each element over its scale", "none", "floats; scales as for `dequant_fp8`"],
    }
    DequantInt8 = "dequant_int8" {
        parameters: [number("max").or(127), dtype("to").optional()],
        wants: "what scales are for (127 if not said), and the dtype of the result (if not said, that of the scales if they have 16 bits, else BF16)",
        flow: Flow::Join(Many::Exactly(2)),
        inverse: Inverse::None("dequantizing can't be undone exactly"),
        docs: ["matrix, scales → 1", "each element times its scale, over 127 or `max`; in a dtype as for `dequant_fp8`", "none", "`I8`; a scale for each row, or one: bitsandbytes' `SCB`, or with a `max` of 1 what a step is"],
    }
    DequantNvfp4 = "dequant_nvfp4" {
        parameters: [dtype("to").or_dtype(Dtype::BF16)],
        wants: "the dtype of the result (BF16 if not said)",
        flow: Flow::Join(Many::Listed),
        inverse: Inverse::None("dequantizing can't be undone exactly"),
        docs: ["packed, scales[, scale] → 1", "two FP4 of each byte times the scale of 16, and the one of all", "none", "`U8 [..., groups × 8]`, floats or `F8_E4M3` `[..., groups]`, one float"],
    }
    DequantMxfp4 = "dequant_mxfp4" {
        parameters: [dtype("to").or_dtype(Dtype::BF16)],
        wants: "the dtype of the result (BF16 if not said)",
        flow: Flow::Join(Many::Exactly(2)),
        inverse: Inverse::None("dequantizing can't be undone exactly"),
        docs: ["blocks, scales → 1", "two FP4 of each byte times a power of two, in `BF16` or `to` `[..., groups × 32]`", "none", "`U8 [..., groups, 16]` or `[..., groups × 16]`, and `U8` or `F8_E8M0` `[..., groups]`"],
    }
    DequantBnb4 = "dequant_bnb4" {
        parameters: [dtype("to").optional()],
        wants: "the dtype of the result (the one before, if not said)",
        flow: Flow::Join(Many::Listed),
        inverse: Inverse::None("dequantizing can't be undone exactly"),
        docs: ["weight, absmax, quant_map, quant_state[, nested_absmax, nested_quant_map] → 1", "the number in the table for each half byte, times the largest magnitude of its block", "none", "bitsandbytes' NF4 or FP4; the bytes of `quant_state`, which say the shape"],
    }
    DequantGptq = "dequant_gptq" {
        parameters: [number("bits").or(4), number("zero").or(1), dtype("to").optional()],
        wants: "4 or 8 bits (4 if not said), what is added to zero points (1 if not said), and the dtype of the result (that of the scales, if not said)",
        flow: Flow::Join(Many::Listed),
        inverse: Inverse::None("dequantizing can't be undone exactly"),
        docs: ["qweight, qzeros, scales[, g_idx] → 1", "each code less the zero point of its group and times its scale, as rows of outputs", "none", "matrices of `I32`, scales `[groups, outputs]`; `g_idx` where groups don't follow each other"],
    }
    DequantAwq = "dequant_awq" {
        parameters: [dtype("to").optional()],
        wants: "the dtype of the result (that of the scales, if not said)",
        flow: Flow::Join(Many::Exactly(3)),
        inverse: Inverse::None("dequantizing can't be undone exactly"),
        docs: ["qweight, qzeros, scales → 1", "the same of AutoAWQ's 4 bits, whose columns have an order of their own", "none", "matrices of `I32`, scales `[groups, outputs]`"],
    }
    DequantPacked = "dequant_packed" {
        parameters: [number("bits").or(4), dtype("to").optional(), number("columns").optional()],
        wants: "4 or 8 bits (4 if not said), the dtype of the result (that of the scales, if not said), and the number of columns if the last word has room for more",
        flow: Flow::Join(Many::Listed),
        inverse: Inverse::None("dequantizing can't be undone exactly"),
        docs: ["packed, scales[, zero points][, g_idx] → 1", "each code less its zero point, or less half of the codes, and times its scale", "none", "compressed-tensors' `pack-quantized`: matrices of `I32`, scales `[outputs, groups]`"],
    }
}

const fn parameter(name: &'static str, kind: ParameterKind) -> Parameter {
    Parameter { name, kind, presence: Presence::Required }
}

const fn number(name: &'static str) -> Parameter {
    parameter(name, ParameterKind::Number)
}

/// Numbers, at least so many, at most 64.
const fn many(name: &'static str, least: usize) -> Parameter {
    Parameter { presence: Presence::Many(least, 64), ..number(name) }
}

/// True or false.
const fn flag(name: &'static str) -> Parameter {
    parameter(name, ParameterKind::Flag)
}

const fn shape(name: &'static str) -> Parameter {
    parameter(name, ParameterKind::Shape)
}

const fn range(name: &'static str) -> Parameter {
    parameter(name, ParameterKind::Range)
}

const fn capture(name: &'static str) -> Parameter {
    parameter(name, ParameterKind::Capture)
}

const fn over(name: &'static str) -> Parameter {
    parameter(name, ParameterKind::Over)
}

/// A number, or two in brackets.
const fn block(name: &'static str) -> Parameter {
    parameter(name, ParameterKind::Block)
}

const fn dtype(name: &'static str) -> Parameter {
    parameter(name, ParameterKind::Dtype)
}

impl Parameter {
    const fn optional(self) -> Self {
        Self { presence: Presence::Optional, ..self }
    }

    const fn or(self, number: i64) -> Self {
        Self { presence: Presence::Number(number), ..self }
    }

    const fn or_dtype(self, dtype: Dtype) -> Self {
        Self { presence: Presence::Dtype(dtype), ..self }
    }
}
