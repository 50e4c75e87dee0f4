//! The ops of the language as one table. A row says all of an op but what it does to tensors: its
//! name, its parameters, how many tensors it takes and gives, the op that undoes it, and its line in
//! docs/language.md.
//!
//! All that knows ops by their names works from these rows: how `check` reads arguments, what
//! undoes a checked op and what undoes a written one, suggestions, and the reference. What an op
//! does to tensors is in `plan`, by [`OpKind`]. The table stands here and not in `check` so that
//! writing the inverse of a file needs no checked rules.

mod table;
mod undo;

use super::ast::Arg;
use crate::tensor::Dtype;
pub use table::{OPS, OpKind};
pub use undo::{Argument, NoInverse, Undone};

/// One op of the language.
#[derive(Debug)]
pub struct Row {
    /// The op that the row is about.
    pub kind: OpKind,
    /// The name by which it is written. Ops that differ in whether `over` is written share a name.
    pub name: &'static str,
    /// The parameters that stand in its parentheses, in order.
    pub parameters: &'static [Parameter],
    /// What it takes, in the words of a message about wrong arguments.
    pub wants: &'static str,
    /// How many tensors a call takes and gives.
    pub flow: Flow,
    /// What undoes a call; checking `<->` and writing inverses both ask this.
    pub inverse: Inverse,
    /// The columns of its line in docs/language.md after the first.
    pub docs: [&'static str; 4],
}

/// A parameter of an op.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The name by which `plan` asks for its argument.
    pub name: &'static str,
    /// The form that its argument has.
    pub kind: ParameterKind,
    /// Whether it has to be written.
    pub presence: Presence,
}

/// What may stand where a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParameterKind {
    /// `2`, `heads`
    Number,
    /// `true`, `config.use_rslora`
    Flag,
    /// `[4, -1]`
    Shape,
    /// `128`, `[1, -1]`: a number for both, or one each.
    Block,
    /// `2..8`, `..8`, `2..`
    Range,
    /// `e`, the name of a capture.
    Capture,
    /// `over e`
    Over,
    /// `BF16`
    Dtype,
}

impl ParameterKind {
    /// Whether it is made of numbers; false and true are 0 and 1.
    pub fn is_number(self) -> bool {
        use ParameterKind::{Block, Flag, Number, Range, Shape};
        matches!(self, Number | Flag | Shape | Block | Range)
    }
}

/// Whether a parameter has to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Presence {
    /// It has to be written.
    Required,
    /// It need not be written, and the op knows what that means.
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
#[non_exhaustive]
pub enum Flow {
    /// Each tensor becomes one, by itself.
    Each,
    /// Several become one.
    Join(Many),
    /// One becomes several.
    Part(Many),
    /// The last of several changes each of the others, and stays where a target is left for it.
    With,
    /// The tensors of its capture become one.
    Gather,
    /// One becomes the tensors of its capture.
    Scatter,
}

/// How many several are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Many {
    /// This many, whatever the arguments say.
    Exactly(usize),
    /// As many as the numbers of its last parameter; any number if there are none.
    Listed,
}

/// What undoes an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

impl Parameter {
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

impl OpKind {
    /// Its row.
    pub fn row(self) -> &'static Row {
        // The macro lists both in one order.
        &OPS[self as usize]
    }
}

#[cfg(test)]
mod tests;
