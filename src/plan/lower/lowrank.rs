//! A tensor and the product of two small ones that is added to it: LoRA.

use super::super::consistent::product_shape;
use super::super::graph::{Fit, Graph, is_float};
use super::super::node::{Arithmetic, NodeId, Op};
use super::Number;
use crate::check::op::Call;
use crate::tensor::{Dtype, TensorInfo};

/// By what a product is scaled, and how often it is rounded on its way.
pub(super) struct Scaled {
    pub(super) alpha: Number,
    /// What the rank must be, if it is said.
    pub(super) rank: Option<Number>,
    /// Whether `alpha` is over the root of the rank.
    pub(super) root: bool,
    /// Whether the product is rounded before it is added.
    pub(super) twice: bool,
}

impl Graph {
    /// `base + alpha / rank * (b @ a)`: computed in F32, or F64 if one of them is, and rounded to the
    /// dtype of the base.
    ///
    /// Source: `get_delta_weight` and `merge` of peft 0.21.2 (`tuners/lora/layer.py`).
    pub(super) fn add_lowrank(&mut self, inputs: &[NodeId], by: &Scaled) -> Fit<NodeId> {
        let [base, a, b] = <[NodeId; 3]>::try_from(inputs)
            .map_err(|_| "this op takes a tensor and two factors".to_owned())?;
        let [of, down, up] = [base, a, b].map(|node| self.info(node).clone());
        if !is_float(of.dtype) {
            return Err(format!(
                "{of} is quantized, or no weight: nothing can be added to it before it is dequantized"
            ));
        }
        if let Some(odd) = [&down, &up].into_iter().find(|info| !is_float(info.dtype)) {
            return Err(format!("{odd} is no factor: those are floats"));
        }
        let wide = [&of, &down, &up].iter().any(|info| info.dtype == Dtype::F64);
        let wide = if wide { Dtype::F64 } else { Dtype::F32 };
        let [a, b] = self.as_matrices(&of, (a, &down), (b, &up))?;
        let (a, b) = (self.cast(a, wide)?, self.cast(b, wide)?);
        let rank = self.info(a).shape.iter().rev().nth(1).copied().unwrap_or(0);
        let scale = by.scale(rank)?;
        let shape = product_shape(&self.info(b).shape, &self.info(a).shape)
            .ok_or_else(|| format!("{up} and {down} are no factors of one rank"))?;
        let product = self.push(Op::Product, vec![b, a], TensorInfo::new(wide, shape))?;
        let found = self.info(product).shape.clone();
        let product = match found.iter().product::<u64>() == of.numel().unwrap_or(0)
            && down.shape.len() == 4
        {
            true => self.reshape(product, of.shape.clone())?,
            false => product,
        };
        if self.info(product).shape != of.shape {
            return Err(format!("the product of {up} and {down} is {found}, and not {}", of.shape));
        }
        let product = self.value_op(product, Op::Mul { value: scale })?;
        let product = if by.twice { self.cast(product, of.dtype)? } else { product };
        self.binary(Arithmetic::Add, base, product, of.dtype)
    }

    /// The factors as they are; those of a convolution in two dimensions as matrices.
    fn as_matrices(
        &mut self,
        of: &TensorInfo,
        (a, down): (NodeId, &TensorInfo),
        (b, up): (NodeId, &TensorInfo),
    ) -> Fit<[NodeId; 2]> {
        let ([rank, ..], [rows, summed, 1, 1]) = (&down.shape[..], &up.shape[..]) else {
            return Ok([a, b]);
        };
        if down.shape.len() != 4 || down.shape[1..] != of.shape[1..] {
            return Err(format!("{down} is no factor of a convolution of {of}"));
        }
        let columns = down.shape[1..].iter().product();
        Ok([self.reshape(a, vec![*rank, columns])?, self.reshape(b, vec![*rows, *summed])?])
    }
}

impl Scaled {
    /// As the arguments of an op say.
    pub(super) fn of(op: &Call<Number>) -> Fit<Self> {
        let (alpha, rank) = (op.number("alpha")?, op.optional("rank"));
        Ok(Self { alpha, rank, root: op.flag("root")?, twice: op.flag("twice")? })
    }

    fn scale(&self, rank: u64) -> Fit<f64> {
        if let Some(said) = self.rank
            && said.size()? != rank
        {
            return Err(format!("the rank of the factors is {rank}, and not {}", said.size()?));
        }
        #[allow(clippy::cast_precision_loss)]
        let rank = rank as f64;
        let scale = self.alpha.float() / if self.root { rank.sqrt() } else { rank };
        if !scale.is_finite() {
            return Err(format!("a scale of {scale}"));
        }
        Ok(scale)
    }
}
