//! [`Config::read`]: a config from a file or a checkpoint's directory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Config, MAX_BYTES};
use crate::error::{Error, Result};

impl Config {
    /// Reads a config: a JSON file, or a directory that holds a `config.json`. No more of it is
    /// read than is accepted.
    ///
    /// # Errors
    /// If the file can't be read, and as [`from_json`](Config::from_json). The error names the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let joined;
        let path = if path.is_dir() {
            joined = path.join("config.json");
            joined.as_path()
        } else {
            path
        };
        let file = File::open(path).map_err(|e| Error::io("cannot open", path, e))?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io("cannot read", path, e))?;
        Self::from_json(&bytes).map_err(|error| error.in_file(path))
    }
}
