use serde_json::json;

use super::*;
use crate::dtypes::TorchDtype;
use crate::model::{DeclaredTies, InputEmbeddings, Param, PlainStateDict, Tensor, Value};
use crate::names::module_names;
use crate::reference::Raised;
use regraft::key::Key;
use regraft::store::StateDict;
use regraft::tensor::{Dtype, Storage, TensorInfo, TensorView};

/// A tied model: a tensor for each `name storage`, all F32 `[6, 4]`.
fn model(params: &[(&str, u64)]) -> Model {
    let params: Vec<Param> = params
        .iter()
        .map(|(name, storage)| Param {
            name: (*name).to_owned(),
            tensor: Tensor::contiguous(vec![6, 4], TorchDtype::Float32, *storage),
        })
        .collect();
    Model {
        modules: module_names(params.iter().map(|param| param.name.as_str())),
        params,
        config: Some(Config::from_value(json!({"tie_word_embeddings": true}))),
        ..Model::default()
    }
}

fn tensor_mut<'a>(model: &'a mut Model, name: &str) -> &'a mut Tensor {
    &mut model.params.iter_mut().find(|param| param.name == name).unwrap().tensor
}

const EMBEDDING: &str = "model.embed_tokens.weight";

#[test]
fn the_decision_says_what_decided() {
    let mut model = model(&[]);
    assert_eq!(
        tie_decision(&model).because,
        TieReason::Field { path: "tie_word_embeddings".into() }
    );
    model.tie_support = Some(TieSupport::UntiedOnly);
    assert_eq!(tie_decision(&model), TieDecision { tied: false, because: TieReason::Explicit });
    let odd = Config::from_value(json!({"tie_word_embeddings": "false"}));
    assert!(is_malformed(&odd.tie_policy(None)));
    assert!(!get_controlling_tie_word_embeddings(&odd, Compat::Strict));
    assert!(get_controlling_tie_word_embeddings(&odd, Compat::Reference), "text is true in Python");
}

#[test]
fn the_head_is_a_segment_and_the_plain_one_comes_first() {
    let name =
        |model: &Model, compat| get_lm_head_weight_and_name(model, compat).map(|found| found.name);
    let heads = model(&[
        ("mtp.lm_head.weight", 0),
        ("lm_head_norm.weight", 1),
        ("lm_head.lora_A.weight", 2),
        ("lm_head.weight", 3),
    ]);
    assert_eq!(name(&heads, Compat::Strict).as_deref(), Some("lm_head.weight"));
    assert_eq!(name(&heads, Compat::Reference).as_deref(), Some("mtp.lm_head.weight"));
    let adapter = model(&[
        ("lm_head.lora_A.default.weight", 0),
        ("lm_head.base_layer.weight", 1),
        ("xlm_head.weight", 2),
    ]);
    assert_eq!(name(&adapter, Compat::Strict).as_deref(), Some("lm_head.base_layer.weight"));
    assert_eq!(name(&model(&[("lm_heads.0.weight", 0)]), Compat::Strict), None);
}

#[test]
fn an_auxiliary_embedding_is_not_the_models() {
    let tied = model(&[("mtp.embed_tokens.weight", 0), (EMBEDDING, 1), ("lm_head.weight", 1)]);
    assert!(has_local_tied_lm_head(&tied, Compat::Strict));
    assert!(!has_local_tied_lm_head(&tied, Compat::Reference));
}

#[test]
fn declared_sources_serve_their_own_head() {
    let mut tied = model(&[("lm_head.weight", 0)]);
    let ties = [
        ("mtp.lm_head.weight", "mtp.embed.weight"),
        ("lm_head.weight", "wte.weight"),
        ("cls.bias", "bias"),
    ];
    tied.declared_ties =
        DeclaredTies::Map(ties.map(|(target, source)| (target.into(), source.into())).into());
    let first =
        |head, compat| get_tied_lm_head_source_names(&tied, head, compat).first().cloned().unwrap();
    assert_eq!(first(None, Compat::Strict), "wte.weight");
    assert_eq!(first(Some("module.lm_head.weight"), Compat::Strict), "wte.weight");
    assert_eq!(first(Some("mtp.lm_head.weight"), Compat::Strict), "mtp.embed.weight");
    assert_eq!(first(Some("lm_head.weight"), Compat::Reference), "mtp.embed.weight");
}

#[test]
fn an_alias_is_the_whole_tensor() {
    let left = Tensor::contiguous(vec![4, 4], TorchDtype::Float32, 0);
    let of = |change: &dyn Fn(&mut Tensor)| {
        let mut right = Tensor { object: 9, ..left.clone() };
        change(&mut right);
        (
            same_tensor_storage(&left, &right, Compat::Strict),
            same_tensor_storage(&left, &right, Compat::Reference),
        )
    };
    assert_eq!(of(&|_| {}), (true, true));
    assert_eq!(of(&|right| right.strides = vec![1, 4]), (false, true));
    assert_eq!(of(&|right| right.dtype = TorchDtype::Int32), (false, true));
    assert_eq!(of(&|right| right.shape = vec![2, 4].into()), (false, true));
    assert_eq!(of(&|right| right.offset = 4), (false, false));
    assert_eq!(of(&|right| right.storage = 1), (false, false));
    assert_eq!(of(&|right| right.device = crate::Device::Meta), (false, false));
    let row = Tensor {
        object: 9,
        strides: vec![7, 1],
        ..Tensor::contiguous(vec![1, 4], TorchDtype::Float32, 0)
    };
    let same_row = Tensor::contiguous(vec![1, 4], TorchDtype::Float32, 0);
    assert!(
        same_tensor_storage(&row, &same_row, Compat::Strict),
        "a dimension of one element has no stride to speak of"
    );
}

#[test]
fn a_wrapped_head_is_tied_where_it_is() {
    let untied =
        model(&[("model.embed_tokens._orig_mod.weight", 0), ("lm_head._orig_mod.weight", 1)]);
    let (mut strict, mut reference) = (untied.clone(), untied);
    assert_eq!(ensure_tied_lm_head(&mut strict, None, Compat::Strict), Ok(true));
    assert_eq!(strict.params[1].tensor, strict.params[0].tensor);
    // The module named `lm_head` has no weight of its own.
    assert_eq!(ensure_tied_lm_head(&mut reference, None, Compat::Reference), Ok(false));
}

#[test]
fn a_head_of_its_own_kind_is_kept() {
    let mut tied = model(&[(EMBEDDING, 0), ("lm_head.weight", 1)]);
    tensor_mut(&mut tied, "lm_head.weight").dtype = TorchDtype::BFloat16;
    let before = tied.clone().params;
    assert_eq!(ensure_tied_lm_head(&mut tied, None, Compat::Strict), Ok(false));
    assert_eq!(tied.params, before);
    assert_eq!(ensure_tied_lm_head(&mut tied, None, Compat::Reference), Ok(true));

    let mut draft = model(&[(EMBEDDING, 0), ("lm_head.weight", 1)]);
    tensor_mut(&mut draft, "lm_head.weight").shape = vec![3, 4].into();
    for compat in [Compat::Strict, Compat::Reference] {
        assert_eq!(ensure_tied_lm_head(&mut draft.clone(), None, compat), Ok(false));
    }
}

#[test]
fn what_tie_weights_raises_is_raised() {
    let untied = model(&[(EMBEDDING, 0), ("lm_head.weight", 1)]);
    let mut calls = 0;
    let mut unable = |_: &mut Model| {
        calls += 1;
        Err(Raised::new("AttributeError", "no such thing"))
    };
    assert_eq!(
        ensure_tied_lm_head(&mut untied.clone(), Some(&mut unable), Compat::Strict),
        Ok(true)
    );
    assert_eq!(calls, 1);
    let mut fails = |_: &mut Model| Err(Raised::new("RuntimeError", "boom"));
    let raised =
        ensure_tied_lm_head(&mut untied.clone(), Some(&mut fails), Compat::Strict).unwrap_err();
    assert_eq!(raised.to_string(), "RuntimeError: boom");
}

fn dict(entries: &[(&str, Tensor)]) -> PlainStateDict {
    entries.iter().map(|(key, tensor)| ((*key).to_owned(), Value::Tensor(tensor.clone()))).collect()
}

#[test]
fn a_source_must_fit_the_head() {
    let stage = model(&[("lm_head.weight", 0)]);
    let good = Tensor::contiguous(vec![6, 4], TorchDtype::Float32, 10);
    let wide = Tensor::contiguous(vec![8, 4], TorchDtype::Float32, 11);
    let narrow = Tensor { dtype: TorchDtype::BFloat16, ..good.clone() };

    let mut some = dict(&[
        ("model.language_model.embed_tokens.weight", wide.clone()),
        (EMBEDDING, good.clone()),
    ]);
    let done = materialize_missing_tied_lm_head(&mut some, &stage, false, Compat::Strict);
    assert_eq!(done.outcome, Outcome::Materialized(HeadSource::Key(EMBEDDING.into())));
    assert_eq!(done.refused.len(), 1);
    assert_eq!(done.refused[0].1.to_string(), "shape [8, 4], where the head has [6, 4]");
    assert_eq!(some["lm_head.weight"].tensor().unwrap().storage, 10);
    assert_ne!(some["lm_head.weight"].tensor().unwrap().object, good.object);

    for (entries, why) in [
        (dict(&[(EMBEDDING, narrow)]), "dtype bfloat16, where the head has float32"),
        (
            dict(&[(EMBEDDING, good.clone()), ("model.embed_tokens.weight_scale_inv", wide)]),
            "quantized, and its scale \"model.embed_tokens.weight_scale_inv\" would stay behind",
        ),
        ([(EMBEDDING.to_owned(), Value::Other)].into_iter().collect(), "not a tensor"),
    ] {
        let mut strict = entries.clone();
        let done = materialize_missing_tied_lm_head(&mut strict, &stage, false, Compat::Strict);
        assert_eq!(
            (done.outcome, done.refused[0].1.to_string().as_str()),
            (Outcome::NoSource, why)
        );
        assert_eq!(strict, entries, "nothing is added");
        let done = materialize_missing_tied_lm_head(&mut strict, &stage, true, Compat::Strict);
        assert_eq!(done.outcome, Outcome::Materialized(HeadSource::CurrentHead));
        assert_eq!(strict["lm_head.weight"].tensor().unwrap().storage, 0);
    }
}

#[test]
fn nothing_is_added_without_need() {
    let good = Tensor::contiguous(vec![6, 4], TorchDtype::Float32, 10);
    let outcome = |model: &Model, entries: PlainStateDict| {
        let mut after = entries.clone();
        let done = materialize_missing_tied_lm_head(&mut after, model, true, Compat::Strict);
        assert_eq!(after, entries);
        done.outcome
    };
    let mut untied = model(&[("lm_head.weight", 0)]);
    assert_eq!(outcome(&untied, dict(&[("lm_head.weight", good.clone())])), Outcome::Present);
    untied.config = None;
    assert_eq!(outcome(&untied, dict(&[(EMBEDDING, good.clone())])), Outcome::Untied);
    assert_eq!(
        outcome(&model(&[("model.norm.weight", 0)]), dict(&[(EMBEDDING, good)])),
        Outcome::NoHead
    );
}

#[test]
fn in_memory_the_head_shares_the_embeddings_storage() {
    let info = TensorInfo::new(Dtype::F32, vec![6, 4]);
    let view = TensorView::contiguous(Storage::new(vec![7u8; 96]), info, 0).unwrap();
    let mut tensors = StateDict::new();
    tensors.insert(Key::from(EMBEDDING), view.clone());
    let done = materialize_in_state_dict(
        &mut tensors,
        &model(&[("lm_head.weight", 0)]),
        None,
        Compat::Strict,
    );
    assert_eq!(done.outcome, Outcome::Materialized(HeadSource::Key(EMBEDDING.into())));
    assert!(tensors.get("lm_head.weight").unwrap().same_tensor(&view));

    let mut loaded = Model::from_state_dict(
        &tensors,
        Some(Config::from_value(json!({"tie_word_embeddings": true}))),
    );
    assert!(has_local_tied_lm_head(&loaded, Compat::Strict));
    loaded.input_embeddings = InputEmbeddings::Module("model.embed_tokens".into());
    assert!(has_local_tied_lm_head(&loaded, Compat::Strict));

    let mut bare = StateDict::new();
    assert_eq!(
        materialize_in_state_dict(&mut bare, &loaded, None, Compat::Strict).outcome,
        Outcome::NoSource
    );
    let done = materialize_in_state_dict(&mut bare, &loaded, Some(&view), Compat::Strict);
    assert_eq!(done.outcome, Outcome::Materialized(HeadSource::CurrentHead));
    assert!(bare.get("lm_head.weight").unwrap().same_tensor(&view));
}

#[test]
fn tensors_in_memory_are_tied_without_a_copy() {
    let view = |fill: u8, shape: Vec<u64>| {
        let info = TensorInfo::new(Dtype::F32, shape);
        let len = usize::try_from(info.nbytes().unwrap()).unwrap();
        TensorView::contiguous(Storage::new(vec![fill; len]), info, 0).unwrap()
    };
    let config = || Some(Config::from_value(json!({"tie_word_embeddings": true})));
    let mut tensors = StateDict::new();
    tensors.insert(Key::from("model.norm.weight"), view(0, vec![4]));
    tensors.insert(Key::from(EMBEDDING), view(1, vec![6, 4]));
    tensors.insert(Key::from("lm_head.weight"), view(2, vec![6, 4]));
    assert_eq!(
        ensure_tied_in_state_dict(&mut tensors, None, Compat::Strict),
        Ok(false),
        "not tied by intent"
    );
    assert_eq!(ensure_tied_in_state_dict(&mut tensors, config(), Compat::Strict), Ok(true));
    assert!(tensors.get("lm_head.weight").unwrap().same_tensor(tensors.get(EMBEDDING).unwrap()));
    assert_eq!(tensors.get("lm_head.weight").unwrap().bytes().unwrap()[0], 1);

    let draft = view(2, vec![3, 4]);
    tensors.insert(Key::from("lm_head.weight"), draft.clone());
    assert_eq!(ensure_tied_in_state_dict(&mut tensors, config(), Compat::Strict), Ok(false));
    assert!(tensors.get("lm_head.weight").unwrap().same_tensor(&draft));
}

#[test]
fn a_plan_that_ties_gives_a_tied_model() {
    let info = TensorInfo::new(Dtype::F32, vec![6, 4]);
    let header = regraft::tensor::Header::from_infos([(Key::from(EMBEDDING), info)]);
    let rules = regraft::library::rules("tied_lm_head").unwrap();
    let stages = [regraft::plan::Stage {
        rules,
        direction: regraft::check::Direction::Forward,
        named: false,
    }];
    let config = Config::from_value(json!({"tie_word_embeddings": true}));
    let options = regraft::plan::PlanOptions { config: config.clone(), ..Default::default() };
    let plan = regraft::plan::plan(&stages, &header, &options).unwrap();
    assert!(plan.target("lm_head.weight").is_some(), "{:?}", plan.findings);
    assert!(has_local_tied_lm_head(&Model::from_plan(&plan, Some(config)), Compat::Strict));
}

#[test]
fn tensors_at_one_place_of_a_file_are_one() {
    use regraft::tensor::{Entry, Header, Location};
    let entry = |offset| Entry {
        info: TensorInfo::new(Dtype::F32, vec![6, 4]),
        location: Some(Location { file: 0, offset, len: 96 }),
    };
    let mut header = Header::default();
    header.tensors.insert(Key::from(EMBEDDING), entry(8));
    header.tensors.insert(Key::from("lm_head.weight"), entry(8));
    let config = Some(Config::from_value(json!({"tie_word_embeddings": true})));
    assert!(has_local_tied_lm_head(&Model::from_header(&header, config.clone()), Compat::Strict));
    header.tensors.insert(Key::from("lm_head.weight"), entry(104));
    assert!(!has_local_tied_lm_head(&Model::from_header(&header, config), Compat::Strict));
}
