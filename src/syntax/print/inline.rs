//! What stands on one line: expressions, patterns, ops, clauses, and whole rules.

use crate::syntax::ast::{
    Arg, Arrow, Atom, BinaryOp, CaptureKind, ConfigStep, Expr, ExprKind, IfAbsent, IfPresent,
    OpCall, Pattern, Rule, Segment, Side, SideItem, StringLit, Tail, UnaryOp,
};

/// An expression: `config.a ?? 2 * heads`.
pub fn print_expr(expr: &Expr) -> String {
    expression(expr, false)
}

/// A pattern with its quotes: `"model.layers.{l}.weight"`.
pub fn print_pattern(pattern: &Pattern) -> String {
    let segments: Vec<String> = pattern.segments.iter().map(segment).collect();
    format!("\"{}\"", segments.join("."))
}

/// A rule on one line, without its comments: `"a" <-> "b" via stack(e)`.
pub fn print_rule(rule: &Rule) -> String {
    let mut text =
        format!("{} {} {}", sides(&rule.sources), arrow(rule.arrow), sides(&rule.targets));
    for clause in rule_clauses(rule) {
        text.push(' ');
        text.push_str(&clause);
    }
    text
}

/// `via …`, the tail and `alone`, each clause apart.
pub(super) fn rule_clauses(rule: &Rule) -> Vec<String> {
    let via = (!rule.via.is_empty()).then(|| format!("via {}", ops(&rule.via)));
    via.into_iter()
        .chain(tail_clauses(&rule.tail))
        .chain(rule.alone.then(|| "alone".to_owned()))
        .collect()
}

/// `unless …`, `where …`, `optional`.
pub(super) fn tail_clauses(tail: &Tail) -> Vec<String> {
    let mut clauses = Vec::new();
    if !tail.unless.is_empty() {
        let items = tail.unless.iter().map(|item| {
            let word = if item.target { "target " } else { "" };
            format!("{word}{}", print_pattern(&item.pattern))
        });
        clauses.push(format!("unless {}", items.collect::<Vec<_>>().join(", ")));
    }
    clauses.extend(
        tail.condition.as_ref().map(|condition| format!("where {}", print_expr(condition))),
    );
    clauses.extend(tail.optional.then(|| "optional".to_owned()));
    clauses
}

pub(super) fn sides(sides: &[Side]) -> String {
    sides.iter().map(side).collect::<Vec<_>>().join(", ")
}

/// `"x" | transpose(0, 1) optional`
pub(super) fn side(side: &Side) -> String {
    let mut text = match &side.item {
        SideItem::Pattern(pattern) => print_pattern(pattern),
        SideItem::Regex(regex) => format!("/{}/", regex_source(&regex.text)),
        SideItem::Made(made) => {
            let text = op(made);
            // The parentheses tell a made tensor from a word.
            if made.args.is_empty() { format!("{text}()") } else { text }
        }
    };
    for call in &side.ops {
        text.push_str(" | ");
        text.push_str(&op(call));
    }
    if side.optional {
        text.push_str(" optional");
    }
    text
}

/// A slash gets its backslash; the regex's own escapes stay.
fn regex_source(text: &str) -> String {
    let mut source = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '/' => source.push_str("\\/"),
            '\\' => {
                source.push('\\');
                source.extend(chars.next());
            }
            _ => source.push(c),
        }
    }
    source
}

fn ops(calls: &[OpCall]) -> String {
    calls.iter().map(op).collect::<Vec<_>>().join(" | ")
}

/// `stack(e)`; without arguments no parentheses.
pub(super) fn op(call: &OpCall) -> String {
    if call.args.is_empty() {
        return call.name.text.clone();
    }
    let args = call.args.iter().map(|arg| match arg {
        Arg::Value(value) => print_expr(value),
        Arg::Over(name) => format!("over {}", name.text),
        Arg::Range(first, last) => {
            let bound = |bound: &Option<Expr>| {
                bound.as_ref().map(|bound| expression(bound, true)).unwrap_or_default()
            };
            format!("{}..{}", bound(first), bound(last))
        }
    });
    format!("{}({})", call.name.text, args.collect::<Vec<_>>().join(", "))
}

pub(super) fn arrow(arrow: Arrow) -> &'static str {
    match arrow {
        Arrow::TwoWay => "<->",
        Arrow::OneWay => "->",
    }
}

pub(super) fn if_present(word: IfPresent) -> &'static str {
    match word {
        IfPresent::Keep => "keep",
        IfPresent::Alias => "alias",
        IfPresent::Require => "require",
    }
}

pub(super) fn if_absent(word: IfAbsent) -> &'static str {
    match word {
        IfAbsent::Skip => "skip",
        IfAbsent::Fallback => "fallback",
        IfAbsent::Error => "error",
    }
}

/// Text in quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

pub(super) fn strings(strings: &[StringLit]) -> Vec<String> {
    strings.iter().map(|string| quoted(&string.text)).collect()
}

pub(super) fn patterns(patterns: &[Pattern]) -> Vec<String> {
    patterns.iter().map(print_pattern).collect()
}

fn segment(segment: &Segment) -> String {
    match segment {
        Segment::Rest { name: None, .. } => "**".to_owned(),
        Segment::Rest { name: Some(name), .. } => format!("{{{}**}}", name.text),
        Segment::Atoms(atoms) => atoms.iter().map(atom).collect(),
    }
}

fn atom(atom: &Atom) -> String {
    match atom {
        Atom::Text(text) => {
            let mut escaped = String::with_capacity(text.len());
            for c in text.chars() {
                if matches!(c, '{' | '}' | '"' | '\\' | '*' | '.') {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
            escaped
        }
        Atom::Capture(capture) => format!("{{{}}}", capture_body(&capture.kind)),
    }
}

fn capture_body(kind: &CaptureKind) -> String {
    match kind {
        CaptureKind::Index { name, mul, add, range } => {
            let factor = match mul {
                1 => String::new(),
                -1 => "-".to_owned(),
                _ => format!("{mul}*"),
            };
            // `{3-l}` rather than `{-l+3}`.
            let (factor, summand) = match add {
                0 => (factor, String::new()),
                1.. if *mul < 0 => (format!("{add}{factor}"), String::new()),
                _ => (factor, format!("{add:+}")),
            };
            let range = range.as_ref().map(|(first, last)| {
                format!(": {}..{}", expression(first, true), expression(last, true))
            });
            format!("{factor}{}{summand}{}", name.text, range.unwrap_or_default())
        }
        CaptureKind::Text { name } => format!("{}*", name.text),
        CaptureKind::Words { name, words } => {
            let partners = words.iter().any(|(_, partner)| partner.is_some());
            let words: Vec<String> = words
                .iter()
                .map(|(word, partner)| match partner {
                    Some(partner) => format!("{word}=>{partner}"),
                    None => word.clone(),
                })
                .collect();
            format!("{}: {}", name.text, words.join(if partners { " | " } else { "|" }))
        }
        CaptureKind::Calculated(expr) => expression(expr, true),
    }
}

/// An expression; `tight` leaves out the spaces around arithmetic, as ranges and captures have it.
fn expression(expr: &Expr, tight: bool) -> String {
    match &expr.kind {
        ExprKind::Null => "null".to_owned(),
        ExprKind::Bool(value) => value.to_string(),
        ExprKind::Int(value) => value.to_string(),
        // Debug keeps the point or the exponent that makes it a float.
        ExprKind::Float(value) => format!("{value:?}"),
        ExprKind::Text(text) => quoted(text),
        ExprKind::List(items) => format!(
            "[{}]",
            items.iter().map(|item| expression(item, false)).collect::<Vec<_>>().join(", ")
        ),
        ExprKind::Name(name) => name.clone(),
        ExprKind::Config(steps) => {
            let steps: String = steps
                .iter()
                .map(|step| match step {
                    ConfigStep::Field(name) => format!(".{name}"),
                    ConfigStep::Item(index) => format!("[{index}]"),
                })
                .collect();
            format!("config{steps}")
        }
        ExprKind::Item(list, index) => {
            let parens = !matches!(
                list.kind,
                ExprKind::List(_)
                    | ExprKind::Paren(_)
                    | ExprKind::Config(_)
                    | ExprKind::Name(_)
                    | ExprKind::Item(..)
            );
            format!("{}[{}]", operand_text(list, tight, parens), expression(index, tight))
        }
        ExprKind::Tied => "tied".to_owned(),
        ExprKind::Exists(pattern) => format!("exists({})", print_pattern(pattern)),
        ExprKind::Size(pattern, dim) => format!("size({}, {dim})", print_pattern(pattern)),
        ExprKind::Count(pattern, capture) => {
            format!("count({}, {})", print_pattern(pattern), capture.text)
        }
        ExprKind::Unary(UnaryOp::Neg, operand) => {
            let parens = matches!(operand.kind, ExprKind::Binary(..));
            format!("-{}", operand_text(operand, tight, parens))
        }
        ExprKind::Unary(UnaryOp::Not, operand) => {
            let parens = matches!(operand.kind, ExprKind::Binary(BinaryOp::Or | BinaryOp::And, ..));
            format!("not {}", operand_text(operand, tight, parens))
        }
        ExprKind::Binary(op, left, right) => {
            let comparison = BinaryOp::Eq.binding();
            let left_parens = match &left.kind {
                ExprKind::Binary(inner, ..) => {
                    inner.binding() < op.binding()
                        || (inner.binding() == comparison && op.binding() == comparison)
                }
                ExprKind::Unary(UnaryOp::Not, _) => op.binding() >= comparison,
                _ => false,
            };
            let right_parens = matches!(&right.kind, ExprKind::Binary(inner, ..) if inner.binding() <= op.binding());
            let arithmetic = op.binding() >= BinaryOp::Add.binding();
            let space = if tight && arithmetic { "" } else { " " };
            let (left, right) =
                (operand_text(left, tight, left_parens), operand_text(right, tight, right_parens));
            format!("{left}{space}{}{space}{right}", op.text())
        }
        ExprKind::Paren(inner) => format!("({})", expression(inner, tight)),
    }
}

fn operand_text(expr: &Expr, tight: bool, parens: bool) -> String {
    let text = expression(expr, tight);
    if parens { format!("({text})") } else { text }
}
