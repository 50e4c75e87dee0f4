//! The extension module `regraft._regraft`: the engine as plain functions and classes, which the
//! package's Python sources wrap.
//!
//! * Nothing here knows torch or numpy: tensors arrive as dtypes, shapes and numbers, and bytes
//!   never do.
//! * Every failure is an exception; the GIL is released wherever files are read or a plan is made.
//! * Decisions are the library's. What is written here is conversion of values.
#![deny(unsafe_code)]

mod boxes;
mod errors;
mod files;
mod header;
mod memory;
mod parts;
mod plan;
mod pool;
mod rules;
mod utilities;

use pyo3::prelude::*;

/// The engine. Use the package `regraft`, not this.
#[pymodule]
mod _regraft {
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }

    #[pymodule_export]
    use super::boxes::{read, read_into};
    #[pymodule_export]
    use super::files::{Checkpoint, overflow_findings, record_beside, side_files, write};
    #[pymodule_export]
    use super::header::{Config, Header, Wanted};
    #[pymodule_export]
    use super::parts::Output;
    #[pymodule_export]
    use super::plan::{Plan, plan, report_html};
    #[pymodule_export]
    use super::rules::{Rules, compile, compile_as, library_names, load};
    #[pymodule_export]
    use super::utilities::{
        Model, canonical_parameter_fqn, checkpoint_tensor_dtypes, clean_tensor_name,
        consume_prefix, controlling_tie, format_bytes, format_output_file_count, index_total_size,
        is_rank_0, module_by_normalized_name, normalize_param_name, rank, same_tensor_storage,
        tensor_bytes, trust_remote_code, world_size, wrappers,
    };
}

// Of the engine alone: Python and the frameworks have their own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
