//! Key -> dtype and shape: the header of a file, and manifests.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::{ByKey, Context, MAX_RANK, METADATA, Row, Skip, Table, put};
use crate::diagnostic::did_you_mean;
use crate::error::Error;
use crate::key::Key;
use crate::tensor::{Dtype, Shape, TensorInfo};

/// How an entry is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `{dtype, shape, data_offsets}`
    Header,
    /// `[dtype, shape]` or `{dtype, shape}`
    Manifest,
}

/// Reads key -> entry.
pub(super) struct TableVisitor<'c, T> {
    pub(super) context: &'c mut Context,
    pub(super) form: Form,
    /// What is kept of each entry.
    pub(super) keep: fn(Row) -> T,
    /// So many keys are expected.
    pub(super) room: usize,
}

impl<'de, T> Visitor<'de> for TableVisitor<'_, T> {
    type Value = Table<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Table<T>, A::Error> {
        let Self { context, form, keep, room } = self;
        let mut table = Table { rows: ByKey::default(), metadata: BTreeMap::new() };
        table.rows.reserve(room);
        let mut has_metadata = false;
        while let Some(key) = map.next_key::<Key>()? {
            if key.as_str() == METADATA {
                if std::mem::replace(&mut has_metadata, true) {
                    return Err(
                        context.refuse(Error::corrupt(format!("{METADATA} is there twice")))
                    );
                }
                table.metadata = map.next_value_seed(MetadataSeed { context })?;
                continue;
            }
            context.enter(&key, table.rows.len())?;
            let row = map.next_value_seed(RowSeed { context, form })?;
            put(context, &mut table.rows, key, keep(row))?;
        }
        Ok(table)
    }
}

impl<'de, T> DeserializeSeed<'de> for TableVisitor<'_, T> {
    type Value = Table<T>;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        json: D,
    ) -> std::result::Result<Table<T>, D::Error> {
        json.deserialize_map(self)
    }
}

/// Reads a manifest under `tensors`.
pub(super) struct WrapperVisitor<'c, T>(pub(super) TableVisitor<'c, T>);

impl<'de, T> Visitor<'de> for WrapperVisitor<'_, T> {
    type Value = Table<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the field \"tensors\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Table<T>, A::Error> {
        let TableVisitor { context, form, keep, room } = self.0;
        let (mut table, mut metadata) = (None, None);
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "tensors" if table.is_some() => return Err(A::Error::duplicate_field("tensors")),
                "tensors" => {
                    let visitor = TableVisitor { context: &mut *context, form, keep, room };
                    table = Some(map.next_value_seed(visitor)?);
                }
                METADATA if metadata.is_some() => return Err(A::Error::duplicate_field(METADATA)),
                METADATA => {
                    metadata = Some(map.next_value_seed(MetadataSeed { context: &mut *context })?)
                }
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

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        json: D,
    ) -> std::result::Result<Self::Value, D::Error> {
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

    fn visit_some<D: serde::Deserializer<'de>>(
        self,
        json: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
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
    fn field<T, E>(
        &mut self,
        name: &'static str,
        read: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.context.field = Some(name);
        let value = read()?;
        self.context.field = None;
        Ok(value)
    }

    fn dtype<E: serde::de::Error>(&mut self, name: DtypeName) -> std::result::Result<Dtype, E> {
        name.0.map_err(|text| self.context.refuse(unknown_dtype(&text)))
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
        None => error
            .hint(format!("the format's dtypes are {}", names().collect::<Vec<_>>().join(", "))),
    }
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Row;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        json: D,
    ) -> std::result::Result<Row, D::Error> {
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
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Dtype if dtype.is_some() => return Err(self.twice("dtype")),
                Field::Shape if shape.is_some() => return Err(self.twice("shape")),
                Field::DataOffsets if offsets.is_some() => return Err(self.twice("data_offsets")),
                Field::Dtype => {
                    let name = self.field("dtype", || map.next_value::<DtypeName>())?;
                    dtype = Some(self.dtype(name)?);
                }
                Field::Shape => shape = Some(self.field("shape", || map.next_value::<Sizes>())?.0),
                Field::DataOffsets if self.form == Form::Header => {
                    offsets = Some(self.field("data_offsets", || map.next_value::<[u64; 2]>())?);
                }
                Field::DataOffsets | Field::Other => map.next_value::<Skip>().map(|_| ())?,
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
        let name = self
            .field("dtype", || seq.next_element::<DtypeName>())?
            .ok_or_else(|| self.missing("dtype"))?;
        let dtype = self.dtype(name)?;
        let shape = self
            .field("shape", || seq.next_element::<Sizes>())?
            .ok_or_else(|| self.missing("shape"))?
            .0;
        if seq.next_element::<Skip>()?.is_some() {
            return Err(self
                .context
                .refuse(Error::corrupt("the entry has more than dtype and shape")));
        }
        Ok((TensorInfo::new(dtype, shape), [0, 0]))
    }
}

/// The fields of an entry.
#[derive(Clone, Copy, serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Dtype,
    Shape,
    DataOffsets,
    #[serde(other)]
    Other,
}

/// A dtype, or what stands in its place.
struct DtypeName(std::result::Result<Dtype, String>);

impl<'de> Deserialize<'de> for DtypeName {
    fn deserialize<D: serde::Deserializer<'de>>(json: D) -> std::result::Result<Self, D::Error> {
        json.deserialize_str(DtypeNameVisitor)
    }
}

struct DtypeNameVisitor;

impl Visitor<'_> for DtypeNameVisitor {
    type Value = DtypeName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<DtypeName, E> {
        Ok(DtypeName(text.parse().map_err(|_| text.to_owned())))
    }
}

/// A shape of limited rank.
struct Sizes(Shape);

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
        let mut sizes = SmallVec::<[u64; 4]>::new();
        while let Some(size) = seq.next_element()? {
            if sizes.len() == MAX_RANK {
                return Err(A::Error::custom(format!("more than {MAX_RANK} dimensions")));
            }
            sizes.push(size);
        }
        Ok(Sizes(Shape::from(&sizes[..])))
    }
}
