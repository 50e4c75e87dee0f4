//! The target of a conversion: one manifest, or one for each pipeline stage, of which a rank
//! chooses.

use std::path::PathBuf;

use regraft::execute::Rank;
use regraft::plan::Part;
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

/// A target that is read.
pub(super) struct Target {
    /// The keys of all stages that are known.
    whole: Wanted,
    kind: Kind,
}

enum Kind {
    Whole,
    /// One stage; the others are not known.
    Stage,
    /// One of several stages.
    Ranked {
        place: Rank,
        file: PathBuf,
        stage: Wanted,
    },
}

impl TargetArguments {
    /// Reads the manifests; `None` if there are none.
    pub(super) fn read(&self) -> Result<Option<Target>> {
        if let [] | [_] = &self.target[..] {
            if self.rank.is_some() != self.world_size.is_some() {
                return Err(Failure::Usage(
                    "--rank and --world-size go together, unless several targets say how many ranks there are".to_owned(),
                ));
            }
            let Some(file) = self.target.first() else { return Ok(None) };
            let kind = if self.stage { Kind::Stage } else { Kind::Whole };
            return Ok(Some(Target { whole: Wanted::read(file)?, kind }));
        }
        let targets = u32::try_from(self.target.len())
            .map_err(|_| Failure::Usage("too many targets".to_owned()))?;
        let place = self.place(targets)?;
        let mut stages =
            self.target.iter().map(Wanted::read).collect::<std::result::Result<Vec<_>, _>>()?;
        let whole = Wanted::join(&stages).map_err(|key| {
            Failure::Usage(format!("two targets say different dtypes or shapes of `{key}`"))
        })?;
        let chosen = usize::try_from(place.rank).ok().filter(|rank| *rank < stages.len());
        let Some((rank, file)) = chosen.and_then(|rank| Some((rank, self.target.get(rank)?)))
        else {
            return Err(Failure::Usage(format!("there is no target for rank {}", place.rank)));
        };
        let stage = stages.swap_remove(rank);
        Ok(Some(Target { whole, kind: Kind::Ranked { place, file: file.clone(), stage } }))
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
        let rank =
            Rank::resolve(self.rank, self.world_size, None, variable).map_err(Failure::Usage)?;
        Ok(rank.filter(|rank| rank.world_size > 1))
    }

    /// Which of so many targets.
    fn place(&self, targets: u32) -> Result<Rank> {
        let found = Rank::resolve(self.rank, self.world_size, Some(targets), variable)
            .map_err(Failure::Usage)?;
        let Some(rank) = found else {
            return Err(Failure::Usage(format!(
                "which of the {targets} targets? give --rank, or RANK in the environment"
            )));
        };
        if rank.world_size != targets {
            return Err(Failure::Usage(format!(
                "there are {targets} targets for {} ranks: give one for each",
                rank.world_size
            )));
        }
        Ok(rank)
    }
}

/// A variable of the environment; what is no Unicode is no number either, and is said to be none.
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

impl Target {
    /// The keys that decide how keys are rewritten: those of all stages.
    pub(super) fn wanted(&self) -> &Wanted {
        &self.whole
    }

    /// Which of them are asked for.
    pub(super) fn part(&self) -> Part<'_> {
        match &self.kind {
            Kind::Whole => Part::Whole,
            Kind::Stage => Part::Open,
            Kind::Ranked { stage, .. } => Part::Keys(stage),
        }
    }

    /// Which stage it is, for people; `None` for a whole model.
    pub(super) fn describe(&self) -> Option<String> {
        match &self.kind {
            Kind::Whole => None,
            Kind::Stage => Some("one stage".to_owned()),
            Kind::Ranked { place, file, .. } => {
                Some(format!("rank {} of {}, {}", place.rank, place.world_size, file.display()))
            }
        }
    }
}
