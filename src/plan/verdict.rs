//! Verdicts: in which layout the rewrites of a stage found the checkpoint, and what of that is
//! worth saying.
//!
//! The evidence is collected while the statements run, and judged at the end of the stage. With a
//! record of these very rules, read the same way, a checkpoint whose keys don't say otherwise was
//! converted by them, and the stage has nothing to do.

use std::collections::HashMap;

use indexmap::IndexSet;

use crate::check::reading::Reading;
use crate::check::{Direction, Identity};
use crate::diagnostic::codes::{ALREADY_THERE, MIXED_LAYOUT, NEITHER_LAYOUT, UNMATCHED_RULE};
use crate::diagnostic::{Diagnostic, Severity};
use crate::key::Key;
use crate::plan::context::Context;
use crate::plan::draft::{Draft, Written};
use crate::plan::miss::{miss_of, nearest_misses};
use crate::plan::pass::lossy::report_left_out;
use crate::plan::pass::tie::close_ties;
use crate::plan::run::run_statements;
use crate::plan::{RECORD_FILE, Stage, Verdict, counted, pass};

/// What the rewrites of a stage found: which keys are in its source layout, and which in its target
/// layout.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// Keys that a rewrite took.
    pub(super) matched: usize,
    /// Keys that no rewrite took and that look like a result.
    pub(super) already: IndexSet<Key, foldhash::fast::RandomState>,
    /// Keys that fit a rewrite and keep their name: they are in both layouts.
    pub(super) same: usize,
    /// Those keys, and by which of the rewrites that ran.
    pub(super) kept: HashMap<Key, usize, foldhash::fast::RandomState>,
    /// Whether a rewrite took a key that doesn't look like a result.
    pub(super) fresh: bool,
    /// Rules that took nothing, and what is to be said of them.
    pub(super) unmatched: Vec<(Identity, Diagnostic)>,
    /// Rewrites that ran.
    pub(super) rewrites: usize,
    /// Rules of them that must take something: those that are not `optional`.
    pub(super) needed: usize,
    /// Steps that can't be read backwards and left something behind.
    pub(super) left_out: Vec<pass::lossy::LeftOut>,
    /// How large the heads are that were turned, by module.
    pub(super) heads: pass::Heads,
}

impl Evidence {
    /// What is known of a key goes with it where no rule gives it another name.
    pub(super) fn follow(&mut self, before: &Key, after: &Key) {
        if let Some(by) = self.kept.get(before).copied() {
            self.kept.insert(after.clone(), by);
        }
    }
}

pub(super) fn run_stage(context: &Context<'_>, draft: &mut Draft, stage: &Stage<'_>) {
    draft.evidence = Evidence::default();
    draft.state.nothing_given();
    draft.of_stage.clear();
    let before = context.repeated.then(|| draft.clone());
    run_statements(context, draft, &Reading::of(stage.rules, stage.direction));
    close_ties(context, draft);
    let facts = std::mem::take(&mut draft.facts);
    draft.told.extend(facts.told(draft.stages));
    draft.stages += 1;
    if let Some(before) = before.filter(|_| draft.evidence.rewrites > 0 && !draft.evidence.fresh) {
        return applied_before(draft, stage, before);
    }
    if draft.failed() {
        return;
    }
    let mut evidence = std::mem::take(&mut draft.evidence);
    let verdict = match (evidence.matched, evidence.already.len()) {
        (0, 0) => Verdict::Neither,
        (0, _) => Verdict::Already,
        (_, 0) => Verdict::Converts,
        _ => Verdict::Mixed,
    };
    if evidence.rewrites > 0 {
        draft.verdicts.push(verdict);
    }
    let left_out = std::mem::take(&mut evidence.left_out);
    report_stage(context, draft, stage, verdict, evidence);
    // Where there is nothing to do, nothing is left undone.
    if verdict != Verdict::Already {
        report_left_out(context, draft, left_out);
    }
}

/// The record says that these rules made the checkpoint, and no key says otherwise: they have
/// nothing to do.
fn applied_before(draft: &mut Draft, stage: &Stage<'_>, before: Draft) {
    *draft = before;
    draft.evidence = Evidence::default();
    draft.verdicts.push(Verdict::Already);
    let backwards = if stage.direction == Direction::Reverse { ", backwards," } else { "" };
    let message = format!(
        "`{}`{backwards} was applied already, as the record ({RECORD_FILE}) says: nothing to do",
        stage.rules.name
    );
    draft.findings.push(Diagnostic::note(ALREADY_THERE, message));
}

fn report_stage(
    context: &Context<'_>,
    draft: &mut Draft,
    stage: &Stage<'_>,
    verdict: Verdict,
    evidence: Evidence,
) {
    // Of nothing, as a rank without a share has it, nothing can be said.
    if context.header.tensors.is_empty() {
        return;
    }
    let (source, target) = match (&stage.rules.layouts, stage.direction) {
        (Some((left, right)), Direction::Forward) => (left.as_str(), right.as_str()),
        (Some((left, right)), Direction::Reverse) => (right.as_str(), left.as_str()),
        (None, _) => ("source", "target"),
    };
    let name = &stage.rules.name;
    match verdict {
        Verdict::Already => {
            let (fit, all) = (evidence.already.len(), draft.state.iter().count());
            let are = if fit == 1 { "is" } else { "are" };
            let message = format!(
                "already in the layout `{target}` of `{name}`, which {fit} of {} {are} in: nothing to do",
                counted(all, "key")
            );
            let finding = Diagnostic::note(ALREADY_THERE, message);
            draft.findings.push(finding.keys(evidence.already.into_iter().map(String::from)));
        }
        Verdict::Mixed => {
            let count = counted(evidence.already.len(), "key");
            let finding = Diagnostic::warning(
                MIXED_LAYOUT,
                format!(
                    "mixed layout: {count} in `{target}` of `{name}` already, among keys of `{source}`"
                ),
            );
            let finding = finding.keys(evidence.already.into_iter().map(String::from));
            draft.findings.push(finding.hint("reading backwards would rename these too"));
        }
        Verdict::Neither if stage.named && evidence.needed > 0 && evidence.same == 0 => {
            let mut finding = Diagnostic::error(
                NEITHER_LAYOUT,
                format!("none of the rules of `{name}` fits any key"),
            );
            finding = finding
                .keys(draft.state.iter().take(5).map(|(_, entry)| String::from(entry.key.clone())));
            for miss in nearest_misses(draft, stage).into_iter().take(3) {
                finding = finding.hint(miss);
            }
            draft.findings
                    .push(finding.hint("are these rules for this checkpoint, and is the direction right? `regraft explain` says more"));
        }
        _ => {}
    }
    if matches!(verdict, Verdict::Converts | Verdict::Mixed) || evidence.rewrites == 0 {
        for (rule, mut finding) in evidence.unmatched {
            if !stage.named {
                finding.severity = Severity::Note;
            } else if let Some((_, miss)) = miss_of(draft, rule, stage) {
                finding.hints.insert(0, miss);
            }
            draft.findings.push(finding);
        }
    }
}

impl Draft {
    pub(super) fn unmatched(&mut self, written: Written<'_>, what: &str) {
        self.evidence.unmatched.push((
            written.id,
            Diagnostic::warning(UNMATCHED_RULE, format!("{what} matched nothing"))
                .at(written.place.clone(), "no key fits")
                .hint("write `optional` at its end if that is fine")
                .fix(written.place.after(), " optional"),
        ));
    }
}
