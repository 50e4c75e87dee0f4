//! Jobs are handed to workers: each begins in a stretch of its own, and helps the others when that
//! is done.
//!
//! Jobs are numbered, not listed: a terabyte has very many. Stretches have about equal bytes and
//! follow the order of the source, so that reads stay sequential, and workers mostly write
//! different files: a file that is written is locked, and who waits for it does nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// Some jobs of about equal size, one after the other.
pub(super) struct Batch {
    pub(super) jobs: u64,
    pub(super) bytes: u64,
}

/// What is still to be handed out.
pub(super) struct Queue {
    /// The next job of each stretch, and its end.
    stretches: Vec<(AtomicU64, u64)>,
}

impl Queue {
    /// Jobs `0..` of all batches, for so many workers.
    pub(super) fn new(batches: &[Batch], workers: u64) -> Self {
        let total = batches.iter().map(|batch| u128::from(batch.bytes)).sum::<u128>();
        let (mut bytes, mut jobs, mut from, mut worker) = (0u128, 0u64, 0u64, 1u64);
        let mut stretches = Vec::new();
        for batch in batches {
            let (size, end) = (u128::from(batch.bytes), bytes + u128::from(batch.bytes));
            // Where in the batch the next worker begins.
            while worker < workers
                && size > 0
                && total * u128::from(worker) / u128::from(workers) < end
            {
                let into = (total * u128::from(worker) / u128::from(workers)).saturating_sub(bytes);
                let to = jobs
                    + u64::try_from(into * u128::from(batch.jobs) / size).unwrap_or(batch.jobs);
                stretches.push((AtomicU64::new(from), to));
                (from, worker) = (to, worker + 1);
            }
            (bytes, jobs) = (end, jobs.saturating_add(batch.jobs));
        }
        stretches.push((AtomicU64::new(from), jobs));
        Self { stretches }
    }

    /// The next job for a worker; `None` if all are handed out.
    pub(super) fn next(&self, worker: usize) -> Option<u64> {
        let (before, own) = self.stretches.split_at(worker % self.stretches.len().max(1));
        own.iter().chain(before).find_map(|(next, end)| {
            let job = next.load(Ordering::Relaxed);
            let job = if job < *end { next.fetch_add(1, Ordering::Relaxed) } else { job };
            (job < *end).then_some(job)
        })
    }

    /// Hands out nothing any more.
    pub(super) fn stop(&self) {
        for (next, end) in &self.stretches {
            next.store(*end, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(of: &[(u64, u64)]) -> Vec<Batch> {
        of.iter().map(|(jobs, bytes)| Batch { jobs: *jobs, bytes: *bytes }).collect()
    }

    #[test]
    fn every_job_is_handed_out_once_whoever_asks() {
        for of in [&[(5, 100), (0, 0), (1, 0), (7, 3), (2, 900)][..], &[(1, 1)], &[], &[(3, 0)]] {
            for workers in 1..7 {
                let queue = Queue::new(&batches(of), workers);
                let mut handed: Vec<u64> =
                    (0..).map_while(|turn| queue.next(turn * 5 % 7)).collect();
                handed.sort_unstable();
                assert!(
                    handed.iter().copied().eq(0..of.iter().map(|(jobs, _)| jobs).sum()),
                    "{of:?}, {workers} workers: {handed:?}"
                );
            }
        }
    }

    #[test]
    fn workers_begin_where_their_share_of_the_bytes_does() {
        // Four files of ten jobs: the second worker begins with the third file. One of three shares
        // is two thirds into a batch.
        let queue = Queue::new(&batches(&[(10, 50), (10, 50), (10, 50), (10, 50)]), 2);
        assert_eq!(
            (queue.next(0), queue.next(1), queue.next(0), queue.next(1)),
            (Some(0), Some(20), Some(1), Some(21))
        );
        let queue = Queue::new(&batches(&[(100, 1), (30, 999)]), 3);
        assert_eq!((queue.next(0), queue.next(1), queue.next(2)), (Some(0), Some(109), Some(119)));
    }

    #[test]
    fn nothing_is_handed_out_after_a_stop() {
        let queue = Queue::new(&batches(&[(10, 10)]), 3);
        assert!(queue.next(1).is_some());
        queue.stop();
        assert_eq!([queue.next(0), queue.next(1), queue.next(2)], [None; 3]);
    }
}
