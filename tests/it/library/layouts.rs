//! Publishers' layouts: what the real converters made of a tiny checkpoint, both ways, with the rule
//! file named and with none (see tests/fixtures/layouts/README.md).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use regraft::Conversion;
use regraft::check::value::Value;
use regraft::config::Config;
use regraft::conversion::{Choice, Planned};
use regraft::library::Failure;
use regraft::store::StateDict;
use regraft::tensor::{Dtype, Header, TensorInfo};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::cases::state_dict;

#[derive(Deserialize)]
pub(crate) struct Layout {
    /// The rule file, where it is named otherwise.
    rules: Option<String>,
    layout: String,
    config: Option<serde_json::Value>,
    keys: usize,
    sha256: String,
    exact: bool,
    /// Whether its keys tell it from `hub`.
    #[serde(default = "yes")]
    told: bool,
}

fn yes() -> bool {
    true
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/layouts")
}

/// Those that are recognized by their keys.
fn told() -> impl Iterator<Item = (String, Layout)> {
    layouts().into_iter().filter(|(_, layout)| layout.told)
}

pub(crate) fn layouts() -> IndexMap<String, Layout> {
    let text = std::fs::read_to_string(folder().join("index.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn configured(conversion: Conversion, layout: &Layout) -> Conversion {
    let config = layout.config.clone().map_or_else(Config::empty, Config::from_value);
    conversion.config(config)
}

/// The source of a layout, and its tensors if they are kept.
fn source(name: &str) -> (Conversion, Option<Arc<StateDict>>) {
    if let Ok(bytes) = std::fs::read(folder().join(name).with_extension("safetensors")) {
        let tensors = Arc::new(StateDict::from_bytes(bytes).unwrap());
        return (Conversion::of_store(Arc::clone(&tensors) as _), Some(tensors));
    }
    let text = std::fs::read_to_string(folder().join(name).with_extension("json")).unwrap();
    let keys: IndexMap<String, (Dtype, Vec<u64>)> = serde_json::from_str(&text).unwrap();
    let infos = keys
        .into_iter()
        .map(|(key, (dtype, shape))| (key.as_str().into(), TensorInfo::new(dtype, shape)));
    (Conversion::of_header(Arc::new(Header::from_infos(infos))), None)
}

/// What a plan gives: keys, what they are, and their bytes if there are any.
fn given(planned: &Planned, bytes: bool) -> Vec<(String, TensorInfo, Vec<u8>)> {
    let mut given: Vec<(String, TensorInfo, Vec<u8>)> = if bytes {
        let views = planned.views().unwrap().tensors.into_iter();
        views.map(|(key, view)| (key.to_string(), view.info().clone(), view.to_vec())).collect()
    } else {
        let plan = &planned.plan;
        let targets = plan.targets.iter();
        targets
            .map(|target| (target.key.to_string(), plan.info(target).clone(), Vec::new()))
            .collect()
    };
    given.sort_by(|a, b| a.0.cmp(&b.0));
    given
}

fn digest(given: &[(String, TensorInfo, Vec<u8>)]) -> String {
    let mut hash = Sha256::new();
    for (key, info, bytes) in given {
        hash.update(format!("{key} {} {:?}\n", info.dtype, &info.shape[..]));
        hash.update(bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A plan gives these tensors and no others.
fn same(name: &str, given: Vec<(String, TensorInfo, Vec<u8>)>, tensors: &StateDict) {
    assert_eq!(given.len(), tensors.len(), "{name}");
    for (key, info, bytes) in given {
        let view = tensors.get(&key).unwrap_or_else(|| panic!("{name}: {key}"));
        assert_eq!((&info, bytes), (view.info(), view.to_vec()), "{name}: {key}");
    }
}

#[test]
fn towards_hub_and_back() {
    for (name, layout) in layouts() {
        let (conversion, tensors) = source(&name);
        let rules = layout.rules.as_ref().unwrap_or(&name);
        let conversion = configured(conversion, &layout).load([rules]).unwrap();
        let planned = conversion.from(&layout.layout).to("hub").plan();
        let planned = planned.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let made = given(&planned, tensors.is_some());
        assert_eq!((made.len(), digest(&made)), (layout.keys, layout.sha256.clone()), "{name}");
        let Some(tensors) = tensors.filter(|_| layout.exact) else { continue };
        let back = configured(Conversion::of_store(Arc::new(state_dict(made))), &layout);
        let back = back.load([rules]).unwrap().from("hub").to(&layout.layout).plan();
        let back = back.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        same(&name, given(&back, true), &tensors);
    }
}

/// Values of parameters.
type Given = [(&'static str, i64)];

/// What neither shapes nor keys tell of a layout, towards `hub` and back; of others that have a
/// config nothing is asked.
const ASKED: &[(&str, &Given, &Given)] = &[
    ("mixtral_mistral", &[("heads", 2)], &[("heads", 2)]),
    ("gpt2_megatron", &[("heads", 2), ("vocab", 16)], &[]),
    ("siglip_big_vision", &[], &[("vh", 2), ("th", 3)]),
    ("owlvit_scenic", &[], &[("vh", 2), ("th", 3)]),
    ("owlv2_scenic", &[], &[("vh", 2), ("th", 3)]),
    ("internvl_chat", &[("heads", 4)], &[("heads", 4)]),
    // The norms of this one are shorter than its heads, which no model's are.
    ("mllama_meta", &[("patch", 2), ("heads", 2)], &[]),
    ("pixtral_mistral", &[("heads", 4), ("vision_heads", 2)], &[("heads", 4), ("vision_heads", 2)]),
    ("llama_torchtune", &[("heads", 4)], &[("heads", 4)]),
    ("gpt_neox_litgpt", &[("heads", 4)], &[("heads", 4)]),
    ("llama_torchtitan", &[("heads", 4)], &[("heads", 4)]),
    ("llama_megatron_core", &[("heads", 4), ("vocab", 10)], &[("heads", 4)]),
    ("qwen2_megatron_core", &[("heads", 4), ("vocab", 10)], &[("heads", 4)]),
    ("qwen3_megatron_core", &[("vocab", 10)], &[]),
    ("qwen3_moe_megatron_core", &[("heads", 4), ("vocab", 10)], &[("heads", 4)]),
    ("qwen3_moe_modules_megatron_core", &[("heads", 4), ("vocab", 10)], &[]),
    ("olmoe_megatron_core", &[("heads", 4), ("vocab", 10)], &[("heads", 4)]),
    ("hiera_meta", DEPTHS, DEPTHS),
    ("hiera_meta_base", DEPTHS, DEPTHS),
    ("hiera_meta_mae", DEPTHS, DEPTHS),
];

/// Up to which block each stage of Hiera goes.
const DEPTHS: &Given = &[("a", 1), ("b", 3), ("c", 5), ("d", 6), ("e", 6)];

/// What a plan without a config gives, which names the flag for all that it can't know, and goes on
/// with those.
fn without_config(
    name: &str,
    asked: &Given,
    conversion: impl Fn() -> Conversion,
    bytes: bool,
) -> Vec<(String, TensorInfo, Vec<u8>)> {
    let plan = |given: &Given| {
        let conversion = conversion().config(Config::empty());
        let set = |conversion: Conversion, (name, value): &(&str, i64)| {
            conversion.set(*name, Value::Int(*value))
        };
        given.iter().fold(conversion, set).plan()
    };
    if let Some((first, _)) = asked.first() {
        let failure = plan(&[]).err().unwrap_or_else(|| panic!("{name}: a plan"));
        let failure = format!("{failure:?}");
        assert!(failure.contains("Code(209)"), "{name}: {failure}");
        assert!(failure.contains(&format!("--set {first}=VALUE")), "{name}: {failure}");
    }
    let planned = plan(asked).unwrap_or_else(|failure| panic!("{name}: {failure}"));
    given(&planned, bytes)
}

#[test]
fn what_a_config_says_shapes_tell_or_a_flag_gives() {
    for (name, layout) in layouts() {
        // A list of layers, and a tie, are nothing that a shape tells.
        if layout.config.is_none() || ["bamba_mamba_ssm", "mamba_ssm"].contains(&name.as_str()) {
            continue;
        }
        let rules = layout.rules.as_ref().unwrap_or(&name);
        let (forwards, backwards) = ASKED
            .iter()
            .find(|(known, ..)| *known == name)
            .map_or((&[][..], &[][..]), |(_, forwards, backwards)| (*forwards, *backwards));
        let towards = || source(&name).0.load([rules]).unwrap().from(&layout.layout).to("hub");
        let (_, tensors) = source(&name);
        let made = without_config(&name, forwards, towards, tensors.is_some());
        assert_eq!((made.len(), digest(&made)), (layout.keys, layout.sha256.clone()), "{name}");
        let Some(tensors) = tensors.filter(|_| layout.exact) else { continue };
        let hub = Arc::new(state_dict(made));
        let back = || {
            let hub = Conversion::of_store(Arc::clone(&hub) as _);
            hub.load([rules]).unwrap().from("hub").to(&layout.layout)
        };
        let back = without_config(&name, backwards, back, true);
        assert_eq!(back.len(), tensors.len(), "{name}");
        for (key, info, bytes) in back {
            let view = tensors.get(&key).unwrap_or_else(|| panic!("{name}: {key}"));
            assert_eq!((&info, bytes), (view.info(), view.to_vec()), "{name}: {key}");
        }
    }
}

#[test]
fn without_rules_the_layout_is_recognized() {
    for (name, layout) in told() {
        let (conversion, tensors) = source(&name);
        let prepared = configured(conversion, &layout).to("hub").prepare().unwrap();
        let Choice::Recognized(found) = &prepared.choice else {
            panic!("{name}: {:?}", prepared.choice)
        };
        let rules = layout.rules.as_deref().unwrap_or(&name);
        assert_eq!((found.rules, found.layout.as_str()), (rules, layout.layout.as_str()));
        let made = given(&prepared.plan().unwrap(), tensors.is_some());
        assert_eq!(digest(&made), layout.sha256, "{name}");
    }
}

/// Fixtures whose published names two files explain.
const EQUAL_ON_HUB: &[&str] = &["wav2vec2_fairseq_ctc"];

/// What has the hub's names goes to a publisher's that are asked for, by the file that explains it.
#[test]
fn without_rules_the_way_to_a_layout_is_found() {
    for (name, layout) in told().filter(|(_, layout)| layout.exact) {
        let (conversion, tensors) = source(&name);
        let Some(tensors) = tensors else { continue };
        let planned = configured(conversion, &layout).to("hub").plan().unwrap();
        let made = Arc::new(state_dict(given(&planned, true)));
        let back = configured(Conversion::of_store(made), &layout).to(&layout.layout).plan();
        if EQUAL_ON_HUB.contains(&name.as_str()) {
            let failure = back.err().map(|failure| failure.to_string()).unwrap_or_default();
            assert!(failure.contains("explain these keys equally well"), "{name}: {failure}");
            continue;
        }
        let back = back.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        same(&name, given(&back, true), &tensors);
    }
}

/// The keys of a layout, changed.
fn choice(name: &str, change: impl Fn(&str) -> String, config: serde_json::Value) -> Choice {
    let (_, tensors) = source(name);
    let tensors = tensors.unwrap();
    let infos =
        tensors.iter().map(|(key, view)| (change(key.as_str()).into(), view.info().clone()));
    let conversion = Conversion::of_header(Arc::new(Header::from_infos(infos)));
    conversion.config(Config::from_value(config)).to("hub").prepare().unwrap().choice
}

#[test]
fn what_is_no_publishers_layout_is_not_recognized() {
    let none = serde_json::json!({});
    // Names of nobody, with numbers where models have them.
    let random = |key: &str| {
        let number = key.bytes().map(u64::from).fold(7, |hash, byte| hash * 31 % 9973 + byte);
        format!("tensor_{number}.{}.weight", number % 7)
    };
    let found = choice("vit_timm", random, none.clone());
    assert!(!matches!(found, Choice::Recognized(_)), "{found:?}");
    // A third of the keys are another model's.
    let mixed = |key: &str| match key.contains("mlp") {
        true => format!("other.{key}"),
        false => key.to_owned(),
    };
    let found = choice("vit_timm", mixed, none.clone());
    assert!(!matches!(found, Choice::Recognized(_)), "{found:?}");
    // The wrappers of training are looked through.
    let wrapped = choice("vit_timm", |key| format!("module.{key}"), none);
    assert!(matches!(wrapped, Choice::Recognized(found) if found.rules == "vit_timm"));
    // A config that says another model is believed.
    let other = serde_json::json!({"model_type": "gpt2"});
    assert_eq!(choice("vit_timm", str::to_owned, other), Choice::ByConfig);
}

#[test]
fn segments_before_all_keys_are_looked_behind_and_go() {
    let (_, tensors) = source("vit_timm");
    let infos = tensors
        .unwrap()
        .iter()
        .map(|(key, view)| (format!("student.backbone.{key}").as_str().into(), view.info().clone()))
        .collect::<Vec<_>>();
    let conversion = Conversion::of_header(Arc::new(Header::from_infos(infos)));
    let prepared = conversion.config(Config::empty()).to("hub").prepare().unwrap();
    let Choice::Recognized(found) = &prepared.choice else { panic!("{:?}", prepared.choice) };
    assert_eq!((found.rules, found.prefix.join(".")), ("vit_timm", "student.backbone".to_owned()));
    let made = given(&prepared.plan().unwrap(), false);
    assert!(made.iter().all(|(key, ..)| key.starts_with("vit.") || key.starts_with("classifier.")));
    assert_eq!(made.len(), layouts()["vit_timm"].keys);
}

/// Whisper has a file from `hub` to `model` too: a tie, which the file of the publisher's layout
/// writes as two tensors.
#[test]
fn a_recognized_layout_goes_on_to_model() {
    let (conversion, _) = source("whisper_openai");
    let prepared = conversion.config(Config::empty()).to("model").prepare().unwrap();
    let files: Vec<String> = prepared.route.describe().into_iter().map(|(name, _)| name).collect();
    assert_eq!(files, ["wrappers", "whisper_openai", "whisper", "tied_lm_head"]);
    let keys = given(&prepared.plan().unwrap(), true);
    assert!(keys.iter().any(|(key, ..)| key == "proj_out.weight"));
}

/// What was finetuned from wav2vec 2.0 and from HuBERT differs in one key, that HuBERT keeps.
#[test]
fn two_files_that_explain_equally_are_told_apart_by_what_they_miss() {
    let none = || serde_json::json!({});
    for (name, rules) in
        [("wav2vec2_fairseq_ctc", "wav2vec2_fairseq"), ("hubert_fairseq_ctc", "hubert_fairseq")]
    {
        let found = choice(name, str::to_owned, none());
        assert!(matches!(&found, Choice::Recognized(one) if one.rules == rules), "{found:?}");
    }
}

/// InternVL with Qwen 2 has the names that Qianfan-OCR publishes: which it is has to be said.
#[test]
fn names_that_another_family_publishes_too_are_nobodys_until_it_is_said() {
    let prepared = |change: fn(Conversion) -> Conversion| {
        let (conversion, _) = source("internvl_chat_qwen2");
        change(conversion.config(Config::empty())).to("hub").prepare()
    };
    let Err(Failure::Rules(refused)) = prepared(|conversion| conversion) else {
        panic!("nothing was said")
    };
    let [refused] = &refused.0[..] else { panic!("{refused}") };
    for name in ["`internvl_chat`", "`transformers/qianfan_ocr`"] {
        assert!(refused.message.contains(name), "{}", refused.message);
    }
    for option in ["--from chat", "--rules transformers/qianfan_ocr"] {
        assert!(refused.hints[0].contains(option), "{:?}", refused.hints);
    }
    let chat = prepared(|conversion| conversion.from("chat")).unwrap();
    assert!(matches!(chat.choice, Choice::Recognized(found) if found.rules == "internvl_chat"));
    let chat = prepared(|conversion| {
        let config = serde_json::json!({"model_type": "internvl_chat"});
        conversion.config(Config::from_value(config))
    })
    .unwrap();
    assert!(matches!(chat.choice, Choice::Recognized(found) if found.rules == "internvl_chat"));
}

/// One tensor that many models have says nothing.
#[test]
fn a_few_usual_keys_are_nobodys() {
    for keys in [&["norm.weight"][..], &["head.weight", "head.bias"], &["cls_token", "pos_embed"]] {
        let infos = keys.iter().map(|key| ((*key).into(), TensorInfo::new(Dtype::F32, vec![4])));
        let conversion = Conversion::of_header(Arc::new(Header::from_infos(infos)));
        let prepared = conversion.config(Config::empty()).to("hub").prepare().unwrap();
        assert_eq!(prepared.choice, Choice::NoConfig, "{keys:?}");
    }
}

/// Each source with its config and the rule file that is for it.
pub(crate) fn known() -> Vec<(String, Header, Config, String)> {
    let of = |(name, layout): (String, Layout)| {
        let (conversion, _) = source(&name);
        let header = conversion.from("hub").prepare().unwrap().header().clone();
        let config = layout.config.map_or_else(Config::empty, Config::from_value);
        let rules = layout.rules.unwrap_or_else(|| name.clone());
        (name, header, config, rules)
    };
    told().map(of).collect()
}

/// Pairs of one checkpoint in two layouts, there and back, of those whose tensors are kept.
pub(crate) fn pairs() -> Vec<(String, StateDict, StateDict)> {
    let mut pairs = Vec::new();
    for (name, layout) in told() {
        let (conversion, tensors) = source(&name);
        let Some(tensors) = tensors else { continue };
        let planned = configured(conversion, &layout).to("hub").plan().unwrap();
        let (own, hub) = ((*tensors).clone(), state_dict(given(&planned, true)));
        pairs.push((format!("{name} to hub"), own.clone(), hub.clone()));
        pairs.push((format!("hub to {name}"), hub, own));
    }
    pairs
}
