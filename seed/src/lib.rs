//! Checkpoint utilities: what training code asks of a model and its checkpoint around loading and
//! saving.
//!
//! Each function does what its namesake in NVIDIA NeMo AutoModel 0.7.0
//! (`components/checkpoint/utils.py`, `shared/tied_weights.py`) does, over plain data: a [`Model`]
//! is its parameters with their storages, its module names, its config and its declared ties. Where
//! that module is unsafe, the functions here are stricter; [`Compat::Reference`] gives its
//! behaviour exactly, raised errors included. `docs/seed.md` lists every difference.
//!
//! What these functions need of regraft, any consumer can have: its configs, headers, plans and rule
//! files. The engine knows nothing of this crate.
//!
//! * [`names`]: what wrappers leave in names
//! * [`ties`]: the output head and the input embedding, one tensor or two
//! * [`sizes`]: bytes, of tensors, state dicts and indexes
//! * [`dtypes`]: dtypes of a checkpoint, from headers alone
//! * [`ranks`]: rank and world size
//! * [`trust`]: whose code may run
//!
//! Nothing here reads a tensor's elements, and no code in a checkpoint is ever run.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]
#![forbid(unsafe_code)]

pub mod dtypes;
mod model;
pub mod names;
pub mod ranks;
pub mod reference;
mod rules;
pub mod sizes;
pub mod ties;
pub mod trust;

pub use model::{
    DeclaredTies, Device, InputEmbeddings, Layout, Model, Param, PlainStateDict, Tensor,
    TieSupport, Value,
};

/// Whose behaviour a function has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compat {
    /// regraft's own: stricter where the reference is unsafe.
    #[default]
    Strict,
    /// That of NeMo AutoModel 0.7.0, exactly.
    Reference,
}

impl Compat {
    /// Whether the reference's behaviour is asked for.
    pub fn is_reference(self) -> bool {
        self == Compat::Reference
    }
}
