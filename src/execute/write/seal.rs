//! Within the third phase: while tensors are written, a thread beside it hands what there is to the
//! disk, and records each file as soon as it is whole and durable.
//!
//! Where several processes write one output, nobody knows when a file is whole: the thread beside
//! it hands on alone ([`handing_on`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::fill::Opened;
use super::finished::Finished;
use super::prepare::Prepared;
use super::staging::Staging;
use super::stream::{OutFile, Pool};
use crate::error::{Error, Result};
use crate::execute::fuse::gather::outside;

/// How often it is looked whether so many bytes more of a file have been written that the disk can
/// have them already.
const EARLY: Duration = Duration::from_millis(5);
const MUCH: u64 = 64 << 20;

/// Writes the data of some files, and gives what is known of each, by the number of its shard.
///
/// # Errors
/// If writing or syncing fails, or the source isn't any more what it was.
pub(super) fn seal(
    prepared: &Prepared<'_>,
    staging: &Staging,
    opened: &Opened,
    pool: &mut Pool<'_>,
) -> Result<Vec<(usize, Finished)>> {
    let (sender, whole) = std::sync::mpsc::channel::<Arc<OutFile>>();
    // A file without bytes is never heard of again.
    for (_, file) in opened.files.iter().filter(|(_, file)| file.left() == 0) {
        let _ = sender.send(Arc::clone(file));
    }
    pool.finished = Some(sender);
    let sealing = Sealing { prepared, staging, opened };
    let (wrote, sealed) = std::thread::scope(|scope| {
        let sealed = scope.spawn(move || sealing.all(&whole));
        let wrote = pool.run(&opened.outputs);
        pool.finished = None;
        (wrote, sealed.join())
    });
    wrote?;
    let finished = sealed.map_err(|_| outside())??;
    if finished.len() == opened.files.len() {
        Ok(finished)
    } else {
        Err(Error::corrupt("the plan is inconsistent: a file was not written whole"))
    }
}

/// Does work that writes files, while a thread beside it hands to the disk what there is.
///
/// # Errors
/// Those of the work; and if syncing fails.
pub(super) fn handing_on(files: &[Arc<OutFile>], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (working, done) = std::sync::mpsc::channel::<()>();
    let (worked, handed) = std::thread::scope(|scope| {
        let handing = scope.spawn(move || {
            let mut ahead = Ahead::new(files.iter().map(|file| &**file));
            while done.recv_timeout(EARLY) == Err(RecvTimeoutError::Timeout) {
                ahead.hand_on()?;
            }
            Ok(())
        });
        let worked = work();
        drop(working);
        (worked, handing.join())
    });
    worked.and(handed.map_err(|_| outside())?)
}

/// Files that grow, and how many bytes each waited for when it was handed on.
struct Ahead<'a>(Vec<(&'a OutFile, u64)>);

impl<'a> Ahead<'a> {
    fn new(files: impl Iterator<Item = &'a OutFile>) -> Self {
        Self(files.map(|file| (file, file.left())).collect())
    }

    /// Hands to the disk what has grown by much, so that less is left to sync at the end.
    fn hand_on(&mut self) -> Result<()> {
        for (file, before) in &mut self.0 {
            let left = file.left();
            if before.saturating_sub(left) >= MUCH {
                *before = left;
                file.sync()?;
            }
        }
        Ok(())
    }
}

/// What the thread beside the writers knows.
struct Sealing<'a> {
    prepared: &'a Prepared<'a>,
    staging: &'a Staging,
    opened: &'a Opened,
}

impl Sealing<'_> {
    /// Seals each file that is whole, until there will be no more.
    fn all(&self, whole: &Receiver<Arc<OutFile>>) -> Result<Vec<(usize, Finished)>> {
        let mut finished = Vec::with_capacity(self.opened.files.len());
        let mut ahead = Ahead::new(self.opened.files.iter().map(|(_, file)| &**file));
        loop {
            match whole.recv_timeout(EARLY) {
                Ok(file) => finished.extend(self.one(&file)?),
                Err(RecvTimeoutError::Disconnected) => return Ok(finished),
                Err(RecvTimeoutError::Timeout) if self.prepared.options.sync => {
                    ahead.hand_on()?;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Syncs a file that is whole, and records it.
    fn one(&self, file: &Arc<OutFile>) -> Result<Option<(usize, Finished)>> {
        let options = self.prepared.options;
        if options.sync {
            file.file.sync_all().map_err(|error| Error::io("cannot sync", &file.path, error))?;
        }
        let mut files = self.opened.files.iter();
        let Some((at, _)) = files.find(|(_, other)| Arc::ptr_eq(other, file)) else {
            return Ok(None);
        };
        // A shard that is recorded is taken for good by later runs and other ranks.
        self.prepared.source.unchanged()?;
        let mut finished = Finished::of(&file.path, None)?;
        finished.overflowed = self.overflowed(file);
        // With checksums it is finished only when these are known.
        if !options.checksums {
            finished.save(self.staging, &self.prepared.shards.files[*at])?;
        }
        Ok(Some((*at, finished)))
    }

    /// The tensors of a file in which elements overflowed.
    fn overflowed(&self, file: &Arc<OutFile>) -> BTreeMap<String, u64> {
        let counts = self.opened.outputs.iter().filter(|output| Arc::ptr_eq(&output.file, file));
        let counts =
            counts.map(|output| (output.key.clone(), output.overflowed.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}
