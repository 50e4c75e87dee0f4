//! Ties: the output head and the input embedding of a model, as one tensor or as two.
//!
//! *Tied* is what a model's class or config says; an *alias* is a fact about storages. Pipeline
//! stages are often tied by config and own one of the two tensors only; a draft model may be tied
//! by config and have a head of its own size.

mod ensure;
mod find;
mod materialize;

use serde_json::Value as JsonValue;

use super::Compat;
use super::model::{Model, TieSupport};
use regraft::config::{Config, TieDecision, TieReason};

pub use ensure::{TieWeights, ensure_tied_in_state_dict, ensure_tied_lm_head};
pub use find::{
    Found, REFERENCE_SOURCES, get_input_embeddings_weight_and_name, get_lm_head_weight_and_name,
    get_tied_lm_head_source_names, has_local_tied_lm_head, same_tensor_storage,
};
pub use materialize::{
    HeadSource, Materialized, Outcome, Refusal, materialize_in_state_dict,
    materialize_missing_tied_lm_head,
};

/// Whether a config says that embeddings are tied: the value of the field that rules, as
/// [`Config::tie_policy`] finds it.
///
/// The reference asks a config object whose class has filled in every default; here that is the
/// config as given, so that an absent field reads as false. It takes any value that Python takes
/// for true, where in strict mode only `true` is, and an absent field reads as the model type's
/// default.
pub fn get_controlling_tie_word_embeddings(config: &Config, compat: Compat) -> bool {
    if compat == Compat::Strict {
        return config.tie_policy(None).tied;
    }
    const FLAG: &str = "tie_word_embeddings";
    if let Some(flag) = config.get(&[FLAG]) {
        return truthy(flag);
    }
    let sub = match config.get(&["thinker_config"]) {
        None | Some(JsonValue::Null) => "text_config",
        Some(_) => "thinker_config",
    };
    config.get(&[sub, FLAG]).is_some_and(truthy)
}

/// Whether Python takes a value for true.
fn truthy(value: &JsonValue) -> bool {
    match value {
        JsonValue::Null => false,
        JsonValue::Bool(value) => *value,
        JsonValue::Number(number) => number.as_f64() != Some(0.0),
        JsonValue::String(text) => !text.is_empty(),
        JsonValue::Array(items) => !items.is_empty(),
        JsonValue::Object(fields) => !fields.is_empty(),
    }
}

/// Whether a model's word embeddings are tied by intent: what its class supports, if only one way,
/// else what its config says.
pub fn is_tied_word_embeddings(model: &Model, compat: Compat) -> bool {
    match (model.tie_support, &model.config) {
        (Some(TieSupport::TiedOnly), _) => true,
        (Some(TieSupport::UntiedOnly), _) | (_, None) => false,
        (Some(TieSupport::Both) | None, Some(config)) => {
            get_controlling_tie_word_embeddings(config, compat)
        }
    }
}

/// As [`is_tied_word_embeddings`] in strict mode, with what decided.
pub fn tie_decision(model: &Model) -> TieDecision {
    let explicit = match model.tie_support {
        Some(TieSupport::TiedOnly) => Some(true),
        Some(TieSupport::UntiedOnly) => Some(false),
        Some(TieSupport::Both) | None => None,
    };
    match &model.config {
        Some(config) => config.tie_policy(explicit),
        None => Config::empty().tie_policy(explicit),
    }
}

/// Whether a config's tie flag is worth a finding: it is neither a boolean nor null.
pub fn is_malformed(decision: &TieDecision) -> bool {
    matches!(decision.because, TieReason::NotBoolean { .. })
}

#[cfg(test)]
mod tests;
