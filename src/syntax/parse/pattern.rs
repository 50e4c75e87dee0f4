//! The inside of a pattern's quotes: segments, captures, index arithmetic.

use pest::Parser as _;
use pest::iterators::Pair;

use super::build::{Builder, unknown_escape};
use super::{Grammar, Rule, report, span};
use crate::diagnostic::{Diagnostic, Place, Span, codes};
use crate::syntax::ast::{
    Atom, BinaryOp, Capture, CaptureKind, Expr, ExprKind, Ident, Pattern, Segment, UnaryOp,
};

impl Builder<'_, '_> {
    /// A pattern, from the string that holds it.
    pub(super) fn pattern(&mut self, string: &Pair<'_, Rule>) -> Option<Pattern> {
        let at = self.span(string);
        let quoted = string.as_str();
        let body = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        let base = at.start as usize + 1;
        if let Some(problem) = misplaced(body) {
            let diagnostic = problem.diagnostic(|range| {
                Place::new(self.source.clone(), span(base + range.0, base + range.1))
            });
            return self.fail(diagnostic);
        }
        let pair = match Grammar::parse(Rule::pattern_body, body) {
            Ok(mut pairs) => pairs.next()?,
            Err(error) => {
                let diagnostic = report::pattern(self.source, base, body, &error);
                return self.fail(diagnostic);
            }
        };
        let outer = std::mem::replace(&mut self.base, base);
        let segments: Option<Vec<Segment>> = pair
            .into_inner()
            .filter(|part| part.as_rule() == Rule::segment)
            .map(|segment| self.segment(segment))
            .collect();
        self.base = outer;
        let segments = segments?;
        self.unnamed_rests(&segments)?;
        Some(Pattern { segments, span: at })
    }

    /// `**` has its partner on the other side by where it stands, so one may stand at each end and
    /// none between.
    fn unnamed_rests(&mut self, segments: &[Segment]) -> Option<()> {
        for (index, segment) in segments.iter().enumerate() {
            let Segment::Rest { name: None, span } = segment else { continue };
            if index > 0 && index + 1 < segments.len() {
                let diagnostic = Diagnostic::error(
                    codes::BAD_PATTERN,
                    "`**` inside a pattern needs a name",
                )
                .at(self.place(*span), "neither the first nor the last segment")
                .hint("name it, as in `{path**}`, so that the other side can say where it goes");
                return self.fail(diagnostic);
            }
        }
        Some(())
    }

    fn segment(&mut self, pair: Pair<'_, Rule>) -> Option<Segment> {
        let at = self.span(&pair);
        let mut atoms = Vec::new();
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::rest => return Some(Segment::Rest { name: None, span: at }),
                Rule::named_rest => {
                    let capture = part.into_inner().next()?;
                    let name = self.ident(&capture.into_inner().next()?);
                    return Some(Segment::Rest { name: Some(name), span: at });
                }
                _ => {
                    let inner = part.into_inner().next()?;
                    match inner.as_rule() {
                        Rule::text => atoms.push(Atom::Text(unescaped(inner.as_str()))),
                        _ => atoms.push(Atom::Capture(self.capture(inner)?)),
                    }
                }
            }
        }
        Some(Segment::Atoms(atoms))
    }

    fn capture(&mut self, pair: Pair<'_, Rule>) -> Option<Capture> {
        let span = self.span(&pair);
        let inner = pair.into_inner().next()?;
        let kind = match inner.as_rule() {
            Rule::text_capture => {
                CaptureKind::Text { name: self.ident(&inner.into_inner().next()?) }
            }
            Rule::words_capture => {
                let mut name = None;
                let mut words = Vec::new();
                for part in inner.into_inner() {
                    match part.as_rule() {
                        Rule::ident => name = Some(self.ident(&part)),
                        _ => {
                            let mut pair = part.into_inner().map(|word| word.as_str().to_owned());
                            words.push((pair.next()?, pair.next()));
                        }
                    }
                }
                CaptureKind::Words { name: name?, words }
            }
            _ => self.index(inner)?,
        };
        Some(Capture { kind, span })
    }

    /// `l`, `2*l+1`, `l: 0..n`, `1`, or any other arithmetic.
    fn index(&mut self, pair: Pair<'_, Rule>) -> Option<CaptureKind> {
        let mut exprs = Vec::new();
        for part in pair.into_inner().filter(|part| part.as_rule() == Rule::expr) {
            exprs.push(self.expr(part)?);
        }
        let mut exprs = exprs.into_iter();
        let value = exprs.next()?;
        let range = exprs.next().zip(exprs.next());
        if let (ExprKind::Int(group), None) = (&value.kind, &range) {
            let name = Ident { text: group.to_string(), span: value.span };
            return Some(CaptureKind::Index { name, mul: 1, add: 0, range: None });
        }
        // A name in parentheses is no capture.
        let bare = matches!(&value.kind, ExprKind::Paren(inner) if matches!(inner.kind, ExprKind::Name(_)));
        match (affine(&value).filter(|_| !bare), range) {
            (Some(Affine { mul, add, name: Some(name) }), range) if mul != 0 => {
                Some(CaptureKind::Index { name, mul, add, range })
            }
            (_, None) => Some(CaptureKind::Calculated(value)),
            _ => {
                let diagnostic = Diagnostic::error(
                    codes::BAD_PATTERN,
                    "a range after something that isn't a capture",
                )
                .at(self.place(value.span), "not a name")
                .hint("give the range to a name, as in `{l: 0..n}`");
                self.fail(diagnostic)
            }
        }
    }
}

/// `mul * name + add`, or just `add`.
struct Affine {
    name: Option<Ident>,
    mul: i64,
    add: i64,
}

/// Factors and summands stay small enough that negating them can't overflow.
fn affine(expr: &Expr) -> Option<Affine> {
    let constant = |add| Affine { name: None, mul: 0, add };
    let value = match &expr.kind {
        ExprKind::Int(value) => constant(*value),
        ExprKind::Name(text) => {
            Affine { name: Some(Ident { text: text.clone(), span: expr.span }), mul: 1, add: 0 }
        }
        ExprKind::Paren(inner) => affine(inner)?,
        ExprKind::Unary(UnaryOp::Neg, inner) => scale(affine(inner)?, -1)?,
        ExprKind::Binary(op, left, right) => {
            let (left, right) = (affine(left)?, affine(right)?);
            match op {
                BinaryOp::Add => sum(left, right)?,
                BinaryOp::Sub => sum(left, scale(right, -1)?)?,
                BinaryOp::Mul if left.name.is_none() => scale(right, left.add)?,
                BinaryOp::Mul if right.name.is_none() => scale(left, right.add)?,
                _ => return None,
            }
        }
        _ => return None,
    };
    (value.mul != i64::MIN && value.add != i64::MIN).then_some(value)
}

fn scale(value: Affine, factor: i64) -> Option<Affine> {
    Some(Affine {
        mul: value.mul.checked_mul(factor)?,
        add: value.add.checked_mul(factor)?,
        name: value.name,
    })
}

/// Sums with a capture on both sides are left alone, even `{l+l}`.
fn sum(left: Affine, right: Affine) -> Option<Affine> {
    if left.name.is_some() && right.name.is_some() {
        return None;
    }
    Some(Affine {
        mul: left.mul.checked_add(right.mul)?,
        add: left.add.checked_add(right.add)?,
        name: left.name.or(right.name),
    })
}

/// Text without its backslashes.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            _ => plain.push(c),
        }
    }
    plain
}

/// What is wrong with the shape of a pattern, and where in its body.
enum Misplaced {
    Empty,
    EmptySegment(usize),
    Escape(usize, usize),
    Star(usize),
    Stars(usize),
    Close(usize),
    Open(usize),
    NamedRest(usize, usize),
    EmptyCapture(usize),
}

impl Misplaced {
    fn diagnostic(self, place: impl Fn((usize, usize)) -> Place) -> Diagnostic {
        let error = |message: &str| Diagnostic::error(codes::BAD_PATTERN, message);
        match self {
            Misplaced::Empty => error("a pattern is empty").at(place((0, 0)), "nothing in these quotes").hint("`**` matches every key"),
            Misplaced::EmptySegment(at) => {
                error("a segment is empty").at(place((at, at)), "nothing between dots").hint(r"a dot inside a segment is written `\.`")
            }
            Misplaced::Escape(from, to) => unknown_escape(place((from, to))),
            Misplaced::Star(at) => error("a bare `*` has no meaning in a pattern")
                .at(place((at, at + 1)), "which text?")
                .hint(r"`{name*}` matches text inside a segment, `{path**}` whole segments; a star in a key is written `\*`"),
            Misplaced::Stars(at) => error("`**` stands for whole segments").at(place((at, at + 2)), "not a segment of its own").hint(
                r"write it between dots, as in `**.weight`; `{name*}` matches text inside a segment; stars in a key are written `\*\*`",
            ),
            Misplaced::Close(at) => {
                error("a `}` that closes nothing").at(place((at, at + 1)), "no `{` before it").hint(r"a brace in a key is written `\}`")
            }
            Misplaced::Open(at) => {
                error("a `{` isn't closed").at(place((at, at + 1)), "opened here").hint(r"a brace in a key is written `\{`")
            }
            Misplaced::NamedRest(from, to) => error("a capture of whole segments inside a segment")
                .at(place((from, to)), "not a segment of its own")
                .hint("write it between dots; `{name*}` matches text inside a segment"),
            Misplaced::EmptyCapture(at) => error("a capture without a name")
                .at(place((at, at + 2)), "empty")
                .hint("name it, as in `{l}`; a brace in a key is written `\\{`"),
        }
    }
}

/// The first thing wrong with dots, stars, braces and backslashes. What stands inside braces is
/// left to the grammar.
fn misplaced(body: &str) -> Option<Misplaced> {
    if body.is_empty() {
        return Some(Misplaced::Empty);
    }
    let mut segment = 0;
    let mut at = 0;
    while let Some(c) = body.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = &body[at..];
        let length = match c {
            '.' if at == segment => return Some(Misplaced::EmptySegment(at)),
            '.' => {
                segment = at + 1;
                1
            }
            '\\' => match rest.chars().nth(1) {
                Some('{' | '}' | '"' | '\\' | '*' | '.') => 2,
                other => {
                    return Some(Misplaced::Escape(at, at + 1 + other.map_or(0, char::len_utf8)));
                }
            },
            '*' if rest.starts_with("**") => {
                if at != segment || !matches!(rest.as_bytes().get(2), None | Some(b'.')) {
                    return Some(Misplaced::Stars(at));
                }
                2
            }
            '*' => return Some(Misplaced::Star(at)),
            '}' => return Some(Misplaced::Close(at)),
            '{' => {
                let Some(close) = rest.find('}') else { return Some(Misplaced::Open(at)) };
                let inside = rest.get(1..close).unwrap_or_default().trim();
                if inside.is_empty() {
                    return Some(Misplaced::EmptyCapture(at));
                }
                let whole =
                    at == segment && matches!(rest.as_bytes().get(close + 1), None | Some(b'.'));
                if inside.ends_with("**") && !whole {
                    return Some(Misplaced::NamedRest(at, at + close + 1));
                }
                close + 1
            }
            _ => c.len_utf8(),
        };
        at += length;
    }
    (segment == body.len()).then_some(Misplaced::EmptySegment(segment))
}

/// Where in a pattern a position is that pest gives.
pub(super) fn at(base: usize, position: usize, length: usize) -> Span {
    span(base + position, base + position + length)
}
