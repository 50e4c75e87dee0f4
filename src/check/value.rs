//! Values of expressions, and their evaluation against config.json, parameters and captures.

mod field;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::Question;
use super::rules::Capture;
use crate::diagnostic::codes::{BAD_VALUE, LIMIT, MISSING_PARAMETER, UNDECIDED, UNKNOWN_NAME};
use crate::diagnostic::{Diagnostic, Place, SourceText, Span, did_you_mean};
use crate::syntax::ast::{BinaryOp, Expr, ExprKind, Ident, Pattern, UnaryOp};

/// What an expression gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true`
    Bool(bool),
    /// `32`
    Int(i64),
    /// `0.5`
    Float(f64),
    /// `"gelu"`
    Text(String),
    /// `[4, 8]`
    List(Vec<Value>),
    /// An object of config.json.
    Object,
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Object => "an object",
        }
    }

    /// From JSON.
    pub fn from_json(json: &Json) -> Self {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => number
                .as_i64()
                .map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int),
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(Value::from_json).collect()),
            Json::Object(_) => Value::Object,
        }
    }

    /// How many values it is made of.
    fn weight(&self) -> usize {
        match self {
            Value::List(items) => {
                items.iter().fold(1, |sum: usize, item| sum.saturating_add(item.weight()))
            }
            _ => 1,
        }
    }

    /// As a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            #[allow(clippy::cast_precision_loss)]
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{item}")?;
                }
                f.write_str("]")
            }
            Value::Object => f.write_str("{…}"),
        }
    }
}

/// The `let`s of one rule file, and the subtree that a `use … under …` scopes it to.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Which of [`Rules::scopes`](super::Rules::scopes) it is. A file that is used twice has two.
    pub number: usize,
    /// The text that spans point into.
    pub source: Arc<SourceText>,
    /// Name -> what stands after `=` (none: a parameter that must be given), in order.
    pub lets: IndexMap<String, (Option<Expr>, Span)>,
    /// The literal segments before every pattern of the file.
    pub under: Vec<String>,
    /// What keys of the file's left layout are split at, if not at dots.
    pub separator: Option<char>,
    /// What its `let`s ask of shapes and keys.
    pub questions: Vec<Question>,
    /// The scope of the file that uses this one.
    pub user: Option<usize>,
    /// Whether the file ships with the library: then advice is for who uses it, not for its author.
    pub built_in: bool,
}

impl Scope {
    /// A scope of a text that has no `let`s.
    pub(super) fn alone(source: Arc<SourceText>) -> Self {
        Self {
            number: 0,
            source,
            lets: IndexMap::new(),
            under: Vec::new(),
            separator: None,
            questions: Vec::new(),
            user: None,
            built_in: false,
        }
    }

    /// A place in this scope's text.
    pub fn place(&self, span: Span) -> Place {
        Place::new(Arc::clone(&self.source), span)
    }
}

/// What shapes and keys say where a `let` asks for it; `None` if no key fits.
pub type Fact = Result<Option<i64>, Box<Diagnostic>>;

/// What expressions are evaluated against.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// config.json; `None` when no checkpoint is at hand.
    pub config: Option<&'a Json>,
    /// Whether word embeddings are tied.
    pub tied: Option<bool>,
    /// `--set name=value`.
    pub parameters: &'a IndexMap<String, Value>,
    /// Whether a key of the left layout matches, in which captures hold what they hold here; `None`
    /// if that can't be known.
    pub exists: &'a dyn Fn(&Scope, &Pattern, Captures<'_>) -> Option<bool>,
    /// What shapes and keys of the layout that is read say to the question that begins at a place of
    /// a scope's text; `None` if they aren't known.
    pub facts: &'a dyn Fn(&Scope, u32) -> Option<Fact>,
    /// The captures in sight.
    pub captures: Captures<'a>,
}

/// The captures that a condition can speak of, and what they hold.
#[derive(Clone, Copy)]
pub struct Captures<'a> {
    /// Those of the rule, by slot.
    pub known: &'a [Capture],
    /// What a name holds; none if it isn't bound, or is no capture.
    pub value: &'a dyn Fn(&str) -> Option<Value>,
}

impl Captures<'_> {
    /// None are in sight.
    pub const NONE: Captures<'static> = Captures { known: &[], value: &|_| None };
}

/// What the `where` of a one-way rule with one source calls the lengths of its tensor's dimensions.
pub const LENGTHS: &[&str] = &["dim0", "dim1", "dim2", "dim3", "dim4", "dim5", "dim6", "dim7"];

/// Nothing is known of the left layout.
pub fn unknown_layout(_: &Scope, _: &Pattern, _: Captures<'_>) -> Option<bool> {
    None
}

/// Nothing is known of the shapes of the layout that is read.
pub fn unknown_facts(_: &Scope, _: u32) -> Option<Fact> {
    None
}

/// What is there without a config, a parameter, or captures.
pub(super) fn with_nothing<T>(work: impl FnOnce(&Environment<'_>) -> T) -> T {
    work(&Environment {
        config: None,
        tied: None,
        parameters: &IndexMap::new(),
        exists: &unknown_layout,
        facts: &unknown_facts,
        captures: Captures::NONE,
    })
}

/// Depth to which `let`s may refer to `let`s.
const MAX_DEPTH: usize = 64;

/// Steps that one evaluation takes at most: `let`s that use others twice each double the work with
/// each, and so do lists of lists.
const MAX_STEPS: usize = 1 << 14;

/// Where an evaluation is, and what is left of its steps.
#[derive(Clone, Copy)]
struct At<'a> {
    depth: usize,
    left: &'a Cell<usize>,
}

impl At<'_> {
    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    fn spend(self, scope: &Scope, expr: &Expr, steps: usize) -> Result<(), Box<Diagnostic>> {
        match self.left.get().checked_sub(steps) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                let diagnostic =
                    Diagnostic::error(LIMIT, format!("this takes more than {MAX_STEPS} steps"));
                Err(Box::new(
                    diagnostic
                        .at(scope.place(expr.span), "given up here")
                        .hint("each use of a `let` is worked out anew"),
                ))
            }
        }
    }
}

impl Environment<'_> {
    /// Evaluates an expression.
    ///
    /// # Errors
    /// An unknown name, a missing config field without `??`, a value of the wrong type, arithmetic
    /// that overflows.
    pub fn eval(&self, scope: &Scope, expr: &Expr) -> Result<Value, Box<Diagnostic>> {
        self.eval_at(scope, expr, At { depth: 0, left: &Cell::new(MAX_STEPS) })
    }

    /// Evaluates an expression that must be a whole number.
    ///
    /// # Errors
    /// As [`Environment::eval`], and any other type.
    pub fn int(&self, scope: &Scope, expr: &Expr) -> Result<i64, Box<Diagnostic>> {
        match self.eval(scope, expr)? {
            Value::Int(value) => Ok(value),
            other => Err(bad(
                scope,
                expr,
                format!("expected a whole number, found {}", describe(&other)),
            )),
        }
    }

    /// Evaluates a condition.
    ///
    /// # Errors
    /// As [`Environment::eval`], and any other type.
    pub fn truth(&self, scope: &Scope, expr: &Expr) -> Result<bool, Box<Diagnostic>> {
        let value = self.eval(scope, expr)?;
        truth(scope, expr, &value)
    }

    fn eval_at(&self, scope: &Scope, expr: &Expr, at: At<'_>) -> Result<Value, Box<Diagnostic>> {
        if at.depth > MAX_DEPTH {
            return Err(bad(
                scope,
                expr,
                "this is nested too deeply, or `let` values refer to each other in a circle"
                    .to_owned(),
            ));
        }
        at.spend(scope, expr, 1)?;
        match &expr.kind {
            ExprKind::Null => Ok(Value::Null),
            ExprKind::Bool(value) => Ok(Value::Bool(*value)),
            ExprKind::Int(value) => Ok(Value::Int(*value)),
            ExprKind::Float(value) => Ok(Value::Float(*value)),
            ExprKind::Text(text) => Ok(Value::Text(text.clone())),
            ExprKind::List(items) => items.iter().map(|item| self.eval_at(scope, item, at)).collect::<Result<_, _>>().map(Value::List),
            ExprKind::Paren(inner) => self.eval_at(scope, inner, at),
            ExprKind::Name(name) => self.name(scope, expr, name, at),
            ExprKind::Config(steps) => match self.config(steps) {
                Some(value) => at.spend(scope, expr, value.weight()).map(|()| value),
                None => Err(self.missing_config(scope, expr, steps)),
            },
            ExprKind::Item(list, index) => match self.item(scope, (list, index), at.deeper())? {
                Some(value) => Ok(value),
                None => Err(self.no_item(scope, expr, list)),
            },
            ExprKind::Tied => match self.tied {
                Some(tied) => Ok(Value::Bool(tied)),
                None => Err(Box::new(
                    Diagnostic::error(UNDECIDED, "whether embeddings are tied is not known without a config")
                        .at(scope.place(expr.span), "asked here")
                        .hint("give a config with --config, or --tied true|false"),
                )),
            },
            ExprKind::Exists(pattern) => match (self.exists)(scope, pattern, self.captures) {
                Some(found) => Ok(Value::Bool(found)),
                None => Err(Box::new(
                    Diagnostic::error(UNDECIDED, "`exists` is a fact about the left layout, which isn't known here")
                        .at(scope.place(expr.span), "asked here")
                        .hint("replace it by a parameter (`let name`), given with --set, or by a config field"),
                )),
            },
            ExprKind::Size(..) | ExprKind::Count(..) => match self.fact(scope, expr)? {
                Some(value) => Ok(value),
                None => Err(self.no_fact(scope, expr)),
            },
            ExprKind::Unary(UnaryOp::Neg, operand) => match self.eval_at(scope, operand, at.deeper())? {
                Value::Int(value) => value.checked_neg().map(Value::Int).ok_or_else(|| bad(scope, expr, "this overflows".to_owned())),
                Value::Float(value) => Ok(Value::Float(-value)),
                other => Err(bad(scope, operand, format!("expected a number, found {}", describe(&other)))),
            },
            ExprKind::Unary(UnaryOp::Not, operand) => {
                let value = self.eval_at(scope, operand, at.deeper())?;
                Ok(Value::Bool(!truth(scope, operand, &value)?))
            }
            ExprKind::Binary(op, left, right) => self.binary(scope, expr, *op, left, right, at.deeper()),
        }
    }

    fn name(
        &self,
        scope: &Scope,
        expr: &Expr,
        name: &str,
        at: At<'_>,
    ) -> Result<Value, Box<Diagnostic>> {
        if let Some(value) = (self.captures.value)(name) {
            return Ok(value);
        }
        let Some((definition, span)) = scope.lets.get(name) else {
            let mut diagnostic =
                Diagnostic::error(UNKNOWN_NAME, format!("`{name}` is not defined"))
                    .at(scope.place(expr.span), "not found in this file");
            if let Some(close) = did_you_mean(name, scope.lets.keys().map(String::as_str)) {
                diagnostic = diagnostic.meant(scope.place(expr.span), close);
            } else {
                diagnostic = diagnostic.hint(format!("define it with `let {name} = …`"));
            }
            return Err(Box::new(diagnostic));
        };
        if let Some(value) = self.parameters.get(name) {
            return Ok(value.clone());
        }
        match definition {
            Some(definition) => self.eval_at(scope, definition, at.deeper()),
            None => Err(Box::new(
                Diagnostic::error(
                    MISSING_PARAMETER,
                    format!("the parameter `{name}` has no value"),
                )
                .at(scope.place(expr.span), "needed here")
                .label(scope.place(*span), "declared here, without a default")
                .hint(format!("give it with --set {name}=VALUE")),
            )),
        }
    }

    fn binary(
        &self,
        scope: &Scope,
        expr: &Expr,
        op: BinaryOp,
        left: &Expr,
        right: &Expr,
        at: At<'_>,
    ) -> Result<Value, Box<Diagnostic>> {
        match op {
            BinaryOp::Or | BinaryOp::And => {
                let value = self.eval_at(scope, left, at)?;
                let first = truth(scope, left, &value)?;
                if first == (op == BinaryOp::Or) {
                    return Ok(Value::Bool(first));
                }
                let value = self.eval_at(scope, right, at)?;
                Ok(Value::Bool(truth(scope, right, &value)?))
            }
            BinaryOp::Default => {
                let value = self.there(scope, left, at)?;
                value.map_or_else(
                    || {
                        let value = self.eval_at(scope, right, at);
                        value.map_err(|why| self.neither(scope, [left, right], why))
                    },
                    Ok,
                )
            }
            BinaryOp::In => {
                let (item, list) =
                    (self.eval_at(scope, left, at)?, self.eval_at(scope, right, at)?);
                let Value::List(items) = list else {
                    let why = format!("expected a list, found {}", describe(&list));
                    return Err(bad(scope, right, why));
                };
                Ok(Value::Bool(items.iter().any(|one| equal(one, &item))))
            }
            BinaryOp::Eq | BinaryOp::Ne => {
                let (a, b) = (self.eval_at(scope, left, at)?, self.eval_at(scope, right, at)?);
                Ok(Value::Bool(equal(&a, &b) == (op == BinaryOp::Eq)))
            }
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge => {
                let (a, b) = (self.eval_at(scope, left, at)?, self.eval_at(scope, right, at)?);
                let order = match (&a, &b) {
                    (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
                    _ => a.number().zip(b.number()).and_then(|(a, b)| a.partial_cmp(&b)),
                };
                let Some(order) = order else {
                    return Err(bad(
                        scope,
                        expr,
                        format!("can't compare {} with {}", describe(&a), describe(&b)),
                    ));
                };
                Ok(Value::Bool(match op {
                    BinaryOp::Lt => order.is_lt(),
                    BinaryOp::Le => order.is_le(),
                    BinaryOp::Gt => order.is_gt(),
                    _ => order.is_ge(),
                }))
            }
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Rem => {
                let (a, b) = (self.eval_at(scope, left, at)?, self.eval_at(scope, right, at)?);
                arithmetic(op, &a, &b).map_err(|why| bad(scope, expr, why))
            }
        }
    }
}

/// Numbers are equal by value.
fn equal(a: &Value, b: &Value) -> bool {
    match (a.number(), b.number()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn arithmetic(op: BinaryOp, a: &Value, b: &Value) -> Result<Value, String> {
    if let (Value::Int(a), Value::Int(b)) = (a, b) {
        let result = match op {
            BinaryOp::Add => a.checked_add(*b),
            BinaryOp::Sub => a.checked_sub(*b),
            BinaryOp::Mul => a.checked_mul(*b),
            BinaryOp::Div | BinaryOp::Rem if *b == 0 => return Err("division by zero".to_owned()),
            BinaryOp::Div if a % b != 0 => return Err(format!("{a} is not divisible by {b}")),
            BinaryOp::Div => a.checked_div(*b),
            _ => a.checked_rem_euclid(*b),
        };
        return result.map(Value::Int).ok_or_else(|| "this overflows".to_owned());
    }
    let (Some(x), Some(y)) = (a.number(), b.number()) else {
        return Err(format!("can't do arithmetic on {} and {}", describe(a), describe(b)));
    };
    Ok(Value::Float(match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        _ => x.rem_euclid(y),
    }))
}

fn truth(scope: &Scope, expr: &Expr, value: &Value) -> Result<bool, Box<Diagnostic>> {
    match value {
        Value::Bool(value) => Ok(*value),
        other => {
            Err(bad(scope, expr, format!("expected true or false, found {}", describe(other))))
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null | Value::Object => value.kind().to_owned(),
        other => format!("{} ({other})", other.kind()),
    }
}

fn bad(scope: &Scope, expr: &Expr, message: String) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(BAD_VALUE, message).at(scope.place(expr.span), "here"))
}

/// The names that an expression mentions.
pub fn names<'a>(expr: &'a Expr, found: &mut Vec<(&'a str, Span)>) {
    expr.walk(&mut |part| {
        if let ExprKind::Name(name) = &part.kind {
            found.push((name, part.span));
        }
    });
}

/// The name of an expression that is nothing but a name.
pub fn as_name(expr: &Expr) -> Option<Ident> {
    match &expr.kind {
        ExprKind::Name(text) => Some(Ident { text: text.clone(), span: expr.span }),
        _ => None,
    }
}
