//! A coarse reading of the text into tokens and comments, which never fails.
//!
//! It finds what the grammar can't say: where a bad statement ends, which comment belongs to what,
//! how deep brackets nest before pest recurses over them. Strings and regexes end with their line,
//! so a lost quote costs one line.

use super::words::STATEMENTS;

/// Brackets in brackets, and blocks in blocks, beyond which a text is refused.
pub(super) const MAX_NESTING: usize = 64;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Letters, digits and underscores.
    Word,
    /// Starts with a digit.
    Number,
    /// `"…"`
    Text,
    /// `"…` up to the end of the line.
    Unclosed,
    /// `/…/` where a regex can stand.
    Regex,
    /// `(`, `[` or `{`.
    Open,
    /// `)`, `]` or `}`.
    Close,
    /// Anything else.
    Sign,
}

/// A token and its range of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    /// What it is.
    pub(super) kind: TokenKind,
    /// First byte.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
    /// Whether only blanks stand before it on its line.
    pub(super) first_on_line: bool,
}

/// A comment without the end of its line.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawComment {
    /// The `#`.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
    /// Whether an empty line stands before it.
    pub(super) blank_before: bool,
    /// Whether it stands on the line of the token before it.
    pub(super) same_line: bool,
}

/// Tokens and comments of a text, in order.
#[derive(Debug, Default)]
pub(super) struct Lexed<'s> {
    /// The text.
    pub(super) text: &'s str,
    /// Everything but blanks and comments.
    pub(super) tokens: Vec<Token>,
    /// For each token, whether an empty line stands before it (or before it and after a comment).
    pub(super) blank_before: Vec<bool>,
    /// The comments.
    pub(super) comments: Vec<RawComment>,
    /// Indices of tokens that are nested too deeply in `(` and `[`.
    too_deep: Vec<usize>,
    /// Indices of tokens that begin a line and are the keyword of a statement.
    starts: Vec<usize>,
}

impl<'s> Lexed<'s> {
    /// Reads a text.
    pub(super) fn new(text: &'s str) -> Self {
        let mut lexed = Lexed { text, ..Lexed::default() };
        let (mut at, mut newlines, mut first_on_line, mut depth) = (0, 0, true, 0usize);
        let mut any = false;
        while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
            match c {
                '\n' => {
                    newlines += 1;
                    first_on_line = true;
                    at += 1;
                    continue;
                }
                ' ' | '\t' | '\r' | '\u{FEFF}' => {
                    at += c.len_utf8();
                    continue;
                }
                '#' => {
                    let end = line_end(text, at);
                    lexed.comments.push(RawComment {
                        start: at,
                        end,
                        blank_before: any && newlines > 1,
                        same_line: !first_on_line && newlines == 0,
                    });
                    (at, newlines, any) = (end, 0, true);
                    continue;
                }
                _ => {}
            }
            let (kind, end) = lexed.token_at(at, c);
            match (kind, c) {
                (TokenKind::Open, '(' | '[') => depth += 1,
                (TokenKind::Close, ')' | ']') => depth = depth.saturating_sub(1),
                (TokenKind::Word, _) if first_on_line && resets_depth(&text[at..end]) => depth = 0,
                (TokenKind::Text, _) if depth + bracket_depth(&text[at..end]) > MAX_NESTING => {
                    lexed.too_deep.push(lexed.tokens.len())
                }
                _ => {}
            }
            if depth > MAX_NESTING {
                lexed.too_deep.push(lexed.tokens.len());
            }
            if first_on_line && kind == TokenKind::Word && STATEMENTS.contains(&&text[at..end]) {
                lexed.starts.push(lexed.tokens.len());
            }
            lexed.tokens.push(Token { kind, start: at, end, first_on_line });
            lexed.blank_before.push(any && newlines > 1);
            (at, newlines, first_on_line, any) = (end, 0, false, true);
        }
        lexed
    }

    /// The token that starts with `c` at `at`, and where it ends.
    fn token_at(&self, at: usize, c: char) -> (TokenKind, usize) {
        let text = self.text;
        let while_end = |keep: &dyn Fn(char) -> bool| {
            text[at..].find(|c| !keep(c)).map_or(text.len(), |length| at + length)
        };
        match c {
            '"' => match quote_end(text, at, '"') {
                Some(end) => (TokenKind::Text, end),
                None => (TokenKind::Unclosed, line_end(text, at)),
            },
            '(' | '[' | '{' => (TokenKind::Open, at + 1),
            ')' | ']' | '}' => (TokenKind::Close, at + 1),
            '/' => match quote_end(text, at, '/') {
                Some(end)
                    if end > at + 2
                        && (self.operand_may_start()
                            || regex_follow(&text[at..end], &text[end..])) =>
                {
                    (TokenKind::Regex, end)
                }
                _ => (TokenKind::Sign, at + 1),
            },
            _ if c.is_ascii_digit() => {
                (TokenKind::Number, while_end(&|c| c.is_alphanumeric() || c == '_'))
            }
            _ if c.is_alphabetic() || c == '_' => {
                (TokenKind::Word, while_end(&|c| c.is_alphanumeric() || c == '_'))
            }
            _ => {
                let signs = [
                    "<->", "<=>", "->", "=>", "<-", "==", "!=", "<=", ">=", "??", "..", "&&", "||",
                ];
                let length = signs
                    .iter()
                    .find(|sign| text[at..].starts_with(**sign))
                    .map_or(c.len_utf8(), |sign| sign.len());
                (TokenKind::Sign, at + length)
            }
        }
    }

    /// Whether the last token is one after which a side of a rule begins, so that no `/` can
    /// divide.
    fn operand_may_start(&self) -> bool {
        self.tokens.last().is_none_or(|token| match token.kind {
            TokenKind::Word => matches!(&self.text[token.start..token.end], "map" | "rename"),
            TokenKind::Open => self.text[token.start..].starts_with('{'),
            TokenKind::Sign => matches!(&self.text[token.start..token.end], "," | "->" | "<->"),
            _ => false,
        })
    }

    /// The text of a token; empty past the end.
    pub(super) fn word(&self, index: usize) -> &'s str {
        self.tokens.get(index).map_or("", |token| &self.text[token.start..token.end])
    }

    /// The token at an index.
    pub(super) fn get(&self, index: usize) -> Option<Token> {
        self.tokens.get(index).copied()
    }

    /// The first token that starts at or after an offset.
    pub(super) fn index_at(&self, offset: usize) -> usize {
        self.tokens.partition_point(|token| token.start < offset)
    }

    /// The end of a node that pest says ends at `end`: without the blanks and comments that pest
    /// may count in.
    pub(super) fn trimmed_end(&self, end: usize) -> usize {
        let last = self.index_at(end).checked_sub(1).and_then(|index| self.get(index));
        match last {
            Some(token) if token.end <= end => token.end,
            // Inside a string: blanks only.
            _ => self.text.get(..end).map_or(end, |text| text.trim_end().len()),
        }
    }

    /// Whether a token begins a line and a statement. After a `tie`, a `when` without a block is
    /// its clause.
    pub(super) fn begins_statement(&self, index: usize, in_tie: bool) -> bool {
        if self.starts.binary_search(&index).is_err() {
            return false;
        }
        !(in_tie && self.word(index) == "when") || self.has_block(index)
    }

    /// Whether a `{` follows before the next statement could begin.
    pub(super) fn has_block(&self, when: usize) -> bool {
        for index in when + 1..self.tokens.len() {
            match self.word(index) {
                "{" => return true,
                "}" | "if" => return false,
                _ if self.begins_statement(index, false) => return false,
                _ => {}
            }
        }
        false
    }

    /// Where a statement that starts at a token ends at the latest: where the next one begins.
    pub(super) fn limit(&self, start: usize) -> usize {
        let in_tie = matches!(self.word(start), "tie" | "untie");
        let later = self
            .starts
            .get(self.starts.partition_point(|index| *index <= start)..)
            .unwrap_or_default();
        let next = later.iter().find(|index| self.begins_statement(**index, in_tie));
        next.and_then(|index| self.get(*index)).map_or(self.text.len(), |token| token.start)
    }

    /// Whether a token can begin a rule of a group.
    pub(super) fn may_begin_rule(&self, index: usize) -> bool {
        match self.get(index).map(|token| token.kind) {
            Some(TokenKind::Text | TokenKind::Unclosed | TokenKind::Regex) => true,
            // `where (…)` is a clause.
            Some(TokenKind::Word) => {
                self.word(index + 1) == "("
                    && !matches!(
                        self.word(index),
                        "where" | "via" | "unless" | "optional" | "alone"
                    )
            }
            _ => false,
        }
    }

    /// Whether a rule of a group seems to begin here: on a new line, and what stands before doesn't
    /// ask for more.
    pub(super) fn begins_rule(&self, index: usize) -> bool {
        let (Some(token), Some(before)) =
            (self.get(index), index.checked_sub(1).and_then(|before| self.get(before)))
        else {
            return false;
        };
        let ended = match before.kind {
            TokenKind::Sign => self.word(index - 1) == ";",
            TokenKind::Open => self.word(index - 1) == "{",
            TokenKind::Word => !matches!(
                self.word(index - 1),
                "unless" | "target" | "via" | "where" | "and" | "or" | "not" | "over"
            ),
            _ => true,
        };
        token.first_on_line && ended && self.may_begin_rule(index)
    }

    /// The first token in a range of offsets that is nested too deeply for pest.
    pub(super) fn too_deep(&self, from: usize, end: usize) -> Option<Token> {
        let index = self.too_deep.get(self.too_deep.partition_point(|index| *index < from))?;
        self.get(*index).filter(|token| token.start < end)
    }
}

/// A `when` may be a clause within an expression's reach, so it doesn't count as a new start.
fn resets_depth(word: &str) -> bool {
    word != "when" && STATEMENTS.contains(&word)
}

/// The end of a line, without its line break.
fn line_end(text: &str, at: usize) -> usize {
    let end = text[at..].find('\n').map_or(text.len(), |length| at + length);
    at + text[at..end].trim_end_matches('\r').len()
}

/// One past the closing quote of a literal that opens at `at`; none if its line ends first.
fn quote_end(text: &str, at: usize, quote: char) -> Option<usize> {
    let mut chars = text[at..].char_indices().skip(1);
    while let Some((offset, c)) = chars.next() {
        match c {
            '\n' | '\r' => return None,
            '\\' => {
                if matches!(chars.next(), None | Some((_, '\n' | '\r'))) {
                    return None;
                }
            }
            _ if c == quote => return Some(at + offset + 1),
            _ => {}
        }
    }
    None
}

/// Whether what follows a second slash says that the two enclose a regex; the grammar's `divide`
/// asks the same. Where a quote is between them, the second may stand in a text, and a `#` too: then
/// no comment is passed over.
fn regex_follow(regex: &str, rest: &str) -> bool {
    let past = |rest| if regex.contains('"') { past_blanks(rest) } else { past_comments(rest) };
    let source_ends = |rest: &str| ["->", "<->", ","].iter().any(|sign| rest.starts_with(sign));
    let rest = past(rest);
    rest.starts_with('|')
        || source_ends(rest)
        || rest.strip_prefix("optional").is_some_and(|rest| source_ends(past(rest)))
}

/// Text from where the grammar's blanks end.
fn past_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r', '\n', '\u{FEFF}'])
}

/// Text from the next token on.
fn past_comments(mut rest: &str) -> &str {
    loop {
        rest = past_blanks(rest);
        match rest.strip_prefix('#') {
            Some(comment) => rest = comment.find('\n').map_or("", |end| &comment[end..]),
            None => return rest,
        }
    }
}

/// How deep the round and square brackets of a pattern nest at most.
fn bracket_depth(text: &str) -> usize {
    let (mut depth, mut most) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most
}
