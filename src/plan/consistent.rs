//! A plan is plain data that may come from anywhere: whether it is one at all is checked here, when
//! it is read and again before anything is made of it.

use std::fmt;

use super::node::{DropReason, NodeId, Op, Plan, RuleId};
use crate::key::natural_order;
use crate::tensor::{Dtype, TensorInfo};

/// Why data isn't a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inconsistent {
    what: String,
}

impl Inconsistent {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

impl fmt::Display for Inconsistent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the plan is inconsistent: {}", self.what)
    }
}

impl std::error::Error for Inconsistent {}

impl Plan {
    /// Checks what holds of every plan that was planned: nodes come after their inputs and give
    /// what their op gives of them, keys are in natural order and none twice, and what is named by
    /// number is there.
    ///
    /// # Errors
    /// What doesn't hold.
    pub fn check(&self) -> Result<(), Inconsistent> {
        for id in 0..self.nodes.len() {
            let id = u32::try_from(id).map_err(|_| Inconsistent::new("too many nodes"))?;
            self.check_node(NodeId(id))?;
        }
        let rule = |rule: &RuleId| match self.rules.get(rule.0 as usize) {
            Some(_) => Ok(()),
            None => Err(Inconsistent::new(format!("there is no rule {}", rule.0))),
        };
        // Keys are searched by their order, so that comes first.
        in_order(self.targets.iter().map(|target| target.key.as_str()))?;
        in_order(self.dropped.iter().map(|dropped| dropped.key.as_str()))?;
        for target in &self.targets {
            if target.node.0 as usize >= self.nodes.len() {
                return Err(Inconsistent::new(format!("`{}` is of no node", target.key)));
            }
            target.rules.iter().try_for_each(rule)?;
            if let Some(other) = &target.tied_to
                && self.target(other).is_none_or(|other| other.node != target.node)
            {
                let what = format!("`{}` is not one tensor with `{other}`", target.key);
                return Err(Inconsistent::new(what));
            }
        }
        for dropped in &self.dropped {
            if let DropReason::Rule(by) = &dropped.reason {
                rule(by)?;
            }
        }
        self.ties.iter().map(|fact| &fact.rule).try_for_each(rule)
    }

    /// Checks a node against its inputs, so that nothing later can leave a tensor.
    pub(crate) fn check_node(&self, id: NodeId) -> Result<(), Inconsistent> {
        let node = self.nodes.get(id.0 as usize);
        let node = node.ok_or_else(|| Inconsistent::new(format!("there is no node {}", id.0)))?;
        if node.inputs.iter().any(|input| *input >= id) {
            return Err(Inconsistent::new("a node comes before its input"));
        }
        let infos: Vec<&TensorInfo> =
            node.inputs.iter().map(|input| &self.node(*input).info).collect();
        let countable = node
            .info
            .numel()
            .is_some_and(|numel| numel.checked_mul(node.info.dtype.bits().into()).is_some());
        if gives(&node.op, &infos, &node.info)? && countable {
            return Ok(());
        }
        Err(Inconsistent::new(format!("{:?} cannot give {}", node.op, node.info)))
    }
}

/// Whether keys come in natural order, each once.
fn in_order<'k>(keys: impl Iterator<Item = &'k str>) -> Result<(), Inconsistent> {
    let mut before: Option<&str> = None;
    for key in keys {
        if before.is_some_and(|before| natural_order(before, key).is_ge()) {
            return Err(Inconsistent::new(format!("`{key}` is out of order, or there twice")));
        }
        before = Some(key);
    }
    Ok(())
}

/// Whether an op gives a dtype and shape, of inputs of these.
fn gives(op: &Op, inputs: &[&TensorInfo], info: &TensorInfo) -> Result<bool, Inconsistent> {
    Ok(match (op, inputs) {
        (Op::Source { .. } | Op::Fill { .. }, []) => true,
        (Op::Sinusoids, []) => info.shape.len() == 2,
        (Op::Narrow { dim, start, len }, [x]) => {
            let inside = x
                .shape
                .get(*dim)
                .is_some_and(|size| start.checked_add(*len).is_some_and(|end| end <= *size));
            inside && info.dtype == x.dtype && info.shape[..] == *replaced(&x.shape, *dim, *len)
        }
        (Op::Permute { dims }, [x]) => {
            let mut sorted = dims.clone();
            sorted.sort_unstable();
            sorted.into_iter().eq(0..x.shape.len())
                && info.dtype == x.dtype
                && info.shape.iter().copied().eq(dims.iter().map(|dim| x.shape[*dim]))
        }
        (Op::Reshape, [x]) => info.dtype == x.dtype && info.numel() == x.numel(),
        (Op::Concat { dim }, [first, ..]) => {
            let total = inputs.iter().try_fold(0u64, |sum, x| sum.checked_add(*x.shape.get(*dim)?));
            let others = |x: &&TensorInfo| {
                x.dtype == info.dtype
                    && replaced(&x.shape, *dim, 0) == replaced(&first.shape, *dim, 0)
            };
            total.is_some_and(|total| info.shape[..] == *replaced(&first.shape, *dim, total))
                && inputs.iter().all(others)
        }
        (Op::Expand, [x]) => {
            let fits = |(from, to): (&u64, &u64)| from == to || *from == 1;
            info.dtype == x.dtype
                && x.shape.len() == info.shape.len()
                && x.shape.iter().zip(info.shape.iter()).all(fits)
        }
        (Op::Binary { .. }, [a, b]) => a.shape == info.shape && b.shape == info.shape,
        (Op::Reduce { dims, .. }, [x]) => {
            dims.is_sorted_by(|a, b| a < b)
                && dims.last().is_some_and(|last| *last < x.shape.len())
                && x.shape.len() == info.shape.len()
                && (0..x.shape.len()).all(|dim| {
                    info.shape[dim] == if dims.contains(&dim) { 1 } else { x.shape[dim] }
                })
        }
        (Op::Product, [a, b]) => {
            let dtypes = [a.dtype, b.dtype, info.dtype];
            matches!(info.dtype, Dtype::F32 | Dtype::F64)
                && dtypes.iter().all(|dtype| *dtype == info.dtype)
                && product_shape(&a.shape, &b.shape).is_some_and(|shape| info.shape[..] == *shape)
        }
        (Op::Unpack { bits }, [x]) => {
            let (whole, mut shape) = (x.dtype.bits(), x.shape.to_vec());
            shape.push(u64::from(whole.checked_div(*bits).unwrap_or(0)));
            matches!(bits, 4 | 8)
                && whole.is_multiple_of(8)
                && whole >= *bits
                && info.dtype == Dtype::U8
                && info.shape[..] == *shape
        }
        (Op::Decode { .. }, [x]) => x.dtype == Dtype::U8 && x.shape == info.shape,
        (Op::Lookup, [codes, list]) => {
            list.shape.len() == 1 && list.dtype == info.dtype && codes.shape == info.shape
        }
        (Op::Count, []) => info.shape.len() == 1 && info.dtype == Dtype::F64,
        (Op::Cast, [x]) => x.shape == info.shape,
        (Op::Add { .. } | Op::Mul { .. } | Op::Neg | Op::Exp | Op::Log | Op::OneForZero, [x]) => {
            if x.dtype != info.dtype {
                let what = format!("arithmetic from {} to {}", x.dtype, info.dtype);
                return Err(Inconsistent::new(what));
            }
            x.shape == info.shape
        }
        _ => return Err(Inconsistent::new("a node has the wrong number of inputs")),
    })
}

/// The shape of a product of matrices, or of as many as there are; `None` if they don't fit.
pub(super) fn product_shape(a: &[u64], b: &[u64]) -> Option<Vec<u64>> {
    let ([many @ .., rows, summed], [others @ .., too, columns]) = (a, b) else { return None };
    let shape = || many.iter().chain([rows, columns]).copied().collect();
    (many == others && summed == too).then(shape)
}

fn replaced(shape: &[u64], dim: usize, size: u64) -> Vec<u64> {
    let mut shape = shape.to_vec();
    if let Some(slot) = shape.get_mut(dim) {
        *slot = size;
    }
    shape
}
