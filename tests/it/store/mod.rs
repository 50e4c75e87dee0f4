//! Headers and stores, against the safetensors crate as oracle and against files as they go wrong
//! in the wild.

mod bad_header;
mod directory;
mod formats;
mod manifest;
mod named;
mod oracle;

use std::collections::BTreeMap;
use std::path::Path;

use regraft::error::Error;
use regraft::key::Key;
use regraft::store::safetensors_header;
use regraft::tensor::{Dtype, TensorInfo};

/// A file's bytes from a header's text (its length put before it) and the data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// A valid file with one U8 tensor of each key, filled with the given bytes.
fn bytes_of(tensors: &[(&str, &[u8])]) -> Vec<u8> {
    let entries: Vec<_> = tensors
        .iter()
        .map(|(key, data)| (Key::from(*key), TensorInfo::new(Dtype::U8, vec![data.len() as u64])))
        .collect();
    let (mut bytes, _) = safetensors_header(&entries, &BTreeMap::new()).unwrap();
    for (_, data) in tensors {
        bytes.extend_from_slice(data);
    }
    bytes
}

fn write(directory: &Path, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(directory.join(name), content).unwrap();
}

/// Writes an index, key -> file.
fn write_index(directory: &Path, name: &str, map: &[(&str, &str)]) {
    let map: serde_json::Map<_, _> =
        map.iter().map(|(key, file)| ((*key).to_owned(), (*file).into())).collect();
    write(directory, name, serde_json::json!({"metadata": {}, "weight_map": map}).to_string());
}

/// The error of something that must fail.
fn fails<T>(result: regraft::error::Result<T>) -> Error {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    }
}
