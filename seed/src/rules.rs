//! What the functions beside this take from the rule files: wrapper segments, and the sources of a
//! tied head in their order.
//!
//! `rules/wrappers.graft` and `rules/tied_lm_head.graft` say it; nothing here lists them a second
//! time.

use std::sync::OnceLock;

use regraft::check::{Rules, StepKind};
use regraft::library;

/// What the rule files say.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// What `strip anywhere` takes out: each one or more whole segments.
    pub(super) wrappers: Vec<Vec<String>>,
    /// What `strip leading` takes out.
    pub(super) leading: Vec<Vec<String>>,
    /// The key of the tied head.
    pub(super) head: String,
    /// The keys that it may come from, best first.
    pub(super) sources: Vec<String>,
}

/// What the embedded rule files say. They are checked when the crate is built and tested, so that
/// they are there.
pub(super) fn lists() -> &'static Lists {
    static LISTS: OnceLock<Lists> = OnceLock::new();
    LISTS.get_or_init(|| {
        let mut lists = Lists::default();
        let steps = |rules: Option<&'static Rules>| {
            rules.map(|rules| rules.steps.as_slice()).unwrap_or_default()
        };
        for step in steps(library::rules("wrappers")) {
            match &step.kind {
                StepKind::StripAnywhere { wrappers } => {
                    lists.wrappers.extend(wrappers.iter().cloned());
                }
                StepKind::StripLeading { wrappers, .. } => {
                    lists.leading.extend(wrappers.iter().cloned());
                }
                _ => {}
            }
        }
        for step in steps(library::rules("tied_lm_head")) {
            if let StepKind::Tie(tie) = &step.kind {
                lists.head = tie
                    .targets
                    .iter()
                    .find_map(|target| target.without_ranges().literal())
                    .unwrap_or_default();
                lists.sources.extend(
                    tie.sources.iter().filter_map(|source| source.without_ranges().literal()),
                );
            }
        }
        lists
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{CHECKPOINT, COMPILE, FSDP};

    /// The reference's order (NeMo AutoModel 0.7.0) begins ours.
    #[test]
    fn the_rule_files_say_what_is_needed() {
        let lists = lists();
        for wrapper in [COMPILE, CHECKPOINT, FSDP, "_fpw_module"] {
            assert!(lists.wrappers.contains(&vec![wrapper.to_owned()]), "{wrapper}");
        }
        for wrapper in ["module", "_forward_module"] {
            assert!(lists.leading.contains(&vec![wrapper.to_owned()]), "{wrapper}");
        }
        assert_eq!(lists.head, "lm_head.weight");
        assert_eq!(lists.sources.get(..4).unwrap(), crate::ties::REFERENCE_SOURCES);
    }
}
