//! What to say about text that doesn't parse: in the language's words, with the fix.

use std::sync::Arc;

use pest::error::{Error, ErrorVariant, InputLocation};

use super::lex::{Lexed, MAX_NESTING, Token, TokenKind};
use super::words::{self, STATEMENTS};
use super::{Rule, pattern::at, span};
use crate::diagnostic::{Diagnostic, Place, SourceText, codes, did_you_mean};

/// Words of other languages, and what they are here.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("include", "use"),
    ("import", "use"),
    ("if", "when"),
    ("delete", "drop"),
    ("remove", "drop"),
    ("merge", "map"),
    ("replace", "rename"),
    ("set", "let"),
    ("alias", "tie"),
    ("assert", "expect"),
    ("test", "example"),
];

/// Clauses: words that come after the start of a statement.
const CLAUSES: &[&str] = &[
    "via", "unless", "where", "optional", "alone", "from", "under", "count", "to", "lossy", "else",
    "over", "target",
];

/// Whether a word is more like the keyword of a statement than like a clause.
pub(super) fn like_statement(word: &str) -> bool {
    did_you_mean(word, CLAUSES.iter().copied()).is_none()
}

/// Where pest stopped, what it expected, and what stands there.
pub(super) struct Mismatch<'r> {
    lexed: &'r Lexed<'r>,
    source: &'r Arc<SourceText>,
    expected: Vec<&'static str>,
    rules: Vec<Rule>,
    /// The index of the token that doesn't fit; the number of tokens at the end.
    index: usize,
    /// Whether that is beyond the end of the statement.
    past_end: bool,
}

impl<'r> Mismatch<'r> {
    /// From an error of pest, over a text that starts at `base` and ends at `limit`.
    pub(super) fn new(
        lexed: &'r Lexed<'r>,
        source: &'r Arc<SourceText>,
        base: usize,
        error: &Error<Rule>,
        limit: usize,
    ) -> Self {
        let rules = expected(error);
        let position = base + position(error);
        let mut index = lexed.index_at(position);
        // Pest may stop inside a token: within `configx`, say.
        if let Some(before) = index.checked_sub(1).and_then(|before| lexed.get(before))
            && before.end > position
        {
            index -= 1;
        }
        let past_end = lexed.get(index).is_none_or(|token| token.start >= limit);
        Self { lexed, source, expected: words::expected(&rules), rules, index, past_end }
    }

    /// The message.
    pub(super) fn diagnostic(self) -> Diagnostic {
        let token = self.lexed.get(self.index).filter(|_| !self.past_end);
        let word = if self.past_end { "" } else { self.lexed.word(self.index) };
        let expected = words::either(&self.expected);
        let Some(token) = token else {
            let before = self.index.checked_sub(1).and_then(|before| self.lexed.get(before));
            let place =
                self.place(before.map_or(span(0, 0), |before| span(before.start, before.end)));
            if self.expects(Rule::arrow) {
                let diagnostic = Diagnostic::error(codes::SYNTAX, "a rule without an arrow");
                return diagnostic.at(place, "expected `<->` or `->` after this").hint(ARROWS);
            }
            let diagnostic = Diagnostic::error(
                codes::SYNTAX,
                format!("expected {expected}, found the end of the statement"),
            );
            return diagnostic.at(place, format!("expected {expected} after this"));
        };
        let place = self.place(span(token.start, token.end));
        if token.kind == TokenKind::Unclosed {
            return unclosed_quote(place);
        }
        if let Some(diagnostic) = self.special(token, word, &place) {
            return diagnostic;
        }
        let candidates =
            self.expected.iter().filter_map(|word| word.strip_prefix('`')?.strip_suffix('`'));
        let candidates: Vec<&str> = candidates
            .chain(["present", "absent"].into_iter().filter(|_| self.expects(Rule::tie_clause)))
            .collect();
        if token.kind == TokenKind::Word
            && let Some(meant) =
                did_you_mean(word, words_in(&candidates).into_iter().filter(|known| *known != word))
        {
            return Diagnostic::error(
                codes::UNKNOWN_STATEMENT,
                format!("expected {expected}, found `{word}`"),
            )
            .at(place.clone(), "unknown word")
            .meant(place, meant);
        }
        let diagnostic = Diagnostic::error(
            codes::SYNTAX,
            format!("expected {expected}, found {}", described(token.kind, word)),
        )
        .at(place, format!("expected {expected}"));
        let commas = self.expects(Rule::comma) && matches!(token.kind, TokenKind::Text);
        if commas { diagnostic.hint("separate patterns with commas") } else { diagnostic }
    }

    /// Habits of other languages, and frequent slips.
    fn special(&self, token: Token, word: &str, place: &Place) -> Option<Diagnostic> {
        let error = |message: String, label: &str| {
            Diagnostic::error(codes::SYNTAX, message).at(place.clone(), label)
        };
        if self.expects(Rule::arrow) || self.expects(Rule::one_way) || self.expects(Rule::two_way) {
            match word {
                "=>" | "<-" | "<=>" | "=" | ":" | "~>" | "==" => {
                    return Some(
                        error(format!("`{word}` is not an arrow"), "expected `<->` or `->`")
                            .hint(ARROWS),
                    );
                }
                "to" | "as" | "into" | "from" | "with" => {
                    return Some(
                        error(
                            format!("`{word}` where an arrow should be"),
                            "expected `<->` or `->`",
                        )
                        .hint(ARROWS),
                    );
                }
                _ if token.kind == TokenKind::Text => {
                    let diagnostic = error(
                        "a rule without an arrow".to_owned(),
                        "expected `<->` or `->` before this",
                    );
                    return Some(
                        diagnostic.hint(ARROWS).hint("separate several sources with commas"),
                    );
                }
                _ => {}
            }
        }
        let operator = match word {
            "&&" | "&" => Some("and"),
            "||" => Some("or"),
            "!" => Some("not"),
            "=" => Some("=="),
            _ => None,
        };
        if let Some(meant) = operator.filter(|_| {
            self.expects(Rule::infix) || self.expects(Rule::expr) || self.expects(Rule::operand)
        }) {
            return Some(
                error(format!("`{word}` is not an operator"), "unknown operator")
                    .hint(format!("write `{meant}`"))
                    .fix(place.clone(), meant),
            );
        }
        match word {
            "'" => Some(
                error("single quotes don't quote".to_owned(), "unknown sign").hint("write `\"…\"`"),
            ),
            ";" => Some(
                error("statements end without a `;`".to_owned(), "not needed")
                    .hint("leave it out")
                    .fix(place.clone(), ""),
            ),
            "<-" => Some(
                error("`<-` is not an arrow".to_owned(), "read as one sign")
                    .hint("a comparison with a negative number needs a space: `< -1`"),
            ),
            _ => None,
        }
    }

    /// What was expected, if that is where the text ends.
    pub(super) fn expected_at_end(self) -> Vec<&'static str> {
        if self.index >= self.lexed.tokens.len() { self.expected } else { Vec::new() }
    }

    fn expects(&self, rule: Rule) -> bool {
        self.rules.contains(&rule)
    }

    fn place(&self, span: crate::diagnostic::Span) -> Place {
        Place::new(self.source.clone(), span)
    }
}

const ARROWS: &str = "write `<->` for a rule that can be read backwards, `->` for one that can't";

/// The keywords among expected words: `if present` counts as two.
fn words_in<'w>(candidates: &[&'w str]) -> Vec<&'w str> {
    let words = candidates.iter().flat_map(|candidate| candidate.split(['`', ' ', ',']));
    words
        .filter(|word| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase()))
        .collect()
}

fn expected(error: &Error<Rule>) -> Vec<Rule> {
    match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => positives.clone(),
        ErrorVariant::CustomError { .. } => Vec::new(),
    }
}

fn position(error: &Error<Rule>) -> usize {
    match error.location {
        InputLocation::Pos(position) | InputLocation::Span((position, _)) => position,
    }
}

fn described(kind: TokenKind, word: &str) -> String {
    match kind {
        TokenKind::Text => "text in quotes".to_owned(),
        TokenKind::Unclosed => "an open quote".to_owned(),
        TokenKind::Regex => "a /regex/".to_owned(),
        _ => format!("`{}`", word.chars().take(40).collect::<String>()),
    }
}

/// A quote whose line ends before it.
fn unclosed_quote(place: Place) -> Diagnostic {
    Diagnostic::error(codes::SYNTAX, "a quote isn't closed")
        .at(place, "no closing `\"` on this line")
        .hint(r#"a quote inside quotes is written `\"`"#)
}

/// A pattern that the grammar refuses, where its dots, stars and braces are in order: the inside of
/// a capture.
pub(super) fn pattern(
    source: &Arc<SourceText>,
    base: usize,
    body: &str,
    error: &Error<Rule>,
) -> Diagnostic {
    let position = position(error).min(body.len());
    let length =
        body.get(position..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    let place = Place::new(source.clone(), at(base, position, length));
    let found = body.get(position..position + length).filter(|found| !found.is_empty());
    let found = found.map_or("the end".to_owned(), |found| format!("`{found}`"));
    let expected = words::either(&words::expected(&expected(error)));
    Diagnostic::error(codes::BAD_PATTERN, format!("a capture that can't be read: expected {expected}, found {found}"))
        .at(place, format!("expected {expected}"))
        .hint("captures are `{l}`, `{2*l+1}`, `{l: 0..n}`, `{name*}`, `{path**}`, `{x: q|k}` and `{x: q=>query | k=>key}`")
}

/// A token that begins no statement.
pub(super) fn not_a_statement(place: Place, word: &str, kind: TokenKind) -> Diagnostic {
    if kind == TokenKind::Unclosed {
        return unclosed_quote(place);
    }
    if kind == TokenKind::Word {
        let other = OTHER_WORDS.iter().find(|(other, _)| *other == word).map(|(_, meant)| *meant);
        let meant = other.or_else(|| did_you_mean(word, STATEMENTS.iter().copied()));
        let message = if CLAUSES.contains(&word) {
            "a clause without a statement"
        } else {
            "unknown statement"
        };
        let diagnostic = Diagnostic::error(codes::UNKNOWN_STATEMENT, format!("{message} `{word}`"))
            .at(place.clone(), message);
        return match meant {
            Some(meant) => diagnostic.meant(place, meant),
            None if CLAUSES.contains(&word) => diagnostic,
            None => diagnostic.hint(format!("the statements are {}", STATEMENTS.join(", "))),
        };
    }
    let diagnostic = Diagnostic::error(
        codes::SYNTAX,
        format!("expected a statement, found {}", described(kind, word)),
    );
    match kind {
        TokenKind::Text | TokenKind::Regex => diagnostic
            .at(place, "no statement begins so")
            .hint("write `rename`, `map`, `drop` or the like before it"),
        _ if word == ";" => diagnostic
            .at(place.clone(), "not needed")
            .hint("statements end without a `;`")
            .fix(place, ""),
        _ if word == "/" => {
            diagnostic.at(place, "no statement begins so").hint("comments begin with `#`")
        }
        _ => diagnostic.at(place, "no statement begins so"),
    }
}

/// A token that begins no rule of a group.
pub(super) fn not_a_rule(place: Place, word: &str) -> Diagnostic {
    Diagnostic::error(codes::SYNTAX, format!("expected a rule, found {}", described(TokenKind::Sign, word)))
        .at(place, "no rule begins so")
        .hint("a rule of a group begins with a pattern in quotes, a /regex/ or a made tensor like `zeros([4], F32)`")
}

/// `,` or `;` between the rules of a group.
pub(super) fn separator(place: Place) -> Diagnostic {
    Diagnostic::error(codes::SYNTAX, "the rules of a group stand without a separator")
        .at(place.clone(), "not needed")
        .hint("leave it out")
        .fix(place, "")
}

/// A `{` without its `}`.
pub(super) fn unclosed(place: Place, what: &str) -> Diagnostic {
    Diagnostic::error(codes::SYNTAX, format!("a {what} isn't closed"))
        .at(place, "this `{` has no `}`")
}

/// A `}` without its `{`.
pub(super) fn stray(place: Place) -> Diagnostic {
    Diagnostic::error(codes::SYNTAX, "a `}` that closes nothing").at(place, "no `{` before it")
}

/// What isn't a block after `else`.
pub(super) fn after_else(place: Place, word: &str) -> Diagnostic {
    let diagnostic = Diagnostic::error(codes::SYNTAX, "`else` without a block")
        .at(place.clone(), "expected `{` or `when`");
    if word == "if" { diagnostic.hint("write `else when`").fix(place, "when") } else { diagnostic }
}

/// Too many brackets or blocks in one another.
pub(super) fn too_deep(place: Place) -> Diagnostic {
    Diagnostic::error(
        codes::LIMIT,
        format!("more than {MAX_NESTING} brackets or blocks in one another"),
    )
    .at(place, "too deep")
}
