//! Several processes write one output: each takes a share of the files, and they talk by files
//! alone.

use super::shards::Shard;
use crate::execute::Rank;

impl Rank {
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
}
