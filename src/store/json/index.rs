//! Key -> file: the index of a sharded checkpoint; and lists of keys.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::{ByKey, Context, Index, Skip, put};
use crate::key::Key;

/// Reads an index.
pub(super) struct IndexVisitor<'c> {
    pub(super) context: &'c mut Context,
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
                "weight_map" if weight_map.is_some() => {
                    return Err(A::Error::duplicate_field("weight_map"));
                }
                "weight_map" => {
                    weight_map =
                        Some(map.next_value_seed(WeightMapSeed { context: &mut *context })?)
                }
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
    type Value = ByKey<String>;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        json: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WeightMapSeed<'_> {
    type Value = ByKey<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, key -> file name")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut files = ByKey::default();
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

/// Reads a list of keys.
pub(super) struct ListVisitor<'c> {
    pub(super) context: &'c mut Context,
}

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = ByKey<()>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of keys")
    }

    fn visit_seq<A: SeqAccess<'de>>(
        self,
        mut seq: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut keys = ByKey::default();
        while let Some(key) = seq.next_element::<Key>()? {
            self.context.enter(&key, keys.len())?;
            put(self.context, &mut keys, key, ())?;
        }
        Ok(keys)
    }
}
