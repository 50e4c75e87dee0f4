//! `detect` names the file that a checkpoint is of: by what its keys say, through wrappers, and
//! nothing where nothing is said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regraft::config::Config;
use regraft::library::{self, Detection, detect};
use regraft::tensor::{Dtype, Header, TensorInfo};

fn found(keys: &[&str]) -> Vec<Detection> {
    let infos = keys.iter().map(|key| ((*key).into(), TensorInfo::new(Dtype::F32, vec![4, 4])));
    detect(&Header::from_infos(infos), &Config::default())
}

fn first(found: &[Detection], count: usize) -> Vec<&str> {
    found.iter().take(count).map(|one| one.rules.as_str()).collect()
}

/// A decoder's keys as most families name them, and those of its feed-forward part.
fn decoder(start: &str, mlp: &[&str]) -> Vec<String> {
    let mut keys = vec![
        "model.embed_tokens.weight".to_owned(),
        "model.norm.weight".to_owned(),
        "lm_head.weight".to_owned(),
    ];
    for layer in 0..2 {
        let names = [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "input_layernorm",
            "post_attention_layernorm",
        ];
        keys.extend(
            names.iter().chain(mlp).map(|name| format!("model.layers.{layer}.{name}.weight")),
        );
    }
    keys.into_iter().map(|key| format!("{start}{key}")).collect()
}

fn of(keys: &[String]) -> Vec<Detection> {
    found(&keys.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_wrapper_around_every_key_is_looked_through_and_told() {
    let found = of(&decoder("_orig_mod.", &["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]));
    // Meta's names or those of a library that trains it: all lead from here.
    assert!(first(&found, 1)[0].starts_with("llama"), "{:?}", first(&found, 1));
    // Three keys, and nine in each of two layers.
    assert_eq!((found[0].explained, found[0].keys, found[0].against), (21, 21, 0));
    assert_eq!(
        found[0].wrappers.iter().map(|one| (one.name.as_str(), one.keys)).collect::<Vec<_>>(),
        [("_orig_mod", 21)]
    );
}

#[test]
fn names_of_few_families_tell_more_than_many_usual_ones() {
    let experts = [
        "block_sparse_moe.gate",
        "block_sparse_moe.experts.0.w1",
        "block_sparse_moe.experts.0.w2",
        "block_sparse_moe.experts.0.w3",
    ];
    assert_eq!(first(&of(&decoder("", &experts)), 1), ["mixtral"]);
    let experts =
        ["mlp.gate", "mlp.experts.0.gate_proj", "mlp.experts.0.up_proj", "mlp.experts.0.down_proj"];
    assert!(first(&of(&decoder("", &experts)), 3).contains(&"qwen2_moe"));
}

#[test]
fn what_nothing_speaks_against_comes_first() {
    let found = found(&[
        "language_model.model.embed_tokens.weight",
        "language_model.model.norm.weight",
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "vision_tower.vision_model.embeddings.patch_embedding.weight",
        "multi_modal_projector.mm_input_projection_weight",
    ]);
    assert!(first(&found, 2).contains(&"llava"), "{:?}", first(&found, 5));
    assert!(found.is_sorted_by_key(|one| one.against > 0));
}

#[test]
fn a_rule_that_only_says_model_or_nothing_explains_nothing() {
    let comfy = ["x_embedder.proj.1.weight", "t_embedder.1.linear_1.weight", "blocks.0.mlp.weight"]
        .map(|key| format!("model.diffusion_model.{key}"));
    assert_eq!(of(&comfy), []);
    assert_eq!(found(&["stage0.conv.weight", "stage1.conv.weight"]), []);
    assert_eq!(found(&[]), []);
}

/// Numbers at random (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    fn one_of<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }

    fn letters(&mut self) -> String {
        (0..1 + self.below(9)).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }

    /// A dict of tensors with shapes at random, and the keys that `key` gives.
    fn dict(&mut self, key: impl Fn(&mut Self) -> String) -> Header {
        let count = 1 + self.below(60);
        let infos: Vec<_> = (0..count)
            .map(|_| {
                let shape: Vec<u64> =
                    (0..self.below(5)).map(|_| 1 + self.below(64) as u64).collect();
                (key(self).as_str().into(), TensorInfo::new(Dtype::F32, shape))
            })
            .collect();
        let distinct: BTreeMap<regraft::key::Key, TensorInfo> = infos.into_iter().collect();
        Header::from_infos(distinct)
    }
}

/// Names that many models have.
const USUAL: [&str; 40] = [
    "model",
    "layers",
    "layer",
    "blocks",
    "block",
    "h",
    "encoder",
    "decoder",
    "transformer",
    "vision_model",
    "language_model",
    "visual",
    "backbone",
    "attention",
    "attn",
    "self_attn",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "out_proj",
    "qkv",
    "query",
    "key",
    "value",
    "mlp",
    "fc1",
    "gate_proj",
    "up_proj",
    "experts",
    "norm",
    "norm1",
    "ln_1",
    "embed_tokens",
    "embeddings",
    "wte",
    "conv1",
    "patch_embed",
    "lm_head",
    "dense",
];

/// Nothing is sure of a dict, and nothing is converted that nobody named rules for.
fn is_not_recognized(header: &Header) {
    let found = detect(header, &Config::default());
    let keys: Vec<&str> = header.tensors.keys().map(|key| key.as_str()).collect();
    assert!(found.iter().all(|one| !one.sure && !one.recognized), "{keys:?}: {:?}", found.first());
    assert_eq!(library::recognize(header, &Config::default(), None).unwrap(), None, "{keys:?}");
}

#[test]
fn random_names_are_nothing() {
    let mut random = Random(1);
    for _ in 0..40 {
        let header = random.dict(|random| {
            let segments: Vec<String> =
                (0..1 + random.below(5)).map(|_| random.letters()).collect();
            segments.join(".")
        });
        is_not_recognized(&header);
    }
}

#[test]
fn usual_names_put_together_at_random_are_nothing() {
    let mut random = Random(2);
    for _ in 0..40 {
        let header = random.dict(|random| {
            let segment = |random: &mut Random| match random.below(4) {
                0 => random.below(4).to_string(),
                _ => random.one_of(&USUAL).to_owned(),
            };
            let mut segments: Vec<String> =
                (0..1 + random.below(5)).map(|_| segment(random)).collect();
            segments.push(random.one_of(&["weight", "weight", "bias"]).to_owned());
            segments.join(".")
        });
        is_not_recognized(&header);
    }
}

/// Keys that models have, but none all of these: each of another one.
#[test]
fn keys_of_many_models_are_none_of_them() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let known = cases(&fixtures.join("cases")).into_iter().map(|one| one.header);
    let layouts = super::layouts::known().into_iter().map(|(_, header, ..)| header);
    let headers: Vec<Header> = known.chain(layouts).collect();
    let mut random = Random(3);
    for _ in 0..40 {
        let header = random.dict(|random| {
            let keys = &headers[random.below(headers.len())].tensors;
            keys.get_index(random.below(keys.len())).unwrap().0.as_str().to_owned()
        });
        if header.tensors.len() > 4 {
            is_not_recognized(&header);
        }
    }
}

/// A checkpoint, its config, and the rule files that are right for it.
struct Known {
    name: String,
    header: Header,
    config: Config,
    right: BTreeSet<&'static str>,
}

/// The rule files that name a class or model type.
fn naming(wanted: &str) -> BTreeSet<&'static str> {
    let heads = library::names().filter_map(|name| Some((name, library::head(name)?)));
    let named = heads.filter(|(_, head)| head.models.iter().any(|model| model == wanted));
    named.map(|(name, _)| name).collect()
}

/// Cases of transformers in a folder.
fn cases(folder: &Path) -> Vec<Known> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    let mut known = Vec::new();
    for path in paths {
        let text = std::fs::read(&path).unwrap();
        let case: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let Some(keys) = case["checkpoint"].as_object() else { continue };
        let infos = keys.iter().map(|(key, info)| {
            let (dtype, shape): (Dtype, Vec<u64>) = serde_json::from_value(info.clone()).unwrap();
            (key.as_str().into(), TensorInfo::new(dtype, shape))
        });
        let config = Config::from_value(case["config"].clone());
        let said = config.architectures().into_iter().chain(config.model_type());
        let right = said.flat_map(naming).collect();
        known.push(Known {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            header: Header::from_infos(infos),
            config,
            right,
        });
    }
    known
}

/// Which part of what is known is taken for what it is, with its config or without; and what is
/// surely taken for something else, at whatever place.
fn measured(known: &[Known], with_config: bool) -> (f64, Vec<String>) {
    let (mut right, mut sure) = (0, Vec::new());
    for one in known {
        let config = if with_config { one.config.clone() } else { Config::default() };
        let found = detect(&one.header, &config);
        let first = found.first();
        let is_right = match first {
            Some(first) if !one.right.is_empty() => one.right.contains(first.rules.as_str()),
            // Of a model that no file is for, nothing should be sure.
            first => one.right.is_empty() && first.is_none_or(|first| !first.sure),
        };
        right += u32::from(is_right);
        if !is_right {
            let taken = first.map_or("nothing", |first| first.rules.as_str());
            println!("{}: taken for {taken}, is {:?}", one.name, one.right);
        }
        let wrong = |found: &&Detection| found.sure && !one.right.contains(found.rules.as_str());
        sure.extend(
            found.iter().filter(wrong).map(|found| format!("{}: {}", one.name, found.rules)),
        );
    }
    let total = u32::try_from(known.len()).unwrap();
    println!("with config {with_config}: {right} of {total}");
    (f64::from(right) / f64::from(total), sure)
}

#[test]
fn fixtures_are_taken_for_what_they_are() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut known = cases(&fixtures.join("cases"));
    known.extend(super::layouts::known().into_iter().map(|(name, header, config, rules)| Known {
        name,
        header,
        config,
        right: library::names().filter(|file| *file == rules).collect(),
    }));
    let measures = [true, false].map(|with_config| measured(&known, with_config));
    for ((share, sure), least) in measures.into_iter().zip([0.95, 0.85]) {
        assert!(share >= least && sure.is_empty(), "{share}: {sure:?}");
    }
}
