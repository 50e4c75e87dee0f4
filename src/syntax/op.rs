//! The ops of the language as one table. A row says all of an op but what it does to tensors: its
//! name, its parameters, how many tensors it takes and gives, the op that undoes it, and its line in
//! docs/language.md.
//!
//! All that knows ops by their names works from these rows: how `check` reads arguments, what
//! undoes a checked op and what undoes a written one, suggestions, and the reference. What an op
//! does to tensors is in `plan`, by [`OpKind`]. The table stands here and not in `check` so that
//! writing the inverse of a file needs no checked rules.

use crate::tensor::{Dtype, widens};

use super::ast::{Arg, Expr, ExprKind};

/// One op of the language.
#[derive(Debug)]
pub struct Row {
    /// Which op.
    pub kind: OpKind,
    /// How it is written. Ops that differ in whether `over` is written share a name.
    pub name: &'static str,
    /// What stands in its parentheses.
    pub parameters: &'static [Parameter],
    /// What it takes, as a message about wrong arguments says it.
    pub wants: &'static str,
    /// How many tensors it takes and gives.
    pub flow: Flow,
    /// What undoes it.
    pub inverse: Inverse,
    /// The columns of its line in docs/language.md after the first.
    pub docs: [&'static str; 4],
}

/// A parameter of an op.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name, by which `plan` asks for it.
    pub name: &'static str,
    /// What may stand there.
    pub kind: ParameterKind,
    /// Whether it has to be written.
    pub presence: Presence,
}

/// What may stand where a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// `2`, `heads`
    Number,
    /// `[4, -1]`
    Shape,
    /// `2..8`, `..8`, `2..`
    Range,
    /// `e`, the name of a capture.
    Capture,
    /// `over e`
    Over,
    /// `BF16`
    Dtype,
}

/// Whether a parameter has to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has to be.
    Required,
    /// It need not be, and the op knows what that means.
    Optional,
    /// It is this number if it isn't written.
    Number(i64),
    /// It is this dtype if it isn't written.
    Dtype(Dtype),
    /// From so many up to so many of them, at the end.
    Many(usize, usize),
}

/// How many tensors an op takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Each tensor by itself.
    Each,
    /// Several become one.
    Join(Many),
    /// One becomes several.
    Part(Many),
    /// The tensors of its capture become one.
    Gather,
    /// One becomes the tensors of its capture.
    Scatter,
}

/// How many several are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Many {
    /// So many.
    Exactly(usize),
    /// As many as the numbers of its last parameter; any number if there are none.
    Listed,
}

/// What undoes an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inverse {
    /// This op, with the same arguments.
    Op(OpKind),
    /// This op, each of whose parameters is that argument of the op that is undone, by number. All
    /// of them have to be written; else the text says why nothing undoes it. A number n and a range
    /// `..n` stand for each other.
    Reordered(OpKind, &'static [usize], &'static str),
    /// As `Reordered` with two dtypes, after and before, where the one after holds every value of
    /// the one before.
    Widening(OpKind, &'static str),
    /// The same op, with the inverse of the permutation that its arguments are.
    Permutation,
    /// Nothing, and why.
    None(&'static str),
}

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
        parameters: [number("dim"), over("s")],
        wants: "a dimension, and `over` a capture",
        flow: Flow::Gather,
        inverse: Inverse::Op(OpKind::SplitOver),
        docs: ["all values of `s` → 1", "as `stack`, along a dimension that is there", "`split(dim, over s)`", "for `<->`: a range, `{s: 0..4}`"],
    }
    Split = "split" {
        parameters: [number("dim"), many("parts", 0)],
        wants: "a dimension, then nothing, proportions, or `over` a capture",
        flow: Flow::Part(Many::Listed),
        inverse: Inverse::Op(OpKind::Concat),
        docs: ["1 → one per target", "equal parts; with numbers, parts in this proportion", "`concat`, with the same numbers", "size a multiple of the count, or of a+b+…"],
    }
    SplitOver = "split" {
        parameters: [number("dim"), over("s")],
        wants: "a dimension, and `over` a capture",
        flow: Flow::Scatter,
        inverse: Inverse::Op(OpKind::ConcatOver),
        docs: ["1 → all values of `s`", "equal parts", "`concat(dim, over s)`", "a range"],
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
    Slice = "slice" {
        parameters: [number("dim"), range("range"), number("of").optional()],
        wants: "a dimension, a range, and the whole size if it is to be undone",
        flow: Flow::Each,
        inverse: Inverse::Reordered(OpKind::Pad, &[0, 2, 1], "a slice can be undone, by padding, only if its end and the whole size are written: slice(dim, ..end, of)"),
        docs: ["each", "elements a up to b", "with `of` and no start only: `pad` with zeros", "within the size; size is `of`"],
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
    Cast = "cast" {
        parameters: [dtype("to"), dtype("from").optional()],
        wants: "a dtype, and the dtype before if it is to be undone",
        flow: Flow::Each,
        inverse: Inverse::Widening(OpKind::Cast, "a cast can be undone only if it widens and the dtype before is written too: cast(after, before)"),
        docs: ["each", "elements converted to a dtype, rounded to nearest even", "with `from` only, where `to` holds every value of it", "neither `C64` nor smaller than a byte"],
    }
    DequantFp8 = "dequant_fp8" {
        parameters: [number("block").or(128), dtype("to").or_dtype(Dtype::BF16)],
        wants: "the block size (128 if not said), and the dtype of the result (BF16 if not said)",
        flow: Flow::Join(Many::Exactly(2)),
        inverse: Inverse::None("dequantizing can't be undone exactly"),
        docs: ["matrix, scales → 1", "each element times the scale of its block, in `BF16` or `to`", "none", "`F8_E4M3` or `F8_E5M2`, and `F32` scales, one for each block of 128 × 128 (or `block`)"],
    }
    DequantMxfp4 = "dequant_mxfp4" {
        parameters: [dtype("to").or_dtype(Dtype::BF16)],
        wants: "the dtype of the result (BF16 if not said)",
        flow: Flow::Join(Many::Exactly(2)),
        inverse: Inverse::None("dequantizing can't be undone exactly"),
        docs: ["blocks, scales → 1", "two FP4 of each byte times a power of two, in `BF16` or `to` `[..., groups × 32]`", "none", "`U8 [..., groups, 16]` and `U8` or `F8_E8M0` `[..., groups]`"],
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

    /// How the reference shows it.
    fn shown(&self) -> String {
        match (self.kind, self.presence) {
            (_, Presence::Many(..)) => "a, b, …".to_owned(),
            (ParameterKind::Range, _) => "a..b".to_owned(),
            (ParameterKind::Over, _) => format!("over {}", self.name),
            _ => self.name.to_owned(),
        }
    }

    fn may_lack(&self) -> bool {
        !matches!(self.presence, Presence::Required | Presence::Many(1.., _))
    }
}

impl Row {
    /// The fewest and the most arguments that may be written.
    pub fn count(&self) -> (usize, usize) {
        self.parameters.iter().fold((0, 0), |(least, most), one| match one.presence {
            Presence::Required => (least + 1, most + 1),
            Presence::Many(few, many) => (least + few, most + many),
            Presence::Optional | Presence::Number(_) | Presence::Dtype(_) => (least, most + 1),
        })
    }

    /// How it is written, with its parameters: `stack(e[, dim])`.
    pub fn form(&self) -> String {
        let mut form = String::new();
        let mut open = 0;
        for one in self.parameters {
            if one.may_lack() {
                form.push('[');
                open += 1;
            }
            if !form.is_empty() && form != "[" {
                form.push_str(", ");
            }
            form.push_str(&one.shown());
        }
        form.push_str(&"]".repeat(open));
        if form.is_empty() { self.name.to_owned() } else { format!("{}({form})", self.name) }
    }

    /// Its line in the table of docs/language.md.
    pub fn line(&self) -> String {
        format!("| `{}` | {} |", self.form(), self.docs.join(" | "))
    }
}

/// The names of all ops, each once, in the order of the table.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = OPS.iter().map(|row| row.name).collect();
    names.dedup();
    names
}

/// The row that a call means: of those that share its name, the one that has `over` where it is
/// written.
pub fn row(name: &str, arguments: &[Arg]) -> Option<&'static Row> {
    let named = || OPS.iter().filter(|row| row.name == name);
    let over = named().find(|row| {
        let at = row.parameters.iter().position(|one| one.kind == ParameterKind::Over);
        at.is_some_and(|at| matches!(arguments.get(at), Some(Arg::Over(_))))
    });
    over.or_else(|| named().next())
}

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

/// What undoes a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Undone<A> {
    /// This op with these arguments.
    By(OpKind, Vec<A>),
    /// The same op with the inverse of the permutation that its arguments are, which only numbers
    /// tell.
    ByPermutation,
}

impl OpKind {
    /// Its row.
    pub fn row(self) -> &'static Row {
        // The macro lists both in one order.
        &OPS[self as usize]
    }

    /// What undoes a call of it.
    ///
    /// # Errors
    /// Why nothing does.
    pub fn undo<A: Argument>(self, arguments: &[A]) -> Result<Undone<A>, &'static str> {
        match self.row().inverse {
            Inverse::Op(kind) => Ok(Undone::By(kind, arguments.to_vec())),
            Inverse::Reordered(..) if arguments.iter().any(A::has_start) => Err(
                "only a slice from the start can be undone, by padding with zeros: slice(dim, ..end, of)",
            ),
            Inverse::Reordered(kind, order, needs) => {
                reordered(kind, order, arguments).map(|moved| Undone::By(kind, moved)).ok_or(needs)
            }
            Inverse::Widening(kind, needs) => {
                let moved = reordered(kind, &[1, 0], arguments).ok_or(needs)?;
                match (moved[0].dtype(), moved[1].dtype()) {
                    (Some(from), Some(to)) if widens(from, to) => Ok(Undone::By(kind, moved)),
                    _ => Err("this cast rounds, so it can't be undone"),
                }
            }
            Inverse::Permutation => Ok(Undone::ByPermutation),
            Inverse::None(why) => Err(why),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_where_their_kind_says() {
        for row in OPS {
            assert_eq!(row.kind.row().name, row.name);
            assert!(
                row.parameters
                    .iter()
                    .rev()
                    .skip(1)
                    .all(|one| { !matches!(one.presence, Presence::Many(..)) })
            );
        }
    }

    #[test]
    fn rows_that_share_a_name_stand_together_and_differ_by_over() {
        let mut seen = names();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), names().len());
        for pair in OPS.windows(2).filter(|pair| pair[0].name == pair[1].name) {
            let has_over =
                |row: &Row| row.parameters.iter().any(|one| one.kind == ParameterKind::Over);
            assert!(!has_over(&pair[0]) && has_over(&pair[1]));
        }
    }

    /// What undoes an op takes what it gives, and gives what it takes; and it says so in the
    /// reference.
    #[test]
    fn inverses_lead_back() {
        let back = |flow| match flow {
            Flow::Each => Flow::Each,
            Flow::Join(many) => Flow::Part(many),
            Flow::Part(many) => Flow::Join(many),
            Flow::Gather => Flow::Scatter,
            Flow::Scatter => Flow::Gather,
        };
        for row in OPS {
            let other = match row.inverse {
                Inverse::Op(kind) | Inverse::Reordered(kind, ..) | Inverse::Widening(kind, _) => {
                    kind.row()
                }
                Inverse::Permutation => row,
                Inverse::None(_) => {
                    assert_eq!(row.docs[2], "none", "{}", row.name);
                    continue;
                }
            };
            assert_eq!(other.flow, back(row.flow), "{}", row.name);
            if other.kind != row.kind {
                assert!(row.docs[2].contains(other.name), "{}: {}", row.name, row.docs[2]);
            }
            match (row.inverse, other.inverse) {
                (Inverse::Op(_), Inverse::Op(kind)) => {
                    assert_eq!(kind, row.kind);
                    assert_eq!(row.count(), other.count(), "{}", row.name);
                }
                (Inverse::Reordered(_, there, _), Inverse::Reordered(kind, back, _)) => {
                    assert_eq!(kind, row.kind);
                    assert_eq!(there.len(), row.parameters.len());
                    assert!(there.iter().enumerate().all(|(at, from)| back[*from] == at));
                }
                (Inverse::Widening(_, _), Inverse::Widening(..))
                | (Inverse::Permutation, Inverse::Permutation) => {}
                (one, other) => panic!("{}: {one:?} and {other:?}", row.name),
            }
        }
    }

    #[test]
    fn forms_show_what_may_be_left_out() {
        let form = |kind: OpKind| kind.row().form();
        assert_eq!(form(OpKind::Stack), "stack(e[, dim])");
        assert_eq!(form(OpKind::Concat), "concat(dim[, a, b, …])");
        assert_eq!(form(OpKind::SplitOver), "split(dim, over s)");
        assert_eq!(form(OpKind::Permute), "permute(a, b, …)");
        assert_eq!(form(OpKind::Slice), "slice(dim, a..b[, of])");
        assert_eq!(form(OpKind::DequantFp8), "dequant_fp8([block[, to]])");
        assert_eq!(form(OpKind::Neg), "neg");
    }
}
