//! Text to tree; only this module and its children see pest.
//!
//! Statements are read one at a time, so that a bad one is reported, skipped to its end, and the
//! rest still parses; blocks and groups are walked here rather than by pest, for the same reason.
//! Pest recurses only over brackets, whose depth is checked before. Whatever the text, nothing here
//! panics, and reading ends.

mod build;
mod expr;
mod lex;
mod pattern;
mod report;
#[cfg(test)]
mod tests;
pub(super) mod unfinished;
mod words;

use std::sync::Arc;

use pest::Parser as _;
use pest::iterators::Pair;
use pest_derive::Parser;

use self::build::Builder;
use self::lex::{Lexed, MAX_NESTING, RawComment, Token, TokenKind};
pub(super) use self::words::STATEMENTS;
use super::ast::{Comment, Group, Rule as MapRule, RuleFile, Statement, StatementKind, Trivia};
use crate::diagnostic::{Diagnostic, Place, SourceText, Span, codes};

/// Bytes of a rule file beyond which it is refused.
const MAX_TEXT: usize = 1 << 20;

/// Diagnostics of one text after which reading stops.
const MAX_DIAGNOSTICS: usize = 200;

#[derive(Parser)]
#[grammar = "../grammar/regraft.pest"]
struct Grammar;

/// The tree of a rule file, with what was wrong with its text: both, as a bad statement is skipped
/// and the rest still parses.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Parsed {
    /// The statements that could be read.
    pub file: RuleFile,
    /// What is wrong with the others, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// The text that the tree's spans point into.
    pub source: Arc<SourceText>,
}

/// Parses a rule file. A bad statement is reported and skipped; the rest still parses.
pub fn parse(source: Arc<SourceText>) -> Parsed {
    if source.text.len() > MAX_TEXT {
        let message =
            format!("a rule file of {} bytes; at most {MAX_TEXT} are read", source.text.len());
        let place = Place::new(source.clone(), Span::default());
        let diagnostics = vec![Diagnostic::error(codes::LIMIT, message).at(place, "")];
        return Parsed { file: RuleFile::default(), diagnostics, source };
    }
    let lexed = Lexed::new(&source.text);
    let mut reader = StatementParser {
        lexed: &lexed,
        source: &source,
        at: 0,
        comment: 0,
        leftover: false,
        diagnostics: Vec::new(),
    };
    let (statements, trailing_comments) = reader.block(None, 0);
    let mut diagnostics = reader.diagnostics;
    if diagnostics.len() >= MAX_DIAGNOSTICS {
        diagnostics.push(Diagnostic::error(
            codes::LIMIT,
            format!("{MAX_DIAGNOSTICS} mistakes; the rest of the file wasn't read"),
        ));
    }
    Parsed { file: RuleFile { statements, trailing_comments }, diagnostics, source }
}

/// Parses statement by statement, and keeps where it stands.
struct StatementParser<'s> {
    lexed: &'s Lexed<'s>,
    source: &'s Arc<SourceText>,
    /// The index of the next token.
    at: usize,
    /// The index of the next comment that belongs to nothing yet.
    comment: usize,
    /// Whether the last report said that a statement read before goes on in a way that can't be.
    leftover: bool,
    diagnostics: Vec<Diagnostic>,
}

/// What stopped early, and so may say what was expected next.
#[derive(Clone, Copy)]
struct Before {
    /// The first byte of the statement or rule before.
    start: usize,
    /// The grammar rule that reads it and then wants its end.
    lone: Rule,
}

impl<'s> StatementParser<'s> {
    /// Statements up to the `}` of a block that opened at a token, or to the end of the file; and
    /// the comments before that.
    fn block(&mut self, open: Option<Token>, depth: usize) -> (Vec<Statement>, Vec<Comment>) {
        let mut statements: Vec<Statement> = Vec::new();
        let mut before: Option<Before> = None;
        loop {
            let Some(token) = self.peek() else {
                if let Some(open) = open {
                    self.report(report::unclosed(self.place(open), "block"));
                }
                break;
            };
            if self.diagnostics.len() >= MAX_DIAGNOSTICS {
                self.at = self.lexed.tokens.len();
                break;
            }
            let word = self.lexed.word(self.at);
            if word == "}" {
                if open.is_some() {
                    break;
                }
                self.report(report::stray(self.place(token)));
                self.at += 1;
                before = None;
                continue;
            }
            let rule =
                if token.kind == TokenKind::Word { words::statement_rule(word) } else { None };
            let Some(rule) = rule else {
                self.not_a_statement(token, before);
                // What was read before it was only a part, unless a `;` is all that is wrong.
                if before.is_some() && self.leftover && word != ";" {
                    statements.pop();
                }
                self.skip(self.at, false);
                before = None;
                continue;
            };
            before = Some(Before { start: token.start, lone: Rule::lone_statement });
            let blank_before = self.blank_before(self.at);
            let leading = self.comments_until(token.start);
            if let Some(mut statement) = self.statement(rule, depth) {
                if matches!(statement.kind, StatementKind::When { .. }) {
                    before = None;
                }
                let mut trivia = self.trivia(
                    leading,
                    blank_before,
                    std::mem::take(&mut statement.trivia.leading),
                    statement.span,
                );
                if statements.is_empty() {
                    no_blank_first(&mut trivia);
                }
                statement.trivia = trivia;
                statements.push(statement);
            } else {
                before = None;
            }
        }
        let end = self.peek().map_or(self.lexed.text.len(), |token| token.start);
        let mut closing = self.comments_until(end);
        if let (true, Some(first)) = (statements.is_empty(), closing.first_mut()) {
            first.blank_before = false;
        }
        (statements, closing)
    }

    /// One statement; `self.at` is its keyword. Comments inside it are left in its trivia. Nothing
    /// if it is bad, and then it is skipped.
    fn statement(&mut self, rule: Rule, depth: usize) -> Option<Statement> {
        let start = self.at;
        match rule {
            Rule::when_head => self.when(depth),
            Rule::rename | Rule::map if self.lexed.word(start + 1) == "{" => self.group(rule),
            _ => {
                let limit = self.lexed.limit(start);
                let kind = self.read(rule, start, limit, |builder, pair| builder.statement(pair));
                let Some((kind, end)) = kind else {
                    self.skip(start, rule == Rule::tie);
                    return None;
                };
                let span = self.span(self.lexed.get(start)?.start, end);
                let trivia = Trivia { leading: self.comments_until(end), ..Trivia::default() };
                Some(Statement { trivia, kind, span })
            }
        }
    }

    /// `when … { … } else …`
    fn when(&mut self, depth: usize) -> Option<Statement> {
        let start = self.at;
        let first = self.lexed.get(start)?;
        if depth >= MAX_NESTING {
            self.report(report::too_deep(self.place(first)));
            self.skip(start, false);
            return None;
        }
        let head = self.read(Rule::when_head, start, self.lexed.limit(start), |builder, pair| {
            builder.first_expr(pair)
        });
        let Some((condition, _)) = head else {
            self.skip(start, false);
            return None;
        };
        let open = self.lexed.get(self.at.saturating_sub(1))?;
        let leading = self.comments_until(open.start);
        let (then, closing) = self.block(Some(open), depth + 1);
        let mut closing_comments = [closing, Vec::new()];
        let mut otherwise = Vec::new();
        if self.peek().is_some() {
            self.at += 1;
        }
        if self.lexed.word(self.at) == "else" {
            self.at += 1;
            match self.lexed.word(self.at) {
                "{" => {
                    let open = self.lexed.get(self.at)?;
                    self.at += 1;
                    (otherwise, closing_comments[1]) = self.block(Some(open), depth + 1);
                    if self.peek().is_some() {
                        self.at += 1;
                    }
                }
                "when" => {
                    let keyword = self.lexed.get(self.at)?;
                    let mut leading = self.comments_until(keyword.start);
                    if let Some(mut nested) = self.when(depth + 1) {
                        leading.append(&mut nested.trivia.leading);
                        nested.trivia.leading = leading;
                        no_blank_first(&mut nested.trivia);
                        otherwise.push(nested);
                    }
                }
                _ => {
                    let at = self.at.min(self.lexed.tokens.len().saturating_sub(1));
                    let place = self.place(self.lexed.get(at)?);
                    self.report(report::after_else(place, self.lexed.word(self.at)));
                    self.skip(self.at, false);
                }
            }
        }
        let end = self.lexed.get(self.at.saturating_sub(1)).map_or(first.end, |token| token.end);
        let kind = StatementKind::When { condition, then, otherwise, closing_comments };
        Some(Statement {
            trivia: Trivia { leading, ..Trivia::default() },
            kind,
            span: self.span(first.start, end),
        })
    }

    /// `rename { … }` or `map { … }`
    fn group(&mut self, keyword: Rule) -> Option<Statement> {
        let first = self.lexed.get(self.at)?;
        let open = self.lexed.get(self.at + 1)?;
        self.at += 2;
        let leading = self.comments_until(open.start);
        let rules = self.rules(open);
        let closing_token = self.peek();
        let mut closing_comments =
            self.comments_until(closing_token.map_or(self.lexed.text.len(), |token| token.start));
        if let (true, Some(comment)) = (rules.is_empty(), closing_comments.first_mut()) {
            comment.blank_before = false;
        }
        if self.lexed.word(self.at) == "}" {
            self.at += 1;
        }
        let end = self.lexed.get(self.at.saturating_sub(1)).map_or(open.end, |token| token.end);
        let group = Group { braces: true, rules, closing_comments };
        let kind = if keyword == Rule::map {
            StatementKind::Map(group)
        } else {
            StatementKind::Rename(group)
        };
        Some(Statement {
            trivia: Trivia { leading, ..Trivia::default() },
            kind,
            span: self.span(first.start, end),
        })
    }

    /// The rules of a group that opened at a token, up to its `}` or to where it should have
    /// stood.
    fn rules(&mut self, open: Token) -> Vec<MapRule> {
        let mut rules: Vec<MapRule> = Vec::new();
        let mut limit = 0;
        let mut before: Option<Before> = None;
        loop {
            let Some(token) = self.peek() else {
                self.report(report::unclosed(self.place(open), "group"));
                break;
            };
            if self.lexed.word(self.at) == "}" || self.diagnostics.len() >= MAX_DIAGNOSTICS {
                break;
            }
            if self.lexed.begins_statement(self.at, false) && !self.lexed.may_begin_rule(self.at) {
                self.report(report::unclosed(self.place(open), "group"));
                break;
            }
            // Up to the limit there is no further one, so it is looked for once for all rules of a
            // line.
            if token.start >= limit {
                limit = self.rule_limit(self.at);
            }
            if !self.lexed.may_begin_rule(self.at) {
                if self.not_a_rule(token, before.take(), limit) {
                    rules.pop();
                }
                continue;
            }
            before = Some(Before { start: token.start, lone: Rule::lone_rule });
            let at = self.at;
            let blank_before = self.blank_before(at);
            let leading = self.comments_until(token.start);
            match self.read(Rule::one_rule, at, limit, |builder, pair| builder.rule(pair)) {
                Some((mut rule, end)) => {
                    let inside = self.comments_until(end);
                    rule.trivia =
                        self.trivia(leading, blank_before, inside, self.span(token.start, end));
                    if rules.is_empty() {
                        no_blank_first(&mut rule.trivia);
                    }
                    rules.push(rule);
                }
                None => {
                    before = None;
                    self.at = self.lexed.index_at(limit).max(at + 1);
                }
            }
        }
        rules
    }

    /// Reports a token of a group that begins no rule, and moves behind what it spoils. Says
    /// whether the rule before it was only a part of one, and so is spoiled too.
    fn not_a_rule(&mut self, token: Token, before: Option<Before>, limit: usize) -> bool {
        let word = self.lexed.word(self.at);
        if matches!(word, "," | ";") && before.is_some() {
            self.report(report::separator(self.place(token)));
            self.at += 1;
            return false;
        }
        match before {
            Some(before) => self.report_leftover(before, limit, token),
            None => self.report(report::not_a_rule(self.place(token), word)),
        }
        self.at = self.lexed.index_at(limit).max(self.at + 1);
        before.is_some()
    }

    /// Reads a grammar rule that starts at a token and ends before `limit`, builds a node from it,
    /// and moves behind it.
    fn read<T>(
        &mut self,
        rule: Rule,
        start: usize,
        limit: usize,
        build: impl FnOnce(&mut Builder<'_, 's>, Pair<'_, Rule>) -> Option<T>,
    ) -> Option<(T, usize)> {
        let token = self.lexed.get(start)?;
        if let Some(deep) = self.lexed.too_deep(start, limit) {
            self.report(report::too_deep(self.place(deep)));
            return None;
        }
        let text = self.lexed.text.get(token.start..limit)?;
        let pair = match Grammar::parse(rule, text) {
            Ok(mut pairs) => pairs.next()?,
            Err(error) => {
                let found =
                    report::Mismatch::new(self.lexed, self.source, token.start, &error, limit);
                self.report(found.diagnostic());
                return None;
            }
        };
        let end = self.lexed.trimmed_end(token.start + pair.as_span().end());
        let reported = self.diagnostics.len();
        let mut builder = Builder {
            lexed: self.lexed,
            source: self.source,
            base: token.start,
            diagnostics: &mut self.diagnostics,
        };
        let built = build(&mut builder, pair);
        if built.is_none() && self.diagnostics.len() == reported {
            self.report(
                Diagnostic::error(codes::SYNTAX, "this can't be read").at(self.place(token), ""),
            );
        }
        let built = built?;
        self.at = self.lexed.index_at(end);
        Some((built, end))
    }

    /// Reports a token that begins no statement.
    fn not_a_statement(&mut self, token: Token, before: Option<Before>) {
        let word = self.lexed.word(self.at);
        self.leftover = false;
        match before {
            // On a line of its own a word is meant as a statement, unless it is close to what could
            // have come.
            Some(before)
                if !(token.kind == TokenKind::Word
                    && token.first_on_line
                    && self.meant_as_statement(word, before)) =>
            {
                let limit = self.lexed.limit(self.lexed.index_at(before.start)).max(token.end);
                self.report_leftover(before, limit, token);
                self.leftover = true;
            }
            _ => self.report(report::not_a_statement(self.place(token), word, token.kind)),
        }
    }

    /// Whether a word on a line of its own is more like a statement than like a clause of the one
    /// before.
    fn meant_as_statement(&self, word: &str, before: Before) -> bool {
        let keyword = self.lexed.word(self.lexed.index_at(before.start));
        match word {
            "if" => !matches!(keyword, "tie" | "strip") || self.lexed.has_block(self.at),
            _ => report::like_statement(word),
        }
    }

    /// Reports a token that can't follow what was read before it.
    fn report_leftover(&mut self, before: Before, limit: usize, token: Token) {
        if before.lone == Rule::lone_rule
            && matches!(self.lexed.word(self.at), "<->" | "->" | "=>")
            && let Some(comma) = (0..self.at).rev().find(|index| self.lexed.word(*index) == ",")
            && let Some(comma) = self.lexed.get(comma).filter(|comma| comma.start > before.start)
        {
            self.report(report::separator(self.place(comma)));
            return;
        }
        let text = self.lexed.text.get(before.start..limit).unwrap_or_default();
        let deep = self.lexed.too_deep(self.lexed.index_at(before.start), limit).is_some();
        let diagnostic = match if deep { None } else { Grammar::parse(before.lone, text).err() } {
            Some(error) => {
                report::Mismatch::new(self.lexed, self.source, before.start, &error, limit)
                    .diagnostic()
            }
            None => {
                report::not_a_statement(self.place(token), self.lexed.word(self.at), token.kind)
            }
        };
        self.report(diagnostic);
    }

    /// Moves behind a bad statement: to the next one, or to the `}` of the block around it.
    fn skip(&mut self, start: usize, in_tie: bool) {
        let lexed = self.lexed;
        let end = |balanced: bool| {
            let mut depth = 0usize;
            for index in start..lexed.tokens.len() {
                match lexed.word(index) {
                    "{" if balanced => depth += 1,
                    "}" if depth == 0 => return Some(index),
                    "}" => depth -= 1,
                    _ if depth == 0 && index > start && lexed.begins_statement(index, in_tie) => {
                        return Some(index);
                    }
                    _ => {}
                }
            }
            (depth == 0).then_some(lexed.tokens.len())
        };
        // A brace that never closes must not take the rest of the file with it.
        let end = end(true).or_else(|| end(false)).unwrap_or(lexed.tokens.len());
        self.at = end.max(start + usize::from(lexed.word(start) != "}")).min(lexed.tokens.len());
    }

    /// Where a rule of a group ends at the latest.
    fn rule_limit(&self, start: usize) -> usize {
        let stops = |index: &usize| {
            self.lexed.word(*index) == "}"
                || self.lexed.begins_rule(*index)
                || self.lexed.begins_statement(*index, false)
        };
        let next = (start + 1..self.lexed.tokens.len()).find(stops);
        next.and_then(|index| self.lexed.get(index))
            .map_or(self.lexed.text.len(), |token| token.start)
    }

    /// What stands around a statement or rule: comments inside it move before it, one at its end
    /// stays.
    fn trivia(
        &mut self,
        mut leading: Vec<Comment>,
        blank_before: bool,
        mut inside: Vec<Comment>,
        span: Span,
    ) -> Trivia {
        let mut blank_before = blank_before;
        if let Some(first) = inside.first_mut() {
            first.blank_before = std::mem::take(&mut blank_before);
        }
        for comment in inside.iter_mut().skip(1) {
            comment.blank_before = false;
        }
        leading.append(&mut inside);
        Trivia { leading, trailing: self.trailing(span.end as usize), blank_before }
    }

    /// The comment on the line where a statement ends, if nothing else stands between.
    fn trailing(&mut self, end: usize) -> Option<Comment> {
        let next = self.lexed.comments.get(self.comment).copied()?;
        let alone =
            next.same_line && next.start >= end && self.lexed.index_at(next.start) == self.at;
        if !alone {
            return None;
        }
        self.comment += 1;
        Some(Comment { blank_before: false, ..self.comment_text(next) })
    }

    /// The comments before an offset that belong to nothing yet.
    fn comments_until(&mut self, end: usize) -> Vec<Comment> {
        let mut comments = Vec::new();
        while let Some(next) =
            self.lexed.comments.get(self.comment).copied().filter(|comment| comment.start < end)
        {
            comments.push(self.comment_text(next));
            self.comment += 1;
        }
        comments
    }

    fn comment_text(&self, comment: RawComment) -> Comment {
        let text = self.lexed.text.get(comment.start..comment.end).unwrap_or_default();
        Comment { text: text.trim_end().to_owned(), blank_before: comment.blank_before }
    }

    fn blank_before(&self, index: usize) -> bool {
        self.lexed.blank_before.get(index).copied().unwrap_or_default()
    }

    fn peek(&self) -> Option<Token> {
        self.lexed.get(self.at)
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn span(&self, start: usize, end: usize) -> Span {
        span(start, end)
    }

    fn place(&self, token: Token) -> Place {
        Place::new(self.source.clone(), span(token.start, token.end))
    }
}

/// The first of a block has no empty line before it, whatever the text has.
fn no_blank_first(trivia: &mut Trivia) {
    match trivia.leading.first_mut() {
        Some(comment) => comment.blank_before = false,
        None => trivia.blank_before = false,
    }
}

/// Offsets fit, as a longer text is refused.
fn span(start: usize, end: usize) -> Span {
    let narrow = |offset| u32::try_from(offset).unwrap_or(u32::MAX);
    Span { start: narrow(start), end: narrow(end) }
}
