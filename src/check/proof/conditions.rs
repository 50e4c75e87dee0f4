//! Conditions of two rules, asked whether they can hold for one key.
//!
//! Decided are conditions that exclude each other as they are written, whatever their names stand
//! for, and those about whole numbers of one index: sums, differences, products with a number,
//! remainders and comparisons. Such a condition repeats itself once the index is large enough, so
//! that finitely many values tell of all. What else a condition asks is left open.

use indexmap::IndexMap;

use super::super::rules::{CaptureKind, Rule};
use super::super::value::{
    Captures, Environment, Scope, Value, names, unknown_facts, unknown_layout,
};
use crate::key::{Atom, Binding, Bindings, Part, Pattern, Segments, Slot};
use crate::syntax::ast::{BinaryOp, Expr, ExprKind, UnaryOp};

/// Values of an index that are tried at most.
const VALUES: i64 = 4096;

/// Keys that are looked at further.
const KEYS: usize = 8;

/// A rule, and the one of its targets that is asked about.
pub(super) type Giver<'a> = (&'a Rule, &'a Pattern);

/// Whether conditions exclude each other as they stand, where the targets are written alike.
pub(super) fn exclude(a: Giver<'_>, b: Giver<'_>) -> bool {
    match (&a.0.condition, &b.0.condition) {
        (Some(one), Some(other)) => written_alike(a, b) && contradict(one, other),
        _ => false,
    }
}

/// Keys like this one, which both give, but for the indices that their conditions ask for: those
/// for which both hold. The key itself where that can't be decided.
pub(super) fn holding(a: Giver<'_>, b: Giver<'_>, key: &str) -> Vec<String> {
    let undecided = || vec![key.to_owned()];
    if a.0.condition.is_none() && b.0.condition.is_none() {
        return undecided();
    }
    let (Some(first), Some(second)) = (Asked::of(a), Asked::of(b)) else { return undecided() };
    let (Some(count), Some(others)) = (first.values(&second), second.values(&first)) else {
        return undecided();
    };
    let mut found = Vec::new();
    let mut widened = false;
    for value in 0..count {
        let Some(one) = first.at(value, key) else { continue };
        if first.holds(&one) != Some(true) {
            continue;
        }
        match second.holds(&one) {
            Some(true) => found.push(one),
            // The other condition asks for another index, or for the same one, and then nothing is
            // found here.
            Some(false) if !widened => {
                widened = true;
                let both = |key: &String| {
                    first.holds(key) == Some(true) && second.holds(key) == Some(true)
                };
                found.extend((0..others).filter_map(|value| second.at(value, &one)).find(both));
            }
            _ => {}
        }
        if found.len() >= KEYS {
            break;
        }
    }
    found
}

/// A condition about one index of a target at most.
struct Asked<'a> {
    giver: Giver<'a>,
    index: Option<Index<'a>>,
    pace: Pace,
}

/// Where an index stands in the target, and its name.
struct Index<'a> {
    slot: Slot,
    name: &'a str,
    mul: i64,
    add: i64,
}

/// From which value on a condition repeats itself, and how often.
#[derive(Clone, Copy)]
struct Pace {
    from: i64,
    period: i64,
}

impl<'a> Asked<'a> {
    fn of(giver: Giver<'a>) -> Option<Self> {
        let (rule, pattern) = giver;
        let Some(condition) = &rule.condition else {
            return Some(Self { giver, index: None, pace: Pace { from: 0, period: 1 } });
        };
        let pace = pace(condition)?;
        let mut found = Vec::new();
        names(condition, &mut found);
        let Some((name, _)) = found.first() else { return Some(Self { giver, index: None, pace }) };
        if found.iter().any(|(other, _)| other != name) {
            return None;
        }
        let at = rule.captures.iter().position(|capture| {
            capture.name == *name && matches!(capture.kind, CaptureKind::Index(None))
        })?;
        let slot = Slot(u16::try_from(at).ok()?);
        let atoms = pattern.parts().iter().filter_map(|part| {
            if let Part::Segment(atoms) = part { Some(atoms.iter()) } else { None }
        });
        let index = atoms.flatten().find_map(|atom| match atom {
            Atom::Index { slot: here, mul, add, .. } if *here == slot => {
                Some(Index { slot, name, mul: *mul, add: *add })
            }
            _ => None,
        });
        Some(Self { giver, index: Some(index.filter(|index| index.mul > 0)?), pace })
    }

    /// How many values of its index tell all about both conditions.
    fn values(&self, other: &Asked<'_>) -> Option<i64> {
        let Some(index) = &self.index else { return Some(1) };
        let (mul, add) = other.index.as_ref().map_or((1, 0), |index| (index.mul, index.add));
        let theirs = mul
            .checked_mul(other.pace.from)?
            .checked_add(add.checked_abs()?)?
            .checked_add(index.add.checked_abs()?)?;
        let period = least_common_multiple(self.pace.period, mul.checked_mul(other.pace.period)?)?;
        within(self.pace.from.max(theirs).checked_add(period)?)
    }

    fn bindings(&self, key: &str) -> Option<Bindings> {
        let mut segments = Segments::default();
        segments.split(key);
        let mut bindings = Bindings::new(self.giver.0.captures.len());
        self.giver.1.matches(key, &segments, &mut bindings).then_some(bindings)
    }

    /// The key with another value of the index.
    fn at(&self, value: i64, key: &str) -> Option<String> {
        let Some(index) = &self.index else { return Some(key.to_owned()) };
        let mut bindings = self.bindings(key)?;
        bindings.set(index.slot, Binding::Index(u64::try_from(value).ok()?));
        self.giver.1.render(key, &bindings)
    }

    /// Whether the condition holds for a key; `None` if the rule doesn't give it.
    fn holds(&self, key: &str) -> Option<bool> {
        let bindings = self.bindings(key)?;
        let (rule, _) = self.giver;
        let Some(condition) = &rule.condition else { return Some(true) };
        let held = match self.index.as_ref().map(|index| (index.name, bindings.get(index.slot))) {
            Some((name, Binding::Index(value))) => Some((name, i64::try_from(*value).ok()?)),
            _ => None,
        };
        let value = |name: &str| {
            held.filter(|(known, _)| *known == name).map(|(_, value)| Value::Int(value))
        };
        let environment = Environment {
            config: None,
            tied: None,
            parameters: &IndexMap::new(),
            exists: &unknown_layout,
            facts: &unknown_facts,
            captures: Captures { known: &rule.captures, value: &value },
        };
        let scope = Scope {
            number: rule.id.scope,
            source: rule.place.source.clone(),
            lets: IndexMap::new(),
            under: Vec::new(),
            separator: None,
            questions: Vec::new(),
            user: None,
            built_in: false,
        };
        environment.truth(&scope, condition).ok()
    }
}

/// A whole number that depends on an index `l`: `slope * l`, and what repeats itself, between
/// `-spread` and `spread`.
#[derive(Clone, Copy)]
struct Line {
    slope: i64,
    spread: i64,
    period: i64,
}

fn within(value: i64) -> Option<i64> {
    (0..=VALUES).contains(&value).then_some(value)
}

fn least_common_multiple(a: i64, b: i64) -> Option<i64> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    within((a / x).checked_mul(b)?)
}

fn line(expr: &Expr) -> Option<Line> {
    match &expr.kind {
        ExprKind::Int(value) => {
            Some(Line { slope: 0, spread: within(value.checked_abs()?)?, period: 1 })
        }
        ExprKind::Name(_) => Some(Line { slope: 1, spread: 0, period: 1 }),
        ExprKind::Paren(inner) => line(inner),
        ExprKind::Unary(UnaryOp::Neg, operand) => {
            line(operand).map(|line| Line { slope: -line.slope, ..line })
        }
        ExprKind::Binary(op, left, right) => {
            let (a, b) = (line(left)?, line(right)?);
            let (slope, spread) = match op {
                BinaryOp::Add => (a.slope.checked_add(b.slope)?, a.spread.checked_add(b.spread)?),
                BinaryOp::Sub => (a.slope.checked_sub(b.slope)?, a.spread.checked_add(b.spread)?),
                BinaryOp::Mul => {
                    let (factor, other) = constant(left)
                        .map(|factor| (factor, b))
                        .or_else(|| constant(right).map(|factor| (factor, a)))?;
                    (
                        other.slope.checked_mul(factor)?,
                        other.spread.checked_mul(factor.checked_abs()?)?,
                    )
                }
                BinaryOp::Rem => {
                    let modulus = constant(right).filter(|modulus| *modulus > 0)?;
                    return Some(Line {
                        slope: 0,
                        spread: within(modulus)?,
                        period: least_common_multiple(a.period, modulus)?,
                    });
                }
                _ => return None,
            };
            within(slope.checked_abs()?)?;
            Some(Line {
                slope,
                spread: within(spread)?,
                period: least_common_multiple(a.period, b.period)?,
            })
        }
        _ => None,
    }
}

fn constant(expr: &Expr) -> Option<i64> {
    match &expr.kind {
        ExprKind::Int(value) => Some(*value),
        ExprKind::Paren(inner) => constant(inner),
        ExprKind::Unary(UnaryOp::Neg, operand) => constant(operand)?.checked_neg(),
        _ => None,
    }
}

fn pace(expr: &Expr) -> Option<Pace> {
    match &expr.kind {
        ExprKind::Bool(_) => Some(Pace { from: 0, period: 1 }),
        ExprKind::Paren(inner) => pace(inner),
        ExprKind::Unary(UnaryOp::Not, operand) => pace(operand),
        ExprKind::Binary(BinaryOp::Or | BinaryOp::And, left, right) => {
            let (a, b) = (pace(left)?, pace(right)?);
            Some(Pace {
                from: a.from.max(b.from),
                period: least_common_multiple(a.period, b.period)?,
            })
        }
        ExprKind::Binary(BinaryOp::In, left, right) => {
            let (ExprKind::List(items), index) = (&bare(right).kind, line(left)?) else {
                return None;
            };
            let greatest = items
                .iter()
                .map(constant)
                .try_fold(0, |greatest: i64, item| Some(greatest.max(item?.checked_abs()?)))?;
            let from = index.spread.checked_add(greatest)?.checked_add(1)?;
            Some(Pace { from: within(from)?, period: index.period })
        }
        ExprKind::Binary(
            BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge,
            left,
            right,
        ) => {
            let (a, b) = (line(left)?, line(right)?);
            let spread = within(a.spread.checked_add(b.spread)?)?;
            // Where one side grows faster, it's the greater one, or the smaller, from there on.
            if a.slope == b.slope {
                Some(Pace { from: 0, period: least_common_multiple(a.period, b.period)? })
            } else {
                Some(Pace { from: within(spread.checked_add(1)?)?, period: 1 })
            }
        }
        _ => None,
    }
}

/// Whether both targets are one pattern, in which captures of one name stand at one place.
fn written_alike((a, left): Giver<'_>, (b, right): Giver<'_>) -> bool {
    let all_bound = |rule: &Rule| {
        // Which of a word and its partner a condition sees is a matter of the rule.
        rule.captures
            .iter()
            .all(|capture| capture.right && !matches!(capture.kind, CaptureKind::Words { .. }))
    };
    let name = |rule: &Rule, slot: &Slot| {
        rule.captures.get(usize::from(slot.0)).map(|capture| capture.name.clone())
    };
    let same = |x: &Slot, y: &Slot| name(a, x) == name(b, y);
    let atoms_alike = |x: &Atom, y: &Atom| match (x, y) {
        (Atom::Text(x), Atom::Text(y)) => x == y,
        (
            Atom::Index { slot: x, mul, add, .. },
            Atom::Index { slot: y, mul: times, add: plus, .. },
        ) => same(x, y) && mul == times && add == plus,
        (Atom::Chars(x), Atom::Chars(y)) => same(x, y),
        _ => false,
    };
    let parts_alike = |(x, y): (&Part, &Part)| match (x, y) {
        (Part::Literal(x), Part::Literal(y)) => x == y,
        (Part::Rest(x), Part::Rest(y)) => same(x, y),
        (Part::Segment(x), Part::Segment(y)) => {
            x.len() == y.len() && x.iter().zip(y.iter()).all(|(x, y)| atoms_alike(x, y))
        }
        _ => false,
    };
    let (x, y) = (left.parts(), right.parts());
    all_bound(a) && all_bound(b) && x.len() == y.len() && x.iter().zip(y).all(parts_alike)
}

/// Whether one condition says that the other doesn't hold, word for word.
fn contradict(a: &Expr, b: &Expr) -> bool {
    use BinaryOp::{And, Eq, Ge, Gt, Le, Lt, Ne, Or};
    match (&a.kind, &b.kind) {
        (ExprKind::Paren(inner), _) => contradict(inner, b),
        (_, ExprKind::Paren(inner)) => contradict(a, inner),
        (ExprKind::Binary(And, x, y), _) => contradict(x, b) || contradict(y, b),
        (_, ExprKind::Binary(And, x, y)) => contradict(a, x) || contradict(a, y),
        (ExprKind::Binary(Or, x, y), _) => contradict(x, b) && contradict(y, b),
        (_, ExprKind::Binary(Or, x, y)) => contradict(a, x) && contradict(a, y),
        (ExprKind::Unary(UnaryOp::Not, inner), _) => bare(inner) == b,
        (_, ExprKind::Unary(UnaryOp::Not, inner)) => bare(inner) == a,
        (ExprKind::Binary(one, x, y), ExprKind::Binary(other, v, w)) if bare(x) == bare(v) => {
            match (one, other) {
                (Eq, Eq) => are_other_words(bare(y), bare(w)),
                (Eq, Ne) | (Ne, Eq) | (Lt, Ge | Gt) | (Ge | Gt, Lt) | (Le, Gt) | (Gt, Le) => {
                    bare(y) == bare(w)
                }
                _ => false,
            }
        }
        _ => false,
    }
}

fn bare(expr: &Expr) -> &Expr {
    match &expr.kind {
        ExprKind::Paren(inner) => bare(inner),
        _ => expr,
    }
}

/// Whether both are written out, of one kind, and differ.
fn are_other_words(a: &Expr, b: &Expr) -> bool {
    match (&a.kind, &b.kind) {
        (ExprKind::Int(a), ExprKind::Int(b)) => a != b,
        (ExprKind::Text(a), ExprKind::Text(b)) => a != b,
        (ExprKind::Bool(a), ExprKind::Bool(b)) => a != b,
        _ => false,
    }
}
