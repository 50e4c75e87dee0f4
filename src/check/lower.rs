//! From statements to steps.

use std::sync::Arc;

use indexmap::IndexMap;
use regex::Regex;

use super::capture::{SideOf, Table};
use super::circle::circles;
use super::keys::Keys;
use super::op::{self, OpUse};
use super::rules::{
    Capture, Example, Identity, Rule, Rules, Selection, Side, SideItem, Step, StepKind, Tie,
};
use super::sight::{Sight, undefined};
use super::value::{LENGTHS, Scope};
use super::{invertible, proof, resolve_alone, resolve_within};
use crate::diagnostic::codes::{
    ARITY, BAD_PATTERN, BAD_REGEX, DUPLICATE, INCLUDE_CYCLE, LIMIT, NOT_INVERTIBLE, OUTSIDE,
    UNKNOWN_RULES,
};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText, did_you_mean};
use crate::key::{Pattern, Slot};
use crate::syntax::ast::{
    self, Arrow, Expr, ExprKind, IfAbsent, IfPresent, Segment, StatementKind,
};
use crate::syntax::{parse, print_rule, print_statement_line};

/// Finds the text of a rule file that another one uses.
pub trait Includes {
    /// The text of `path`, asked for by `from`, which the rule file `root` uses, or is; `is_file`
    /// when it was written in quotes.
    ///
    /// # Errors
    /// Why it can't be had.
    fn load(
        &self,
        path: &str,
        is_file: bool,
        from: &SourceText,
        root: &SourceText,
    ) -> Result<Arc<SourceText>, NotIncluded>;

    /// Names that `load` knows, for did-you-mean.
    fn known(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether a rule file ships with the library, so that its reader can give it values but not
    /// write in it.
    fn is_built_in(&self, _source: &SourceText) -> bool {
        false
    }
}

/// Why a rule file can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotIncluded {
    /// There is none, or it can't be read, as a message.
    Unknown(String),
    /// It lies outside of the folder in which rule files may be: this one.
    Outside(String),
}

/// No rule file can use another.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoIncludes;

impl Includes for NoIncludes {
    fn load(
        &self,
        path: &str,
        _: bool,
        _: &SourceText,
        _: &SourceText,
    ) -> Result<Arc<SourceText>, NotIncluded> {
        Err(NotIncluded::Unknown(format!("no rule file `{path}` is known here")))
    }
}

/// Files that one rule file may use, directly and through others.
const MAX_INCLUDES: usize = 256;

/// Parses and checks a rule file and all that it uses.
///
/// # Errors
/// Everything that is wrong with it, in the order of the text.
pub fn check(source: &Arc<SourceText>, includes: &dyn Includes) -> Result<Rules, Diagnostics> {
    let mut checker = Checker {
        includes,
        scopes: Vec::new(),
        open: Vec::new(),
        findings: Vec::new(),
        files: 0,
        effort: proof::Effort::of_check(),
    };
    let mut rules = Rules {
        name: source.name.clone(),
        layouts: None,
        models: Vec::new(),
        scopes: Vec::new(),
        steps: Vec::new(),
        examples: Vec::new(),
        trust: Vec::new(),
        findings: Vec::new(),
        source: Arc::clone(source),
    };
    rules.steps = checker.file(source, Vec::new(), Some(&mut rules));
    rules.scopes = std::mem::take(&mut checker.scopes);
    checker.findings.extend(circles(&rules));
    if checker.findings.iter().any(Diagnostic::is_error) {
        return Err(Diagnostics(checker.findings));
    }
    rules.findings = checker.findings;
    Ok(rules)
}

struct Checker<'a> {
    includes: &'a dyn Includes,
    scopes: Vec<Scope>,
    /// The files that are being read, to find one that includes itself.
    open: Vec<Arc<SourceText>>,
    findings: Vec<Diagnostic>,
    files: usize,
    /// What the proofs of all statements may still cost.
    effort: proof::Effort,
}

impl Checker<'_> {
    fn report<T>(&mut self, result: Result<T, Box<Diagnostic>>) -> Option<T> {
        result.map_err(|diagnostic| self.findings.push(*diagnostic)).ok()
    }

    /// The steps of one file, scoped to a subtree.
    fn file(
        &mut self,
        source: &Arc<SourceText>,
        under: Vec<String>,
        mut rules: Option<&mut Rules>,
    ) -> Vec<Step> {
        let parsed = parse(Arc::clone(source));
        self.findings.extend(parsed.diagnostics);
        self.files += 1;
        self.open.push(Arc::clone(source));
        let scope = self.scopes.len();
        let built_in = self.includes.is_built_in(source);
        self.scopes.push(Scope {
            number: scope,
            source: Arc::clone(source),
            lets: IndexMap::new(),
            under,
            built_in,
        });
        self.lets(scope, &parsed.file.statements);
        if let Some(rules) = rules.as_deref_mut() {
            self.front_matter(scope, &parsed.file.statements, rules);
        }
        let mut steps = Vec::new();
        for statement in &parsed.file.statements {
            if let (StatementKind::Example { left, arrow, right }, Some(rules)) =
                (&statement.kind, rules.as_deref_mut())
            {
                rules.examples.push(Example {
                    left: left.iter().map(|key| key.text.clone()).collect(),
                    arrow: *arrow,
                    right: right.iter().map(|key| key.text.clone()).collect(),
                    place: self.scopes[scope].place(statement.span),
                });
            }
            self.statement(scope, statement, &mut steps);
        }
        self.open.pop();
        steps
    }

    fn lets(&mut self, scope: usize, statements: &[ast::Statement]) {
        for statement in statements {
            if let StatementKind::Let { name, value } = &statement.kind {
                let before =
                    self.scopes[scope].lets.insert(name.text.clone(), (value.clone(), name.span));
                if let Some((_, first)) = before {
                    let scope = &self.scopes[scope];
                    self.findings.push(
                        Diagnostic::error(DUPLICATE, format!("`{}` is defined twice", name.text))
                            .at(scope.place(name.span), "here")
                            .label(scope.place(first), "and here"),
                    );
                }
            }
        }
    }

    fn front_matter(&mut self, scope: usize, statements: &[ast::Statement], rules: &mut Rules) {
        let mut named = None;
        for statement in statements {
            match &statement.kind {
                StatementKind::Ruleset { name, layouts } => {
                    if let Some(first) = named.replace(statement.span) {
                        let scope = &self.scopes[scope];
                        self.findings.push(
                            Diagnostic::error(DUPLICATE, "a file has one `ruleset` statement")
                                .at(scope.place(statement.span), "the second")
                                .label(scope.place(first), "the first"),
                        );
                    }
                    rules.name.clone_from(&name.text);
                    if let Some((left, _, right)) = layouts {
                        if left.text == right.text {
                            self.findings.push(
                                Diagnostic::error(
                                    DUPLICATE,
                                    format!("both layouts are named `{}`", left.text),
                                )
                                .at(
                                    self.scopes[scope].place(right.span),
                                    "must differ from the left one",
                                ),
                            );
                        }
                        rules.layouts = Some((left.text.clone(), right.text.clone()));
                    }
                }
                StatementKind::Models(models) => {
                    rules.models.extend(models.iter().map(|model| model.text.clone()))
                }
                StatementKind::Trust(allowed) => {
                    rules.trust.extend(allowed.iter().map(|name| name.text.clone()))
                }
                _ => {}
            }
        }
    }

    fn statements(&mut self, scope: usize, statements: &[ast::Statement]) -> Vec<Step> {
        let mut steps = Vec::new();
        for statement in statements {
            if matches!(
                statement.kind,
                StatementKind::Ruleset { .. }
                    | StatementKind::Models(_)
                    | StatementKind::Let { .. }
            ) {
                self.findings.push(
                    Diagnostic::error(
                        BAD_PATTERN,
                        "this statement stands at the top of a file, not in a block",
                    )
                    .at(self.scopes[scope].place(statement.span), "here"),
                );
            }
            self.statement(scope, statement, &mut steps);
        }
        steps
    }

    fn statement(&mut self, scope: usize, statement: &ast::Statement, steps: &mut Vec<Step>) {
        let kind = match &statement.kind {
            StatementKind::Ruleset { .. }
            | StatementKind::Models(_)
            | StatementKind::Let { .. }
            | StatementKind::Trust(_)
            | StatementKind::Example { .. } => return,
            StatementKind::Use { path, is_file, reversed, under } => {
                let used = self.include(scope, path, *is_file, under.as_ref());
                if !*reversed {
                    steps.extend(used);
                    return;
                }
                Some(StepKind::Reversed(used))
            }
            StatementKind::When { condition, then, otherwise, .. } => {
                self.check_names(scope, condition, Sight::Nothing);
                self.check_exists(scope, condition, &[]);
                let (then, otherwise) =
                    (self.statements(scope, then), self.statements(scope, otherwise));
                Some(StepKind::When { condition: condition.clone(), then, otherwise })
            }
            StatementKind::Rename(group) | StatementKind::Map(group) => {
                let is_map = matches!(statement.kind, StatementKind::Map(_));
                let mut rules = Vec::new();
                for rule in &group.rules {
                    let lowered = self.rule(scope, rule, is_map);
                    rules.extend(self.report(lowered));
                }
                let was_spent = self.effort.is_spent();
                self.findings.extend(proof::group(&rules, &self.effort));
                if self.effort.is_spent() && !was_spent {
                    self.findings.push(proof::undecided(self.scopes[scope].place(statement.span)));
                }
                Some(StepKind::Rewrite(rules))
            }
            StatementKind::Strip { place, wrappers, if_wanted } => {
                let lowered = wrappers
                    .iter()
                    .map(|wrapper| self.literal(scope, wrapper))
                    .collect::<Result<Vec<_>, _>>();
                self.report(lowered).map(|wrappers| match place {
                    ast::StripPlace::Anywhere => StepKind::StripAnywhere { wrappers },
                    ast::StripPlace::Leading => {
                        StepKind::StripLeading { wrappers, if_wanted: *if_wanted }
                    }
                })
            }
            StatementKind::Prefix(pattern) => {
                let lowered = self.literal(scope, pattern);
                self.report(lowered).map(StepKind::Prefix)
            }
            StatementKind::Drop(keys) => self.selection(scope, keys).map(StepKind::Drop),
            StatementKind::Keep(keys) => self.selection(scope, keys).map(StepKind::Keep),
            StatementKind::Cast { keys, dtype, lossy } => {
                let found = op::dtype(&dtype.text, self.scopes[scope].place(dtype.span));
                let dtype = self.report(found);
                self.selection(scope, keys).zip(dtype).map(|(keys, dtype)| StepKind::Cast {
                    keys,
                    dtype,
                    lossy: *lossy,
                })
            }
            StatementKind::Tie(tie) => {
                if let Some(condition) = &tie.condition {
                    self.check_names(scope, condition, Sight::Nothing);
                    self.check_exists(scope, condition, &[]);
                }
                let lowered = self.tie(scope, tie);
                self.report(lowered).map(StepKind::Tie)
            }
            StatementKind::Create { target, value, tail } => {
                let lowered = self.create(scope, target, value, tail);
                self.report(lowered)
            }
            StatementKind::Expect { pattern, count } => {
                if let Some(count) = count {
                    self.check_names(scope, count, Sight::Nothing);
                }
                let resolved = resolve_alone(&self.scopes[scope], pattern);
                self.report(resolved).map(|keys| {
                    let counted = (0u16..)
                        .zip(keys.captures())
                        .filter(|(_, capture)| capture.is_named())
                        .map(|(slot, _)| Slot(slot));
                    StepKind::Expect { captures: counted.collect(), keys, count: count.clone() }
                })
            }
        };
        if let Some(kind) = kind {
            let place = self.scopes[scope].place(statement.span);
            let id = Identity { scope, start: statement.span.start };
            let text = print_statement_line(&statement.kind);
            steps.push(Step { id, scope, kind, place, text });
        }
    }

    fn include(
        &mut self,
        scope: usize,
        path: &ast::Ident,
        is_file: bool,
        under: Option<&ast::Pattern>,
    ) -> Vec<Step> {
        let place = self.scopes[scope].place(path.span);
        let mut subtree = self.scopes[scope].under.clone();
        if let Some(under) = under {
            let literal = self.literal(scope, under);
            let Some(segments) = self.report(literal) else { return Vec::new() };
            subtree.extend(segments);
        }
        let from = Arc::clone(&self.scopes[scope].source);
        let root = self.open.first().map_or_else(|| Arc::clone(&from), Arc::clone);
        let text = match self.includes.load(&path.text, is_file, &from, &root) {
            Ok(text) => text,
            Err(NotIncluded::Outside(folder)) => {
                self.findings.push(
                    Diagnostic::error(
                        OUTSIDE,
                        format!(
                            "the rule file `{}` lies outside of the folder of `{}`",
                            path.text, root.name
                        ),
                    )
                    .at(place, format!("not below {folder}"))
                    .hint("put what is shared below that folder, or allow it with --allow-outside"),
                );
                return Vec::new();
            }
            Err(NotIncluded::Unknown(why)) => {
                let mut diagnostic =
                    Diagnostic::error(UNKNOWN_RULES, why).at(place, "asked for here");
                let known = self.includes.known();
                if let Some(close) = did_you_mean(&path.text, known.iter().map(String::as_str)) {
                    diagnostic = diagnostic.hint(format!("did you mean `{close}`?"));
                }
                self.findings.push(diagnostic);
                return Vec::new();
            }
        };
        if let Some(at) = self.open.iter().position(|open| open.name == text.name) {
            let mut round: Vec<&str> =
                self.open[at..].iter().map(|open| open.name.as_str()).collect();
            round.push(&text.name);
            let message =
                format!("the rule file `{}` includes itself: {}", text.name, round.join(" uses "));
            self.findings
                .push(Diagnostic::error(INCLUDE_CYCLE, message).at(place, "closes the circle"));
            return Vec::new();
        }
        if self.files >= MAX_INCLUDES || self.open.len() > 32 {
            self.findings.push(
                Diagnostic::error(
                    LIMIT,
                    format!("more than {MAX_INCLUDES} rule files, or 32 levels of them"),
                )
                .at(place, "here"),
            );
            return Vec::new();
        }
        self.file(&text, subtree, None)
    }

    /// A pattern of literal segments only.
    fn literal(
        &self,
        scope: usize,
        pattern: &ast::Pattern,
    ) -> Result<Vec<String>, Box<Diagnostic>> {
        let scope = &self.scopes[scope];
        pattern
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Atoms(atoms) => atoms
                    .iter()
                    .map(|atom| match atom {
                        ast::Atom::Text(text) => Some(text.as_str()),
                        ast::Atom::Capture(_) => None,
                    })
                    .collect::<Option<String>>(),
                Segment::Rest { .. } => None,
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| {
                Box::new(
                    Diagnostic::error(BAD_PATTERN, "only literal segments can stand here")
                        .at(scope.place(pattern.span), "no captures, no `**`")
                        .hint("a subtree, prefix or wrapper is named as it is, as in \"model.vision_tower\""),
                )
            })
    }

    fn check_names(&mut self, scope: usize, expr: &Expr, sight: Sight<'_>) {
        self.findings.extend(undefined(&self.scopes[scope], expr, sight));
    }

    /// The patterns that a condition asks for must mean something beside the captures in its sight.
    fn check_exists(&mut self, scope: usize, expr: &Expr, known: &[Capture]) {
        let mut failed = Vec::new();
        expr.walk(&mut |part| {
            if let ExprKind::Exists(pattern) = &part.kind {
                failed.extend(resolve_within(&self.scopes[scope], pattern, known).err());
            }
        });
        self.findings.extend(failed.into_iter().map(|diagnostic| *diagnostic));
    }

    fn selection(&mut self, scope: usize, keys: &ast::Selection) -> Option<Selection> {
        let mut taken: Vec<Keys> = Vec::new();
        for pattern in &keys.patterns {
            let resolved = resolve_alone(&self.scopes[scope], pattern);
            taken.push(self.report(resolved)?);
        }
        let mut unless = Vec::new();
        for exception in &keys.tail.unless {
            let resolved = resolve_alone(&self.scopes[scope], &exception.pattern);
            unless.push(self.report(resolved)?);
        }
        if let Some(condition) = &keys.tail.condition {
            // Whichever pattern takes a key, the condition must have its captures.
            let in_all = |capture: &&Capture| {
                taken.iter().all(|keys| keys.captures().iter().any(|one| one.name == capture.name))
            };
            let known: Vec<&str> = taken
                .first()
                .map(Keys::captures)
                .unwrap_or_default()
                .iter()
                .filter(in_all)
                .map(|one| one.name.as_str())
                .collect();
            self.check_names(scope, condition, Sight::Where(&known));
            for keys in &taken {
                self.check_exists(scope, condition, keys.captures());
            }
        }
        Some(Selection {
            keys: taken,
            unless,
            condition: keys.tail.condition.clone(),
            optional: keys.tail.optional,
        })
    }

    fn tie(&self, scope: usize, tie: &ast::Tie) -> Result<Tie, Box<Diagnostic>> {
        let mut table = Table::new(&self.scopes[scope]);
        for pattern in tie.targets.iter().chain(&tie.sources) {
            table.declare(pattern, SideOf::Left)?;
        }
        let targets = tie
            .targets
            .iter()
            .map(|pattern| table.resolve(pattern, SideOf::Left))
            .collect::<Result<Vec<_>, _>>()?;
        let sources = tie
            .sources
            .iter()
            .map(|pattern| table.resolve(pattern, SideOf::Left))
            .collect::<Result<Vec<_>, _>>()?;
        let captures: Arc<[Capture]> = table.finish().into();
        for (pattern, text) in targets.iter().zip(&tie.targets) {
            if sources.contains(pattern) {
                return Err(Box::new(
                    Diagnostic::error(
                        crate::diagnostic::codes::TIE_CYCLE,
                        "a key is tied to itself",
                    )
                    .at(self.scopes[scope].place(text.span), "also a source"),
                ));
            }
        }
        let keys = |patterns: Vec<Pattern>| {
            patterns.into_iter().map(|pattern| Keys::new(pattern, Arc::clone(&captures))).collect()
        };
        Ok(Tie {
            inverted: tie.inverted,
            targets: keys(targets),
            sources: keys(sources),
            slots: captures.len(),
            condition: tie.condition.clone(),
            present: tie.present.unwrap_or(IfPresent::Keep),
            absent: tie.absent.unwrap_or(IfAbsent::Skip),
        })
    }

    fn create(
        &self,
        scope: usize,
        target: &ast::Pattern,
        value: &ast::OpCall,
        tail: &ast::Tail,
    ) -> Result<StepKind, Box<Diagnostic>> {
        let keys = resolve_alone(&self.scopes[scope], target)?;
        if keys
            .captures()
            .iter()
            .any(|capture| !matches!(&capture.kind, super::CaptureKind::Index(Some(_))))
        {
            return Err(Box::new(
                Diagnostic::error(
                    BAD_PATTERN,
                    "a created key has nothing to take its captures from",
                )
                .at(
                    self.scopes[scope].place(target.span),
                    "only indices with a range, as in {l: 0..n}, can stand here",
                ),
            ));
        }
        if !keys.captures().is_empty() {
            return Err(Box::new(
                Diagnostic::error(
                    crate::diagnostic::codes::NOT_SUPPORTED,
                    "creating a range of keys is not supported yet",
                )
                .at(self.scopes[scope].place(target.span), "write one `create` for each key"),
            ));
        }
        let unless = tail
            .unless
            .iter()
            .map(|exception| resolve_alone(&self.scopes[scope], &exception.pattern));
        Ok(StepKind::Create {
            target: keys.without_ranges().clone(),
            made: op::made(value, &self.scopes[scope])?,
            unless: unless.collect::<Result<_, Box<_>>>()?,
        })
    }

    fn rule(
        &mut self,
        scope_id: usize,
        rule: &ast::Rule,
        is_map: bool,
    ) -> Result<Rule, Box<Diagnostic>> {
        let scope = &self.scopes[scope_id];
        let mut table = Table::new(scope);
        for (sides, side_of) in [(&rule.sources, SideOf::Left), (&rule.targets, SideOf::Right)] {
            for side in sides {
                match &side.item {
                    ast::SideItem::Pattern(pattern) => table.declare(pattern, side_of)?,
                    ast::SideItem::Regex(text) => {
                        let regex = self.regex(scope_id, text, rule, side_of)?;
                        for (at, name) in regex.capture_names().enumerate().skip(1) {
                            table.declare_group(
                                &name.map_or_else(|| at.to_string(), str::to_owned),
                                text.span,
                            )?;
                        }
                    }
                    ast::SideItem::Made(_) => {}
                }
            }
        }
        let left = self.sides(scope_id, &rule.sources, SideOf::Left, rule, &mut table)?;
        let right = self.sides(scope_id, &rule.targets, SideOf::Right, rule, &mut table)?;
        let joint = rule
            .via
            .iter()
            .map(|call| op::resolve(call, scope, &|name| table.slot(name)))
            .collect::<Result<Vec<_>, _>>()?;
        let (mut unless_left, mut unless_right) = (Vec::new(), Vec::new());
        for exception in &rule.tail.unless {
            let keys = resolve_alone(scope, &exception.pattern)?;
            if exception.target { unless_right.push(keys) } else { unless_left.push(keys) }
        }
        let mut lowered = Rule {
            id: Identity { scope: scope_id, start: rule.span.start },
            place: scope.place(rule.span),
            text: print_rule(rule),
            captures: table.finish(),
            left,
            arrow: rule.arrow,
            right,
            joint,
            unless_left,
            unless_right,
            condition: rule.tail.condition.clone(),
            optional: rule.tail.optional,
            alone: rule.alone,
            ambiguous: false,
        };
        lowered.ambiguous = proof::may_be_ambiguous(&lowered);
        if !is_map && !lowered.is_rename() {
            let ops = !lowered.joint.is_empty()
                || lowered.left.iter().chain(&lowered.right).any(|side| !side.ops.is_empty());
            let (label, hint) = if ops {
                ("this changes tensors", "write `map` instead of `rename`")
            } else if lowered.right.len() > 1 {
                (
                    "more than one target",
                    "to part a tensor, write a `map` with `split` or `unstack`; a second name for a whole one is a `tie`",
                )
            } else {
                (
                    "more than one source",
                    "write one rule for each, or a `map` that joins them with `concat` or `stack`",
                )
            };
            let finding =
                Diagnostic::error(ARITY, "a `rename` has one source, one target and no ops");
            return Err(Box::new(finding.at(scope.place(rule.span), label).hint(hint)));
        }
        invertible::rule(&lowered, rule)?;
        if let Some(condition) = &rule.tail.condition {
            let captures: Vec<String> =
                lowered.captures.iter().map(|capture| capture.name.clone()).collect();
            let mut captures: Vec<&str> = captures.iter().map(String::as_str).collect();
            if lowered.knows_lengths() {
                captures.extend(LENGTHS);
            }
            self.check_names(scope_id, condition, Sight::Where(&captures));
            self.check_exists(scope_id, condition, &lowered.captures);
        }
        self.check_op_names(scope_id, rule, &lowered.captures);
        Ok(lowered)
    }

    /// Numbers of ops may be `let` values; captures, over which an op goes, and dtypes are not
    /// numbers.
    fn check_op_names(&mut self, scope: usize, rule: &ast::Rule, captures: &[Capture]) {
        let calls = rule
            .via
            .iter()
            .chain(rule.sources.iter().chain(&rule.targets).flat_map(|side| &side.ops));
        for call in calls {
            let skip_first = matches!(call.name.text.as_str(), "stack" | "unstack");
            let skip_all = matches!(call.name.text.as_str(), "cast" | "dequant_mxfp4");
            for (at, arg) in call.args.iter().enumerate() {
                let is_dtype = call.name.text == "dequant_fp8" && at == 1;
                if skip_all || is_dtype || (skip_first && at == 0) {
                    continue;
                }
                match arg {
                    ast::Arg::Value(expr) => {
                        self.check_names(scope, expr, Sight::Numbers(captures))
                    }
                    ast::Arg::Range(start, end) => {
                        start.iter().chain(end).for_each(|expr| {
                            self.check_names(scope, expr, Sight::Numbers(captures))
                        });
                    }
                    ast::Arg::Over(_) => {}
                }
            }
        }
    }

    fn regex(
        &self,
        scope: usize,
        text: &ast::StringLit,
        rule: &ast::Rule,
        side: SideOf,
    ) -> Result<Regex, Box<Diagnostic>> {
        let place = self.scopes[scope].place(text.span);
        if side == SideOf::Right {
            return Err(Box::new(
                Diagnostic::error(BAD_PATTERN, "a regex can't be a target")
                    .at(place, "write a pattern in quotes"),
            ));
        }
        if rule.arrow == Arrow::TwoWay {
            return Err(Box::new(
                Diagnostic::error(NOT_INVERTIBLE, "a regex can't be read backwards")
                    .at(place, "in a `<->` rule")
                    .hint("write `->`, or a pattern in quotes"),
            ));
        }
        regex::RegexBuilder::new(&format!("^(?:{})$", text.text))
            .size_limit(1 << 20)
            .build()
            .map_err(|error| {
                let why = error.to_string();
                let why = why
                    .lines()
                    .last()
                    .unwrap_or("it doesn't compile")
                    .trim_start_matches("error: ")
                    .to_owned();
                Box::new(
                    Diagnostic::error(BAD_REGEX, format!("bad regex: {why}")).at(place, "here"),
                )
            })
    }

    fn sides(
        &self,
        scope: usize,
        sides: &[ast::Side],
        side_of: SideOf,
        rule: &ast::Rule,
        table: &mut Table<'_>,
    ) -> Result<Vec<Side>, Box<Diagnostic>> {
        sides
            .iter()
            .map(|side| {
                let item = match &side.item {
                    ast::SideItem::Pattern(pattern) => {
                        SideItem::Pattern(table.resolve(pattern, side_of)?)
                    }
                    ast::SideItem::Regex(text) => {
                        SideItem::Regex(self.regex(scope, text, rule, side_of)?)
                    }
                    ast::SideItem::Made(call) => {
                        SideItem::Made(op::made(call, &self.scopes[scope])?)
                    }
                };
                let ops: Vec<OpUse<Expr>> = side
                    .ops
                    .iter()
                    .map(|call| op::resolve(call, &self.scopes[scope], &|name| table.slot(name)))
                    .collect::<Result<_, _>>()?;
                if let Some(joint) = ops.iter().find(|one| one.op.arity() != op::Arity::Each) {
                    return Err(Box::new(
                        Diagnostic::error(ARITY, "this op joins or parts tensors")
                            .at(joint.place.clone(), "stands on one tensor")
                            .hint("move it after `via`"),
                    ));
                }
                Ok(Side {
                    item,
                    ops,
                    optional: side.optional,
                    place: self.scopes[scope].place(side.span),
                })
            })
            .collect()
    }
}
