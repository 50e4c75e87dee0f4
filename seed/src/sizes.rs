//! Sizes: of tensors and state dicts in bytes, as an index records them, and in words for a log
//! line.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use super::Compat;
use super::dtypes::TorchDtype;
use super::model::{Layout, PlainStateDict, Tensor, Value};
use super::reference::{Json, PyNumber, Raised, decode_utf8, parse};
use regraft::tensor::Header;

/// The largest index that is read, in bytes: that of a checkpoint of a million tensors has some 100
/// MB.
pub const MAX_INDEX_BYTES: u64 = 256 << 20;

/// The name of the index in a sharded checkpoint's directory.
pub const INDEX_NAME: &str = "model.safetensors.index.json";

/// Logical bytes of a tensor: its elements times the size of one, whatever it shares. `None` beyond
/// 64 bits.
pub fn estimate_tensor_bytes(shape: &[u64], dtype: TorchDtype) -> Option<u64> {
    // A dimension of 0 makes the product 0, whatever the others are.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(dtype.element_size(), |product, size| product.checked_mul(*size))
}

/// How many bytes a state dict takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateDictBytes {
    /// Each key's own, added up: what loading every key by itself takes.
    pub logical: u64,
    /// Each byte of a storage once: what the tensors occupy, and what a file that keeps ties apart
    /// need hold. From the first to the last element of a tensor counts, gaps of a strided view
    /// too.
    pub unique: u64,
}

/// Logical bytes of a state dict: of each tensor, added up, however many share a storage. `None` if
/// a value is no tensor, or beyond 64 bits.
pub fn estimate_state_dict_bytes(state_dict: &PlainStateDict) -> Option<u64> {
    state_dict_bytes(state_dict).map(|bytes| bytes.logical)
}

/// Logical and unique bytes of a state dict. `None` if a value is no tensor, or beyond 64 bits.
pub fn state_dict_bytes(state_dict: &PlainStateDict) -> Option<StateDictBytes> {
    let tensors = state_dict.values().map(Value::tensor).collect::<Option<Vec<_>>>()?;
    let mut logical: u64 = 0;
    // Storage -> ranges of bytes in it.
    let mut ranges: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for tensor in tensors {
        let bytes = estimate_tensor_bytes(&tensor.shape, tensor.dtype)?;
        logical = logical.checked_add(bytes)?;
        if bytes > 0 {
            ranges.entry(tensor.storage).or_default().push(extent(tensor)?);
        }
    }
    Some(StateDictBytes {
        logical,
        unique: ranges
            .into_values()
            .try_fold(0u64, |sum, ranges| sum.checked_add(covered(ranges)))?,
    })
}

/// Logical and unique bytes of a checkpoint, from its header. Tensors at the same place of a file
/// share it.
pub fn header_bytes(header: &Header) -> Option<StateDictBytes> {
    let mut logical: u64 = 0;
    let mut unique: u64 = 0;
    let mut ranges: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    for entry in header.tensors.values() {
        let bytes = entry.info.nbytes()?;
        logical = logical.checked_add(bytes)?;
        match entry.location {
            Some(place) => ranges
                .entry(place.file)
                .or_default()
                .push((place.offset, place.offset.checked_add(place.len)?)),
            None => unique = unique.checked_add(bytes)?,
        }
    }
    let unique =
        ranges.into_values().try_fold(unique, |sum, ranges| sum.checked_add(covered(ranges)))?;
    Some(StateDictBytes { logical, unique })
}

/// The range of bytes of its storage that a tensor with elements lies in.
fn extent(tensor: &Tensor) -> Option<(u64, u64)> {
    let size = tensor.dtype.element_size();
    if tensor.layout == Layout::Other {
        return Some((0, estimate_tensor_bytes(&tensor.shape, tensor.dtype)?));
    }
    let (mut first, mut last) = (i128::from(tensor.offset), i128::from(tensor.offset));
    for (len, stride) in tensor.shape.iter().zip(&tensor.strides) {
        let reach = i128::from(len.saturating_sub(1)).checked_mul(i128::from(*stride))?;
        if reach < 0 { first += reach } else { last += reach }
    }
    let start = u64::try_from(first).ok()?.checked_mul(size)?;
    let end = u64::try_from(last).ok()?.checked_add(1)?.checked_mul(size)?;
    Some((start, end))
}

/// How much ranges cover together.
fn covered(mut ranges: Vec<(u64, u64)>) -> u64 {
    ranges.sort_unstable();
    let mut end = 0;
    ranges.into_iter().fold(0u64, |sum, (start, stop)| {
        let added = stop.saturating_sub(start.max(end));
        end = end.max(stop);
        sum.saturating_add(added)
    })
}

/// A number of bytes in GiB with one decimal, ties to even: `"1.2 GiB"`.
pub fn format_bytes(num_bytes: u64) -> String {
    // A float near 2^64 differs from the integer by less than a decimal shows.
    format!("{:.1} GiB", num_bytes as f64 / f64::from(1u32 << 30))
}

/// A number of output files: `"1 output file"`, `"3 output files"`.
pub fn format_output_file_count(count: u64) -> String {
    format!("{count} output {}", if count == 1 { "file" } else { "files" })
}

/// `metadata.total_size` of a safetensors index, in bytes: of an index file, or of the one in a
/// directory.
///
/// `None` where there is no path, no such file, no JSON, or no such number.
///
/// # Errors
/// Only the reference's: an `AttributeError` where the index or its metadata is no object, a
/// `UnicodeDecodeError`, a `RecursionError`. It also takes booleans and integers of any size and
/// sign for a size; in strict mode only a non-negative integer of 64 bits is one.
pub fn get_safetensors_index_total_size(
    path: Option<&Path>,
    compat: Compat,
) -> Result<Option<PyNumber>, Raised> {
    let Some(path) = path else { return Ok(None) };
    match compat {
        Compat::Reference => read(path).map_or(Ok(None), |bytes| total_size(&bytes)),
        Compat::Strict => Ok(index_total_size(path).map(|size| PyNumber::Int(size.into()))),
    }
}

/// `metadata.total_size` of a safetensors index, in bytes: of an index file, or of the one in a
/// directory. `None` where there is none, or it is no non-negative integer of 64 bits.
pub fn index_total_size(path: &Path) -> Option<u64> {
    match total_size(&read(path)?) {
        Ok(Some(PyNumber::Int(size))) => u64::try_from(size).ok(),
        _ => None,
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let joined;
    let file = if path.is_dir() {
        joined = path.join(INDEX_NAME);
        joined.as_path()
    } else {
        path
    };
    let mut bytes = Vec::new();
    fs::File::open(file).ok()?.take(MAX_INDEX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_INDEX_BYTES).then_some(bytes)
}

fn total_size(bytes: &[u8]) -> Result<Option<PyNumber>, Raised> {
    let Some(index) = parse(decode_utf8(bytes)?)? else { return Ok(None) };
    let object = |value: &Json| match value {
        Json::Dict(_) => Ok(()),
        other => Err(Raised::new(
            "AttributeError",
            format!("'{}' object has no attribute 'get'", other.type_name()),
        )),
    };
    object(&index)?;
    let Some(metadata) = index.get("metadata") else { return Ok(None) };
    object(metadata)?;
    match metadata.get("total_size") {
        Some(Json::Int(number)) => Ok(Some(number.clone())),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensor_bytes() {
        assert_eq!(estimate_tensor_bytes(&[], TorchDtype::Complex128), Some(16));
        assert_eq!(estimate_tensor_bytes(&[u64::MAX, 0, u64::MAX], TorchDtype::Float32), Some(0));
        assert_eq!(estimate_tensor_bytes(&[1 << 62], TorchDtype::Float32), None);
    }

    fn dict(tensors: Vec<Tensor>) -> PlainStateDict {
        tensors
            .into_iter()
            .enumerate()
            .map(|(i, tensor)| (i.to_string(), Value::Tensor(tensor)))
            .collect()
    }

    fn tensor(shape: &[u64], storage: u64) -> Tensor {
        Tensor::contiguous(shape, TorchDtype::Float32, storage)
    }

    #[test]
    fn unique_bytes_count_a_storage_once() {
        let mut tail = tensor(&[4], 0);
        tail.offset = 6;
        let expanded = Tensor { strides: vec![0, 1], ..tensor(&[1000, 4], 1) };
        let column = Tensor { strides: vec![4], offset: 1, ..tensor(&[2], 2) };
        let all =
            dict(vec![tensor(&[8], 0), tensor(&[8], 0), tail, expanded, column, tensor(&[0], 0)]);
        // Storage 0: elements 0..10; 1: the 4 it has; 2: elements 1..6.
        let expected = StateDictBytes { logical: 32 + 32 + 16 + 16_000 + 8, unique: 40 + 16 + 20 };
        assert_eq!(state_dict_bytes(&all), Some(expected));
    }

    #[test]
    fn a_flipped_view_lies_before_its_offset() {
        let flipped = Tensor { strides: vec![-1], offset: 7, ..tensor(&[8], 0) };
        assert_eq!(state_dict_bytes(&dict(vec![flipped])).unwrap().unique, 32);
        let outside = Tensor { strides: vec![-1], offset: 6, ..tensor(&[8], 0) };
        assert_eq!(state_dict_bytes(&dict(vec![outside])), None);
    }

    #[test]
    fn what_is_no_tensor_has_no_size() {
        let mut some = dict(vec![tensor(&[8], 0)]);
        some.insert("extra".into(), Value::Other);
        assert_eq!(estimate_state_dict_bytes(&some), None);
    }

    #[test]
    fn words() {
        assert_eq!(format_bytes(u64::MAX), "17179869184.0 GiB");
        assert_eq!(format_bytes(1_342_177_280), "1.2 GiB", "1.25 goes to even");
        assert_eq!(format_output_file_count(1), "1 output file");
        assert_eq!(format_output_file_count(0), "0 output files");
    }
}
