//! Wrappers come off to a fixed point, in every position and nesting; and the files that say so for
//! each tool.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use regraft::diagnostic::{Diagnostic, Diagnostics, codes};
use regraft::key::Key;
use regraft::library::{Route, load};
use regraft::plan::{DropReason, Plan, PlanOptions, plan};
use regraft::tensor::{Dtype, Header, TensorInfo, Wanted};

/// May go wherever they are.
const ANYWHERE: [&str; 4] =
    ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_fpw_module"];
/// May go from the front, where every key carries them.
const LEADING: [&str; 2] = ["module", "_forward_module"];

/// A plan by the rules of one file, with parameters of it; without a finding about matching
/// nothing.
fn planned(
    rules: &str,
    keys: &[String],
    set: &[(&str, bool)],
    wanted: Option<&Wanted>,
) -> Result<Plan, Diagnostics> {
    let info = |key: &String| (Key::from(key.as_str()), TensorInfo::new(Dtype::F32, vec![2]));
    let header = Header::from_infos(keys.iter().map(info));
    let route = Route::named(vec![load(rules).unwrap()], None, None, false).unwrap();
    let parameters = set
        .iter()
        .map(|(name, value)| ((*name).to_owned(), regraft::check::value::Value::Bool(*value)))
        .collect();
    plan(
        &route.stages(),
        &header,
        &PlanOptions { parameters, wanted, not_strict: true, ..PlanOptions::default() },
    )
}

/// Which key of the checkpoint each key of the result is; every one must be a tensor as it was.
fn origins(plan: &Plan) -> BTreeMap<String, String> {
    let origin = |target: &regraft::plan::Target| match &plan.node(target.node).op {
        regraft::plan::Op::Source { key } => key.to_string(),
        op => panic!("{} is made by {op:?}", target.key),
    };
    plan.targets.iter().map(|target| (target.key.to_string(), origin(target))).collect()
}

fn strings(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// How often each wrapper was stripped, as the findings say.
fn counts(findings: &[Diagnostic]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.code == codes::STRIPPED) {
        for part in finding.message.strip_prefix("stripped ").unwrap().split(", ") {
            let (wrapper, count) = part.rsplit_once("` ").unwrap();
            let count: usize = count.split(' ').next().unwrap().parse().unwrap();
            *counts.entry(wrapper.trim_start_matches('`').to_owned()).or_default() += count;
        }
    }
    counts
}

/// Segments of a model, some of which look like wrappers: part of a segment is no wrapper, and
/// `module` inside a path is a child.
fn segment() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "model",
        "layers",
        "0",
        "11",
        "module",
        "_forward_module",
        "my_orig_mod",
        "_orig_mod2",
        "weight",
        "net",
    ])
}

/// Different keys, the first of which begins with a segment that is no wrapper.
fn keys() -> impl Strategy<Value = Vec<String>> {
    let key = prop::collection::vec(segment(), 1..6).prop_map(|segments| segments.join("."));
    prop::collection::btree_set(key, 0..6).prop_map(|mut keys| {
        keys.insert("model.norm.weight".to_owned());
        keys.into_iter().collect()
    })
}

/// A key with wrappers pushed in at places drawn anew for each, and how often which.
fn wrapped(key: &str, places: &[(usize, usize)], told: &mut BTreeMap<String, usize>) -> String {
    let mut segments: Vec<&str> = key.split('.').collect();
    for (place, wrapper) in places {
        segments.insert(place % (segments.len() + 1), ANYWHERE[wrapper % ANYWHERE.len()]);
        *told.entry(ANYWHERE[wrapper % ANYWHERE.len()].to_owned()).or_default() += 1;
    }
    segments.join(".")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is wrapped around and into keys, what was there before is there after; and each
    /// wrapper is counted.
    #[test]
    fn every_nesting_comes_off(
        keys in keys(),
        leading in prop::collection::vec(0..LEADING.len(), 0..4),
        places in prop::collection::vec(prop::collection::vec((0..16usize, 0..8usize), 0..5), 8),
    ) {
        let mut told = BTreeMap::new();
        let front: Vec<&str> = leading.iter().map(|at| LEADING[*at]).collect();
        let expected: BTreeMap<String, String> = keys.iter().zip(&places).map(|(key, places)| {
            let whole = front.iter().copied().chain([key.as_str()]).collect::<Vec<_>>().join(".");
            (key.clone(), wrapped(&whole, places, &mut told))
        }).collect();
        for wrapper in &front {
            *told.entry((*wrapper).to_owned()).or_default() += keys.len();
        }
        let sources: Vec<String> = expected.values().cloned().collect();
        let plan = planned("wrappers", &sources, &[], None).unwrap();
        prop_assert_eq!(&origins(&plan), &expected);
        prop_assert_eq!(counts(&plan.findings), told);
        // There is nothing left to strip.
        let again = planned("wrappers", &keys, &[], None).unwrap();
        prop_assert!(counts(&again.findings).is_empty());
    }

    /// One key without it, and a leading wrapper stays on all.
    #[test]
    fn a_leading_wrapper_is_on_every_key_or_on_none(
        keys in keys(),
        leading in 0..LEADING.len(),
        bare in "[a-z]{1,4}",
        places in prop::collection::vec((0..16usize, 0..8usize), 0..5),
    ) {
        let kept: BTreeSet<String> = keys.iter().map(|key| format!("{}.{key}", LEADING[leading])).chain([format!("{bare}.bare")]).collect();
        let sources: Vec<String> = kept.iter().map(|key| wrapped(key, &places, &mut BTreeMap::new())).collect();
        let plan = planned("wrappers", &sources, &[], None).unwrap();
        prop_assert_eq!(origins(&plan).into_keys().collect::<BTreeSet<_>>(), kept);
    }

    /// Two keys that differ in wrappers alone would become one.
    #[test]
    fn keys_that_become_one_are_refused(
        key in prop::collection::vec(segment(), 1..4),
        places in prop::collection::vec((0..16usize, 0..8usize), 1..4),
    ) {
        let key = key.join(".");
        let double = wrapped(&key, &places, &mut BTreeMap::new());
        let refused = planned("wrappers", &[key.clone(), double.clone()], &[], None).unwrap_err();
        let collision = refused.0.iter().find(|finding| finding.code == codes::COLLISION).unwrap();
        prop_assert!(collision.keys.contains(&key) && collision.keys.contains(&double));
    }
}

#[test]
fn flat_parameters_are_refused_wherever_wrappers_go() {
    for leaf in ["_flat_param", "flat_param_0", "_fsdp_flattened_param", "flat_param"] {
        let keys = strings(&[&format!("_fsdp_wrapped_module.layers.0.{leaf}"), "norm.weight"]);
        for rules in [
            "wrappers",
            "fsdp",
            "ddp",
            "torch_compile",
            "activation_checkpointing",
            "deepspeed",
            "megatron",
            "peft",
        ] {
            let refused = planned(rules, &keys, &[], None).unwrap_err();
            let error = refused.0.iter().find(|finding| finding.is_error()).unwrap();
            assert_eq!(error.code, codes::FLAT_PARAMETER, "{rules} {leaf}");
            assert!(error.hints.iter().any(|hint| hint.contains("FULL_STATE_DICT")));
        }
    }
    // Neither a child of that name nor a longer one is such a parameter.
    let keys = strings(&["_fsdp_wrapped_module.flat_param.weight", "flat_parameters"]);
    assert_eq!(planned("fsdp", &keys, &[], None).unwrap().targets.len(), 2);
}

/// Each file's result on keys as its tool leaves them.
fn becomes(rules: &str, set: &[(&str, bool)], expected: &[(&str, &str)]) -> Plan {
    let keys: Vec<String> = expected.iter().map(|(from, _)| (*from).to_owned()).collect();
    let plan =
        planned(rules, &keys, set, None).unwrap_or_else(|refused| panic!("{rules}: {refused}"));
    let expected: BTreeMap<String, String> = expected
        .iter()
        .filter(|(_, to)| !to.is_empty())
        .map(|(from, to)| ((*to).to_owned(), (*from).to_owned()))
        .collect();
    assert_eq!(origins(&plan), expected, "{rules}");
    for dropped in &plan.dropped {
        assert!(matches!(dropped.reason, DropReason::Rule(_)), "{rules}: {}", dropped.key);
    }
    let reported = plan
        .findings
        .iter()
        .filter(|finding| finding.code == codes::DROPPED)
        .map(|finding| finding.keys.len())
        .sum::<usize>();
    assert_eq!(reported, plan.dropped.len(), "{rules}: what is dropped is reported");
    plan
}

#[test]
fn peft_finds_the_base_and_keeps_adapters_apart() {
    let base = "base_model.model.model.layers.0.self_attn.q_proj";
    let keys = [
        (format!("{base}.base_layer.weight"), "model.layers.0.self_attn.q_proj.weight"),
        (format!("{base}.base_layer.bias"), "model.layers.0.self_attn.q_proj.bias"),
        (format!("{base}.lora_A.default.weight"), "model.layers.0.self_attn.q_proj.lora_A.weight"),
        (format!("{base}.lora_B.default.weight"), "model.layers.0.self_attn.q_proj.lora_B.weight"),
        (
            format!("{base}.lora_B.other.weight"),
            "model.layers.0.self_attn.q_proj.lora_B.other.weight",
        ),
        (
            format!("{base}.lora_magnitude_vector.default.weight"),
            "model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        ),
        (
            "base_model.model.model.embed_tokens.lora_embedding_A.default".to_owned(),
            "model.embed_tokens.lora_embedding_A",
        ),
        ("base_model.model.model.norm._orig_mod.weight".to_owned(), "model.norm.weight"),
        ("base_model.model.score.modules_to_save.default.weight".to_owned(), "score.weight"),
        ("base_model.model.score.original_module.weight".to_owned(), ""),
    ];
    let keys: Vec<(&str, &str)> = keys.iter().map(|(from, to)| (from.as_str(), *to)).collect();
    becomes("peft", &[], &keys);
    let without: Vec<(&str, &str)> = keys
        .iter()
        .map(|(from, to)| (*from, if to.contains("lora_") { "" } else { *to }))
        .collect();
    becomes("peft", &[("adapters", false)], &without);
    // A model of its own with such names inside is left alone.
    becomes(
        "peft",
        &[],
        &[
            ("base_model.model.norm.weight", "base_model.model.norm.weight"),
            ("head.weight", "head.weight"),
        ],
    );
}

/// What `peft` makes of keys, read forwards with an adapter's name or backwards.
fn by_peft(
    keys: &[&str],
    adapter: Option<&str>,
    reverse: bool,
) -> Result<Vec<String>, Diagnostics> {
    let header = Header::from_infos(
        keys.iter().map(|key| (Key::from(*key), TensorInfo::new(Dtype::F32, vec![2]))),
    );
    let route = Route::named(vec![load("peft").unwrap()], None, None, reverse).unwrap();
    let parameters = adapter
        .map(|name| ("adapter".to_owned(), regraft::check::value::Value::Text(name.to_owned())))
        .into_iter()
        .collect();
    let plan =
        plan(&route.stages(), &header, &PlanOptions { parameters, ..PlanOptions::default() })?;
    assert!(
        plan.findings.iter().all(|finding| finding.severity == regraft::diagnostic::Severity::Note),
        "{:?}",
        plan.findings
    );
    Ok(plan.targets.iter().map(|target| target.key.to_string()).collect())
}

/// Keys of modules below `PeftModel`, with an adapter's name as `NAME`, and what
/// `get_peft_model_state_dict` of peft 0.21.2 calls them.
const ADAPTED: [(&str, &str); 12] = [
    ("emb.lora_embedding_A.NAME", "emb.lora_embedding_A"),
    ("emb.token_adapter.trainable_tokens_delta.NAME", "emb.token_adapter.trainable_tokens_delta"),
    ("q.lora_A.NAME.weight", "q.lora_A.weight"),
    ("q.lora_B.NAME.weight", "q.lora_B.weight"),
    ("q.lora_B.NAME.bias", "q.lora_B.bias"),
    ("q.lora_magnitude_vector.NAME.weight", "q.lora_magnitude_vector"),
    ("k.ia3_l.NAME", "k.ia3_l"),
    ("k.hada_w1_a.NAME", "k.hada_w1_a"),
    ("k.lokr_w2.NAME", "k.lokr_w2"),
    ("k.oft_R.NAME.weight", "k.oft_R.weight"),
    ("ada.lora_A.NAME", "ada.lora_A"),
    ("ada.lora_E.NAME", "ada.lora_E"),
];

#[test]
fn adapters_of_any_name_are_named_as_in_their_files() {
    let sorted = |keys: &[&str]| {
        let mut keys = strings(keys);
        keys.sort_by(|a, b| regraft::key::natural_order(a, b));
        keys
    };
    let files: Vec<&str> = ADAPTED.iter().map(|(_, file)| *file).collect();
    for (name, said) in
        [("default", None), ("default", Some("default")), ("mine", None), ("mine", Some("mine"))]
    {
        let keys: Vec<String> = ADAPTED
            .iter()
            .map(|(key, _)| format!("base_model.model.{}", key.replace("NAME", name)))
            .collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_eq!(by_peft(&keys, said, false).unwrap(), sorted(&files), "{name} {said:?}");
    }
    // From files to modules, where an adapter is called `default` if nobody names it.
    let modules: Vec<String> =
        ADAPTED.iter().map(|(key, _)| key.replace("NAME", "default")).collect();
    let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
    assert_eq!(by_peft(&files, None, true).unwrap(), sorted(&modules));
    // Another name can't be given to them, and that is said.
    assert!(by_peft(&files, Some("mine"), true).is_err());
    // Names of files are left as they are.
    assert_eq!(by_peft(&files, None, false).unwrap(), sorted(&files));
}

#[test]
fn an_original_stays_unless_the_trained_copy_takes_its_place() {
    let head = [
        "q.base_layer.weight",
        "head.original_module.weight",
        "head.modules_to_save.policy.weight",
    ];
    assert_eq!(by_peft(&head, None, false).unwrap(), ["head.weight", "q.weight"]);
    // The copy is that of another adapter.
    let two = [&head[..], &["q.lora_A.mine.weight"]].concat();
    let kept = [
        "head.modules_to_save.policy.weight",
        "head.original_module.weight",
        "q.lora_A.weight",
        "q.weight",
    ];
    assert_eq!(by_peft(&two, Some("mine"), false).unwrap(), kept);
    // Modules of several layers are saved whole, and parts that weren't copied stay.
    let deep = [
        "h.original_module.a.weight",
        "h.original_module.b.weight",
        "h.modules_to_save.default.a.weight",
    ];
    assert_eq!(by_peft(&deep, None, false).unwrap(), ["h.a.weight", "h.original_module.b.weight"]);
}

#[test]
fn of_two_adapters_one_has_to_be_named() {
    let keys = ["q.lora_A.a.weight", "q.lora_A.b.weight", "v.lora_B.b.weight"];
    let refused = by_peft(&keys, None, false).unwrap_err();
    assert!(refused.0.iter().any(|finding| finding.code == codes::EXPECTATION), "{refused}");
    assert_eq!(
        by_peft(&keys, Some("b"), false).unwrap(),
        ["q.lora_A.a.weight", "q.lora_A.weight", "v.lora_B.weight"]
    );
    // Beside a `default` others need no word.
    let keys = ["q.lora_A.default.weight", "q.lora_A.b.weight"];
    assert_eq!(by_peft(&keys, None, false).unwrap(), ["q.lora_A.b.weight", "q.lora_A.weight"]);
}

#[test]
fn averages_are_chosen_and_never_merged() {
    let keys = [("model.w", "model.w"), ("ema.model.w", ""), ("step", "")];
    becomes("ema", &[], &keys);
    becomes("ema", &[("ema", true)], &[("model.w", ""), ("ema.model.w", "model.w"), ("step", "")]);
    becomes(
        "ema",
        &[],
        &[("online_model.w", "w"), ("ema_model.w", ""), ("initted", ""), ("step", "")],
    );
    becomes(
        "ema",
        &[("ema", true)],
        &[("online_model.w", ""), ("ema_model.module.w", "w"), ("initted", "")],
    );
    becomes("ema", &[("ema", true)], &[("w", ""), ("ema.w", "ema.w"), ("shadow.w", "shadow.w")]);
    becomes("swa", &[], &[("n_averaged", ""), ("module.layers.0.module.w", "layers.0.module.w")]);
}

#[test]
fn extra_state_goes_and_is_told() {
    let keys = [
        (
            "module.module.decoder.layers.0.self_attention.linear_qkv.weight",
            "decoder.layers.0.self_attention.linear_qkv.weight",
        ),
        ("module.module.decoder.layers.0.self_attention._extra_state", ""),
        ("module.module.decoder.layers.0.mlp._extra_state/shard_0_4", ""),
        ("module.module.output_layer._extra_state_of_mine", "output_layer._extra_state_of_mine"),
    ];
    assert_eq!(becomes("megatron", &[], &keys).dropped.len(), 2);
}

#[test]
fn holders_of_f32_parameters_come_out_before_the_leaf_alone() {
    becomes(
        "fp32_params",
        &[],
        &[
            ("layers.0.mixer._fp32_params.A_log", "layers.0.mixer.A_log"),
            ("_fp32_params.dt_bias", "dt_bias"),
            ("layers.0._fp32_params.deep.weight", "layers.0._fp32_params.deep.weight"),
        ],
    );
    let both = strings(&["mixer._fp32_params.A_log", "mixer.A_log"]);
    let refused = planned("fp32_params", &both, &[], None).unwrap_err();
    assert!(refused.0.iter().any(|finding| finding.code == codes::COLLISION));
}

/// What a module called its model goes only where a target asks for the shorter keys.
#[test]
fn attributes_of_lightning_go_where_a_target_asks() {
    let keys = strings(&[
        "_forward_module.module.model.model.norm.weight",
        "_forward_module.module.model.lm_head.weight",
    ]);
    let wanted = Wanted::from_keys([Key::from("model.norm.weight"), Key::from("lm_head.weight")]);
    let plan = planned("deepspeed", &keys, &[], Some(&wanted)).unwrap();
    assert_eq!(
        origins(&plan).into_keys().collect::<Vec<_>>(),
        ["lm_head.weight", "model.norm.weight"]
    );
    let plan = planned("deepspeed", &keys, &[], None).unwrap();
    assert_eq!(
        origins(&plan).into_keys().collect::<Vec<_>>(),
        ["model.lm_head.weight", "model.model.norm.weight"]
    );
}
