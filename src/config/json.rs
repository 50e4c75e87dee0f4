//! Where Python's JSON differs from JSON: the constants `NaN`, `Infinity` and `-Infinity`, which
//! `json.dump` writes for such floats.

use std::borrow::Cow;

/// The same text with each such constant outside strings as `null`.
///
/// The rest is left for the parser to judge: a constant inside a longer word stays an error, as
/// `nullx` is.
pub(crate) fn without_python_constants(text: &[u8]) -> Cow<'_, [u8]> {
    const CONSTANTS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let mut result: Option<Vec<u8>> = None;
    let (mut done, mut at, mut in_string) = (0, 0, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => at += 1,
            b'N' | b'I' | b'-' if !in_string => {
                let rest = text.get(at..).unwrap_or_default();
                if let Some(constant) = CONSTANTS.iter().find(|constant| rest.starts_with(constant))
                {
                    let result = result.get_or_insert_default();
                    result.extend_from_slice(text.get(done..at).unwrap_or_default());
                    result.extend_from_slice(b"null");
                    done = at + constant.len();
                    at = done;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    match result {
        None => Cow::Borrowed(text),
        Some(mut result) => {
            result.extend_from_slice(text.get(done..).unwrap_or_default());
            Cow::Owned(result)
        }
    }
}
