//! Matrix sweeps: axes of values, and the combinations of them that stages are expanded to.
//!
//! A stage that uses `${matrix.x}`, or reads from one that does, exists once for each combination of the axes that it
//! depends on. An expansion is called `stage@axis=value`, with several axes `stage@a=1,b=2`, the axes in alphabetical
//! order: a folder and a word of the shell, and the same whatever else the axes hold. Memory: the combinations.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::yaml::{Item, Node, Span};

/// Between a stage's name and its combination.
pub const AT: char = '@';

/// The longest name of an expansion, in bytes: a folder's name may have 255.
pub const MAX_NAME_BYTES: usize = 200;

/// A value of some axes, by axis.
pub type Combination = BTreeMap<String, Value>;

/// An axis and what it runs through.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub name: String,
    /// Where it is written; nowhere if the command line gives it.
    pub span: Option<Span>,
    pub values: Vec<Value>,
}

/// The name of an expansion; that of the stage itself where it depends on no axis.
pub(super) fn name(stage: &str, at: &Combination) -> String {
    if at.is_empty() { stage.to_owned() } else { format!("{stage}{AT}{}", words(at)) }
}

/// The stage of an expansion, as the file names it.
pub fn base(name: &str) -> &str {
    name.split_once(AT).map_or(name, |(stage, _)| stage)
}

/// `context=256,vocabulary=16`.
pub(super) fn words(at: &Combination) -> String {
    at.iter().map(|(axis, value)| format!("{axis}={}", word(value))).collect::<Vec<_>>().join(",")
}

/// A value as it stands in names: whatever is no letter, digit, `.`, `_`, `+` or `-` becomes `-`.
pub(super) fn word(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
    text.chars().map(|c| if plain(c) { c } else { '-' }).collect()
}

/// Every combination of the axes named in `used`; a single empty one without axes.
pub(super) fn combinations(axes: &[Axis], used: &BTreeSet<String>) -> Vec<Combination> {
    let mut all = vec![Combination::new()];
    for axis in axes.iter().filter(|axis| used.contains(&axis.name)) {
        let with = |at: &Combination| {
            let at = at.clone();
            axis.values.iter().map(move |value| {
                let mut at = at.clone();
                at.insert(axis.name.clone(), value.clone());
                at
            })
        };
        all = all.iter().flat_map(with).collect();
    }
    all
}

/// Both combinations in one, unless an axis has another value in each.
pub(super) fn joined(a: &Combination, b: &Combination) -> Option<Combination> {
    let agree = b.iter().all(|(axis, value)| a.get(axis).is_none_or(|other| other == value));
    agree.then(|| a.iter().chain(b).map(|(axis, value)| (axis.clone(), value.clone())).collect())
}

/// The axes that a value uses, but for what stands at the paths that `skip` knows.
pub(super) fn used(item: &Item, skip: &dyn Fn(&[String]) -> bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(item, &mut Vec::new(), skip, &mut found);
    found
}

fn collect(
    item: &Item,
    path: &mut Vec<String>,
    skip: &dyn Fn(&[String]) -> bool,
    found: &mut BTreeSet<String>,
) {
    if skip(path) {
        return;
    }
    match &item.node {
        Node::Scalar(Value::String(text)) => found.extend(axes_of(text).map(str::to_owned)),
        Node::Scalar(_) => {}
        Node::List(items) => items.iter().for_each(|item| collect(item, path, skip, found)),
        Node::Map(entries) => {
            for (key, _, item) in entries {
                path.push(key.clone());
                collect(item, path, skip, found);
                path.pop();
            }
        }
    }
}

/// The axes that a text uses, as `${matrix.axis}`.
fn axes_of(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split("${matrix.").zip(text.split("${matrix.").skip(1));
    let meant = parts.filter(|(before, _)| !before.ends_with('$'));
    meant.filter_map(|(_, rest)| rest.split_once('}')).map(|(axis, _)| axis)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(pairs: &[(&str, Value)]) -> Combination {
        pairs.iter().map(|(axis, value)| ((*axis).to_owned(), value.clone())).collect()
    }

    #[test]
    fn names_are_words_and_do_not_depend_on_the_order_of_axes() {
        for (pairs, expected) in [
            (&[][..], "bpe"),
            (&[("vocabulary", json!(1024))], "bpe@vocabulary=1024"),
            (&[("vocabulary", json!(16)), ("context", json!(256))], "bpe@context=256,vocabulary=16"),
            (&[("genome", json!("../a b/ä.fa"))], "bpe@genome=..-a-b--.fa"),
            (
                &[("rate", json!(5e-3)), ("on", json!(true)), ("most", json!(null))],
                "bpe@most=null,on=true,rate=0.005",
            ),
        ] {
            let name = name("bpe", &at(pairs));
            assert_eq!(name, expected);
            assert_eq!(base(&name), "bpe");
        }
    }

    #[test]
    fn only_axes_in_use_are_combined() {
        let axis = |name: &str, values: &[u32]| Axis {
            name: name.to_owned(),
            span: None,
            values: values.iter().map(|&value| json!(value)).collect(),
        };
        let axes = [axis("a", &[1, 2]), axis("b", &[3, 4, 5])];
        for (used, expected) in [(&[][..], 1), (&["a"], 2), (&["b"], 3), (&["a", "b"], 6)] {
            let used = used.iter().map(|&axis| axis.to_owned()).collect();
            assert_eq!(combinations(&axes, &used).len(), expected, "{used:?}");
        }
    }

    #[test]
    fn combinations_join_where_they_agree() {
        let (one, two) = (at(&[("a", json!(1))]), at(&[("a", json!(2))]));
        let both = at(&[("a", json!(1)), ("b", json!(3))]);
        assert_eq!(joined(&one, &both), Some(both.clone()));
        assert_eq!(joined(&two, &both), None);
        assert_eq!(joined(&at(&[]), &two), Some(two));
    }

    #[test]
    fn axes_are_found_wherever_they_are_used() {
        let text =
            "{a: '${matrix.x}', b: [1, {c: 'n-${matrix.y}-${matrix.z}'}], d: '${params.w}', e: '${matrix.v}',
            f: '$${matrix.u}'}";
        let item = super::super::yaml::parse(text).unwrap();
        let found = used(&item, &|path| path == ["e"]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["x", "y", "z"]);
    }
}
