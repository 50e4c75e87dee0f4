//! The JSON of headers, indexes, manifests and key lists, read strictly and with the key named in
//! every error.
//!
//! * A key that comes twice is refused; a map would silently keep the last.
//! * Fields that regraft doesn't know are skipped, but still have to be JSON within the nesting
//!   limit of `serde_json` (128).
//! * Nothing is allocated beyond a constant factor of the text's own length.

mod index;
mod kind;
mod table;

use std::collections::BTreeMap;
use std::fmt;

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;
use serde::Deserializer as _;
use serde::de::{Deserialize, MapAccess, SeqAccess, Visitor};

use self::index::{IndexVisitor, ListVisitor};
use self::kind::KindVisitor;
use self::table::{Form, TableVisitor, WrapperVisitor};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::tensor::TensorInfo;
pub(super) use crate::tensor::{MAX_KEY_LEN, MAX_RANK, METADATA};

/// How many keys one document may have.
pub(super) const MAX_KEYS: usize = 10_000_000;

/// An entry of a large header or manifest is hardly shorter, in bytes of text: so many make room
/// for one. What is too little grows, what is too much is never touched.
const LEAST_HEADER_ENTRY: usize = 96;
const LEAST_ENTRY: usize = 64;

/// Something for each key of a document, in its order.
pub(super) type ByKey<T> = IndexMap<Key, T, foldhash::fast::RandomState>;

/// What a table says of one key: dtype and shape, and in a file's header the bytes `begin..end` of
/// its data section.
pub(super) type Row = (TensorInfo, [u64; 2]);

/// Key -> what is said of it, with `__metadata__`.
#[derive(Debug)]
pub(super) struct Table<T = Row> {
    pub(super) rows: ByKey<T>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// The index of a sharded checkpoint.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Key -> file, as written.
    pub(super) weight_map: ByKey<String>,
    /// What the index claims the tensors' bytes add up to.
    pub(super) total_size: Option<f64>,
}

/// What a JSON document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Key -> file, under `weight_map`.
    Index,
    /// Key -> dtype and shape.
    Manifest,
    /// A manifest under `tensors`.
    Wrapped,
    /// A list of keys.
    List,
}

/// The header of a safetensors file.
pub(super) fn header(text: &str) -> Result<Table> {
    parse(text, "the header", |context, json| {
        let room = text.len() / LEAST_HEADER_ENTRY;
        json.deserialize_map(TableVisitor { context, form: Form::Header, keep: |row| row, room })
    })
}

/// A manifest, under `tensors` if wrapped.
pub(super) fn manifest<T>(text: &str, wrapped: bool, keep: fn(Row) -> T) -> Result<Table<T>> {
    parse(text, "the manifest", |context, json| {
        let room = text.len() / LEAST_ENTRY;
        let table = TableVisitor { context, form: Form::Manifest, keep, room };
        if wrapped {
            json.deserialize_map(WrapperVisitor(table))
        } else {
            json.deserialize_map(table)
        }
    })
}

/// An index.
pub(super) fn index(text: &str) -> Result<Index> {
    parse(text, "the index", |context, json| json.deserialize_map(IndexVisitor { context }))
}

/// A list of keys.
pub(super) fn list(text: &str) -> Result<Vec<Key>> {
    parse(text, "the list of keys", |context, json| json.deserialize_seq(ListVisitor { context }))
        .map(|set| set.into_keys().collect())
}

/// Tells what a document is, by its first level.
pub(super) fn kind(text: &str) -> Result<Kind> {
    // The fields that make it something else stand nowhere in most manifests; what is wrong with it is found when it is read.
    if text.trim_start().starts_with('{')
        && !text.contains("weight_map")
        && !text.contains("tensors")
    {
        return Ok(Kind::Manifest);
    }
    parse(text, "the file", |_, json| json.deserialize_any(KindVisitor))
}

/// Where in a document the reader is, and the error that it found there.
#[derive(Default)]
struct Context {
    key: Option<Key>,
    field: Option<&'static str>,
    error: Option<Error>,
}

impl Context {
    /// Keeps our own error, which serde can't carry, and stops the reader.
    fn refuse<E: serde::de::Error>(&mut self, error: Error) -> E {
        let stop = E::custom(error.message());
        self.error = Some(error);
        stop
    }

    /// Checks a key and remembers it for errors.
    fn enter<E: serde::de::Error>(
        &mut self,
        key: &Key,
        count: usize,
    ) -> std::result::Result<(), E> {
        if key.len() > MAX_KEY_LEN {
            self.key = None;
            let start: String = key.chars().take(40).collect();
            let message =
                format!("a key of {} bytes, \"{start}…\"; the limit is {MAX_KEY_LEN}", key.len());
            return Err(self.refuse(Error::new(ErrorKind::Limit, message)));
        }
        if count >= MAX_KEYS {
            return Err(
                self.refuse(Error::new(ErrorKind::Limit, format!("more than {MAX_KEYS} keys")))
            );
        }
        self.key = Some(key.clone());
        Ok(())
    }
}

type Json<'de> = serde_json::Deserializer<serde_json::de::StrRead<'de>>;

fn parse<'de, T>(
    text: &'de str,
    what: &str,
    read: impl FnOnce(&mut Context, &mut Json<'de>) -> std::result::Result<T, serde_json::Error>,
) -> Result<T> {
    let mut context = Context::default();
    let mut json = serde_json::Deserializer::from_str(text);
    match read(&mut context, &mut json).and_then(|value| json.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(source) => {
            let error = context.error.take().unwrap_or_else(|| {
                let place = context.field.map_or_else(
                    || format!("{what} is not as it should be"),
                    |field| format!("bad {field}"),
                );
                Error::corrupt(format!("{place}: {source}"))
            });
            Err(match context.key {
                Some(key) => error.at_key(key),
                None => error,
            })
        }
    }
}

/// Puts a value under a key that must be new.
fn put<T, E: serde::de::Error>(
    context: &mut Context,
    map: &mut ByKey<T>,
    key: Key,
    value: T,
) -> std::result::Result<(), E> {
    match map.entry(key) {
        Slot::Vacant(slot) => {
            slot.insert(value);
            context.key = None;
            Ok(())
        }
        Slot::Occupied(_) => Err(context.refuse(Error::corrupt("the key is there twice"))),
    }
}

/// A value that is read and forgotten. Unlike `IgnoredAny` it holds the nesting limit and refuses
/// numbers that no JSON value can hold, as the safetensors crate does, which buffers such fields.
struct Skip;

impl<'de> Deserialize<'de> for Skip {
    fn deserialize<D: serde::Deserializer<'de>>(json: D) -> std::result::Result<Self, D::Error> {
        json.deserialize_any(Walk).map(|_| Self)
    }
}

/// Walks through any value; gives whether it is an object without the fields of an entry.
struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> std::result::Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<bool, A::Error> {
        while seq.next_element::<Skip>()?.is_some() {}
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<bool, A::Error> {
        let (mut dtype, mut shape) = (false, false);
        while let Some(field) = map.next_key::<String>()? {
            map.next_value::<Skip>()?;
            dtype |= field == "dtype";
            shape |= field == "shape";
        }
        Ok(!(dtype && shape))
    }
}
