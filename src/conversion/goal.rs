//! [`Goal`]: the keys that the result must have, of a whole model, or of one stage of it.

use std::fmt;
use std::path::Path;

use crate::error::Error;
use crate::execute::Rank;
use crate::key::Key;
use crate::plan::Share;
use crate::tensor::{Disagreement, Wanted};

/// The keys that the result must have.
#[derive(Clone, Debug)]
pub struct Goal {
    /// The keys of all stages that are known.
    whole: Wanted,
    kind: Kind,
    shared: Vec<Vec<Key>>,
}

#[derive(Clone, Debug)]
enum Kind {
    Whole,
    /// One stage; the others are not known.
    Stage,
    /// One of several stages.
    Ranked(Rank, Wanted),
}

impl Goal {
    /// Of a whole model: a key that it doesn't know is unexpected.
    pub fn whole(wanted: Wanted) -> Self {
        Self { whole: wanted, kind: Kind::Whole, shared: Vec::new() }
    }

    /// Of one stage of a model: keys that it doesn't know belong to other stages.
    pub fn stage(wanted: Wanted) -> Self {
        Self { kind: Kind::Stage, ..Self::whole(wanted) }
    }

    /// Of one of several stages, whose keys together are those of the model.
    ///
    /// # Errors
    /// If there is not one stage for each rank, or two say different dtypes or shapes of a key.
    pub fn ranked(mut stages: Vec<Wanted>, rank: Rank) -> Result<Self, GoalError> {
        let own = Self::own_of(stages.len(), rank)?;
        let whole = Wanted::join(&stages).map_err(GoalError::Disagree)?;
        let kind = Kind::Ranked(rank, stages.swap_remove(own));
        Ok(Self { kind, ..Self::whole(whole) })
    }

    /// As [`Goal::ranked`], from files.
    ///
    /// # Errors
    /// As [`Goal::ranked`] and [`Wanted::read`].
    pub fn read_ranked<P: AsRef<Path>>(files: &[P], rank: Rank) -> Result<Self, GoalError> {
        Self::own_of(files.len(), rank)?;
        let stages = files.iter().map(Wanted::read).collect::<Result<Vec<_>, Error>>();
        Self::ranked(stages.map_err(GoalError::World)?, rank)
    }

    /// Which of so many stages is that of a rank.
    fn own_of(stages: usize, rank: Rank) -> Result<usize, GoalError> {
        let wrong = || GoalError::Ranks { stages, world_size: rank.world_size };
        let fits = u32::try_from(stages).is_ok_and(|stages| stages == rank.world_size);
        let own = usize::try_from(rank.rank).ok().filter(|own| fits && *own < stages);
        own.ok_or_else(wrong)
    }

    /// Keys that are one tensor in the module that loads, in groups: what gives one of them gives
    /// all.
    #[must_use]
    pub fn shared(mut self, groups: Vec<Vec<Key>>) -> Self {
        self.shared = groups;
        self
    }

    /// The keys that decide how keys are rewritten: those of all stages that are known.
    pub fn wanted(&self) -> &Wanted {
        &self.whole
    }

    /// Which of them are asked for.
    pub fn part(&self) -> Share<'_> {
        match &self.kind {
            Kind::Whole => Share::Whole,
            Kind::Stage => Share::Open,
            Kind::Ranked(_, stage) => Share::Keys(stage),
        }
    }

    /// Whose stage it is, if it is one of several.
    pub fn rank(&self) -> Option<Rank> {
        match &self.kind {
            Kind::Ranked(rank, _) => Some(*rank),
            Kind::Whole | Kind::Stage => None,
        }
    }

    pub(super) fn shared_keys(&self) -> &[Vec<Key>] {
        &self.shared
    }
}

/// Why stages make no target.
#[derive(Debug)]
#[non_exhaustive]
pub enum GoalError {
    /// There is not one for each rank.
    Ranks {
        /// How many stages there are.
        stages: usize,
        /// How many ranks.
        world_size: u32,
    },
    /// Two say different dtypes or shapes of a key.
    Disagree(Disagreement),
    /// One can't be read.
    World(Error),
}

impl fmt::Display for GoalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GoalError::Ranks { stages, world_size } => {
                write!(f, "there are {stages} targets for {world_size} ranks: give one for each")
            }
            GoalError::Disagree(disagreement) => disagreement.fmt(f),
            GoalError::World(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for GoalError {}
