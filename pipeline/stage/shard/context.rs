//! Tokens per row: one number, or several, of which each makes a set of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tokens per row, such as `512`, or `[512, 4096]` for a set of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected tokens per row, such as 512 or [512, 4096]")]
pub enum Context {
    /// One set, which lies in the artifact's folder.
    One(#[schemars(range(min = 1))] u32),
    /// A set for each, in a folder of its own.
    Several(#[schemars(length(min = 1), inner(range(min = 1)), extend("uniqueItems" = true))] Vec<u32>),
}

impl Context {
    /// All of them, in the order given.
    pub fn list(&self) -> &[u32] {
        match self {
            Self::One(context) => std::slice::from_ref(context),
            Self::Several(contexts) => contexts,
        }
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<String> {
        let list = self.list();
        let twice = (1..list.len()).find(|&i| list[..i].contains(&list[i]));
        match twice {
            _ if list.is_empty() => Some("names none, expected at least one number of tokens".to_owned()),
            _ if list.contains(&0) => Some("is 0, expected at least 1 token".to_owned()),
            Some(i) => Some(format!("has {} twice, expected each once", list[i])),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_one_number_or_a_list_of_different_ones() {
        let cases: [(&str, Result<&[u32], &str>); 7] = [
            ("512", Ok(&[512])),
            ("[512, 64]", Ok(&[512, 64])),
            ("[512]", Ok(&[512])),
            ("[]", Err("names none, expected at least one")),
            ("0", Err("is 0, expected at least 1 token")),
            ("[64, 0]", Err("is 0, expected at least 1 token")),
            ("[64, 512, 64]", Err("has 64 twice")),
        ];
        for (json, expected) in cases {
            let context: Context = serde_json::from_str(json).unwrap();
            match (context.problem(), expected) {
                (None, Ok(expected)) => assert_eq!(context.list(), expected, "{json}"),
                (Some(found), Err(expected)) => assert!(found.contains(expected), "{json}: {found}"),
                (found, expected) => panic!("{json}: {found:?}, expected {expected:?}"),
            }
            assert_eq!(serde_json::to_string(&context).unwrap(), json.replace(", ", ","));
        }
        let error = serde_json::from_str::<Context>("\"long\"").unwrap_err();
        assert!(error.to_string().contains("such as 512 or [512, 4096]"), "{error}");
    }
}
