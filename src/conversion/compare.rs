//! The planner's questions about bytes, and who answers them: the checkpoint's own store, or the
//! caller.

use std::cell::RefCell;

use crate::error::{Error, Result};
use crate::plan::Equality;
use crate::store::{Store, differing_bytes};

/// A question that was asked about the bytes of two keys, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compared {
    /// A key of the checkpoint.
    pub a: String,
    /// Another one.
    pub b: String,
    /// Whether they are equal; `None` where that can't be known.
    pub found: Option<Equality>,
}

/// Compares two tensors of a store byte for byte; `None` if their dtypes or shapes differ.
///
/// # Errors
/// If one isn't there, or can't be read.
pub fn equality(store: &dyn Store, a: &str, b: &str) -> Result<Option<Equality>> {
    let differing = differing_bytes(store, a, b)?;
    Ok(differing.map(|bytes| match bytes {
        0 => Equality::Equal,
        bytes => Equality::Differ(bytes),
    }))
}

/// Says whether two keys of the checkpoint are equal byte for byte; `None` if that can't be known.
pub type Answer<'a> = dyn FnMut(&str, &str) -> Result<Option<Equality>> + 'a;

/// Hands a planner's questions to whoever answers them, keeps what was found, and the first
/// failure: what could not be compared would look like a tie that was not asked for.
pub(super) struct Comparison<'a, 'b> {
    answer: RefCell<&'a mut Answer<'b>>,
    compared: RefCell<Vec<Compared>>,
    failed: RefCell<Option<Error>>,
}

impl<'a, 'b> Comparison<'a, 'b> {
    pub(super) fn new(answer: &'a mut Answer<'b>) -> Self {
        Self {
            answer: RefCell::new(answer),
            compared: RefCell::new(Vec::new()),
            failed: RefCell::new(None),
        }
    }

    pub(super) fn ask(&self, a: &str, b: &str) -> Option<Equality> {
        if self.failed.borrow().is_some() {
            return None;
        }
        match (self.answer.borrow_mut())(a, b) {
            Ok(found) => {
                let (a, b) = (a.to_owned(), b.to_owned());
                self.compared.borrow_mut().push(Compared { a, b, found });
                found
            }
            Err(error) => {
                *self.failed.borrow_mut() = Some(error);
                None
            }
        }
    }

    /// What was found.
    ///
    /// # Errors
    /// The first failure of an answer.
    pub(super) fn finish(self) -> Result<Vec<Compared>> {
        self.failed.into_inner().map_or(Ok(self.compared.into_inner()), Err)
    }
}
