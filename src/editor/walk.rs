//! A walk over a tree: each statement, whatever block it is in, and its patterns, expressions and
//! ops.

use crate::syntax::ast::{
    Arg, Expr, OpCall, Pattern, Rule, Side, SideItem, Statement, StatementKind, Tail,
};

/// Visits statements, those of blocks after the `when` that they are in.
pub(super) fn statements<'t>(tree: &'t [Statement], visit: &mut dyn FnMut(&'t Statement)) {
    for statement in tree {
        visit(statement);
        if let StatementKind::When { then, otherwise, .. } = &statement.kind {
            statements(then, visit);
            statements(otherwise, visit);
        }
    }
}

/// Something in a statement.
#[derive(Clone, Copy)]
pub(super) enum Fragment<'t> {
    /// A pattern that takes keys, or is what they become.
    Pattern(&'t Pattern),
    /// A pattern of `unless`, with captures of its own.
    Unless(&'t Pattern),
    /// An expression.
    Expr(&'t Expr),
    /// An op, before its arguments.
    Op(&'t OpCall),
}

/// Visits what a rule is made of.
pub(super) fn rule<'t>(rule: &'t Rule, visit: &mut dyn FnMut(Fragment<'t>)) {
    rule.sources.iter().chain(&rule.targets).for_each(|one| side(one, visit));
    rule.via.iter().for_each(|op| call(op, visit));
    tail(&rule.tail, visit);
}

fn side<'t>(side: &'t Side, visit: &mut dyn FnMut(Fragment<'t>)) {
    match &side.item {
        SideItem::Pattern(pattern) => visit(Fragment::Pattern(pattern)),
        SideItem::Made(made) => call(made, visit),
        SideItem::Regex(_) => {}
    }
    side.ops.iter().for_each(|op| call(op, visit));
}

fn call<'t>(op: &'t OpCall, visit: &mut dyn FnMut(Fragment<'t>)) {
    visit(Fragment::Op(op));
    for arg in &op.args {
        match arg {
            Arg::Value(expr) => visit(Fragment::Expr(expr)),
            Arg::Over(_) => {}
            Arg::Range(from, to) => {
                from.iter().chain(to).for_each(|bound| visit(Fragment::Expr(bound)));
            }
        }
    }
}

fn tail<'t>(tail: &'t Tail, visit: &mut dyn FnMut(Fragment<'t>)) {
    tail.unless.iter().for_each(|unless| visit(Fragment::Unless(&unless.pattern)));
    tail.condition.iter().for_each(|condition| visit(Fragment::Expr(condition)));
}

/// Visits what a statement is made of, but for the rules of a group and the statements of a block.
pub(super) fn parts<'t>(kind: &'t StatementKind, visit: &mut dyn FnMut(Fragment<'t>)) {
    match kind {
        StatementKind::Drop(keys) | StatementKind::Keep(keys) => {
            keys.patterns.iter().for_each(|pattern| visit(Fragment::Pattern(pattern)));
            tail(&keys.tail, visit);
        }
        StatementKind::Cast { keys, .. } => {
            keys.patterns.iter().for_each(|pattern| visit(Fragment::Pattern(pattern)));
            tail(&keys.tail, visit);
        }
        StatementKind::Tie(tie) => {
            let patterns = tie.targets.iter().chain(&tie.sources);
            patterns.for_each(|pattern| visit(Fragment::Pattern(pattern)));
            tie.condition.iter().for_each(|condition| visit(Fragment::Expr(condition)));
        }
        StatementKind::Create { target, value, tail: clauses } => {
            visit(Fragment::Pattern(target));
            call(value, visit);
            tail(clauses, visit);
        }
        StatementKind::Expect { pattern, count } => {
            visit(Fragment::Pattern(pattern));
            count.iter().for_each(|count| visit(Fragment::Expr(count)));
        }
        StatementKind::Let { value, .. } => {
            value.iter().for_each(|value| visit(Fragment::Expr(value)));
        }
        StatementKind::Shards { range, .. } => {
            if let Some((from, to)) = range {
                visit(Fragment::Expr(from));
                visit(Fragment::Expr(to));
            }
        }
        StatementKind::When { condition, .. } => visit(Fragment::Expr(condition)),
        StatementKind::Strip { wrappers, .. } => {
            wrappers.iter().for_each(|wrapper| visit(Fragment::Pattern(wrapper)));
        }
        StatementKind::Prefix(pattern) => visit(Fragment::Pattern(pattern)),
        StatementKind::Rename(_)
        | StatementKind::Map(_)
        | StatementKind::Ruleset { .. }
        | StatementKind::Models(_)
        | StatementKind::Separator(_)
        | StatementKind::Strict
        | StatementKind::Use { .. }
        | StatementKind::Trust(_)
        | StatementKind::Example { .. } => {}
    }
}

/// The rules of a `rename` or `map`.
pub(super) fn rules(kind: &StatementKind) -> &[Rule] {
    match kind {
        StatementKind::Rename(group) | StatementKind::Map(group) => &group.rules,
        _ => &[],
    }
}
