//! Python's `repr` of a string, and the errors of its UTF-8 decoder.

use std::fmt::Write;

use super::Raised;

/// `repr(text)`, cut after a number of characters as `%.200R` does.
pub(super) fn repr(text: &str, limit: usize) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut result = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => result.push_str("\\\\"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            c if c == quote => result.extend(['\\', c]),
            // Unprintable characters beyond Latin-1 are left as they are: the errors that show them
            // are not worth a table.
            c if u32::from(c) < 0x100 && c.is_control() || c == '\u{a0}' || c == '\u{ad}' => {
                let _ = write!(result, "\\x{:02x}", u32::from(c));
            }
            c => result.push(c),
        }
    }
    result.push(quote);
    result.chars().take(limit).collect()
}

/// `bytes.decode("utf-8")`.
///
/// # Errors
/// A `UnicodeDecodeError` that names the first bad bytes.
pub(crate) fn decode_utf8(bytes: &[u8]) -> Result<&str, Raised> {
    std::str::from_utf8(bytes).map_err(|error| {
        let start = error.valid_up_to();
        let first = bytes.get(start).copied().unwrap_or_default();
        let (len, reason) = match error.error_len() {
            None => (bytes.len() - start, "unexpected end of data"),
            Some(len) if len > 1 || is_lead(first) => (len, "invalid continuation byte"),
            Some(len) => (len, "invalid start byte"),
        };
        let place = if len == 1 {
            format!("byte 0x{first:02x} in position {start}")
        } else {
            format!("bytes in position {start}-{}", start + len - 1)
        };
        Raised::new("UnicodeDecodeError", format!("'utf-8' codec can't decode {place}: {reason}"))
    })
}

/// Whether a byte may begin a sequence of several.
fn is_lead(byte: u8) -> bool {
    (0xC2..=0xF4).contains(&byte)
}
