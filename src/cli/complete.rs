//! What shells complete beyond the words of the command line: rule files, layouts, and the keys of the checkpoint that the line
//! names. Only headers of what is on this machine are read, and what can't be read completes nothing.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};
use regraft::library;
use regraft::store::{NamedPath, OpenOptions, Store as _, open_named};

/// Keys that are offered as they are; of more, as far as they are told apart.
const KEYS: usize = 200;

/// Built-in rule files, and files.
pub(super) fn rules() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let mut found = built_in(current);
        let is_rules = |path: &Path| {
            path.is_dir() || path.extension().is_some_and(|extension| extension == "graft")
        };
        found.extend(PathCompleter::any().filter(is_rules).complete(current));
        found
    })
}

/// Built-in rule files.
pub(super) fn names() -> ArgValueCompleter {
    ArgValueCompleter::new(built_in)
}

fn built_in(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    library::names()
        .filter(|name| name.starts_with(&*current))
        .map(CompletionCandidate::new)
        .collect()
}

/// Keys of the first checkpoint that the command line names.
pub(super) fn keys() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let line: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").collect();
        let current = current.to_string_lossy();
        // The words `--`, `regraft` and the subcommand come first.
        let source = line.iter().skip(3).find(|word| is_here(word));
        let Some(checkpoint) = source
            .and_then(|source| NamedPath::parse(source.clone()).ok())
            .and_then(|source| open_named(&[source], None, &OpenOptions::default()).ok())
        else {
            return Vec::new();
        };
        let header = checkpoint.header();
        let fit: Vec<&str> = header
            .tensors
            .keys()
            .map(|key| key.as_str())
            .filter(|key| key.starts_with(&*current) && !key.contains(char::is_control))
            .collect();
        shown(&fit, current.len()).into_iter().map(CompletionCandidate::new).collect()
    })
}

/// Whether a word names something on this machine: nothing is fetched for a completion.
fn is_here(word: &OsStr) -> bool {
    let text = word.to_string_lossy();
    let path = text.split_once('=').map_or(&*text, |(_, path)| path);
    !text.starts_with('-') && (Path::new(path).exists() || Path::new(word).exists())
}

/// Keys, or what they begin with: up to the first dot after `from` bytes at which there are two ways at least.
fn shown(keys: &[&str], from: usize) -> BTreeSet<String> {
    let mut from = from;
    loop {
        let until = |key: &str| {
            let rest = key.get(from..).unwrap_or_default();
            rest.find('.').map_or(key.len(), |dot| from + dot + 1)
        };
        let begun: BTreeSet<String> =
            keys.iter().filter_map(|key| key.get(..until(key)).map(str::to_owned)).collect();
        if keys.len() <= KEYS {
            return keys.iter().map(|key| (*key).to_owned()).collect();
        }
        match begun.first() {
            Some(only) if begun.len() == 1 && only.len() > from => from = only.len(),
            _ => return begun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_keys_are_shown_as_far_as_they_differ() {
        let all: Vec<String> =
            (0..300).map(|at| format!("model.layers.{at}.{}", ["a", "b"][at % 2])).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let begun = shown(&all, 0);
        assert_eq!(begun.len(), 300);
        assert!(begun.contains("model.layers.7."), "{begun:?}");
        assert_eq!(
            shown(&all[..2], 0),
            ["model.layers.0.a", "model.layers.1.b"].map(str::to_owned).into()
        );
    }
}
