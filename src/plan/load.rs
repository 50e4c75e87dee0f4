//! What a draft begins with: the tensors of the checkpoint, and what can be said of them and of the
//! options before the first statement runs.

use std::collections::HashMap;

use crate::config::TieReason;
use crate::diagnostic::codes::{LIMIT, TIE_APPLIED, TIE_FLAG, UNKNOWN_NAME};
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::key::{Key, Segments};
use crate::plan::context::Context;
use crate::plan::draft::Draft;
use crate::plan::state::Current;
use crate::plan::{List, Stage};
use crate::tensor::MAX_KEY_LEN;

/// The most segments a key may have.
const MAX_SEGMENTS: usize = 1024;

/// Every tensor of the checkpoint becomes an entry.
pub(super) fn load(context: &Context<'_>, draft: &mut Draft) {
    let mut segments = Segments::default();
    let count = context.header.tensors.len();
    let shared = shared(context);
    draft.graph.reserve(count);
    draft.state.reserve(count);
    for (key, entry) in &context.header.tensors {
        segments.split(key);
        if segments.len() > MAX_SEGMENTS {
            draft.findings.push(
                Diagnostic::error(LIMIT, format!("a key has more than {MAX_SEGMENTS} segments"))
                    .keys([key.as_str()]),
            );
            continue;
        }
        // A key that shares its place is the tensor of the one that stands for it.
        let first = shared.get(key).copied();
        match draft.graph.source(first.unwrap_or(key), &entry.info) {
            Ok(node) => {
                let entry = Current {
                    key: key.clone(),
                    node,
                    origin: key.clone(),
                    rules: List::new(),
                    tied: first.is_some(),
                    given: false,
                };
                // Keys of a header are different from each other.
                let _ = draft.state.insert(entry);
            }
            Err(why) => draft
                .findings
                .push(Diagnostic::error(crate::diagnostic::codes::SHAPE, why).keys([key.as_str()])),
        }
    }
}

/// For each key that shares its place with others, the one that stands for them.
fn shared<'h>(context: &Context<'h>) -> HashMap<&'h Key, &'h Key> {
    let mut found = HashMap::new();
    for keys in &context.header.shared {
        if let Some((first, rest)) = keys.split_first() {
            found.extend(rest.iter().map(|key| (key, first)));
        }
    }
    found
}

/// Says which keys of the checkpoint are one tensor.
fn tell_shared(context: &Context<'_>, draft: &mut Draft) {
    let groups = &context.header.shared;
    if groups.is_empty() {
        return;
    }
    let aliases = groups.iter().flat_map(|keys| keys.iter().skip(1));
    let names: Vec<&str> = aliases.map(Key::as_str).collect();
    let share = if names.len() == 1 {
        "1 key shares its storage in the file with another, and is one tensor with it".to_owned()
    } else {
        let count = names.len();
        format!(
            "{count} keys share their storage in the file with others, and are one tensor with them"
        )
    };
    let message = format!("{share}: files have it once, unless ties are materialized");
    draft.findings.push(Diagnostic::note(TIE_APPLIED, message).keys(names));
}

/// Keys that were left out when the file was saved, as its metadata says: each is one tensor
/// with the key that it names.
pub(super) fn load_aliases(context: &Context<'_>, draft: &mut Draft) {
    tell_shared(context, draft);
    let mut made = Vec::new();
    for (alias, kept) in context.header.aliases() {
        let is_key = alias.len() <= MAX_KEY_LEN
            && alias.split('.').count() <= MAX_SEGMENTS
            && !alias.is_empty();
        let (Some(node), false) =
            (draft.state.get(kept).map(|entry| entry.node), draft.state.contains(alias))
        else {
            continue;
        };
        if is_key {
            let entry = Current {
                key: Key::from(alias),
                node,
                origin: kept.clone(),
                rules: List::new(),
                tied: true,
                given: false,
            };
            let _ = draft.state.insert(entry);
            made.push(alias);
        }
    }
    if !made.is_empty() {
        let are = if made.len() == 1 {
            "1 key that it leaves out is".to_owned()
        } else {
            format!("{} keys that it leaves out are", made.len())
        };
        let message =
            format!("the file's metadata says that {are} one tensor with keys that it has");
        draft.findings.push(Diagnostic::note(TIE_APPLIED, message).keys(made));
    }
}

/// A flag that is no boolean decides nothing, and a person who wrote it thinks that it does.
pub(super) fn check_tie_flag(context: &Context<'_>, draft: &mut Draft) {
    if let TieReason::NotBoolean { path, found } = &context.decision.because {
        let finding = Diagnostic::warning(
            TIE_FLAG,
            format!("the config field `{path}` is {found}, which is no boolean: taken as untied"),
        );
        let hint = "write true or false there, or say it for this run: --tied true";
        draft.findings.push(finding.keys([path.as_str()]).hint(hint));
    }
}

/// A parameter that no rule file declares is a typo.
pub(super) fn check_parameters(context: &Context<'_>, draft: &mut Draft, stages: &[Stage<'_>]) {
    let known: Vec<&str> = stages
        .iter()
        .flat_map(|stage| &stage.rules.scopes)
        .flat_map(|scope| scope.lets.keys().map(String::as_str))
        .collect();
    for name in context.options.parameters.keys() {
        if known.contains(&name.as_str()) {
            continue;
        }
        let mut diagnostic = Diagnostic::error(
            UNKNOWN_NAME,
            format!("no rule file declares the parameter `{name}`"),
        );
        diagnostic = match did_you_mean(name, known.iter().copied()) {
            Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
            None => diagnostic.hint(format!(
                "a rule file declares it with `let {name}` or `let {name} = default`"
            )),
        };
        draft.findings.push(diagnostic);
    }
}
