//! Completion: what may be written at an offset. What the grammar takes there says
//! [`syntax::expected`]; what the names are, the file, the library and the facts at hand.

use std::sync::Arc;

use super::keys::Next;
use super::{Document, Facts, docs, narrow};
use crate::diagnostic::{SourceText, Span};
use crate::library;
use crate::syntax::ast::{Segment, StatementKind};
use crate::syntax::op::{OPS, Parameter, ParameterKind, Presence, Row};
use crate::syntax::{self, Token, TokenKind, print_expr, statements};
use crate::tensor::Dtype;

/// Something that may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completion {
    /// What is written, and what it is chosen by.
    pub text: String,
    /// The same with places to fill in, as `${1:name}`, where there are any.
    pub snippet: Option<String>,
    /// What it is.
    pub kind: CompletionKind,
    /// A few words about it.
    pub detail: String,
    /// More, as Markdown.
    pub docs: Option<String>,
    /// What it replaces.
    pub span: Span,
}

/// What a completion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompletionKind {
    /// `rename`
    Statement,
    /// `via`, `where`
    Keyword,
    /// `stack`
    Op,
    /// `BF16`
    Dtype,
    /// A rule file.
    File,
    /// A capture.
    Capture,
    /// A `let`.
    Let,
    /// A field of config.json.
    Field,
    /// A segment of keys.
    Segment,
}

/// What begins each statement, to fill in.
const SNIPPETS: &[(&str, &str)] = &[
    ("ruleset", "ruleset ${1:name}: ${2:hub} <-> ${3:model}"),
    ("models", "models ${1:model_type}"),
    ("shards", "shards {${1:r}} in \"${2:consolidated}.{${1:r}}.pth\""),
    ("separator", "separator \"${1:/}\""),
    ("use", "use ${1:name}"),
    ("let", "let ${1:name} = ${2:config.field}"),
    ("strip", "strip ${1|anywhere,leading|} \"${2:wrapper}\""),
    ("prefix", "prefix \"${1:model}\""),
    ("rename", "rename \"${1:from.**}\" <-> \"${2:to.**}\""),
    ("map", "map \"${1:from}\" <-> \"${2:to}\" via ${3:op}"),
    ("drop", "drop \"${1:key}\""),
    ("keep", "keep \"${1:key}\""),
    ("cast", "cast \"${1:**}\" to ${2:BF16}"),
    ("tie", "tie \"${1:target}\" from \"${2:source}\" when ${3:tied}"),
    ("create", "create \"${1:key}\" = zeros([${2:4}], ${3:F32})"),
    ("expect", "expect \"${1:key}\""),
    ("example", "example \"${1:key}\" <-> \"${2:key}\""),
    ("when", "when ${1:condition} {\n  $0\n}"),
];

/// Where completion was asked for.
struct Asked<'d> {
    document: &'d Document,
    facts: &'d Facts,
    /// The text up to the word that is being written.
    head: &'d str,
    /// That word.
    span: Span,
    found: Vec<Completion>,
}

impl Document {
    /// What may be written at an offset.
    pub fn complete(&self, offset: usize, facts: &Facts) -> Vec<Completion> {
        let Some(before) = self.text().get(..offset) else { return Vec::new() };
        let at = self.tokens.partition_point(|token| (token.span.start as usize) < offset);
        if let Some(token) = at.checked_sub(1).and_then(|at| self.tokens.get(at)) {
            let inside = offset < token.span.end as usize;
            match token.kind {
                TokenKind::Comment if offset <= token.span.end as usize => return Vec::new(),
                TokenKind::Text if inside => return self.in_quotes(*token, offset, facts),
                TokenKind::Unclosed if offset <= token.span.end as usize => {
                    return self.in_quotes(*token, offset, facts);
                }
                TokenKind::Regex if inside => return Vec::new(),
                _ => {}
            }
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let start = before.trim_end_matches(is_part).len();
        let head = &before[..start];
        let span = Span { start: narrow(start), end: narrow(offset) };
        let mut asked = Asked { document: self, facts, head, span, found: Vec::new() };
        asked.complete();
        asked.found
    }

    /// Names of captures in the quotes of the statement around an offset, as they are written,
    /// whether it parses or not.
    fn captures_near(&self, offset: usize) -> Vec<String> {
        let begins = |token: &&Token| {
            token.first_on_line
                && token.kind == TokenKind::Word
                && statements().contains(&self.slice(token.span))
        };
        let from = self
            .tokens
            .iter()
            .filter(begins)
            .take_while(|token| (token.span.start as usize) <= offset)
            .last()
            .map_or(0, |token| token.span.start);
        let to = self
            .tokens
            .iter()
            .filter(begins)
            .map(|token| token.span.start)
            .find(|start| *start as usize > offset && *start > from)
            .unwrap_or(u32::MAX);
        let mut found = Vec::new();
        let quoted = self.tokens.iter().filter(|token| {
            matches!(token.kind, TokenKind::Text | TokenKind::Unclosed)
                && (from..to).contains(&token.span.start)
        });
        for token in quoted {
            for part in self.slice(token.span).split('{').skip(1) {
                let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                let name = &part[..end.unwrap_or(part.len())];
                if !name.is_empty() && !found.iter().any(|known| known == name) {
                    found.push(name.to_owned());
                }
            }
        }
        found
    }

    /// Completion in a text in quotes: segments of real keys, or captures in braces.
    fn in_quotes(&self, token: Token, offset: usize, facts: &Facts) -> Vec<Completion> {
        let from = token.span.start as usize + 1;
        let Some(body) = self.text().get(from..offset) else { return Vec::new() };
        let captures = self.captures_near(offset);
        if let Some(open) = body.rfind('{').filter(|open| !body[*open..].contains('}')) {
            let written = &body[open + 1..];
            if !written.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Vec::new();
            }
            let span = Span { start: narrow(from + open + 1), end: narrow(offset) };
            let own = |name: &&String| **name != *written;
            return captures
                .iter()
                .filter(own)
                .map(|name| plain(name, CompletionKind::Capture, "a capture of this rule", span))
                .collect();
        }
        self.segments(body, from, offset, &captures, facts)
    }

    fn segments(
        &self,
        body: &str,
        from: usize,
        offset: usize,
        captures: &[String],
        facts: &Facts,
    ) -> Vec<Completion> {
        let whole = body.rfind('.').map_or(0, |dot| dot + 1);
        let Some(pattern) = segments_of(body[..whole].trim_end_matches('.')) else {
            return Vec::new();
        };
        let mut shapes = facts.shapes.clone();
        for statement in &self.parsed.file.statements {
            if let StatementKind::Example { left, right, .. } = &statement.kind {
                left.iter().chain(right).for_each(|key| shapes.add(&key.text));
            }
        }
        if shapes.is_empty() {
            return Vec::new();
        }
        let span = Span { start: narrow(from + whole), end: narrow(offset) };
        let mut found = Vec::new();
        for (next, count) in shapes.after(&pattern) {
            match next {
                Next::Literal(segment) => {
                    let kinds = if count == 1 { "kind" } else { "kinds" };
                    let detail = format!("in {count} {kinds} of keys");
                    found.push(plain(&escaped(&segment), CompletionKind::Segment, &detail, span));
                }
                Next::Number => {
                    let detail = format!("a number, 0 to {}", shapes.largest);
                    let name = captures.first().map_or("l", String::as_str);
                    let text = format!("{{{name}}}");
                    found.push(plain(&text, CompletionKind::Segment, &detail, span));
                }
            }
        }
        found
    }
}

/// The segments of a pattern that is written so far.
fn segments_of(written: &str) -> Option<Vec<Segment>> {
    if written.is_empty() {
        return Some(Vec::new());
    }
    let text = format!("keep \"{written}\"");
    let parsed = syntax::parse(Arc::new(SourceText { name: String::new(), text }));
    match parsed.file.statements.into_iter().next()?.kind {
        StatementKind::Keep(selection) => {
            selection.patterns.into_iter().next().map(|pattern| pattern.segments)
        }
        _ => None,
    }
}

/// A segment as a pattern has it.
fn escaped(segment: &str) -> String {
    let mut text = String::new();
    for c in segment.chars() {
        if matches!(c, '{' | '}' | '"' | '\\' | '*') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn plain(text: &str, kind: CompletionKind, detail: &str, span: Span) -> Completion {
    let (text, detail) = (text.to_owned(), detail.to_owned());
    Completion { text, snippet: None, kind, detail, docs: None, span }
}

impl Asked<'_> {
    fn complete(&mut self) {
        if self.fields() {
            return;
        }
        if let Some(parameter) = self.parameter() {
            self.argument(parameter);
            return;
        }
        let line = self.head.rsplit('\n').next().unwrap_or_default();
        let expected = syntax::expected(self.head);
        if line.trim().is_empty() && !self.in_group() {
            self.statements();
        }
        let after = self.head.trim_end().rsplit(|c: char| !c.is_ascii_alphanumeric()).next();
        for what in expected {
            match what {
                "an op" => self.ops(),
                "a value" => self.values(),
                "the name of a rule file" => self.files(),
                "a name" if after == Some("to") => self.dtypes(),
                _ => {
                    let word = what.trim_matches('`');
                    let is_word =
                        |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c == ' ');
                    if what.starts_with('`') && (is_word(word) || matches!(word, "<->" | "->")) {
                        self.keyword(word);
                    }
                }
            }
        }
    }

    fn push(&mut self, text: &str, kind: CompletionKind, detail: &str) {
        if !self.found.iter().any(|one| one.text == text) {
            self.found.push(plain(text, kind, detail, self.span));
        }
    }

    fn keyword(&mut self, word: &str) {
        self.push(word, CompletionKind::Keyword, "");
        if let Some(last) = self.found.last_mut().filter(|last| last.text == word) {
            last.docs = docs::clause(word).or_else(|| docs::expression(word));
        }
    }

    fn statements(&mut self) {
        for word in statements() {
            let snippet = SNIPPETS.iter().find(|(known, _)| known == word);
            self.found.push(Completion {
                snippet: snippet.map(|(_, snippet)| (*snippet).to_owned()),
                docs: docs::statement(word),
                ..plain(word, CompletionKind::Statement, "statement", self.span)
            });
        }
    }

    fn ops(&mut self) {
        let mut last = "";
        for row in OPS {
            if row.name == last {
                continue;
            }
            last = row.name;
            self.found.push(Completion {
                snippet: snippet(row),
                docs: Some(docs::op(row)),
                ..plain(row.name, CompletionKind::Op, &row.form(), self.span)
            });
        }
    }

    fn dtypes(&mut self) {
        for dtype in Dtype::ALL {
            self.push(dtype.name(), CompletionKind::Dtype, "dtype");
        }
    }

    fn files(&mut self) {
        for name in library::names() {
            let layouts = library::head(name).and_then(|head| head.layouts);
            let detail = layouts.map(|(left, right)| format!("{left} <-> {right}"));
            self.push(name, CompletionKind::File, &detail.unwrap_or_default());
        }
    }

    /// What an expression may name.
    fn values(&mut self) {
        self.lets();
        self.captures();
        for word in ["config", "tied", "exists", "size", "count", "not", "null", "true", "false"] {
            self.keyword(word);
        }
    }

    fn lets(&mut self) {
        let Some(scope) = self.document.scope() else { return };
        for (name, (value, _)) in &scope.lets {
            let detail = value.as_ref().map_or("a parameter".to_owned(), print_expr);
            self.push(name, CompletionKind::Let, &detail);
        }
    }

    fn captures(&mut self) {
        for name in self.document.captures_near(self.span.start as usize) {
            self.push(&name, CompletionKind::Capture, "a capture of this rule");
        }
    }

    /// Fields after `config.`; whether it is there that one is asked for.
    fn fields(&mut self) -> bool {
        let Some(path) = self.head.strip_suffix('.') else { return false };
        let is_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '[' | ']');
        let path = &path[path.trim_end_matches(is_path).len()..];
        let Some(rest) = path.strip_prefix("config") else { return false };
        if !(rest.is_empty() || rest.starts_with(['.', '['])) {
            return false;
        }
        let steps: Vec<&str> =
            rest.split(['.', '[', ']']).filter(|step| !step.is_empty()).collect();
        let Some(fields) = self.facts.config().get(&steps).and_then(|value| value.as_object())
        else {
            return true;
        };
        for (name, value) in fields {
            let shown: String = value.to_string().chars().take(60).collect();
            self.push(name, CompletionKind::Field, &shown);
        }
        true
    }

    /// The parameter of an op whose argument is being written.
    fn parameter(&self) -> Option<&'static Parameter> {
        let tokens = &self.document.tokens;
        let end = tokens.partition_point(|token| token.span.start < self.span.start);
        let (mut depth, mut commas) = (0usize, 0usize);
        for at in (0..end).rev() {
            let token = tokens.get(at)?;
            match self.document.slice(token.span) {
                ")" | "]" => depth += 1,
                "(" | "[" if depth > 0 => depth -= 1,
                "(" => {
                    let name = tokens.get(at.checked_sub(1)?)?;
                    let name = self.document.slice(name.span);
                    let rows = OPS.iter().filter(|row| row.name == name);
                    let mut parameters = rows.flat_map(|row| {
                        row.parameters.get(commas.min(row.parameters.len().saturating_sub(1)))
                    });
                    return parameters.next();
                }
                "," if depth == 0 => commas += 1,
                "{" | "}" => return None,
                word if token.first_on_line && statements().contains(&word) => return None,
                _ => {}
            }
        }
        None
    }

    fn argument(&mut self, parameter: &Parameter) {
        match parameter.kind {
            ParameterKind::Capture => self.captures(),
            ParameterKind::Over => {
                self.keyword("over");
                self.captures();
            }
            ParameterKind::Dtype => self.dtypes(),
            _ => {
                self.values();
                self.keyword("over");
            }
        }
    }

    /// Whether the rules of a group are written here, between its braces.
    fn in_group(&self) -> bool {
        let tokens = &self.document.tokens;
        let end = tokens.partition_point(|token| token.span.start < self.span.start);
        let mut depth = 0usize;
        for at in (0..end).rev() {
            match tokens.get(at).map(|token| self.document.slice(token.span)) {
                Some("}") => depth += 1,
                Some("{") if depth > 0 => depth -= 1,
                Some("{") => {
                    let word = at.checked_sub(1).and_then(|at| tokens.get(at));
                    let word = word.map(|token| self.document.slice(token.span));
                    return matches!(word, Some("rename" | "map"));
                }
                _ => {}
            }
        }
        false
    }
}

/// An op with the arguments that it must have to fill in.
fn snippet(row: &Row) -> Option<String> {
    let must =
        |one: &&Parameter| matches!(one.presence, Presence::Required | Presence::Many(1.., _));
    let arguments: Vec<String> = row
        .parameters
        .iter()
        .filter(must)
        .enumerate()
        .map(|(at, one)| match one.kind {
            ParameterKind::Over => format!("over ${{{}:{}}}", at + 1, one.name),
            ParameterKind::Shape => format!("[${{{}:{}}}]", at + 1, one.name),
            _ => format!("${{{}:{}}}", at + 1, one.name),
        })
        .collect();
    (!arguments.is_empty()).then(|| format!("{}({})", row.name, arguments.join(", ")))
}
