//! What a JSON document is, told by the fields of its first level.

use std::fmt;

use serde::de::{Deserialize, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Kind, Walk};

/// Sees which fields the first level has.
pub(super) struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an index, a manifest or a list of keys")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
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

    fn visit_seq<A: SeqAccess<'de>>(
        self,
        mut seq: A,
    ) -> std::result::Result<Self::Value, A::Error> {
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
