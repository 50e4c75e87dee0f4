//! The head that a checkpoint leaves out because it is tied.

use std::fmt;

use crate::Compat;
use crate::dtypes::TorchDtype;
use crate::model::{Model, PlainStateDict, Tensor, Value};
use regraft::key::Key;
use regraft::store::StateDict;
use regraft::tensor::{Shape, TensorView, companion};

use super::{get_lm_head_weight_and_name, get_tied_lm_head_source_names, is_tied_word_embeddings};

/// Where a missing head came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadSource {
    /// This key of the state dict: the head aliases its tensor.
    Key(String),
    /// The model's own head, as it is now.
    CurrentHead,
}

/// Why a tensor of the state dict can't be the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no tensor.
    NotATensor,
    /// It has another shape than the model's head.
    Shape {
        /// Its shape.
        found: Shape,
        /// The head's.
        head: Shape,
    },
    /// It has another dtype than the model's head.
    Dtype {
        /// Its dtype.
        found: TorchDtype,
        /// The head's.
        head: TorchDtype,
    },
    /// It is quantized: its values mean nothing without this key, which would stay behind.
    Scale(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotATensor => f.write_str("not a tensor"),
            Refusal::Shape { found, head } => write!(f, "shape {found}, where the head has {head}"),
            Refusal::Dtype { found, head } => write!(f, "dtype {found}, where the head has {head}"),
            Refusal::Scale(key) => write!(f, "quantized, and its scale {key:?} would stay behind"),
        }
    }
}

/// What came of a missing head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The model isn't tied by intent: nothing to do.
    Untied,
    /// The model, or stage, has no head.
    NoHead,
    /// The head's key is there already.
    Present,
    /// The head was added.
    Materialized(HeadSource),
    /// No source is there, or none that fits.
    NoSource,
}

/// What [`materialize_missing_tied_lm_head`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Materialized {
    /// What came of it.
    pub outcome: Outcome,
    /// The head's key, where the model has a head.
    pub key: Option<String>,
    /// Sources that are there and were passed over, in order.
    pub refused: Vec<(String, Refusal)>,
}

impl Materialized {
    fn nothing(outcome: Outcome) -> Self {
        Self { outcome, key: None, refused: Vec::new() }
    }

    /// Whether the head was added: what the reference returns.
    pub fn is_materialized(&self) -> bool {
        matches!(self.outcome, Outcome::Materialized(_))
    }
}

/// Adds the head of a tied model to a state dict that lacks it: an alias of the first source that
/// is there, never a copy.
///
/// In strict mode a source must have the shape and dtype of the model's head, and no scale that
/// would stay behind; the next one is tried otherwise, and the result says why. The reference takes
/// the first tensor that it finds. With `allow_current_lm_head_fallback` the model's own head is
/// added where no source will do, as checkpoints written without a head need it on resuming.
pub fn materialize_missing_tied_lm_head(
    state_dict: &mut PlainStateDict,
    model: &Model,
    allow_current_lm_head_fallback: bool,
    compat: Compat,
) -> Materialized {
    if !is_tied_word_embeddings(model, compat) {
        return Materialized::nothing(Outcome::Untied);
    }
    let Some(head) = get_lm_head_weight_and_name(model, compat) else {
        return Materialized::nothing(Outcome::NoHead);
    };
    let key = head.name;
    if state_dict.contains_key(&key) {
        return Materialized { key: Some(key), ..Materialized::nothing(Outcome::Present) };
    }
    let mut refused = Vec::new();
    let mut found = None;
    for source in get_tied_lm_head_source_names(model, Some(&key), compat) {
        let Some(value) = state_dict.get(&source) else { continue };
        match judge(&source, value, head.tensor, state_dict, compat) {
            Ok(tensor) => {
                found = Some((HeadSource::Key(source), tensor));
                break;
            }
            Err(why) => refused.push((source, why)),
        }
    }
    if found.is_none() && allow_current_lm_head_fallback {
        found = Some((HeadSource::CurrentHead, head.tensor));
    }
    let Some((source, tensor)) = found else {
        return Materialized { outcome: Outcome::NoSource, key: Some(key), refused };
    };
    let detached = Tensor { object: next_object(state_dict, model), ..tensor.clone() };
    state_dict.insert(key.clone(), Value::Tensor(detached));
    Materialized { outcome: Outcome::Materialized(source), key: Some(key), refused }
}

/// [`materialize_missing_tied_lm_head`] for tensors in memory: the head shares its source's
/// storage, no byte is copied.
///
/// `current_head` is the tensor of the model's own head, for use where no source will do; `None`
/// forbids that.
pub fn materialize_in_state_dict(
    state_dict: &mut StateDict,
    model: &Model,
    current_head: Option<&TensorView>,
    compat: Compat,
) -> Materialized {
    let mut plain = Model::from_state_dict(state_dict, None).to_state_dict();
    let done = materialize_missing_tied_lm_head(&mut plain, model, current_head.is_some(), compat);
    if let (Outcome::Materialized(source), Some(key)) = (&done.outcome, &done.key) {
        let view = match source {
            HeadSource::Key(source) => state_dict.get(source).cloned(),
            HeadSource::CurrentHead => current_head.cloned(),
        };
        if let Some(view) = view {
            state_dict.insert(Key::from(key.as_str()), view);
        }
    }
    done
}

/// The tensor, if it can be the head.
fn judge<'a>(
    key: &str,
    value: &'a Value,
    head: &Tensor,
    state_dict: &PlainStateDict,
    compat: Compat,
) -> Result<&'a Tensor, Refusal> {
    let tensor = value.tensor().ok_or(Refusal::NotATensor)?;
    if compat == Compat::Reference {
        return Ok(tensor);
    }
    if tensor.shape != head.shape {
        return Err(Refusal::Shape { found: tensor.shape.clone(), head: head.shape.clone() });
    }
    if let Some(scale) = state_dict.keys().find(|other| is_scale_of(other, key)) {
        return Err(Refusal::Scale(scale.clone()));
    }
    if tensor.dtype != head.dtype {
        return Err(Refusal::Dtype { found: tensor.dtype, head: head.dtype });
    }
    Ok(tensor)
}

/// Whether a tensor can't be read without what a key holds: the engine's table of companions says
/// so. `scale` beside it isn't there, as it may be a parameter of its own elsewhere; beside a head
/// or an embedding it is what DeepSeek's own files call a scale.
fn is_scale_of(key: &str, quantized: &str) -> bool {
    let listed = companion::tensor_of(key, &|tensor| tensor == quantized);
    listed.is_some_and(|(_, role)| role.is_needed())
        || key.strip_suffix(".scale").is_some_and(|module| module == companion::module(quantized))
}

/// A number that no tensor object has yet.
fn next_object(state_dict: &PlainStateDict, model: &Model) -> u64 {
    let in_dict = state_dict.values().filter_map(Value::tensor).map(|tensor| tensor.object);
    let in_model = model.params.iter().map(|param| param.tensor.object);
    in_dict.chain(in_model).max().map_or(0, |last| last.saturating_add(1))
}
