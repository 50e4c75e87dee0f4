//! Rules of `rename` and `map`: their sides, captures and ops, and what a regex may say.

use regex::Regex;

use super::Checker;
use crate::check::capture::{SideOf, Table};
use crate::check::op::{self, OpUse};
use crate::check::rules::{Capture, Identity, Rule, Side, SideItem};
use crate::check::sight::Sight;
use crate::check::value::LENGTHS;
use crate::check::{invertible, proof, resolve_alone};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::{ARITY, BAD_PATTERN, BAD_REGEX, NOT_INVERTIBLE};
use crate::syntax::ast::{self, Arrow, Expr};
use crate::syntax::op as syntax_op;
use crate::syntax::print_rule;

impl Checker<'_> {
    pub(super) fn rule(
        &mut self,
        scope_id: usize,
        rule: &ast::Rule,
        is_map: bool,
    ) -> Result<Rule, Box<Diagnostic>> {
        let scope = &self.scopes[scope_id];
        let mut table = Table::of_rule(scope, rule.arrow);
        for (sides, side_of) in [(&rule.sources, SideOf::Left), (&rule.targets, SideOf::Right)] {
            for side in sides {
                match &side.item {
                    ast::SideItem::Pattern(pattern) => table.declare(pattern, side_of)?,
                    ast::SideItem::Regex(text) => {
                        let regex = self.regex(scope_id, text, rule, side_of)?;
                        for (at, name) in regex.capture_names().enumerate().skip(1) {
                            table.declare_group(
                                &name.map_or_else(|| at.to_string(), str::to_owned),
                                text.span,
                            )?;
                        }
                    }
                    ast::SideItem::Made(_) => {}
                }
            }
        }
        let left = self.sides(scope_id, &rule.sources, SideOf::Left, rule, &mut table)?;
        let right = self.sides(scope_id, &rule.targets, SideOf::Right, rule, &mut table)?;
        let joint = rule
            .via
            .iter()
            .map(|call| op::resolve(call, scope, &|name| table.slot(name)))
            .collect::<Result<Vec<_>, _>>()?;
        let (mut unless_left, mut unless_right) = (Vec::new(), Vec::new());
        for exception in &rule.tail.unless {
            let keys = resolve_alone(scope, &exception.pattern)?;
            if exception.target { unless_right.push(keys) } else { unless_left.push(keys) }
        }
        let (captures, numbers) = table.finish();
        let mut lowered = Rule {
            id: Identity { scope: scope_id, start: rule.span.start },
            place: scope.place(rule.span),
            text: print_rule(rule),
            captures,
            numbers,
            left,
            arrow: rule.arrow,
            right,
            joint,
            unless_left,
            unless_right,
            condition: rule.tail.condition.clone(),
            optional: rule.tail.optional,
            alone: rule.alone,
            ambiguous: false,
        };
        lowered.ambiguous = proof::may_be_ambiguous(&lowered);
        if !is_map && !lowered.is_rename() {
            return Err(no_rename(&lowered));
        }
        invertible::rule(&lowered, rule)?;
        if let Some(condition) = &rule.tail.condition {
            let captures: Vec<String> =
                lowered.captures.iter().map(|capture| capture.name.clone()).collect();
            let mut captures: Vec<&str> = captures.iter().map(String::as_str).collect();
            if lowered.knows_lengths() {
                captures.extend(LENGTHS);
            }
            self.check_names(scope_id, condition, Sight::Where(&captures));
            self.check_exists(scope_id, condition, &lowered.captures);
        }
        self.check_op_names(scope_id, rule, &lowered.captures);
        Ok(lowered)
    }

    /// Numbers of ops may be `let` values, captures of the instance, and lengths of its tensor; a
    /// tensor that is made has none before it is there.
    fn check_op_names(&mut self, scope: usize, rule: &ast::Rule, captures: &[Capture]) {
        let sides = || rule.sources.iter().chain(&rule.targets);
        let ops = rule.via.iter().chain(sides().flat_map(|side| &side.ops));
        for call in ops {
            let Some(row) = syntax_op::row(&call.name.text, &call.args) else { continue };
            for (at, arg) in call.args.iter().enumerate() {
                let parameter = row.parameters.get(at).or(row.parameters.last());
                let is_number = parameter.is_some_and(|one| one.kind.is_number());
                if is_number {
                    self.check_numbers(scope, arg, Sight::Numbers { captures, lengths: true });
                }
            }
        }
        let made = sides().filter_map(|side| match &side.item {
            ast::SideItem::Made(call) => call.args.first(),
            _ => None,
        });
        for shape in made {
            self.check_numbers(scope, shape, Sight::Numbers { captures, lengths: false });
        }
    }

    fn check_numbers(&mut self, scope: usize, arg: &ast::Arg, sight: Sight<'_>) {
        match arg {
            ast::Arg::Value(expr) => self.check_names(scope, expr, sight),
            ast::Arg::Range(start, end) => {
                start.iter().chain(end).for_each(|expr| self.check_names(scope, expr, sight));
            }
            ast::Arg::Over(_) => {}
        }
    }

    fn regex(
        &self,
        scope: usize,
        text: &ast::StringLit,
        rule: &ast::Rule,
        side: SideOf,
    ) -> Result<Regex, Box<Diagnostic>> {
        let place = self.scopes[scope].place(text.span);
        if side == SideOf::Right {
            return Err(Box::new(
                Diagnostic::error(BAD_PATTERN, "a regex can't be a target")
                    .at(place, "write a pattern in quotes"),
            ));
        }
        if rule.arrow == Arrow::TwoWay {
            return Err(Box::new(
                Diagnostic::error(NOT_INVERTIBLE, "a regex can't be read backwards")
                    .at(place, "in a `<->` rule")
                    .hint("write `->`, or a pattern in quotes"),
            ));
        }
        regex::RegexBuilder::new(&format!("^(?:{})$", text.text))
            .size_limit(1 << 20)
            .build()
            .map_err(|error| {
                let why = error.to_string();
                let why = why
                    .lines()
                    .last()
                    .unwrap_or("it doesn't compile")
                    .trim_start_matches("error: ")
                    .to_owned();
                Box::new(
                    Diagnostic::error(BAD_REGEX, format!("bad regex: {why}")).at(place, "here"),
                )
            })
    }

    fn sides(
        &self,
        scope: usize,
        sides: &[ast::Side],
        side_of: SideOf,
        rule: &ast::Rule,
        table: &mut Table<'_>,
    ) -> Result<Vec<Side>, Box<Diagnostic>> {
        sides
            .iter()
            .map(|side| {
                let item = match &side.item {
                    ast::SideItem::Pattern(pattern) => {
                        SideItem::Pattern(table.resolve(pattern, side_of)?)
                    }
                    ast::SideItem::Regex(text) => {
                        SideItem::Regex(self.regex(scope, text, rule, side_of)?)
                    }
                    ast::SideItem::Made(call) => {
                        let is_taken =
                            |side: &ast::Side| matches!(side.item, ast::SideItem::Pattern(_));
                        let takes = rule.sources.iter().any(is_taken);
                        SideItem::Made(op::made(call, &self.scopes[scope], takes)?)
                    }
                };
                let ops: Vec<OpUse<Expr>> = side
                    .ops
                    .iter()
                    .map(|call| op::resolve(call, &self.scopes[scope], &|name| table.slot(name)))
                    .collect::<Result<_, _>>()?;
                if let Some(joint) = ops.iter().find(|one| one.op.arity() != op::Arity::Each) {
                    return Err(Box::new(
                        Diagnostic::error(ARITY, "this op joins or parts tensors")
                            .at(joint.place.clone(), "stands on one tensor")
                            .hint("move it after `via`"),
                    ));
                }
                Ok(Side {
                    item,
                    ops,
                    optional: side.optional,
                    place: self.scopes[scope].place(side.span),
                })
            })
            .collect()
    }
}

/// A rule of a `rename` that does more than rename.
fn no_rename(rule: &Rule) -> Box<Diagnostic> {
    let ops = !rule.joint.is_empty()
        || rule.left.iter().chain(&rule.right).any(|side| !side.ops.is_empty());
    let (label, hint) = if ops {
        ("this changes tensors", "write `map` instead of `rename`")
    } else if rule.right.len() > 1 {
        (
            "more than one target",
            "to part a tensor, write a `map` with `split` or `unstack`; to give it to each target whole, one with `copy`",
        )
    } else {
        (
            "more than one source",
            "write one rule for each, or a `map` that joins them with `concat` or `stack`",
        )
    };
    let finding = Diagnostic::error(ARITY, "a `rename` has one source, one target and no ops");
    Box::new(finding.at(rule.place.clone(), label).hint(hint))
}
