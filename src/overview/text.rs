//! An overview as text.

use std::fmt::Write as _;

use super::{Made, MadeOf, Overview, Size};
use crate::diagnostic::plain::one_line;
use crate::plan::{Plan, RuleId, Verdict};

/// Different sources of a target that are named.
const SOURCES: usize = 4;

impl Overview {
    /// The body of a plan: everything but its findings.
    pub fn text(&self, plan: &Plan) -> String {
        let mut out = String::new();
        for group in &self.groups {
            for rule in &group.rules {
                let _ = writeln!(out, "{}", rule_line(plan, *rule));
            }
            for line in &group.lines {
                write_made(line, &mut out);
            }
            out.push('\n');
        }
        if self.unchanged > 0 {
            let _ = writeln!(out, "unchanged: {}", counted(self.unchanged, "key"));
        }
        for Made { keys, info, count, .. } in &self.unchanged_lines {
            let _ = writeln!(out, "  {keys}  {info}{}", times(*count));
        }
        if !self.tied.is_empty() {
            out.push_str("tied:\n");
        }
        for line in &self.tied {
            let _ = writeln!(out, "  {} = {}{}", line.keys, line.with, times(line.count));
        }
        if !self.dropped.is_empty() {
            let count = counted(self.dropped_keys(), "key");
            let _ = writeln!(out, "dropped: {count}, {}", Size(self.dropped_bytes));
        }
        for line in &self.dropped {
            let _ = writeln!(out, "  {}{}  {}", line.keys, times(line.count), line.why);
        }
        self.write_totals(&mut out);
        out
    }

    /// How many keys of the checkpoint the result doesn't have.
    pub fn dropped_keys(&self) -> u64 {
        self.dropped.iter().map(|line| line.count).sum()
    }

    fn write_totals(&self, out: &mut String) {
        if let Some(verdict) = self.verdict {
            let _ = writeln!(out, "verdict: {}", verdict_text(verdict));
        }
        if let Some(tied) = &self.tied_embeddings {
            let is = if tied.tied { "yes" } else { "no" };
            let _ = writeln!(out, "tied embeddings: {is} ({})", tied.because);
        }
        if self.elsewhere > 0 {
            let _ = writeln!(out, "left to other stages: {}", counted(self.elsewhere, "key"));
        }
        if !self.kept.is_empty() {
            let _ = writeln!(out, "left as the model holds them: {}", self.kept.join(", "));
        }
        let _ = writeln!(
            out,
            "{} ({} used) -> {} ({})",
            counted(self.source.keys, "key"),
            Size(self.source.bytes),
            counted(self.result.keys, "key"),
            Size(self.result.bytes)
        );
    }
}

fn write_made(line: &Made, out: &mut String) {
    let _ = writeln!(out, "  {}  {}{}", line.keys, line.info, times(line.count));
    let named = |source: &MadeOf| format!("{}{}", source.keys, times(source.count));
    let mut from: Vec<String> = line.sources.iter().take(SOURCES).map(named).collect();
    if line.sources.len() > SOURCES {
        from.push(format!("{} more kinds", line.sources.len() - SOURCES));
    }
    if line.sources.is_empty() {
        from.push("made".to_owned());
    }
    let ops =
        if line.ops.is_empty() { String::new() } else { format!("  [{}]", line.ops.join(", ")) };
    let _ = writeln!(out, "    <- {}{ops}", from.join(" + "));
}

/// A verdict in a few words.
pub fn verdict_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Converts => "converts",
        Verdict::Already => "in the target layout already",
        Verdict::Mixed => "mixed: keys of both layouts",
        Verdict::Neither => "nothing to rewrite",
    }
}

/// A rule of a plan, as `file:line text`.
pub fn rule_line(plan: &Plan, rule: RuleId) -> String {
    match plan.rules.get(rule.0 as usize) {
        Some(rule) => one_line(&format!("{}:{} {}", rule.file, rule.line, rule.text)).into_owned(),
        None => "unknown rule".to_owned(),
    }
}

/// Behind a pattern of several keys, how many there are.
pub fn times(count: u64) -> String {
    if count == 1 { String::new() } else { format!("  x {count}") }
}

/// `1 key`, `2 keys`
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
