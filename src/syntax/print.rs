//! Tree to text: the formatter.
//!
//! A statement stands on one line if it fits, else over several in one fixed way. What is printed
//! parses to the same tree, and so printing twice changes nothing; no line that continues a
//! statement begins with the keyword of another (`when` of a tie excepted).

mod inline;

use self::inline::{
    arrow, if_absent, if_present, op, patterns, quoted, rule_clauses, side, sides, strings,
    tail_clauses,
};
pub use self::inline::{print_expr, print_pattern, print_rule};
use super::ast::{
    Comment, Group, Ident, Rule, RuleFile, Selection, Statement, StatementKind, StripPlace, Tie,
    Trivia,
};
use super::parse::STATEMENTS;

/// Columns that a line may have.
const WIDTH: usize = 100;

/// Columns of a left side up to which arrows of a group are aligned.
const ALIGN: usize = 60;

/// The canonical text of a rule file.
pub fn print(file: &RuleFile) -> String {
    let mut printer = Printer::default();
    printer.statements(&file.statements, 0);
    printer.comments(&file.trailing_comments, 0, file.statements.is_empty());
    printer.text
}

/// A statement in one line, without comments: of a block or a group, its head.
pub fn print_statement_line(kind: &StatementKind) -> String {
    match kind {
        StatementKind::Rename(group) | StatementKind::Map(group) if group.braces => {
            let plural = if group.rules.len() == 1 { "" } else { "s" };
            format!("{} {{ {} rule{plural} }}", keyword(kind), group.rules.len())
        }
        StatementKind::When { condition, .. } => format!("when {} {{ … }}", print_expr(condition)),
        _ => {
            let parts = Parts::of(kind);
            let mut words = Vec::new();
            for (head, items) in parts.lists {
                words.push(head);
                if !items.is_empty() {
                    words.push(items.join(", "));
                }
            }
            words.extend(parts.clauses);
            words.join(" ")
        }
    }
}

/// A statement without braces, taken apart at the places where it may be broken.
struct Parts {
    /// Lists with what stands before them: `drop` and its patterns.
    lists: Vec<(String, Vec<String>)>,
    /// What follows them.
    clauses: Vec<String>,
    /// Spaces before a list on a line of its own (the first stands at the start) and before a
    /// clause.
    indent: (usize, usize),
}

impl Parts {
    fn line(text: String) -> Self {
        Parts { lists: vec![(text, Vec::new())], clauses: Vec::new(), indent: (0, 2) }
    }

    fn list(head: impl Into<String>, items: Vec<String>, clauses: Vec<String>) -> Self {
        Parts { lists: vec![(head.into(), items)], clauses, indent: (0, 2) }
    }

    fn of(kind: &StatementKind) -> Self {
        let word = keyword(kind);
        match kind {
            StatementKind::Ruleset { name, layouts } => {
                let layouts = layouts.as_ref().map(|(left, way, right)| {
                    format!(": {} {} {}", left.text, arrow(*way), right.text)
                });
                Parts::line(format!("ruleset {}{}", name.text, layouts.unwrap_or_default()))
            }
            StatementKind::Models(models) => {
                Parts::list(word, models.iter().map(model).collect(), Vec::new())
            }
            StatementKind::Shards { capture, range, files } => {
                let range = range
                    .as_ref()
                    .map(|(start, end)| format!(": {}..{}", print_expr(start), print_expr(end)));
                let capture = format!("{}{}", capture.text, range.unwrap_or_default());
                Parts::line(format!("shards {{{capture}}} in {}", quoted(&files.text)))
            }
            StatementKind::Use { path, is_file, reversed, under } => {
                let path = if *is_file { quoted(&path.text) } else { path.text.clone() };
                let under = under.as_ref().map(|under| format!(" under {}", print_pattern(under)));
                let reversed = if *reversed { " reversed" } else { "" };
                Parts::line(format!("use {path}{reversed}{}", under.unwrap_or_default()))
            }
            StatementKind::Let { name, value } => {
                let value = value.as_ref().map(|value| format!(" = {}", print_expr(value)));
                Parts::line(format!("let {}{}", name.text, value.unwrap_or_default()))
            }
            StatementKind::Strip { place, wrappers, if_wanted } => {
                let place = match place {
                    StripPlace::Anywhere => "anywhere",
                    StripPlace::Leading => "leading",
                };
                let wanted = if_wanted.then(|| "if wanted".to_owned());
                Parts::list(
                    format!("strip {place}"),
                    patterns(wrappers),
                    wanted.into_iter().collect(),
                )
            }
            StatementKind::Separator(separator) => {
                Parts::line(format!("separator {}", quoted(&separator.text)))
            }
            StatementKind::Strict => Parts::line("strict".to_owned()),
            StatementKind::Prefix(prefix) => {
                Parts::line(format!("prefix {}", print_pattern(prefix)))
            }
            StatementKind::Rename(group) | StatementKind::Map(group) => match group.rules.first() {
                Some(rule) => Parts {
                    lists: vec![
                        (word.to_owned(), rule.sources.iter().map(side).collect()),
                        (arrow(rule.arrow).to_owned(), rule.targets.iter().map(side).collect()),
                    ],
                    clauses: rule_clauses(rule),
                    indent: (0, 0),
                },
                None => Parts::line(format!("{word} {{ }}")),
            },
            StatementKind::Drop(keys) | StatementKind::Keep(keys) => selection(word, keys),
            StatementKind::Cast { keys, dtype, lossy } => {
                let lossy = if *lossy { " lossy" } else { "" };
                let to = format!("to {}{lossy}", dtype.text);
                let clauses = std::iter::once(to).chain(tail_clauses(&keys.tail)).collect();
                Parts::list(word, patterns(&keys.patterns), clauses)
            }
            StatementKind::Tie(tie) => tied(tie),
            StatementKind::Create { target, value, tail } => {
                let parens = if value.args.is_empty() { "()" } else { "" };
                let head = format!("create {} = {}{parens}", print_pattern(target), op(value));
                Parts {
                    lists: vec![(head, Vec::new())],
                    clauses: tail_clauses(tail),
                    indent: (0, 2),
                }
            }
            StatementKind::Expect { pattern, count } => {
                let count = count.as_ref().map(|count| format!(" count {}", print_expr(count)));
                Parts::line(format!(
                    "expect {}{}",
                    print_pattern(pattern),
                    count.unwrap_or_default()
                ))
            }
            StatementKind::Trust(names) => Parts::list(word, strings(names), Vec::new()),
            StatementKind::Example { left, arrow: way, right } => Parts {
                lists: vec![
                    (word.to_owned(), strings(left)),
                    (arrow(*way).to_owned(), strings(right)),
                ],
                clauses: Vec::new(),
                indent: (0, 0),
            },
            StatementKind::When { condition, .. } => {
                Parts::line(format!("when {}", print_expr(condition)))
            }
        }
    }
}

fn selection(word: &str, keys: &Selection) -> Parts {
    Parts::list(word, patterns(&keys.patterns), tail_clauses(&keys.tail))
}

fn tied(tie: &Tie) -> Parts {
    let clauses = [
        tie.condition.as_ref().map(|condition| format!("when {}", print_expr(condition))),
        tie.present.map(|word| format!("if present {}", if_present(word))),
        tie.absent.map(|word| format!("if absent {}", if_absent(word))),
    ];
    Parts {
        lists: vec![
            (if tie.inverted { "untie" } else { "tie" }.to_owned(), patterns(&tie.targets)),
            ("from".to_owned(), patterns(&tie.sources)),
        ],
        clauses: clauses.into_iter().flatten().collect(),
        indent: (2, 2),
    }
}

/// A model type, in quotes if it would read as something else.
fn model(model: &Ident) -> String {
    let text = &model.text;
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if plain && !STATEMENTS.contains(&text.as_str()) { text.clone() } else { quoted(text) }
}

fn keyword(kind: &StatementKind) -> &'static str {
    match kind {
        StatementKind::Ruleset { .. } => "ruleset",
        StatementKind::Models(_) => "models",
        StatementKind::Separator(_) => "separator",
        StatementKind::Strict => "strict",
        StatementKind::Shards { .. } => "shards",
        StatementKind::Use { .. } => "use",
        StatementKind::Let { .. } => "let",
        StatementKind::Strip { .. } => "strip",
        StatementKind::Prefix(_) => "prefix",
        StatementKind::Rename(_) => "rename",
        StatementKind::Map(_) => "map",
        StatementKind::Drop(_) => "drop",
        StatementKind::Keep(_) => "keep",
        StatementKind::Cast { .. } => "cast",
        StatementKind::Tie(_) => "tie",
        StatementKind::Create { .. } => "create",
        StatementKind::Expect { .. } => "expect",
        StatementKind::Trust(_) => "trust",
        StatementKind::Example { .. } => "example",
        StatementKind::When { .. } => "when",
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[derive(Default)]
struct Printer {
    text: String,
}

impl Printer {
    fn line(&mut self, indent: usize, text: &str) {
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn comments(&mut self, comments: &[Comment], indent: usize, first: bool) {
        for (index, comment) in comments.iter().enumerate() {
            if comment.blank_before && !(first && index == 0) {
                self.text.push('\n');
            }
            self.line(indent, &comment.text);
        }
    }

    /// What stands before a statement or rule.
    fn before(&mut self, trivia: &Trivia, indent: usize, first: bool) {
        self.comments(&trivia.leading, indent, first);
        if trivia.blank_before && !(first && trivia.leading.is_empty()) {
            self.text.push('\n');
        }
    }

    /// The comment at the end of the last line.
    fn after(&mut self, trivia: &Trivia) {
        if let Some(comment) = &trivia.trailing {
            self.text.truncate(self.text.trim_end_matches('\n').len());
            self.text.push_str("  ");
            self.text.push_str(&comment.text);
            self.text.push('\n');
        }
    }

    fn statements(&mut self, statements: &[Statement], indent: usize) {
        for (index, statement) in statements.iter().enumerate() {
            self.before(&statement.trivia, indent, index == 0);
            match &statement.kind {
                StatementKind::When { .. } => self.when(statement, indent, ""),
                StatementKind::Rename(group) | StatementKind::Map(group) if group.braces => {
                    self.group(keyword(&statement.kind), group, indent)
                }
                kind => self.statement(kind, indent),
            }
            self.after(&statement.trivia);
        }
    }

    fn when(&mut self, statement: &Statement, indent: usize, before: &str) {
        let StatementKind::When { condition, then, otherwise, closing_comments } = &statement.kind
        else {
            return;
        };
        self.line(indent, &format!("{before}when {} {{", print_expr(condition)));
        self.statements(then, indent + 2);
        self.comments(&closing_comments[0], indent + 2, then.is_empty());
        match otherwise.as_slice() {
            [] if closing_comments[1].is_empty() => self.line(indent, "}"),
            [only @ Statement { kind: StatementKind::When { .. }, trivia, .. }]
                if *trivia == Trivia::default() && closing_comments[1].is_empty() =>
            {
                self.when(only, indent, "} else ");
            }
            _ => {
                self.line(indent, "} else {");
                self.statements(otherwise, indent + 2);
                self.comments(&closing_comments[1], indent + 2, otherwise.is_empty());
                self.line(indent, "}");
            }
        }
    }

    fn group(&mut self, word: &str, group: &Group, indent: usize) {
        self.line(indent, &format!("{word} {{"));
        let inner = indent + 2;
        let fits = |rule: &Rule| inner + width(&print_rule(rule)) <= WIDTH;
        let lefts =
            group.rules.iter().filter(|rule| fits(rule)).map(|rule| width(&sides(&rule.sources)));
        let column = lefts.filter(|left| *left <= ALIGN).max().unwrap_or(0);
        for (index, rule) in group.rules.iter().enumerate() {
            self.before(&rule.trivia, inner, index == 0);
            let text = print_rule(rule);
            if fits(rule) {
                let left = sides(&rule.sources);
                let padding = column.saturating_sub(width(&left));
                let padding = if inner + width(&text) + padding <= WIDTH { padding } else { 0 };
                let (left, right) = text.split_at(left.len());
                self.line(inner, &format!("{left}{}{right}", " ".repeat(padding)));
            } else {
                self.list(inner, "", &rule.sources.iter().map(side).collect::<Vec<_>>());
                self.list(
                    inner + 2,
                    arrow(rule.arrow),
                    &rule.targets.iter().map(side).collect::<Vec<_>>(),
                );
                for clause in rule_clauses(rule) {
                    self.line(inner + 2, &clause);
                }
            }
            self.after(&rule.trivia);
        }
        self.comments(&group.closing_comments, inner, group.rules.is_empty());
        self.line(indent, "}");
    }

    /// A statement without braces.
    fn statement(&mut self, kind: &StatementKind, indent: usize) {
        let line = print_statement_line(kind);
        if indent + width(&line) <= WIDTH {
            return self.line(indent, &line);
        }
        let parts = Parts::of(kind);
        let filled = matches!(
            kind,
            StatementKind::Models(_) | StatementKind::Trust(_) | StatementKind::Strip { .. }
        );
        for (index, (head, items)) in parts.lists.iter().enumerate() {
            let at = indent + if index == 0 { 0 } else { parts.indent.0 };
            if filled { self.fill(at, head, items) } else { self.list(at, head, items) }
        }
        for clause in &parts.clauses {
            self.line(indent + parts.indent.1, clause);
        }
    }

    /// A list with an item a line, the further ones under the first.
    fn list(&mut self, indent: usize, head: &str, items: &[String]) {
        let hang = if head.is_empty() { 0 } else { width(head) + 1 };
        if items.is_empty() {
            return self.line(indent, head);
        }
        for (index, item) in items.iter().enumerate() {
            let comma = if index + 1 < items.len() { "," } else { "" };
            match index {
                0 if hang > 0 => self.line(indent, &format!("{head} {item}{comma}")),
                _ => self.line(indent + hang, &format!("{item}{comma}")),
            }
        }
    }

    /// A list with as many items a line as fit.
    fn fill(&mut self, indent: usize, head: &str, items: &[String]) {
        let hang = width(head) + 1;
        let mut line = head.to_owned();
        let mut start = indent;
        for (index, item) in items.iter().enumerate() {
            let comma = if index + 1 < items.len() { "," } else { "" };
            if index > 0 && start + width(&line) + 1 + width(item) + comma.len() > WIDTH {
                self.line(start, &line);
                line.clear();
                start = indent + hang;
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(item);
            line.push_str(comma);
        }
        self.line(start, &line);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::{SourceText, Span};
    use crate::syntax::ast::{BinaryOp, Expr, ExprKind, UnaryOp};
    use crate::syntax::parse;

    fn lines(text: &str) -> Vec<String> {
        let parsed =
            parse(Arc::new(SourceText { name: "test.graft".to_owned(), text: text.to_owned() }));
        assert!(parsed.diagnostics.is_empty());
        parsed
            .file
            .statements
            .iter()
            .map(|statement| print_statement_line(&statement.kind))
            .collect()
    }

    #[test]
    fn a_statement_has_a_line_of_its_own_however_long() {
        let long = format!(
            "map \"{0}\", \"{0}\" <-> \"{0}\" via concat(0) unless \"x\" optional",
            "a".repeat(60)
        );
        assert_eq!(lines(&long), [long]);
        let text = "rename { \"a\" -> \"b\" # c\n \"c\" -> \"d\" } when tied { drop \"x\" } example \"a\"->";
        assert_eq!(lines(text), ["rename { 2 rules }", "when tied { … }", "example \"a\" ->"]);
    }

    #[test]
    fn a_tree_made_by_hand_gets_the_parentheses_it_needs() {
        let expr = |kind| Expr { kind, span: Span::default() };
        let name = |text: &str| Box::new(expr(ExprKind::Name(text.to_owned())));
        let binary = |op, left, right| Box::new(expr(ExprKind::Binary(op, left, right)));
        let sum = || binary(BinaryOp::Add, name("a"), name("b"));
        assert_eq!(print_expr(&binary(BinaryOp::Mul, sum(), name("c"))), "(a + b) * c");
        assert_eq!(print_expr(&binary(BinaryOp::Sub, name("c"), sum())), "c - (a + b)");
        assert_eq!(print_expr(&binary(BinaryOp::Sub, sum(), name("c"))), "a + b - c");
        assert_eq!(print_expr(&expr(ExprKind::Unary(UnaryOp::Neg, sum()))), "-(a + b)");
        assert_eq!(
            print_expr(&expr(ExprKind::Unary(
                UnaryOp::Not,
                binary(BinaryOp::Or, name("a"), name("b"))
            ))),
            "not (a or b)"
        );
    }
}
