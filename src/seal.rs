//! What regraft writes for itself to read later: JSON objects with a checksum of all they say, so
//! that one flipped byte is noticed before anything is done by it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The field with the checksum: BLAKE3 of the object without it, written without blanks, in
/// hexadecimal.
const FIELD: &str = "blake3";

/// A reason why an object can't be trusted.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The checksum doesn't fit the rest: the object was changed since it was written.
    Damaged,
    /// The text is no such object; the parser's words say why.
    Foreign(String),
}

/// An object that was read, with what is known of its wholeness.
pub(crate) struct Unsealed<T> {
    pub(crate) content: T,
    /// Whether there was a checksum, which fits then. Objects of before checksums have none.
    pub(crate) is_sealed: bool,
}

fn sum(object: &Value) -> Result<String, serde_json::Error> {
    let mut hasher = JsonHasher::default();
    hasher.add(object)?;
    Ok(hasher.finish().to_hex().to_string())
}

/// Hashes values as they are in JSON, and bytes. What is written as JSON comes in pieces of a few
/// bytes, and is hashed many pieces at a time.
#[derive(Default)]
pub(crate) struct JsonHasher {
    hasher: blake3::Hasher,
    pieces: Vec<u8>,
}

/// So many bytes are hashed at once.
const HASHED: usize = 1 << 16;

impl JsonHasher {
    /// # Errors
    /// If the value can't be written as JSON.
    pub(crate) fn add(&mut self, value: &impl Serialize) -> Result<(), serde_json::Error> {
        serde_json::to_writer(self, value)
    }

    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) {
        if self.pieces.len() + bytes.len() > HASHED {
            self.hasher.update(&self.pieces);
            self.pieces.clear();
        }
        // What is long by itself, as a header is, isn't kept.
        if bytes.len() > HASHED {
            self.hasher.update(bytes);
        } else {
            self.pieces.extend_from_slice(bytes);
        }
    }

    pub(crate) fn finish(mut self) -> blake3::Hash {
        self.hasher.update(&self.pieces);
        self.hasher.finalize()
    }
}

impl std::io::Write for JsonHasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.add_bytes(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes an object with its checksum, as bytes; with line breaks if it is for people too.
///
/// # Errors
/// If it can't be written as a JSON object.
pub(crate) fn seal(content: &impl Serialize, pretty: bool) -> Result<Vec<u8>, serde_json::Error> {
    let mut object = serde_json::to_value(content)?;
    let sum = sum(&object)?;
    if let Value::Object(fields) = &mut object {
        fields.insert(FIELD.to_owned(), Value::String(sum));
    }
    if pretty { serde_json::to_vec_pretty(&object) } else { serde_json::to_vec(&object) }
}

/// Reads what [`seal`] wrote; also what never had a checksum.
///
/// # Errors
/// If the checksum doesn't fit, or it is something else.
pub(crate) fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Result<Unsealed<T>, Broken> {
    let foreign = |error: serde_json::Error| Broken::Foreign(error.to_string());
    let mut object: Value = serde_json::from_slice(bytes).map_err(foreign)?;
    // The order of the other fields is part of what is summed.
    let found = object.as_object_mut().and_then(|fields| fields.shift_remove(FIELD));
    if let Some(found) = &found
        && found.as_str() != Some(&sum(&object).map_err(foreign)?)
    {
        return Err(Broken::Damaged);
    }
    Ok(Unsealed {
        content: serde_json::from_value(object).map_err(foreign)?,
        is_sealed: found.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed_or_says_the_same() {
        let content = serde_json::json!({ "name": "a\"é\u{1}", "len": u64::MAX, "rows": [{ "k": "v" }], "no": null });
        for pretty in [false, true] {
            let sealed = seal(&content, pretty).unwrap();
            let read = unseal::<Value>(&sealed).unwrap();
            assert!(read.is_sealed && read.content == content);
            for at in 0..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[at / 8] ^= 1 << (at % 8);
                if let Ok(read) = unseal::<Value>(&flipped) {
                    // Blanks between tokens, letters of an escape: the same object. Or the
                    // checksum's own name: then there is none, and one more field.
                    assert!(
                        read.content == content || !read.is_sealed && read.content != content,
                        "bit {at}: {}",
                        read.content
                    );
                }
            }
        }
    }
}
