//! Statements about a file as a whole: `separator` and `strict`. They are read before its statements
//! and after them, and then ask which keys its rules took.

use std::collections::HashMap;

use crate::check::value::Scope;
use crate::check::{Direction, Step, Whole};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::NOT_TAKEN;
use crate::key::Key;
use crate::plan::counted;
use crate::plan::draft::Draft;
use crate::plan::pass::strip::below;
use crate::plan::state::Current;

/// The keys before the statements of a file, by what they were in the checkpoint.
#[derive(Clone, Debug, Default)]
pub(in crate::plan) struct Before {
    keys: HashMap<Key, Was, foldhash::fast::RandomState>,
    /// How many rewrites had run.
    rewrites: usize,
}

#[derive(Clone, Copy, Debug)]
struct Was {
    /// How many rules had made it.
    rules: usize,
    /// Whether it was split at a separator.
    split: bool,
}

pub(in crate::plan) fn whole(
    draft: &mut Draft,
    step: &Step,
    (whole, after): (Whole, bool),
    scope: &Scope,
    direction: Direction,
) -> Result<(), Box<Diagnostic>> {
    if !after {
        let splits = match whole {
            Whole::Separator(separator) if direction == Direction::Forward => Some(separator),
            _ => None,
        };
        begin(draft, step, splits, scope);
        return Ok(());
    }
    let before = draft.before.remove(&step.id).unwrap_or_default();
    match whole {
        Whole::Separator(separator) => {
            // Forwards, what no rule took is as it was; backwards, what rules gave is split so.
            let changes = |entry: &Current| match direction {
                Direction::Forward => untouched(draft, &before, entry).is_some_and(|was| was.split),
                Direction::Reverse => untouched(draft, &before, entry).is_none(),
            };
            let places = draft.state.iter().filter(|(_, entry)| changes(entry));
            let places = places.map(|(place, _)| place).collect();
            exchange_all(draft, places, separator, scope);
            Ok(())
        }
        Whole::Strict => all_taken(draft, step, &before, scope),
    }
}

/// Before the statements of a file: notes the keys, and splits those that have the separator.
fn begin(draft: &mut Draft, step: &Step, separator: Option<char>, scope: &Scope) {
    let mut before = Before { rewrites: draft.evidence.rewrites, ..Before::default() };
    let mut places = Vec::new();
    for (place, entry) in draft.state.iter() {
        let Some(rest) = below(&entry.key, &scope.under) else { continue };
        let split = separator.is_some_and(|separator| rest.contains(separator));
        if split {
            places.push(place);
        }
        before.keys.insert(entry.origin.clone(), Was { rules: entry.rules.len(), split });
    }
    draft.before.insert(step.id, before);
    if let Some(separator) = separator {
        exchange_all(draft, places, separator, scope);
    }
}

/// What a key was before, if no rule took it since.
fn untouched(draft: &Draft, before: &Before, entry: &Current) -> Option<Was> {
    let was = before.keys.get(&entry.origin)?;
    let since = entry.rules.get(was.rules..).unwrap_or_default();
    let kept = draft.evidence.kept.get(&entry.key).is_some_and(|by| *by > before.rewrites);
    let taken = kept || since.iter().any(|rule| draft.rewrites.contains_key(rule));
    (!taken).then_some(*was)
}

/// In these keys the separator and the dot change places: a dot that stood within a segment is as
/// it was when they change back.
fn exchange_all(draft: &mut Draft, places: Vec<usize>, separator: char, scope: &Scope) {
    let entries: Vec<Current> = places.into_iter().filter_map(|at| draft.state.take(at)).collect();
    for mut entry in entries {
        let start = entry.key.len() - below(&entry.key, &scope.under).map_or(0, str::len);
        let (under, rest) = entry.key.split_at(start);
        let rest = rest.chars().map(|c| exchanged(c, separator));
        let key: String = under.chars().chain(rest).collect();
        let before = std::mem::replace(&mut entry.key, Key::from(key));
        draft.evidence.follow(&before, &entry.key);
        draft.put(entry);
    }
}

/// The separator for a dot, and a dot for the separator.
pub(in crate::plan) fn exchanged(c: char, separator: char) -> char {
    match c {
        '.' => separator,
        c if c == separator => '.',
        c => c,
    }
}

/// Refuses keys that were there before the statements of a file, and that no rule took.
fn all_taken(
    draft: &Draft,
    step: &Step,
    before: &Before,
    scope: &Scope,
) -> Result<(), Box<Diagnostic>> {
    let stays = |entry: &Current| {
        untouched(draft, before, entry).is_some() && below(&entry.key, &scope.under).is_some()
    };
    let left: Vec<&Key> = draft
        .state
        .iter()
        .filter(|(_, entry)| stays(entry))
        .map(|(_, entry)| &entry.origin)
        .collect();
    // That nothing fits, or everything is done, is for the verdict to say.
    if left.is_empty() || draft.evidence.matched == 0 {
        return Ok(());
    }
    let message = format!("{} that no rule takes", counted(left.len(), "key"));
    let finding = Diagnostic::error(NOT_TAKEN, message)
        .at(step.place.clone(), "every key must be taken")
        .keys(left.iter().map(|key| key.as_str()));
    Err(Box::new(finding.hint(
        "write a rule for them, `drop` them, or, if they have one name in both layouts, rename them to that name",
    )))
}
