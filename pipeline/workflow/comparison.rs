//! Two runs side by side: which stages came out the same, and what differs in those that did not, from what they were made
//! from to what they measured. Memory: the manifests of both work folders.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::Error;
use crate::artifact::{Artifact, Manifest};
use crate::fs;

/// Keys of details that list the parts of files; the hash of the content says whether they differ.
const LEFT_OUT: [&str; 2] = ["files", "pages"];

/// A stage in two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Its name.
    pub stage: String,
    /// How its artifacts compare.
    pub state: State,
    /// The values that differ: of `config`, then of `counts`, `details` and `sources`.
    pub differences: Vec<Difference>,
}

/// How two artifacts compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// They hold the same bytes.
    Same,
    /// They do not.
    Differs,
    /// Only the first run has one.
    OnlyFirst,
    /// Only the second run has one.
    OnlySecond,
}

/// A value that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Where it stands, as `details.splits.test.tokens`.
    pub path: String,
    /// In the first run; null where it is not there.
    pub first: Value,
    /// In the second run.
    pub second: Value,
}

impl Difference {
    /// What the second is more than the first, as a share of the first; numbers only.
    pub fn change(&self) -> Option<f64> {
        let (first, second) = (self.first.as_f64()?, self.second.as_f64()?);
        (first != 0.0).then(|| second / first - 1.0)
    }
}

/// Compares the artifacts of two work folders by the names of their stages.
///
/// # Errors
/// When a folder cannot be listed, or holds no artifact.
pub fn compare(first: &Path, second: &Path) -> Result<Vec<Compared>, Error> {
    let (first, second) = (manifests(first)?, manifests(second)?);
    let stages: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    Ok(stages.into_iter().map(|stage| stages_of(stage, first.get(stage), second.get(stage))).collect())
}

/// The manifests of a work folder, by stage.
fn manifests(work: &Path) -> Result<BTreeMap<String, Manifest>, Error> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(work).map_err(fs::error("list", work))? {
        let path = entry.map_err(fs::error("list", work))?.path();
        if let Ok(artifact) = Artifact::open(&path) {
            found.insert(artifact.manifest.stage.clone(), artifact.manifest);
        }
    }
    if found.is_empty() {
        return Err(Error::NoArtifacts { path: work.to_owned() });
    }
    Ok(found)
}

fn stages_of(stage: &str, first: Option<&Manifest>, second: Option<&Manifest>) -> Compared {
    let (state, differences) = match (first, second) {
        (Some(first), Some(second)) => {
            let state = if first.content == second.content { State::Same } else { State::Differs };
            (state, differences(first, second))
        }
        (_, None) => (State::OnlyFirst, Vec::new()),
        (None, _) => (State::OnlySecond, Vec::new()),
    };
    Compared { stage: stage.to_owned(), state, differences }
}

fn differences(first: &Manifest, second: &Manifest) -> Vec<Difference> {
    let (first, second) = (serde_json::to_value(first), serde_json::to_value(second));
    let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());
    let mut found = Vec::new();
    for part in ["config", "counts", "details", "sources"] {
        differ(part, &first[part], &second[part], &mut found);
    }
    found
}

/// Lists the values at the ends of maps and lists that differ.
fn differ(path: &str, first: &Value, second: &Value, found: &mut Vec<Difference>) {
    if first == second {
        return;
    }
    let (a, b) = (children(first), children(second));
    if a.is_empty() && b.is_empty() {
        let (path, first, second) = (path.to_owned(), first.clone(), second.clone());
        found.push(Difference { path, first, second });
        return;
    }
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for key in keys.into_iter().filter(|key| !LEFT_OUT.contains(&key.as_str())) {
        let of = |map: &BTreeMap<String, &Value>| map.get(key).copied().cloned().unwrap_or_default();
        differ(&format!("{path}.{key}"), &of(&a), &of(&b), found);
    }
}

/// What a map or a list holds, by key or number.
fn children(value: &Value) -> BTreeMap<String, &Value> {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => (0..).map(|n: usize| n.to_string()).zip(items).collect(),
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_that_differ_are_found_wherever_they_stand() {
        let cases = [
            (json!({"a": 1}), json!({"a": 1}), json!([])),
            (json!({"a": 1}), json!({"a": 2}), json!([["x.a", 1, 2]])),
            (json!({"a": {"b": [1, 2]}}), json!({"a": {"b": [1, 3]}}), json!([["x.a.b.1", 2, 3]])),
            (json!({"a": 1}), json!({}), json!([["x.a", 1, null]])),
            (json!({}), json!({"a": {"b": "c"}}), json!([["x.a.b", null, "c"]])),
            (json!({"files": [1]}), json!({"files": [2], "n": 1}), json!([["x.n", null, 1]])),
        ];
        for (first, second, expected) in cases {
            let mut found = Vec::new();
            differ("x", &first, &second, &mut found);
            let found: Vec<Value> = found.iter().map(|d| json!([d.path, d.first, d.second])).collect();
            assert_eq!(Value::Array(found), expected, "{first} {second}");
        }
    }

    #[test]
    fn a_change_is_a_share_of_the_first() {
        for (first, second, expected) in
            [(json!(2), json!(3), Some(0.5)), (json!(0), json!(3), None), (json!("a"), json!(1), None)]
        {
            assert_eq!(Difference { path: String::new(), first, second }.change(), expected);
        }
    }
}
