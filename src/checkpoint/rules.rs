//! The wrapper segments and the sources of a tied head, in their order: the one place of the crate's code that lists them.
//!
//! They say what `rules/wrappers.graft` and `rules/tied_lm_head.graft` say; a test holds the two together.

/// Segments that a wrapper puts before the leaf, at any depth, and that never belong to a name.
pub(super) const WRAPPERS: &[&str] = &["_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"];

/// Where a tied `lm_head.weight` comes from, the first that is there.
pub(super) const HEAD_SOURCES: &[&str] = &[
    "model.language_model.embed_tokens.weight",
    "language_model.embed_tokens.weight",
    "model.embed_tokens.weight",
    "embed_tokens.weight",
];

/// The key of a tied head.
pub(super) const HEAD: &str = "lm_head.weight";
