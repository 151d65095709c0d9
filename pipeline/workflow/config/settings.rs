//! What a stage says to the engine beside its own configuration: no part of its action key, so that nothing runs again
//! when it changes.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::is_name;
use crate::units::{self, Amount, TimeText};

/// The keys of a stage that are the engine's.
pub(in crate::workflow) const KEYS: [&str; 4] = ["resources", "retries", "tags", "when"];

/// What the engine does with a stage.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::workflow) struct Settings {
    /// What the stage needs of the machine; nothing runs again when it changes.
    pub resources: Resources,
    /// How often the stage is tried again when it fails, unless its configuration is at fault. Default 0.
    pub retries: u32,
    /// Words that `--from`, `--until`, `--only` and `--force` take as `tag:WORD`.
    #[schemars(extend("uniqueItems" = true))]
    pub tags: Vec<Tag>,
}

/// What a workflow says of engines that run it elsewhere: no part of what any result is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// For `genomill submit`.
    pub slurm: Slurm,
}

/// What a workflow says of Slurm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Slurm {
    /// The profile of the site, relative to this file; `--profile` on the command line comes before it.
    pub profile: Option<PathBuf>,
}

/// What a stage needs of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Worker threads, at most those of the run. Default: one for kinds of stages that use no more (such as `command`), for the
    /// others what is free.
    pub threads: Option<NonZeroU32>,
    /// Memory, as bytes or as `8GB`: stages whose memory is more than `--memory` together do not run side by side. Default: not said.
    #[serde(deserialize_with = "units::bytes")]
    #[schemars(with = "Amount")]
    pub memory: Option<u64>,
    /// Accelerators, for whoever places the stages on machines; a run on one machine takes no notice. Default 0.
    pub gpus: u32,
    /// The most time that a try may take, as `90 s`, `30 min`, `2h` or `1d 12h`: at the next safe point after it the stage
    /// fails, and the next run goes on from what it leaves. Default: as long as it takes.
    #[serde(deserialize_with = "units::time")]
    #[schemars(with = "TimeText")]
    pub time: Option<Duration>,
}

/// A word that selects stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::workflow) struct Tag(pub String);

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || format!("expected a tag of letters, digits, `-`, `_` and `.`, found `{text}`");
        if is_name(&text) { Ok(Self(text)) } else { Err(serde::de::Error::custom(wrong())) }
    }
}

impl JsonSchema for Tag {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Tag".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$" })
    }
}

/// The keys and their schemas.
pub(in crate::workflow) fn schemas(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut settings: Value = Settings::json_schema(generator).into();
    let properties = settings.get_mut("properties").map(Value::take);
    let mut properties =
        properties.and_then(|properties| properties.as_object().cloned()).unwrap_or_default();
    let when = "Leaves the stage out, and those that need it, when it is false: `false`, `${params.train}`, or a comparison \
                such as `${params.organism} == yeast` (also !=, <, <=, >, >=; joined by `and` and `or`, after `not`). \
                Default true.";
    properties.insert("when".to_owned(), json!({ "type": ["boolean", "string"], "description": when }));
    properties
}

/// Takes the engine's keys out of the configuration of a stage: what is to be read as [`Settings`], and `when`.
pub(super) fn take(stage: &mut Value) -> (Value, Option<Value>) {
    let mut taken = Map::new();
    if let Some(map) = stage.as_object_mut() {
        for key in KEYS {
            taken.extend(map.shift_remove(key).map(|value| (key.to_owned(), value)));
        }
    }
    let when = taken.shift_remove("when");
    (Value::Object(taken), when)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_with_units_or_refused_in_words() {
        let good: Settings = serde_json::from_value(json!({
            "resources": {"threads": 2, "memory": "8GB", "gpus": 1, "time": "1h 30min"}, "retries": 2, "tags": ["a"]
        }))
        .unwrap();
        let resources = good.resources;
        assert_eq!((resources.threads.unwrap().get(), resources.memory), (2, Some(8_000_000_000)));
        assert_eq!((resources.gpus, resources.time), (1, Some(Duration::from_mins(90))));
        assert_eq!((good.retries, good.tags), (2, vec![Tag("a".to_owned())]));
        for (value, expected) in [
            (json!({"resources": {"thread": 1}}), "unknown field `thread`"),
            (json!({"resources": {"threads": 0}}), "expected a nonzero u32"),
            (json!({"resources": {"memory": "much"}}), "expected bytes such as"),
            (json!({"resources": {"time": 7}}), "expected a time such as `90 s`"),
            (json!({"retries": -1}), "expected u32"),
            (json!({"tags": ["a b"]}), "expected a tag of letters"),
        ] {
            let error = serde_json::from_value::<Settings>(value.clone()).unwrap_err().to_string();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }
}
