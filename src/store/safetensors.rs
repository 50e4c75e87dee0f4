//! One safetensors file: its header read, and checked by the format's own rules.
//!
//! The format is eight bytes of header length (little endian), a JSON header, and the data section,
//! which the tensors cover exactly: no hole, no overlap, nothing before or after. Source: the
//! format section of the safetensors README, and `SafeTensors::read_metadata` of its Rust crate
//! 0.8, which is the oracle of the tests. What is accepted here, that crate accepts with the same
//! meaning. It is stricter in what the README forbids and the crate lets pass: a key that is there
//! twice, and a header that doesn't begin with `{`; and it refuses an entry written as an array, a
//! dtype written as an object, more than 64 dimensions, keys beyond 64 KiB, and more than 10
//! million keys.
//!
//! Nothing is allocated before the header's length is known to fit the file and the limit.

use std::collections::BTreeMap;

use super::archive::Window;
use super::contents::Contents;
use super::json::{self, ByKey, MAX_KEY_LEN, MAX_RANK, METADATA, Row};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::tensor::TensorInfo;

/// The longest header, in bytes, that the format allows.
pub const MAX_HEADER_LEN: u64 = 100_000_000;
/// What the start of the data section is a multiple of in files that regraft writes, in bytes.
pub const DATA_ALIGNMENT: u64 = 8;
/// What is read of a file at first, in bytes: enough to tell what it is.
pub(super) const HEAD: u64 = 512;
/// Bytes of the header's length.
const LEN_BYTES: u64 = 8;

/// Reads and checks the header of a file, and no byte beyond it but for the first [`HEAD`].
pub(super) fn read_header(file: Window<'_>) -> Result<Contents> {
    let file_len = file.len();
    let len = header_len(&file.head(HEAD)?, file_len)?;
    let text = file.bytes(LEN_BYTES, len)?;
    let text = std::str::from_utf8(&text)
        .map_err(|source| Error::corrupt(format!("the header is not UTF-8: {source}")))?;
    let table = json::header(text)?;
    let data_start = LEN_BYTES + len;
    let mut tensors = table.rows;
    check_cover(&tensors, file_len - data_start)?;
    for (_, [begin, end]) in tensors.values_mut() {
        *begin += data_start;
        *end += data_start;
    }
    Ok(Contents { tensors, metadata: table.metadata, ..Contents::default() })
}

/// The header's length, from the first bytes of a file, once it is known to fit.
fn header_len(head: &[u8], file_len: u64) -> Result<u64> {
    let Some((len, rest)) = head.split_first_chunk::<8>() else {
        return Err(foreign(head).unwrap_or_else(|| {
            let message =
                format!("the file has {} bytes; a safetensors file has at least 8", head.len());
            Error::corrupt(message).hint("it may be an interrupted download")
        }));
    };
    let len = u64::from_le_bytes(*len);
    let is_object = rest.first() == Some(&b'{');
    if !(is_object && len <= MAX_HEADER_LEN)
        && let Some(error) = foreign(head)
    {
        return Err(error);
    }
    if len > MAX_HEADER_LEN {
        let message =
            format!("the header claims {len} bytes; the format's limit is {MAX_HEADER_LEN}");
        return Err(Error::new(ErrorKind::Limit, message).hint("is this a safetensors file?"));
    }
    if len > file_len.saturating_sub(LEN_BYTES) {
        let message = format!("the header claims {len} bytes, but the file has only {file_len}");
        return Err(Error::corrupt(message).hint("the file is truncated: fetch it again"));
    }
    if len == 0 {
        return Err(Error::corrupt("the header is empty"));
    }
    if !is_object {
        return Err(Error::corrupt("the header does not begin with `{`"));
    }
    Ok(len)
}

/// Shows that the tensors cover the data section exactly.
fn check_cover(tensors: &ByKey<Row>, data_len: u64) -> Result<()> {
    let mut order: Vec<_> = tensors.iter().map(|(key, (info, span))| (*span, key, info)).collect();
    order.sort_by_key(|(span, ..)| *span);
    let mut covered = 0;
    let mut before: Option<&Key> = None;
    for ([begin, end], key, info) in order {
        let error = |message: String| Error::corrupt(message).at_key(key.as_str());
        let Some(len) = end.checked_sub(begin) else {
            return Err(error(format!("data_offsets [{begin}, {end}] are reversed")));
        };
        let size = whole_bytes(info).map_err(|error| error.at_key(key.as_str()))?;
        if size != len {
            return Err(error(format!(
                "{info} takes {size} bytes, but data_offsets [{begin}, {end}] hold {len}"
            )));
        }
        if begin < covered {
            let other = before.map_or("another tensor", Key::as_str);
            return Err(error(format!("data_offsets [{begin}, {end}] overlap those of {other:?}")));
        }
        if begin > covered {
            return Err(error(format!(
                "{} bytes before data_offsets [{begin}, {end}] belong to no tensor",
                begin - covered
            )));
        }
        if end > data_len {
            let message = format!(
                "its data ends at byte {end} of the data section, which has only {data_len}"
            );
            return Err(error(message).hint("the file is truncated: fetch it again"));
        }
        covered = end;
        before = Some(key);
    }
    if covered < data_len {
        return Err(Error::corrupt(format!(
            "{} bytes after the last tensor belong to none",
            data_len - covered
        )));
    }
    Ok(())
}

/// A tensor's size in bytes, or why it has none.
pub(super) fn whole_bytes(info: &TensorInfo) -> Result<u64> {
    info.nbytes().ok_or_else(|| {
        match info.numel().and_then(|numel| numel.checked_mul(u64::from(info.dtype.bits()))) {
            None => Error::corrupt(format!("the size of {info}, in bits, exceeds 64 bits")),
            Some(bits) => Error::corrupt(format!(
                "{info} takes {bits} bits, which is no whole number of bytes"
            )),
        }
    })
}

/// The error for a file that begins like something else than safetensors or JSON.
pub(super) fn foreign(head: &[u8]) -> Option<Error> {
    const NAMED: &str =
        "regraft opens such files under their own names: .pt, .pth, .bin, .ckpt, .npz, .npy";
    const PICKLE: &str = "regraft reads what torch.save writes; load this where it was made, and save it with torch.save or safetensors";
    let unsupported = |what: &str, hint: &str| {
        Some(Error::new(ErrorKind::Unsupported, format!("this is {what}")).hint(hint))
    };
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    if head.starts_with(b"version https://git-lfs") {
        return Some(
            Error::corrupt("this is a git-lfs pointer, not the file itself")
                .hint("run `git lfs pull` where it was cloned"),
        );
    }
    if text.first() == Some(&b'<') {
        return Some(
            Error::corrupt("this is an HTML or XML page, not a checkpoint")
                .hint("the download answered with a page: log in and fetch it again"),
        );
    }
    if head.starts_with(b"PK\x03\x04") {
        return unsupported("a zip archive, as torch.save and NumPy write", NAMED);
    }
    if head.starts_with(b"PK\x05\x06") {
        return unsupported("an empty zip archive", "regraft reads safetensors");
    }
    if head.starts_with(b"\x93NUMPY") {
        return unsupported("a NumPy array (.npy)", NAMED);
    }
    if matches!(head, [0x80, 2..=5, ..]) {
        return unsupported("a Python pickle", PICKLE);
    }
    if head.starts_with(b"GGUF") {
        return unsupported("a GGUF file", "regraft reads safetensors");
    }
    if head.starts_with(b"\x89HDF\r\n") {
        return unsupported("an HDF5 file", "regraft reads safetensors");
    }
    if head.starts_with(b"\x1f\x8b") || head.starts_with(b"\x28\xb5\x2f\xfd") {
        return unsupported("a compressed file", "decompress it first");
    }
    if head.is_empty() {
        return Some(Error::corrupt("the file is empty").hint("it may be an interrupted download"));
    }
    None
}

/// The header of a file to be written: its length, JSON and padding, so that the data section
/// starts at a multiple of [`DATA_ALIGNMENT`]; and for each entry where its data starts, in bytes
/// from the start of the data section.
///
/// Equal input gives equal bytes: `__metadata__` first (if there is any), then the entries in the
/// order given, without gaps.
///
/// # Errors
/// What the format can't hold: a key that comes twice or is called `__metadata__`, a tensor that is
/// no whole number of bytes, more than 64 bits of data, a header beyond the limit.
pub fn safetensors_header(
    entries: &[(Key, TensorInfo)],
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<u8>, Vec<u64>)> {
    let mut text = String::from("{");
    if !metadata.is_empty() {
        text.push_str(&format!("\"{METADATA}\":{}", quote(metadata)?));
    }
    let mut seen = std::collections::HashSet::with_capacity(entries.len());
    let mut offsets = Vec::with_capacity(entries.len());
    let mut end = 0u64;
    for (key, info) in entries {
        let refuse = |message: &str| Err(Error::corrupt(message).at_key(key.as_str()));
        if key.as_str() == METADATA {
            return refuse("a safetensors file can't hold a tensor of this name");
        }
        if key.len() > MAX_KEY_LEN {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("a key of {} bytes; the limit is {MAX_KEY_LEN}", key.len()),
            ));
        }
        if info.shape.len() > MAX_RANK {
            return refuse(&format!("more than {MAX_RANK} dimensions"));
        }
        if !seen.insert(key) {
            return refuse("the key is to be written twice");
        }
        let begin = end;
        let size = whole_bytes(info).map_err(|error| error.at_key(key.as_str()))?;
        let Some(sum) = begin.checked_add(size) else {
            return refuse("the file would exceed 64 bits");
        };
        end = sum;
        let comma = if text.len() > 1 { "," } else { "" };
        let (name, shape) = (quote(key)?, quote(&info.shape)?);
        text.push_str(&format!(
            "{comma}{name}:{{\"dtype\":\"{}\",\"shape\":{shape},\"data_offsets\":[{begin},{end}]}}",
            info.dtype
        ));
        offsets.push(begin);
    }
    text.push('}');

    let unpadded = LEN_BYTES + text.len() as u64;
    let len = unpadded.next_multiple_of(DATA_ALIGNMENT) - LEN_BYTES;
    if len > MAX_HEADER_LEN {
        let message =
            format!("the header takes {len} bytes; the format's limit is {MAX_HEADER_LEN}");
        return Err(Error::new(ErrorKind::Limit, message).hint("write several files"));
    }
    if end.checked_add(LEN_BYTES + len).is_none() {
        return Err(Error::new(ErrorKind::Limit, "the file would exceed 64 bits"));
    }
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    let padding = usize::try_from(len).unwrap_or(0).saturating_sub(text.len());
    bytes.resize(bytes.len() + padding, b' ');
    Ok((bytes, offsets))
}

/// The JSON of a header whose tensors lie where they are told to, `begin..end` in bytes from the
/// start of the data section; without length and padding.
///
/// # Errors
/// As [`safetensors_header`].
pub(crate) fn placed_header(
    rows: &[(Key, TensorInfo, [u64; 2])],
    metadata: &BTreeMap<String, String>,
) -> Result<String> {
    let mut text = String::from("{");
    if !metadata.is_empty() {
        text.push_str(&format!("\"{METADATA}\":{}", quote(metadata)?));
    }
    let mut seen = std::collections::HashSet::with_capacity(rows.len());
    for (key, info, [begin, end]) in rows {
        if key.as_str() == METADATA
            || key.len() > MAX_KEY_LEN
            || info.shape.len() > MAX_RANK
            || !seen.insert(key)
        {
            return Err(Error::corrupt("a safetensors file can't hold this key and shape")
                .at_key(key.as_str()));
        }
        let comma = if text.len() > 1 { "," } else { "" };
        let (name, shape) = (quote(key)?, quote(&info.shape)?);
        text.push_str(&format!(
            "{comma}{name}:{{\"dtype\":\"{}\",\"shape\":{shape},\"data_offsets\":[{begin},{end}]}}",
            info.dtype
        ));
    }
    text.push('}');
    Ok(text)
}

fn quote(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|source| Error::corrupt(format!("cannot write JSON: {source}")))
}
