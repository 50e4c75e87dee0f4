//! Positions: how an editor counts, by line and by units of a character set, and offsets.

use regraft::diagnostic::Span;
use regraft::store::{quoted, unquoted};
use serde_json::{Value, json};

/// What the characters of a line are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Utf16,
}

impl Encoding {
    /// What the editor and we both can; every editor can count in UTF-16.
    pub(super) fn negotiated(params: &Value) -> Self {
        let offered = params["capabilities"]["general"]["positionEncodings"].as_array();
        let has_utf8 = offered.is_some_and(|offered| offered.iter().any(|one| one == "utf-8"));
        if has_utf8 { Encoding::Utf8 } else { Encoding::Utf16 }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Encoding::Utf8 => "utf-8",
            Encoding::Utf16 => "utf-16",
        }
    }

    fn length(self, text: &str) -> usize {
        match self {
            Encoding::Utf8 => text.len(),
            Encoding::Utf16 => text.encode_utf16().count(),
        }
    }
}

/// Where the lines of a text begin.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    starts: Vec<usize>,
    encoding: Encoding,
}

impl Lines {
    pub(super) fn of(text: &str, encoding: Encoding) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { starts: std::iter::once(0).chain(breaks).collect(), encoding }
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The number of the line that an offset is on, from 0.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    fn column(&self, text: &str, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.line(offset);
        let start = self.starts.get(line).copied().unwrap_or(0);
        (line, self.encoding.length(text.get(start..offset).unwrap_or_default()))
    }

    /// An offset as line and character.
    pub(super) fn position(&self, text: &str, offset: usize) -> Value {
        let (line, character) = self.column(text, offset);
        json!({ "line": line, "character": character })
    }

    /// Line, character, and length of a stretch that lies on one line.
    pub(super) fn stretch(&self, text: &str, span: Span) -> (usize, usize, usize) {
        let (line, character) = self.column(text, span.start as usize);
        (line, character, self.encoding.length(text.get(span.range()).unwrap_or_default()))
    }

    pub(super) fn range(&self, text: &str, span: Span) -> Value {
        json!({
            "start": self.position(text, span.start as usize),
            "end": self.position(text, span.end as usize),
        })
    }

    /// The offset of a position; the end of the line for a character beyond it.
    pub(super) fn offset(&self, text: &str, position: &Value) -> Option<usize> {
        let line = usize::try_from(position["line"].as_u64()?).ok()?;
        let mut left = usize::try_from(position["character"].as_u64()?).ok()?;
        let Some(start) = self.starts.get(line).copied() else { return Some(text.len()) };
        let end = self.starts.get(line + 1).map_or(text.len(), |next| next - 1);
        let whole = text.get(start..end)?.trim_end_matches('\r');
        for (at, c) in whole.char_indices() {
            let units = match self.encoding {
                Encoding::Utf8 => c.len_utf8(),
                Encoding::Utf16 => c.len_utf16(),
            };
            if left < units {
                return Some(start + at);
            }
            left -= units;
        }
        Some(start + whole.len())
    }
}

/// The path of a `file:` URI.
pub(super) fn path_of(uri: &str) -> Option<String> {
    let rest = uri.strip_prefix("file://")?;
    // A host may stand before the path; ours is the only one there can be.
    Some(unquoted(&rest[rest.find('/')?..]))
}

/// The `file:` URI of an absolute path, in which `.` is left out.
pub(super) fn uri_of(path: &str) -> String {
    format!("file://{}", quoted(&path.replace("/./", "/"), true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_as_was_agreed() {
        // `é` is two bytes and one unit, `𝄞` four and two.
        let text = "aé𝄞b\r\nc";
        for (encoding, columns) in [(Encoding::Utf8, [0, 1, 3, 7]), (Encoding::Utf16, [0, 1, 2, 4])]
        {
            let lines = Lines::of(text, encoding);
            for (offset, column) in [0, 1, 3, 7].into_iter().zip(columns) {
                let position = json!({ "line": 0, "character": column });
                assert_eq!(lines.position(text, offset), position, "{encoding:?}");
                assert_eq!(lines.offset(text, &position), Some(offset), "{encoding:?}");
            }
            assert_eq!(lines.offset(text, &json!({ "line": 0, "character": 99 })), Some(8));
            assert_eq!(lines.offset(text, &json!({ "line": 1, "character": 0 })), Some(10));
            assert_eq!(lines.offset(text, &json!({ "line": 7, "character": 0 })), Some(11));
            // Within a character: where it begins.
            assert_eq!(
                lines.offset(text, &json!({ "line": 0, "character": columns[2] + 1 })),
                Some(3)
            );
            assert_eq!(lines.stretch(text, Span { start: 3, end: 8 }).1, columns[2]);
        }
    }

    #[test]
    fn uris_and_paths_lead_to_each_other() {
        for path in ["/a/b.graft", "/with space/ü%.graft"] {
            assert_eq!(path_of(&uri_of(path)).as_deref(), Some(path));
        }
        assert_eq!(uri_of("/with space"), "file:///with%20space");
        assert_eq!(uri_of("/a/./b.graft"), "file:///a/b.graft");
        assert_eq!(path_of("untitled:1"), None);
        assert_eq!(path_of("file:///a%2").as_deref(), Some("/a%2"));
    }
}
