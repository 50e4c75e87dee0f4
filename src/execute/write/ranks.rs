//! Several processes write one output: each takes a share of the files, and they talk by files
//! alone.

use serde::Serialize;

use super::shards::Shard;

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
    /// A sentence, if what is said makes no sense.
    pub fn resolve(
        rank: Option<u32>,
        world_size: Option<u32>,
        parts: Option<u32>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
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
                text.trim()
                    .parse::<u32>()
                    .map_err(|_| format!("{name} is {text:?}, which is no number"))
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

    /// Checks that the rank is one of so many.
    ///
    /// # Errors
    /// A sentence, if it isn't.
    pub fn new(rank: u32, world_size: u32) -> Result<Self, String> {
        if rank >= world_size {
            return Err(format!("rank {rank} of {world_size}: ranks are counted from 0"));
        }
        Ok(Self { rank, world_size })
    }

    /// Which files are this rank's: the largest first, each to whoever has the fewest bytes yet.
    /// Every rank comes to the same answer.
    pub(super) fn share(self, shards: &[Shard]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..shards.len()).collect();
        order.sort_by_key(|at| (std::cmp::Reverse(shards[*at].len), *at));
        let mut loads = vec![0u64; self.world_size as usize];
        let mut own = Vec::new();
        for at in order {
            let Some(least) = (0..loads.len()).min_by_key(|rank| (loads[*rank], *rank)) else {
                break;
            };
            loads[least] = loads[least].saturating_add(shards[at].len);
            if least == self.rank as usize {
                own.push(at);
            }
        }
        own.sort_unstable();
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(sizes: &[u64]) -> Vec<Shard> {
        sizes
            .iter()
            .map(|len| Shard { name: String::new(), header: vec![], tensors: vec![], len: *len })
            .collect()
    }

    #[test]
    fn shares_cover_all_files_once_and_are_balanced() {
        let files = shards(&[5, 9, 1, 7, 3, 3, 8]);
        let shares: Vec<Vec<usize>> =
            (0..3).map(|rank| Rank::new(rank, 3).unwrap().share(&files)).collect();
        let mut all = shares.concat();
        all.sort_unstable();
        assert_eq!(all, (0..7).collect::<Vec<_>>());
        let loads: Vec<u64> =
            shares.iter().map(|share| share.iter().map(|at| files[*at].len).sum()).collect();
        // 36 bytes among 3; no share is off by more than the smallest files allow.
        assert!(loads.iter().all(|load| (11..=13).contains(load)), "{loads:?}");
        assert!(Rank::new(5, 8).unwrap().share(&shards(&[4, 4])).is_empty());
    }

    /// What is said by arguments and set as variables, for so many parts.
    fn from(
        rank: Option<u32>,
        size: Option<u32>,
        parts: Option<u32>,
        set: &[(&str, &str)],
    ) -> Result<Option<(u32, u32)>, String> {
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
            from(&[("RANK", "x"), ("WORLD_SIZE", "4")]).is_err_and(|error| error.contains("RANK"))
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
