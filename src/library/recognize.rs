//! Which rule file of a publisher's layout a checkpoint is in, where nobody named one.
//!
//! Keys alone decide, and only where one file clearly explains them: a conversion by the wrong rules
//! is worse than none. So a file has to speak of nine keys in ten, and those of publishers' layouts
//! say `strict`, by which a plan refuses the others.

use super::{HUB, detect, names, rules};
use crate::check::Rules;
use crate::config::Config;
use crate::diagnostic::codes::NO_WAY;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::tensor::Header;

/// What a checkpoint was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recognized {
    /// The rule file.
    pub rules: &'static str,
    /// The layout that the keys are in.
    pub layout: String,
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
/// If two files explain it equally well.
pub fn recognize(
    header: &Header,
    config: &Config,
    from: Option<&str>,
) -> Result<Option<Recognized>, Diagnostics> {
    let keys = header.tensors.len() as u64;
    let mut best: Vec<Recognized> = Vec::new();
    for (name, rules) in names().filter_map(|name| Some((name, candidate(name, config)?))) {
        let Some((layout, to)) = detect::own_layout(rules) else { continue };
        if to != HUB || from.is_some_and(|from| from != layout) {
            continue;
        }
        let is_left = rules.layouts.as_ref().is_some_and(|(left, _)| left == layout);
        let (own, other) = detect::spoken_and_against(header, rules, is_left);
        if own == 0 || own * 10 < keys * 9 || other * 4 > own {
            continue;
        }
        if best.first().is_some_and(|first| first.spoken < own) {
            best.clear();
        }
        if best.first().is_none_or(|first| first.spoken == own) {
            best.push(Recognized { rules: name, layout: layout.to_owned(), spoken: own, keys });
        }
    }
    if best.len() > 1 {
        return Err(Diagnostics(vec![equally(&best)]));
    }
    Ok(best.pop())
}

/// A file with a layout of its own that may be for the model of a config.
fn candidate(name: &'static str, config: &Config) -> Option<&'static Rules> {
    super::text(name).filter(|text| detect::has_another_layout(text))?;
    let rules = rules(name)?;
    let said: Vec<&str> = config.architectures().into_iter().chain(config.model_type()).collect();
    let is_for = rules.models.iter().any(|model| said.contains(&model.as_str()));
    // The numbers of ranks before keys come from the names of their files.
    (rules.shards.is_none() && (said.is_empty() || is_for)).then_some(rules)
}

fn equally(best: &[Recognized]) -> Diagnostic {
    let names: Vec<String> =
        best.iter().map(|one| format!("`{}` of `{}`", one.layout, one.rules)).collect();
    let message = format!("the layouts {} explain these keys equally well", names.join(" and "));
    Diagnostic::error(NO_WAY, message).hint("say with --from which it is, or name rules by --rules")
}
