//! Two runs on one page: which stages came out the same, what was set differently, and what came out differently; of matrices
//! also their cells, of both runs or of one alone. Memory: the page.

use serde::Serialize;
use serde_json::Value;

use super::study::view::StudyView;
use super::{Error, Study, environment, number};

/// Rows of a table that are shown.
const ROWS: usize = 500;

/// Letters of a value that are shown.
const LETTERS: usize = 24;

/// Two runs side by side.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Comparison {
    /// The work folder of the first run.
    pub first: String,
    /// That of the second; none where a matrix is shown alone.
    pub second: Option<String>,
    /// The version of genomill.
    pub version: String,
    /// The day of the comparison, as `2026-11-24`.
    pub date: String,
    /// The stages that either run has.
    pub stages: Vec<StagePair>,
    /// The models of their matrices.
    pub study: Option<Study>,
}

/// A stage in two runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StagePair {
    /// Its name.
    pub name: String,
    /// How its artifacts compare.
    pub state: PairState,
    /// The values that differ.
    pub differences: Vec<ValuePair>,
}

/// How two artifacts compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum PairState {
    /// They hold the same bytes.
    #[default]
    #[serde(rename = "the same")]
    Same,
    /// They do not.
    #[serde(rename = "differs")]
    Differs,
    /// Only the first run has one.
    #[serde(rename = "only in the first")]
    OnlyFirst,
    /// Only the second run has one.
    #[serde(rename = "only in the second")]
    OnlySecond,
}

/// A value that differs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ValuePair {
    /// Where it stands in the manifest: `config.window`, `counts.other.rows`, `details. ...`.
    pub path: String,
    /// In the first run; null where it is not there.
    pub first: Value,
    /// In the second run.
    pub second: Value,
    /// What the second is more than the first, as a share of the first.
    pub change: Option<f64>,
}

/// What the template reads.
#[derive(Serialize)]
struct View<'a> {
    of: &'a Comparison,
    style: &'static str,
    title: String,
    version: &'a str,
    tiles: Vec<(&'static str, usize)>,
    study: Option<StudyView>,
    sections: Vec<Section<'a>>,
}

/// The values of one kind that differ.
#[derive(Serialize)]
struct Section<'a> {
    id: &'static str,
    title: &'static str,
    caption: &'static str,
    rows: Vec<Row<'a>>,
    /// How many there are, of which the first are shown.
    all: usize,
}

#[derive(Serialize)]
struct Row<'a> {
    stage: &'a str,
    path: &'a str,
    first: String,
    second: String,
    change: Option<String>,
}

/// Id, title and caption of a section, and what the paths of its values begin with.
type Kind = (&'static str, &'static str, &'static str, &'static [&'static str]);

const KINDS: [Kind; 3] = [
    ("settings", "Settings", "What was set differently, with defaults filled in.", &["config."]),
    (
        "results",
        "Results",
        "What came out differently: counts, measures and scores.",
        &["counts.", "details."],
    ),
    ("sources", "Sources", "What differs of the files that were read.", &["sources."]),
];

/// The comparison as one HTML page, with nothing to load from elsewhere.
pub fn render_comparison(of: &Comparison) -> Result<String, Error> {
    let count = |state| of.stages.iter().filter(|stage| stage.state == state).count();
    let states = [
        ("Stages the same", PairState::Same),
        ("Stages that differ", PairState::Differs),
        ("Only in the first", PairState::OnlyFirst),
        ("Only in the second", PairState::OnlySecond),
    ];
    let sections = KINDS.iter().map(|kind| section(of, kind)).filter(|section| section.all > 0);
    let view = View {
        of,
        style: include_str!("style.css"),
        title: of
            .second
            .as_ref()
            .map_or_else(|| of.first.clone(), |second| format!("{} and {second}", of.first)),
        version: &of.version,
        tiles: states.map(|(label, state)| (label, count(state))).to_vec(),
        study: of.study.as_ref().map(StudyView::new),
        sections: sections.collect(),
    };
    Ok(environment()?.get_template("comparison.html")?.render(minijinja::value::Serde(view))?)
}

fn section<'a>(of: &'a Comparison, &(id, title, caption, prefixes): &Kind) -> Section<'a> {
    let mut rows = Vec::new();
    let mut all = 0;
    for stage in &of.stages {
        for pair in &stage.differences {
            let Some(path) = prefixes.iter().find_map(|prefix| pair.path.strip_prefix(prefix)) else {
                continue;
            };
            all += 1;
            if rows.len() < ROWS {
                rows.push(row(&stage.name, path, pair));
            }
        }
    }
    Section { id, title, caption, rows, all }
}

fn row<'a>(stage: &'a str, path: &'a str, pair: &ValuePair) -> Row<'a> {
    let change = pair.change.filter(|change| change.is_finite());
    let change = change.map(|change| format!("{} %", number::signed(change * 100.0, 1)));
    Row { stage, path, first: shown(&pair.first), second: shown(&pair.second), change }
}

/// A value as the page has it; of long ones the beginning, of fractions four places.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        value => match (value.as_u64(), value.as_f64()) {
            (Some(whole), _) => number::count(whole),
            (None, Some(fraction)) if fraction.abs() >= 1e-3 => number::fixed(fraction, 4),
            _ => value.to_string(),
        },
    };
    if text.chars().count() <= LETTERS {
        return text;
    }
    text.chars().take(LETTERS).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pair(path: &str, first: Value, second: Value, change: Option<f64>) -> ValuePair {
        ValuePair { path: path.to_owned(), first, second, change }
    }

    fn comparison() -> Comparison {
        let differences = vec![
            pair("config.window", json!(1000), json!("<b>"), None),
            pair("counts.other.rows", json!(29418), json!(14709), Some(-0.5)),
            pair("details.loss", json!(1.5), Value::Null, Some(f64::NAN)),
            pair("sources.0.bytes", json!(7), json!(8), Some(1.0 / 7.0)),
        ];
        let stage = |name: &str, state| StagePair { name: name.to_owned(), state, differences: Vec::new() };
        Comparison {
            first: "a".to_owned(),
            second: Some("b".to_owned()),
            stages: vec![
                stage("raw", PairState::Same),
                StagePair { differences, ..stage("rows", PairState::Differs) },
                stage("more", PairState::OnlySecond),
            ],
            ..Comparison::default()
        }
    }

    #[test]
    fn every_difference_is_in_the_section_of_its_kind() {
        let page = render_comparison(&comparison()).unwrap();
        for text in [
            "<h1>a and b</h1>",
            "<td>raw</td><td>the same</td>",
            "<td>more</td><td>only in the second</td>",
            "<td class=\"key\">rows</td><td class=\"path\">window</td><td class=\"n\">1,000</td><td class=\"n\">&lt;b&gt;</td>",
            "<td class=\"n\">29,418</td><td class=\"n\">14,709</td><td class=\"n\">−50.0 %</td>",
            "<td class=\"path\">loss</td><td class=\"n\">1.5000</td><td class=\"n\">–</td><td class=\"n\"></td>",
            "+14.3 %",
        ] {
            assert!(page.contains(text), "{text} is not in {page}");
        }
        for id in ["summary", "stages", "settings", "results", "sources"] {
            assert!(
                page.contains(&format!("<section id=\"{id}\">")) && page.contains(&format!("href=\"#{id}\""))
            );
        }
        assert!(!page.contains("<b>") && !page.contains("NaN"));
    }

    #[test]
    fn a_matrix_is_shown_beside_the_comparison_or_alone() {
        let study = Some(crate::report::study::tests::grid());
        let page = render_comparison(&Comparison { study: study.clone(), ..comparison() }).unwrap();
        assert!(page.contains("<section id=\"study\">") && page.contains("<section id=\"stages\">"));
        let alone = Comparison { first: "a".to_owned(), study, ..Comparison::default() };
        let page = render_comparison(&alone).unwrap();
        assert!(page.contains("<h1>a</h1>") && page.contains("<section id=\"study\">"));
        assert!(
            !page.contains("id=\"stages\"") && !page.contains("#stages") && !page.contains("Stages the same")
        );
        assert!(
            page.contains("<td class=\"wide\">its stage `model` failed: out of &lt;memory&gt;</td>"),
            "{page}"
        );
    }

    #[test]
    fn sections_without_a_difference_are_left_out_and_long_ones_cut() {
        let mut same = comparison();
        same.stages.truncate(1);
        let page = render_comparison(&same).unwrap();
        assert!(!page.contains("id=\"settings\"") && !page.contains("#results"));
        assert!(page.contains("All that the two runs have in common came out the same."));
        let mut long = comparison();
        long.stages[1].differences = vec![pair("details.a", json!(1), json!("x".repeat(200)), None); 501];
        let page = render_comparison(&long).unwrap();
        assert!(page.contains("The first 500 of 501"), "{page}");
        assert!(page.contains(&format!("{}…", "x".repeat(24))) && !page.contains(&"x".repeat(25)));
    }
}
