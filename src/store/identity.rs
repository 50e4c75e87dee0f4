//! [`Identity`]: by what a store is known again, in a later run or another process.

use crate::error::{Error, Result};

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
        let mut hasher = blake3::Hasher::new();
        serde_json::to_writer(&mut hasher, facts).map_err(|error| {
            Error::corrupt(format!("cannot write an identity as JSON: {error}"))
        })?;
        Ok(Self(hasher.finalize()))
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}
