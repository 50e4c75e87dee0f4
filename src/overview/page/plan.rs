//! The page of a plan.

use super::{DRAWN, Page, Row, Section, Tone};
use crate::diagnostic::Diagnostic;
use crate::overview::{
    Drawing, Gone, Kind, Made, Overview, Size, Tied, counted, rule_line, verdict_text,
};
use crate::plan::{Plan, Verdict};

impl Page {
    /// Of a plan and its overview, which has [everything](crate::overview::Sights) in it.
    pub fn of_plan(title: &str, plan: &Plan, overview: &Overview) -> Self {
        let mut page = Self {
            by: "regraft plan".to_owned(),
            title: title.to_owned(),
            verdict: Some(verdict(plan, overview)),
            findings: plan.findings.clone(),
            drawing: Some(Drawing::of(overview, plan, DRAWN)),
            ..Self::default()
        };
        page.facts = facts(overview);
        page.shares = shares(overview);
        for group in &overview.groups {
            page.sections.push(Section {
                title: group.rules.iter().map(|rule| rule_line(plan, *rule)).collect(),
                is_rules: true,
                note: counted(group.lines.iter().map(|line| line.count).sum(), "key"),
                open: true,
                rows: group.lines.iter().map(made).collect(),
                ..Section::default()
            });
        }
        page.fold("Tied", &overview.tied, tied, |line| line.count, "one tensor with another key");
        page.fold(
            "Dropped",
            &overview.dropped,
            gone,
            |line| line.count,
            &format!("{}", Size(overview.dropped_bytes)),
        );
        page.fold(
            "Unchanged",
            &overview.unchanged_lines,
            made,
            |line| line.count,
            "as they are in the checkpoint",
        );
        page
    }

    /// Of rules that don't fit a checkpoint: there is nothing but findings.
    pub fn without_plan(title: &str, findings: Vec<Diagnostic>) -> Self {
        Self {
            by: "regraft plan".to_owned(),
            title: title.to_owned(),
            verdict: Some((Tone::Poor, "there is no plan".to_owned())),
            findings,
            ..Self::default()
        }
    }

    fn fold<T>(
        &mut self,
        title: &str,
        lines: &[T],
        row: impl Fn(&T) -> Row,
        count: impl Fn(&T) -> u64,
        what: &str,
    ) {
        if lines.is_empty() {
            return;
        }
        self.sections.push(Section {
            title: vec![title.to_owned()],
            is_rules: false,
            note: format!("{}, {what}", counted(lines.iter().map(count).sum(), "key")),
            open: false,
            rows: lines.iter().map(row).collect(),
            ..Section::default()
        });
    }
}

fn verdict(plan: &Plan, overview: &Overview) -> (Tone, String) {
    let text = overview.verdict.map_or("no rule changes a key", verdict_text);
    let tone = match overview.verdict {
        Some(Verdict::Converts) => Tone::Good,
        Some(Verdict::Already) | None => Tone::Plain,
        Some(Verdict::Mixed | Verdict::Neither) => Tone::Poor,
    };
    let tone = tone.with(&plan.findings);
    (tone, text.to_owned())
}

fn facts(overview: &Overview) -> Vec<(String, String)> {
    let total = |total: crate::overview::Total, more: &str| {
        format!("{}, {}{more}", counted(total.keys, "key"), Size(total.bytes))
    };
    let mut facts = vec![
        ("checkpoint", total(overview.source, " used")),
        ("result", total(overview.result, "")),
    ];
    if let Some(tied) = &overview.tied_embeddings {
        let is = if tied.tied { "yes" } else { "no" };
        facts.push(("tied embeddings", format!("{is} ({})", tied.because)));
    }
    if overview.elsewhere > 0 {
        facts.push(("left to other stages", counted(overview.elsewhere, "key")));
    }
    if !overview.kept.is_empty() {
        facts.push(("left as the model holds them", overview.kept.join(", ")));
    }
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// How many keys are of each kind; those that stay as they are views too.
fn shares(overview: &Overview) -> Vec<(Kind, u64)> {
    let made =
        || overview.groups.iter().flat_map(|group| &group.lines).chain(&overview.unchanged_lines);
    let of = |kind| made().filter(|line| Kind::of(line) == kind).map(|line| line.count).sum();
    vec![
        (Kind::Aliased, of(Kind::Aliased)),
        (Kind::Copied, of(Kind::Copied)),
        (Kind::Transformed, of(Kind::Transformed)),
        (Kind::Tied, overview.tied.iter().map(|line| line.count).sum()),
        (Kind::Dropped, overview.dropped_keys()),
    ]
}

fn made(line: &Made) -> Row {
    let mut from: Vec<(String, u64)> =
        line.sources.iter().map(|source| (source.keys.clone(), source.count)).collect();
    // What stays needs no arrow.
    if line.ops.is_empty() && matches!(&from[..], [(keys, 1)] if *keys == line.keys) {
        from.clear();
    }
    Row {
        keys: line.keys.clone(),
        first: line.first.clone(),
        count: line.count,
        info: line.info.to_string(),
        kind: Some(Kind::of(line)),
        from,
        ops: line.ops.clone(),
        note: String::new(),
    }
}

fn tied(line: &Tied) -> Row {
    Row {
        keys: line.keys.clone(),
        count: line.count,
        kind: Some(Kind::Tied),
        note: format!("one tensor with {}", line.with),
        ..Row::default()
    }
}

fn gone(line: &Gone) -> Row {
    Row {
        keys: line.keys.clone(),
        first: line.first.clone(),
        count: line.count,
        kind: Some(Kind::Dropped),
        note: line.why.clone(),
        ..Row::default()
    }
}
