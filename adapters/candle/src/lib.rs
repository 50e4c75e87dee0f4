//! candle's `VarBuilder` over any checkpoint that regraft reads, through any rules.
//!
//! A model asks for tensors by its own keys. Each is made from the checkpoint when it is asked for,
//! as the plan says, and only the bytes that it is made of are read; with
//! [`Tensors::sharded_var_builder`] those of one rank's part. No converted copy is written, and
//! no file is mapped.
#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

mod elements;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::var_builder::{Backend, Shard, SimpleBackend, VarBuilder, VarBuilderArgs};
use regraft::conversion::Planned;
use regraft::diagnostic::did_you_mean;
use regraft::plan::TargetBox;

/// A `VarBuilder` that takes a [`Shard`] as hint, as candle's own `ShardedVarBuilder` does.
pub type ShardedVarBuilder<'a> = VarBuilderArgs<'a, Sharded>;

/// The tensors of a plan's result, each read when it is asked for. Cloning shares them.
#[derive(Clone)]
pub struct Tensors {
    planned: Arc<Planned>,
    bytes_read: Arc<AtomicU64>,
}

/// [`Tensors`], of which each is asked for in parts: the backend of a [`ShardedVarBuilder`].
#[derive(Clone)]
pub struct Sharded(Tensors);

impl Tensors {
    /// Of a plan and the checkpoint that it is for.
    pub fn new(planned: Planned) -> Self {
        Self { planned: Arc::new(planned), bytes_read: Arc::default() }
    }

    /// For models that ask for whole tensors. They become `dtype` and are put on `device`, as
    /// candle's own `VarBuilder` does it.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), dtype, device.clone())
    }

    /// For models that ask for the part that their rank has.
    pub fn sharded_var_builder(&self, dtype: DType, device: &Device) -> ShardedVarBuilder<'static> {
        VarBuilderArgs::new_with_args(Sharded(self.clone()), dtype, device)
    }

    /// The plan.
    pub fn planned(&self) -> &Planned {
        &self.planned
    }

    /// Bytes of the checkpoint's tensors that have been read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// The shape of a tensor of the result.
    fn shape(&self, key: &str) -> Result<Vec<usize>> {
        let plan = &self.planned.plan;
        let Some(target) = plan.target(key) else {
            let missing = Error::CannotFindTensor { path: key.to_owned() };
            let keys = plan.targets.iter().map(|target| target.key.as_str());
            return Err(match did_you_mean(key, keys) {
                Some(near) => missing.context(format!("did you mean {near}?")),
                None => missing,
            }
            .bt());
        };
        let shape = plan.info(target).shape.iter();
        shape.map(|len| usize::try_from(*len).map_err(Error::wrap)).collect()
    }

    /// A box of a tensor of the result, on the CPU, with the dtype that it has there.
    fn read(&self, key: &str, start: &[usize], shape: &[usize]) -> Result<Tensor> {
        let plan = &self.planned.plan;
        let target = plan.target(key);
        let target = target.ok_or_else(|| Error::CannotFindTensor { path: key.to_owned() })?;
        let wide = |lens: &[usize]| lens.iter().map(|len| *len as u64).collect::<Vec<u64>>();
        let part = TargetBox::new(key, wide(start), wide(shape));
        let (tensor, bytes) = elements::read(&self.planned, part, plan.info(target).dtype, shape)?;
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        Ok(tensor)
    }

    fn whole(&self, key: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        self.read(key, &vec![0; shape.len()], shape)?.to_device(device)?.to_dtype(dtype)
    }
}

impl SimpleBackend for Tensors {
    fn get(
        &self,
        asked: Shape,
        key: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let shape = self.shape(key)?;
        if asked.dims() != shape {
            return Err(mismatch(key, asked, shape));
        }
        self.whole(key, &shape, dtype, device)
    }

    fn get_unchecked(&self, key: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.whole(key, &self.shape(key)?, dtype, device)
    }

    fn contains_tensor(&self, key: &str) -> bool {
        self.planned.plan.target(key).is_some()
    }
}

impl Backend for Sharded {
    type Hints = Shard;

    /// Part `rank` of `world_size` along `dim`; they are of one size, as in candle's own. The shape
    /// that is asked for is that of the part or of the whole; with several ranks `()` says none.
    fn get(
        &self,
        asked: Shape,
        key: &str,
        Shard { dim, rank, world_size }: Shard,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let whole = self.0.shape(key)?;
        if world_size == 1 && rank == 0 {
            return SimpleBackend::get(
                &self.0,
                asked,
                key,
                candle_nn::Init::default(),
                dtype,
                device,
            );
        }
        let Some(len) = whole.get(dim).copied() else {
            candle_core::bail!(
                "{key} of shape {whole:?} has no dimension {dim} to be sharded along"
            )
        };
        if rank >= world_size {
            candle_core::bail!("{key}: there is no rank {rank} of {world_size}")
        }
        if len % world_size != 0 {
            let split = Error::ShapeMismatchSplit { shape: whole.into(), dim, n_parts: world_size };
            return Err(split.context(key.to_owned()).bt());
        }
        let (mut start, mut shape) = (vec![0; whole.len()], whole.clone());
        shape[dim] = len / world_size;
        start[dim] = rank * shape[dim];
        let dims = asked.dims();
        if !dims.is_empty() && dims != whole && dims != shape {
            return Err(mismatch(key, asked, shape));
        }
        self.0.read(key, &start, &shape)?.to_device(device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, key: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.0.get_unchecked(key, dtype, device)
    }

    fn contains_tensor(&self, key: &str) -> bool {
        self.0.contains_tensor(key)
    }
}

fn mismatch(key: &str, expected: Shape, got: Vec<usize>) -> Error {
    let msg = format!("shape mismatch for {key}");
    Error::UnexpectedShape { msg, expected, got: got.into() }.bt()
}
