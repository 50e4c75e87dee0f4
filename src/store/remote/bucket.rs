//! Object stores.

use super::address::BucketPath;
use super::http::Request;
use crate::error::{Error, ErrorKind, Result};

/// A file or folder of an object store.
pub(super) struct Bucket {
    path: BucketPath,
}

impl Bucket {
    pub(super) fn of(path: BucketPath) -> Result<Self> {
        Ok(Self { path })
    }
    pub(super) fn get(&self) -> Result<Request> {
        Err(Error::new(ErrorKind::Unsupported, "object stores"))
    }
    pub(super) fn name(&self) -> String {
        self.path.bucket.clone()
    }
    pub(super) fn list(&self) -> Result<Vec<String>> {
        Err(Error::new(ErrorKind::Unsupported, "object stores"))
    }
}
