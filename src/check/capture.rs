//! Captures: what each name of a rule captures, and patterns with their captures turned into slots.

use std::ops::Range;

use crate::diagnostic::codes::{BAD_PATTERN, CAPTURE_CONFLICT, LIMIT};
use crate::diagnostic::{Diagnostic, Span};
use crate::key::{Atom, Number, Part, Pattern, Slot};
use crate::syntax::ast;
use crate::syntax::ast::{Arrow, BinaryOp, Expr, ExprKind, Segment};

use super::number::Calculated;
use super::rules::{Capture, CaptureKind};
use super::value::{Scope, names, with_nothing};

/// Which side of the arrow a pattern stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SideOf {
    Left,
    Right,
}

/// The captures of one rule while it is read: first every pattern is declared, then each is
/// resolved.
pub(super) struct Table<'a> {
    scope: &'a Scope,
    names: Vec<Name>,
    /// Whether some pattern of the rule starts, or ends, with an unnamed `**` besides other
    /// segments.
    leading: bool,
    trailing: bool,
    /// Names in arithmetic that a `let` has: captures only if the rule has such a one elsewhere.
    open: Vec<(String, Span, SideOf)>,
    /// The calculated numbers so far.
    numbers: Vec<Calculated>,
    /// Whether the right side is never matched.
    one_way: bool,
}

struct Name {
    text: String,
    kind: Option<Kind>,
    span: Span,
    left: bool,
    right: bool,
}

enum Kind {
    Index { range: Option<(Expr, Expr)>, only_bare: bool },
    Chars,
    Rest,
    Words { here: Vec<String>, there: Vec<String>, side: SideOf },
}

const LEADING: &str = "**.";
const TRAILING: &str = ".**";

impl<'a> Table<'a> {
    pub(super) fn new(scope: &'a Scope) -> Self {
        Self {
            scope,
            names: Vec::new(),
            leading: false,
            trailing: false,
            open: Vec::new(),
            numbers: Vec::new(),
            one_way: false,
        }
    }

    /// For a rule.
    pub(super) fn of_rule(scope: &'a Scope, arrow: Arrow) -> Self {
        Self { one_way: arrow == Arrow::OneWay, ..Self::new(scope) }
    }

    /// In sight of the captures of a rule: those that have a name have the first slots.
    pub(super) fn within(scope: &'a Scope, known: &[Capture], span: Span) -> Self {
        let names = known.iter().map(|capture| Name {
            text: if capture.is_named() { capture.name.clone() } else { String::new() },
            kind: Some(match &capture.kind {
                CaptureKind::Index(range) => Kind::Index { range: range.clone(), only_bare: false },
                CaptureKind::Chars => Kind::Chars,
                CaptureKind::Rest => Kind::Rest,
                CaptureKind::Words { left, right } => {
                    Kind::Words { here: left.clone(), there: right.clone(), side: SideOf::Left }
                }
            }),
            span,
            left: false,
            right: false,
        });
        Self { names: names.collect(), ..Self::new(scope) }
    }

    /// Takes in the captures of a pattern.
    pub(super) fn declare(
        &mut self,
        pattern: &ast::Pattern,
        side: SideOf,
    ) -> Result<(), Box<Diagnostic>> {
        let last = pattern.segments.len().saturating_sub(1);
        for (at, segment) in pattern.segments.iter().enumerate() {
            match segment {
                Segment::Rest { name: None, .. } if last == 0 => {}
                Segment::Rest { name: None, .. } if at == 0 => self.leading = true,
                Segment::Rest { name: None, .. } if at == last => self.trailing = true,
                Segment::Rest { name: None, span } => {
                    return Err(self.bad(
                        *span,
                        "an unnamed `**` stands only at the start or the end",
                        "name it: {path**}",
                    ));
                }
                Segment::Rest { name: Some(name), span } => {
                    self.note(&name.text, *span, side, Kind::Rest)?
                }
                Segment::Atoms(atoms) => self.declare_atoms(atoms, side)?,
            }
        }
        Ok(())
    }

    /// Takes in a group of a regex.
    pub(super) fn declare_group(&mut self, name: &str, span: Span) -> Result<(), Box<Diagnostic>> {
        self.note(name, span, SideOf::Left, Kind::Chars)
    }

    /// Where each capture ends must be told by what follows it.
    fn ends_are_plain(&self, atoms: &[ast::Atom]) -> Result<(), Box<Diagnostic>> {
        for pair in atoms.windows(2) {
            if let [ast::Atom::Capture(first), second] = pair {
                let joined = match (&first.kind, second) {
                    (kind, ast::Atom::Text(text)) if is_number(kind) => {
                        text.starts_with(|c: char| c.is_ascii_digit())
                    }
                    (kind, ast::Atom::Capture(next)) if is_number(kind) => is_number(&next.kind),
                    (ast::CaptureKind::Text { .. }, ast::Atom::Capture(next)) => {
                        !matches!(next.kind, ast::CaptureKind::Words { .. })
                    }
                    _ => false,
                };
                if joined {
                    return Err(self.bad(
                        first.span,
                        "where this capture ends can't be told from what follows it",
                        "put text between them that neither can contain",
                    ));
                }
            }
        }
        Ok(())
    }

    fn declare_atoms(&mut self, atoms: &[ast::Atom], side: SideOf) -> Result<(), Box<Diagnostic>> {
        self.ends_are_plain(atoms)?;
        for atom in atoms {
            let ast::Atom::Capture(capture) = atom else { continue };
            match &capture.kind {
                ast::CaptureKind::Index { name, mul, add, range } => {
                    let bare = (*mul, *add) == (1, 0) || range.is_some();
                    if !bare && self.scope.lets.contains_key(&name.text) {
                        self.open.push((name.text.clone(), capture.span, side));
                        continue;
                    }
                    self.note(
                        &name.text,
                        capture.span,
                        side,
                        Kind::Index { range: range.clone(), only_bare: range.is_none() },
                    )?;
                }
                ast::CaptureKind::Text { name } => {
                    self.note(&name.text, capture.span, side, Kind::Chars)?
                }
                ast::CaptureKind::Words { name, words } => {
                    let here: Vec<String> = words.iter().map(|(word, _)| word.clone()).collect();
                    let there: Vec<String> = words
                        .iter()
                        .map(|(word, partner)| partner.as_ref().unwrap_or(word).clone())
                        .collect();
                    for (at, word) in here.iter().enumerate() {
                        if here[..at].contains(word) {
                            return Err(self.bad(
                                capture.span,
                                &format!("the word `{word}` stands here twice"),
                                "write each word once",
                            ));
                        }
                    }
                    if here.len() > usize::from(u16::MAX) {
                        return Err(Box::new(
                            Diagnostic::error(LIMIT, "too many words")
                                .at(self.scope.place(capture.span), "here"),
                        ));
                    }
                    self.note(&name.text, capture.span, side, Kind::Words { here, there, side })?;
                }
                ast::CaptureKind::Calculated(expr) => {
                    let mut found = Vec::new();
                    names(expr, &mut found);
                    for (name, _) in found {
                        if self.scope.lets.contains_key(name) {
                            self.open.push((name.to_owned(), capture.span, side));
                        } else {
                            let kind = Kind::Index { range: None, only_bare: false };
                            self.note(name, capture.span, side, kind)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn note(
        &mut self,
        text: &str,
        span: Span,
        side: SideOf,
        kind: Kind,
    ) -> Result<(), Box<Diagnostic>> {
        let scope = self.scope;
        let Some(name) = self.names.iter_mut().find(|name| name.text == text) else {
            let (left, right) = (side == SideOf::Left, side == SideOf::Right);
            self.names.push(Name { text: text.to_owned(), kind: Some(kind), span, left, right });
            return Ok(());
        };
        match side {
            SideOf::Left => name.left = true,
            SideOf::Right => name.right = true,
        }
        let first = name.span;
        let conflict = || {
            Box::new(
                Diagnostic::error(
                    CAPTURE_CONFLICT,
                    format!("the capture `{text}` is written in two ways"),
                )
                .at(scope.place(span), "here")
                .label(scope.place(first), "and here")
                .hint("a capture has one form; elsewhere in the rule write just its name"),
            )
        };
        let merged = match (name.kind.take(), kind) {
            (Some(Kind::Index { range: Some(a), .. }), Kind::Index { range: Some(b), .. }) => {
                if a != b {
                    return Err(conflict());
                }
                Kind::Index { range: Some(a), only_bare: false }
            }
            (
                Some(Kind::Index { range: a, only_bare }),
                Kind::Index { range: b, only_bare: bare },
            ) => Kind::Index { range: a.or(b), only_bare: only_bare && bare },
            // A bare `{x}` takes the form that the other place declares.
            (
                Some(Kind::Index { range: None, only_bare: true }),
                other @ (Kind::Chars | Kind::Words { .. } | Kind::Rest),
            ) => other,
            (
                Some(other @ (Kind::Chars | Kind::Words { .. } | Kind::Rest)),
                Kind::Index { range: None, only_bare: true },
            ) => other,
            (Some(Kind::Chars), Kind::Chars) => Kind::Chars,
            (Some(Kind::Rest), Kind::Rest) => Kind::Rest,
            (
                Some(Kind::Words { here, there, side }),
                Kind::Words { here: other_here, there: other_there, side: other_side },
            ) => {
                let same = if side == other_side {
                    here == other_here && there == other_there
                } else {
                    here == other_there && there == other_here
                };
                if !same {
                    return Err(conflict());
                }
                Kind::Words { here, there, side }
            }
            _ => return Err(conflict()),
        };
        name.kind = Some(merged);
        Ok(())
    }

    fn bad(&self, span: Span, message: &str, hint: &str) -> Box<Diagnostic> {
        Box::new(
            Diagnostic::error(BAD_PATTERN, message.to_owned())
                .at(self.scope.place(span), "here")
                .hint(hint.to_owned()),
        )
    }

    fn intern(&mut self, text: &str, kind: Kind, span: Span, side: SideOf) -> Slot {
        let at = match self.names.iter().position(|name| name.text == text) {
            Some(at) => at,
            None => {
                self.names.push(Name {
                    text: text.to_owned(),
                    kind: Some(kind),
                    span,
                    left: false,
                    right: false,
                });
                self.names.len() - 1
            }
        };
        match side {
            SideOf::Left => self.names[at].left = true,
            SideOf::Right => self.names[at].right = true,
        }
        #[allow(clippy::cast_possible_truncation)]
        Slot(at as u16)
    }

    /// Once all patterns are declared: which names of `let`s are captures.
    fn settle(&mut self) -> Result<(), Box<Diagnostic>> {
        for (name, span, side) in std::mem::take(&mut self.open) {
            if self.slot(&name).is_some() {
                self.note(&name, span, side, Kind::Index { range: None, only_bare: false })?;
            }
        }
        Ok(())
    }

    /// The slot of a name that was declared.
    pub(super) fn slot(&self, text: &str) -> Option<Slot> {
        let at = self.names.iter().position(|name| name.text == text)?;
        u16::try_from(at).ok().map(Slot)
    }

    /// A pattern with slots, below the scope's subtree.
    pub(super) fn resolve(
        &mut self,
        pattern: &ast::Pattern,
        side: SideOf,
    ) -> Result<Pattern, Box<Diagnostic>> {
        self.settle()?;
        let mut parts: Vec<Part> =
            self.scope.under.iter().map(|segment| Part::Literal(segment.as_str().into())).collect();
        let last = pattern.segments.len().saturating_sub(1);
        for (at, segment) in pattern.segments.iter().enumerate() {
            match segment {
                Segment::Rest { name: None, span } => {
                    // A pattern that is nothing but `**` goes with the end of the other patterns,
                    // or with their start.
                    let leading = if last == 0 { self.leading && !self.trailing } else { at == 0 };
                    parts.push(Part::Rest(self.intern(
                        if leading { LEADING } else { TRAILING },
                        Kind::Rest,
                        *span,
                        side,
                    )));
                }
                Segment::Rest { name: Some(name), span } => {
                    parts.push(Part::Rest(self.intern(&name.text, Kind::Rest, *span, side)))
                }
                // A bare `{path}` is whole segments where the other place says so.
                Segment::Atoms(atoms) if let Some(slot) = self.bare_rest(atoms, side) => {
                    parts.push(Part::Rest(slot))
                }
                Segment::Atoms(atoms) => {
                    let atoms = atoms
                        .iter()
                        .map(|atom| self.atom(atom, side))
                        .collect::<Result<Vec<_>, _>>()?;
                    parts.push(Part::Segment(atoms.into()));
                }
            }
        }
        if parts.iter().filter(|part| part.is_wide()).count() > 4 {
            return Err(Box::new(
                Diagnostic::error(LIMIT, "more than four `**`, or words with dots, in one pattern")
                    .at(self.scope.place(pattern.span), "here"),
            ));
        }
        Ok(Pattern::new(parts))
    }

    /// The slot of a segment that is nothing but the name of whole segments.
    fn bare_rest(&mut self, atoms: &[ast::Atom], side: SideOf) -> Option<Slot> {
        let [ast::Atom::Capture(capture)] = atoms else { return None };
        let ast::CaptureKind::Index { name, mul: 1, add: 0, range: None } = &capture.kind else {
            return None;
        };
        let known = self
            .names
            .iter()
            .any(|known| known.text == name.text && matches!(known.kind, Some(Kind::Rest)));
        known.then(|| self.intern(&name.text, Kind::Rest, capture.span, side))
    }

    fn atom(&mut self, atom: &ast::Atom, side: SideOf) -> Result<Atom, Box<Diagnostic>> {
        let capture = match atom {
            // A dot within a segment of the left layout stands where the separator is elsewhere.
            ast::Atom::Text(text) => {
                return Ok(Atom::Text(match self.scope.separator {
                    Some(separator) if side == SideOf::Left => {
                        text.replace('.', separator.encode_utf8(&mut [0; 4])).into()
                    }
                    _ => text.as_str().into(),
                }));
            }
            ast::Atom::Capture(capture) => capture,
        };
        let (name, mul, add) = match &capture.kind {
            ast::CaptureKind::Index { name, mul, add, .. } if self.slot(&name.text).is_none() => {
                let name = Expr { kind: ExprKind::Name(name.text.clone()), span: name.span };
                return self.calculated(affine(name, *mul, *add), capture.span, side);
            }
            ast::CaptureKind::Index { name, mul, add, .. } => (name, *mul, *add),
            ast::CaptureKind::Text { name } | ast::CaptureKind::Words { name, .. } => (name, 1, 0),
            ast::CaptureKind::Calculated(expr) => {
                return self.calculated(expr.clone(), capture.span, side);
            }
        };
        let Some(slot) = self.slot(&name.text) else {
            return Err(self.bad(
                capture.span,
                &format!("the capture `{}` is not known here", name.text),
                "bind it on the left",
            ));
        };
        let known = &mut self.names[usize::from(slot.0)];
        match side {
            SideOf::Left => known.left = true,
            SideOf::Right => known.right = true,
        }
        match &known.kind {
            Some(Kind::Words { here, there, side: declared }) => {
                if (mul, add) != (1, 0) {
                    return Err(self.bad(
                        capture.span,
                        "words can't be calculated with",
                        "write just the name",
                    ));
                }
                let words = if *declared == side { here } else { there };
                Ok(Atom::Words {
                    slot,
                    words: words.iter().map(|word| word.as_str().into()).collect(),
                })
            }
            Some(Kind::Chars) => {
                if (mul, add) != (1, 0) {
                    return Err(self.bad(
                        capture.span,
                        "text can't be calculated with",
                        "write just the name",
                    ));
                }
                Ok(Atom::Chars(slot))
            }
            Some(Kind::Rest) => Err(self.bad(
                capture.span,
                "this capture holds whole segments",
                &format!("give it a segment of its own: {{{}}}", name.text),
            )),
            _ => Ok(Atom::Index { slot, mul, add, range: None }),
        }
    }

    /// A number that is calculated: known already, where no config can change it.
    fn calculated(
        &mut self,
        expr: Expr,
        span: Span,
        side: SideOf,
    ) -> Result<Atom, Box<Diagnostic>> {
        let solved = side == SideOf::Left || !self.one_way;
        let number = Calculated::new(expr, span, solved, &|name| self.slot(name), self.scope)?;
        for slot in number.slots() {
            let known = &mut self.names[usize::from(slot.0)];
            match side {
                SideOf::Left => known.left = true,
                SideOf::Right => known.right = true,
            }
            if !matches!(known.kind, Some(Kind::Index { .. })) {
                let message =
                    format!("`{}` is no number, so it can't be calculated with", known.text);
                return Err(self.bad(span, &message, "write just its name"));
            }
        }
        let which = u16::try_from(self.numbers.len()).map_err(|_| {
            let finding = Diagnostic::error(LIMIT, "too many calculated numbers");
            Box::new(finding.at(self.scope.place(span), "here"))
        })?;
        let slots = number.slots();
        let unknown = Atom::Calculated { which, slots, number: Number::Unknown };
        let atom = match self.literal_ranges(&number) {
            Some(ranges) => {
                with_nothing(|nothing| number.atom(which, &ranges, self.scope, nothing))?
            }
            None => unknown,
        };
        if matches!(atom, Atom::Calculated { .. }) {
            self.numbers.push(number);
        }
        Ok(atom)
    }

    /// The ranges of captures, by slot, if they and the number are written in literals.
    fn literal_ranges(&self, number: &Calculated) -> Option<Vec<Option<Range<u64>>>> {
        let mut found = vec![None; self.names.len()];
        for slot in number.slots() {
            let at = usize::from(slot.0);
            if let Some(Kind::Index { range: Some((first, last)), .. }) = &self.names[at].kind {
                let (ExprKind::Int(first), ExprKind::Int(last)) = (&first.kind, &last.kind) else {
                    return None;
                };
                found[at] = Some(u64::try_from(*first).ok()?..u64::try_from(*last).ok()?);
            }
        }
        (!number.is_open()).then_some(found)
    }

    /// The captures, by slot, and the numbers that are calculated.
    pub(super) fn finish(self) -> (Vec<Capture>, Vec<Calculated>) {
        let captures = self
            .names
            .into_iter()
            .map(|name| {
                let kind = match name.kind {
                    Some(Kind::Index { range, .. }) => CaptureKind::Index(range),
                    Some(Kind::Rest) => CaptureKind::Rest,
                    Some(Kind::Words { here, there, side: SideOf::Left }) => {
                        CaptureKind::Words { left: here, right: there }
                    }
                    Some(Kind::Words { here, there, side: SideOf::Right }) => {
                        CaptureKind::Words { left: there, right: here }
                    }
                    Some(Kind::Chars) | None => CaptureKind::Chars,
                };
                Capture { name: name.text, kind, left: name.left, right: name.right }
            })
            .collect();
        (captures, self.numbers)
    }
}

/// Whether a capture takes digits.
fn is_number(kind: &ast::CaptureKind) -> bool {
    matches!(kind, ast::CaptureKind::Index { .. } | ast::CaptureKind::Calculated(_))
}

/// `mul * name + add`
fn affine(name: Expr, mul: i64, add: i64) -> Expr {
    let span = name.span;
    let number = |value| Expr { kind: ExprKind::Int(value), span };
    let both = |op, left, right| Expr {
        kind: ExprKind::Binary(op, Box::new(left), Box::new(right)),
        span,
    };
    both(BinaryOp::Add, both(BinaryOp::Mul, number(mul), name), number(add))
}
