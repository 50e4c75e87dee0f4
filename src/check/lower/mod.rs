//! From statements to steps.

mod rule;
mod select;
mod shards;

use std::sync::Arc;

use indexmap::IndexMap;

use crate::check::circle::circles;
use crate::check::op::{self};
use crate::check::rules::{Example, Identity, Rule, Rules, Shards, Step, StepKind, Whole};
use crate::check::sight::Sight;
use crate::check::value::Scope;
use crate::check::{facts, proof, resolve_alone};
use crate::diagnostic::codes::{
    BAD_PATTERN, DUPLICATE, INCLUDE_CYCLE, LIMIT, OUTSIDE, UNKNOWN_RULES,
};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText, Span, did_you_mean};
use crate::key::Slot;
use crate::syntax::ast::{self, StatementKind};
use crate::syntax::{Parsed, parse, print_statement_line};

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
    sound(check_partly(&parse(Arc::clone(source)), includes))
}

/// [`check`] of a file about which everything was proven before, as about those that ship with a
/// release: it isn't proven again.
///
/// # Errors
/// As [`check`], but for what only proofs find.
pub(crate) fn check_proven(
    source: &Arc<SourceText>,
    includes: &dyn Includes,
) -> Result<Rules, Diagnostics> {
    sound(check_within(&parse(Arc::clone(source)), includes, proof::Effort::none()))
}

fn sound(rules: Rules) -> Result<Rules, Diagnostics> {
    if rules.findings.iter().any(Diagnostic::is_error) {
        return Err(Diagnostics(rules.findings));
    }
    Ok(rules)
}

/// Checks a parsed rule file and all that it uses, and gives the rules that are sound, whatever is
/// wrong with others; their findings are everything that was found. Who carries rules out asks for
/// [`check`]: a file that is half read means something else.
pub fn check_partly(parsed: &Parsed, includes: &dyn Includes) -> Rules {
    check_within(parsed, includes, proof::Effort::of_check())
}

/// With so much effort for proofs; with none, none is begun.
fn check_within(parsed: &Parsed, includes: &dyn Includes, effort: proof::Effort) -> Rules {
    let source = &parsed.source;
    let proves = !effort.is_spent();
    let mut checker = Checker {
        includes,
        scopes: Vec::new(),
        open: Vec::new(),
        users: Vec::new(),
        findings: Vec::new(),
        files: 0,
        effort,
        shards: None,
        apart: 0,
    };
    let mut rules = Rules {
        name: source.name.clone(),
        layouts: None,
        models: Vec::new(),
        shards: None,
        scopes: Vec::new(),
        steps: Vec::new(),
        examples: Vec::new(),
        trust: Vec::new(),
        findings: Vec::new(),
        source: Arc::clone(source),
    };
    rules.steps = checker.file(parsed, Vec::new(), Some(&mut rules));
    rules.scopes = std::mem::take(&mut checker.scopes);
    rules.shards = checker.shards.take().map(|(shards, _)| shards);
    if proves {
        checker.findings.extend(circles(&rules));
    }
    rules.findings = checker.findings;
    rules
}

struct Checker<'a> {
    includes: &'a dyn Includes,
    scopes: Vec<Scope>,
    /// The files that are being read, to find one that includes itself.
    open: Vec<Arc<SourceText>>,
    /// Their scopes.
    users: Vec<usize>,
    findings: Vec<Diagnostic>,
    files: usize,
    /// What the proofs of all statements may still cost.
    effort: proof::Effort,
    /// How files are told apart, as the outermost file says that says it, and how deep that is.
    shards: Option<(Shards, usize)>,
    /// Whether what is read here is not the left layout as a whole: within a `when`, or a file that
    /// is used `reversed`.
    apart: usize,
}

impl Checker<'_> {
    fn report<T>(&mut self, result: Result<T, Box<Diagnostic>>) -> Option<T> {
        result.map_err(|diagnostic| self.findings.push(*diagnostic)).ok()
    }

    /// The steps of one file, scoped to a subtree.
    fn file(
        &mut self,
        parsed: &Parsed,
        under: Vec<String>,
        mut rules: Option<&mut Rules>,
    ) -> Vec<Step> {
        let source = &parsed.source;
        self.findings.extend_from_slice(&parsed.diagnostics);
        self.files += 1;
        self.open.push(Arc::clone(source));
        let scope = self.scopes.len();
        let built_in = self.includes.is_built_in(source);
        self.scopes.push(Scope {
            number: scope,
            source: Arc::clone(source),
            lets: IndexMap::new(),
            under,
            separator: None,
            questions: Vec::new(),
            user: self.users.last().copied(),
            built_in,
        });
        self.users.push(scope);
        let wholes = self.wholes(scope, &parsed.file.statements);
        self.lets(scope, &parsed.file.statements);
        self.shards_of(scope, &parsed.file.statements);
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
        self.users.pop();
        // Backwards what stands last is read first.
        steps.splice(0..0, wholes.iter().map(|whole| whole(false)));
        steps.extend(wholes.iter().rev().map(|whole| whole(true)));
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
        self.questions(scope);
    }

    /// What the `let`s of a file ask of shapes and keys.
    fn questions(&mut self, number: usize) {
        let Some(scope) = self.scopes.get_mut(number) else { return };
        let mut found = Vec::new();
        for value in scope.lets.values().filter_map(|(value, _)| value.as_ref()) {
            let failed = facts::questions(scope, value, &mut found);
            self.findings.extend(failed);
        }
        scope.questions = found;
    }

    /// The statements about a file as a whole, each as a step for one of its ends.
    fn wholes(
        &mut self,
        scope: usize,
        statements: &[ast::Statement],
    ) -> Vec<impl Fn(bool) -> Step + use<>> {
        let mut found: Vec<(Whole, &ast::Statement)> = Vec::new();
        for statement in statements {
            let whole = match &statement.kind {
                StatementKind::Separator(text) => self.separator(scope, text).map(Whole::Separator),
                StatementKind::Strict => Some(Whole::Strict),
                _ => None,
            };
            let Some(whole) = whole else { continue };
            let same = |(other, _): &&(Whole, &ast::Statement)| {
                std::mem::discriminant(other) == std::mem::discriminant(&whole)
            };
            if let Some((_, first)) = found.iter().find(same) {
                let finding = Diagnostic::error(DUPLICATE, "this is said once in a file")
                    .at(self.scopes[scope].place(statement.span), "the second")
                    .label(self.scopes[scope].place(first.span), "the first");
                self.findings.push(finding);
                continue;
            }
            found.push((whole, statement));
        }
        let step = |(whole, statement): (Whole, &ast::Statement)| {
            let place = self.scopes[scope].place(statement.span);
            let id = Identity { scope, start: statement.span.start };
            let text = print_statement_line(&statement.kind);
            move |end| {
                let kind = StepKind::Whole { whole, end };
                Step { id, scope, kind, place: place.clone(), text: text.clone() }
            }
        };
        found.into_iter().map(step).collect()
    }

    /// One character that no number and no word of a key is made of, and no dot.
    fn separator(&mut self, scope: usize, text: &ast::StringLit) -> Option<char> {
        let mut chars = text.text.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) if c != '.' && !c.is_alphanumeric() && !c.is_control() => {
                self.scopes[scope].separator = Some(c);
                Some(c)
            }
            _ => {
                let place = self.scopes[scope].place(text.span);
                let message = "a separator is one character, no letter, no digit, and no dot";
                let finding = Diagnostic::error(BAD_PATTERN, message).at(place, "here");
                self.findings.push(finding.hint("keys that are split at dots need no `separator`"));
                None
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
                    | StatementKind::Separator(_)
                    | StatementKind::Strict
                    | StatementKind::Shards { .. }
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
            | StatementKind::Shards { .. }
            | StatementKind::Let { .. }
            | StatementKind::Separator(_)
            | StatementKind::Strict
            | StatementKind::Trust(_)
            | StatementKind::Example { .. } => return,
            StatementKind::Use { path, is_file, reversed, under } => {
                let used =
                    self.apart(*reversed, |it| it.include(scope, path, *is_file, under.as_ref()));
                if !*reversed {
                    steps.extend(used);
                    return;
                }
                Some(StepKind::Reversed(used))
            }
            StatementKind::When { condition, then, otherwise, .. } => {
                self.check_names(scope, condition, Sight::Nothing);
                self.check_exists(scope, condition, &[]);
                let (then, otherwise) = self.apart(true, |it| {
                    (it.statements(scope, then), it.statements(scope, otherwise))
                });
                Some(StepKind::When { condition: condition.clone(), then, otherwise })
            }
            StatementKind::Rename(group) | StatementKind::Map(group) => {
                let is_map = matches!(statement.kind, StatementKind::Map(_));
                Some(StepKind::Rewrite(self.group(scope, group, is_map, statement.span)))
            }
            StatementKind::Strip { place, wrappers, if_wanted } => {
                self.strip(scope, *place, wrappers, *if_wanted)
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
            StatementKind::Expect { pattern, count } => self.expect(scope, pattern, count.as_ref()),
        };
        if let Some(kind) = kind {
            let place = self.scopes[scope].place(statement.span);
            let id = Identity { scope, start: statement.span.start };
            let text = print_statement_line(&statement.kind);
            steps.push(Step { id, scope, kind, place, text });
        }
    }

    fn expect(
        &mut self,
        scope: usize,
        pattern: &ast::Pattern,
        count: Option<&ast::Expr>,
    ) -> Option<StepKind> {
        if let Some(count) = count {
            self.check_names(scope, count, Sight::Nothing);
        }
        let resolved = resolve_alone(&self.scopes[scope], pattern);
        self.report(resolved).map(|keys| {
            let counted = (0u16..)
                .zip(keys.captures())
                .filter(|(_, capture)| capture.is_named())
                .map(|(slot, _)| Slot(slot));
            StepKind::Expect { captures: counted.collect(), keys, count: count.cloned() }
        })
    }

    fn strip(
        &mut self,
        scope: usize,
        place: ast::StripPlace,
        wrappers: &[ast::Pattern],
        if_wanted: bool,
    ) -> Option<StepKind> {
        let lowered = wrappers
            .iter()
            .map(|wrapper| self.literal(scope, wrapper))
            .collect::<Result<Vec<_>, _>>();
        self.report(lowered).map(|wrappers| match place {
            ast::StripPlace::Anywhere => StepKind::StripAnywhere { wrappers },
            ast::StripPlace::Leading => StepKind::StripLeading { wrappers, if_wanted },
        })
    }

    /// The rules of a `rename` or `map`, and what is to be said of them together.
    fn group(&mut self, scope: usize, group: &ast::Group, is_map: bool, span: Span) -> Vec<Rule> {
        let mut rules = Vec::new();
        for rule in &group.rules {
            let lowered = self.rule(scope, rule, is_map);
            rules.extend(self.report(lowered));
        }
        if !self.effort.is_spent() {
            self.findings.extend(proof::group(&rules, &self.effort));
            if self.effort.is_spent() {
                self.findings.push(proof::undecided(self.scopes[scope].place(span)));
            }
        }
        rules
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
                    Diagnostic::error(UNKNOWN_RULES, why).at(place.clone(), "asked for here");
                let known = self.includes.known();
                if let Some(close) = did_you_mean(&path.text, known.iter().map(String::as_str)) {
                    diagnostic = diagnostic.meant(place, close);
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
        self.file(&parse(text), subtree, None)
    }
}
