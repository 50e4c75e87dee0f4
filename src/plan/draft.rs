//! [`Draft`]: everything that a statement may change of a plan, as one value.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, DerefMut};

use indexmap::IndexMap;

use super::graph::Graph;
use super::node::{DropReason, RuleId, RuleInfo};
use super::pass::TieState;
use super::pass::strip::Stray;
use super::state::State;
use super::verdict::Evidence;
use super::{Lost, Planner, Renamed};
use crate::diagnostic::{Diagnostic, Place};
use crate::key::Key;

/// A rule of a `rename` or `map`.
#[derive(Clone, Copy)]
pub(super) struct Rewriter {
    /// It says `alone`: what belongs to its tensors is meant to stay.
    pub(super) alone: bool,
    /// It ships with the library: who uses it can't change it.
    pub(super) built_in: bool,
}

/// What statements change. A branch that is tried and not taken leaves no trace, since the draft of
/// before it is put back whole: a field that a statement writes belongs here.
#[derive(Clone, Default)]
pub(super) struct Draft {
    pub(super) graph: Graph,
    pub(super) state: State,
    pub(super) rules: Vec<RuleInfo>,
    pub(super) rule_ids: HashMap<(usize, u32, usize), RuleId>,
    /// The rules of `rename`s and `map`s.
    pub(super) rewrites: BTreeMap<RuleId, Rewriter>,
    /// Where each rule is written.
    pub(super) places: HashMap<RuleId, Place>,
    pub(super) dropped: IndexMap<Key, DropReason>,
    pub(super) renamed: Vec<Renamed>,
    pub(super) lost: Vec<Lost>,
    pub(super) findings: Vec<Diagnostic>,
    /// What ties found, and what those since the last statement of another kind left open.
    pub(super) ties: TieState,
    /// How the stage that runs found the keys.
    pub(super) evidence: Evidence,
    /// Wrappers that stay because a few keys lack them.
    pub(super) strays: Vec<Stray>,
}

/// The passes say `self.state`: which of a planner's fields are the draft's is decided above and
/// nowhere else.
impl Deref for Planner<'_> {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.draft
    }
}

impl DerefMut for Planner<'_> {
    fn deref_mut(&mut self) -> &mut Draft {
        &mut self.draft
    }
}
