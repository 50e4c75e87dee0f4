//! A plan is carried out.
