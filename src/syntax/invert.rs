//! The inverse of a rule file, as a tree: statements in reverse order, each turned round.
//!
//! Nothing is inverted by editing the text of a pattern: sides change places, ops give way to their
//! inverses. What a file says about itself (`ruleset`, `models`, `let`, `trust`) stays at its top,
//! and so do strips, which normalize what comes in, whichever way. What has no inverse is left out
//! and reported; `check` has shown before that no `<->` is among it. The inverse of the inverse is
//! the same file, but for what was left out.

use super::ast::{
    Arg, Arrow, Atom, Capture, CaptureKind, Comment, Expr, ExprKind, Group, Ident, OpCall, Rule,
    RuleFile, Segment, Side, SideItem, Statement, StatementKind, Tail, Tie, UnaryOp, Unless,
};
use super::op::{self, Undone};
use super::print::{print_rule, print_statement_line};
use crate::diagnostic::Span;

/// A rule file turned round, and what of it could not be.
#[derive(Clone, Debug)]
pub struct Inverse {
    /// The inverse.
    pub file: RuleFile,
    /// What was left out: where it stands in the file, what it says, and why it has no inverse.
    pub left_out: Vec<LeftOut>,
}

/// Something that has no inverse.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// Where it stands.
    pub span: Span,
    /// What it says, in one line.
    pub text: String,
    /// Why it has no inverse.
    pub reason: &'static str,
}

/// The inverse of a rule file.
pub fn invert(file: &RuleFile) -> Inverse {
    let mut left_out = Vec::new();
    let lets = file.statements.iter().filter_map(|statement| match &statement.kind {
        StatementKind::Let { name, value: Some(value) } => Some((name.text.clone(), value.clone())),
        _ => None,
    });
    let statements = statements(&file.statements, &lets.collect::<Vec<_>>(), &mut left_out);
    Inverse {
        file: RuleFile { statements, trailing_comments: file.trailing_comments.clone() },
        left_out,
    }
}

/// Whether a statement stays where it is: it says something about the file, or normalizes what
/// comes in.
fn stays(kind: &StatementKind) -> bool {
    matches!(
        kind,
        StatementKind::Ruleset { .. }
            | StatementKind::Models(_)
            | StatementKind::Let { .. }
            | StatementKind::Trust(_)
            | StatementKind::Strict
            | StatementKind::Strip { .. }
            | StatementKind::Example { .. }
    )
}

/// The values of a file's `let`s, by name.
type Lets = [(String, Expr)];

fn statements(list: &[Statement], lets: &Lets, left_out: &mut Vec<LeftOut>) -> Vec<Statement> {
    let turn = |statement: &Statement, left_out: &mut Vec<LeftOut>| match kind(
        &statement.kind,
        lets,
        left_out,
    ) {
        Ok(kind) => {
            Some(Statement { trivia: statement.trivia.clone(), kind, span: statement.span })
        }
        Err(reason) => {
            left_out.push(LeftOut {
                span: statement.span,
                text: print_statement_line(&statement.kind),
                reason,
            });
            None
        }
    };
    let is_example =
        |statement: &&Statement| matches!(statement.kind, StatementKind::Example { .. });
    let mut turned: Vec<Statement> = Vec::new();
    turned.extend(
        list.iter()
            .filter(|one| stays(&one.kind) && !is_example(one))
            .filter_map(|one| turn(one, left_out)),
    );
    turned.extend(
        list.iter().rev().filter(|one| !stays(&one.kind)).filter_map(|one| turn(one, left_out)),
    );
    turned.extend(list.iter().filter(is_example).filter_map(|one| turn(one, left_out)));
    turned
}

fn kind(
    kind: &StatementKind,
    lets: &Lets,
    left_out: &mut Vec<LeftOut>,
) -> Result<StatementKind, &'static str> {
    Ok(match kind {
        StatementKind::Ruleset { name, layouts } => StatementKind::Ruleset {
            name: name.clone(),
            layouts: layouts.clone().map(|(left, arrow, right)| (right, arrow, left)),
        },
        StatementKind::Models(_)
        | StatementKind::Let { .. }
        | StatementKind::Trust(_)
        | StatementKind::Strict
        | StatementKind::Strip { .. }
        | StatementKind::Expect { .. } => kind.clone(),
        StatementKind::Separator(_) => return Err(SEPARATOR),
        StatementKind::Shards { .. } => return Err(SHARDS),
        StatementKind::Use { path, is_file, reversed, under } => StatementKind::Use {
            path: path.clone(),
            is_file: *is_file,
            reversed: !reversed,
            under: under.clone(),
        },
        StatementKind::Rename(group) => StatementKind::Rename(turn_group(group, lets, left_out)?),
        StatementKind::Map(group) => StatementKind::Map(turn_group(group, lets, left_out)?),
        StatementKind::Tie(tie) => {
            StatementKind::Tie(Tie { inverted: !tie.inverted, ..tie.clone() })
        }
        StatementKind::Example { left, arrow: Arrow::TwoWay, right } => StatementKind::Example {
            left: right.clone(),
            arrow: Arrow::TwoWay,
            right: left.clone(),
        },
        StatementKind::Example { arrow: Arrow::OneWay, .. } => {
            return Err("a one-way example says nothing about the way back");
        }
        StatementKind::When { condition, then, otherwise, closing_comments } => {
            if asks_layout(condition, lets) {
                return Err(ASKS_LAYOUT);
            }
            StatementKind::When {
                condition: condition.clone(),
                then: statements(then, lets, left_out),
                otherwise: statements(otherwise, lets, left_out),
                closing_comments: closing_comments.clone(),
            }
        }
        StatementKind::Prefix(_) => {
            return Err(
                "whether the prefix was there is known only from the checkpoint it came from",
            );
        }
        StatementKind::Drop(_) | StatementKind::Keep(_) => {
            return Err("what is dropped doesn't come back");
        }
        StatementKind::Cast { .. } => return Err("which dtypes were there before isn't known"),
        StatementKind::Create { .. } => {
            return Err("a created key is not part of the checkpoint it would go back to");
        }
    })
}

const SEPARATOR: &str = "it says how keys of the left layout are split, and the inverse's left layout is another one: read the file itself backwards, with --reverse";

const SHARDS: &str = "it says how the files of the left layout are named, and the inverse's left layout is another one: read the file itself backwards, with --reverse";

const ASKS_LAYOUT: &str =
    "`exists` is a fact about the left layout, which the inverse doesn't start from";

fn asks_layout(condition: &Expr, lets: &Lets) -> bool {
    condition
        .asks_layout(&|name| lets.iter().find(|(known, _)| known == name).map(|(_, value)| value))
}

fn turn_group(
    group: &Group,
    lets: &Lets,
    left_out: &mut Vec<LeftOut>,
) -> Result<Group, &'static str> {
    const ONE_WAY: &str = "it is one-way";
    if !group.braces && group.rules.iter().all(|one| one.arrow == Arrow::OneWay) {
        return Err(ONE_WAY);
    }
    let mut rules = Vec::new();
    let mut orphans: Vec<Comment> = Vec::new();
    for one in &group.rules {
        let turned = if one.arrow == Arrow::OneWay { Err(ONE_WAY) } else { turn_rule(one, lets) };
        match turned {
            Ok(mut rule) => {
                rule.trivia.leading.splice(0..0, std::mem::take(&mut orphans));
                rules.push(rule);
            }
            Err(reason) => {
                left_out.push(LeftOut { span: one.span, text: print_rule(one), reason });
                orphans.extend(one.trivia.leading.clone());
            }
        }
    }
    if rules.is_empty() {
        return Err(ONE_WAY);
    }
    Ok(Group { braces: group.braces, rules, closing_comments: group.closing_comments.clone() })
}

fn turn_rule(rule: &Rule, lets: &Lets) -> Result<Rule, &'static str> {
    if rule.tail.condition.as_ref().is_some_and(|condition| asks_layout(condition, lets)) {
        return Err(ASKS_LAYOUT);
    }
    if rule.tail.condition.is_some() && rule.sources.iter().chain(&rule.targets).any(pairs_words) {
        return Err("its condition may speak of words that are other words on the other side");
    }
    let sides = |list: &[Side]| list.iter().map(side).collect::<Result<Vec<_>, _>>();
    Ok(Rule {
        trivia: rule.trivia.clone(),
        sources: sides(&rule.targets)?,
        arrow: rule.arrow,
        targets: sides(&rule.sources)?,
        via: ops(&rule.via)?,
        alone: rule.alone,
        tail: Tail {
            unless: rule
                .tail
                .unless
                .iter()
                .map(|one| Unless { target: !one.target, pattern: one.pattern.clone() })
                .collect(),
            ..rule.tail.clone()
        },
        span: rule.span,
    })
}

fn side(side: &Side) -> Result<Side, &'static str> {
    if matches!(side.item, SideItem::Regex(_)) {
        return Err("a regex can't be read backwards");
    }
    Ok(Side {
        item: side.item.clone(),
        ops: ops(&side.ops)?,
        optional: side.optional,
        span: side.span,
    })
}

fn ops(list: &[OpCall]) -> Result<Vec<OpCall>, &'static str> {
    list.iter().rev().map(undo).collect()
}

/// The op that undoes another, as written: what its row in the table of ops says.
fn undo(call: &OpCall) -> Result<OpCall, &'static str> {
    const NO_INVERSE: &str = "an op of it has no inverse";
    let row = op::row(&call.name.text, &call.args).ok_or(NO_INVERSE)?;
    let (name, args) = match row.kind.undo(&call.args).map_err(|_| NO_INVERSE)? {
        Undone::By(kind, args) => (kind.row().name, args),
        Undone::ByPermutation => (row.name, inverse_permutation(&call.args).ok_or(NO_INVERSE)?),
    };
    let name = Ident { text: name.to_owned(), span: call.name.span };
    Ok(OpCall { name, args, span: call.span })
}

/// The permutation that undoes one written in numbers; negative ones count from the end.
fn inverse_permutation(dims: &[Arg]) -> Option<Vec<Arg>> {
    let rank = i64::try_from(dims.len()).ok()?;
    let number = |expr: &Expr| match &expr.kind {
        ExprKind::Int(value) => Some(*value),
        ExprKind::Unary(UnaryOp::Neg, inner) => match inner.kind {
            ExprKind::Int(value) => value.checked_neg(),
            _ => None,
        },
        _ => None,
    };
    let places: Vec<(i64, Span)> =
        dims.iter()
            .map(|arg| match arg {
                Arg::Value(expr) => number(expr)
                    .map(|value| (if value < 0 { value + rank } else { value }, expr.span)),
                _ => None,
            })
            .collect::<Option<_>>()?;
    (0..rank)
        .map(|dim| {
            let at = places.iter().position(|(place, _)| *place == dim)?;
            Some(Arg::Value(Expr {
                kind: ExprKind::Int(i64::try_from(at).ok()?),
                span: places[at].1,
            }))
        })
        .collect()
}

/// Whether a capture of a side has other words on the other side.
fn pairs_words(side: &Side) -> bool {
    let SideItem::Pattern(pattern) = &side.item else { return false };
    pattern.segments.iter().any(|segment| match segment {
        Segment::Atoms(atoms) => atoms.iter().any(|atom| match atom {
            Atom::Capture(Capture { kind: CaptureKind::Words { words, .. }, .. }) => {
                words.iter().any(|(_, partner)| partner.is_some())
            }
            _ => false,
        }),
        Segment::Rest { .. } => false,
    })
}
