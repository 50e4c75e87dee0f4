//! Which of a model's parameters are the output head and the input embedding, and whether they are
//! one.

use crate::Compat;
use crate::model::{DeclaredTies, Device, InputEmbeddings, Layout, Model, Tensor};
use crate::names::normalize_param_name;
use crate::rules::lists;

use super::is_tied_word_embeddings;

/// A parameter that was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Which of the model's parameters.
    pub index: usize,
    /// The tensor.
    pub tensor: &'a Tensor,
    /// Its [normalized](normalize_param_name) name.
    pub name: String,
}

/// The weight of the output head, with its normalized name.
///
/// In strict mode that is `lm_head.weight`, else the first one in some module, else a head below a
/// LoRA layer (`lm_head.base_layer.weight`). The reference takes the first weight whose name
/// contains `lm_head` anywhere: an adapter, a norm, one of several heads.
pub fn get_lm_head_weight_and_name(model: &Model, compat: Compat) -> Option<Found<'_>> {
    match compat {
        Compat::Reference => {
            first(model, compat, |name| name.contains("lm_head") && name.ends_with(".weight"))
        }
        Compat::Strict => first(model, compat, |name| name == lists().head)
            .or_else(|| first(model, compat, |name| is_at(name, &lists().head)))
            .or_else(|| first(model, compat, |name| is_at(name, "lm_head.base_layer.weight"))),
    }
}

/// The weight of the input embedding, with its normalized name; `None` where this stage has none.
///
/// The module that the model itself names comes first. Else, in strict mode, the first of the
/// [sources of a tied head](get_tied_lm_head_source_names) that is there, in their order, then the
/// first `embed_tokens.weight` in any module. The reference takes the first name that ends in that
/// text, be it an auxiliary embedding's.
pub fn get_input_embeddings_weight_and_name(model: &Model, compat: Compat) -> Option<Found<'_>> {
    if let InputEmbeddings::Module(module) = &model.input_embeddings {
        let weight =
            if module.is_empty() { "weight".to_owned() } else { format!("{module}.weight") };
        if let Some(embedding) = model.params.iter().find(|param| param.name == weight) {
            return find(model, compat, |param, _| param.object == embedding.tensor.object);
        }
    }
    match compat {
        Compat::Reference => first(model, compat, |name| name.ends_with("embed_tokens.weight")),
        Compat::Strict => lists()
            .sources
            .iter()
            .find_map(|source| first(model, compat, |name| name == source))
            .or_else(|| first(model, compat, |name| is_at(name, "embed_tokens.weight"))),
    }
}

/// The usual keys of a tied head's source, as the reference has them. `rules/tied_lm_head.graft`
/// begins with these.
pub const REFERENCE_SOURCES: [&str; 4] = [
    "model.language_model.embed_tokens.weight",
    "language_model.embed_tokens.weight",
    "model.embed_tokens.weight",
    "embed_tokens.weight",
];

/// The keys that a tied head may come from, best first: sources that the model declares for it, its
/// own input embedding, then the usual names (`rules/tied_lm_head.graft`).
///
/// `head` is the head's normalized name, as [`get_lm_head_weight_and_name`] gives it. In strict
/// mode a declared source counts if its target is that head, or the head inside a wrapper (its
/// trailing segments), and no `head` means the model's own. The reference takes every declared
/// target that ends in `lm_head.weight`, of other heads too, and with no `head` every target
/// whatever.
pub fn get_tied_lm_head_source_names(
    model: &Model,
    head: Option<&str>,
    compat: Compat,
) -> Vec<String> {
    let own;
    let head = match (compat, head) {
        (Compat::Strict, None) => {
            own = get_lm_head_weight_and_name(model, compat).map(|found| found.name);
            Some(own.as_deref().unwrap_or(&lists().head))
        }
        _ => head,
    };
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    if let DeclaredTies::Map(ties) = &model.declared_ties {
        for (target, source) in ties {
            let serves = match (compat, head) {
                (Compat::Strict, Some(head)) => is_at(head, &normalize_param_name(target, compat)),
                (_, None) => true,
                (Compat::Reference, Some(head)) => {
                    target == head || target.ends_with("lm_head.weight")
                }
            };
            if serves {
                add(source);
            }
        }
    }
    if let Some(embedding) = get_input_embeddings_weight_and_name(model, compat) {
        add(&embedding.name);
    }
    match compat {
        Compat::Strict => lists().sources.iter().for_each(|source| add(source)),
        Compat::Reference => REFERENCE_SOURCES.iter().for_each(|source| add(source)),
    }
    names
}

/// Whether two tensors are one in memory.
///
/// The same object always is. Else, in strict mode, the same storage, offset, shape, strides and
/// dtype; the reference asks for storage and offset only, so that a tensor and its first row are
/// one. Tensors without bytes, and ones that are not strided, are one only as objects. Storages
/// without bytes count as one in the reference: give them one number.
pub fn same_tensor_storage(left: &Tensor, right: &Tensor, compat: Compat) -> bool {
    if left.object == right.object {
        return true;
    }
    let has_storage =
        |tensor: &Tensor| tensor.device == Device::Real && tensor.layout == Layout::Strided;
    let begin_together = has_storage(left)
        && has_storage(right)
        && left.storage == right.storage
        && left.offset == right.offset;
    begin_together
        && (compat == Compat::Reference
            || left.dtype == right.dtype && left.shape == right.shape && same_strides(left, right))
}

/// Whether strides agree where they matter: a dimension of one element has none.
fn same_strides(left: &Tensor, right: &Tensor) -> bool {
    left.shape
        .iter()
        .zip(left.strides.iter().zip(&right.strides))
        .all(|(size, (left, right))| *size <= 1 || left == right)
}

/// Whether this model, or stage, has a head and an embedding that are one tensor of one shape, and
/// is tied by intent.
pub fn has_local_tied_lm_head(model: &Model, compat: Compat) -> bool {
    if !is_tied_word_embeddings(model, compat) {
        return false;
    }
    match (
        get_lm_head_weight_and_name(model, compat),
        get_input_embeddings_weight_and_name(model, compat),
    ) {
        (Some(head), Some(embedding)) => {
            head.tensor.shape == embedding.tensor.shape
                && same_tensor_storage(head.tensor, embedding.tensor, compat)
        }
        _ => false,
    }
}

fn first(model: &Model, compat: Compat, wanted: impl Fn(&str) -> bool) -> Option<Found<'_>> {
    find(model, compat, |_, name| wanted(name))
}

fn find(
    model: &Model,
    compat: Compat,
    wanted: impl Fn(&Tensor, &str) -> bool,
) -> Option<Found<'_>> {
    model.params.iter().enumerate().find_map(|(index, param)| {
        let name = normalize_param_name(&param.name, compat);
        wanted(&param.tensor, &name).then_some(Found { index, tensor: &param.tensor, name })
    })
}

/// Whether a name is this one, or this one in some module.
fn is_at(name: &str, inner: &str) -> bool {
    name.strip_suffix(inner).is_some_and(|module| module.is_empty() || module.ends_with('.'))
}
