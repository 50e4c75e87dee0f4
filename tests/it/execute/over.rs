//! [`Over`]: a store over another one, of which a test changes what it wants to.

use regraft::error::Result;
use regraft::store::{Blob, Boxes, Files, Hints, Identity, Range, Storages, Store};
use regraft::tensor::{Header, Storage};

/// Hears of each range before it is read: the key, the first byte within the tensor's box, and how
/// many.
type Reading<'a> = dyn Fn(&str, u64, usize) -> Result<()> + Sync + 'a;

/// A store over another one.
pub(super) struct Over<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) identity: Option<Identity>,
    /// Whether the system may copy from its files.
    pub(super) files: bool,
    /// Whether it gives shared storage.
    pub(super) storages: bool,
    pub(super) reading: &'a Reading<'a>,
    /// Hears of each storage that is asked for.
    pub(super) viewing: &'a (dyn Fn() + Sync),
}

impl<'a> Over<'a> {
    /// As the other.
    pub(super) fn new(store: &'a dyn Store) -> Self {
        let identity = store.identity();
        Self {
            store,
            identity,
            files: true,
            storages: true,
            reading: &|_, _, _| Ok(()),
            viewing: &|| (),
        }
    }

    fn hear(&self, range: &Range<'_>) -> Result<()> {
        for key in self.store.header().tensors.keys() {
            let boxes = self.store.boxes(key)?;
            let size = u64::from(boxes.info().dtype.bits()).max(8) / 8;
            for part in boxes.iter().filter(|part| part.blob == range.blob) {
                let end = part.offset + part.span().unwrap() * size;
                if (part.offset..end).contains(&range.offset) {
                    (self.reading)(key, range.offset - part.offset, range.buffer.len())?;
                }
            }
        }
        Ok(())
    }
}

impl Store for Over<'_> {
    fn header(&self) -> &Header {
        self.store.header()
    }

    fn boxes(&self, key: &str) -> Result<Boxes> {
        self.store.boxes(key)
    }

    fn read(&self, ranges: &mut [Range<'_>]) -> Result<()> {
        ranges.iter().try_for_each(|range| self.hear(range))?;
        self.store.read(ranges)
    }

    fn hints(&self) -> Hints {
        self.store.hints()
    }

    fn identity(&self) -> Option<Identity> {
        self.identity.clone()
    }

    fn unchanged(&self) -> Result<()> {
        self.store.unchanged()
    }

    fn storages(&self) -> Option<&dyn Storages> {
        self.store.storages().filter(|_| self.storages).map(|_| self as &dyn Storages)
    }

    fn files(&self) -> Option<&dyn Files> {
        self.store.files().filter(|_| self.files)
    }
}

impl Storages for Over<'_> {
    fn storage(&self, blob: Blob) -> Result<Storage> {
        (self.viewing)();
        self.store.storages().unwrap().storage(blob)
    }
}
