//! Hover: what stands at an offset, in Markdown.

use super::names::{Named, What};
use super::walk::{self, Fragment};
use super::{Document, Facts, Outcome, docs, touches};
use crate::check::value::Scope;
use crate::check::{Direction, Includes, Keys, resolve_alone};
use crate::diagnostic::Span;
use crate::key::{Bindings, Segments};
use crate::library;
use crate::plan::Takes;
use crate::syntax::ast::{Atom, CaptureKind, Expr, ExprKind, OpCall, Pattern, Segment, SideItem};
use crate::syntax::op::{OPS, row};
use crate::syntax::{TokenKind, print_expr, statements};

/// What is shown about something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hover {
    /// What it is about.
    pub span: Span,
    /// The text, as Markdown.
    pub text: String,
}

/// Keys that are shown as examples.
const EXAMPLES: usize = 3;

impl Document {
    /// What is known of what stands at an offset.
    pub fn hover(
        &self,
        offset: usize,
        facts: &Facts,
        outcome: Option<&Outcome>,
        includes: &dyn Includes,
    ) -> Option<Hover> {
        let token = self.token_at(offset)?;
        if token.kind == TokenKind::Comment {
            return None;
        }
        if let Some(call) = self.op_at(offset) {
            let text = match row(&call.name.text, &call.args) {
                Some(row) => docs::op(row),
                None => docs::makers()?,
            };
            return Some(Hover { span: call.name.span, text });
        }
        if let Some(named) = self.names.at(offset) {
            let text = self.about_name(named, facts, includes)?;
            return Some(Hover { span: named.span, text });
        }
        if let Some((span, text)) = self.about_config(offset, facts) {
            return Some(Hover { span, text });
        }
        if let Some(text) = self.about_pattern(offset, facts, outcome) {
            return Some(Hover { span: token.span, text });
        }
        (token.kind == TokenKind::Word)
            .then(|| self.about_word(self.slice(token.span), token.first_on_line))
            .flatten()
            .map(|text| Hover { span: token.span, text })
    }

    /// A word of the language; an op also where the statement around it doesn't parse.
    fn about_word(&self, word: &str, first: bool) -> Option<String> {
        if first && statements().contains(&word) {
            return docs::statement(word);
        }
        let op = || OPS.iter().find(|row| row.name == word).map(docs::op);
        docs::clause(word).or_else(|| docs::expression(word)).or_else(op)
    }

    /// Each expression of the file, those of captures' ranges and numbers too.
    pub(super) fn expressions<'d>(&'d self, visit: &mut dyn FnMut(&'d Expr)) {
        self.parts(&mut |part| match part {
            Fragment::Expr(expr) => visit(expr),
            Fragment::Pattern(pattern) | Fragment::Unless(pattern) => {
                for capture in captures(pattern) {
                    match &capture.kind {
                        CaptureKind::Index { range: Some((from, to)), .. } => {
                            visit(from);
                            visit(to);
                        }
                        CaptureKind::Calculated(expr) => visit(expr),
                        _ => {}
                    }
                }
            }
            Fragment::Op(_) => {}
        });
    }

    /// Everything in all statements.
    pub(super) fn parts<'d>(&'d self, visit: &mut dyn FnMut(Fragment<'d>)) {
        walk::statements(&self.parsed.file.statements, &mut |statement| {
            walk::parts(&statement.kind, visit);
            walk::rules(&statement.kind).iter().for_each(|rule| walk::rule(rule, visit));
        });
    }

    fn op_at(&self, offset: usize) -> Option<&OpCall> {
        let mut found = None;
        self.parts(&mut |part| {
            if let Fragment::Op(op) = part
                && touches(op.name.span, offset)
            {
                found = Some(op);
            }
        });
        found
    }

    fn about_name(&self, named: &Named, facts: &Facts, includes: &dyn Includes) -> Option<String> {
        match named.what {
            What::Let => Some(self.about_let(&named.name, facts)),
            What::Capture(_) => self.about_capture(named, facts),
            What::File(is_file) => {
                let source = self.source();
                let text = includes.load(&named.name, is_file, source, source).ok()?;
                let head = library::head_of(&text);
                let layouts = head.layouts.map(|(left, right)| format!("`{left} <-> {right}`"));
                let models = (!head.models.is_empty())
                    .then(|| format!("models: {}", head.models.join(", ")));
                let comments: Vec<&str> = text
                    .text
                    .lines()
                    .map_while(|line| line.strip_prefix("##"))
                    .map(str::trim)
                    .collect();
                let parts = [Some(comments.join(" ")), layouts, models];
                let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
                Some(parts.collect::<Vec<_>>().join("\n\n"))
            }
        }
    }

    fn about_let(&self, name: &str, facts: &Facts) -> String {
        let Some(scope) = self.scope() else { return format!("`let {name}`") };
        let written = scope.lets.get(name).and_then(|(value, _)| value.as_ref());
        let shown = match written {
            Some(value) => format!("`let {name} = {}`", print_expr(value)),
            None => format!("`let {name}`, a parameter: `--set {name}=…` gives it"),
        };
        let Some((_, span)) = scope.lets.get(name) else { return shown };
        let asked = Expr { kind: ExprKind::Name(name.to_owned()), span: *span };
        let value = facts.ask(|environment| environment.eval(scope, &asked));
        match value {
            Ok(value) => format!("{shown}\n\nhere: `{value}`"),
            Err(why) => format!("{shown}\n\nnot known here: {}", why.message),
        }
    }

    fn about_capture(&self, named: &Named, facts: &Facts) -> Option<String> {
        let mut form = None;
        self.parts(&mut |part| {
            let (Fragment::Pattern(pattern) | Fragment::Unless(pattern)) = part else { return };
            for segment in &pattern.segments {
                if let Segment::Rest { name: Some(name), .. } = segment
                    && self.is_same(named, name.span)
                {
                    form = Some(format!("`{{{}**}}`: any number of whole segments", name.text));
                }
            }
            for capture in captures(pattern) {
                let says = match &capture.kind {
                    CaptureKind::Text { name } if self.is_same(named, name.span) => {
                        format!("`{{{}*}}`: text within a segment", name.text)
                    }
                    CaptureKind::Words { name, words } if self.is_same(named, name.span) => {
                        let word = |(here, there): &(String, Option<String>)| match there {
                            Some(there) => format!("- `{here}` ↔ `{there}`"),
                            None => format!("- `{here}`"),
                        };
                        let words: Vec<String> = words.iter().map(word).collect();
                        format!("`{{{}}}`: one of\n{}", name.text, words.join("\n"))
                    }
                    CaptureKind::Index { name, range: Some((from, to)), .. }
                        if self.is_same(named, name.span) =>
                    {
                        let range = format!("{}..{}", print_expr(from), print_expr(to));
                        let known = self.known_range(from, to, facts);
                        format!("`{{{}: {range}}}`: a number{known}", name.text)
                    }
                    _ => continue,
                };
                form = Some(says);
            }
        });
        Some(form.unwrap_or_else(|| {
            let is_number = named.name.starts_with(|c: char| c.is_ascii_digit());
            if is_number {
                format!("`{{{}}}`: a group of the regex", named.name)
            } else {
                format!("`{{{}}}`: a number", named.name)
            }
        }))
    }

    fn known_range(&self, from: &Expr, to: &Expr, facts: &Facts) -> String {
        let known = self.scope().and_then(|scope| {
            facts.ask(|environment| {
                Some((environment.int(scope, from).ok()?, environment.int(scope, to).ok()?))
            })
        });
        match known {
            Some((from, to)) => format!(", here from {from} up to but not including {to}"),
            None => String::new(),
        }
    }

    fn is_same(&self, named: &Named, span: Span) -> bool {
        self.names.same(named).any(|other| other.span.start == span.start)
    }

    fn about_config(&self, offset: usize, facts: &Facts) -> Option<(Span, String)> {
        let mut found = None;
        self.expressions(&mut |expr| {
            expr.walk(&mut |part| {
                let is_field = matches!(part.kind, ExprKind::Config(_) | ExprKind::Item(..));
                if is_field && touches(part.span, offset) {
                    found = Some(part);
                }
            });
        });
        let (part, scope) = (found?, self.scope()?);
        let text = match facts.ask(|environment| environment.eval(scope, part)) {
            Ok(value) => format!("`{}` = `{value}`", print_expr(part)),
            Err(why) => format!("`{}`\n\nnot known here: {}", print_expr(part), why.message),
        };
        Some((part.span, text))
    }

    fn about_pattern(
        &self,
        offset: usize,
        facts: &Facts,
        outcome: Option<&Outcome>,
    ) -> Option<String> {
        let header = facts.header()?;
        if let Some((takes, direction)) = outcome.and_then(|outcome| {
            let takes = self.takes(outcome);
            let is_here = |takes: &&Takes| {
                let item = self.item_span(takes.place.span.start);
                item.is_some_and(|item| touches(item, offset))
            };
            let found = takes.into_iter().find(is_here);
            found.map(|takes| (takes, outcome.direction))
        }) {
            return Some(taken(takes, direction));
        }
        let mut found: Option<&Pattern> = None;
        self.parts(&mut |part| {
            if let Fragment::Pattern(pattern) | Fragment::Unless(pattern) = part
                && touches(pattern.span, offset)
            {
                found = Some(pattern);
            }
        });
        let (scope, pattern) = (self.scope()?, found?);
        let keys = resolve_alone(scope, pattern).ok()?;
        Some(fitting(&keys, scope, facts, header.tensors.keys().map(|key| key.as_str())))
    }

    /// What sources of rules of this text took.
    pub(super) fn takes<'o>(&self, outcome: &'o Outcome) -> Vec<&'o Takes> {
        let mine = |takes: &&Takes| self.is_mine(&takes.place.source);
        outcome.survey.sources.iter().filter(mine).collect()
    }

    /// The pattern of a side that begins at an offset, without the ops after it.
    fn item_span(&self, start: u32) -> Option<Span> {
        let mut found = None;
        walk::statements(&self.parsed.file.statements, &mut |statement| {
            for rule in walk::rules(&statement.kind) {
                for side in rule.sources.iter().chain(&rule.targets) {
                    if side.span.start == start {
                        found = Some(match &side.item {
                            SideItem::Pattern(pattern) => pattern.span,
                            SideItem::Regex(regex) => regex.span,
                            SideItem::Made(made) => made.span,
                        });
                    }
                }
            }
        });
        found
    }

    /// The file's own scope.
    pub(super) fn scope(&self) -> Option<&Scope> {
        self.rules.scopes.first()
    }
}

/// What a source took, and what became of it.
fn taken(takes: &Takes, direction: Direction) -> String {
    let backwards = match direction {
        Direction::Forward => "",
        Direction::Reverse => ", read backwards",
    };
    let mut text = match takes.count {
        0 => return format!("takes no key of the checkpoint{backwards}"),
        1 => format!("takes 1 key of the checkpoint{backwards}:\n"),
        count => format!("takes {} keys of the checkpoint{backwards}:\n", grouped(count)),
    };
    for (key, targets) in &takes.examples {
        let targets: Vec<String> = targets.iter().map(|key| format!("`{key}`")).collect();
        let becomes =
            if targets.is_empty() { String::new() } else { format!(" → {}", targets.join(", ")) };
        text.push_str(&format!("\n- `{key}`{becomes}"));
    }
    text
}

/// The keys that fit a pattern that stands by itself.
fn fitting<'k>(
    keys: &Keys,
    scope: &Scope,
    facts: &Facts,
    all: impl Iterator<Item = &'k str>,
) -> String {
    let pattern = match facts.ask(|environment| keys.bind(scope, environment)) {
        Ok(pattern) => pattern,
        Err(why) => return format!("which keys it fits isn't known here: {}", why.message),
    };
    let (mut segments, mut bindings) = (Segments::default(), Bindings::default());
    let (mut count, mut examples) = (0u64, Vec::new());
    for key in all {
        segments.split(key);
        bindings.reset(keys.captures().len());
        if pattern.matches(key, &segments, &mut bindings) {
            count += 1;
            if examples.len() < EXAMPLES {
                examples.push(format!("\n- `{key}`"));
            }
        }
    }
    match count {
        0 => "no key of the checkpoint fits, as it is before the first statement".to_owned(),
        1 => format!("fits 1 key of the checkpoint:\n{}", examples.concat()),
        _ => format!("fits {} keys of the checkpoint:\n{}", grouped(count), examples.concat()),
    }
}

/// `4,096`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The captures within segments of a pattern.
pub(super) fn captures(pattern: &Pattern) -> impl Iterator<Item = &crate::syntax::ast::Capture> {
    let atoms = pattern.segments.iter().flat_map(|segment| match segment {
        Segment::Atoms(atoms) => atoms.as_slice(),
        Segment::Rest { .. } => &[],
    });
    atoms.filter_map(|atom| match atom {
        Atom::Capture(capture) => Some(capture),
        Atom::Text(_) => None,
    })
}
