//! [`Counted`]: a store that counts the bytes read from it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Extent, Identity, Store};
use crate::error::Result;
use crate::tensor::{Header, TensorView};

/// A store over another one that counts what is read: bytes that [`Store::read_at`] gave. A view
/// reads nothing by itself, and what the system copies from an [`Extent`] doesn't pass through
/// here.
pub struct Counted<'a> {
    store: &'a dyn Store,
    read: AtomicU64,
}

impl<'a> Counted<'a> {
    /// Over a store, from 0.
    pub fn new(store: &'a dyn Store) -> Self {
        Self { store, read: AtomicU64::new(0) }
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl Store for Counted<'_> {
    fn header(&self) -> &Header {
        self.store.header()
    }

    fn read_at(&self, key: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.store.read_at(key, offset, buffer)?;
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn extent(&self, key: &str) -> Result<Option<Extent<'_>>> {
        self.store.extent(key)
    }

    fn identity(&self) -> Option<Identity> {
        self.store.identity()
    }

    fn unchanged(&self) -> Result<()> {
        self.store.unchanged()
    }

    fn view(&self, key: &str) -> Result<TensorView> {
        self.store.view(key)
    }
}
