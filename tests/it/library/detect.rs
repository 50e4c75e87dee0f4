//! `detect` names the file that a checkpoint is of: by what its keys say, through wrappers, and
//! nothing where nothing is said.

use regraft::config::Config;
use regraft::library::{Detection, detect};
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
    assert_eq!(first(&found, 1), ["llama"]);
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
