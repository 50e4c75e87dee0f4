//! `shards`: how the files of the left layout are named, which are those of ranks.

use super::Checker;
use crate::check::rules::Shards;
use crate::check::sight::Sight;
use crate::diagnostic::codes::{BAD_PATTERN, DUPLICATE};
use crate::diagnostic::{Diagnostic, Span};
use crate::key::RankFiles;
use crate::syntax::ast::{self, Expr, StatementKind};

impl Checker<'_> {
    /// The `shards` of a file. What a file says that is used counts for the one that uses it, unless
    /// that says it itself.
    pub(super) fn shards_of(&mut self, scope: usize, statements: &[ast::Statement]) {
        let mut own: Option<Shards> = None;
        for statement in statements {
            let StatementKind::Shards { capture, range, files } = &statement.kind else { continue };
            let shards = self.shards(scope, capture, range.as_ref(), files, statement.span);
            let Some(shards) = self.report(shards) else { continue };
            if let Some(first) = own.replace(shards) {
                self.two_shards(statement.span, scope, &first);
            }
        }
        let depth = self.open.len();
        let Some(own) = own.filter(|_| self.apart == 0 && self.scopes[scope].under.is_empty())
        else {
            return;
        };
        match &self.shards {
            Some((_, outer)) if *outer < depth => {}
            Some((other, same)) if *same == depth && other.files != own.files => {
                let (span, other) = (own.place.span, other.clone());
                self.two_shards(span, scope, &other);
            }
            _ => self.shards = Some((own, depth)),
        }
    }

    /// Reads what is not the left layout as a whole, if it `is` so.
    pub(super) fn apart<T>(&mut self, is: bool, read: impl FnOnce(&mut Self) -> T) -> T {
        self.apart += usize::from(is);
        let found = read(self);
        self.apart -= usize::from(is);
        found
    }

    fn two_shards(&mut self, second: Span, scope: usize, first: &Shards) {
        let finding = Diagnostic::error(DUPLICATE, "rules have one `shards` statement");
        let place = self.scopes[scope].place(second);
        self.findings.push(finding.at(place, "the second").label(first.place.clone(), "the first"));
    }

    /// A name that files can have, and a range that can be worked out.
    fn shards(
        &mut self,
        scope: usize,
        capture: &ast::Ident,
        range: Option<&(Expr, Expr)>,
        files: &ast::StringLit,
        span: Span,
    ) -> Result<Shards, Box<Diagnostic>> {
        for bound in range.iter().flat_map(|(start, end)| [start, end]) {
            self.check_names(scope, bound, Sight::Nothing);
        }
        let found = &self.scopes[scope];
        let files = RankFiles::parse(&files.text, &capture.text).map_err(|because| {
            Box::new(
                Diagnostic::error(BAD_PATTERN, "this can't be the name of a rank's file")
                    .at(found.place(files.span), "here")
                    .hint(because.to_string()),
            )
        })?;
        Ok(Shards { files, range: range.cloned(), scope, place: found.place(span) })
    }
}
