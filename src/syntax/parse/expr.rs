//! Expressions: from the grammar's flat list of operands and operators to a tree.
//!
//! A tree is at most [`MAX_OPERATORS`] and the nesting of brackets deep, so that whoever walks it
//! may recurse.

use pest::iterators::Pair;

use super::build::Builder;
use super::{Rule, span};
use crate::diagnostic::{Diagnostic, Span, codes};
use crate::syntax::ast::{BinaryOp, ConfigStep, Expr, ExprKind, Ident, Pattern, UnaryOp};

/// Operators in one expression beyond which it is refused.
const MAX_OPERATORS: usize = 256;

/// How tightly `not` and a sign hold their operand, on the scale of [`BinaryOp::binding`].
const NOT: u8 = 3;
const NEG: u8 = 8;
/// How tightly comparisons bind: they don't chain.
const COMPARISON: u8 = 4;

/// A piece of the grammar's flat list.
enum Piece<'i> {
    Prefix(UnaryOp, Span),
    Infix(BinaryOp, Span),
    Primary(Pair<'i, Rule>),
}

impl Builder<'_, '_> {
    /// An expression.
    pub(super) fn expr(&mut self, pair: Pair<'_, Rule>) -> Option<Expr> {
        let operator = |pair: &Pair<'_, Rule>| {
            matches!(pair.as_rule(), Rule::infix | Rule::prefix_op | Rule::item)
        };
        if pair.clone().into_inner().flatten().filter(operator).count() > MAX_OPERATORS {
            let place = self.place(self.span(&pair));
            let diagnostic = Diagnostic::error(
                codes::LIMIT,
                format!("an expression of more than {MAX_OPERATORS} operators"),
            );
            return self.fail(diagnostic.at(place, "too long").hint("name parts of it with `let`"));
        }
        self.part(pair)
    }

    /// An expression within another.
    fn part(&mut self, pair: Pair<'_, Rule>) -> Option<Expr> {
        let mut items = Vec::new();
        for part in pair.into_inner() {
            if part.as_rule() == Rule::infix {
                items.push(Piece::Infix(infix(part.as_str().trim_end())?, self.span(&part)));
                continue;
            }
            for part in part.into_inner() {
                match part.as_rule() {
                    Rule::prefix_op => {
                        let op = if part.as_str().starts_with('-') {
                            UnaryOp::Neg
                        } else {
                            UnaryOp::Not
                        };
                        items.push(Piece::Prefix(op, self.span(&part)));
                    }
                    _ => items.push(Piece::Primary(part)),
                }
            }
        }
        self.climb(&mut items.into_iter().peekable(), 0)
    }

    /// The longest expression whose operators all bind tighter than `loosest`.
    fn climb<'i>(
        &mut self,
        items: &mut std::iter::Peekable<impl Iterator<Item = Piece<'i>>>,
        loosest: u8,
    ) -> Option<Expr> {
        let mut left = match items.next()? {
            Piece::Primary(pair) => self.value(pair)?,
            Piece::Prefix(op, at) => {
                let operand = self.climb(items, if op == UnaryOp::Neg { NEG } else { NOT })?;
                let span = at.to(operand.span);
                Expr { kind: ExprKind::Unary(op, Box::new(operand)), span }
            }
            Piece::Infix(..) => return None,
        };
        let mut compared: Option<Span> = None;
        while let Some(Piece::Infix(op, at)) = items.peek() {
            let (op, at) = (*op, *at);
            let power = op.binding();
            if power <= loosest {
                break;
            }
            if power == COMPARISON {
                if let Some(first) = compared {
                    let diagnostic = Diagnostic::error(codes::SYNTAX, "comparisons don't chain")
                        .at(self.place(at), "second comparison")
                        .label(self.place(first), "first comparison")
                        .hint("join two comparisons with `and`");
                    return self.fail(diagnostic);
                }
                compared = Some(at);
            }
            items.next();
            let right = self.climb(items, power)?;
            let span = left.span.to(right.span);
            left = Expr { kind: ExprKind::Binary(op, Box::new(left), Box::new(right)), span };
        }
        Some(left)
    }

    /// A value, and items of it.
    fn value(&mut self, pair: Pair<'_, Rule>) -> Option<Expr> {
        let mut parts = pair.into_inner();
        let mut value = self.primary(parts.next()?)?;
        for item in parts {
            let span = value.span.to(self.span(&item));
            let index = item.into_inner().find(|part| part.as_rule() == Rule::expr)?;
            let index = self.part(index)?;
            let kind = match (value.kind, &index.kind) {
                // As without spaces in the brackets.
                (ExprKind::Config(mut steps), ExprKind::Int(item)) => {
                    steps.push(ConfigStep::Item(item.unsigned_abs()));
                    ExprKind::Config(steps)
                }
                (kind, _) => {
                    let list = Expr { kind, span: value.span };
                    ExprKind::Item(Box::new(list), Box::new(index))
                }
            };
            value = Expr { kind, span };
        }
        Some(value)
    }

    fn primary(&mut self, pair: Pair<'_, Rule>) -> Option<Expr> {
        let span = self.span(&pair);
        let text = pair.as_str();
        let kind = match pair.as_rule() {
            Rule::int => match text.replace('_', "").parse() {
                Ok(value) => ExprKind::Int(value),
                Err(_) => return self.bad_number(span, "a number that doesn't fit 64 bits"),
            },
            Rule::float => match text.replace('_', "").parse::<f64>() {
                Ok(value) if value.is_finite() => ExprKind::Float(value),
                _ => return self.bad_number(span, "a number beyond the range of 64-bit floats"),
            },
            Rule::string => ExprKind::Text(self.string(&pair)?.text),
            Rule::list => {
                let items = pair.into_inner().filter(|part| part.as_rule() == Rule::expr);
                ExprKind::List(items.map(|item| self.part(item)).collect::<Option<_>>()?)
            }
            Rule::paren => {
                let inner = pair.into_inner().find(|part| part.as_rule() == Rule::expr)?;
                ExprKind::Paren(Box::new(self.part(inner)?))
            }
            Rule::exists => {
                let pattern = pair.into_inner().find(|part| part.as_rule() == Rule::string)?;
                ExprKind::Exists(self.pattern(&pattern)?)
            }
            Rule::size => {
                let (pattern, dim) = self.asked(pair, Rule::int)?;
                match dim.as_str().replace('_', "").parse() {
                    Ok(dim) => ExprKind::Size(pattern, dim),
                    Err(_) => return self.bad_number(span, "a number that doesn't fit 64 bits"),
                }
            }
            Rule::count => {
                let (pattern, capture) = self.asked(pair, Rule::name)?;
                let ident = Ident { text: capture.as_str().to_owned(), span: self.span(&capture) };
                ExprKind::Count(pattern, ident)
            }
            Rule::config => ExprKind::Config(self.config(pair)?),
            Rule::literal => match text {
                "null" => ExprKind::Null,
                "tied" => ExprKind::Tied,
                _ => ExprKind::Bool(text == "true"),
            },
            _ => ExprKind::Name(text.to_owned()),
        };
        Some(Expr { kind, span })
    }

    /// The pattern in parentheses, and what is asked of the keys that fit it.
    fn asked<'i>(&mut self, pair: Pair<'i, Rule>, what: Rule) -> Option<(Pattern, Pair<'i, Rule>)> {
        let mut parts = pair.into_inner();
        let pattern = parts.find(|part| part.as_rule() == Rule::string)?;
        let what = parts.find(|part| part.as_rule() == what)?;
        Some((self.pattern(&pattern)?, what))
    }

    fn config(&mut self, pair: Pair<'_, Rule>) -> Option<Vec<ConfigStep>> {
        let mut steps = Vec::new();
        for part in pair.into_inner() {
            let at = self.span(&part);
            match part.as_rule() {
                Rule::config_field => {
                    steps.push(ConfigStep::Field(part.into_inner().next()?.as_str().to_owned()))
                }
                Rule::config_item => match part.into_inner().next()?.as_str().parse() {
                    Ok(index) => steps.push(ConfigStep::Item(index)),
                    Err(_) => return self.bad_number(at, "a number that doesn't fit 64 bits"),
                },
                _ => {}
            }
        }
        Some(steps)
    }

    fn bad_number<T>(&mut self, at: Span, message: &str) -> Option<T> {
        let diagnostic = Diagnostic::error(codes::SYNTAX, message)
            .at(self.place(span(at.start as usize, at.end as usize)), "too great");
        self.fail(diagnostic)
    }
}

fn infix(text: &str) -> Option<BinaryOp> {
    const OPS: [BinaryOp; 15] = [
        BinaryOp::Or,
        BinaryOp::And,
        BinaryOp::In,
        BinaryOp::Eq,
        BinaryOp::Ne,
        BinaryOp::Lt,
        BinaryOp::Le,
        BinaryOp::Gt,
        BinaryOp::Ge,
        BinaryOp::Default,
        BinaryOp::Add,
        BinaryOp::Sub,
        BinaryOp::Mul,
        BinaryOp::Div,
        BinaryOp::Rem,
    ];
    OPS.into_iter().find(|op| op.text() == text)
}
