//! [`Rank`]: which of several processes this is, by what a person or a launcher says.

use std::fmt;

use serde::Serialize;

/// Which of several processes this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rank {
    /// From 0.
    pub rank: u32,
    /// How many there are.
    pub world_size: u32,
}

impl Rank {
    /// The one place that decides which process of how many this is: what a person says, else the
    /// variables that launchers set, which are `RANK` and `WORLD_SIZE` (torchrun),
    /// `OMPI_COMM_WORLD_*` (mpirun), `PMI_*`, `SLURM_*` (srun).
    ///
    /// `parts` is how many there are to share out, if that is known: then a rank alone is enough,
    /// on the command line or as `RANK`. `None` if nothing says which process this is.
    ///
    /// # Errors
    /// If what is said makes no sense.
    pub fn resolve(
        rank: Option<u32>,
        world_size: Option<u32>,
        parts: Option<u32>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, RankError> {
        const NAMES: [(&str, &str); 4] = [
            ("RANK", "WORLD_SIZE"),
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
            ("PMI_RANK", "PMI_SIZE"),
            // Of the step: an allocation sets SLURM_NTASKS for processes that run alone too.
            ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
        ];
        if let (Some(rank), Some(world_size)) = (rank, world_size) {
            return Self::new(rank, world_size).map(Some);
        }
        let number = |name: &str| {
            let read = |text: String| {
                let number = text.trim().parse::<u32>();
                number.map_err(|_| RankError::NoNumber { name: name.to_owned(), text })
            };
            variable(name).map(read).transpose()
        };
        let (mut own, mut all) = (None, None);
        for (rank, size) in NAMES {
            if let (Some(rank), Some(size)) = (number(rank)?, number(size)?) {
                (own, all) = (Some(rank), Some(size));
                break;
            }
        }
        if own.is_none() && parts.is_some() {
            (own, all) = (number("RANK")?, number("WORLD_SIZE")?);
        }
        match (rank.or(own), world_size.or(all).or(parts)) {
            (Some(rank), Some(world_size)) => Self::new(rank, world_size).map(Some),
            _ => Ok(None),
        }
    }

    /// As [`Rank::resolve`], with the variables of this process. What is no Unicode is no number
    /// either, and is said to be none.
    ///
    /// # Errors
    /// As [`Rank::resolve`].
    pub fn launched(
        rank: Option<u32>,
        world_size: Option<u32>,
        parts: Option<u32>,
    ) -> Result<Option<Self>, RankError> {
        Self::resolve(rank, world_size, parts, |name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    /// Checks that the rank is one of so many.
    ///
    /// # Errors
    /// If it isn't.
    pub fn new(rank: u32, world_size: u32) -> Result<Self, RankError> {
        if rank >= world_size {
            return Err(RankError::Outside { rank, world_size });
        }
        Ok(Self { rank, world_size })
    }
}

/// Why what is said of ranks makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RankError {
    /// A launcher's variable is no number.
    NoNumber {
        /// Its name.
        name: String,
        /// What it says.
        text: String,
    },
    /// The rank is none of so many.
    Outside {
        /// The rank.
        rank: u32,
        /// How many there are.
        world_size: u32,
    },
}

impl fmt::Display for RankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RankError::NoNumber { name, text } => {
                write!(f, "{name} is {text:?}, which is no number")
            }
            RankError::Outside { rank, world_size } => {
                write!(f, "rank {rank} of {world_size}: ranks are counted from 0")
            }
        }
    }
}

impl std::error::Error for RankError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said by arguments and set as variables, for so many parts.
    fn from(
        rank: Option<u32>,
        size: Option<u32>,
        parts: Option<u32>,
        set: &[(&str, &str)],
    ) -> Result<Option<(u32, u32)>, RankError> {
        let found = Rank::resolve(rank, size, parts, |name| {
            set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        });
        found.map(|rank| rank.map(|rank| (rank.rank, rank.world_size)))
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        let from = |set: &[(&str, &str)]| from(None, None, None, set);
        assert_eq!(from(&[]), Ok(None));
        assert_eq!(from(&[("RANK", "2")]), Ok(None));
        assert_eq!(from(&[("RANK", "2"), ("WORLD_SIZE", "4")]), Ok(Some((2, 4))));
        assert_eq!(
            from(&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")]),
            Ok(Some((0, 1)))
        );
        assert!(
            from(&[("RANK", "x"), ("WORLD_SIZE", "4")])
                .is_err_and(|error| error.to_string() == "RANK is \"x\", which is no number")
        );
        assert!(from(&[("RANK", "4"), ("WORLD_SIZE", "4")]).is_err());
        assert!(from(&[("RANK", "0"), ("WORLD_SIZE", "0")]).is_err());
    }

    #[test]
    fn where_there_are_parts_a_rank_is_enough_and_launchers_count_the_same() {
        let two = |rank: Option<u32>, set: &[(&str, &str)]| from(rank, None, Some(2), set);
        assert_eq!(two(None, &[]), Ok(None));
        assert_eq!(two(None, &[("RANK", "1")]), Ok(Some((1, 2))));
        assert_eq!(two(Some(1), &[]), Ok(Some((1, 2))));
        assert_eq!(
            two(None, &[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")]),
            Ok(Some((1, 2)))
        );
        assert_eq!(
            two(None, &[("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")]),
            Ok(Some((1, 2)))
        );
        // How many there are is said, not supposed: the caller sees that there are other ranks than
        // parts.
        assert_eq!(two(None, &[("PMI_RANK", "1"), ("PMI_SIZE", "4")]), Ok(Some((1, 4))));
        assert_eq!(two(Some(0), &[("WORLD_SIZE", "4")]), Ok(Some((0, 4))));
        // A batch script of an allocation is no rank.
        assert_eq!(two(None, &[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "2")]), Ok(None));
        assert!(two(Some(2), &[]).is_err());
    }
}
