//! Proposed rule files: for pairs of layouts that real converters made, the proposal has to make
//! the one of the other, byte for byte, or say what is open.

use std::collections::BTreeMap;
use std::sync::Arc;

use regraft::conversion::Goal;
use regraft::propose::{Proposal, propose};
use regraft::store::{StateDict, Store as _};
use regraft::tensor::{Dtype, Header, TensorInfo, Wanted};
use regraft::{Conversion, compile};

use crate::library::layouts::pairs;

/// What a proposal makes, by key; `None` if it doesn't apply.
fn made(
    proposal: &Proposal,
    source: &StateDict,
    wanted: &Wanted,
) -> Option<BTreeMap<String, Vec<u8>>> {
    let rules = compile(&proposal.text).unwrap_or_else(|why| panic!("{why}\n{}", proposal.text));
    let planned = Conversion::of_store(Arc::new(source.clone()))
        .rules([rules])
        .target(Goal::whole(wanted.clone()))
        .plan()
        .ok()?;
    let views = planned.views().ok()?.tensors.into_iter();
    Some(views.map(|(key, view)| (key.to_string(), view.to_vec())).collect())
}

fn bytes(tensors: &StateDict) -> BTreeMap<String, Vec<u8>> {
    tensors.iter().map(|(key, view)| (key.to_string(), view.to_vec())).collect()
}

/// Layouts that differ in the order of rows of q, k and v, as RoPE turns them or heads have them
/// together, which no header shows.
const TURNED: [&str; 3] = ["pixtral_mistral", "llama_torchtitan", "gpt_neox_litgpt"];

/// Of all pairs: those that come out right without an edit, and those that leave something open.
#[test]
fn proposals_apply_or_say_what_is_open() {
    let (mut exact, mut open, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for (name, source, target) in pairs() {
        let wanted = Wanted::from(target.header());
        let proposal = propose(source.header(), &wanted, "proposed");
        let said = proposal.unsure > 0 || !proposal.missing.is_empty() || !proposal.left.is_empty();
        match made(&proposal, &source, &wanted) {
            Some(made) if made == bytes(&target) => exact.push(name),
            _ if said || TURNED.iter().any(|turned| name.contains(turned)) => open.push(name),
            _ => wrong.push(name),
        }
    }
    println!("exact: {exact:#?}\nopen: {open:#?}");
    assert!(wrong.is_empty(), "these are wrong, and nothing is said: {wrong:?}");
    for name in ["clip_openai to hub", "hub to clip_openai", "vit_timm to hub", "hub to vit_timm"] {
        assert!(exact.iter().any(|known| known == name), "{name}");
    }
}

fn header(keys: &[(&str, &[u64])]) -> Header {
    let info = |shape: &[u64]| TensorInfo::new(Dtype::F32, shape.to_vec());
    Header::from_infos(keys.iter().map(|(key, shape)| ((*key).into(), info(shape))))
}

/// The statements of what is proposed for two lists of keys.
fn proposed(source: &[(&str, &[u64])], target: &[(&str, &[u64])]) -> (Vec<String>, Proposal) {
    let proposal = propose(&header(source), &Wanted::from(&header(target)), "mine");
    let text: Vec<&str> = proposal.text.lines().filter(|line| !line.starts_with('#')).collect();
    let text = text.join(" ");
    let mut rules: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match (word, rules.last_mut()) {
            ("rename" | "map" | "ruleset", _) | (_, None) => rules.push(word.to_owned()),
            (_, Some(rule)) => {
                rule.push(' ');
                rule.push_str(word);
            }
        }
    }
    rules.remove(0);
    (rules, proposal)
}

#[test]
fn names_shapes_and_numbers_decide() {
    let (rules, proposal) = proposed(
        &[
            ("h.0.attn.w", &[4, 8]),
            ("h.1.attn.w", &[4, 8]),
            ("h.0.ln.gamma", &[8]),
            ("h.1.ln.gamma", &[8]),
            ("h.0.ln.beta", &[8]),
            ("h.1.ln.beta", &[8]),
            ("same", &[3]),
        ],
        &[
            ("layers.0.attention.weight", &[8, 4]),
            ("layers.1.attention.weight", &[8, 4]),
            ("layers.0.norm.weight", &[8]),
            ("layers.1.norm.weight", &[8]),
            ("layers.0.norm.bias", &[8]),
            ("layers.1.norm.bias", &[8]),
            ("same", &[3]),
        ],
    );
    assert_eq!(
        rules,
        [
            "rename \"h.{l}.ln.{t: gamma=>weight | beta=>bias}\" <-> \"layers.{l}.norm.{t}\"",
            "map \"h.{l}.attn.w\" <-> \"layers.{l}.attention.weight\" via transpose(0, 1)",
        ]
    );
    assert_eq!((proposal.unsure, proposal.left.len(), proposal.missing.len()), (0, 0, 0));
}

#[test]
fn experts_are_packed_and_projections_joined() {
    let (rules, proposal) = proposed(
        &[
            ("l.0.e.0.up", &[6, 4]),
            ("l.0.e.1.up", &[6, 4]),
            ("l.0.e.2.up", &[6, 4]),
            ("l.0.q.weight", &[4, 4]),
            ("l.0.k.weight", &[2, 4]),
            ("l.0.v.weight", &[2, 4]),
        ],
        &[("l.0.experts.up", &[3, 6, 4]), ("l.0.qkv.weight", &[8, 4])],
    );
    assert_eq!(
        rules,
        [
            "map \"l.{i}.e.{j}.up\" <-> \"l.{i}.experts.up\" via stack(j)",
            "map \"l.{i}.q.weight\", \"l.{i}.k.weight\", \"l.{i}.v.weight\" <-> \"l.{i}.qkv.weight\" via concat(0, 4, 2, 2)",
        ]
    );
    assert_eq!(proposal.unsure, 1, "the order of q, k and v is a guess");
    assert!(proposal.text.contains("# unsure: the order of the parts is a guess"));
}

#[test]
fn what_nothing_is_known_of_is_named() {
    let (rules, proposal) = proposed(
        &[("a.weight", &[2, 3]), ("odd name", &[5])],
        &[("b.weight", &[7, 7]), ("c.weight", &[2, 3])],
    );
    assert_eq!(rules, ["rename \"a.weight\" <-> \"c.weight\""]);
    let names =
        |keys: &[regraft::key::Key]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&proposal.left), ["odd name"]);
    assert_eq!(names(&proposal.missing), ["b.weight"]);
    assert!(proposal.text.contains("#   odd name") && proposal.text.contains("#   b.weight"));
    // Nothing in common is no rule, and still a file that checks.
    let (rules, proposal) = proposed(&[("x", &[1])], &[("y", &[2])]);
    assert!(rules.is_empty());
    compile(&proposal.text).unwrap();
}

#[test]
fn a_head_that_is_not_there_may_be_the_embedding() {
    let (rules, proposal) = proposed(
        &[("wte.weight", &[9, 4])],
        &[("model.embed_tokens.weight", &[9, 4]), ("lm_head.weight", &[9, 4])],
    );
    assert_eq!(rules, ["rename \"wte.weight\" <-> \"model.embed_tokens.weight\""]);
    let tie = "#   tie \"lm_head.weight\" from \"model.embed_tokens.weight\"";
    assert!(proposal.text.contains(tie), "{}", proposal.text);
}

#[test]
fn tensors_of_one_shape_with_names_that_say_nothing_are_marked() {
    let (_, proposal) = proposed(
        &[("m.a.weight", &[4, 4]), ("m.b.weight", &[4, 4])],
        &[("n.x.weight", &[4, 4]), ("n.y.weight", &[4, 4])],
    );
    assert!(proposal.unsure > 0 || !proposal.missing.is_empty(), "{}", proposal.text);
}
