//! Text that is being written: its tokens, which are there however broken it is, and what the
//! grammar would take next.

use std::sync::Arc;

use pest::Parser as _;

use super::lex::{self, Lexed};
use super::report::Mismatch;
use super::words::statement_rule;
use super::{Grammar, Rule, span};
use crate::diagnostic::{SourceText, Span};

/// A token of a rule file, or a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Where it is.
    pub span: Span,
    /// Whether only blanks stand before it on its line.
    pub first_on_line: bool,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenKind {
    /// `rename`, `heads`
    Word,
    /// `32`
    Number,
    /// `"a.{l}"`
    Text,
    /// `"a.{l` up to the end of its line.
    Unclosed,
    /// `/a\.(\d+)/`
    Regex,
    /// A bracket, an arrow, an operator.
    Sign,
    /// `# text`
    Comment,
}

/// The tokens and comments of a text, in order.
pub fn tokens(text: &str) -> Vec<Token> {
    let lexed = Lexed::new(text);
    let kind = |kind| match kind {
        lex::TokenKind::Word => TokenKind::Word,
        lex::TokenKind::Number => TokenKind::Number,
        lex::TokenKind::Text => TokenKind::Text,
        lex::TokenKind::Unclosed => TokenKind::Unclosed,
        lex::TokenKind::Regex => TokenKind::Regex,
        lex::TokenKind::Open | lex::TokenKind::Close | lex::TokenKind::Sign => TokenKind::Sign,
    };
    let read = lexed.tokens.iter().map(|token| Token {
        kind: kind(token.kind),
        span: span(token.start, token.end),
        first_on_line: token.first_on_line,
    });
    let comments = lexed.comments.iter().map(|comment| Token {
        kind: TokenKind::Comment,
        span: span(comment.start, comment.end),
        first_on_line: !comment.same_line,
    });
    let mut all: Vec<Token> = read.chain(comments).collect();
    all.sort_by_key(|token| token.span.start);
    all
}

/// What may follow a text whose last statement isn't finished, as messages call it: keywords and
/// signs between backticks, other things by name. Nothing where a new statement begins.
pub fn expected(text: &str) -> Vec<&'static str> {
    let lexed = Lexed::new(text);
    let starts = |index: &usize| lexed.begins_statement(*index, false);
    let Some(start) = (0..lexed.tokens.len()).rev().find(starts) else { return Vec::new() };
    let Some(mut rule) = statement_rule(lexed.word(start)) else { return Vec::new() };
    let mut from = start;
    if rule != Rule::when_head {
        rule = Rule::lone_statement;
    }
    if matches!(lexed.word(start), "rename" | "map") && lexed.word(start + 1) == "{" {
        let begins = |index: &usize| lexed.begins_rule(*index);
        match (start + 2..lexed.tokens.len()).rev().find(begins) {
            Some(index) => (from, rule) = (index, Rule::lone_rule),
            None => return Vec::new(),
        }
    }
    let Some(token) = lexed.get(from) else { return Vec::new() };
    if lexed.too_deep(from, text.len()).is_some() {
        return Vec::new();
    }
    let Some(rest) = text.get(token.start..) else { return Vec::new() };
    // A character that nothing takes: also where the text could end, there is more to expect.
    let Err(error) = Grammar::parse(rule, &format!("{rest}\u{1}")) else { return Vec::new() };
    let source = Arc::new(SourceText { name: String::new(), text: String::new() });
    Mismatch::new(&lexed, &source, token.start, &error, text.len()).expected_at_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_follow_is_what_the_grammar_says() {
        let after = |text: &str, word: &str| expected(text).contains(&word);
        assert!(after("rename \"a\" ", "`->`") || after("rename \"a\" ", "`<->` or `->`"));
        assert!(after("rename \"a\" -> \"b\"\n", "`where`"));
        assert!(after("rename {\n  \"a\" -> \"b\"\n", "`unless`"));
        assert!(after("strip ", "`anywhere`"));
        assert!(!after("drop \"a\" ", "`via`"));
        assert!(expected("").is_empty());
        assert!(expected("rename {\n").is_empty(), "a rule, which no keyword begins");
    }

    #[test]
    fn tokens_of_broken_text_are_there() {
        let kinds: Vec<TokenKind> =
            tokens("map \"a # b\n# c\n(32").iter().map(|token| token.kind).collect();
        use TokenKind::{Comment, Number, Sign, Unclosed, Word};
        assert_eq!(kinds, [Word, Unclosed, Comment, Sign, Number]);
    }
}
