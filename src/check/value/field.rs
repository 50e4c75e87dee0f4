//! What fields of config.json and items of lists hold, and what to say where there is no such one.

use regex::RegexBuilder;
use serde_json::Value as Json;

use super::{At, Environment, Scope, Value, bad, describe};
use crate::diagnostic::codes::{BAD_VALUE, MISSING_CONFIG, UNDECIDED};
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::syntax::ast::{BinaryOp, ConfigStep, Expr, ExprKind};
use crate::syntax::print_pattern;

/// Which config may have what another one lacks.
const OTHER_CONFIG: &str =
    "give a --config that has it (of a model made of several, the part that these keys belong to)";

/// Bytes that a compiled name of a field may take.
const MAX_REGEX: usize = 1 << 20;

impl Environment<'_> {
    /// An item of a list, or the field of an object that a text names; `None` if there is no such
    /// one.
    pub(super) fn item(
        &self,
        scope: &Scope,
        (list, index): (&Expr, &Expr),
        at: At<'_>,
    ) -> Result<Option<Value>, Box<Diagnostic>> {
        let number = match self.eval_at(scope, index, at)? {
            Value::Int(number) => usize::try_from(number).ok(),
            Value::Text(name) => return self.named(scope, list, index, &name),
            other => {
                let why = format!("expected a whole number, found {}", describe(&other));
                return Err(bad(scope, index, why));
            }
        };
        // A list of config.json isn't read whole for one item of it.
        if let ExprKind::Config(steps) = &list.kind
            && let Some(Json::Array(items)) = self.json(steps)
        {
            let value = number.and_then(|number| items.get(number)).map(Value::from_json);
            at.spend(scope, list, value.as_ref().map_or(1, Value::weight))?;
            return Ok(value);
        }
        match self.eval_at(scope, list, at)? {
            Value::List(items) => Ok(number.and_then(|number| items.into_iter().nth(number))),
            other => Err(bad(scope, list, format!("expected a list, found {}", describe(&other)))),
        }
    }

    /// The field of an object that a text names: the first whose name is a regular expression of the
    /// text's end, after a dot or from its start. So are ranks
    /// and alphas of single modules written in the config of an adapter. Source: `get_pattern_key`
    /// of peft 0.21.2.
    fn named(
        &self,
        scope: &Scope,
        list: &Expr,
        index: &Expr,
        name: &str,
    ) -> Result<Option<Value>, Box<Diagnostic>> {
        let fields = match &list.kind {
            ExprKind::Config(steps) => self.json(steps).and_then(Json::as_object),
            _ => None,
        };
        let Some(fields) = fields else {
            let why = "only fields of config.json are named by a text".to_owned();
            return Err(bad(scope, index, why));
        };
        for (pattern, value) in fields {
            let regex = RegexBuilder::new(&format!(r"^(.*\.)?({pattern})$"))
                .size_limit(MAX_REGEX)
                .build()
                .map_err(|error| {
                    let why = format!("the field {pattern:?} is no regular expression: {error}");
                    bad(scope, list, why)
                })?;
            if regex.is_match(name) {
                return Ok(Some(Value::from_json(value)));
            }
        }
        Ok(None)
    }

    pub(super) fn no_item(&self, scope: &Scope, expr: &Expr, list: &Expr) -> Box<Diagnostic> {
        let of_config = matches!(list.kind, ExprKind::Config(_));
        let code = if of_config { MISSING_CONFIG } else { BAD_VALUE };
        let finding = Diagnostic::error(code, "there is no such item")
            .at(scope.place(expr.span), "not in it");
        Box::new(finding.hint("give a default with `??`"))
    }

    pub(super) fn config(&self, steps: &[ConfigStep]) -> Option<Value> {
        self.json(steps).map(Value::from_json)
    }

    fn json(&self, steps: &[ConfigStep]) -> Option<&Json> {
        let mut json = self.config?;
        for step in steps {
            json = match step {
                ConfigStep::Field(field) => json.get(field)?,
                ConfigStep::Item(item) => json.get(usize::try_from(*item).ok()?)?,
            };
        }
        Some(json)
    }

    /// The value before a `??`, if there is one: a config field that isn't there has none, and
    /// neither has a chain of such.
    pub(super) fn there(
        &self,
        scope: &Scope,
        expr: &Expr,
        at: At<'_>,
    ) -> Result<Option<Value>, Box<Diagnostic>> {
        let value = match &expr.kind {
            ExprKind::Config(steps) if self.config(steps).is_none() => None,
            ExprKind::Item(list, index) => {
                let list_there = match &list.kind {
                    ExprKind::Config(steps) => self.json(steps).is_some(),
                    _ => true,
                };
                if list_there { self.item(scope, (list, index), at.deeper())? } else { None }
            }
            ExprKind::Size(..) | ExprKind::Count(..) => self.fact(scope, expr)?,
            ExprKind::Paren(inner) => self.there(scope, inner, at.deeper())?,
            ExprKind::Binary(BinaryOp::Default, left, right) => {
                match self.there(scope, left, at.deeper())? {
                    None => self.there(scope, right, at.deeper())?,
                    found => found,
                }
            }
            _ => Some(self.eval_at(scope, expr, at)?),
        };
        Ok(value.filter(|value| *value != Value::Null))
    }

    /// Where shapes, after a `??`, don't tell what config fields before it lack, fields are what a
    /// reader looks for.
    pub(super) fn neither(
        &self,
        scope: &Scope,
        [left, right]: [&Expr; 2],
        why: Box<Diagnostic>,
    ) -> Box<Diagnostic> {
        let (mut asks_shapes, mut field) = (false, None);
        right.walk(&mut |part| {
            asks_shapes |= matches!(part.kind, ExprKind::Size(..) | ExprKind::Count(..));
        });
        left.walk(&mut |part| {
            if let ExprKind::Config(steps) = &part.kind {
                field = Some((part, steps));
            }
        });
        match field.filter(|_| asks_shapes && why.code == MISSING_CONFIG) {
            None => why,
            Some((expr, steps)) => {
                let mut finding = self.missing_config(scope, expr, steps);
                finding.hints.push(why.message);
                finding
            }
        }
    }

    pub(super) fn missing_config(
        &self,
        scope: &Scope,
        expr: &Expr,
        steps: &[ConfigStep],
    ) -> Box<Diagnostic> {
        let Some(mut json) = self.config else {
            return Box::new(
                Diagnostic::error(
                    MISSING_CONFIG,
                    "a config field is asked for, and there is no config",
                )
                .at(scope.place(expr.span), "asked here")
                .hint(self.config_advice(scope, "give one with --config FILE")),
            );
        };
        let mut known = "config".to_owned();
        for step in steps {
            let next = match step {
                ConfigStep::Field(field) => json.get(field),
                ConfigStep::Item(item) => {
                    usize::try_from(*item).ok().and_then(|item| json.get(item))
                }
            };
            match (next, step) {
                (Some(_), ConfigStep::Field(field)) => known = format!("{known}.{field}"),
                (Some(_), ConfigStep::Item(item)) => known = format!("{known}[{item}]"),
                (None, ConfigStep::Field(field)) => {
                    let mut diagnostic = Diagnostic::error(
                        MISSING_CONFIG,
                        format!("{known} has no field `{field}`"),
                    )
                    .at(scope.place(expr.span), "not in this config");
                    let fields = json
                        .as_object()
                        .map(|object| object.keys().map(String::as_str).collect::<Vec<_>>())
                        .unwrap_or_default();
                    if let Some(close) = did_you_mean(field, fields) {
                        diagnostic = diagnostic.hint(format!("did you mean `{known}.{close}`?"));
                    }
                    return Box::new(diagnostic.hint(self.config_advice(scope, OTHER_CONFIG)));
                }
                (None, ConfigStep::Item(item)) => {
                    return Box::new(
                        Diagnostic::error(MISSING_CONFIG, format!("{known} has no item {item}"))
                            .at(scope.place(expr.span), "not in this config")
                            .hint(self.config_advice(scope, OTHER_CONFIG)),
                    );
                }
            }
            if let Some(inner) = next {
                json = inner;
            }
        }
        bad(scope, expr, "this config field can't be read".to_owned())
    }

    /// What to do where a config field isn't there: its author writes a default, and who only uses
    /// a file gives the values that it takes from there.
    fn config_advice(&self, scope: &Scope, config: &str) -> String {
        let config = (scope.built_in || self.config.is_none()).then(|| config.to_owned());
        let default = (!scope.built_in).then(|| "a default with `??`".to_owned());
        let ways: Vec<String> = [self.flags(scope), config, default]
            .into_iter()
            .flatten()
            .map(|way| way.trim_start_matches("give ").to_owned())
            .collect();
        format!("give {}", ways.join(", or "))
    }

    /// The flags that give the `let`s for which neither config nor shapes have a value.
    fn flags(&self, scope: &Scope) -> Option<String> {
        let open = scope.lets.iter().filter(|(name, (value, _))| {
            !self.parameters.contains_key(name.as_str())
                && value.as_ref().and_then(|value| self.is_there(scope, value)) == Some(false)
        });
        let flags: Vec<String> = open.map(|(name, _)| format!("--set {name}=VALUE")).collect();
        (!flags.is_empty()).then(|| flags.join(" "))
    }

    /// Whether what an expression asks of config and shapes is there, if it asks; what other `let`s
    /// have is taken as there.
    fn is_there(&self, scope: &Scope, expr: &Expr) -> Option<bool> {
        let of = |expr: &Expr| self.is_there(scope, expr);
        let all = |a: Option<bool>, b: Option<bool>| match (a, b) {
            (Some(a), Some(b)) => Some(a && b),
            (a, b) => a.or(b),
        };
        match &expr.kind {
            ExprKind::Config(steps) => {
                Some(self.config(steps).is_some_and(|value| value != Value::Null))
            }
            ExprKind::Size(..) | ExprKind::Count(..) => {
                Some(matches!((self.facts)(scope, expr.span.start), Some(Ok(Some(_)))))
            }
            // Another `let` in its place is no value of its own.
            ExprKind::Binary(BinaryOp::Default, left, right) => {
                let right = (!matches!(right.kind, ExprKind::Name(_))).then(|| of(right));
                match (of(left), right.flatten()) {
                    (Some(left), Some(right)) => Some(left || right),
                    (left, right) => left.or(right),
                }
            }
            ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => of(inner),
            ExprKind::Binary(_, left, right) | ExprKind::Item(left, right) => {
                all(of(left), of(right))
            }
            ExprKind::List(items) => items.iter().map(of).fold(None, all),
            _ => Some(true),
        }
    }

    /// What shapes and keys say to a `size` or `count`; `None` if no key fits.
    pub(super) fn fact(
        &self,
        scope: &Scope,
        expr: &Expr,
    ) -> Result<Option<Value>, Box<Diagnostic>> {
        let Some(fact) = (self.facts)(scope, expr.span.start) else {
            let message = "what shapes say of the layout that is read isn't known here";
            let finding = Diagnostic::error(UNDECIDED, message);
            let finding = finding.at(scope.place(expr.span), "asked here");
            return Err(Box::new(match self.flags(scope) {
                Some(flags) => finding.hint(format!("give {flags}")),
                None => finding,
            }));
        };
        Ok(fact?.map(Value::Int))
    }

    pub(super) fn no_fact(&self, scope: &Scope, expr: &Expr) -> Box<Diagnostic> {
        let (what, pattern) = match &expr.kind {
            ExprKind::Count(pattern, capture) => (format!("how many `{}`", capture.text), pattern),
            ExprKind::Size(pattern, dim) => (format!("how long dimension {dim}"), pattern),
            _ => return bad(scope, expr, "this is asked of no key".to_owned()),
        };
        let message =
            format!("no key fits {}, which should tell {what} is", print_pattern(pattern));
        let finding = Diagnostic::error(MISSING_CONFIG, message);
        Box::new(
            finding
                .at(scope.place(expr.span), "asked here")
                .hint(self.config_advice(scope, "give one with --config FILE")),
        )
    }
}
