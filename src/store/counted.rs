//! [`Counted`]: a store that counts the bytes read from it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Blob, Boxes, Hints, Identity, Range, Storages, Store};
use crate::error::Result;
use crate::tensor::Header;

/// A store over another one that counts what is read: bytes that [`Store::read`] gave. A view
/// reads nothing by itself, and what the system copies between files doesn't pass through here.
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

    fn boxes(&self, key: &str) -> Result<Boxes> {
        self.store.boxes(key)
    }

    fn read(&self, ranges: &mut [Range<'_>]) -> Result<()> {
        self.store.read(ranges)?;
        let bytes = ranges.iter().map(|range| range.buffer.len() as u64).sum();
        self.read.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn stream(
        &self,
        blob: Blob,
        stretch: (u64, u64),
        buffer: &mut [u8],
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.store.stream(blob, stretch, buffer, take)?;
        self.read.fetch_add(stretch.1, Ordering::Relaxed);
        Ok(())
    }

    fn hints(&self) -> Hints {
        self.store.hints()
    }

    fn identity(&self) -> Option<Identity> {
        self.store.identity()
    }

    fn unchanged(&self) -> Result<()> {
        self.store.unchanged()
    }

    fn interrupt(&self) {
        self.store.interrupt();
    }

    fn storages(&self) -> Option<&dyn Storages> {
        self.store.storages()
    }

    #[cfg(feature = "files")]
    fn files(&self) -> Option<&dyn super::Files> {
        self.store.files()
    }
}
