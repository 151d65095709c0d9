//! A file that a stage reads: from outside, or one that another stage made.

use std::borrow::Cow;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};

use super::{Error, Task};

/// Where a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// A path, or an address.
    Outside(PathBuf),
    /// In the artifact of another stage.
    Made(Made),
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The stage that makes it.
    stage: String,
    /// Its path in the stage's folder.
    file: PathBuf,
}

impl Origin {
    /// The path from outside, if it is one.
    pub fn outside(&self) -> Option<&Path> {
        match self {
            Self::Outside(path) => Some(path),
            Self::Made(_) => None,
        }
    }

    /// The role and name of the stage that makes it; `key` is the path of the key that holds it.
    pub(super) fn input(&self, key: &str) -> Option<(String, String)> {
        match self {
            Self::Outside(_) => None,
            Self::Made(made) => Some((format!("{key}.stage"), made.stage.clone())),
        }
    }

    /// The path from outside, or that within the stage's folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::Outside(path) => path,
            Self::Made(made) => &made.file,
        }
    }

    /// What is wrong with the path in the stage's folder.
    pub(super) fn problem(&self) -> Option<String> {
        let Self::Made(made) = self else { return None };
        let wrong = || {
            format!(
                "has the file `{}`, expected a path within the folder of `{}`",
                made.file.display(),
                made.stage
            )
        };
        (!is_within(&made.file)).then(wrong)
    }
}

impl Task<'_> {
    /// Where a file lies on this machine. One that a stage made must be listed in its manifest.
    pub fn locate(&self, origin: &Origin) -> Result<PathBuf, Error> {
        let made = match origin {
            Origin::Outside(path) => return Ok(self.file(path)),
            Origin::Made(made) => made,
        };
        let unusable = |reason: String| Error::Unusable { input: made.stage.clone(), reason };
        let artifact = self.inputs.values().find(|artifact| artifact.manifest.stage == made.stage);
        let artifact = artifact.ok_or_else(|| unusable("the stage was started without it".to_owned()))?;
        let files = &artifact.manifest.files;
        if files.iter().any(|file| Path::new(&file.path) == made.file && !file.volatile) {
            return Ok(artifact.folder.join(&made.file));
        }
        let found: Vec<String> =
            files.iter().filter(|file| !file.volatile).map(|file| format!("`{}`", file.path)).collect();
        Err(unusable(format!("it has no file `{}`, but {}", made.file.display(), found.join(", "))))
    }
}

/// Whether a path names something below the folder that it starts from.
pub(super) fn is_within(path: &Path) -> bool {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    plain && !path.as_os_str().is_empty() && !path.to_string_lossy().ends_with('/')
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OriginVisitor)
    }
}

struct OriginVisitor;

impl<'de> Visitor<'de> for OriginVisitor {
    type Value = Origin;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, or a map with `stage` and `file`")
    }

    fn visit_str<E>(self, path: &str) -> Result<Origin, E> {
        Ok(Origin::Outside(path.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Origin, A::Error> {
        Made::deserialize(MapAccessDeserializer::new(map)).map(Origin::Made)
    }
}

impl JsonSchema for Origin {
    fn schema_name() -> Cow<'static, str> {
        "Origin".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A path, an address, or a file that another stage made.",
            "oneOf": [
                { "type": "string" },
                {
                    "type": "object", "required": ["stage", "file"], "additionalProperties": false,
                    "properties": {
                        "stage": { "type": "string", "description": "The stage that makes it." },
                        "file": { "type": "string", "description": "Its path in the stage's folder." }
                    }
                }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_origin_is_a_path_or_a_file_of_a_stage() {
        let read = |json| serde_json::from_value::<Origin>(json).map_err(|error| error.to_string());
        assert_eq!(read(json!("a.fa")), Ok(Origin::Outside("a.fa".into())));
        let made = read(json!({"stage": "a", "file": "d/b.fa"})).unwrap();
        assert_eq!(made.input("sources.0.fasta"), Some(("sources.0.fasta.stage".to_owned(), "a".to_owned())));
        assert_eq!((made.path(), made.problem()), (Path::new("d/b.fa"), None));
        assert_eq!(serde_json::to_value(&made).unwrap(), json!({"stage": "a", "file": "d/b.fa"}));
        for (json, expected) in [
            (json!(7), "expected a path, or a map with `stage` and `file`"),
            (json!({"stage": "a"}), "missing field `file`"),
            (json!({"stage": "a", "fil": "b"}), "unknown field `fil`"),
        ] {
            assert!(read(json.clone()).unwrap_err().contains(expected), "{json}");
        }
        for file in ["../b", "/b", "", "b/"] {
            let origin = read(json!({"stage": "a", "file": file})).unwrap();
            assert!(origin.problem().is_some(), "{file}");
        }
    }
}
