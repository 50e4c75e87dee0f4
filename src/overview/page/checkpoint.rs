//! The pages of a checkpoint, and of how a result meets its target.

use super::{Page, Row, Section, Tone};
use crate::overview::{Gathered, Kind, Line, Size, SourceKeys, counted};
use crate::tensor::{Header, TensorInfo};

impl Page {
    /// Of a checkpoint: its keys, and what was noted of its files.
    pub fn of_header(title: &str, header: &Header, notes: &[String]) -> Self {
        let mut keys = Gathered::new();
        for (key, entry) in &header.tensors {
            keys.add(key, entry.info.to_string());
        }
        let bytes = |info: &TensorInfo| info.nbytes().unwrap_or(0);
        let all = header.tensors.values().map(|entry| bytes(&entry.info));
        let tensors = counted(header.tensors.len() as u64, "key");
        let mut facts = vec![
            ("keys".to_owned(), tensors.clone()),
            ("bytes".to_owned(), Size(all.fold(0, u64::saturating_add)).to_string()),
        ];
        if !header.files.is_empty() {
            facts.push(("files".to_owned(), counted(header.files.len() as u64, "file")));
        }
        facts.extend(header.metadata.iter().map(|(name, value)| (name.clone(), value.clone())));
        facts.extend(notes.iter().map(|note| ("note".to_owned(), note.clone())));
        Self {
            by: "a checkpoint".to_owned(),
            title: title.to_owned(),
            facts,
            sections: vec![Section {
                title: vec!["Keys".to_owned()],
                note: tensors,
                open: true,
                rows: rows(&keys, None),
                ..Section::default()
            }],
            ..Self::default()
        }
    }

    /// Of how a result meets the target that was asked for. Ties and drops each have a key, and the
    /// key that it is one tensor with, or why it goes.
    pub fn of_report(
        missing: &[String],
        unexpected: &[String],
        mismatched: &[String],
        ties: &[(String, String)],
        dropped: &[(String, String)],
    ) -> Self {
        let wrong = missing.len() + unexpected.len() + mismatched.len();
        let mut page = Self {
            by: "a report".to_owned(),
            title: "How the result meets its target".to_owned(),
            verdict: Some(match wrong {
                0 => (Tone::Good, "all keys are there".to_owned()),
                _ => (Tone::Poor, format!("{} amiss", counted(wrong as u64, "key"))),
            }),
            ..Self::default()
        };
        let names = [("Missing", missing), ("Unexpected", unexpected), ("Mismatched", mismatched)];
        for (name, keys) in names {
            let mut lines = Gathered::new();
            keys.iter().for_each(|key| lines.add(key, String::new()));
            page.list(name, &lines, None, true);
        }
        let mut lines = Gathered::new();
        for (key, with) in ties {
            lines.add_made(key, SourceKeys::of(with), String::new());
        }
        page.list("Tied", &lines, Some(Kind::Tied), false);
        let mut lines = Gathered::new();
        dropped.iter().for_each(|(key, why)| lines.add(key, why.clone()));
        page.list("Dropped", &lines, Some(Kind::Dropped), false);
        page
    }

    fn list(&mut self, name: &str, keys: &Gathered<String>, kind: Option<Kind>, open: bool) {
        if keys.is_empty() {
            return;
        }
        let count = keys.lines().iter().map(Line::count).sum();
        self.sections.push(Section {
            title: vec![name.to_owned()],
            note: counted(count, "key"),
            open,
            rows: rows(keys, kind),
            ..Section::default()
        });
    }
}

fn rows(keys: &Gathered<String>, kind: Option<Kind>) -> Vec<Row> {
    let row = |line: Line<'_, String>| Row {
        keys: line.text(),
        first: line.first(),
        count: line.count(),
        info: line.shared.clone(),
        kind,
        from: line.sources().into_iter().map(|(keys, count)| (keys, count as u64)).collect(),
        ..Row::default()
    };
    keys.lines().into_iter().map(row).collect()
}
