//! Names: where captures, `let`s and rule files are named, where they are bound, and what a new
//! name changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::walk::{self, Fragment};
use super::{Document, narrow, touches};
use crate::check::Includes;
use crate::diagnostic::{SourceText, Span};
use crate::syntax::Parsed;
use crate::syntax::ast::{
    Arg, Atom, CaptureKind, Expr, ExprKind, Pattern, Rule, Segment, SideItem, Statement,
    StatementKind, StringLit,
};

/// All names of a file.
#[derive(Debug, Default)]
pub(super) struct Names {
    uses: Vec<Named>,
}

/// A place where something is named.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) span: Span,
    pub(super) name: String,
    pub(super) what: What,
    /// Whether the name is given here, and not only used.
    pub(super) gives: bool,
}

/// What a name is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A capture, within what begins at this offset: captures of two rules have nothing in common.
    Capture(u32),
    /// A `let` of the file.
    Let,
    /// A rule file, whether in quotes.
    File(bool),
}

/// Where a name leads.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Definition {
    /// To these bytes of the same text.
    Here(Span),
    /// To another rule file, by the name under which it was loaded.
    File(Arc<SourceText>),
}

/// Why a name can't be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoRename {
    /// No name stands there that could be changed.
    NoName,
    /// The new name is none: letters, digits and underscores, and no digit first.
    NotAName,
    /// Something else is called so already.
    Taken,
}

impl std::fmt::Display for NoRename {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NoRename::NoName => "only captures and `let`s can be renamed",
            NoRename::NotAName => {
                "a name is made of letters, digits and underscores, begins with no digit, and is no word of the language"
            }
            NoRename::Taken => "something here has this name already",
        })
    }
}

impl std::error::Error for NoRename {}

/// Words that an expression reads otherwise.
const RESERVED: &[&str] = &[
    "or", "and", "not", "in", "null", "true", "false", "tied", "config", "exists", "size", "count",
    "over", "optional", "where", "unless", "via", "alone",
];

/// The names of one rule or statement while they are collected.
struct Scope<'n> {
    start: u32,
    lets: &'n BTreeSet<&'n str>,
    captures: BTreeSet<String>,
    uses: &'n mut Vec<Named>,
}

impl Names {
    pub(super) fn of(parsed: &Parsed) -> Self {
        let mut uses = Vec::new();
        let lets: BTreeSet<&str> = parsed
            .file
            .statements
            .iter()
            .filter_map(|statement| match &statement.kind {
                StatementKind::Let { name, .. } => Some(name.text.as_str()),
                _ => None,
            })
            .collect();
        walk::statements(&parsed.file.statements, &mut |statement| {
            of_statement(statement, &lets, &parsed.source.text, &mut uses);
        });
        uses.sort_by_key(|named| named.span.start);
        Self { uses }
    }

    pub(super) fn at(&self, offset: usize) -> Option<&Named> {
        self.uses.iter().find(|named| touches(named.span, offset))
    }

    /// The name that begins at an offset.
    pub(super) fn starting_at(&self, start: u32) -> Option<&Named> {
        let at = self.uses.binary_search_by_key(&start, |named| named.span.start).ok()?;
        self.uses.get(at)
    }

    /// The names in a stretch of text.
    pub(super) fn within(&self, span: Span) -> impl Iterator<Item = &Named> {
        let from = self.uses.partition_point(|named| named.span.start < span.start);
        self.uses.iter().skip(from).take_while(move |named| named.span.end <= span.end)
    }

    pub(super) fn all(&self) -> &[Named] {
        &self.uses
    }

    /// All places of what a name names.
    pub(super) fn same<'n>(&'n self, named: &'n Named) -> impl Iterator<Item = &'n Named> {
        self.uses.iter().filter(|other| other.what == named.what && other.name == named.name)
    }
}

fn of_statement(statement: &Statement, lets: &BTreeSet<&str>, text: &str, uses: &mut Vec<Named>) {
    let start = statement.span.start;
    match &statement.kind {
        StatementKind::Let { name, .. } => {
            let (span, name) = (name.span, name.text.clone());
            uses.push(Named { span, name, what: What::Let, gives: true });
        }
        StatementKind::Use { path, is_file, .. } => {
            let (span, name) = (path.span, path.text.clone());
            uses.push(Named { span, name, what: What::File(*is_file), gives: false });
        }
        _ => {}
    }
    for rule in walk::rules(&statement.kind) {
        of_rule(rule, lets, text, uses);
    }
    let mut scope = Scope { start, lets, captures: BTreeSet::new(), uses };
    if let StatementKind::Shards { capture, files, .. } = &statement.kind {
        scope.give(&capture.text, capture.span, true);
        scope.in_files(&capture.text, files, text);
    }
    let mut parts = Vec::new();
    walk::parts(&statement.kind, &mut |part| parts.push(part));
    scope.read(&parts);
}

fn of_rule(rule: &Rule, lets: &BTreeSet<&str>, text: &str, uses: &mut Vec<Named>) {
    let mut scope = Scope { start: rule.span.start, lets, captures: BTreeSet::new(), uses };
    for side in &rule.sources {
        if let SideItem::Regex(regex) = &side.item {
            scope.regex(regex, text);
        }
    }
    let mut parts = Vec::new();
    walk::rule(rule, &mut |part| parts.push(part));
    scope.read(&parts);
}

impl Scope<'_> {
    fn read(&mut self, parts: &[Fragment<'_>]) {
        // First what is a capture whatever else there is, then what only may be one.
        for part in parts {
            if let Fragment::Pattern(pattern) = part {
                self.declared(pattern);
            }
        }
        for part in parts {
            match part {
                Fragment::Pattern(pattern) => self.pattern(pattern),
                Fragment::Unless(pattern) => {
                    let mut own = Scope {
                        start: pattern.span.start,
                        lets: self.lets,
                        captures: BTreeSet::new(),
                        uses: &mut *self.uses,
                    };
                    own.read(&[Fragment::Pattern(pattern)]);
                }
                Fragment::Expr(expr) => self.expr(expr, false),
                Fragment::Op(op) => {
                    for arg in &op.args {
                        if let Arg::Over(name) = arg {
                            self.give(&name.text, name.span, false);
                        }
                    }
                }
            }
        }
    }

    fn declared(&mut self, pattern: &Pattern) {
        for segment in &pattern.segments {
            match segment {
                Segment::Rest { name, .. } => {
                    self.captures.extend(name.iter().map(|name| name.text.clone()));
                }
                Segment::Atoms(atoms) => {
                    for atom in atoms {
                        let Atom::Capture(capture) = atom else { continue };
                        match &capture.kind {
                            CaptureKind::Text { name } | CaptureKind::Words { name, .. } => {
                                self.captures.insert(name.text.clone());
                            }
                            CaptureKind::Index { name, mul, add, range }
                                if (*mul, *add) == (1, 0) || range.is_some() =>
                            {
                                self.captures.insert(name.text.clone());
                            }
                            CaptureKind::Index { .. } | CaptureKind::Calculated(_) => {}
                        }
                    }
                }
            }
        }
    }

    fn pattern(&mut self, pattern: &Pattern) {
        for segment in &pattern.segments {
            match segment {
                Segment::Rest { name: Some(name), .. } => self.give(&name.text, name.span, true),
                Segment::Rest { name: None, .. } => {}
                Segment::Atoms(atoms) => {
                    for atom in atoms {
                        if let Atom::Capture(capture) = atom {
                            self.capture(&capture.kind);
                        }
                    }
                }
            }
        }
    }

    fn capture(&mut self, kind: &CaptureKind) {
        match kind {
            CaptureKind::Text { name } | CaptureKind::Words { name, .. } => {
                self.give(&name.text, name.span, true);
            }
            CaptureKind::Index { name, range, .. } => {
                let is_let =
                    self.lets.contains(name.text.as_str()) && !self.captures.contains(&name.text);
                if is_let {
                    let (span, name) = (name.span, name.text.clone());
                    self.uses.push(Named { span, name, what: What::Let, gives: false });
                } else {
                    self.give(&name.text, name.span, range.is_some());
                }
                if let Some((from, to)) = range {
                    self.expr(from, false);
                    self.expr(to, false);
                }
            }
            CaptureKind::Calculated(expr) => self.expr(expr, true),
        }
    }

    fn give(&mut self, name: &str, span: Span, gives: bool) {
        self.captures.insert(name.to_owned());
        let (name, what) = (name.to_owned(), What::Capture(self.start));
        self.uses.push(Named { span, name, what, gives });
    }

    /// Names of an expression; those of a pattern are captures if they are nothing else.
    fn expr(&mut self, expr: &Expr, in_pattern: bool) {
        let mut inner = Vec::new();
        expr.walk(&mut |part| match &part.kind {
            ExprKind::Name(name) => {
                let is_let = self.lets.contains(name.as_str()) && !self.captures.contains(name);
                let what = if is_let { What::Let } else { What::Capture(self.start) };
                if is_let || in_pattern || self.captures.contains(name) {
                    self.uses.push(Named {
                        span: part.span,
                        name: name.clone(),
                        what,
                        gives: false,
                    });
                }
            }
            // Captures of a rule mean in it what they mean there.
            ExprKind::Exists(pattern) | ExprKind::Size(pattern, _) => inner.push(pattern),
            ExprKind::Count(pattern, capture) => {
                inner.push(pattern);
                let (name, what) = (capture.text.clone(), What::Capture(self.start));
                self.uses.push(Named { span: capture.span, name, what, gives: false });
            }
            _ => {}
        });
        for pattern in inner {
            self.pattern(pattern);
        }
    }

    /// The groups of a regex that have names.
    fn regex(&mut self, regex: &StringLit, text: &str) {
        let Some(written) = text.get(regex.span.range()) else { return };
        for (at, _) in written.match_indices("(?") {
            let rest = &written[at + 2..];
            let Some(name) = rest.strip_prefix("P<").or_else(|| rest.strip_prefix('<')) else {
                continue;
            };
            let Some((name, _)) = name.split_once('>') else { continue };
            if !is_word(name) {
                continue;
            }
            let start = regex.span.range().start + at + 2 + rest.find('<').map_or(0, |at| at + 1);
            let span = Span { start: narrow(start), end: narrow(start + name.len()) };
            self.give(name, span, true);
        }
    }

    /// The rank in the name of files: `consolidated.{r}.pth`, `{r:0}`.
    fn in_files(&mut self, name: &str, files: &StringLit, text: &str) {
        let Some(written) = text.get(files.span.range()) else { return };
        for (at, _) in written.match_indices('{') {
            let rest = &written[at + 1..];
            if rest.strip_prefix(name).is_some_and(|rest| rest.starts_with(['}', ':'])) {
                let start = files.span.range().start + at + 1;
                let span = Span { start: narrow(start), end: narrow(start + name.len()) };
                self.give(name, span, false);
            }
        }
    }
}

fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Document {
    /// Where the text uses a rule file: the `use` that names it, else the first, which may bring it.
    pub fn use_of(&self, source: &SourceText) -> Option<Span> {
        let uses = || self.names.all().iter().filter(|one| matches!(one.what, What::File(_)));
        let tail = |path: &str| path.trim_start_matches("./").to_owned();
        let named = uses().find(|one| source.name.ends_with(&tail(&one.name)));
        named.or_else(|| uses().next()).map(|one| one.span)
    }

    /// Where what is named at an offset is bound.
    pub fn definition(&self, offset: usize, includes: &dyn Includes) -> Option<Definition> {
        let named = self.names.at(offset)?;
        if let What::File(is_file) = named.what {
            let source = self.source();
            let found = includes.load(&named.name, is_file, source, source).ok()?;
            return Some(Definition::File(found));
        }
        let gives = self.names.same(named).find(|other| other.gives);
        let first = gives.or_else(|| self.names.same(named).next())?;
        Some(Definition::Here(first.span))
    }

    /// Every place where what is named at an offset is named, in order.
    pub fn references(&self, offset: usize) -> Vec<Span> {
        let Some(named) = self.names.at(offset) else { return Vec::new() };
        self.names.same(named).map(|other| other.span).collect()
    }

    /// The name at an offset, if it can be changed.
    pub fn renamable(&self, offset: usize) -> Option<(Span, &str)> {
        let named = self.names.at(offset)?;
        let changes = !matches!(named.what, What::File(_)) && is_word(&named.name);
        changes.then_some((named.span, named.name.as_str()))
    }

    /// The places that get another name with the one at an offset.
    ///
    /// # Errors
    /// Nothing there can be renamed, or not so.
    pub fn rename(&self, offset: usize, name: &str) -> Result<Vec<Span>, NoRename> {
        self.renamable(offset).ok_or(NoRename::NoName)?;
        let named = self.names.at(offset).ok_or(NoRename::NoName)?;
        if !is_word(name) || RESERVED.contains(&name) {
            return Err(NoRename::NotAName);
        }
        // A capture hides a `let` of its name, and another of the same name would be the same.
        let clashes = |other: &Named| {
            other.name == name
                && match (named.what, other.what) {
                    (_, What::File(_)) => false,
                    (What::Capture(one), What::Capture(other)) => one == other,
                    _ => true,
                }
        };
        if name != named.name && self.names.all().iter().any(clashes) {
            return Err(NoRename::Taken);
        }
        Ok(self.names.same(named).map(|other| other.span).collect())
    }
}
