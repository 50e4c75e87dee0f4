//! Whether a model's output head is tied to its input embedding, and what says so.
//!
//! One field rules, the first of these: `tie_word_embeddings` at the top, even null or false; that
//! of `thinker_config`, if there is one; that of the text config. Where none of them is written,
//! the model type's default stands, from a table of 800 (`default_tie.txt`). The flag must be a
//! boolean: anything else but null decides nothing, and reads as untied.
//!
//! Source: `get_controlling_tie_word_embeddings` of NeMo AutoModel 0.7.0, and the config classes of
//! transformers 5.23.0. Those ask objects in which every default is filled in; here the file is
//! asked, so that a default comes last.

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Config, kind};

/// The flag's name.
const FLAG: &str = "tie_word_embeddings";

/// The fields that hold a text config where the class keeps no flag of its own. Source:
/// `PreTrainedConfig.get_text_config` of transformers 5.23.0; `text_config` alone is looked at in a
/// config of unknown type.
const TEXT_CONFIGS: [&str; 4] = ["text_config", "decoder", "generator", "text_encoder"];

/// Whether a model is tied, and what decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TieDecision {
    /// Whether the output head and the input embedding are one tensor, by intent.
    pub tied: bool,
    /// What decided.
    pub because: TieReason,
}

/// What decided whether a model is tied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TieReason {
    /// The caller said so.
    Explicit,
    /// A field of config.json says so; a null there means untied.
    Field {
        /// Its dotted path, as `text_config.tie_word_embeddings`.
        path: String,
    },
    /// The field of config.json that rules is neither a boolean nor null: taken as untied, and
    /// worth a finding.
    NotBoolean {
        /// Its dotted path.
        path: String,
        /// Its value, as JSON.
        found: String,
    },
    /// config.json is silent, and this model type's default is known.
    ModelType {
        /// The model type whose default stands: the model's own, or its text config's.
        model_type: String,
    },
    /// Neither config.json nor the model type says anything: untied.
    Unknown,
}

impl fmt::Display for TieReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TieReason::Explicit => f.write_str("set explicitly"),
            TieReason::Field { path } => write!(f, "config field {path}"),
            TieReason::NotBoolean { path, found } => {
                write!(f, "config field {path} is {found}, not a boolean")
            }
            TieReason::ModelType { model_type } => {
                write!(f, "default of model type {model_type:?}")
            }
            TieReason::Unknown => f.write_str("neither config nor model type says"),
        }
    }
}

impl Config {
    /// Whether the output head and the input embedding are one tensor by intent: what the caller
    /// says, else the field of config.json that rules, else the model type's default, else untied.
    pub fn tie_policy(&self, explicit: Option<bool>) -> TieDecision {
        if let Some(tied) = explicit {
            return TieDecision { tied, because: TieReason::Explicit };
        }
        let Value::Object(top) = self.value() else {
            return TieDecision { tied: false, because: TieReason::Unknown };
        };
        if let Some(flag) = top.get(FLAG) {
            return by_field(FLAG.to_owned(), flag);
        }
        let model_type = model_type(top);
        let known = model_type.and_then(default_of);
        let sub = sub_config(top, known);
        if let Some((name, sub)) = sub
            && let Some(flag) = sub.get(FLAG)
        {
            return by_field(format!("{name}.{FLAG}"), flag);
        }
        let sub_type = sub.and_then(|(_, sub)| self::model_type(sub));
        let by_type = |name: Option<&str>| {
            let name = name?;
            default_of(name).map(|default| TieDecision {
                tied: default.tied(),
                because: TieReason::ModelType { model_type: name.to_owned() },
            })
        };
        // A class without a flag of its own asks its text config, whose type the file may name.
        let decision = match known {
            Some(Default::Own(_) | Default::None) => by_type(model_type),
            Some(Default::Text(_)) | None => by_type(sub_type).or_else(|| by_type(model_type)),
        };
        decision.unwrap_or(TieDecision { tied: false, because: TieReason::Unknown })
    }
}

/// Whether a model type is tied by default: what its config class says when config.json is silent.
/// `None` for an unknown type.
pub fn default_tie(model_type: &str) -> Option<bool> {
    default_of(model_type).map(Default::tied)
}

fn by_field(path: String, flag: &Value) -> TieDecision {
    match flag {
        Value::Bool(tied) => TieDecision { tied: *tied, because: TieReason::Field { path } },
        Value::Null => TieDecision { tied: false, because: TieReason::Field { path } },
        Value::Number(_) | Value::String(_) => TieDecision {
            tied: false,
            because: TieReason::NotBoolean { path, found: flag.to_string() },
        },
        Value::Array(_) | Value::Object(_) => TieDecision {
            tied: false,
            because: TieReason::NotBoolean { path, found: kind(flag).to_owned() },
        },
    }
}

fn model_type(config: &Map<String, Value>) -> Option<&str> {
    config.get("model_type")?.as_str()
}

/// The nested config that rules when the top has no flag: a thinker config hides a text config,
/// even if it has no flag.
fn sub_config(
    top: &Map<String, Value>,
    known: Option<Default>,
) -> Option<(&'static str, &Map<String, Value>)> {
    let names = if matches!(known, Some(Default::Text(_))) {
        &TEXT_CONFIGS[..]
    } else {
        &TEXT_CONFIGS[..1]
    };
    std::iter::once(&"thinker_config")
        .chain(names)
        .find_map(|name| Some((*name, top.get(*name)?.as_object()?)))
}

/// A model type's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Default {
    /// Of its own config class.
    Own(bool),
    /// Of its text config's class, as its own has no flag.
    Text(bool),
    /// No class has the flag.
    None,
}

impl Default {
    fn tied(self) -> bool {
        matches!(self, Default::Own(true) | Default::Text(true))
    }
}

fn default_of(model_type: &str) -> Option<Default> {
    static TABLE: OnceLock<HashMap<&'static str, Default>> = OnceLock::new();
    TABLE.get_or_init(|| rows().collect()).get(model_type).copied()
}

/// The table's rows. A line that means nothing is left out; a test holds that there is none.
fn rows() -> impl Iterator<Item = (&'static str, Default)> {
    include_str!("default_tie.txt").lines().filter(|line| !line.starts_with('#')).filter_map(
        |line| {
            let (name, word) = line.split_once(' ')?;
            let default = match word {
                "true" => Default::Own(true),
                "false" => Default::Own(false),
                "text:true" => Default::Text(true),
                "text:false" => Default::Text(false),
                "none" => Default::None,
                _ => return None,
            };
            Some((name, default))
        },
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decide(config: Value) -> (bool, String) {
        let decision = Config::from_value(config).tie_policy(None);
        (decision.tied, decision.because.to_string())
    }

    #[test]
    fn every_line_of_the_table_is_a_row() {
        let lines =
            include_str!("default_tie.txt").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(lines, 818);
        assert_eq!(rows().count(), lines);
        let names: std::collections::HashSet<_> = rows().map(|(name, _)| name).collect();
        assert_eq!(names.len(), lines, "no name twice");
    }

    /// One of each kind.
    #[test]
    fn defaults() {
        assert_eq!(default_tie("t5"), Some(true));
        assert_eq!(default_tie("llama"), Some(false));
        assert_eq!(default_tie("blip-2"), Some(true));
        assert_eq!(default_tie("aimv2"), Some(false));
        assert_eq!(default_tie("no_such_model"), None);
    }

    #[test]
    fn an_explicit_policy_rules() {
        let config = Config::from_value(json!({"tie_word_embeddings": true}));
        assert_eq!(
            config.tie_policy(Some(false)),
            TieDecision { tied: false, because: TieReason::Explicit }
        );
        assert!(Config::empty().tie_policy(Some(true)).tied);
    }

    #[test]
    fn the_top_field_rules_even_null_or_false() {
        let field = "config field tie_word_embeddings".to_owned();
        assert_eq!(
            decide(
                json!({"tie_word_embeddings": true, "text_config": {"tie_word_embeddings": false}})
            ),
            (true, field.clone())
        );
        assert_eq!(
            decide(
                json!({"tie_word_embeddings": false, "text_config": {"tie_word_embeddings": true}})
            ),
            (false, field.clone())
        );
        assert_eq!(
            decide(
                json!({"tie_word_embeddings": null, "model_type": "t5", "text_config": {"tie_word_embeddings": true}})
            ),
            (false, field)
        );
    }

    #[test]
    fn thinker_before_text() {
        let text = json!({"tie_word_embeddings": true});
        assert_eq!(
            decide(json!({"thinker_config": {"tie_word_embeddings": false}, "text_config": text})),
            (false, "config field thinker_config.tie_word_embeddings".into())
        );
        assert_eq!(
            decide(json!({"thinker_config": {}, "text_config": text})).1,
            "neither config nor model type says"
        );
        assert_eq!(
            decide(json!({"thinker_config": {"text_config": text}})).1,
            "neither config nor model type says"
        );
        let by_text = (true, "config field text_config.tie_word_embeddings".to_owned());
        assert_eq!(decide(json!({"thinker_config": null, "text_config": text})), by_text);
        assert_eq!(decide(json!({"text_config": text})), by_text);
    }

    #[test]
    fn other_fields_decide_nothing() {
        let flag = json!({"tie_word_embeddings": true});
        for name in ["language_config", "llm_config", "decoder"] {
            assert_eq!(
                decide(json!({name: flag})),
                (false, "neither config nor model type says".into()),
                "{name}"
            );
        }
        assert!(!decide(json!({"tie_embeddings": true})).0);
        assert!(!decide(json!({"tie_encoder_decoder": true})).0);
    }

    #[test]
    fn a_class_without_a_flag_asks_its_decoder() {
        let config =
            |decoder: Value| json!({"model_type": "vision-encoder-decoder", "decoder": decoder});
        assert_eq!(
            decide(config(json!({"tie_word_embeddings": false}))),
            (false, "config field decoder.tie_word_embeddings".into())
        );
        assert_eq!(
            decide(config(json!({"model_type": "llama"}))),
            (false, "default of model type \"llama\"".into())
        );
        assert_eq!(
            decide(config(json!({}))),
            (true, "default of model type \"vision-encoder-decoder\"".into())
        );
    }

    #[test]
    fn a_silent_file_gets_the_default_of_its_type() {
        assert_eq!(
            decide(json!({"model_type": "t5"})),
            (true, "default of model type \"t5\"".into())
        );
        assert_eq!(
            decide(json!({"model_type": "llama"})),
            (false, "default of model type \"llama\"".into())
        );
        assert_eq!(
            decide(json!({"model_type": "new", "text_config": {"model_type": "t5"}})),
            (true, "default of model type \"t5\"".into())
        );
        assert_eq!(
            decide(json!({"model_type": "new"})),
            (false, "neither config nor model type says".into())
        );
        assert_eq!(decide(json!([])), (false, "neither config nor model type says".into()));
    }

    #[test]
    fn only_a_boolean_ties() {
        for (value, found) in [
            (json!("false"), "\"false\""),
            (json!("true"), "\"true\""),
            (json!(1), "1"),
            (json!([1]), "an array"),
        ] {
            let expected =
                (false, format!("config field tie_word_embeddings is {found}, not a boolean"));
            assert_eq!(decide(json!({"tie_word_embeddings": value, "model_type": "t5"})), expected);
        }
    }
}
