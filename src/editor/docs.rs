//! The words of the language, as docs/language.md explains them: an editor shows the reference
//! itself, so that nothing is said twice.

use crate::syntax::op::Row;

const LANGUAGE: &str = include_str!("../../docs/language.md");

/// What a statement does: its section, up to the first example.
pub(super) fn statement(word: &str) -> Option<String> {
    let after = section(&format!("### `{word}`"))?;
    let text: Vec<&str> = after
        .lines()
        .take_while(|line| !line.starts_with("```") && !line.starts_with('#'))
        .collect();
    Some(joined(text.join("\n").trim()))
}

/// What a clause means: its row in the table of clauses.
pub(super) fn clause(word: &str) -> Option<String> {
    row(section("### Clauses")?, |form| form.split(['`', ' ']).any(|part| part == word))
}

/// What a word of expressions means.
pub(super) fn expression(word: &str) -> Option<String> {
    let is = |form: &str| form.split(['`', ' ', ',', '(', '.']).any(|part| part == word);
    row(section("## Expressions")?, is)
}

/// What an op does.
pub(super) fn op(row: &Row) -> String {
    let [takes, does, undone, needs] = row.docs;
    format!("`{}`: {takes}\n\n{does}\n\n- undone by: {undone}\n- needs: {needs}", row.form())
}

/// What makes a tensor.
pub(super) fn makers() -> Option<String> {
    let after = section("### Makers")?;
    Some(joined(after.split("\n## ").next()?.trim()))
}

fn section(title: &str) -> Option<&'static str> {
    let at = LANGUAGE.match_indices(title).find(|(at, _)| {
        LANGUAGE[..*at].ends_with('\n') && LANGUAGE[at + title.len()..].starts_with('\n')
    });
    at.map(|(at, _)| &LANGUAGE[at + title.len()..])
}

/// The first row of the table below a title whose first cell is of a form.
fn row(section: &str, is: impl Fn(&str) -> bool) -> Option<String> {
    let rows = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2);
    for line in rows {
        // A `\|` in a cell is no border.
        let line = line.replace("\\|", "\u{1}");
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        if let (Some(form), Some(meaning)) = (cells.next(), cells.next())
            && is(form)
        {
            return Some(links(&format!("{form}: {meaning}").replace('\u{1}', "|")));
        }
    }
    None
}

/// Paragraphs, each on one line.
fn joined(text: &str) -> String {
    let paragraph = |text: &str| text.lines().collect::<Vec<_>>().join(" ");
    links(&text.split("\n\n").map(paragraph).collect::<Vec<_>>().join("\n\n"))
}

/// Text without its links, which lead within the reference.
fn links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let Some((_, after)) = after.split_once(')') else { break };
        match before.rsplit_once('[') {
            Some((before, label)) => plain.extend([before, label]),
            None => plain.push_str(before),
        }
        rest = after;
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::statements;

    #[test]
    fn every_statement_has_its_section() {
        for word in statements() {
            let text = statement(word).unwrap_or_else(|| panic!("`{word}` has no section"));
            assert!(text.contains(word), "{text}");
            assert!(!text.contains("```"), "{text}");
        }
    }

    #[test]
    fn clauses_and_expressions_have_their_rows() {
        for word in ["unless", "where", "alone", "optional"] {
            assert!(clause(word).is_some_and(|text| text.contains(word)), "{word}");
        }
        for word in ["tied", "exists", "size", "count", "config", "in", "not"] {
            assert!(expression(word).is_some_and(|text| text.contains(word)), "{word}");
        }
        assert_eq!(clause("banana"), None);
        assert!(makers().is_some_and(|text| text.contains("sinusoids")));
    }
}
