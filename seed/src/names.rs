//! Names of parameters and modules: what wrappers leave in them, and how to look a module up
//! without minding them.
//!
//! A wrapper is a whole segment, never part of one: `layers.0.my_orig_mod.weight` names no wrapper.
//! The reference replaces text instead.

use indexmap::IndexMap;

use super::Compat;
use super::reference::Raised;
use super::rules::lists;

/// The wrappers that the reference's functions know by name. All wrappers are in
/// `rules/wrappers.graft`; a test holds these to be among them.
pub(crate) const CHECKPOINT: &str = "_checkpoint_wrapped_module";
pub(crate) const COMPILE: &str = "_orig_mod";
pub(crate) const FSDP: &str = "_fsdp_wrapped_module";

/// The segments that `rules/wrappers.graft` takes for wrappers' names: those that it strips
/// anywhere, then those that it strips where every key begins with them.
pub fn wrappers() -> impl Iterator<Item = &'static str> {
    let lists = lists();
    lists.wrappers.iter().chain(&lists.leading).flatten().map(String::as_str)
}

/// A parameter's name without wrappers: those that `rules/wrappers.graft` strips anywhere, of
/// `torch.compile`, activation checkpointing and FSDP1. A name of wrappers alone stays.
///
/// The reference knows the first two only, and takes their text out wherever a dot follows it.
pub fn normalize_param_name(name: &str, compat: Compat) -> String {
    match compat {
        Compat::Strict => without_segments(name, &lists().wrappers),
        Compat::Reference => without_text(name, &[CHECKPOINT, COMPILE]),
    }
}

/// A parameter's name as state dicts have it: without the wrapper of activation checkpointing.
pub fn canonical_parameter_fqn(name: &str, compat: Compat) -> String {
    match compat {
        Compat::Strict => without_segments(name, &[[CHECKPOINT]]),
        Compat::Reference => without_text(name, &[CHECKPOINT]),
    }
}

/// A tensor's name without the wrappers of FSDP1 and activation checkpointing: `clean_tensor_name`
/// of `torch.distributed.fsdp`.
pub fn clean_tensor_name(name: &str, compat: Compat) -> String {
    match compat {
        Compat::Strict => without_segments(name, &[[FSDP], [CHECKPOINT]]),
        Compat::Reference => without_text(name, &[FSDP, CHECKPOINT]),
    }
}

/// The name without the text of these wrappers wherever a dot follows it, one after the other.
fn without_text(name: &str, wrappers: &[&str]) -> String {
    wrappers.iter().fold(name.to_owned(), |name, wrapper| name.replace(&format!("{wrapper}."), ""))
}

/// The name without these runs of whole segments, as `strip anywhere` takes them out; the name
/// itself where nothing would be left.
fn without_segments<W, S>(name: &str, wrappers: &[W]) -> String
where
    W: AsRef<[S]>,
    S: AsRef<str>,
{
    let mut kept: Vec<&str> = Vec::new();
    for segment in name.split('.') {
        kept.push(segment);
        let ends = |wrapper: &&W| {
            let wrapper: &[S] = wrapper.as_ref();
            kept.len() >= wrapper.len()
                && kept
                    .iter()
                    .rev()
                    .zip(wrapper.iter().rev())
                    .all(|(kept, part)| *kept == part.as_ref())
        };
        if let Some(wrapper) = wrappers.iter().find(ends) {
            kept.truncate(kept.len() - wrapper.as_ref().len());
        }
    }
    if kept.is_empty() { name.to_owned() } else { kept.join(".") }
}

/// Takes a prefix off the keys of a state dict: `consume_prefix_in_state_dict_if_present` of
/// `torch.nn.modules.utils`. Gives the number of keys changed.
///
/// Only where every key carries it and something of each key is left. The reference changes
/// whichever keys carry it; those move to the end, and one may replace another.
///
/// # Errors
/// In strict mode, where a key would be left empty: nothing is changed.
pub fn consume_prefix_in_state_dict_if_present<T>(
    state_dict: &mut IndexMap<String, T>,
    prefix: &str,
    compat: Compat,
) -> Result<usize, Raised> {
    let carries = |key: &String| key.starts_with(prefix);
    if compat == Compat::Strict {
        if prefix.is_empty() || !state_dict.keys().all(carries) {
            return Ok(0);
        }
        if state_dict.contains_key(prefix) {
            return Err(Raised::new(
                "ValueError",
                format!("key {prefix:?} is the prefix itself: nothing would be left of it"),
            ));
        }
        let whole = std::mem::take(state_dict);
        *state_dict = whole
            .into_iter()
            .map(|(key, value)| (key.strip_prefix(prefix).unwrap_or(&key).to_owned(), value))
            .collect();
        return Ok(state_dict.len());
    }
    let keys: Vec<String> = state_dict.keys().filter(|key| carries(key)).cloned().collect();
    for key in &keys {
        // Popped before it is set again, as the reference does: a key that is there already keeps
        // its place and loses its value.
        if let (Some(value), Some(rest)) = (state_dict.shift_remove(key), key.strip_prefix(prefix))
        {
            state_dict.insert(rest.to_owned(), value);
        }
    }
    Ok(keys.len())
}

/// The first module whose name is the target once [normalized](normalize_param_name); the model
/// itself for the empty target. `modules` are names in the order of `named_modules()`.
pub fn get_module_by_normalized_name<'a>(
    modules: impl IntoIterator<Item = &'a str>,
    target: &str,
    compat: Compat,
) -> Option<&'a str> {
    if target.is_empty() {
        return Some("");
    }
    modules.into_iter().find(|name| normalize_param_name(name, compat) == target)
}

/// The names of the modules that a list of parameters implies, in the order of `named_modules()`:
/// parents first, the model's own empty name at the start.
pub fn module_names<'a>(params: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut seen = std::collections::HashSet::new();
    for param in params {
        for (end, _) in param.match_indices('.') {
            let name = param.get(..end).unwrap_or_default();
            if seen.insert(name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(name: &str) -> String {
        normalize_param_name(name, Compat::Strict)
    }

    #[test]
    fn wrappers_go_in_any_nesting() {
        assert_eq!(
            strict(
                "_orig_mod._fsdp_wrapped_module.model._checkpoint_wrapped_module._checkpoint_wrapped_module.w"
            ),
            "model.w"
        );
        assert_eq!(
            strict("module._orig_mod.module.w"),
            "module.module.w",
            "a leading-only wrapper needs the other keys to decide"
        );
    }

    #[test]
    fn only_whole_segments() {
        for name in [
            "layers.0.my_orig_mod.weight",
            "_orig_modx.weight",
            "x_checkpoint_wrapped_module.weight",
            "_orig_mod",
            "_orig_mod._orig_mod",
            "",
        ] {
            assert_eq!(strict(name), name);
        }
        assert_eq!(strict("lm_head.weight._orig_mod"), "lm_head.weight");
        assert_eq!(
            normalize_param_name("layers.0.my_orig_mod.weight", Compat::Reference),
            "layers.0.myweight"
        );
    }

    fn dict(keys: &[&str]) -> IndexMap<String, usize> {
        keys.iter().enumerate().map(|(i, key)| ((*key).to_owned(), i)).collect()
    }

    #[test]
    fn a_prefix_goes_from_all_keys_or_none() {
        let mut all = dict(&["module.a", "module.b"]);
        assert_eq!(
            consume_prefix_in_state_dict_if_present(&mut all, "module.", Compat::Strict),
            Ok(2)
        );
        assert_eq!(all, dict(&["a", "b"]));
        for keys in [&["module.a", "b"][..], &["module.a", "a"], &[]] {
            let mut some = dict(keys);
            assert_eq!(
                consume_prefix_in_state_dict_if_present(&mut some, "module.", Compat::Strict),
                Ok(0)
            );
            assert_eq!(some, dict(keys));
        }
        let mut bare = dict(&["module.", "module.a"]);
        assert!(
            consume_prefix_in_state_dict_if_present(&mut bare, "module.", Compat::Strict).is_err()
        );
        assert_eq!(bare, dict(&["module.", "module.a"]));
    }

    #[test]
    fn modules_of_parameters() {
        assert_eq!(module_names(["a.b.w", "a.b.bias", "c"]), ["", "a", "a.b"]);
    }
}
