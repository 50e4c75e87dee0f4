//! Pest's pairs to the nodes of the tree: statements, rules, clauses.
//!
//! Each function returns nothing if it has reported why. What the grammar can't say is checked
//! here: a clause given twice.

use std::sync::Arc;

use pest::iterators::Pair;

use super::lex::Lexed;
use super::{Rule, span};
use crate::diagnostic::{Diagnostic, Place, SourceText, Span, codes};
use crate::syntax::ast::{
    Arg, Arrow, Expr, Group, Ident, IfAbsent, IfPresent, OpCall, Pattern, Rule as MapRule,
    Selection, Side, SideItem, StatementKind, StringLit, StripPlace, Tail, Tie, Trivia, Unless,
};

/// What building needs to know, and where it reports.
pub(super) struct Builder<'b, 's> {
    /// For the ends of nodes.
    pub(super) lexed: &'b Lexed<'s>,
    /// The text.
    pub(super) source: &'b Arc<SourceText>,
    /// Where in the text pest started.
    pub(super) base: usize,
    /// Where to report.
    pub(super) diagnostics: &'b mut Vec<Diagnostic>,
}

type Node<'i> = Pair<'i, Rule>;

impl Builder<'_, '_> {
    /// The span of a pair, without what pest counts in at its end.
    pub(super) fn span(&self, pair: &Node<'_>) -> Span {
        let start = self.base + pair.as_span().start();
        span(start, self.lexed.trimmed_end(self.base + pair.as_span().end()).max(start))
    }

    pub(super) fn place(&self, span: Span) -> Place {
        Place::new(self.source.clone(), span)
    }

    /// Reports and gives nothing.
    pub(super) fn fail<T>(&mut self, diagnostic: Diagnostic) -> Option<T> {
        self.diagnostics.push(diagnostic);
        None
    }

    /// A statement without braces.
    pub(super) fn statement(&mut self, pair: Node<'_>) -> Option<StatementKind> {
        let span = self.span(&pair);
        let rule = pair.as_rule();
        let parts: Vec<Node<'_>> = pair.into_inner().collect();
        let has = |rule: Rule| parts.iter().any(|part| part.as_rule() == rule);
        Some(match rule {
            Rule::ruleset => self.ruleset(&parts)?,
            Rule::models => {
                let models = parts.into_iter().filter(|part| part.as_rule() == Rule::model);
                StatementKind::Models(
                    models.map(|model| self.ident_or_text(model)).collect::<Option<_>>()?,
                )
            }
            Rule::shards => self.shards(parts)?,
            Rule::separator => {
                let string = parts.iter().find(|part| part.as_rule() == Rule::string)?;
                StatementKind::Separator(self.string(string)?)
            }
            Rule::strict => StatementKind::Strict,
            Rule::use_rules => self.use_rules(parts)?,
            Rule::let_value => self.let_value(parts)?,
            Rule::strip => {
                let place =
                    if has(Rule::kw_anywhere) { StripPlace::Anywhere } else { StripPlace::Leading };
                let if_wanted = has(Rule::kw_wanted);
                StatementKind::Strip { place, wrappers: self.patterns(&parts)?, if_wanted }
            }
            Rule::prefix => StatementKind::Prefix(self.patterns(&parts)?.into_iter().next()?),
            Rule::rename | Rule::map => {
                let rule_pair = parts.into_iter().find(|part| part.as_rule() == Rule::one_rule)?;
                let group = Group {
                    braces: false,
                    rules: vec![self.rule(rule_pair)?],
                    closing_comments: Vec::new(),
                };
                if rule == Rule::map {
                    StatementKind::Map(group)
                } else {
                    StatementKind::Rename(group)
                }
            }
            Rule::drop_keys | Rule::keep_keys => {
                let selection = self
                    .selection(parts.into_iter().find(|part| part.as_rule() == Rule::selection)?)?;
                if rule == Rule::drop_keys {
                    StatementKind::Drop(selection)
                } else {
                    StatementKind::Keep(selection)
                }
            }
            Rule::cast => StatementKind::Cast {
                dtype: self.idents(&parts).into_iter().next()?,
                lossy: has(Rule::kw_lossy),
                keys: Selection { patterns: self.patterns(&parts)?, tail: self.tail(parts)? },
            },
            Rule::tie => StatementKind::Tie(self.tie(parts)?),
            Rule::create => {
                let target = self.patterns(&parts)?.into_iter().next()?;
                let value =
                    self.op(parts.iter().find(|part| part.as_rule() == Rule::made)?.clone())?;
                StatementKind::Create { target, value, tail: self.tail(parts)? }
            }
            Rule::expect => {
                let pattern = self.patterns(&parts)?.into_iter().next()?;
                let count = parts.into_iter().find(|part| part.as_rule() == Rule::expr);
                StatementKind::Expect {
                    pattern,
                    count: count.map(|count| self.expr(count)).transpose_option()?,
                }
            }
            Rule::trust => StatementKind::Trust(self.strings(&parts)?),
            Rule::example => self.example(span, parts)?,
            _ => return None,
        })
    }

    /// `ruleset`, its name, and the layouts left and right if they are given.
    fn ruleset(&self, parts: &[Node<'_>]) -> Option<StatementKind> {
        let mut names = self.idents(parts).into_iter();
        let name = names.next()?;
        let arrow = parts.iter().find(|part| part.as_rule() == Rule::arrow).map(arrow);
        let layouts = match (names.next(), arrow, names.next()) {
            (Some(left), Some(arrow), Some(right)) => Some((left, arrow, right)),
            _ => None,
        };
        Some(StatementKind::Ruleset { name, layouts })
    }

    /// `let heads = config.num_attention_heads`
    fn let_value(&mut self, parts: Vec<Pair<'_, Rule>>) -> Option<StatementKind> {
        let name = self.idents(&parts).into_iter().next()?;
        let value = parts.into_iter().find(|part| part.as_rule() == Rule::expr);
        let value = value.map(|value| self.expr(value)).transpose_option()?;
        Some(StatementKind::Let { name, value })
    }

    /// `shards`, with the bounds of the range if there is one.
    fn shards(&mut self, parts: Vec<Node<'_>>) -> Option<StatementKind> {
        let capture = self.idents(&parts).into_iter().next()?;
        let files = self.strings(&parts)?.into_iter().next()?;
        let bounds = parts.into_iter().filter(|part| part.as_rule() == Rule::expr);
        let mut bounds = bounds.map(|bound| self.expr(bound)).collect::<Option<Vec<_>>>()?;
        let range = bounds.pop().and_then(|end| Some((bounds.pop()?, end)));
        Some(StatementKind::Shards { capture, range, files })
    }

    /// `use` of an embedded file by its name, or of a file in quotes. The first text in quotes is
    /// the file unless a name came before; one after it is what the rules stand under.
    fn use_rules(&mut self, parts: Vec<Node<'_>>) -> Option<StatementKind> {
        let mut path = None;
        let mut under = None;
        let mut reversed = false;
        for part in parts {
            match part.as_rule() {
                Rule::rules_path => path = Some((self.ident(&part), false)),
                Rule::string if path.is_none() => path = Some((self.quoted_ident(&part)?, true)),
                Rule::string => under = Some(self.pattern(&part)?),
                Rule::kw_reversed => reversed = true,
                _ => {}
            }
        }
        let (path, is_file) = path?;
        Some(StatementKind::Use { path, is_file, reversed, under })
    }

    /// `example`. Only a one-way example may have nothing on its right.
    fn example(&mut self, span: Span, parts: Vec<Node<'_>>) -> Option<StatementKind> {
        let mut sides = [Vec::new(), Vec::new()];
        let mut arrow_seen = None;
        for part in parts {
            match part.as_rule() {
                Rule::arrow => arrow_seen = Some(arrow(&part)),
                Rule::strings => {
                    let strings: Vec<Node<'_>> = part.into_inner().collect();
                    sides[usize::from(arrow_seen.is_some())] = self.strings(&strings)?;
                }
                _ => {}
            }
        }
        let [left, right] = sides;
        let arrow = arrow_seen?;
        if right.is_empty() && arrow == Arrow::TwoWay {
            let message = "a key that is dropped can't come back, so its example can't be `<->`";
            let diagnostic = Diagnostic::error(codes::SYNTAX, message)
                .at(self.place(span), "nothing stands right of the arrow");
            return self.fail(diagnostic.hint("write `->`, or the key of the right layout"));
        }
        Some(StatementKind::Example { left, arrow, right })
    }

    /// The condition of a `when`.
    pub(super) fn first_expr(&mut self, pair: Node<'_>) -> Option<Expr> {
        let expr = pair.into_inner().find(|part| part.as_rule() == Rule::expr)?;
        self.expr(expr)
    }

    /// A rule of `rename` or `map`.
    pub(super) fn rule(&mut self, pair: Node<'_>) -> Option<MapRule> {
        let span = self.span(&pair);
        let (mut sources, mut targets) = (Vec::new(), Vec::new());
        let mut arrow_seen = None;
        let mut via: Option<(Vec<OpCall>, Span)> = None;
        let mut alone: Option<Span> = None;
        let mut clauses = Vec::new();
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::source => sources.push(self.side(part)?),
                Rule::target => targets.push(self.side(part)?),
                Rule::arrow => arrow_seen = Some(arrow(&part)),
                Rule::rule_clause => {
                    let clause = part.into_inner().next()?;
                    let at = self.span(&clause);
                    if clause.as_rule() == Rule::kw_alone {
                        if let Some(first) = alone.replace(at) {
                            return self.twice("alone", first, at, "leave one out");
                        }
                        continue;
                    }
                    if clause.as_rule() != Rule::via {
                        clauses.push(clause);
                        continue;
                    }
                    let ops = self.ops(clause)?;
                    if let Some((_, first)) = &via {
                        return self.twice("via", *first, at, "join the ops with `|`");
                    }
                    via = Some((ops, at));
                }
                _ => {}
            }
        }
        let via = via.map(|(ops, _)| ops).unwrap_or_default();
        let tail = self.tail(clauses)?;
        Some(MapRule {
            trivia: Trivia::default(),
            sources,
            arrow: arrow_seen?,
            targets,
            via,
            alone: alone.is_some(),
            tail,
            span,
        })
    }

    fn side(&mut self, pair: Node<'_>) -> Option<Side> {
        let span = self.span(&pair);
        let (mut item, mut ops, mut optional) = (None, Vec::new(), false);
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::side_item => item = Some(self.side_item(part.into_inner().next()?)?),
                Rule::own_ops => ops = self.ops(part)?,
                Rule::kw_optional => optional = true,
                _ => {}
            }
        }
        Some(Side { item: item?, ops, optional, span })
    }

    fn side_item(&mut self, pair: Node<'_>) -> Option<SideItem> {
        Some(match pair.as_rule() {
            Rule::string => SideItem::Pattern(self.pattern(&pair)?),
            Rule::regex => SideItem::Regex(StringLit {
                text: regex_text(pair.as_str()),
                span: self.span(&pair),
            }),
            _ => SideItem::Made(self.op(pair)?),
        })
    }

    fn ops(&mut self, pair: Node<'_>) -> Option<Vec<OpCall>> {
        pair.into_inner().filter(|part| part.as_rule() == Rule::op).map(|op| self.op(op)).collect()
    }

    /// `stack(e)`, as an op or as a made tensor.
    fn op(&mut self, pair: Node<'_>) -> Option<OpCall> {
        let span = self.span(&pair);
        let mut name = None;
        let mut args = Vec::new();
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::op_name => name = Some(self.ident(&part)),
                Rule::args => {
                    for arg in part.into_inner().filter(|arg| arg.as_rule() == Rule::arg) {
                        args.push(self.arg(arg)?);
                    }
                }
                _ => {}
            }
        }
        Some(OpCall { name: name?, args, span })
    }

    fn arg(&mut self, pair: Node<'_>) -> Option<Arg> {
        let (mut first, mut last, mut dots) = (None, None, false);
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::over => {
                    let name = part.into_inner().find(|part| part.as_rule() == Rule::ident)?;
                    return Some(Arg::Over(self.ident(&name)));
                }
                Rule::dots => dots = true,
                Rule::expr if dots => last = Some(self.expr(part)?),
                Rule::expr => first = Some(self.expr(part)?),
                _ => {}
            }
        }
        if dots { Some(Arg::Range(first, last)) } else { Some(Arg::Value(first?)) }
    }

    fn selection(&mut self, pair: Node<'_>) -> Option<Selection> {
        let parts: Vec<Node<'_>> = pair.into_inner().collect();
        Some(Selection { patterns: self.patterns(&parts)?, tail: self.tail(parts)? })
    }

    /// The clauses among some pairs, each at most once.
    fn tail(&mut self, parts: Vec<Node<'_>>) -> Option<Tail> {
        let mut tail = Tail::default();
        let mut seen: Vec<(&str, Span)> = Vec::new();
        for part in parts.into_iter().filter(|part| part.as_rule() == Rule::tail_clause) {
            let clause = part.into_inner().next()?;
            let at = self.span(&clause);
            let (word, advice) = match clause.as_rule() {
                Rule::unless => ("unless", "separate its patterns with commas"),
                Rule::where_clause => ("where", "join the conditions with `and`"),
                _ => ("optional", "leave one out"),
            };
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == word) {
                return self.twice(word, *first, at, advice);
            }
            seen.push((word, at));
            match clause.as_rule() {
                Rule::unless => {
                    for item in
                        clause.into_inner().filter(|part| part.as_rule() == Rule::unless_item)
                    {
                        let parts: Vec<Node<'_>> = item.into_inner().collect();
                        let target = parts.iter().any(|part| part.as_rule() == Rule::kw_target);
                        tail.unless.push(Unless {
                            target,
                            pattern: self.patterns(&parts)?.into_iter().next()?,
                        });
                    }
                }
                Rule::where_clause => tail.condition = Some(self.first_expr(clause)?),
                _ => tail.optional = true,
            }
        }
        Some(tail)
    }

    fn tie(&mut self, parts: Vec<Node<'_>>) -> Option<Tie> {
        let (mut targets, mut sources) = (Vec::new(), Vec::new());
        let (mut condition, mut present, mut absent) = (None, None, None);
        let (mut from, mut inverted) = (false, false);
        let mut seen: Vec<(&str, Span)> = Vec::new();
        for part in parts {
            match part.as_rule() {
                Rule::kw_from => from = true,
                Rule::kw_untie => inverted = true,
                Rule::string if from => sources.push(self.pattern(&part)?),
                Rule::string => targets.push(self.pattern(&part)?),
                Rule::tie_clause => {
                    let clause = part.into_inner().next()?;
                    let at = self.span(&clause);
                    let word = match clause.as_rule() {
                        Rule::tie_when => "when",
                        Rule::if_present => "if present",
                        _ => "if absent",
                    };
                    if let Some((_, first)) = seen.iter().find(|(other, _)| *other == word) {
                        return self.twice(word, *first, at, "leave one out");
                    }
                    seen.push((word, at));
                    match clause.as_rule() {
                        Rule::tie_when => condition = Some(self.first_expr(clause)?),
                        Rule::if_present => {
                            present =
                                clause.into_inner().find_map(|part| if_present(part.as_rule()))
                        }
                        _ => {
                            absent = clause.into_inner().find_map(|part| if_absent(part.as_rule()))
                        }
                    }
                }
                _ => {}
            }
        }
        Some(Tie { inverted, targets, sources, condition, present, absent })
    }

    fn twice<T>(&mut self, word: &str, first: Span, second: Span, advice: &str) -> Option<T> {
        let diagnostic = Diagnostic::error(codes::SYNTAX, format!("`{word}` is given twice"))
            .at(self.place(second), "again here")
            .label(self.place(first), "first here")
            .hint(advice);
        self.fail(diagnostic)
    }

    fn patterns(&mut self, parts: &[Node<'_>]) -> Option<Vec<Pattern>> {
        parts
            .iter()
            .filter(|part| part.as_rule() == Rule::string)
            .map(|part| self.pattern(part))
            .collect()
    }

    fn strings(&mut self, parts: &[Node<'_>]) -> Option<Vec<StringLit>> {
        parts
            .iter()
            .filter(|part| part.as_rule() == Rule::string)
            .map(|part| self.string(part))
            .collect()
    }

    fn idents(&self, parts: &[Node<'_>]) -> Vec<Ident> {
        parts
            .iter()
            .filter(|part| part.as_rule() == Rule::ident)
            .map(|part| self.ident(part))
            .collect()
    }

    pub(super) fn ident(&self, pair: &Node<'_>) -> Ident {
        Ident { text: pair.as_str().to_owned(), span: self.span(pair) }
    }

    fn quoted_ident(&mut self, pair: &Node<'_>) -> Option<Ident> {
        let string = self.string(pair)?;
        if string.text.is_empty() {
            return self.fail(
                Diagnostic::error(codes::SYNTAX, "a name is empty")
                    .at(self.place(string.span), "nothing in these quotes"),
            );
        }
        Some(Ident { text: string.text, span: string.span })
    }

    fn ident_or_text(&mut self, pair: Node<'_>) -> Option<Ident> {
        let inner = pair.into_inner().next()?;
        if inner.as_rule() == Rule::string {
            self.quoted_ident(&inner)
        } else {
            Some(self.ident(&inner))
        }
    }

    /// A string with its escapes resolved.
    pub(super) fn string(&mut self, pair: &Node<'_>) -> Option<StringLit> {
        let at = self.span(pair);
        let quoted = pair.as_str();
        let mut text = String::with_capacity(quoted.len());
        let mut chars =
            quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().char_indices();
        while let Some((offset, c)) = chars.next() {
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some((_, c @ ('{' | '}' | '"' | '\\' | '*' | '.'))) => text.push(c),
                other => {
                    let start = at.start as usize + 1 + offset;
                    let escape = span(start, start + 1 + other.map_or(0, |(_, c)| c.len_utf8()));
                    return self.fail(unknown_escape(self.place(escape)));
                }
            }
        }
        Some(StringLit { text, span: at })
    }
}

/// For a backslash before a character that needs none.
pub(super) fn unknown_escape(place: Place) -> Diagnostic {
    Diagnostic::error(codes::SYNTAX, "an escape that the language doesn't have")
        .at(place, "unknown escape")
        .hint(
            r#"the escapes are `\{`, `\}`, `\"`, `\\`, `\*` and `\.`; a backslash itself is `\\`"#,
        )
}

fn arrow(pair: &Node<'_>) -> Arrow {
    if pair.as_str().starts_with("<->") { Arrow::TwoWay } else { Arrow::OneWay }
}

/// The text between slashes, with `\/` as a slash; other escapes are the regex's own.
fn regex_text(literal: &str) -> String {
    let mut text = String::with_capacity(literal.len());
    let mut chars = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default().chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('/')) => text.push('/'),
            ('\\', Some(escaped)) => text.extend(['\\', escaped]),
            _ => text.push(c),
        }
    }
    text
}

fn if_present(rule: Rule) -> Option<IfPresent> {
    match rule {
        Rule::kw_keep => Some(IfPresent::Keep),
        Rule::kw_alias => Some(IfPresent::Alias),
        Rule::kw_require => Some(IfPresent::Require),
        _ => None,
    }
}

fn if_absent(rule: Rule) -> Option<IfAbsent> {
    match rule {
        Rule::kw_skip => Some(IfAbsent::Skip),
        Rule::kw_fallback => Some(IfAbsent::Fallback),
        Rule::kw_error => Some(IfAbsent::Error),
        _ => None,
    }
}

/// An option of an option, as a failure and an absence are told apart here.
trait TransposeOption<T> {
    fn transpose_option(self) -> Option<Option<T>>;
}

impl<T> TransposeOption<T> for Option<Option<T>> {
    fn transpose_option(self) -> Option<Option<T>> {
        match self {
            Some(inner) => inner.map(Some),
            None => Some(None),
        }
    }
}
