//! What the functions beside this take from the rule files: wrapper segments, and the sources of a
//! tied head in their order.
//!
//! `rules/wrappers.graft` and `rules/tied_lm_head.graft` say it; nothing here lists them a second
//! time.

use std::sync::OnceLock;

use regraft::check::reading::{Act, Reading};
use regraft::check::{Direction, Rules};
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
        let statements = |rules: Option<&'static Rules>| {
            let reading = rules.map(|rules| Reading::of(rules, Direction::Forward));
            reading.map(|reading| reading.statements()).unwrap_or_default()
        };
        for statement in statements(library::rules("wrappers")) {
            match statement.act {
                Act::StripAnywhere { wrappers } => {
                    lists.wrappers.extend(wrappers.iter().cloned());
                }
                Act::StripLeading { wrappers, .. } => {
                    lists.leading.extend(wrappers.iter().cloned());
                }
                Act::Rewrite(_)
                | Act::Prefix(_)
                | Act::Whole { .. }
                | Act::Drop(_)
                | Act::Keep(_)
                | Act::Cast { .. }
                | Act::Tie(_)
                | Act::Create { .. }
                | Act::Expect { .. }
                | Act::When { .. } => {}
            }
        }
        for statement in statements(library::rules("tied_lm_head")) {
            if let Act::Tie(tie) = statement.act {
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
