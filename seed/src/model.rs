//! [`Model`]: what a framework's module says of itself, as plain data; and [`PlainStateDict`], a
//! state dict without bytes.
//!
//! Parameters are listed under every name that they have, in the order of
//! `named_parameters(remove_duplicate=False)`: two names of one parameter are two entries whose
//! tensors have the same [`object`](Tensor::object).

use indexmap::IndexMap;

use super::dtypes::TorchDtype;
use super::names::module_names;
use regraft::config::Config;
use regraft::plan::Plan;
use regraft::store::StateDict;
use regraft::tensor::{Dtype, Header, Shape, TensorInfo, TensorView};

/// Where a tensor's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// In memory or in a file: it has bytes.
    #[default]
    Real,
    /// Nowhere: it has a shape and a dtype only.
    Meta,
}

/// How a tensor's elements lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// By offset and strides, in one storage.
    #[default]
    Strided,
    /// Otherwise: sparse, for example. It has no storage to compare.
    Other,
}

/// A tensor without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The size of each dimension.
    pub shape: Shape,
    /// What one element is.
    pub dtype: TorchDtype,
    /// Which tensor object it is: entries that share it are the same object, not merely views of
    /// one storage.
    pub object: u64,
    /// Which storage it is a view of.
    pub storage: u64,
    /// Where it begins in the storage, in elements.
    pub offset: u64,
    /// Strides, in elements.
    pub strides: Vec<i64>,
    /// Whether it has bytes.
    pub device: Device,
    /// How its elements lie.
    pub layout: Layout,
}

impl Tensor {
    /// A row-major tensor at the start of a storage of its own, and an object of its own: both
    /// numbered `id`.
    pub fn contiguous(shape: impl Into<Shape>, dtype: TorchDtype, id: u64) -> Self {
        let shape = shape.into();
        let strides = shape
            .contiguous_strides()
            .into_iter()
            .map(|stride| i64::try_from(stride).unwrap_or(i64::MAX))
            .collect();
        Self {
            shape,
            dtype,
            object: id,
            storage: id,
            offset: 0,
            strides,
            device: Device::Real,
            layout: Layout::Strided,
        }
    }
}

/// A parameter under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// The name, as the module tree gives it: with wrappers.
    pub name: String,
    /// The tensor.
    pub tensor: Tensor,
}

/// Which settings of `tie_word_embeddings` a model class supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TieSupport {
    /// Tied and untied: the config decides.
    Both,
    /// Tied only, whatever the config says.
    TiedOnly,
    /// Untied only, whatever the config says.
    UntiedOnly,
}

/// The ties that a model class declares (`_tied_weights_keys`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeclaredTies {
    /// None.
    #[default]
    None,
    /// Target keys only; their source is the input embedding.
    Targets(Vec<String>),
    /// Target key and source key, in order.
    Map(Vec<(String, String)>),
}

/// Whether the model can name its input embedding (`get_input_embeddings()`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InputEmbeddings {
    /// It can't: there is no such method, it fails, or it gives nothing.
    #[default]
    Unknown,
    /// This module, by its name in the module tree.
    Module(String),
}

/// A model, or one stage of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Its parameters under every name, in order.
    pub params: Vec<Param>,
    /// The names of its modules in the order of `named_modules()`, the model's own empty name
    /// first.
    pub modules: Vec<String>,
    /// Its config; `None` for a model without one.
    pub config: Option<Config>,
    /// What its class supports; `None` where it doesn't say.
    pub tie_support: Option<TieSupport>,
    /// What its class declares.
    pub declared_ties: DeclaredTies,
    /// Its input embedding, if it can name it.
    pub input_embeddings: InputEmbeddings,
}

impl Model {
    /// A model of the tensors of a header, in its order: each with the modules that its key names.
    /// Tensors at the same place of a file are one.
    pub fn from_header(header: &Header, config: Option<Config>) -> Self {
        let mut places = IndexMap::new();
        let params = (0u64..).zip(&header.tensors).map(|(id, (key, entry))| {
            let place = entry.location.map_or(id, |location| *places.entry(location).or_insert(id));
            let device = if entry.location.is_some() { Device::Real } else { Device::Meta };
            (key.as_str().to_owned(), Tensor { device, ..of_info(&entry.info, place) })
        });
        Self::from_tensors(params, config)
    }

    /// A model of the tensors of a state dict, in its order, with the storages that they have.
    pub fn from_state_dict(state_dict: &StateDict, config: Option<Config>) -> Self {
        let mut storages = IndexMap::new();
        let tensors = (0u64..).zip(state_dict.iter()).map(|(object, (key, view))| {
            let bytes = view.storage().bytes();
            let storage = *storages.entry((bytes.as_ptr().addr(), bytes.len())).or_insert(object);
            (key.as_str().to_owned(), of_view(view, object, storage))
        });
        Self::from_tensors(tensors, config)
    }

    /// A model of the targets of a plan, in its order: those of one node are one tensor.
    pub fn from_plan(plan: &Plan, config: Option<Config>) -> Self {
        let params = plan.targets.iter().map(|target| {
            let tensor = of_info(plan.info(target), target.node.0.into());
            (target.key.as_str().to_owned(), tensor)
        });
        Self::from_tensors(params, config)
    }

    fn from_tensors(
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        config: Option<Config>,
    ) -> Self {
        let params: Vec<Param> =
            tensors.into_iter().map(|(name, tensor)| Param { name, tensor }).collect();
        let modules = module_names(params.iter().map(|param| param.name.as_str()));
        Self { params, modules, config, ..Self::default() }
    }

    /// The names and tensors as a state dict.
    pub fn to_state_dict(&self) -> PlainStateDict {
        self.params
            .iter()
            .map(|param| (param.name.clone(), Value::Tensor(param.tensor.clone())))
            .collect()
    }

    /// The first name of the parameter that is the same object as a tensor.
    pub fn first_name(&self, tensor: &Tensor) -> Option<&str> {
        self.params
            .iter()
            .find(|param| param.tensor.object == tensor.object)
            .map(|param| param.name.as_str())
    }
}

/// A value of a state dict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A tensor.
    Tensor(Tensor),
    /// Something else: `None`, a number, a buffer of extra state.
    Other,
}

impl Value {
    /// The tensor, if it is one.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Value::Tensor(tensor) => Some(tensor),
            Value::Other => None,
        }
    }
}

/// Key -> value, in order, without bytes. [`Model::to_state_dict`] makes one of tensors from
/// anywhere.
pub type PlainStateDict = IndexMap<String, Value>;

/// A row-major tensor of a dtype and shape. PyTorch counts pairs of 4-bit elements.
fn of_info(info: &TensorInfo, id: u64) -> Tensor {
    let mut shape = info.shape.to_vec();
    if let (Dtype::F4, Some(last)) = (info.dtype, shape.last_mut()) {
        *last = last.div_ceil(2);
    }
    Tensor::contiguous(shape, info.dtype.into(), id)
}

fn of_view(view: &TensorView, object: u64, storage: u64) -> Tensor {
    let info = of_info(view.info(), object);
    // Views of 4-bit elements are row-major; for the others an element is a whole number of bytes.
    let strides = match view.dtype() {
        Dtype::F4 => info.strides,
        _ => {
            view.strides().iter().map(|stride| i64::try_from(*stride).unwrap_or(i64::MAX)).collect()
        }
    };
    let offset = view.offset_bits() / (info.dtype.element_size() * 8);
    Tensor { storage, offset, strides, ..info }
}
