//! The shape of a file: its statements as symbols, and what can be folded.

use super::Document;
use super::walk;
use crate::diagnostic::Span;
use crate::syntax::ast::{Statement, StatementKind};
use crate::syntax::{TokenKind, print_rule, print_statement_line};

/// A statement or a rule, as an outline shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Symbol {
    /// It in one line, shortened.
    pub name: String,
    /// What it is.
    pub kind: SymbolKind,
    /// All of it.
    pub span: Span,
    /// What is in it.
    pub children: Vec<Symbol>,
}

/// What a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SymbolKind {
    /// `ruleset`
    File,
    /// `use`
    Use,
    /// `let`
    Let,
    /// `when`, `rename { … }`
    Block,
    /// A rule, or a statement about keys.
    Rule,
    /// `example`
    Example,
}

/// Several lines that can be shown as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fold {
    /// What goes, but for its first line.
    pub span: Span,
    /// Whether these are comments.
    pub comment: bool,
}

/// Characters of a symbol's name.
const NAME: usize = 80;

impl Document {
    /// The statements of the file.
    pub fn outline(&self) -> Vec<Symbol> {
        symbols(&self.parsed.file.statements)
    }

    /// What can be folded.
    pub fn folds(&self) -> Vec<Fold> {
        let mut folds = Vec::new();
        let is_long = |span: Span| self.slice(span).contains('\n');
        walk::statements(&self.parsed.file.statements, &mut |statement| {
            if is_long(statement.span) {
                folds.push(Fold { span: statement.span, comment: false });
            }
            let rules = walk::rules(&statement.kind).iter().map(|rule| rule.span);
            let inner =
                rules.filter(|span| is_long(*span) && span.range() != statement.span.range());
            let braces = matches!(&statement.kind,
                StatementKind::Rename(group) | StatementKind::Map(group) if group.braces);
            folds.extend(inner.filter(|_| braces).map(|span| Fold { span, comment: false }));
        });
        folds.extend(self.comments());
        folds.sort_by_key(|fold| fold.span.start);
        folds
    }

    /// Comments on lines that follow each other.
    fn comments(&self) -> Vec<Fold> {
        let mut folds: Vec<Fold> = Vec::new();
        let alone = self
            .tokens
            .iter()
            .filter(|token| token.kind == TokenKind::Comment && token.first_on_line);
        let mut last: Option<Span> = None;
        for token in alone {
            let follows = last.is_some_and(|last| {
                let between = Span { start: last.end, end: token.span.start };
                let between = self.slice(between);
                between.trim().is_empty() && between.matches('\n').count() == 1
            });
            last = Some(token.span);
            match folds.last_mut() {
                Some(fold) if follows => fold.span.end = token.span.end,
                _ => folds.push(Fold { span: token.span, comment: true }),
            }
        }
        folds.retain(|fold| self.slice(fold.span).contains('\n'));
        folds
    }
}

fn symbols(statements: &[Statement]) -> Vec<Symbol> {
    statements.iter().map(symbol).collect()
}

fn symbol(statement: &Statement) -> Symbol {
    let (kind, children) = match &statement.kind {
        StatementKind::Ruleset { .. } => (SymbolKind::File, Vec::new()),
        StatementKind::Use { .. } => (SymbolKind::Use, Vec::new()),
        StatementKind::Let { .. } => (SymbolKind::Let, Vec::new()),
        StatementKind::Example { .. } => (SymbolKind::Example, Vec::new()),
        StatementKind::When { then, otherwise, .. } => {
            let children = then.iter().chain(otherwise).map(symbol).collect();
            (SymbolKind::Block, children)
        }
        StatementKind::Rename(group) | StatementKind::Map(group) if group.braces => {
            let rule = |rule: &crate::syntax::ast::Rule| Symbol {
                name: short(&print_rule(rule)),
                kind: SymbolKind::Rule,
                span: rule.span,
                children: Vec::new(),
            };
            (SymbolKind::Block, group.rules.iter().map(rule).collect())
        }
        _ => (SymbolKind::Rule, Vec::new()),
    };
    let name = match &statement.kind {
        StatementKind::Rename(group) if group.braces => "rename".to_owned(),
        StatementKind::Map(group) if group.braces => "map".to_owned(),
        kind => short(&print_statement_line(kind)),
    };
    Symbol { name, kind, span: statement.span, children }
}

fn short(text: &str) -> String {
    if text.chars().count() <= NAME {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(NAME - 1).collect();
    short.push('…');
    short
}
