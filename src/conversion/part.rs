//! Parts of tensors by pattern: what one of several ranks holds of each, as `**.q_proj.weight[0,
//! 1/4]` says it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::check::pattern_of;
use crate::diagnostic::codes::{NO_PART, QUANTIZED_BLOCK};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::key::{Bindings, Pattern, Segments, natural_order};
use crate::plan::{Plan, Target, TargetBox, block_of};
use crate::tensor::TensorInfo;
use crate::tensor::companion::{Role, names_of};

/// A part of every tensor whose key fits a pattern: one of so many along a dimension.
///
/// Parts are those of `torch.chunk`, and of a `DTensor` that is `Shard(dim)`: each has as many
/// indices as the first, but the last has what is left.
#[derive(Clone, Debug)]
pub struct TensorPart {
    text: String,
    pattern: Pattern,
    dim: usize,
    index: u64,
    of: u64,
}

impl FromStr for TensorPart {
    type Err = PartError;

    /// Reads `PATTERN[dim, i/n]`: the first of `n` parts is `0/n`.
    fn from_str(text: &str) -> Result<Self, PartError> {
        let form = || PartError::Form(text.to_owned());
        let (pattern, rest) = text.trim().rsplit_once('[').ok_or_else(form)?;
        let (dim, share) =
            rest.strip_suffix(']').and_then(|rest| rest.split_once(',')).ok_or_else(form)?;
        let (index, of) = share.split_once('/').ok_or_else(form)?;
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| form());
        let (index, of) = (number(index)?, number(of)?);
        if index >= of {
            return Err(PartError::Index { index, of });
        }
        let dim = dim.trim().parse().map_err(|_| form())?;
        let pattern = pattern_of(pattern).map_err(PartError::Pattern)?;
        Ok(Self { text: text.to_owned(), pattern, dim, index, of })
    }
}

/// Why a text is no [`TensorPart`].
#[derive(Debug)]
#[non_exhaustive]
pub enum PartError {
    /// It isn't `PATTERN[dim, i/n]`.
    Form(String),
    /// There is no such part.
    Index {
        /// Which part was asked for, from 0 on.
        index: u64,
        /// How many parts there are.
        of: u64,
    },
    /// The pattern is none.
    Pattern(Diagnostics),
}

impl fmt::Display for PartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PartError::Form(text) => {
                write!(f, "{text:?} is no `PATTERN[dim, i/n]`, as in `**.q_proj.weight[0, 1/4]`")
            }
            PartError::Index { index, of: 0 } => write!(f, "there is no part {index} of none"),
            PartError::Index { index, of } => {
                write!(f, "there is no part {index} of {of}: they are 0 to {}", of - 1)
            }
            PartError::Pattern(diagnostics) => diagnostics.fmt(f),
        }
    }
}

impl std::error::Error for PartError {}

impl TensorPart {
    /// The indices of its dimension that the part has: the first, and how many.
    fn share(&self, len: u64) -> (u64, u64) {
        let size = len.div_ceil(self.of);
        let start = size.saturating_mul(self.index).min(len);
        (start, size.min(len - start))
    }
}

/// The plan of these parts: targets that fit no pattern stay whole.
///
/// # Errors
/// If a pattern fits no target, a part is empty or of a dimension that isn't there, two are of one
/// dimension of a target, or a quantized tensor's scales are not cut as it is.
pub(super) fn narrowed(plan: &Plan, parts: &[TensorPart]) -> Result<Plan, Diagnostics> {
    let mut used = vec![false; parts.len()];
    let (mut segments, mut bindings) = (Segments::default(), Bindings::default());
    let mut boxes = Vec::with_capacity(plan.targets.len());
    for target in &plan.targets {
        segments.split(&target.key);
        let mut cuts: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for (part, used) in parts.iter().zip(&mut used) {
            bindings.reset(part.pattern.slots().len());
            if !part.pattern.matches(&target.key, &segments, &mut bindings) {
                continue;
            }
            *used = true;
            let cut = cut(part, plan.info(target))
                .map_err(|what| alone(refused(what).keys([target.key.as_str()])))?;
            if cuts.insert(part.dim, cut).is_some() {
                let what = format!("two parts along dimension {} of one tensor", part.dim);
                return Err(alone(refused(what).keys([target.key.as_str()])));
            }
        }
        boxes.push(boxed(plan, target, &cuts));
    }
    if let Some((part, _)) = parts.iter().zip(used).find(|(_, used)| !used) {
        let finding = refused(format!("no key of the result fits `{}`", part.text));
        return Err(alone(
            finding.hint("a part is of keys after the rules, which `regraft plan --all` lists"),
        ));
    }
    let uncut = scales_left(plan, &boxes);
    if !uncut.is_empty() {
        return Err(Diagnostics(uncut));
    }
    plan.narrowed(&boxes).map_err(|why| alone(refused(why.message()).keys([why.key().as_str()])))
}

fn refused(what: impl Into<String>) -> Diagnostic {
    Diagnostic::error(NO_PART, what)
}

fn alone(finding: Diagnostic) -> Diagnostics {
    Diagnostics(vec![finding])
}

/// What a part has of a tensor along its dimension.
fn cut(part: &TensorPart, info: &TensorInfo) -> Result<(u64, u64), String> {
    let TensorPart { dim, index, of, .. } = part;
    let Some(len) = info.shape.get(*dim) else {
        return Err(format!("{info} has no dimension {dim}"));
    };
    match part.share(*len) {
        (_, 0) => Err(format!("part {index} of {of} along dimension {dim} of {info} is empty")),
        cut => Ok(cut),
    }
}

fn boxed(plan: &Plan, target: &Target, cuts: &BTreeMap<usize, (u64, u64)>) -> TargetBox {
    let shape = &plan.info(target).shape;
    let cut = |dim: usize, len: u64| cuts.get(&dim).copied().unwrap_or((0, len));
    let (start, shape): (Vec<u64>, Vec<u64>) =
        shape.iter().enumerate().map(|(dim, len)| cut(dim, *len)).unzip();
    TargetBox::new(target.key.clone(), start, shape)
}

/// The quantized tensors that are cut otherwise than what their elements are read with.
fn scales_left(plan: &Plan, boxes: &[TargetBox]) -> Vec<Diagnostic> {
    let whole = |key: &str| plan.target(key).map(|target| &plan.info(target).shape);
    let part = |key: &str| {
        let at = boxes.binary_search_by(|part| natural_order(&part.key, key));
        at.ok().and_then(|at| boxes.get(at))
    };
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for tensor in boxes {
        let Some(shape) = whole(&tensor.key).filter(|shape| **shape != tensor.shape) else {
            continue;
        };
        for (key, role) in names_of(&tensor.key) {
            let (Some(scales), Some(own)) = (whole(&key), part(&key)) else { continue };
            if !matches!(role, Role::Scale | Role::ZeroPoint) {
                continue;
            }
            for (dim, (len, number)) in shape.iter().zip(scales.iter()).enumerate() {
                let asked = (tensor.start[dim], tensor.shape[dim]);
                let why = match numbers(asked, *len, *number) {
                    None => "the part ends within a block that shares one scale",
                    Some(needed) if needed == (own.start[dim], own.shape[dim]) => continue,
                    Some(_) => "what scales the tensor is not cut as it is",
                };
                found.entry(why).or_default().push(tensor.key.as_str());
            }
        }
    }
    let hint = "a pattern takes both: `{t: weight|weight_scale_inv}`; `dequant` needs no scales";
    let finding = |(why, mut keys): (&str, Vec<&str>)| {
        keys.dedup();
        Diagnostic::error(QUANTIZED_BLOCK, why).keys(keys).hint(hint)
    };
    found.into_iter().map(finding).collect()
}

/// Which of some numbers along a dimension are those of a part of it: the first, and how many.
/// `None` if one of them is for indices outside of the part, too.
fn numbers((start, size): (u64, u64), len: u64, numbers: u64) -> Option<(u64, u64)> {
    if numbers <= 1 {
        return Some((0, numbers));
    }
    let block = block_of(len, numbers, None)?;
    let between = start % block == 0 && (size % block == 0 || start + size == len);
    between.then(|| (start / block, size.div_ceil(block)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_torch_chunk() {
        // torch.arange(10).chunk(4): 3, 3, 3, 1. torch.arange(6).chunk(4): 2, 2, 2.
        let share = |index, of, len| {
            let text = format!("a[0, {index}/{of}]");
            text.parse::<TensorPart>().unwrap().share(len)
        };
        let all = |of, len| (0..of).map(|index| share(index, of, len)).collect::<Vec<_>>();
        assert_eq!(all(4, 10), [(0, 3), (3, 3), (6, 3), (9, 1)]);
        assert_eq!(all(4, 6), [(0, 2), (2, 2), (4, 2), (6, 0)]);
        assert_eq!(all(1, 5), [(0, 5)]);
        assert_eq!(all(2, 0), [(0, 0), (0, 0)]);
    }

    #[test]
    fn what_is_no_part_is_refused() {
        for text in ["a", "a[0]", "a[0, 1]", "a[0, 1/]", "a[x, 0/2]", "a[-1, 0/2]", "a[0, 0/2", ""]
        {
            let refused = text.parse::<TensorPart>();
            assert!(matches!(refused, Err(PartError::Form(_))), "{text}: {refused:?}");
        }
        for text in ["a[0, 2/2]", "a[0, 0/0]"] {
            assert!(matches!(text.parse::<TensorPart>(), Err(PartError::Index { .. })), "{text}");
        }
        for text in ["a..b[0, 0/2]", "[0, 0/2]", "a.*[0, 0/2]", "a\"\nkeep \"b[0, 0/2]"] {
            assert!(matches!(text.parse::<TensorPart>(), Err(PartError::Pattern(_))), "{text}");
        }
        // A sign of rule text is one of the key.
        for key in ["a\", \"b", "a\\"] {
            let part: TensorPart = format!("{key}[0, 0/2]").parse().unwrap();
            assert_eq!(part.pattern.literal().as_deref(), Some(key));
        }
    }

    #[test]
    fn numbers_of_a_part_are_whole_blocks() {
        assert_eq!(numbers((256, 256), 1024, 8), Some((2, 2)));
        // The last block of 1000 rows has 104.
        assert_eq!(numbers((512, 488), 1000, 8), Some((4, 4)));
        assert_eq!(numbers((250, 250), 1000, 8), None);
        // One for all, and one for each.
        assert_eq!(numbers((3, 2), 9, 1), Some((0, 1)));
        assert_eq!(numbers((3, 2), 9, 9), Some((3, 2)));
    }
}
