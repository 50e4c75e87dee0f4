//! Which rule file of a publisher's layout a checkpoint is in, where nobody named one.
//!
//! Keys decide, and only where one file clearly explains them: a conversion by the wrong rules is
//! worse than none. So a file has to speak of nine keys in ten, and two of three of its own rules
//! have to find something; and those of publishers' layouts say `strict`, by which a plan refuses
//! the keys that are left. Of two files the one that speaks of more keys is taken, then the one of
//! whose rules fewer find nothing.

use super::detect;
use super::unwrapped::Keys;
use super::vocabulary::{Explained, Telling, Vocabulary, rank};
use super::{HUB, names, rules};
use crate::check::Rules;
use crate::config::Config;
use crate::diagnostic::codes::NO_WAY;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::tensor::Header;

/// How many segments before all keys are looked behind.
const PREFIXES: usize = 3;

/// What a checkpoint was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recognized {
    /// The rule file.
    pub rules: &'static str,
    /// The layout that the keys are in.
    pub layout: String,
    /// Segments before every key that are none of the layout; mostly none.
    pub prefix: Vec<String>,
    /// How many keys it speaks of.
    pub spoken: u64,
    /// How many keys there are.
    pub keys: u64,
}

/// The rule file that leads from the publisher's layout of a checkpoint to `hub`; `None` if no
/// layout but those that models share explains it. `from` is the layout that it is said to be in,
/// if it is said.
///
/// A config that says what model it is rules out files that aren't for it.
///
/// # Errors
/// If two files explain it equally well; or one does, there is no config and no `from`, and
/// names that another family publishes explain it as well.
pub fn recognize(
    header: &Header,
    config: &Config,
    from: Option<&str>,
) -> Result<Option<Recognized>, Diagnostics> {
    let candidates: Vec<Candidate> =
        names().filter_map(|name| Candidate::of(name, config, from)).collect();
    if candidates.is_empty() {
        return Ok(None);
    }
    let mut keys = Keys::of(header);
    let mut prefix = Vec::new();
    loop {
        let mut best = best(&candidates, &keys);
        if best.len() > 1 {
            return Err(Diagnostics(vec![equally(&best)]));
        }
        if let Some(found) = best.pop() {
            let nothing_said = from.is_none() && prefix.is_empty() && config.is_empty();
            let rival = nothing_said.then(|| detect::rival(header, found.rules)).flatten();
            if let Some(rival) = rival {
                return Err(Diagnostics(vec![as_well(&found, &rival)]));
            }
            return Ok(Some(Recognized { prefix, ..found }));
        }
        match keys.behind_prefix().filter(|_| prefix.len() < PREFIXES) {
            Some((segment, rest)) => {
                prefix.push(segment);
                keys = rest;
            }
            None => return Ok(None),
        }
    }
}

/// The rule file that leads from `hub`, which a checkpoint is in, to a publisher's layout; `None` if
/// none does that explains the keys.
///
/// A config that says what model it is rules out files that aren't for it.
///
/// # Errors
/// If two files explain it equally well.
pub fn recognize_towards(
    header: &Header,
    config: &Config,
    to: &str,
) -> Result<Option<Recognized>, Diagnostics> {
    let candidates = names().filter_map(|name| Candidate::of(name, config, Some(to)));
    let candidates: Vec<Candidate> = candidates.map(Candidate::read_from_hub).collect();
    if candidates.is_empty() {
        return Ok(None);
    }
    let mut best = best(&candidates, &Keys::of(header));
    if best.len() > 1 {
        return Err(Diagnostics(vec![equally(&best)]));
    }
    Ok(best.pop())
}

/// Those that explain keys best: several only where nothing tells them apart.
fn best(candidates: &[Candidate], keys: &Keys) -> Vec<Recognized> {
    let explaining: Vec<(&Candidate, Explained)> = candidates
        .iter()
        .filter_map(|candidate| Some((candidate, candidate.explains(keys)?)))
        .collect();
    let rank = |explained: &Explained| rank(explained.named, explained.unmet);
    let best = explaining.iter().map(|(_, explained)| rank(explained)).max();
    explaining
        .iter()
        .filter(|(_, explained)| Some(rank(explained)) == best)
        .map(|(candidate, explained)| candidate.recognized(explained.named, keys.count()))
        .collect()
}

/// A file with a layout of its own that may be for the model of a config.
struct Candidate {
    name: &'static str,
    rules: &'static Rules,
    /// The layout that keys may be in.
    layout: &'static str,
    is_left: bool,
}

impl Candidate {
    fn of(name: &'static str, config: &Config, from: Option<&str>) -> Option<Self> {
        // What the text tells already needs no parser.
        super::text(name).filter(|text| detect::has_another_layout(text)).filter(|text| {
            of_model(config).is_none_or(|of| of.iter().any(|it| text.contains(it)))
        })?;
        let rules = rules(name)?;
        let (layout, to) = detect::own_layout(rules)?;
        if to != HUB || from.is_some_and(|from| from != layout) {
            return None;
        }
        let is_left = rules.layouts.as_ref().is_some_and(|(left, _)| left == layout);
        // The numbers of ranks before keys come from the names of their files.
        (rules.shards.is_none() && may_be_for(rules, config)).then_some(Self {
            name,
            rules,
            layout,
            is_left,
        })
    }

    /// The same file, where it's asked whether `hub` explains keys.
    fn read_from_hub(self) -> Self {
        Self { layout: HUB, is_left: !self.is_left, ..self }
    }

    /// How it explains keys, if it does.
    fn explains(&self, keys: &Keys) -> Option<Explained> {
        let telling = Telling::nothing();
        let read = |left| {
            Vocabulary::new(self.rules, left).explain(&keys.kinds(self.rules, left), &telling)
        };
        let own = read(self.is_left);
        let enough = own.explains_nearly_all(keys.count());
        (enough && own.against(&read(!self.is_left)) * 4 <= own.named).then_some(own)
    }

    fn recognized(&self, spoken: u64, keys: u64) -> Recognized {
        let layout = self.layout.to_owned();
        Recognized { rules: self.name, layout, prefix: Vec::new(), spoken, keys }
    }
}

/// Whether rules may be for the model of a config: it names no model, or one of theirs.
pub(super) fn may_be_for(rules: &Rules, config: &Config) -> bool {
    of_model(config)
        .is_none_or(|said| rules.models.iter().any(|model| said.contains(&model.as_str())))
}

/// What a config calls its model; `None` if it names none.
fn of_model(config: &Config) -> Option<Vec<&str>> {
    let said: Vec<&str> = config.architectures().into_iter().chain(config.model_type()).collect();
    (!said.is_empty()).then_some(said)
}

fn as_well(found: &Recognized, rival: &str) -> Diagnostic {
    let Recognized { rules, layout, .. } = found;
    let message = format!(
        "the layout `{layout}` of `{rules}` explains these keys, and those that `{rival}` has as `{HUB}` do as well"
    );
    Diagnostic::error(NO_WAY, message).hint(format!(
        "--from {layout} says the one, --rules {rival} the other; so does a --config with the `model_type`"
    ))
}

fn equally(best: &[Recognized]) -> Diagnostic {
    let names: Vec<String> =
        best.iter().map(|one| format!("`{}` of `{}`", one.layout, one.rules)).collect();
    let message = format!("the layouts {} explain these keys equally well", names.join(" and "));
    let told_apart =
        best.iter().all(|one| best.iter().filter(|other| other.layout == one.layout).count() == 1);
    Diagnostic::error(NO_WAY, message).hint(match told_apart {
        true => "say with --from which it is, or name rules by --rules",
        false => "a --config with the `model_type` says which it is, or name rules by --rules",
    })
}
