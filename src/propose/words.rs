//! How alike the names of two families are.

use std::collections::{BTreeMap, BTreeSet};

use super::family::Family;

/// Words that models use for the same thing. Each group is one meaning.
const SAME: &[&[&str]] = &[
    &["weight", "gamma", "kernel", "w", "scale"],
    &["bias", "beta", "b"],
    &["attn", "attention", "att", "selfattention"],
    &["norm", "ln", "layernorm", "layer_norm", "rmsnorm"],
    &["mlp", "ffn", "ff", "feed", "forward", "intermediate"],
    &["embed", "embeddings", "embedding", "emb", "embeds", "wte", "embd"],
    &["tokens", "tok", "token", "word", "words"],
    &["position", "positional", "pos", "positions", "wpe"],
    &["layer", "layers", "block", "blocks", "h", "resblocks"],
    &["q", "query", "wq"],
    &["k", "key", "wk"],
    &["v", "value", "wv"],
    &["o", "out", "output", "wo", "dense"],
    &["encoder", "enc"],
    &["decoder", "dec"],
    &["vision", "visual", "image"],
    &["gate", "w1"],
    &["down", "w2"],
    &["up", "w3"],
    &["patch", "conv1", "patches"],
    &["cls", "class"],
    &["head", "heads", "classifier"],
    &["fc1", "c_fc", "lin1", "wi"],
    &["fc2", "c_proj", "lin2"],
    &["cross", "enc_dec", "encdec"],
    &["final", "f"],
    &["1", "before", "pre", "input"],
    &["2", "after", "post"],
];

/// Names that say where a norm stands by what is beside it, and what that means: the norm of an
/// attention is the one before it, and the one after it is the second.
const NORMS: &[(&str, [&str; 2])] = &[
    ("attention_norm", ["norm", "1"]),
    ("ffn_norm", ["norm", "2"]),
    ("post_attention_layernorm", ["norm", "2"]),
];

/// The meanings of a family's words, each once.
pub(super) fn meanings(family: &Family) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for word in family.words() {
        let lower = word.to_ascii_lowercase();
        if let Some(meaning) = meaning(&lower) {
            found.insert(meaning);
            continue;
        }
        if let Some((_, meant)) = NORMS.iter().find(|(name, _)| *name == lower) {
            found.extend(meant.map(str::to_owned));
            continue;
        }
        let parts = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|it| !it.is_empty());
        for part in parts {
            if let Some(meaning) = meaning(part) {
                found.insert(meaning);
                continue;
            }
            // `norm1` is a norm, and the first.
            let (word, number) =
                part.split_at(part.trim_end_matches(|c: char| c.is_ascii_digit()).len());
            for piece in [word, number].into_iter().filter(|piece| !piece.is_empty()) {
                found.insert(meaning(piece).unwrap_or_else(|| piece.to_owned()));
            }
        }
    }
    found
}

fn meaning(word: &str) -> Option<String> {
    let group = SAME.iter().find(|group| group.contains(&word))?;
    group.first().map(|first| (*first).to_owned())
}

/// What a family's last segment is, if that is known: `weight` or `bias`.
pub(super) fn leaf(family: &Family) -> Option<String> {
    meaning(&family.leaf().to_ascii_lowercase())
        .filter(|meaning| matches!(meaning.as_str(), "weight" | "bias"))
}

/// How much each meaning says: what few families have says much.
pub(super) fn weights(all: &[&BTreeSet<String>]) -> BTreeMap<String, f64> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for meaning in all.iter().copied().flatten() {
        *counts.entry(meaning.clone()).or_default() += 1;
    }
    let total = all.len().max(1) as f64;
    counts.into_iter().map(|(word, count)| (word, (1.0 + total / count as f64).ln())).collect()
}

/// How alike two sets of meanings are, from 0 to 1.
pub(super) fn alike(
    a: &BTreeSet<String>,
    b: &BTreeSet<String>,
    weights: &BTreeMap<String, f64>,
) -> f64 {
    let weight = |word: &String| weights.get(word).copied().unwrap_or(1.0);
    let common: f64 = a.intersection(b).map(weight).sum();
    let all: f64 = a.union(b).map(weight).sum();
    if all > 0.0 { common / all } else { 0.0 }
}
