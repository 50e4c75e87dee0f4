//! The target of a conversion: one manifest, or one for each pipeline stage, of which a rank
//! chooses.

use std::path::PathBuf;

use regraft::conversion::{Goal, GoalError};
use regraft::execute::{Rank, RankError};
use regraft::store::public;
use regraft::tensor::Wanted;

use super::{Failure, Result};

/// Which keys the result must have.
#[derive(clap::Args)]
pub(super) struct TargetArguments {
    /// The keys that the result must have: a checkpoint, an index, a manifest, or a list of keys.
    /// Several are the pipeline stages of one model, in order of rank, and the result is one of
    /// them
    #[arg(long, value_name = "FILE", value_delimiter = ',', help_heading = "Target")]
    target: Vec<PathBuf>,

    /// The one target is a stage of a model: keys that it doesn't know belong to other stages
    #[arg(long, requires = "target", help_heading = "Target")]
    stage: bool,

    /// Which of several targets, from 0; or, with one target or none, which share of the files
    /// `apply` writes [default: what torchrun, mpirun or srun say]
    #[arg(long, value_name = "N", help_heading = "Target")]
    rank: Option<u32>,

    /// How many ranks there are: as many as targets, if there are several [default: what the
    /// launcher says, or the number of targets]
    #[arg(long, value_name = "N", help_heading = "Target")]
    world_size: Option<u32>,
}

impl TargetArguments {
    /// Reads the manifests; `None` if there are none.
    pub(super) fn read(&self) -> Result<Option<Goal>> {
        if let [] | [_] = &self.target[..] {
            if self.rank.is_some() != self.world_size.is_some() {
                return Err(Failure::Usage(
                    "--rank and --world-size go together, unless several targets say how many ranks there are".to_owned(),
                ));
            }
            let Some(file) = self.target.first() else { return Ok(None) };
            let wanted = Wanted::read(file)?;
            return Ok(Some(if self.stage { Goal::stage(wanted) } else { Goal::whole(wanted) }));
        }
        let rank = self.rank_of_targets()?;
        Ok(Some(Goal::read_ranked(&self.target, rank).map_err(|error| match error {
            GoalError::World(error) => Failure::World(error),
            error => Failure::Usage(error.to_string()),
        })?))
    }

    /// Whether each rank has a target of its own.
    pub(super) fn is_ranked(&self) -> bool {
        self.target.len() > 1
    }

    /// Which share of the files is written, if there is no target for each rank: by arguments, else
    /// by what a launcher says.
    pub(super) fn share(&self) -> Result<Option<Rank>> {
        if self.is_ranked() {
            return Ok(None);
        }
        let rank = Rank::launched(self.rank, self.world_size, None).map_err(usage)?;
        Ok(rank.filter(|rank| rank.world_size > 1))
    }

    /// Whose target is asked for, of several.
    fn rank_of_targets(&self) -> Result<Rank> {
        let targets = u32::try_from(self.target.len())
            .map_err(|_| Failure::Usage("too many targets".to_owned()))?;
        let found = Rank::launched(self.rank, self.world_size, Some(targets)).map_err(usage)?;
        found.ok_or_else(|| {
            Failure::Usage(format!(
                "which of the {targets} targets? give --rank, or RANK in the environment"
            ))
        })
    }

    /// Which stage is asked for, as a line for people; empty for a whole model.
    pub(super) fn stage_line(&self, rank: Option<Rank>) -> String {
        let file = rank.and_then(|rank| self.target.get(usize::try_from(rank.rank).ok()?));
        match (rank, file) {
            (Some(rank), Some(file)) => {
                format!(
                    "stage: rank {} of {}, {}\n",
                    rank.rank,
                    rank.world_size,
                    public(file).display()
                )
            }
            _ if self.stage => "stage: one stage\n".to_owned(),
            _ => String::new(),
        }
    }
}

fn usage(error: RankError) -> Failure {
    Failure::Usage(error.to_string())
}
