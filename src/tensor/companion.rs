//! Companions: tensors that mean nothing without another one, as scales and zero points do. Their
//! names are written here once, for ties, quantization blocks, dequantizing and the check that no
//! part of a module stays behind.
//!
//! A companion stands beside its tensor (`x.weight_scale` and `x.weight`), under the same name and
//! a suffix (`gate_up_proj_scale_inv` and `gate_up_proj`), or below it (`x.weight.absmax`). How
//! many elements one of its numbers is for, the shapes tell.

use crate::key::{leaf, parted};

/// What a companion is for its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Factors, of the whole tensor, of rows, or of blocks.
    Scale,
    /// What is taken from each element before it's scaled, or added after it.
    ZeroPoint,
    /// What else is needed to read the tensor: tables of values, orders of groups, descriptions.
    State,
    /// A factor of what goes into the module, or comes out of it.
    Activation,
    /// Added after the product. The one that tensors which aren't quantized have, too.
    Bias,
}

impl Role {
    /// What a message calls it, before `of`.
    pub fn described(self) -> &'static str {
        match self {
            Role::Scale => "a scale",
            Role::ZeroPoint => "a zero point",
            Role::State => "part of the quantization",
            Role::Activation => "a scale of what goes through the module",
            Role::Bias => "the bias",
        }
    }

    /// Whether the tensor can't be read without it.
    pub fn is_needed(self) -> bool {
        matches!(self, Role::Scale | Role::ZeroPoint | Role::State)
    }
}

/// What a module's main tensor is called. Source: PyTorch (`weight`), AutoGPTQ and AutoAWQ
/// (`qweight`), compressed-tensors (`weight_packed`).
const MAINS: &[&str] = &["weight", "qweight", "weight_packed"];

/// Names beside the main tensor.
const BESIDE: &[(&str, Role)] = &[
    ("bias", Role::Bias),
    // DeepSeek-V3, fine-grained FP8.
    ("weight_scale_inv", Role::Scale),
    // compressed-tensors, ModelOpt, FBGEMM.
    ("weight_scale", Role::Scale),
    ("weight_zero_point", Role::ZeroPoint),
    ("weight_g_idx", Role::State),
    ("weight_shape", Role::State),
    ("weight_global_scale", Role::Scale),
    ("weight_scale_2", Role::Scale),
    ("pre_quant_scale", Role::Scale),
    ("input_scale", Role::Activation),
    ("input_global_scale", Role::Activation),
    ("input_zero_point", Role::Activation),
    ("activation_scale", Role::Activation),
    ("output_scale", Role::Activation),
    ("q_scale", Role::Activation),
    ("k_scale", Role::Activation),
    ("v_scale", Role::Activation),
    // AutoGPTQ, AutoAWQ, and MLX, whose `biases` are zero points.
    ("scales", Role::Scale),
    ("qzeros", Role::ZeroPoint),
    ("g_idx", Role::State),
    ("biases", Role::ZeroPoint),
    // bitsandbytes, 8 bit.
    ("SCB", Role::Scale),
    ("weight_format", Role::State),
    // ComfyUI's scaled FP8.
    ("scale_weight", Role::Scale),
    ("scale_input", Role::Activation),
];

/// What is written after the name of a tensor that has no module of its own, as packed experts.
const SUFFIXES: &[(&str, Role)] = &[
    // Longer ones first: `_weight_scale_inv` ends with `_scale_inv`.
    ("_weight_scale_inv", Role::Scale),
    ("_weight_scale_2", Role::Scale),
    ("_weight_global_scale", Role::Scale),
    ("_weight_scale", Role::Scale),
    ("_weight_zero_point", Role::ZeroPoint),
    ("_input_scale", Role::Activation),
    ("_scale_inv", Role::Scale),
    ("_scale_2", Role::Scale),
    ("_scales", Role::Scale),
    ("_scale", Role::Scale),
    ("_zero_point", Role::ZeroPoint),
    ("_absmax", Role::Scale),
    ("_bias", Role::Bias),
];

/// Names below the tensor. Source: bitsandbytes, 4 bit.
const BELOW: &[(&str, Role)] = &[
    ("absmax", Role::Scale),
    ("quant_map", Role::State),
    ("nested_absmax", Role::Scale),
    ("nested_quant_map", Role::State),
    ("quant_state.bitsandbytes__nf4", Role::State),
    ("quant_state.bitsandbytes__fp4", Role::State),
];

/// Segments below a tensor in which its companions are looked for.
const DEPTH: usize = 3;

/// The module of a key: everything before its last segment.
pub fn module(key: &str) -> &str {
    parted(key).map_or("", |(module, _)| module)
}

/// Whether a key is that of its module's main tensor.
pub fn is_main(key: &str) -> bool {
    MAINS.contains(&leaf(key))
}

/// The tensor that a key is a companion of by its name, and as what; `has` says which keys there
/// are.
pub fn tensor_of(key: &str, has: &dyn Fn(&str) -> bool) -> Option<(String, Role)> {
    let (module, leaf) = parted(key).unwrap_or(("", key));
    // Nearly every key is that of a main tensor.
    if MAINS.contains(&leaf) {
        return None;
    }
    let mut above = module;
    for _ in 0..DEPTH {
        if is_main(above) && has(above) {
            let rest = key.get(above.len() + 1..);
            let role = BELOW
                .iter()
                .find(|(name, _)| rest == Some(*name))
                .map_or(Role::State, |(_, role)| *role);
            return Some((above.to_owned(), role));
        }
        let Some((next, _)) = parted(above) else { break };
        above = next;
    }
    if let Some((_, role)) = BESIDE.iter().find(|(name, _)| *name == leaf) {
        let beside = MAINS.iter().map(|main| join(module, main)).find(|tensor| has(tensor));
        if let Some(tensor) = beside {
            return Some((tensor, *role));
        }
    }
    SUFFIXES
        .iter()
        .filter_map(|(suffix, role)| Some((key.strip_suffix(suffix)?, *suffix, *role)))
        .find_map(|(name, suffix, role)| {
            // MXFP4 has its elements in `x_blocks`, and torch's attention a bias for
            // `in_proj_weight`.
            let ends: &[&str] = match suffix {
                "_scales" => &["_blocks", ""],
                "_bias" => &["_weight", ""],
                _ => &[""],
            };
            ends.iter()
                .map(|end| format!("{name}{end}"))
                .find(|tensor| has(tensor))
                .map(|tensor| (tensor, role))
        })
}

/// The names that companions of a tensor may have, and as what. In the same order for every tensor
/// with a name of the same kind, so that two tensors' companions can be set side by side.
pub fn names_of(tensor: &str) -> Vec<(String, Role)> {
    let mut names: Vec<(String, Role)> =
        BELOW.iter().map(|(name, role)| (format!("{tensor}.{name}"), *role)).collect();
    if is_main(tensor) {
        let module = module(tensor);
        names.extend(BESIDE.iter().map(|(name, role)| (join(module, name), *role)));
    }
    let name = tensor.strip_suffix("_blocks").unwrap_or(tensor);
    names.extend(SUFFIXES.iter().map(|(suffix, role)| (format!("{name}{suffix}"), *role)));
    names
}

/// The names that companions of two tensors may have, side by side; `None` if the tensors' names
/// are of different kinds, as those of `x.weight` and `y`.
pub fn side_by_side(a: &str, b: &str) -> Option<impl Iterator<Item = (String, String, Role)>> {
    let kind = |key: &str| (is_main(key), key.ends_with("_blocks"));
    let names = names_of(a).into_iter().zip(names_of(b)).map(|((a, role), (b, _))| (a, b, role));
    (kind(a) == kind(b)).then_some(names)
}

fn join(module: &str, leaf: &str) -> String {
    if module.is_empty() { leaf.to_owned() } else { [module, ".", leaf].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: &[&str], key: &str) -> Option<(String, Role)> {
        tensor_of(key, &|key| keys.contains(&key))
    }

    #[test]
    fn companions_beside_below_and_by_suffix() {
        let keys = [
            "a.weight",
            "b.qweight",
            "mlp.experts.gate_up_proj",
            "x_blocks",
            "attn.in_proj_weight",
            "weight",
            "c.weight_packed",
        ];
        for (key, tensor, role) in [
            ("a.bias", "a.weight", Role::Bias),
            ("a.weight_scale_inv", "a.weight", Role::Scale),
            ("a.weight_scale_2", "a.weight", Role::Scale),
            ("a.input_scale", "a.weight", Role::Activation),
            ("a.SCB", "a.weight", Role::Scale),
            ("a.weight.absmax", "a.weight", Role::Scale),
            ("a.weight.quant_state.bitsandbytes__nf4", "a.weight", Role::State),
            ("a.weight.something.else", "a.weight", Role::State),
            ("b.qzeros", "b.qweight", Role::ZeroPoint),
            ("c.weight_shape", "c.weight_packed", Role::State),
            ("mlp.experts.gate_up_proj_weight_scale", "mlp.experts.gate_up_proj", Role::Scale),
            ("mlp.experts.gate_up_proj_bias", "mlp.experts.gate_up_proj", Role::Bias),
            ("x_scales", "x_blocks", Role::Scale),
            ("attn.in_proj_bias", "attn.in_proj_weight", Role::Bias),
            ("bias", "weight", Role::Bias),
        ] {
            assert_eq!(of(&keys, key), Some((tensor.to_owned(), role)), "{key}");
            assert!(
                names_of(tensor).contains(&(key.to_owned(), role))
                    || key.contains("else")
                    || key.starts_with("attn"),
                "{key}"
            );
        }
        for key in [
            "a.weight",
            "d.bias",
            "a.running_mean",
            "a.bweight.absmax",
            "mlp.experts.gate_up_projection",
            "x_blocks",
        ] {
            assert_eq!(of(&keys, key), None, "{key}");
        }
    }
}
