//! Making a tie of intent one of fact.

use crate::Compat;
use crate::model::{Model, Tensor};
use crate::names::get_module_by_normalized_name;
use crate::reference::Raised;
use regraft::config::Config;
use regraft::key::Key;
use regraft::store::StateDict;

use super::{
    get_input_embeddings_weight_and_name, get_lm_head_weight_and_name, has_local_tied_lm_head,
    is_tied_word_embeddings,
};

/// A model's own way of tying (`tie_weights()`).
///
/// An `AttributeError` that it raises means that it couldn't; any other ends the call that asked
/// for it.
pub type TieWeights<'a> = dyn FnMut(&mut Model) -> Result<(), Raised> + 'a;

/// Makes the head of a tied model one with its input embedding, and says whether it is: first the
/// model's own way, if that gives no tie the head's entry becomes the embedding's tensor.
///
/// Nothing is done to a model that isn't tied by intent, or whose head and embedding differ in
/// shape: a draft model's smaller vocabulary is kept. In strict mode the same goes for dtypes, and
/// a head inside a wrapper is replaced where it is; the reference replaces the weight of the module
/// that the normalized name leads to, if that module has one.
///
/// # Errors
/// What `tie_weights` raises, save an `AttributeError`.
pub fn ensure_tied_lm_head(
    model: &mut Model,
    tie_weights: Option<&mut TieWeights<'_>>,
    compat: Compat,
) -> Result<bool, Raised> {
    if !is_tied_word_embeddings(model, compat) {
        return Ok(false);
    }
    if has_local_tied_lm_head(model, compat) {
        return Ok(true);
    }
    if let (Some(head), Some(embedding)) = (
        get_lm_head_weight_and_name(model, compat),
        get_input_embeddings_weight_and_name(model, compat),
    ) && !fits(head.tensor, embedding.tensor, compat)
    {
        return Ok(false);
    }
    if let Some(tie_weights) = tie_weights {
        match tie_weights(model) {
            Err(raised) if raised.kind != "AttributeError" => return Err(raised),
            _ => {}
        }
        if has_local_tied_lm_head(model, compat) {
            return Ok(true);
        }
    }
    let (Some(head), Some(embedding)) = (
        get_lm_head_weight_and_name(model, compat),
        get_input_embeddings_weight_and_name(model, compat),
    ) else {
        return Ok(false);
    };
    if !fits(head.tensor, embedding.tensor, compat) {
        return Ok(false);
    }
    let place = match compat {
        Compat::Strict => Some(head.index),
        Compat::Reference => {
            let module =
                head.name.rsplit_once('.').map_or(head.name.as_str(), |(module, _)| module);
            get_module_by_normalized_name(model.modules.iter().map(String::as_str), module, compat)
                .and_then(|module| {
                    let weight = if module.is_empty() {
                        "weight".to_owned()
                    } else {
                        format!("{module}.weight")
                    };
                    model.params.iter().position(|param| param.name == weight)
                })
        }
    };
    let tensor = embedding.tensor.clone();
    let Some(param) = place.and_then(|place| model.params.get_mut(place)) else { return Ok(false) };
    param.tensor = tensor;
    Ok(has_local_tied_lm_head(model, compat))
}

/// [`ensure_tied_lm_head`] for tensors in memory: the head becomes a view of the embedding's
/// storage, no byte is copied.
///
/// # Errors
/// None in practice: there is no hook that could raise one.
pub fn ensure_tied_in_state_dict(
    state_dict: &mut StateDict,
    config: Option<Config>,
    compat: Compat,
) -> Result<bool, Raised> {
    let mut model = Model::from_state_dict(state_dict, config);
    let before: Vec<u64> = model.params.iter().map(|param| param.tensor.object).collect();
    let tied = ensure_tied_lm_head(&mut model, None, compat)?;
    for (param, before) in model.params.iter().zip(before) {
        let source =
            usize::try_from(param.tensor.object).ok().filter(|_| param.tensor.object != before);
        // Objects are numbered as the entries are.
        if let Some(view) =
            source.and_then(|source| state_dict.iter().nth(source)).map(|(_, view)| view.clone())
        {
            state_dict.insert(Key::from(param.name.as_str()), view);
        }
    }
    Ok(tied)
}

/// Whether one tensor can stand for the other.
fn fits(head: &Tensor, embedding: &Tensor, compat: Compat) -> bool {
    head.shape == embedding.shape && (compat == Compat::Reference || head.dtype == embedding.dtype)
}
