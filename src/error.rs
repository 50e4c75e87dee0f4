//! [`Error`]: the world failed. A file is missing, unreadable or corrupt, a disk is full.
//!
//! What is wrong with rules, or with how they fit a checkpoint, is a
//! [`Diagnostic`](crate::diagnostic::Diagnostic) instead.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::diagnostic::plain::one_line;

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused or failed an operation.
    Io,
    /// A file's content breaks the rules of its format.
    Corrupt,
    /// A size or count exceeds what regraft accepts.
    Limit,
    /// The output is there already.
    Exists,
    /// The input is of a kind that regraft does not read.
    Unsupported,
    /// The run was interrupted.
    Interrupted,
    /// A server doesn't let one in.
    Denied,
    /// A server has no such file, repository or revision.
    NotFound,
    /// A server has failed, or is asked too often.
    Unavailable,
}

/// A failure outside the rules: I/O or corrupt input, with the file and key it concerns.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    file: Option<PathBuf>,
    key: Option<String>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result whose error is an [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Makes an error of a kind. Its message is lower case, without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            file: None,
            key: None,
            hint: None,
            source: None,
        }))
    }

    /// Makes an error of the operating system's on a file; `doing` says what was tried, as in
    /// "cannot open".
    pub fn io(doing: &str, file: impl AsRef<Path>, source: std::io::Error) -> Self {
        let mut error = Self::new(ErrorKind::Io, doing.to_owned()).in_file(file);
        error.0.source = Some(Box::new(source));
        error
    }

    /// Makes an error about content that breaks the rules of its format.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// Names the file, unless one is named already: who is nearest to the file knows it best.
    #[must_use]
    pub fn in_file(mut self, file: impl AsRef<Path>) -> Self {
        self.0.file.get_or_insert_with(|| file.as_ref().to_owned());
        self
    }

    /// Names the key at which it failed.
    #[must_use]
    pub fn at_key(mut self, key: impl Into<String>) -> Self {
        self.0.key = Some(key.into());
        self
    }

    /// Names the key at which it failed, unless a key is named.
    #[must_use]
    pub(crate) fn or_at_key(self, key: &str) -> Self {
        if self.key().is_some() { self } else { self.at_key(key) }
    }

    /// Says it in other words; what the system said stays.
    #[must_use]
    pub(crate) fn saying(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Adds a hint: what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The kind of failure, for a program to decide by.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without file, key and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file that the failure is about, if it is about one.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The key that the failure is about, if it is about one.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// What the user can do about it: the hint that was given, or what is known of the system's
    /// error.
    pub fn advice(&self) -> Option<&str> {
        let by_hand = || {
            self.is_out_of_files().then_some("let the process open more files: `ulimit -n 1024`")
        };
        self.0.hint.as_deref().or_else(by_hand)
    }

    /// Whether the process has as many files open as it may.
    #[cfg(feature = "files")]
    fn is_out_of_files(&self) -> bool {
        let source = self.0.source.as_ref().and_then(|source| source.downcast_ref());
        source.and_then(std::io::Error::raw_os_error)
            == Some(rustix::io::Errno::MFILE.raw_os_error())
    }

    #[cfg(not(feature = "files"))]
    fn is_out_of_files(&self) -> bool {
        false
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.0.file {
            write!(f, "{}: ", one_line(&file.display().to_string()))?;
        }
        if let Some(key) = &self.0.key {
            write!(f, "key {key:?}: ")?;
        }
        f.write_str(&one_line(&self.0.message))?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
