//! Runs that are the same in a source file and in an output: the system copies them, so that no
//! byte passes through this process.
//!
//! A file that is written is locked, and the system holds that lock while it reads, too. So where
//! two threads are at one file, they read and write instead: what one reads doesn't wait for what
//! the other writes.
//!
//! Neighbours are joined before they are cut into jobs: what a rename leaves in order is a few long
//! copies, however many tensors it is. A filesystem that shares blocks between files does so by
//! itself where a run begins at the same place within a block on both sides.

use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::stream::{CALL, OutFile};
use crate::error::{Error, Result};
use crate::execute::fuse::gather::outside;
use crate::store::Extent;

/// Most bytes of one job: long enough that the calls don't count, short enough that threads end
/// together.
pub(super) const CHUNK: u64 = 16 << 20;

/// Blocks that filesystems share are of this size, in bytes, or divide it.
pub(super) const BLOCK: u64 = 4096;

/// Bytes that go from a place in one file to a place in another.
pub(super) struct Run<'a> {
    pub(super) key: &'a str,
    pub(super) from: Extent<'a>,
    pub(super) to: &'a Arc<OutFile>,
    pub(super) at: u64,
}

/// What a job did, in bytes.
#[derive(Default)]
pub(super) struct Done {
    pub(super) copied: u64,
    pub(super) shared: u64,
}

impl<'a> Run<'a> {
    /// This run continued by the next one, if that lies behind it on both sides.
    fn joined(&self, next: &Run<'a>) -> Option<Run<'a>> {
        let same = std::ptr::eq(self.from.file, next.from.file) && Arc::ptr_eq(self.to, next.to);
        let follows = self.from.offset.checked_add(self.from.len) == Some(next.from.offset)
            && self.at + self.from.len == next.at;
        (same && follows).then(|| Run {
            from: Extent { len: self.from.len + next.from.len, ..self.from },
            ..*self
        })
    }

    /// How far into a block the run begins. Jobs are cut at whole blocks of the source.
    fn phase(&self) -> u64 {
        self.from.offset % BLOCK
    }

    pub(super) fn jobs(&self) -> u64 {
        self.from.len.saturating_add(self.phase()).div_ceil(CHUNK)
    }

    /// Copies the bytes of one job, sharing blocks where that can be. What is read and written is
    /// done by as many bytes as the buffer has.
    pub(super) fn copy(&self, job: u64, share: bool, buffer: &mut [u8]) -> Result<Done> {
        let visit = self.to.visit();
        let start = (job * CHUNK).saturating_sub(self.phase());
        let end = ((job + 1) * CHUNK).saturating_sub(self.phase()).min(self.from.len);
        let len = end.checked_sub(start).ok_or_else(outside)?;
        let (from, to) = (self.from.offset + start, self.at + start);
        let mut part = |skip: u64, len: u64, alone: bool| {
            let extent = Extent { offset: from + skip, len, ..self.from };
            let stretch = Stretch { from: extent, to: self.to, at: to + skip };
            let copied = if alone { stretch.copy(buffer) } else { stretch.through(buffer) };
            copied.map_err(|error| error.at_key(self.key))
        };
        if !share || from % BLOCK != to % BLOCK {
            part(0, len, visit.alone)?;
            return Ok(Done { copied: len, shared: 0 });
        }
        // Only whole blocks are shared; the system would copy all if it were asked for more.
        let head = ((BLOCK - from % BLOCK) % BLOCK).min(len);
        let whole = (len - head) / BLOCK * BLOCK;
        part(0, head, true)?;
        part(head, whole, true)?;
        part(head + whole, len - head - whole, true)?;
        Ok(Done { copied: len - whole, shared: whole })
    }
}

/// Joins runs that continue each other; they come in the order of the outputs.
pub(super) fn join(runs: Vec<Run<'_>>) -> Vec<Run<'_>> {
    let mut joined: Vec<Run<'_>> = Vec::with_capacity(runs.len());
    for run in runs {
        match joined.last_mut() {
            Some(last) => match last.joined(&run) {
                Some(both) => *last = both,
                None => joined.push(run),
            },
            None => joined.push(run),
        }
    }
    joined
}

/// Bytes that are still to be copied: some of a file, to a place in another.
struct Stretch<'a> {
    from: Extent<'a>,
    to: &'a OutFile,
    at: u64,
}

impl Stretch<'_> {
    /// Lets the system copy them, as far as it does.
    fn copy(mut self, buffer: &mut [u8]) -> Result<()> {
        while self.from.len > 0 {
            let want = usize::try_from(self.from.len).unwrap_or(usize::MAX);
            let (mut read, mut written) = (self.from.offset, self.at);
            match rustix::fs::copy_file_range(
                self.from.file,
                Some(&mut read),
                &self.to.file,
                Some(&mut written),
                want,
            ) {
                // Some filesystems answer so where reading would do.
                Ok(0) => return self.through(buffer),
                Ok(done) => self.advance(done as u64)?,
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                    return self.through(buffer);
                }
                Err(error) => {
                    let what = format!("cannot copy from {}", self.from.path.display());
                    return Err(Error::io(&what, &self.to.path, error.into()));
                }
            }
        }
        Ok(())
    }

    /// The same by reading and writing.
    fn through(mut self, buffer: &mut [u8]) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        while self.from.len > 0 {
            let most = buffer.len().clamp(1, CALL);
            let take = usize::try_from(self.from.len).unwrap_or(most).min(most);
            let piece = buffer.get_mut(..take).ok_or_else(outside)?;
            let from = self.from;
            from.file.read_exact_at(piece, from.offset).map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    Error::corrupt("the file became shorter while it was read").in_file(from.path)
                }
                _ => Error::io("cannot read", from.path, error),
            })?;
            self.to
                .file
                .write_all_at(piece, self.at)
                .map_err(|error| Error::io("cannot write", &self.to.path, error))?;
            self.advance(take as u64)?;
        }
        Ok(())
    }

    /// Goes on behind bytes that are done.
    fn advance(&mut self, done: u64) -> Result<()> {
        self.from.len = self.from.len.checked_sub(done).ok_or_else(outside)?;
        self.from.offset += done;
        self.at += done;
        Ok(())
    }
}

/// Whether a filesystem lets two files share blocks: asked by trying it, with files that have no
/// names.
pub(super) fn shares_blocks(directory: &Path) -> bool {
    use std::io::Write as _;
    let try_it = || -> std::io::Result<()> {
        let (mut a, b) = (tempfile::tempfile_in(directory)?, tempfile::tempfile_in(directory)?);
        a.write_all(&[0; 4096])?;
        rustix::fs::ioctl_ficlone(&b, &a)?;
        Ok(())
    };
    try_it().is_ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_run_is_the_same_bytes_alone_or_beside_another_thread() {
        use std::io::Write as _;
        let bytes: Vec<u8> = (0..(CHUNK + 12_345)).map(|at| (at * at / 7 % 251) as u8).collect();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&bytes).unwrap();
        let path = PathBuf::from("source");
        for beside in [false, true] {
            let written = tempfile::NamedTempFile::new().unwrap();
            let to = OutFile::new(written.reopen().unwrap(), PathBuf::new(), bytes.len() as u64);
            let len = bytes.len() as u64 - 100;
            let from = Extent { file: &source, path: &path, offset: 100, len };
            let run = Run { key: "key", from, to: &to, at: 3 };
            let other = beside.then(|| to.visit());
            let copied: u64 = (0..run.jobs())
                .map(|job| run.copy(job, false, &mut [0; 4099]).unwrap().copied)
                .sum();
            drop(other);
            assert_eq!(copied, len);
            let mut found = Vec::new();
            written.reopen().unwrap().read_to_end(&mut found).unwrap();
            assert!(found[3..] == bytes[100..], "beside another: {beside}");
        }
    }
}
