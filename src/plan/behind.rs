//! What sets missing keys apart from unexpected ones: a prefix too many or too few, which is said
//! once and not key by key.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::key::Key;
use crate::plan::counted;

/// The most segments of such a prefix.
const LONGEST: usize = 8;

/// A prefix that is the only difference between missing keys and unexpected ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    /// The prefix, without the dot after it.
    pub(super) prefix: String,
    /// Whether the keys that are given carry it, and not those that are asked for.
    too_many: bool,
    /// Missing keys that are there but for it.
    count: usize,
    /// Missing keys.
    all: usize,
}

impl Behind {
    /// The prefix that most missing keys are apart by: half of them at least. `None` if there is
    /// none, or if two do equally well.
    pub(super) fn find(missing: &[Key], unexpected: &[Key]) -> Option<Self> {
        let count = |short: &[Key], long: &[Key]| -> Option<(String, usize)> {
            let short: HashSet<&str, foldhash::fast::RandomState> =
                short.iter().map(Key::as_str).collect();
            let mut counts: IndexMap<&str, usize> = IndexMap::new();
            for key in long {
                for (dot, _) in key.match_indices('.').take(LONGEST) {
                    if short.contains(&key[dot + 1..]) {
                        *counts.entry(&key[..dot]).or_default() += 1;
                    }
                }
            }
            let (prefix, most) = counts.iter().max_by_key(|(_, count)| **count)?;
            let alone = counts.values().filter(|count| *count == most).count() == 1;
            alone.then(|| ((*prefix).to_owned(), *most))
        };
        let found = match (count(missing, unexpected), count(unexpected, missing)) {
            (Some((_, many)), Some((_, few))) if many == few => None,
            (Some(many), few) if few.as_ref().is_none_or(|few| few.1 < many.1) => {
                Some((many, true))
            }
            (_, few) => few.map(|few| (few, false)),
        };
        let ((prefix, count), too_many) = found?;
        let all = missing.len();
        (count * 2 >= all && (count > 1 || all == 1)).then_some(Self {
            prefix,
            too_many,
            count,
            all,
        })
    }

    /// What a person reads, with the statement that mends it.
    pub(super) fn hint(&self) -> String {
        let Self { prefix, too_many, count, all } = self;
        let which = match (count == all, all) {
            (true, 1) => "the missing key is".to_owned(),
            (true, 2) => "both missing keys are".to_owned(),
            (true, all) => format!("all {all} missing keys are"),
            (false, all) => format!("{count} of {} are", counted(*all, "missing key")),
        };
        let (pattern, them) = (pattern(prefix), if *count == 1 { "it" } else { "them all" });
        if *too_many {
            format!(
                "{which} there behind `{prefix}.`: take that off {them} with `rename \"{pattern}.**\" <-> \"**\"`"
            )
        } else {
            format!(
                "{which} there without `{prefix}.`: put that before {them} with `prefix \"{pattern}\"`"
            )
        }
    }

    /// Whether it explains why a key is missing or unexpected.
    pub(super) fn explains(&self, key: &str, is_missing: bool, others: &HashSet<&str>) -> bool {
        if is_missing != self.too_many {
            return key
                .strip_prefix(self.prefix.as_str())
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|rest| others.contains(rest));
        }
        others.contains(format!("{}.{key}", self.prefix).as_str())
    }
}

/// A name as it is written in a pattern.
pub(super) fn pattern(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if matches!(character, '{' | '}' | '"' | '\\' | '*') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> Vec<Key> {
        keys.iter().map(|key| Key::from(*key)).collect()
    }

    #[test]
    fn several_segments_either_way() {
        let (short, long) = (keys(&["a.w", "b.c.w"]), keys(&["x.y.a.w", "x.y.b.c.w", "x.z"]));
        let behind = Behind::find(&short, &long).unwrap();
        assert_eq!((behind.prefix.as_str(), behind.too_many, behind.count), ("x.y", true, 2));
        let before = Behind::find(&long, &short).unwrap();
        assert_eq!(
            (before.prefix.as_str(), before.too_many, before.count, before.all),
            ("x.y", false, 2, 3)
        );
    }

    #[test]
    fn no_guess_between_two() {
        let (short, long) = (
            keys(&["a.w", "b.w"]),
            keys(&["student.a.w", "student.b.w", "teacher.a.w", "teacher.b.w"]),
        );
        assert_eq!(Behind::find(&short, &long), None);
        assert_eq!(Behind::find(&short, &keys(&["c.a.w"])), None, "one of two, by chance");
        assert_eq!(Behind::find(&short, &keys(&["xa.w", "xb.w"])), None, "whole segments");
    }
}
