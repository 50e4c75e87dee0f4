//! Numbers of a key that captures are calculated to: a [`Sum`] tells from its number what each
//! capture holds, a [`Calculation`] only goes from captures to the number.

use std::ops::Range;

use super::pattern::{Bindings, Slot};

/// A number that is calculated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Number {
    /// It can be solved for its captures.
    Sum(Sum),
    /// It can't; it takes any number.
    Calculation(Calculation),
    /// Only a config tells how: it takes any number, binds nothing and gives none.
    Unknown,
}

impl Number {
    /// The number that bindings give.
    pub(super) fn value(&self, bindings: &Bindings) -> Option<i64> {
        match self {
            Number::Sum(sum) => sum.value(bindings),
            Number::Calculation(calculation) => calculation.value(bindings),
            Number::Unknown => None,
        }
    }
}

/// One capture of a [`Sum`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// Where it is bound.
    pub slot: Slot,
    /// What it is multiplied by.
    pub factor: i64,
    /// The values that it may have; all if `None`.
    pub range: Option<Range<u64>>,
}

impl Term {
    /// How many values it may have, if they are bounded.
    fn count(&self) -> Option<i128> {
        self.range.as_ref().map(|range| i128::from(range.end.saturating_sub(range.start)))
    }

    /// The least that it adds, if that is bounded.
    fn least(&self) -> i128 {
        let factor = i128::from(self.factor);
        match &self.range {
            Some(range) if factor > 0 => factor * i128::from(range.start),
            Some(range) => factor * (i128::from(range.end) - 1),
            None => 0,
        }
    }

    /// The value that adds so many steps to the least.
    fn at(&self, steps: i128) -> Option<u64> {
        let value = match &self.range {
            Some(range) if self.factor > 0 => i128::from(range.start) + steps,
            Some(range) => i128::from(range.end) - 1 - steps,
            None if self.factor > 0 => steps,
            None => -steps,
        };
        let value = u64::try_from(value).ok()?;
        self.range.as_ref().is_none_or(|range| range.contains(&value)).then_some(value)
    }
}

/// `factor * capture + … + add`, of which each number tells what every capture is: none of the
/// captures of smaller factors can add up to a greater factor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sum {
    /// From the smallest factor to the greatest.
    terms: Box<[Term]>,
    add: i64,
}

impl Sum {
    /// `None` if two choices of what the captures are may give one number.
    pub fn new(mut terms: Vec<Term>, add: i64) -> Option<Self> {
        terms.sort_by_key(|term| (term.factor.unsigned_abs(), term.range.is_none()));
        let mut span = 0i128;
        let mut bounded = true;
        for term in &terms {
            let factor = i128::from(term.factor).abs();
            let count = term.count();
            if count.is_some_and(|count| count <= 1) {
                continue;
            }
            if factor <= span || !bounded {
                return None;
            }
            match count {
                Some(count) => span = span.checked_add(factor.checked_mul(count - 1)?)?,
                None => bounded = false,
            }
        }
        terms.iter().all(|term| term.factor != 0).then(|| Self { terms: terms.into(), add })
    }

    /// Its captures.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The number that is added to what the captures give.
    pub fn add(&self) -> i64 {
        self.add
    }

    /// What its captures are where it gives a number.
    pub(super) fn solve(&self, number: u64) -> Option<Vec<(Slot, u64)>> {
        let least = self.terms.iter().map(Term::least).sum::<i128>();
        let mut rest = i128::from(number) - i128::from(self.add) - least;
        let mut solved = Vec::with_capacity(self.terms.len());
        for term in self.terms.iter().rev() {
            let factor = i128::from(term.factor).abs();
            let steps = if term.count() == Some(1) { 0 } else { rest.div_euclid(factor) };
            rest -= steps * factor;
            solved.push((term.slot, term.at(steps)?));
        }
        (rest == 0).then_some(solved)
    }

    /// Some of the numbers that it gives: those of these captures' values, as far as they may have
    /// them, and the last of each range.
    pub fn examples(&self, values: &[u64], most: usize) -> Vec<i64> {
        let mut sums = vec![i128::from(self.add)];
        for term in &self.terms {
            let last = term.range.iter().flat_map(|range| [range.start, range.end.wrapping_sub(1)]);
            let fits = |value: &u64| term.range.as_ref().is_none_or(|range| range.contains(value));
            let values: Vec<u64> = values.iter().copied().chain(last).filter(fits).collect();
            let with = |sum: &i128| {
                let factor = i128::from(term.factor);
                let sum = *sum;
                let added = values
                    .iter()
                    .filter_map(move |value| sum.checked_add(factor * i128::from(*value)));
                added.collect::<Vec<_>>()
            };
            sums = sums.iter().flat_map(with).take(most).collect();
        }
        sums.into_iter().filter_map(|sum| i64::try_from(sum).ok()).filter(|sum| *sum >= 0).collect()
    }

    fn value(&self, bindings: &Bindings) -> Option<i64> {
        let mut sum = i128::from(self.add);
        for term in &self.terms {
            let value = bindings.index(term.slot)?;
            if term.range.as_ref().is_some_and(|range| !range.contains(&value)) {
                return None;
            }
            sum = sum.checked_add(i128::from(term.factor) * i128::from(value))?;
        }
        i64::try_from(sum).ok()
    }
}

/// Whole numbers calculated from captures.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Calculation {
    /// This number.
    Number(i64),
    /// What a capture holds.
    Capture(Slot),
    /// Two numbers, and what is done to them.
    Both(Arithmetic, Box<[Calculation; 2]>),
}

/// What is done to two whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    /// Rounded down.
    Divide,
    /// What that leaves: never negative where the divisor isn't.
    Remainder,
}

impl Calculation {
    fn value(&self, bindings: &Bindings) -> Option<i64> {
        match self {
            Calculation::Number(value) => Some(*value),
            Calculation::Capture(slot) => i64::try_from(bindings.index(*slot)?).ok(),
            Calculation::Both(arithmetic, operands) => {
                let [left, right] = &**operands;
                let (left, right) = (left.value(bindings)?, right.value(bindings)?);
                match arithmetic {
                    Arithmetic::Add => left.checked_add(right),
                    Arithmetic::Subtract => left.checked_sub(right),
                    Arithmetic::Multiply => left.checked_mul(right),
                    Arithmetic::Divide if right > 0 => left.checked_div_euclid(right),
                    Arithmetic::Remainder if right > 0 => left.checked_rem_euclid(right),
                    Arithmetic::Divide | Arithmetic::Remainder => None,
                }
            }
        }
    }
}
