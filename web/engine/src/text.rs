//! Places in a text as a browser counts them: in units of UTF-16.

/// A text's offsets, both ways.
#[derive(Debug, Default)]
pub(crate) struct Units {
    /// For each byte of the text, and its end, how many units stand before; nothing for a text of
    /// ASCII alone.
    before: Vec<u32>,
    len: usize,
}

impl Units {
    pub(crate) fn of(text: &str) -> Self {
        let mut before = Vec::new();
        if !text.is_ascii() {
            let mut count = 0;
            for c in text.chars() {
                before.extend(std::iter::repeat_n(count, c.len_utf8()));
                count += if c.len_utf16() == 2 { 2 } else { 1 };
            }
            before.push(count);
        }
        Self { before, len: text.len() }
    }

    /// Units before a byte.
    pub(crate) fn unit(&self, byte: usize) -> usize {
        if self.before.is_empty() {
            return byte.min(self.len);
        }
        let last = self.before.last().copied().unwrap_or(0);
        self.before.get(byte).copied().unwrap_or(last) as usize
    }

    /// The byte at which so many units are over.
    pub(crate) fn byte(&self, unit: usize) -> usize {
        if self.before.is_empty() {
            return unit.min(self.len);
        }
        self.before.partition_point(|before| (*before as usize) < unit).min(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::Units;

    #[test]
    fn units_are_those_of_utf_16() {
        for text in ["", "plain", "a é 𝄞 b", "𝄞"] {
            let units = Units::of(text);
            for (byte, _) in text.char_indices().chain([(text.len(), ' ')]) {
                let unit = text[..byte].encode_utf16().count();
                assert_eq!((units.unit(byte), units.byte(unit)), (unit, byte));
            }
        }
    }
}
