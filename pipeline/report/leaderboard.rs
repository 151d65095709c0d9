//! The leaderboard: our results beside published figures, with what makes them incomparable said. As a page, as Markdown, as CSV.
//!
//! Figures of one task stand together, the best first. Memory: the rows.

pub mod sides;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::number::{count, fixed, signed};
use super::{Error, environment};
use crate::evaluate::result::Outcome;
use crate::evaluate::versus::{self, Pair};
use crate::metric::scores::Metric;
use crate::task::published::{self, Published};
use sides::{Side, sides};

/// All that is shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Leaderboard {
    /// Figures, task by task, the best first.
    pub rows: Vec<Row>,
    /// Published, reproduced and by the common protocol, side by side.
    #[serde(default)]
    pub sides: Vec<Side>,
    /// Our results against each other.
    pub pairs: Vec<Pair>,
    /// Where published figures come from.
    pub sources: Vec<SourceOf>,
}

/// A model's figure on a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The task.
    pub task: String,
    /// The score.
    pub metric: Metric,
    /// The model.
    pub model: String,
    /// Of ours the family that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// How it was asked; of published figures the key of the source.
    pub protocol: String,
    /// The recipe of the model's own that it was asked by; none by the common protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Whether it was computed here.
    pub ours: bool,
    /// Number of parameters, where it is known.
    pub parameters: Option<u64>,
    /// The mean over runs; none where it is undefined.
    pub value: Option<f64>,
    /// Standard deviation over runs; of published figures what their source calls a spread.
    pub sd: Option<f64>,
    /// The lowest and the highest run.
    pub range: Option<[f64; 2]>,
    /// 95 % bootstrap interval over test examples, the mean over runs.
    pub interval: Option<[f64; 2]>,
    /// The mean on the clean test examples, where not all of them are.
    pub clean: Option<f64>,
    /// Runs.
    pub runs: Option<u32>,
    /// What a reader should know.
    pub remarks: Vec<String>,
}

/// Where published figures come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceOf {
    /// As rows name it.
    pub key: String,
    /// What it is, and how the figures came to be.
    pub text: String,
}

impl Leaderboard {
    /// Our results, and where it is asked the published figures of the same tasks.
    ///
    /// # Errors
    /// [`versus::Error`] where predictions cannot be compared.
    pub fn new(results: &[(PathBuf, Outcome)], with_published: bool) -> Result<Self, versus::Error> {
        let mut rows: Vec<Row> = results.iter().map(|(_, outcome)| Row::ours(outcome)).collect();
        remark_on_differences(&mut rows, results);
        let tasks: BTreeSet<&str> = results.iter().map(|(_, outcome)| outcome.task.name.as_str()).collect();
        let mut sources = BTreeMap::new();
        for task in tasks.into_iter().filter(|_| with_published) {
            for figure in published::published(Some(task)) {
                if let Some(source) = published::source(&figure) {
                    sources.insert(source.key, describe(source));
                }
                rows.push(Row::published(&figure));
            }
        }
        rows.sort_by(|a, b| {
            let value = |row: &Row| row.value.unwrap_or(f64::NEG_INFINITY);
            a.task.cmp(&b.task).then(value(b).total_cmp(&value(a))).then(a.model.cmp(&b.model))
        });
        let sources = sources.into_iter().map(|(key, text)| SourceOf { key: key.to_owned(), text }).collect();
        Ok(Self { sides: sides(&rows), rows, pairs: versus::pairs(results)?, sources })
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut lines = vec![
            "| task | model | protocol | score | mean | sd | min to max | 95 % interval | clean | runs | remarks |"
                .to_owned(),
            "|---|---|---|---|---|---|---|---|---|---|---|".to_owned(),
        ];
        lines.extend(self.rows.iter().map(|row| {
            let cells = row.cells();
            let cells = cells.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>();
            format!("| {} |", cells.join(" | "))
        }));
        lines.push(String::new());
        if !self.sides.is_empty() {
            lines.push(
                "| task | model | score | published | own recipe | common protocol | beyond noise |"
                    .to_owned(),
            );
            lines.push("|---|---|---|---|---|---|---|".to_owned());
            lines.extend(self.sides.iter().map(|side| {
                let cells = cells_of_side(side).map(|cell| cell.join("<br>").replace('|', "\\|"));
                format!("| {} |", cells.join(" | "))
            }));
            lines.push(String::new());
        }
        if !self.pairs.is_empty() {
            lines.push("| task | left | right | score | left less right | 95 % interval | p, Holm | AUROC, left less right | p (DeLong), Holm |".to_owned());
            lines.push("|---|---|---|---|---|---|---|---|---|".to_owned());
            lines.extend(self.pairs.iter().map(|pair| format!("| {} |", cells_of(pair).join(" | "))));
            lines.push(String::new());
        }
        lines.extend(self.notes());
        lines.extend(self.sources.iter().map(|source| format!("- {}: {}", source.key, source.text)));
        lines.join("\n") + "\n"
    }

    /// The rows as CSV; figures in full.
    pub fn csv(&self) -> String {
        let mut table = csv::Writer::from_writer(Vec::new());
        let header = [
            "task",
            "model",
            "protocol",
            "ours",
            "parameters",
            "metric",
            "mean",
            "sd",
            "min",
            "max",
            "low",
            "high",
            "clean",
            "runs",
            "remarks",
        ];
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let first = |pair: Option<[f64; 2]>, at: usize| number(pair.map(|pair| pair[at]));
        let mut rows = self.rows.iter().map(|row| {
            [
                row.task.clone(),
                row.model.clone(),
                row.protocol.clone(),
                row.ours.to_string(),
                row.parameters.map_or(String::new(), |n| n.to_string()),
                row.metric.to_string(),
                number(row.value),
                number(row.sd),
                first(row.range, 0),
                first(row.range, 1),
                first(row.interval, 0),
                first(row.interval, 1),
                number(row.clean),
                row.runs.map_or(String::new(), |n| n.to_string()),
                row.remarks.join("; "),
            ]
        });
        let written =
            table.write_record(header).and_then(|()| rows.try_for_each(|row| table.write_record(row)));
        // Writing to memory does not fail.
        written
            .ok()
            .and_then(|()| table.into_inner().ok())
            .map_or(String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// As one HTML page that loads nothing.
    ///
    /// # Errors
    /// [`Error`] when the template fails.
    pub fn page(&self, version: &str, date: &str) -> Result<String, Error> {
        #[derive(Serialize)]
        struct View<'a> {
            title: &'static str,
            version: &'a str,
            date: &'a str,
            style: &'static str,
            board: Board<'a>,
        }
        let (title, style) = ("Leaderboard", include_str!("style.css"));
        let view = View { title, version, date, style, board: Board::new(self) };
        Ok(environment()?.get_template("leaderboard.html")?.render(minijinja::value::Serde(view))?)
    }

    /// What is true of all figures.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "`clean` is the mean on test examples that are no copies of training examples and share neither most of their places nor \
             most of their k-mers with them; empty where all are so."
                .to_owned(),
            "Intervals are over test examples, standard deviations over seeds; neither is in the other."
                .to_owned(),
            "Figures of one protocol are comparable, unless a remark says otherwise.".to_owned(),
        ];
        if self.rows.iter().any(|row| !row.ours) {
            notes.push(
                "Published figures came about by other protocols, of which some chose the best epoch on the test set: they are not comparable with ours, \
                 nor with those of another source."
                    .to_owned(),
            );
        }
        notes
    }
}

fn describe(source: &published::Source) -> String {
    let secondary = if source.is_secondary { " (not from who ran the models)" } else { "" };
    let spread = if source.spread.is_empty() { String::new() } else { format!("; ±: {}", source.spread) };
    format!("{}{secondary}; {}{spread}", source.title, source.protocol)
}

/// Says of rows of one task or protocol what keeps them apart.
fn remark_on_differences(rows: &mut [Row], results: &[(PathBuf, Outcome)]) {
    let contents = numbers(results, &|outcome| (outcome.task.name.clone(), outcome.task.content.clone()));
    let configurations = numbers(results, &|outcome| {
        let config = serde_json::to_string(&outcome.config).unwrap_or_default();
        (format!("{} {}", outcome.task.name, outcome.config.label()), config)
    });
    for ((row, content), configuration) in rows.iter_mut().zip(contents).zip(configurations) {
        let apart = |what: &str, number: usize, of: &str| {
            format!("{what} {number} of this {of}: not comparable with others of it")
        };
        row.remarks.extend(content.map(|number| apart("data", number, "name")));
        row.remarks.extend(configuration.map(|number| apart("configuration", number, "protocol")));
    }
}

/// Of each result which of several contents of its group it has, from 1; none where all of the group have the same.
fn numbers(results: &[(PathBuf, Outcome)], of: &dyn Fn(&Outcome) -> (String, String)) -> Vec<Option<usize>> {
    let all: Vec<(String, String)> = results.iter().map(|(_, outcome)| of(outcome)).collect();
    let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (group, content) in &all {
        groups.entry(group).or_default().insert(content);
    }
    let number = |(group, content): &(String, String)| {
        let contents = groups.get(group.as_str()).filter(|contents| contents.len() > 1)?;
        Some(1 + contents.iter().take_while(|other| **other < content.as_str()).count())
    };
    all.iter().map(number).collect()
}

impl Row {
    fn ours(outcome: &Outcome) -> Self {
        let (summary, metric) = (&outcome.summary, outcome.summary.metric);
        let intervals = outcome.runs.iter().filter_map(|run| run.scores.intervals.get(&metric));
        let ends: Vec<[f64; 2]> = intervals.map(|interval| [interval.low, interval.high]).collect();
        let mean = |at: usize| ends.iter().map(|ends| ends[at]).sum::<f64>() / ends.len() as f64;
        let whole = !ends.is_empty() && ends.len() == outcome.runs.len();
        let of_classes = || outcome.task.classes.len() as u64;
        let mut remarks = outcome.notes.clone();
        if outcome.looks > 1 && !remarks.iter().any(|remark| remark.starts_with("look ")) {
            remarks.push(format!("look {}", outcome.looks));
        }
        if of_classes() > 2 {
            remarks.push(format!("{} classes", count(of_classes())));
        }
        Self {
            task: outcome.task.name.clone(),
            metric,
            model: outcome.model.name.clone(),
            family: Some(outcome.model.family.clone()),
            protocol: outcome.config.label(),
            recipe: outcome.config.recipe.map(|recipe| recipe.to_string()),
            ours: true,
            parameters: Some(outcome.model.parameters),
            value: summary.all.map(|all| all.mean),
            sd: summary.all.and_then(|all| all.sd),
            range: summary.all.map(|all| [all.min, all.max]),
            interval: whole.then(|| [mean(0), mean(1)]),
            clean: outcome.clean.as_ref().and_then(|clean| clean.all).map(|all| all.mean),
            runs: u32::try_from(outcome.runs.len()).ok(),
            remarks,
        }
    }

    fn published(figure: &Published) -> Self {
        Self {
            task: figure.task.clone(),
            metric: figure.metric,
            model: figure.model.clone(),
            family: None,
            protocol: format!("published: {}", figure.source),
            recipe: None,
            ours: false,
            parameters: None,
            value: Some(figure.value),
            sd: figure.spread,
            range: None,
            interval: None,
            clean: None,
            runs: None,
            remarks: Vec::new(),
        }
    }

    /// What noise allows the mean to be: its 95 % interval over test examples and that over seeds, put together. Nothing of published
    /// figures without a spread, and of ours without an interval.
    pub fn noise(&self) -> Option<[f64; 2]> {
        let value = self.value?;
        let runs = self.runs.unwrap_or(1);
        let seeds =
            self.sd.filter(|_| runs > 1).map_or(0.0, |sd| student(runs - 1) * sd / f64::from(runs).sqrt());
        if !self.ours {
            return self.sd.map(|spread| [value - spread, value + spread]);
        }
        self.interval
            .map(|[low, high]| [value - (value - low).hypot(seeds), value + (high - value).hypot(seeds)])
    }

    /// The cells of a table.
    fn cells(&self) -> [String; 11] {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| fixed(value, 4));
        let pair = |pair: Option<[f64; 2]>| {
            pair.map_or(String::new(), |[a, b]| format!("{} to {}", fixed(a, 4), fixed(b, 4)))
        };
        [
            self.task.clone(),
            self.model.clone(),
            self.protocol.clone(),
            self.metric.to_string(),
            self.value.map_or("undefined".to_owned(), |value| fixed(value, 4)),
            number(self.sd),
            pair(self.range.filter(|_| self.runs.is_some_and(|runs| runs > 1))),
            pair(self.interval),
            number(self.clean),
            self.runs.map_or(String::new(), |runs| runs.to_string()),
            self.remarks.join("; "),
        ]
    }
}

/// The 97.5 % quantile of Student's distribution with so many degrees of freedom, at least 1.
fn student(freedom: u32) -> f64 {
    const QUANTILES: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    let exact = usize::try_from(freedom).ok().and_then(|freedom| QUANTILES.get(freedom.saturating_sub(1)));
    let part = f64::from(freedom).recip();
    // Fisher's expansion, right to a thousandth from 10 on.
    exact.copied().unwrap_or(1.96 + part * (2.372 + part * (2.823 + part * 2.556)))
}

/// The cells of a table, each of one line or more.
fn cells_of_side(side: &Side) -> [Vec<String>; 7] {
    let texts = |figures: &[sides::Figure]| figures.iter().map(sides::Figure::text).collect::<Vec<_>>();
    [
        vec![side.task.clone()],
        vec![side.model.clone()],
        vec![side.metric.to_string()],
        texts(&side.published),
        texts(&side.recipe),
        texts(&side.common),
        side.disagreements.clone(),
    ]
}

fn cells_of(pair: &Pair) -> [String; 9] {
    let p = |p: Option<f64>| {
        p.map_or(String::new(), |p| if p < 0.0001 { "< 0.0001".to_owned() } else { fixed(p, 4) })
    };
    [
        pair.task.clone(),
        pair.left.clone(),
        pair.right.clone(),
        pair.metric.to_string(),
        signed(pair.difference, 4),
        format!("{} to {}", signed(pair.low, 4), signed(pair.high, 4)),
        p(Some(pair.p_corrected)),
        pair.areas.map_or(String::new(), |areas| signed(areas.difference, 4)),
        p(pair.areas.and_then(|areas| areas.p_corrected)),
    ]
}

/// What the template prints.
#[derive(Serialize)]
pub(super) struct Board<'a> {
    rows: Vec<RowView<'a>>,
    tasks: BTreeSet<&'a str>,
    protocols: BTreeSet<&'a str>,
    pairs: Vec<[String; 9]>,
    sides: Vec<[Vec<String>; 7]>,
    notes: Vec<String>,
    sources: &'a [SourceOf],
}

#[derive(Serialize)]
struct RowView<'a> {
    row: &'a Row,
    cells: [String; 11],
    svg: Option<String>,
}

impl<'a> Board<'a> {
    pub(super) fn new(of: &'a Leaderboard) -> Self {
        let mut scales: BTreeMap<&str, [f64; 2]> = BTreeMap::new();
        for row in &of.rows {
            let ends = row.interval.into_iter().chain(row.range).flatten().chain(row.value);
            for end in ends.filter(|end| end.is_finite()) {
                let scale = scales.entry(&row.task).or_insert([end, end]);
                *scale = [scale[0].min(end), scale[1].max(end)];
            }
        }
        let view = |row: &'a Row| {
            let svg = scales.get(row.task.as_str()).and_then(|scale| drawn(row, *scale));
            RowView { row, cells: row.cells(), svg }
        };
        Self {
            rows: of.rows.iter().map(view).collect(),
            tasks: of.rows.iter().map(|row| row.task.as_str()).collect(),
            protocols: of.rows.iter().map(|row| row.protocol.as_str()).collect(),
            pairs: of.pairs.iter().map(cells_of).collect(),
            sides: of.sides.iter().map(cells_of_side).collect(),
            notes: of.notes(),
            sources: &of.sources,
        }
    }
}

/// A row's figure on the scale of its task: a line for the interval, a dot for the mean.
fn drawn(row: &Row, [low, high]: [f64; 2]) -> Option<String> {
    const WIDTH: f64 = 120.0;
    const MARGIN: f64 = 4.0;
    let value = row.value?;
    let place =
        |value: f64| MARGIN + (WIDTH - 2.0 * MARGIN) * (value - low) / (high - low).max(f64::MIN_POSITIVE);
    let line = |ends: Option<[f64; 2]>, stroke: &str| {
        ends.map_or(String::new(), |[a, b]| {
            format!(r#"<line x1="{:.1}" x2="{:.1}" y1="7" y2="7" {stroke}/>"#, place(a), place(b))
        })
    };
    let (interval, range) = (
        line(row.interval, r#"stroke="var(--line)" stroke-width="2""#),
        line(row.range, r#"stroke="var(--s1)" stroke-width="4""#),
    );
    let fill = if row.ours { "var(--s1)" } else { "var(--soft)" };
    let label = row.cells();
    let title = format!("{} {}", label[3], label[4]);
    Some(format!(
        r#"<svg width="120" height="14" viewBox="0 0 120 14" role="img" aria-label="{title}">{interval}{range}<circle cx="{:.1}" cy="7" r="3.5" fill="{fill}"/></svg>"#,
        place(value)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::protocol::Protocol;
    use crate::evaluate::result;
    use crate::evaluate::versus::tests::made;

    fn board() -> Leaderboard {
        let folder = tempfile::tempdir().unwrap();
        made(folder.path(), "tf-0", "a<b|", Protocol::LinearProbe, &[1.2, 1.4, 1.3]);
        made(folder.path(), "tf-0", "worse", Protocol::FromScratch, &[6.0]);
        Leaderboard::new(&result::find(folder.path()).unwrap(), true).unwrap()
    }

    #[test]
    fn our_figures_stand_beside_the_published_ones_and_what_keeps_them_apart_is_said() {
        let board = board();
        let published = published::published(Some("tf-0")).len();
        assert_eq!((board.rows.len(), board.pairs.len()), (2 + published, 1));
        assert!(board.rows.is_sorted_by(|a, b| a.value >= b.value));
        let ours = board.rows.iter().find(|row| row.model == "a<b|").unwrap();
        let [low, high] = ours.interval.unwrap();
        assert!(low < ours.value.unwrap() && ours.value.unwrap() < high && ours.sd.is_some());
        let markdown = board.markdown();
        for expected in [
            "| tf-0 | a<b\\| | linear-probe | mcc | 0.",
            "| 3 | 3 sequences were cut |",
            "| tf-0 | DNABERT-2 | published: dnabert2 | mcc | 0.7199 |  |  |  |  |  |  |",
            "| tf-0 | a<b|, linear-probe | worse, from-scratch | mcc | +",
            "they are not comparable with ours",
            "- dnabert2: DNABERT-2 paper, Table 4 (arXiv 2306.15006); full fine-tuning",
        ] {
            assert!(markdown.contains(expected), "no `{expected}` in\n{markdown}");
        }
    }

    #[test]
    fn other_configurations_of_a_protocol_are_remarked_on() {
        let folder = tempfile::tempdir().unwrap();
        made(folder.path(), "tf-0", "a", Protocol::LinearProbe, &[1.2]);
        made(folder.path(), "tf-0", "b", Protocol::LinearProbe, &[1.3]);
        let mut results = result::find(folder.path()).unwrap();
        let clean = Leaderboard::new(&results, false).unwrap();
        assert!(clean.rows.iter().all(|row| row.remarks == ["3 sequences were cut"]), "{:?}", clean.rows);
        results[0].1.config.training.epochs = 99;
        results[1].1.looks = 3;
        let board = Leaderboard::new(&results, false).unwrap();
        let remarks: Vec<String> = board.rows.iter().map(|row| row.remarks.join("; ")).collect();
        assert!(
            remarks.iter().all(|remark| remark.contains(" of this protocol: not comparable")),
            "{remarks:?}"
        );
        assert!(remarks.iter().any(|remark| remark.contains("look 3")), "{remarks:?}");
        results[0].1.task.content = "other".to_owned();
        let board = Leaderboard::new(&results, false).unwrap();
        assert!(
            board.pairs.is_empty()
                && board.rows[0].remarks.iter().any(|remark| remark.contains("of this name: not comparable"))
        );
    }

    #[test]
    fn noise_has_the_test_set_and_the_seeds_in_it() {
        let row = |sd, runs| Row {
            value: Some(0.5),
            sd,
            runs,
            interval: Some([0.47, 0.53]),
            ..Row::published(&published::published(Some("tf-0"))[0])
        };
        let ours = |sd, runs| Row { ours: true, ..row(sd, runs) };
        // Over two runs 0.04 = 12.706 sd / sqrt(2) beside 0.03.
        let sd = 0.04 * 2.0_f64.sqrt() / 12.706;
        let [low, high] = ours(Some(sd), Some(2)).noise().unwrap();
        assert!((low - 0.45).abs() < 1e-9 && (high - 0.55).abs() < 1e-9, "{low} {high}");
        assert_eq!(ours(None, Some(1)).noise(), Some([0.47, 0.53]));
        assert_eq!(row(Some(0.25), None).noise(), Some([0.25, 0.75]));
        assert_eq!(row(None, None).noise(), None);
        for (freedom, expected) in
            [(1, 12.706), (4, 2.776), (10, 2.228), (11, 2.201), (30, 2.042), (120, 1.980)]
        {
            assert!((student(freedom) - expected).abs() < 1e-3, "{freedom}: {}", student(freedom));
        }
    }

    #[test]
    fn csv_has_the_figures_in_full() {
        let board = board();
        let csv = board.csv();
        let mut rows = csv::Reader::from_reader(csv.as_bytes());
        let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), board.rows.len());
        let ours = rows.iter().find(|row| &row[1] == "a<b|").unwrap();
        let value = board.rows.iter().find(|row| row.model == "a<b|").unwrap().value.unwrap();
        assert_eq!((&ours[3], &ours[4], ours[6].parse()), ("true", "270336", Ok(value)));
    }

    #[test]
    fn the_page_draws_intervals_and_escapes_names() {
        let page = board().page("0.1.0", "2026-11-26").unwrap();
        for expected in [
            "a&lt;b|",
            "<option>linear-probe</option>",
            "<svg width=\"120\"",
            "data-protocol=\"published: dnabert2\"",
            "not comparable with ours",
        ] {
            assert!(page.contains(expected), "no {expected}");
        }
        assert!(!page.contains("a<b"));
        assert!(!page.contains("src=") && !page.contains("http"), "nothing is loaded");
    }
}
