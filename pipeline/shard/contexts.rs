//! Artifacts with several contexts: for each, a folder that is a shard set of its own.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::artifact::Artifact;

/// `details` of an artifact with several contexts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contexts {
    /// Tokens per row of each set, which lies in [`folder`].
    pub contexts: Vec<usize>,
}

/// The folder of a set within an artifact with several contexts.
pub fn folder(context: usize) -> String {
    format!("context-{context}")
}

/// The contexts of an artifact, where it has several.
pub fn several(artifact: &Artifact) -> Option<Vec<usize>> {
    let details = serde_json::from_value::<Contexts>(artifact.manifest.details.clone());
    details.ok().map(|details| details.contexts)
}

/// The sets of an artifact: itself, or one of each context.
pub fn all(artifact: &Artifact) -> Result<Vec<Artifact>, Error> {
    match several(artifact) {
        None => Ok(vec![artifact.clone()]),
        Some(contexts) => contexts.iter().map(|&context| part(artifact, context)).collect(),
    }
}

/// The set of an artifact whose rows have `context` tokens; without a number, its only set.
pub fn choose(artifact: &Artifact, context: Option<usize>) -> Result<Artifact, Error> {
    let wrong = |reason| Error::NotShards { path: artifact.folder.clone(), reason };
    match (several(artifact), context) {
        (None, None) => Ok(artifact.clone()),
        (None, Some(context)) => {
            let found = &artifact.manifest.details["context"];
            let same = found.as_u64() == Some(context as u64);
            let reason = format!("its rows have {found} tokens, `context` asks for {context}");
            same.then(|| artifact.clone()).ok_or_else(|| wrong(reason))
        }
        (Some(contexts), Some(context)) if contexts.contains(&context) => part(artifact, context),
        (Some(contexts), Some(context)) => {
            Err(wrong(format!("it has rows of {} tokens, `context` asks for {context}", list(&contexts))))
        }
        (Some(contexts), None) => Err(wrong(unnamed(&contexts, &artifact.folder))),
    }
}

/// Why an artifact with several contexts is no shard set.
pub(super) fn unnamed(contexts: &[usize], path: &Path) -> String {
    let first = contexts.first().map(|&context| path.join(folder(context)).display().to_string());
    format!(
        "it has rows of {} tokens; name one of them with `context`, or open its folder, `{}`",
        list(contexts),
        first.unwrap_or_default()
    )
}

fn part(artifact: &Artifact, context: usize) -> Result<Artifact, Error> {
    Ok(Artifact::open(&artifact.path(&folder(context)))?)
}

fn list(contexts: &[usize]) -> String {
    contexts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{PLAIN, publish, rows};
    use super::*;

    #[test]
    fn a_set_is_chosen_by_its_context() {
        let work = tempfile::tempdir().unwrap();
        let one = publish(work.path(), PLAIN, rows(PLAIN, 3), 1 << 20);
        let mut several = one.clone();
        several.manifest.details = serde_json::json!({"contexts": [64, 16]});
        for context in ["context-64", "context-16"] {
            let part = one.folder.join(context);
            std::fs::create_dir(&part).unwrap();
            std::fs::copy(one.path("manifest.json"), part.join("manifest.json")).unwrap();
        }
        let cases: [(&Artifact, Option<usize>, Result<&str, &str>); 6] = [
            (&one, None, Ok("shards")),
            (&one, Some(64), Ok("shards")),
            (&one, Some(16), Err("its rows have 64 tokens, `context` asks for 16")),
            (&several, Some(16), Ok("shards/context-16")),
            (&several, Some(32), Err("it has rows of 64 or 16 tokens, `context` asks for 32")),
            (&several, None, Err("it has rows of 64 or 16 tokens; name one of them with `context`, or open")),
        ];
        for (artifact, context, expected) in cases {
            match (choose(artifact, context), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.folder, work.path().join(expected)),
                (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
                (found, expected) => panic!("{context:?}: {found:?}, expected {expected:?}"),
            }
        }
        assert_eq!((all(&one).unwrap().len(), all(&several).unwrap().len()), (1, 2));
    }
}
