//! Text in addresses, where most characters stand as `%` and two digits.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Text as it stands in an address: all but letters, digits, `-._~`, and `/` in a path, is quoted.
pub fn quoted(text: &str, is_path: bool) -> String {
    const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    const PATH: &AsciiSet = &NAME.remove(b'/');
    utf8_percent_encode(text, if is_path { PATH } else { NAME }).to_string()
}

/// Quoted text as it is meant; what is no quote stays, and so does all of it if what is meant isn't
/// UTF-8.
pub fn unquoted(text: &str) -> String {
    let meant = percent_decode_str(text).decode_utf8();
    meant.map_or_else(|_| text.to_owned(), |meant| meant.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_those_of_addresses() {
        assert_eq!(quoted("a b/ü+~", true), "a%20b/%C3%BC%2B~");
        assert_eq!(quoted("a/b=c", false), "a%2Fb%3Dc");
        assert_eq!(unquoted("a%20b%2fc%zz%"), "a b/c%zz%");
        assert_eq!(unquoted("%ff%20"), "%ff%20");
    }
}
