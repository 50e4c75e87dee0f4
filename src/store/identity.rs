//! [`Identity`]: by what a store is known again, in a later run or another process.

use crate::error::{Error, Result};
use crate::seal::JsonHasher;

/// What a store is. A run that continues another one, or shares its work with others, goes by it:
/// shards of another source are never adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity(blake3::Hash);

impl Identity {
    /// From whatever tells the store from any other, as data.
    ///
    /// # Errors
    /// If it can't be written as JSON.
    pub fn of(facts: &impl serde::Serialize) -> Result<Self> {
        let mut hasher = JsonHasher::default();
        hasher.add(facts).map_err(|error| {
            Error::corrupt(format!("cannot write an identity as JSON: {error}"))
        })?;
        Ok(Self(hasher.finish()))
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}
