//! Statements about single keys: which are selected, what ties them, what is made, and the names in
//! conditions.

use std::sync::Arc;

use super::Checker;
use crate::check::capture::{SideOf, Table};
use crate::check::facts::misplaced;
use crate::check::keys::Keys;
use crate::check::op::{self};
use crate::check::rules::{Capture, Selection, StepKind, Tie};
use crate::check::sight::{Sight, undefined};
use crate::check::{resolve_alone, resolve_within};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::BAD_PATTERN;
use crate::key::Pattern;
use crate::syntax::ast::{self, Expr, ExprKind, IfAbsent, IfPresent, Segment};

impl Checker<'_> {
    /// A pattern of literal segments only.
    pub(super) fn literal(
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

    pub(super) fn check_names(&mut self, scope: usize, expr: &Expr, sight: Sight<'_>) {
        self.findings.extend(undefined(&self.scopes[scope], expr, sight));
        self.findings.extend(misplaced(&self.scopes[scope], expr));
    }

    /// The patterns that a condition asks for must mean something beside the captures in its sight.
    pub(super) fn check_exists(&mut self, scope: usize, expr: &Expr, known: &[Capture]) {
        let mut failed = Vec::new();
        expr.walk(&mut |part| {
            if let ExprKind::Exists(pattern) = &part.kind {
                failed.extend(resolve_within(&self.scopes[scope], pattern, known).err());
            }
        });
        self.findings.extend(failed.into_iter().map(|diagnostic| *diagnostic));
    }

    pub(super) fn selection(&mut self, scope: usize, keys: &ast::Selection) -> Option<Selection> {
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

    pub(super) fn tie(&self, scope: usize, tie: &ast::Tie) -> Result<Tie, Box<Diagnostic>> {
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
        let (captures, numbers) = table.finish();
        let (captures, numbers): (Arc<[Capture]>, Arc<[_]>) = (captures.into(), numbers.into());
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
            let keys = |pattern| Keys::new(pattern, Arc::clone(&captures), Arc::clone(&numbers));
            patterns.into_iter().map(keys).collect()
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

    pub(super) fn create(
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
            .any(|capture| !matches!(&capture.kind, crate::check::CaptureKind::Index(Some(_))))
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
        if !keys.captures().is_empty() || !keys.numbers().is_empty() {
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
            made: op::made(value, &self.scopes[scope], false)?,
            unless: unless.collect::<Result<_, Box<_>>>()?,
        })
    }
}
