//! The rule language's surface: text to tree and back. No meaning is attached here; that is
//! `check`.

pub mod ast;
mod invert;
pub mod op;
mod parse;
mod print;

pub use invert::{Inverse, LeftOut, invert};
pub use parse::unfinished::{Token, TokenKind, expected, tokens};
pub use parse::{Parsed, parse};
pub use print::{print, print_expr, print_pattern, print_rule, print_statement_line};

/// The keywords that begin a statement.
pub fn statements() -> &'static [&'static str] {
    parse::STATEMENTS
}
