//! Whether applying rules to their own output changes anything.
//!
//! Say that a second application takes a key. The first one gave it, or it would have been taken
//! then; so it looks like a result of the *maker*, the rule that changed it last, and fits a
//! *reader*, which stands no later. For each such pair of rules the languages are intersected. What
//! is proven so holds for every key, whatever conditions and ranges say, where no target manifest
//! moves prefixes.
//!
//! Nearly every rule with a `**` reads its own result if a name is doubled (`a.**` of `a.a.a.x`),
//! or if two rules of a group fit one key. Where only such keys are left, the proof holds for
//! *plain* keys, and says so: those in which the captures of each rule that takes them hold none of
//! the names, but for a `weight` or `bias` at the end, that the sources of its statement or an
//! earlier one have. A key that refutes is plain, and has been followed through the rules twice, by
//! rules that depend on nothing but keys.

mod certain;
mod meeting;
mod program;

use std::fmt;

use crate::check::proof::nearby::Nearby;
use crate::check::rules::Side;
use crate::check::rules::{Direction, Rules};
use meeting::*;
use program::*;

/// Witnesses that are followed for a pair of rules.
const WITNESSES: usize = 48;

/// Why nothing is said where the effort is spent.
const TOO_MUCH: &str = "there is too much to compare";

/// Whether applying rules to their own output changes anything.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Idempotence {
    /// No key is rewritten twice.
    Proven {
        /// Shown only for plain keys: the captures of each rule that takes one hold none of the
        /// names in the sources so far.
        plain: bool,
        /// A key that isn't so, and is rewritten twice.
        #[serde(skip_serializing_if = "Option::is_none")]
        except: Option<Twice>,
    },
    /// This key is, though it is plain.
    Refuted(Twice),
    /// It can't be told from the rules alone; the plan's verdict guards against it.
    Undecided {
        /// Why.
        because: String,
    },
}

/// A key that is rewritten twice.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Twice {
    /// A key of the source layout.
    pub key: String,
    /// What it becomes.
    pub once: String,
    /// What that becomes when the rules are applied again; the same, if only its tensor is changed
    /// again.
    pub twice: String,
}

impl fmt::Display for Idempotence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proven { plain: false, .. } => f.write_str("proven"),
            Self::Proven { plain: true, except: None } => f.write_str("proven for plain keys"),
            Self::Proven { plain: true, except: Some(found) } => {
                write!(f, "proven for plain keys (not so: {found})")
            }
            Self::Refuted(found) => write!(f, "refuted, as {found}"),
            Self::Undecided { because } => write!(f, "undecided, as {because}"),
        }
    }
}

impl fmt::Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, once, twice } = self;
        if once == twice {
            return write!(f, "`{key}` becomes `{once}`, which is read again");
        }
        write!(f, "`{key}` becomes `{once}`, and that `{twice}`")
    }
}

/// A plain key that one of the rules, read backwards, takes again after it gave it: `"rank0.**" <->
/// "**"` makes `rank0.rank0.x` of `x`. Only each rule with itself is looked at.
///
/// # Errors
/// Why it isn't known, where there is too much to look at.
pub fn repeats_backwards(rules: &Rules) -> Result<Option<Twice>, String> {
    let program = Program::of(rules, Direction::Reverse);
    let lookup = Lookup::new(&program);
    for rule in lookup.rules {
        let found = witnesses(&lookup, rule, rule)
            .into_iter()
            .find_map(|(found, plain)| plain.then_some(found));
        if found.is_some() {
            return Ok(found);
        }
        if lookup.effort().is_spent() {
            return Err(TOO_MUCH.to_owned());
        }
    }
    Ok(None)
}

/// Whether applying the rules to their own output changes anything.
pub fn idempotence(rules: &Rules) -> Idempotence {
    let mut program = Program::of(rules, Direction::Forward);
    let (mut plain, mut except) = (false, None);
    let mut open = program.open.take();
    let lookup = Lookup::new(&program);
    let effort = lookup.effort();
    let mut nearby = Nearby::default();
    for (number, placed) in program.rules.iter().enumerate() {
        placed
            .rule
            .left
            .iter()
            .filter_map(Side::pattern)
            .for_each(|source| nearby.add(source, number));
    }
    for maker in &program.rules {
        for reader in
            readers(&lookup, &nearby, maker).into_iter().map(|number| &program.rules[number])
        {
            if !effort.spend(1) {
                return Idempotence::Undecided {
                    because: open.unwrap_or_else(|| TOO_MUCH.to_owned()),
                };
            }
            match meet(&lookup, maker, reader) {
                Meeting::Never => continue,
                Meeting::Doubled => {
                    plain = true;
                    if except.is_some() {
                        continue;
                    }
                }
                Meeting::Possible => {
                    open.get_or_insert_with(|| {
                        format!("`{}` may read what `{}` gives", reader.rule.text, maker.rule.text)
                    });
                }
            }
            for (found, is_plain) in witnesses(&lookup, maker, reader) {
                if is_plain {
                    return Idempotence::Refuted(found);
                }
                except.get_or_insert(found);
            }
        }
        for taker in program.takers.iter().filter(|taker| taker.at <= maker.at) {
            if open.is_none() && may_take(taker, &maker.rule, effort) {
                open = Some(format!("`{}` may take what `{}` gives", taker.text, maker.rule.text));
            }
        }
    }
    for (at, text, pattern) in &program.made {
        let read = program.rules.iter().filter(|reader| reader.at <= *at).find(|reader| {
            let sources = reader.rule.left.iter().filter_map(Side::pattern);
            !sources
                .into_iter()
                .all(|source| apart(pattern, source, &reader.rule.unless_left, effort))
        });
        if let Some(reader) = read.filter(|_| open.is_none()) {
            open = Some(format!("`{}` may read what `{text}` gives", reader.rule.text));
        }
    }
    let open = open.or_else(|| effort.is_spent().then(|| TOO_MUCH.to_owned()));
    match open {
        Some(because) => Idempotence::Undecided { because },
        None => Idempotence::Proven { plain, except },
    }
}

/// Rules that may read what another gives: those whose sources may fit its results, and stand no
/// later. Where a rule has a regex, any may.
fn readers(lookup: &Lookup<'_>, nearby: &Nearby<'_>, maker: &Placed<'_>) -> Vec<usize> {
    let end = lookup.rules.partition_point(|reader| reader.at <= maker.at);
    if lookup.has_regex {
        return (0..end).collect();
    }
    let images = maker.rule.right.iter().filter_map(Side::pattern);
    let mut found: Vec<usize> = images
        .flat_map(|image| nearby.of(image, lookup.effort()))
        .filter(|number| *number < end)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}
