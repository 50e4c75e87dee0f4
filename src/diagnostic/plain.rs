//! Text of others (keys, file names, metadata) that is shown to people: nothing in it may move the
//! cursor, forge a line, or turn the direction of reading.

use std::borrow::Cow;

/// Whether a character does something else than being read: controls, marks and overrides of
/// direction, separators of lines, what has no width.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn written_out(text: &str, harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Nearly every key.
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_plain || !text.contains(&harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Text of several lines, with what is harmful written out but for the ends of lines.
pub fn harmless(text: &str) -> Cow<'_, str> {
    written_out(text, |c| is_harmful(c) && c != '\n')
}

/// Text that stands in a line, as a key or a file's name: ends of lines are written out too.
pub fn one_line(text: &str) -> Cow<'_, str> {
    written_out(text, is_harmful)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_something_is_written_out_and_the_rest_stays() {
        assert_eq!(
            one_line("a\u{1b}[31m\nb\u{202e}c\u{2066}\u{feff}"),
            "a\\u{1b}[31m\\nb\\u{202e}c\\u{2066}\\u{feff}"
        );
        assert_eq!(harmless("a\nb\r"), "a\nb\\r");
        for text in ["model.layers.0", "größe", "שלום", "权重", "a b", "e\u{301}", "–…·"]
        {
            assert!(matches!(one_line(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
