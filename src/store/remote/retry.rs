//! How often something is tried again, and how long is waited before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::http::{self, Trouble};
use super::site::refused;
use crate::error::{Error, ErrorKind};

/// How often in a row nothing may come of a request.
const TRIES: u32 = 6;

/// The first wait, which each further one doubles, and the longest.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(20);

/// The longest wait that a server may ask for.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often a wait looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Ends what waits, of whoever has the same: counts how often reading was interrupted, and who
/// began before must end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupts(Arc<AtomicU64>);

impl Interrupts {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Ends all reads that wait.
    pub(crate) fn interrupt(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
        http::interrupt();
    }
}

/// The tries of one piece of work.
pub(super) struct Tries<'a> {
    failed: u32,
    began: u64,
    interrupts: &'a Interrupts,
    /// What is asked for, to say what a refusal means.
    address: &'a str,
}

impl<'a> Tries<'a> {
    pub(super) fn new(address: &'a str, interrupts: &'a Interrupts) -> Self {
        Self { failed: 0, began: interrupts.count(), interrupts, address }
    }

    /// Bytes have come: what failed before doesn't count.
    pub(super) fn progress(&mut self) {
        self.failed = 0;
    }

    /// Waits, so that it can be tried again.
    ///
    /// # Errors
    /// If that is of no use, or reading was interrupted.
    pub(super) fn again(&mut self, trouble: Trouble) -> Result<(), Error> {
        self.look()?;
        let (error, after) = match trouble {
            Trouble::Lasting(error) => return Err(error.in_file(self.address)),
            Trouble::Passing(error, after) => (error, after),
            Trouble::Status(refusal) => {
                let error = refused(self.address, &refusal);
                if !matches!(refusal.status, 408 | 429 | 500 | 502 | 503 | 504) {
                    return Err(error);
                }
                (error, refusal.retry_after)
            }
        };
        self.failed += 1;
        if self.failed >= TRIES || after.is_some_and(|after| after > PATIENCE) {
            return Err(error.in_file(self.address));
        }
        let own = FIRST.saturating_mul(1 << (self.failed - 1)).min(LONGEST);
        // Those who failed together don't come back together.
        let own = own.mul_f64(0.5 + f64::from(self.chance()) / 512.0);
        self.wait(after.unwrap_or(own))
    }

    /// Some number below 256.
    fn chance(&self) -> u8 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let hash = blake3::hash(format!("{:?}{}", now, self.address).as_bytes());
        hash.as_bytes()[0]
    }

    fn wait(&self, time: Duration) -> Result<(), Error> {
        let end = Instant::now() + time;
        loop {
            self.look()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn look(&self) -> Result<(), Error> {
        if self.interrupts.count() == self.began {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Interrupted, "reading was interrupted").in_file(self.address))
    }
}
