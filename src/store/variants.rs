//! Variants: the same tensors again under a name with a word more, as `model.fp16.safetensors`
//! beside `model.safetensors`.

use std::collections::HashSet;
use std::path::Path;

use super::place;
use super::safetensors::read_header;
use crate::error::Error;

/// The name without a variant, and the variant, of a file's name without its ending:
/// `model.fp16-00001-of-00002` and `model-00001-of-00002.fp16` are of `model`, in `fp16`. A number
/// is none: Mistral counts its files so.
fn parts(stem: &str) -> (&str, Option<&str>) {
    let Some((base, variant)) = stem.split_once('.') else { return (without_count(stem), None) };
    let variant = without_count(variant);
    if variant.is_empty() || variant.bytes().all(|byte| byte.is_ascii_digit()) {
        (stem, None)
    } else {
        (without_count(base), Some(variant))
    }
}

/// A name without `-00001-of-00002`.
fn without_count(name: &str) -> &str {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let counted = name
        .rsplit_once("-of-")
        .filter(|(_, of)| number(of))
        .and_then(|(rest, _)| rest.rsplit_once('-'));
    counted.filter(|(_, count)| number(count)).map_or(name, |(base, _)| base)
}

/// What a file is called without its count and ending; `None` if it isn't counted.
pub(super) fn without_count_of(name: &str) -> Option<&str> {
    let (stem, _) = name.rsplit_once('.')?;
    let base = without_count(stem);
    (base != stem).then_some(base)
}

fn of(name: &str) -> (&str, Option<&str>) {
    parts(name.strip_suffix(".safetensors").unwrap_or(name))
}

/// The index without a variant, where every other is one of its variants.
pub(super) fn plain_index(indexes: &[String]) -> Option<&str> {
    let stem = |name: &str| {
        name.strip_suffix(".safetensors.index.json").map(str::to_owned).unwrap_or_default()
    };
    let plain = indexes.iter().find(|name| parts(&stem(name)).1.is_none())?;
    let base = stem(plain);
    indexes
        .iter()
        .all(|name| {
            name == plain || matches!(parts(&stem(name)), (other, Some(_)) if other == base)
        })
        .then_some(plain.as_str())
}

/// Whether an index is of a variant of what lies beside it in one file.
pub(super) fn is_index_of_variant(index: &str, files: &[String]) -> bool {
    let (base, variant) = parts(index.strip_suffix(".safetensors.index.json").unwrap_or(index));
    variant.is_some() && files.iter().any(|name| of(name) == (base, None))
}

/// Takes variants out of the files of a directory: those that hold nothing but keys that the files
/// without a variant hold as well.
///
/// A file that can't be read stays, and whoever reads it tells.
pub(super) fn split(directory: &Path, names: Vec<String>) -> (Vec<String>, Vec<String>) {
    let is_variant = |name: &str| {
        let (base, variant) = of(name);
        variant.is_some() && names.iter().any(|other| of(other) == (base, None))
    };
    if !names.iter().any(|name| is_variant(name)) {
        return (names, Vec::new());
    }
    let keys = |name: &String| {
        let header = place::open(&directory.join(name)).and_then(|file| read_header(file.window()));
        header.map(|header| header.tensors).unwrap_or_default()
    };
    let plain: HashSet<_> = names
        .iter()
        .filter(|name| of(name).1.is_none())
        .flat_map(keys)
        .map(|(key, _)| key)
        .collect();
    let (used, ignored) = names.iter().cloned().partition(|name| {
        !is_variant(name) || {
            let keys = keys(name);
            keys.is_empty() || keys.iter().any(|(key, _)| !plain.contains(key))
        }
    });
    (used, ignored)
}

/// What to do where files hold the same keys since they are variants of one.
pub(super) fn choose(directory: &Path, names: &[String], error: Error) -> Error {
    let mut variants: Vec<&str> = names.iter().filter_map(|name| of(name).1).collect();
    variants.sort_unstable();
    variants.dedup();
    match names.first() {
        Some(first) if variants.len() > 1 => error.hint(format!(
            "these are variants of one model ({}), and none is without: give the file of the one that is meant, as {}",
            variants.join(", "),
            directory.join(first).display()
        )),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn a_variant_is_a_word_after_the_name() {
        for (stem, expected) in [
            ("model", ("model", None)),
            ("model-00001-of-00002", ("model", None)),
            ("model.fp16", ("model", Some("fp16"))),
            ("model.fp16-00001-of-00002", ("model", Some("fp16"))),
            ("model-00001-of-00002.fp16", ("model", Some("fp16"))),
            ("diffusion_pytorch_model.non_ema", ("diffusion_pytorch_model", Some("non_ema"))),
            ("consolidated.00", ("consolidated.00", None)),
            ("mixed-of-two", ("mixed-of-two", None)),
        ] {
            assert_eq!(parts(stem), expected, "{stem}");
        }
    }
}
