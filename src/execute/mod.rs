//! A plan is carried out.
mod layout;
