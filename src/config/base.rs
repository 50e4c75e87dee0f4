//! Under which name a class with a head keeps its base model: `model`, `bert`, `transformer`.
//!
//! A base model's checkpoint has keys without it, one of a class with a head has them with it, and
//! the library that owns these classes loads each into the other.
//!
//! Source: `base_model_prefix` of the model classes of transformers 5.23.0, by model type
//! (`base_prefixes.txt`).

use std::collections::HashMap;
use std::sync::OnceLock;

use super::Config;

/// What classes of a type that the table lacks use, nearly all of them.
const USUAL: [&str; 2] = ["model", "transformer"];

impl Config {
    /// The names under which the classes of the model type keep their base model: several where
    /// they differ, those that are usual for a type that isn't known, none without a type.
    pub fn base_prefixes(&self) -> &[&'static str] {
        let Some(model_type) = self.model_type() else { return &[] };
        static TABLE: OnceLock<HashMap<&'static str, Vec<&'static str>>> = OnceLock::new();
        TABLE.get_or_init(|| rows().collect()).get(model_type).map_or(&USUAL, Vec::as_slice)
    }
}

fn rows() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    include_str!("base_prefixes.txt").lines().filter(|line| !line.starts_with('#')).filter_map(
        |line| {
            let (name, prefixes) = line.split_once(' ')?;
            Some((name, prefixes.split(' ').collect()))
        },
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_row() {
        let lines =
            include_str!("base_prefixes.txt").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(rows().count(), lines);
        let names: std::collections::HashSet<_> = rows().map(|(name, _)| name).collect();
        assert_eq!(names.len(), lines, "no name twice");
        for (name, prefixes) in rows() {
            assert!(
                prefixes.iter().all(|prefix| !prefix.is_empty()
                    && !prefix.starts_with('.')
                    && !prefix.ends_with('.')),
                "{name}"
            );
        }
    }

    #[test]
    fn by_model_type() {
        let of = |config: serde_json::Value| Config::from_value(config).base_prefixes().to_vec();
        assert_eq!(of(json!({"model_type": "bert"})), ["bert"]);
        assert_eq!(of(json!({"model_type": "llama"})), ["model", "transformer"]);
        assert_eq!(of(json!({"model_type": "no_such_model"})), ["model", "transformer"]);
        assert!(of(json!({})).is_empty());
        assert!(of(json!({"model_type": 3})).is_empty());
    }
}
