//! [`Reading`]: a rule file as it is read in a direction, which every phase asks instead of walking
//! through its statements by itself.
//!
//! It says which statements there are, in which order and under which conditions, and for each
//! which way it goes. A file that is used `reversed` is no statement here: its statements come in
//! their place, with their own direction. An [`Act`] says what a statement does; who reads a file
//! matches on it without a wildcard, so that a new kind of statement doesn't compile until each
//! reader says what it makes of it.

use super::keys::Keys;
use super::op::Made;
use super::rules::{Direction, Rule, Rules, Selection, Side, Step, StepKind, Tie, Whole};
use super::value::Scope;
use crate::key::{Pattern, Slot};
use crate::syntax::ast::{Arrow, Expr};
use crate::tensor::Dtype;

/// Statements as they are read in a direction: those of a file, or those of a branch of a `when`.
#[derive(Clone, Debug)]
pub struct Reading<'r> {
    scopes: &'r [Scope],
    steps: &'r [Step],
    direction: Direction,
    guards: Vec<Guard<'r>>,
}

/// A statement as it is read.
#[derive(Clone, Debug)]
pub struct Statement<'r> {
    /// Where it is written, and which it is.
    pub step: &'r Step,
    /// Where its names are looked up.
    pub scope: &'r Scope,
    /// Which way it is read; for one of a file that is used `reversed`, the other way.
    pub direction: Direction,
    /// The conditions under which it is read, outermost first.
    pub guards: Vec<Guard<'r>>,
    /// What it does.
    pub act: Act<'r>,
}

/// A `when` around statements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard<'r> {
    /// Its condition.
    pub condition: &'r Expr,
    /// Whether it must hold, or must not.
    pub holds: bool,
}

/// What a statement does.
#[derive(Clone, Debug)]
pub enum Act<'r> {
    /// A statement about a file as a whole, read before its statements and after them.
    Whole {
        /// What it says.
        whole: Whole,
        /// Whether the statements of the file have been read.
        after: bool,
    },
    /// `rename` and `map`: the rules apply at once, the first that takes a key wins.
    Rewrite(Rewrite<'r>),
    /// `strip anywhere …`
    StripAnywhere {
        /// Each one or more whole segments.
        wrappers: &'r [Vec<String>],
    },
    /// `strip leading …`
    StripLeading {
        /// Each one or more whole segments.
        wrappers: &'r [Vec<String>],
        /// Only where a target manifest asks for it.
        if_wanted: bool,
    },
    /// `prefix …`
    Prefix(&'r [String]),
    /// `drop …`
    Drop(&'r Selection),
    /// `keep …`
    Keep(&'r Selection),
    /// `cast …`
    Cast {
        /// Which keys.
        keys: &'r Selection,
        /// To what.
        dtype: Dtype,
        /// Whether rounding is meant.
        lossy: bool,
    },
    /// `tie …`
    Tie(&'r Tie),
    /// `create …`
    Create {
        /// The key.
        target: &'r Pattern,
        /// The tensor.
        made: &'r Made,
        /// Keys that it is not made for.
        unless: &'r [Keys],
    },
    /// `expect …`
    Expect {
        /// What must be there.
        keys: &'r Keys,
        /// The captures that are counted.
        captures: &'r [Slot],
        /// How many.
        count: Option<&'r Expr>,
    },
    /// `when …`: one of its branches is read.
    When {
        /// The condition.
        condition: &'r Expr,
        /// If it holds.
        then: Reading<'r>,
        /// If not.
        otherwise: Reading<'r>,
    },
}

/// The rules of a `rename` or `map`, as they are read.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'r> {
    rules: &'r [Rule],
    direction: Direction,
}

/// A rule as it is read: its sources are what it takes.
#[derive(Clone, Copy, Debug)]
pub struct ReadRule<'r> {
    /// The rule as it is written.
    pub rule: &'r Rule,
    /// Which way it is read.
    pub direction: Direction,
}

impl<'r> Reading<'r> {
    /// A file with all that it uses.
    pub fn of(rules: &'r Rules, direction: Direction) -> Self {
        Self { scopes: &rules.scopes, steps: &rules.steps, direction, guards: Vec::new() }
    }

    /// The statements in the order in which they are read, those of a `when` left in it. Strips
    /// normalize what comes in, so they come first both ways.
    pub fn statements(&self) -> Vec<Statement<'r>> {
        let mut found = Vec::with_capacity(self.steps.len());
        self.collect(&mut found);
        found
    }

    /// The statements in order, those of both branches of each `when` after it.
    pub fn everywhere(&self) -> Vec<Statement<'r>> {
        let mut found = Vec::new();
        for statement in self.statements() {
            let mut branches = Vec::new();
            if let Act::When { then, otherwise, .. } = &statement.act {
                branches = [then, otherwise].into_iter().flat_map(Self::everywhere).collect();
            }
            found.push(statement);
            found.append(&mut branches);
        }
        found
    }

    /// The rules of all statements, both branches of each `when` included, that are read at all.
    pub fn rules(&self) -> Vec<ReadRule<'r>> {
        let mut found = Vec::new();
        for statement in self.everywhere() {
            if let Act::Rewrite(rewrite) = statement.act {
                found.extend(rewrite.rules());
            }
        }
        found
    }

    /// A scope, and those of the files that use it, outwards.
    pub fn users(&self, scope: &'r Scope) -> impl Iterator<Item = &'r Scope> {
        let scopes = self.scopes;
        std::iter::successors(Some(scope), move |scope| scopes.get(scope.user?))
    }

    fn collect(&self, found: &mut Vec<Statement<'r>>) {
        let is_strip = |step: &&'r Step| {
            matches!(step.kind, StepKind::StripAnywhere { .. } | StepKind::StripLeading { .. })
        };
        match self.direction {
            Direction::Forward => self.steps.iter().for_each(|step| self.read(step, found)),
            Direction::Reverse => {
                let (strips, others): (Vec<&Step>, Vec<&Step>) =
                    self.steps.iter().partition(is_strip);
                let order = strips.into_iter().chain(others.into_iter().rev());
                order.for_each(|step| self.read(step, found));
            }
        }
    }

    fn read(&self, step: &'r Step, found: &mut Vec<Statement<'r>>) {
        let act = match &step.kind {
            StepKind::Reversed(steps) => {
                let direction = self.direction.opposite();
                return Reading { steps, direction, ..self.clone() }.collect(found);
            }
            StepKind::Whole { whole, end } => {
                Act::Whole { whole: *whole, after: *end == (self.direction == Direction::Forward) }
            }
            StepKind::Rewrite(rules) => Act::Rewrite(Rewrite { rules, direction: self.direction }),
            StepKind::StripAnywhere { wrappers } => Act::StripAnywhere { wrappers },
            StepKind::StripLeading { wrappers, if_wanted } => {
                Act::StripLeading { wrappers, if_wanted: *if_wanted }
            }
            StepKind::Prefix(prefix) => Act::Prefix(prefix),
            StepKind::Drop(keys) => Act::Drop(keys),
            StepKind::Keep(keys) => Act::Keep(keys),
            StepKind::Cast { keys, dtype, lossy } => {
                Act::Cast { keys, dtype: *dtype, lossy: *lossy }
            }
            StepKind::Tie(tie) => Act::Tie(tie),
            StepKind::Create { target, made, unless } => Act::Create { target, made, unless },
            StepKind::Expect { keys, captures, count } => {
                Act::Expect { keys, captures, count: count.as_ref() }
            }
            StepKind::When { condition, then, otherwise } => Act::When {
                condition,
                then: self.branch(condition, then, true),
                otherwise: self.branch(condition, otherwise, false),
            },
        };
        if let Some(scope) = self.scopes.get(step.scope) {
            let guards = self.guards.clone();
            found.push(Statement { step, scope, direction: self.direction, guards, act });
        }
    }

    fn branch(&self, condition: &'r Expr, steps: &'r [Step], holds: bool) -> Self {
        let mut guards = self.guards.clone();
        guards.push(Guard { condition, holds });
        Self { steps, guards, ..self.clone() }
    }
}

impl<'r> Rewrite<'r> {
    /// The rules that are read this way, in order.
    pub fn rules(self) -> impl Iterator<Item = ReadRule<'r>> {
        let direction = self.direction;
        let rules = self.rules.iter().filter(move |rule| rule.is_read(direction));
        rules.map(move |rule| ReadRule { rule, direction })
    }

    /// The one-way rules that reading backwards leaves out.
    pub fn left_out(self) -> impl Iterator<Item = &'r Rule> {
        self.rules.iter().filter(move |rule| !rule.is_read(self.direction))
    }
}

impl Rule {
    /// Whether it takes keys in a direction at all.
    fn is_read(&self, direction: Direction) -> bool {
        direction == Direction::Forward || self.arrow == Arrow::TwoWay
    }
}

impl<'r> ReadRule<'r> {
    /// What it takes.
    pub fn sources(&self) -> &'r [Side] {
        match self.direction {
            Direction::Forward => &self.rule.left,
            Direction::Reverse => &self.rule.right,
        }
    }

    /// What it gives.
    pub fn targets(&self) -> &'r [Side] {
        match self.direction {
            Direction::Forward => &self.rule.right,
            Direction::Reverse => &self.rule.left,
        }
    }

    /// Keys that it leaves alone.
    pub fn unless_source(&self) -> &'r [Keys] {
        match self.direction {
            Direction::Forward => &self.rule.unless_left,
            Direction::Reverse => &self.rule.unless_right,
        }
    }

    /// Keys that nothing may become by it.
    pub fn unless_target(&self) -> &'r [Keys] {
        match self.direction {
            Direction::Forward => &self.rule.unless_right,
            Direction::Reverse => &self.rule.unless_left,
        }
    }
}
