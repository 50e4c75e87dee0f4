//! What fuses: from a plan's nodes to strided boxes over sources, and the elements of those boxes
//! brought together.
//!
//! [`layout`] is the algebra of boxes and knows nothing of plans or bytes; [`compile`] makes boxes
//! of nodes; [`tile`] cuts large ones for a buffer; [`gather`] reads and computes what they say.

pub(super) mod compile;
pub(super) mod gather;
pub(super) mod layout;
pub(super) mod tile;
