//! The target of a conversion: one manifest, or one for each pipeline stage, of which a rank chooses.

use std::path::PathBuf;

use regraft::checkpoint::ranks::{Place, variable};
use regraft::plan::Part;
use regraft::tensor::Wanted;

use super::{Failure, Result};

/// Which keys the result must have.
#[derive(clap::Args)]
pub(super) struct TargetArguments {
    /// The keys that the result must have: a checkpoint, an index, a manifest, or a list of keys. Several are the pipeline stages of one
    /// model, in order of rank, and the result is one of them
    #[arg(long, value_name = "FILE", value_delimiter = ',', help_heading = "Target")]
    target: Vec<PathBuf>,

    /// The one target is a stage of a model: keys that it doesn't know belong to other stages
    #[arg(long, requires = "target", help_heading = "Target")]
    stage: bool,

    /// Which of several targets, from 0; or, with one target or none, which share of the files `apply` writes
    /// [default: what torchrun, mpirun or srun say]
    #[arg(long, value_name = "N", help_heading = "Target")]
    rank: Option<u32>,

    /// How many ranks there are: as many as targets, if there are several [default: what the launcher says, or the number of targets]
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
        place: Place,
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
        let place = self.place(self.target.len() as u64)?;
        let mut stages = self.target.iter().map(Wanted::read).collect::<std::result::Result<Vec<_>, _>>()?;
        let whole =
            Wanted::join(&stages).map_err(|key| Failure::Usage(format!("two targets say different dtypes or shapes of `{key}`")))?;
        let chosen = usize::try_from(place.rank).ok().filter(|rank| *rank < stages.len());
        let Some((rank, file)) = chosen.and_then(|rank| Some((rank, self.target.get(rank)?))) else {
            return Err(Failure::Usage(format!("there is no target for rank {}", place.rank)));
        };
        let stage = stages.swap_remove(rank);
        Ok(Some(Target { whole, kind: Kind::Ranked { place, file: file.clone(), stage } }))
    }

    /// Whether each rank has a target of its own.
    pub(super) fn is_ranked(&self) -> bool {
        self.target.len() > 1
    }

    /// Rank and world size among which the files are shared, if both are given and there is no target for each.
    pub(super) fn share(&self) -> Option<(u32, u32)> {
        if self.is_ranked() { None } else { self.rank.zip(self.world_size) }
    }

    /// Which of so many targets.
    fn place(&self, targets: u64) -> Result<Place> {
        if self.rank.is_none() && variable("RANK")?.is_none() {
            return Err(Failure::Usage(format!("which of the {targets} targets? give --rank, or RANK in the environment")));
        }
        let said = match self.world_size {
            None if variable("WORLD_SIZE")?.is_none() => Some(targets),
            said => said.map(u64::from),
        };
        let place = Place::resolve(self.rank.map(u64::from), said).map_err(|error| Failure::Usage(error.to_string()))?;
        if place.world_size != targets {
            return Err(Failure::Usage(format!("there are {targets} targets for {} ranks: give one for each", place.world_size)));
        }
        Ok(place)
    }
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
            Kind::Ranked { place, file, .. } => Some(format!("rank {} of {}, {}", place.rank, place.world_size, file.display())),
        }
    }
}
