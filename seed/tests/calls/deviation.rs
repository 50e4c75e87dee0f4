//! How strict mode differs from the reference: rules, each a predicate on a call, and the cases
//! that `docs/seed.md` lists under each.

use std::collections::BTreeMap;

use regraft_seed::{Compat, DeclaredTies, Model, names, ties};
use serde_json::{Map, Value as Json};

use super::case::{self, Case, Outcome, text};

/// A documented deviation.
pub(super) struct Rule {
    /// Its heading in `docs/seed.md`.
    pub(super) name: &'static str,
    /// Whether it explains that this call gives what it does in strict mode.
    applies: fn(&Case, &Outcome) -> bool,
}

const fn rule(name: &'static str, applies: fn(&Case, &Outcome) -> bool) -> Rule {
    Rule { name, applies }
}

/// Every deviation. A difference is listed under the first that explains it, so that the narrow
/// ones come first.
pub(super) const RULES: &[Rule] = &[
    rule("every-key-or-none", |case, _| {
        case.function == "torch.consume_prefix_in_state_dict_if_present"
            && !is_clean_prefix(&case.input)
    }),
    rule("index-size", |case, _| {
        case.function == "get_safetensors_index_total_size" && !is_plain_index(&case.input)
    }),
    rule("unsigned-counts", |case, _| {
        let number = match case.function.as_str() {
            "format_bytes" => case.input.get("num_bytes"),
            "format_output_file_count" => case.input.get("count"),
            _ => None,
        };
        number.is_some_and(|number| number.as_u64().is_none())
    }),
    rule("plain-rank", |case, _| {
        let number = |name| {
            text(&case.input, name).map(|text| {
                text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
            })
        };
        number("RANK").is_some_and(|rank| rank.is_none())
            || number("WORLD_SIZE").is_some_and(|size| size.is_none_or(|size| size == 0))
    }),
    rule("repository-name", |case, _| {
        case.function == "resolve_trust_remote_code"
            && text(&case.input, "name").is_some_and(|name| {
                let word = |part: &str| {
                    !part.is_empty()
                        && part
                            .bytes()
                            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
                };
                let parts: Vec<&str> = name.split('/').collect();
                !(parts.len() == 2 && parts.iter().all(|part| word(part)))
                    || name.contains("--")
                    || name.contains("..")
                    || parts
                        .iter()
                        .any(|part| part.starts_with(['-', '.']) || part.ends_with(['-', '.']))
            })
    }),
    rule(
        "every-dtype",
        |case, _| matches!(&case.recorded, Outcome::Raises { message, .. } if message.contains("unknown dtype")),
    ),
    rule("whole-alias", |case, _| {
        let (left, right) = (case.input.get("left"), case.input.get("right"));
        case.function == "same_tensor_storage"
            && left.zip(right).is_some_and(|(left, right)| left != right)
    }),
    rule("boolean-flag", |case, _| {
        case.input
            .get("config")
            .or(case.input.get("model").map(|model| &model["config"]))
            .is_some_and(has_odd_flag)
    }),
    rule("fitting-source", fitting_source),
    rule("fitting-embedding", |case, _| {
        case.function == "ensure_tied_lm_head"
            && model(case).is_some_and(|model| {
                let head = ties::get_lm_head_weight_and_name(&model, Compat::Strict);
                let embedding = ties::get_input_embeddings_weight_and_name(&model, Compat::Strict);
                head.zip(embedding)
                    .is_some_and(|(head, embedding)| head.tensor.dtype != embedding.tensor.dtype)
            })
    }),
    rule("more-sources", more_sources),
    rule("whole-segments", |case, _| names_in(case).any(has_part_of_segment)),
    rule("fsdp-wrappers", |case, _| {
        names_in(case).any(|name| name.split('.').any(|part| FSDP.contains(&part)))
    }),
    rule("wrapped-head", |case, _| {
        case.function == "ensure_tied_lm_head"
            && model(case).is_some_and(|model| {
                let head = ties::get_lm_head_weight_and_name(&model, Compat::Strict);
                head.is_some_and(|head| model.params[head.index].name != head.name)
            })
    }),
    rule("declared-target", declared_target),
    rule("head-choice", |case, _| {
        model(case).is_some_and(|model| {
            head_texts(&model).count() > 1
                || head_texts(&model).any(|name| !is_at(&name, "lm_head.weight"))
        })
    }),
    rule("embedding-choice", |case, _| {
        let extra = extra_sources();
        model(case).is_some_and(|model| {
            let others = normalized(&model).filter(|name| extra.contains(name)).count();
            embedding_texts(&model).count() + others > 1
                || embedding_texts(&model).any(|name| !is_at(&name, "embed_tokens.weight"))
        })
    }),
];

/// The rules that explain a call's strict outcome, which differs from the record; none if nothing
/// does.
pub(super) fn explain(case: &Case, found: &Outcome) -> Vec<&'static Rule> {
    let first = |found: &Outcome| {
        RULES.iter().find(|rule| rule.name != "more-sources" && (rule.applies)(case, found))
    };
    if case.function != "get_tied_lm_head_source_names" {
        return RULES.iter().find(|rule| (rule.applies)(case, found)).into_iter().collect();
    }
    // Every list is longer: what differs besides must have a reason of its own.
    let (shorter, extended) = without_extra_sources(found, &case.recorded);
    let mut rules: Vec<&Rule> =
        RULES.iter().filter(|rule| extended && rule.name == "more-sources").collect();
    if shorter != case.recorded {
        match first(&shorter) {
            Some(rule) => rules.push(rule),
            None => rules.clear(),
        }
    }
    rules
}

const FSDP: [&str; 2] = ["_fsdp_wrapped_module", "_fpw_module"];
const WRAPPERS: [&str; 4] =
    ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_fpw_module"];

fn model(case: &Case) -> Option<Model> {
    case.input.get("model").map(case::model)
}

/// Every name of a call that strict mode may normalize otherwise.
fn names_in(case: &Case) -> impl Iterator<Item = &str> {
    let model = case.input.get("model");
    let params = model
        .and_then(|model| model["params"].as_array())
        .into_iter()
        .flatten()
        .filter_map(|param| param["name"].as_str());
    let modules =
        case.input.get("modules").or(model.map(|model| &model["modules"])).and_then(Json::as_array);
    text(&case.input, "name")
        .into_iter()
        .chain(params)
        .chain(modules.into_iter().flatten().filter_map(Json::as_str))
}

/// Whether the text of a wrapper stands in a name otherwise than as a whole segment with more after
/// it.
fn has_part_of_segment(name: &str) -> bool {
    let is_last = |part: &str| name.rsplit('.').next() == Some(part) && name.contains('.');
    WRAPPERS.iter().any(|wrapper| {
        is_last(wrapper)
            || name.match_indices(wrapper).any(|(at, _)| {
                name[at + wrapper.len()..].starts_with('.')
                    && !(at == 0 || name[..at].ends_with('.'))
            })
    }) || reference_makes_new(name)
}

/// Whether taking one wrapper's text out makes another's.
fn reference_makes_new(name: &str) -> bool {
    let without = name.replace("_checkpoint_wrapped_module.", "");
    without.matches("_orig_mod.").count() > name.matches("_orig_mod.").count()
}

fn is_clean_prefix(input: &Map<String, Json>) -> bool {
    let prefix = text(input, "prefix").unwrap_or_default();
    let keys = input["keys"].as_array().unwrap();
    keys.iter().filter_map(Json::as_str).all(|key| key.starts_with(prefix) && key != prefix)
}

fn has_odd_flag(config: &Json) -> bool {
    match config {
        Json::Object(fields) => fields.iter().any(|(name, value)| match name.as_str() {
            "tie_word_embeddings" => !matches!(value, Json::Bool(_) | Json::Null),
            _ => has_odd_flag(value),
        }),
        _ => false,
    }
}

fn is_at(name: &str, inner: &str) -> bool {
    name == inner || name.ends_with(&format!(".{inner}"))
}

/// Names that the reference may take for the head's, and for the embedding's.
fn head_texts(model: &Model) -> impl Iterator<Item = String> {
    normalized(model).filter(|name| name.contains("lm_head") && name.ends_with(".weight"))
}

fn embedding_texts(model: &Model) -> impl Iterator<Item = String> {
    normalized(model).filter(|name| name.ends_with("embed_tokens.weight"))
}

fn normalized(model: &Model) -> impl Iterator<Item = String> {
    model.params.iter().map(|param| names::normalize_param_name(&param.name, Compat::Reference))
}

/// The sources that only the rule file has.
fn extra_sources() -> Vec<String> {
    let all = ties::get_tied_lm_head_source_names(&Model::default(), None, Compat::Strict);
    all.into_iter().filter(|name| !ties::REFERENCE_SOURCES.contains(&name.as_str())).collect()
}

/// A list of sources without those that only the rule file has, save for ones that the record has
/// too; and whether there were any.
fn without_extra_sources(found: &Outcome, recorded: &Outcome) -> (Outcome, bool) {
    let extra = extra_sources();
    let (Outcome::Output(Json::Array(names)), Outcome::Output(Json::Array(known))) =
        (found, recorded)
    else {
        return (found.clone(), false);
    };
    let is_extra = |name: &&Json| {
        name.as_str().is_some_and(|text| extra.iter().any(|extra| extra == text))
            && !known.contains(name)
    };
    let kept: Vec<Json> = names.iter().filter(|name| !is_extra(name)).cloned().collect();
    let extended = kept.len() < names.len();
    (Outcome::Output(Json::Array(kept)), extended)
}

/// A name that only the rule file has is there to be found.
fn more_sources(case: &Case, found: &Outcome) -> bool {
    let extra = extra_sources();
    let is_extra = |name: &str| extra.iter().any(|extra| extra == name);
    match found {
        Outcome::Output(output) if case.function == "materialize_missing_tied_lm_head" => {
            output["new"]["aliases_state_dict_key"].as_str().is_some_and(is_extra)
        }
        _ => {
            case.function != "get_lm_head_weight_and_name"
                && model(case).is_some_and(|model| normalized(&model).any(|name| is_extra(&name)))
        }
    }
}

/// A declared tie has a target that isn't the head that is asked for.
fn declared_target(case: &Case, _: &Outcome) -> bool {
    let Some(model) = model(case) else { return false };
    let DeclaredTies::Map(declared) = &model.declared_ties else { return false };
    let own = head_texts(&model).next();
    let head = text(&case.input, "lm_head_param_name")
        .map(str::to_owned)
        .or(own)
        .unwrap_or_else(|| "lm_head.weight".into());
    declared.iter().any(|(target, _)| !is_at(&head, target))
}

/// The reference took a source that has another shape or dtype than the model's head, or that
/// leaves its scale behind.
fn fitting_source(case: &Case, _: &Outcome) -> bool {
    let (Some(model), Some(dict)) = (model(case), case.input.get("state_dict")) else {
        return false;
    };
    let Outcome::Output(recorded) = &case.recorded else { return false };
    let new = &recorded["new"];
    let Some(head) =
        ties::get_lm_head_weight_and_name(&model, Compat::Strict).filter(|_| new.is_object())
    else {
        return false;
    };
    let fits = case::shape(&new["shape"]) == *head.tensor.shape
        && case::dtype(&new["dtype"]) == head.tensor.dtype;
    // The record doesn't name a source without bytes.
    let mut scaled = dict
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_suffix("_scale_inv"));
    let scaled =
        scaled.any(|key| new["aliases_state_dict_key"].as_str().is_none_or(|source| source == key));
    !fits || scaled
}

/// An index whose size nobody reads otherwise.
fn is_plain_index(input: &Map<String, Json>) -> bool {
    let Some(content) = text(input, "content_latin1") else { return true };
    let bytes: Vec<u8> = content.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let Ok(index) = serde_json::from_slice::<Json>(&bytes) else { return false };
    let size = index.get("metadata").and_then(|metadata| metadata.get("total_size"));
    index.get("metadata").is_none_or(Json::is_object)
        && index.is_object()
        && size.is_none_or(|size| size.is_u64() || size.is_string())
}

/// Rule -> ids of cases, as `docs/seed.md` lists them: under a heading that is the rule's name in
/// backticks, a paragraph that begins with `Cases:`.
pub(super) fn listed_in_docs() -> BTreeMap<String, Vec<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/seed.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut rule = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("### `").and_then(|rest| rest.strip_suffix('`')) {
            listed.insert(name.to_owned(), Vec::new());
            rule = Some(name);
        } else if let (Some(rest), Some(rule)) = (line.strip_prefix("Cases: "), rule) {
            listed.get_mut(rule).unwrap().extend(ids(rest));
        }
    }
    listed
}

/// `` `format_bytes` 021, 030; `is_rank_0` 004 `` as ids.
fn ids(list: &str) -> Vec<String> {
    let function = |part: &str| {
        let (name, numbers) = part
            .trim()
            .strip_prefix('`')
            .and_then(|part| part.split_once('`'))
            .unwrap_or_else(|| panic!("no function: {part:?}"));
        numbers
            .split(',')
            .map(|number| format!("{name}/{}", number.trim().trim_end_matches('.')))
            .collect::<Vec<_>>()
    };
    list.split(';').flat_map(function).collect()
}

/// The ids as `docs/seed.md` lists them.
pub(super) fn show(ids: &[String]) -> String {
    let mut functions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for id in ids {
        let (function, number) = id.rsplit_once('/').unwrap();
        functions.entry(function).or_default().push(number);
    }
    let parts = functions.into_iter().map(|(function, mut numbers)| {
        numbers.sort_by_key(|number| number.parse::<u32>().unwrap_or_default());
        format!("`{function}` {}", numbers.join(", "))
    });
    format!("Cases: {}", parts.collect::<Vec<_>>().join("; "))
}
