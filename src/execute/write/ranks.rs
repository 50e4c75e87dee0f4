//! Several processes write one output: each takes a share of the files, and they talk by files alone.

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
    /// From the variables that launchers set: `RANK` and `WORLD_SIZE` (torchrun), `OMPI_COMM_WORLD_*` (mpirun), `PMI_*`, `SLURM_*` (srun).
    ///
    /// # Errors
    /// A sentence, if a pair is there that makes no sense.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        const NAMES: [(&str, &str); 4] = [
            ("RANK", "WORLD_SIZE"),
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
            ("PMI_RANK", "PMI_SIZE"),
            // Of the step: an allocation sets SLURM_NTASKS for processes that run alone too.
            ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
        ];
        for (rank, size) in NAMES {
            let (Some(r), Some(s)) = (variable(rank), variable(size)) else { continue };
            let number = |name: &str, text: &str| text.trim().parse::<u32>().map_err(|_| format!("{name} is {text:?}, which is no number"));
            return Self::new(number(rank, &r)?, number(size, &s)?).map(Some);
        }
        Ok(None)
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

    /// Which files are this rank's: the largest first, each to whoever has the fewest bytes yet. Every rank comes to the same answer.
    pub(super) fn share(self, shards: &[Shard]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..shards.len()).collect();
        order.sort_by_key(|at| (std::cmp::Reverse(shards[*at].len), *at));
        let mut loads = vec![0u64; self.world_size as usize];
        let mut own = Vec::new();
        for at in order {
            let Some(least) = (0..loads.len()).min_by_key(|rank| (loads[*rank], *rank)) else { break };
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
        sizes.iter().map(|len| Shard { name: String::new(), header: vec![], tensors: vec![], len: *len }).collect()
    }

    #[test]
    fn shares_cover_all_files_once_and_are_balanced() {
        let files = shards(&[5, 9, 1, 7, 3, 3, 8]);
        let shares: Vec<Vec<usize>> = (0..3).map(|rank| Rank::new(rank, 3).unwrap().share(&files)).collect();
        let mut all = shares.concat();
        all.sort_unstable();
        assert_eq!(all, (0..7).collect::<Vec<_>>());
        let loads: Vec<u64> = shares.iter().map(|share| share.iter().map(|at| files[*at].len).sum()).collect();
        // 36 bytes among 3; no share is off by more than the smallest files allow.
        assert!(loads.iter().all(|load| (11..=13).contains(load)), "{loads:?}");
        assert!(Rank::new(5, 8).unwrap().share(&shards(&[4, 4])).is_empty());
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        let from = |set: &[(&str, &str)]| {
            Rank::from_variables(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(from(&[]), Ok(None));
        assert_eq!(from(&[("RANK", "2")]), Ok(None));
        assert_eq!(from(&[("RANK", "2"), ("WORLD_SIZE", "4")]), Ok(Some(Rank { rank: 2, world_size: 4 })));
        assert_eq!(from(&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")]), Ok(Some(Rank { rank: 0, world_size: 1 })));
        assert!(from(&[("RANK", "x"), ("WORLD_SIZE", "4")]).is_err_and(|error| error.contains("RANK")));
        assert!(from(&[("RANK", "4"), ("WORLD_SIZE", "4")]).is_err());
        assert!(from(&[("RANK", "0"), ("WORLD_SIZE", "0")]).is_err());
    }
}
