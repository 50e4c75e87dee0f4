//! What `torch.save` writes: where a file's pickle lies, what it says, and which tensors that
//! means.
//!
//! * `archive`: the zip archive of PyTorch 1.6 and later, and where `data.pkl` lies in it
//! * `pickle`: the machine, which turns a pickle into [`Values`] and runs nothing of it
//! * `value`: these values, each by its number
//! * `tensor`: what PyTorch means by the few names that it writes: storages and tensors
//! * `dtype`: its dtypes
//!
//! A tensor's elements are never looked at here, and memory is bounded by the length of the pickle,
//! and that by [`MAX_PICKLE`].

mod archive;
mod dtype;
mod pickle;
mod tensor;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::io::{Read, Seek, SeekFrom};

use archive::Place;

pub use archive::{ArchiveError, MAX_PICKLE};
pub use dtype::TorchDtype;
pub use pickle::PickleError;
pub use tensor::{Meaning, Meanings, TorchStorage, TorchTensor, Unknown};
pub use value::{Call, Id, Value, Values};

/// What was read of a file that `torch.save` wrote.
#[derive(Debug)]
pub struct Saved {
    /// Every value that the pickle makes, in order; where the pickle breaks, those before.
    pub values: Values,
    /// The object that was saved, or where the pickle breaks.
    pub root: Result<Id, PickleError>,
}

/// Reads the pickle of a file: an archive's, or the stream of PyTorch before 1.6.
///
/// # Errors
/// If reading fails, or if the file is an archive without a pickle that can be read. A pickle that
/// breaks is none: [`Saved::root`] says so, beside what stands before.
pub fn read(mut file: impl Read + Seek) -> Result<Saved, TorchError> {
    let len = file.seek(SeekFrom::End(0))?;
    let (bytes, before) = match archive::find(&mut file, len)? {
        Place::Archive { start, len } => {
            file.seek(SeekFrom::Start(start))?;
            let len =
                usize::try_from(len).map_err(|_| TorchError::Archive(ArchiveError::LongPickle))?;
            let mut bytes = vec![0; len];
            file.read_exact(&mut bytes)?;
            (bytes, 0)
        }
        Place::Stream => {
            file.seek(SeekFrom::Start(0))?;
            let mut bytes = Vec::new();
            file.take(MAX_PICKLE).read_to_end(&mut bytes)?;
            (bytes, PICKLES_BEFORE)
        }
    };
    Ok(pickle::read(&bytes, before))
}

/// The pickles before the object in the stream: a magic number, a version, facts of the system.
const PICKLES_BEFORE: usize = 3;

/// Why nothing was read of a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum TorchError {
    /// The operating system failed to read it.
    Io(std::io::Error),
    /// It is an archive whose pickle can't be found or read.
    Archive(ArchiveError),
}

impl From<std::io::Error> for TorchError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ArchiveError> for TorchError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl fmt::Display for TorchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Archive(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TorchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Archive(error) => Some(error),
        }
    }
}
