//! Semantic tokens: what each word is, also within quotes.

use super::Document;
use super::names::What;
use super::walk::Fragment;
use crate::diagnostic::Span;
use crate::syntax::op::OPS;
use crate::syntax::{Token, TokenKind, statements};
use crate::tensor::Dtype;

/// What a stretch of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TokenClass {
    /// `# text`
    Comment,
    /// `rename`, `via`
    Keyword,
    /// Text in quotes, without the captures in it.
    Text,
    /// `/…/`
    Regex,
    /// `32`
    Number,
    /// `stack`
    Op,
    /// A capture.
    Capture,
    /// A `let`.
    Let,
    /// `config.heads`
    Field,
    /// `BF16`
    Dtype,
    /// `<->`, `|`
    Sign,
}

/// All classes, in order.
pub fn classes() -> &'static [TokenClass] {
    use TokenClass::{Capture, Comment, Dtype, Field, Keyword, Let, Number, Op, Regex, Sign, Text};
    &[Comment, Keyword, Text, Regex, Number, Op, Capture, Let, Field, Dtype, Sign]
}

/// The words of the language besides those that begin a statement.
const WORDS: &[&str] = &[
    "in", "reversed", "under", "anywhere", "leading", "wanted", "to", "lossy", "from", "if",
    "present", "alias", "require", "absent", "skip", "fallback", "error", "count", "else", "via",
    "unless", "target", "where", "optional", "alone", "over", "or", "and", "not", "exists", "size",
    "config", "null", "true", "false", "tied",
];

/// The words that the language keeps for itself, besides those that begin a statement.
pub fn words() -> &'static [&'static str] {
    WORDS
}

impl Document {
    /// Each token that has a class, in order; none lies in another.
    pub fn classified(&self) -> Vec<(Span, TokenClass)> {
        let mut ops: Vec<u32> = Vec::new();
        self.parts(&mut |part| {
            if let Fragment::Op(op) = part {
                ops.push(op.name.span.start);
            }
        });
        ops.sort_unstable();
        let mut found = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            let class = match token.kind {
                TokenKind::Comment => TokenClass::Comment,
                TokenKind::Number => TokenClass::Number,
                TokenKind::Text | TokenKind::Unclosed => {
                    self.split(token.span, TokenClass::Text, &mut found);
                    continue;
                }
                TokenKind::Regex => {
                    self.split(token.span, TokenClass::Regex, &mut found);
                    continue;
                }
                TokenKind::Sign => match self.slice(token.span) {
                    "<->" | "->" | "|" | "??" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "+"
                    | "-" | "*" | "/" | "%" | "=" => TokenClass::Sign,
                    _ => continue,
                },
                TokenKind::Word => match self.class_of_word(at, token, &ops) {
                    Some(class) => class,
                    None => continue,
                },
            };
            found.push((token.span, class));
        }
        found
    }

    fn class_of_word(&self, at: usize, token: &Token, ops: &[u32]) -> Option<TokenClass> {
        let word = self.slice(token.span);
        let start = token.span.start;
        if ops.binary_search(&start).is_ok() {
            return Some(TokenClass::Op);
        }
        if let Some(named) = self.names.starting_at(start) {
            return match named.what {
                What::Capture(_) => Some(TokenClass::Capture),
                What::Let => Some(TokenClass::Let),
                What::File(_) => Some(TokenClass::Text),
            };
        }
        let before = at.checked_sub(1).and_then(|at| self.tokens.get(at));
        if before.is_some_and(|before| before.span.end == start && self.slice(before.span) == ".") {
            return Some(TokenClass::Field);
        }
        if token.first_on_line && statements().contains(&word) || WORDS.contains(&word) {
            return Some(TokenClass::Keyword);
        }
        // A statement after `else` is the only one that begins no line.
        if word == "when" {
            return Some(TokenClass::Keyword);
        }
        if word.parse::<Dtype>().is_ok() {
            return Some(TokenClass::Dtype);
        }
        OPS.iter().any(|row| row.name == word).then_some(TokenClass::Op)
    }

    /// Text without the names in it, and the names.
    fn split(&self, span: Span, class: TokenClass, found: &mut Vec<(Span, TokenClass)>) {
        let mut at = span.start;
        for named in self.names.within(span) {
            let inner = match named.what {
                What::Capture(_) => TokenClass::Capture,
                What::Let => TokenClass::Let,
                // A file in quotes is the whole text.
                What::File(_) => continue,
            };
            if named.span.start < at {
                continue;
            }
            if at < named.span.start {
                found.push((Span { start: at, end: named.span.start }, class));
            }
            found.push((named.span, inner));
            at = named.span.end;
        }
        if at < span.end {
            found.push((Span { start: at, end: span.end }, class));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_grammar() {
        let grammar = include_str!("../../grammar/regraft.pest");
        let mut keywords: Vec<&str> = grammar
            .lines()
            .filter_map(|line| line.strip_prefix("kw_"))
            .filter_map(|line| line.split('"').nth(1))
            .collect();
        let mut known: Vec<&str> = statements().iter().chain(WORDS).copied().collect();
        keywords.sort_unstable();
        known.sort_unstable();
        assert_eq!(known, keywords);
    }
}
