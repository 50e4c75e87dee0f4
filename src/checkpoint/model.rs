//! [`Model`]: what a framework's module says of itself, as plain data; and [`PlainStateDict`], a state dict without bytes.
//!
//! Parameters are listed under every name that they have, in the order of `named_parameters(remove_duplicate=False)`: two names of one
//! parameter are two entries whose tensors have the same [`object`](Tensor::object).

use indexmap::IndexMap;

use super::dtypes::TorchDtype;
use super::names::module_names;
use crate::config::Config;
use crate::tensor::{Header, Shape};

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
    /// Which tensor object it is: entries that share it are the same object, not merely views of one storage.
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
    /// A row-major tensor at the start of a storage of its own, and an object of its own: both numbered `id`.
    pub fn contiguous(shape: impl Into<Shape>, dtype: TorchDtype, id: u64) -> Self {
        let shape = shape.into();
        let strides = shape.contiguous_strides().into_iter().map(|stride| i64::try_from(stride).unwrap_or(i64::MAX)).collect();
        Self { shape, dtype, object: id, storage: id, offset: 0, strides, device: Device::Real, layout: Layout::Strided }
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
    /// The names of its modules in the order of `named_modules()`, the model's own empty name first.
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
        let mut params = Vec::with_capacity(header.tensors.len());
        for (id, (key, entry)) in (0u64..).zip(&header.tensors) {
            let place = entry.location.map_or(id, |location| *places.entry(location).or_insert(id));
            let mut tensor = Tensor::contiguous(entry.info.shape.clone(), entry.info.dtype.into(), place);
            if entry.location.is_none() {
                tensor.device = Device::Meta;
            }
            params.push(Param { name: key.as_str().to_owned(), tensor });
        }
        let modules = module_names(params.iter().map(|param| param.name.as_str()));
        Self { params, modules, config, ..Self::default() }
    }

    /// The first name of the parameter that is the same object as a tensor.
    pub fn first_name(&self, tensor: &Tensor) -> Option<&str> {
        self.params.iter().find(|param| param.tensor.object == tensor.object).map(|param| param.name.as_str())
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

/// Key -> value, in order, without bytes.
pub type PlainStateDict = IndexMap<String, Value>;

impl crate::tensor::Header {
    /// The same keys as a state dict without bytes. Tensors at the same place of a file share their storage.
    pub fn to_plain_state_dict(&self) -> PlainStateDict {
        Model::from_header(self, None).params.into_iter().map(|param| (param.name, Value::Tensor(param.tensor))).collect()
    }
}
