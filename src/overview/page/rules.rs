//! The page of rules.

use super::{Page, Section};
use crate::check::Rules;
use crate::overview::counted;

impl Page {
    /// Of rules: what they are for, what their check found, and their text.
    pub fn of_rules(rules: &Rules) -> Self {
        let mut facts = Vec::new();
        if let Some((left, right)) = &rules.layouts {
            facts.push(("layouts".to_owned(), format!("{left} <-> {right}")));
        }
        if !rules.models.is_empty() {
            facts.push(("models".to_owned(), rules.models.join(", ")));
        }
        let text = rules.source.text.clone();
        Self {
            by: "rules".to_owned(),
            title: rules.name.clone(),
            facts,
            findings: rules.findings.clone(),
            sections: vec![Section {
                title: vec!["Text".to_owned()],
                note: counted(text.lines().count() as u64, "line"),
                open: true,
                text,
                ..Section::default()
            }],
            ..Self::default()
        }
    }
}
