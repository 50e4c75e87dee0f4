//! The JSON of headers, indexes, manifests and key lists, read strictly and with the key named in every error.
//!
//! * A key that comes twice is refused; a map would silently keep the last.
//! * Fields that regraft doesn't know are skipped, but still have to be JSON within the nesting limit of `serde_json` (128).
//! * Nothing is allocated beyond a constant factor of the text's own length.

use std::collections::BTreeMap;
use std::fmt;

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;
use serde::Deserializer as _;
use serde::de::{Deserialize, DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::diagnostic::did_you_mean;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::tensor::{Dtype, TensorInfo};

/// The longest key, in bytes.
pub(super) const MAX_KEY_LEN: usize = 64 * 1024;
/// How many keys one document may have.
pub(super) const MAX_KEYS: usize = 10_000_000;
/// The most dimensions of a tensor; PyTorch and NumPy have the same limit.
pub(super) const MAX_RANK: usize = 64;
/// The one name in a header that is no key.
pub(super) const METADATA: &str = "__metadata__";

/// What a table says of one key: dtype and shape, and in a file's header the bytes `begin..end` of its data section.
pub(super) type Row = (TensorInfo, [u64; 2]);

/// Key -> dtype and shape, with `__metadata__`.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: IndexMap<Key, Row>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// The index of a sharded checkpoint.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Key -> file, as written.
    pub(super) weight_map: IndexMap<Key, String>,
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

/// How an entry is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `{dtype, shape, data_offsets}`
    Header,
    /// `[dtype, shape]` or `{dtype, shape}`
    Manifest,
}

/// The header of a safetensors file.
pub(super) fn header(text: &str) -> Result<Table> {
    parse(text, "the header", |context, json| json.deserialize_map(TableVisitor { context, form: Form::Header }))
}

/// A manifest, under `tensors` if wrapped.
pub(super) fn manifest(text: &str, wrapped: bool) -> Result<Table> {
    parse(text, "the manifest", |context, json| {
        if wrapped {
            json.deserialize_map(WrapperVisitor { context })
        } else {
            json.deserialize_map(TableVisitor { context, form: Form::Manifest })
        }
    })
}

/// An index.
pub(super) fn index(text: &str) -> Result<Index> {
    parse(text, "the index", |context, json| json.deserialize_map(IndexVisitor { context }))
}

/// A list of keys.
pub(super) fn list(text: &str) -> Result<Vec<Key>> {
    parse(text, "the list of keys", |context, json| json.deserialize_seq(ListVisitor { context })).map(|set| set.into_keys().collect())
}

/// Tells what a document is, by its first level.
pub(super) fn kind(text: &str) -> Result<Kind> {
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
    fn enter<E: serde::de::Error>(&mut self, key: &Key, count: usize) -> std::result::Result<(), E> {
        if key.len() > MAX_KEY_LEN {
            self.key = None;
            let start: String = key.chars().take(40).collect();
            let message = format!("a key of {} bytes, \"{start}…\"; the limit is {MAX_KEY_LEN}", key.len());
            return Err(self.refuse(Error::new(ErrorKind::Limit, message)));
        }
        if count >= MAX_KEYS {
            return Err(self.refuse(Error::new(ErrorKind::Limit, format!("more than {MAX_KEYS} keys"))));
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
                let place = context.field.map_or_else(|| format!("{what} is not as it should be"), |field| format!("bad {field}"));
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
fn put<T, E: serde::de::Error>(context: &mut Context, map: &mut IndexMap<Key, T>, key: Key, value: T) -> std::result::Result<(), E> {
    match map.entry(key) {
        Slot::Vacant(slot) => {
            slot.insert(value);
            context.key = None;
            Ok(())
        }
        Slot::Occupied(_) => Err(context.refuse(Error::corrupt("the key is there twice"))),
    }
}

struct TableVisitor<'c> {
    context: &'c mut Context,
    form: Form,
}

impl<'de> Visitor<'de> for TableVisitor<'_> {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Table, A::Error> {
        let Self { context, form } = self;
        let mut table = Table::default();
        let mut has_metadata = false;
        while let Some(key) = map.next_key::<Key>()? {
            if key.as_str() == METADATA {
                if std::mem::replace(&mut has_metadata, true) {
                    return Err(context.refuse(Error::corrupt(format!("{METADATA} is there twice"))));
                }
                table.metadata = map.next_value_seed(MetadataSeed { context })?;
                continue;
            }
            context.enter(&key, table.rows.len())?;
            let row = map.next_value_seed(RowSeed { context, form })?;
            put(context, &mut table.rows, key, row)?;
        }
        Ok(table)
    }
}

impl<'de> DeserializeSeed<'de> for TableVisitor<'_> {
    type Value = Table;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> std::result::Result<Table, D::Error> {
        json.deserialize_map(self)
    }
}

struct WrapperVisitor<'c> {
    context: &'c mut Context,
}

impl<'de> Visitor<'de> for WrapperVisitor<'_> {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the field \"tensors\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Table, A::Error> {
        let context = self.context;
        let (mut table, mut metadata) = (None, None);
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "tensors" if table.is_some() => return Err(A::Error::duplicate_field("tensors")),
                "tensors" => {
                    let visitor = TableVisitor { context: &mut *context, form: Form::Manifest };
                    table = Some(map.next_value_seed(visitor)?);
                }
                METADATA if metadata.is_some() => return Err(A::Error::duplicate_field(METADATA)),
                METADATA => metadata = Some(map.next_value_seed(MetadataSeed { context: &mut *context })?),
                _ => map.next_value::<Skip>().map(|_| ())?,
            }
        }
        let mut table = table.ok_or_else(|| A::Error::missing_field("tensors"))?;
        table.metadata.extend(metadata.unwrap_or_default());
        Ok(table)
    }
}

/// `__metadata__`: text -> text. `null` counts as none, as in the safetensors crate.
struct MetadataSeed<'c> {
    context: &'c mut Context,
}

impl<'de> DeserializeSeed<'de> for MetadataSeed<'_> {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> std::result::Result<Self::Value, D::Error> {
        self.context.field = Some("__metadata__, whose values must be text");
        let context = &mut *self.context;
        let value = json.deserialize_option(MetadataVisitor { context })?;
        self.context.field = None;
        Ok(value)
    }
}

struct MetadataVisitor<'c> {
    context: &'c mut Context,
}

impl<'de> Visitor<'de> for MetadataVisitor<'_> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of text values")
    }

    fn visit_none<E: serde::de::Error>(self) -> std::result::Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, json: D) -> std::result::Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut metadata = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            if metadata.contains_key(&name) {
                let message = format!("{METADATA} has the field {name:?} twice");
                return Err(self.context.refuse(Error::corrupt(message)));
            }
            metadata.insert(name, value);
        }
        Ok(metadata)
    }
}

struct RowSeed<'c> {
    context: &'c mut Context,
    form: Form,
}

impl RowSeed<'_> {
    /// Reads one field, so that an error names it.
    fn field<T, E>(&mut self, name: &'static str, read: impl FnOnce() -> std::result::Result<T, E>) -> std::result::Result<T, E> {
        self.context.field = Some(name);
        let value = read()?;
        self.context.field = None;
        Ok(value)
    }

    fn dtype<E: serde::de::Error>(&mut self, text: &str) -> std::result::Result<Dtype, E> {
        text.parse().map_err(|()| self.context.refuse(unknown_dtype(text)))
    }

    fn missing<E: serde::de::Error>(&mut self, field: &str) -> E {
        self.context.refuse(Error::corrupt(format!("the entry has no {field}")))
    }

    fn twice<E: serde::de::Error>(&mut self, field: &str) -> E {
        self.context.refuse(Error::corrupt(format!("the entry has {field} twice")))
    }
}

fn unknown_dtype(text: &str) -> Error {
    let shown: String = text.chars().take(40).collect();
    let error = Error::corrupt(format!("unknown dtype {shown:?}"));
    let names = || Dtype::ALL.iter().map(|dtype| dtype.name());
    match did_you_mean(&shown.to_ascii_uppercase(), names()) {
        Some(name) => error.hint(format!("did you mean {name:?}?")),
        None => error.hint(format!("the format's dtypes are {}", names().collect::<Vec<_>>().join(", "))),
    }
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Row;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> std::result::Result<Row, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.form {
            Form::Header => "{\"dtype\": …, \"shape\": …, \"data_offsets\": …}",
            Form::Manifest => "[dtype, shape] or {\"dtype\": …, \"shape\": …}",
        })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> std::result::Result<Row, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "dtype" if dtype.is_some() => return Err(self.twice("dtype")),
                "shape" if shape.is_some() => return Err(self.twice("shape")),
                "data_offsets" if offsets.is_some() => return Err(self.twice("data_offsets")),
                "dtype" => {
                    let text = self.field("dtype", || map.next_value::<String>())?;
                    dtype = Some(self.dtype(&text)?);
                }
                "shape" => shape = Some(self.field("shape", || map.next_value::<Sizes>())?.0),
                "data_offsets" if self.form == Form::Header => {
                    offsets = Some(self.field("data_offsets", || map.next_value::<[u64; 2]>())?);
                }
                _ => map.next_value::<Skip>().map(|_| ())?,
            }
        }
        let dtype = dtype.ok_or_else(|| self.missing("dtype"))?;
        let shape = shape.ok_or_else(|| self.missing("shape"))?;
        let offsets = match self.form {
            Form::Header => offsets.ok_or_else(|| self.missing("data_offsets"))?,
            Form::Manifest => [0, 0],
        };
        Ok((TensorInfo::new(dtype, shape), offsets))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> std::result::Result<Row, A::Error> {
        if self.form == Form::Header {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        let text = self.field("dtype", || seq.next_element::<String>())?.ok_or_else(|| self.missing("dtype"))?;
        let dtype = self.dtype(&text)?;
        let shape = self.field("shape", || seq.next_element::<Sizes>())?.ok_or_else(|| self.missing("shape"))?.0;
        if seq.next_element::<Skip>()?.is_some() {
            return Err(self.context.refuse(Error::corrupt("the entry has more than dtype and shape")));
        }
        Ok((TensorInfo::new(dtype, shape), [0, 0]))
    }
}

/// A shape of limited rank.
struct Sizes(Vec<u64>);

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: serde::Deserializer<'de>>(json: D) -> std::result::Result<Self, D::Error> {
        json.deserialize_seq(SizesVisitor)
    }
}

struct SizesVisitor;

impl<'de> Visitor<'de> for SizesVisitor {
    type Value = Sizes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of sizes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Sizes, A::Error> {
        let mut sizes = Vec::new();
        while let Some(size) = seq.next_element()? {
            if sizes.len() == MAX_RANK {
                return Err(A::Error::custom(format!("more than {MAX_RANK} dimensions")));
            }
            sizes.push(size);
        }
        Ok(Sizes(sizes))
    }
}

struct IndexVisitor<'c> {
    context: &'c mut Context,
}

impl<'de> Visitor<'de> for IndexVisitor<'_> {
    type Value = Index;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the field \"weight_map\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Index, A::Error> {
        let context = self.context;
        let (mut weight_map, mut total_size) = (None, None);
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "weight_map" if weight_map.is_some() => return Err(A::Error::duplicate_field("weight_map")),
                "weight_map" => weight_map = Some(map.next_value_seed(WeightMapSeed { context: &mut *context })?),
                "metadata" => {
                    let metadata: serde_json::Value = map.next_value()?;
                    total_size = metadata.get("total_size").and_then(serde_json::Value::as_f64);
                }
                _ => map.next_value::<Skip>().map(|_| ())?,
            }
        }
        let weight_map = weight_map.ok_or_else(|| A::Error::missing_field("weight_map"))?;
        Ok(Index { weight_map, total_size })
    }
}

struct WeightMapSeed<'c> {
    context: &'c mut Context,
}

impl<'de> DeserializeSeed<'de> for WeightMapSeed<'_> {
    type Value = IndexMap<Key, String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> std::result::Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WeightMapSeed<'_> {
    type Value = IndexMap<Key, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, key -> file name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut files = IndexMap::new();
        while let Some(key) = map.next_key::<Key>()? {
            self.context.enter(&key, files.len())?;
            self.context.field = Some("file name");
            let file = map.next_value::<String>()?;
            self.context.field = None;
            put(self.context, &mut files, key, file)?;
        }
        Ok(files)
    }
}

struct ListVisitor<'c> {
    context: &'c mut Context,
}

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = IndexMap<Key, ()>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of keys")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
        let mut keys = IndexMap::new();
        while let Some(key) = seq.next_element::<Key>()? {
            self.context.enter(&key, keys.len())?;
            put(self.context, &mut keys, key, ())?;
        }
        Ok(keys)
    }
}

/// Sees which fields the first level has.
struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an index, a manifest or a list of keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut kind = Kind::Manifest;
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "weight_map" | "tensors" => {
                    // A tensor may have these names too; then the value is an entry.
                    if map.next_value::<IsTable>()?.0 {
                        match field.as_str() {
                            "weight_map" => kind = Kind::Index,
                            _ if kind == Kind::Manifest => kind = Kind::Wrapped,
                            _ => {}
                        }
                    }
                }
                _ => map.next_value::<IgnoredAny>().map(|_| ())?,
            }
        }
        Ok(kind)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Kind::List)
    }
}

/// Whether a value is an object, and not one entry `{dtype, shape}`.
struct IsTable(bool);

impl<'de> Deserialize<'de> for IsTable {
    fn deserialize<D: serde::Deserializer<'de>>(json: D) -> std::result::Result<Self, D::Error> {
        json.deserialize_any(Walk).map(Self)
    }
}

/// A value that is read and forgotten. Unlike `IgnoredAny` it holds the nesting limit and refuses numbers that no JSON value can hold,
/// as the safetensors crate does, which buffers such fields.
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
