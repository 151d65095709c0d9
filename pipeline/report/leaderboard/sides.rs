//! Published, reproduced with the model's own recipe, and by the common protocol: one row for each task and model, and where these
//! disagree by more than noise.
//!
//! The noise of our figures is that of the test examples and of the seeds; of published ones it is their spread, and where their
//! source gives none ours alone counts. Memory: the rows.

use serde::{Deserialize, Serialize};

use super::Row;
use crate::metric::scores::Metric;
use crate::report::number::{fixed, signed};
use crate::report::study::{Gap, Measured};

/// A model on a task, by whoever says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// The task.
    pub task: String,
    /// The score.
    pub metric: Metric,
    /// The model as we call it.
    pub model: String,
    /// Its number of parameters, which need not be that of the published one.
    pub parameters: Option<u64>,
    /// What others have published of models of its family or name.
    pub published: Vec<Figure>,
    /// What comes of the recipe that the model was published with.
    pub recipe: Vec<Figure>,
    /// What comes of the protocols that are the same for all models.
    pub common: Vec<Figure>,
    /// Pairs of these that are farther apart than noise explains, in words.
    pub disagreements: Vec<String>,
}

/// A figure and what noise allows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The source, or how it was asked.
    pub by: String,
    /// The mean over runs.
    pub value: f64,
    /// Its 95 % interval over test examples and seeds; of published figures their spread.
    pub noise: Option<[f64; 2]>,
    /// Runs.
    pub runs: Option<u32>,
}

impl Figure {
    fn new(row: &Row) -> Option<Self> {
        let by = row.protocol.strip_prefix("published: ").unwrap_or(&row.protocol).to_owned();
        Some(Self { by, value: row.value?, noise: row.noise(), runs: row.runs })
    }

    /// `0.7199`, `0.6012 (0.5700 to 0.6300), 5 seeds`.
    pub(super) fn text(&self) -> String {
        let noise = self
            .noise
            .map_or(String::new(), |[low, high]| format!(" ({} to {})", fixed(low, 4), fixed(high, 4)));
        let seeds = match self.runs {
            None => String::new(),
            Some(1) => ", 1 seed".to_owned(),
            Some(runs) => format!(", {runs} seeds"),
        };
        format!("{}: {}{noise}{seeds}", self.by, fixed(self.value, 4))
    }

    /// As one side of a difference; a figure without noise is taken for what it says.
    const fn measured(&self) -> Measured {
        let interval = match self.noise {
            Some(noise) => noise,
            None => [self.value, self.value],
        };
        Measured { value: self.value, interval: Some(interval) }
    }
}

/// The sides of every task and model of ours of which there is more than one.
pub(super) fn sides(rows: &[Row]) -> Vec<Side> {
    let mut found: Vec<Side> = Vec::new();
    for row in rows.iter().filter(|row| row.ours) {
        let place = found.iter().position(|side| side.task == row.task && side.model == row.model);
        let place = place.unwrap_or_else(|| {
            found.push(side(row, rows));
            found.len() - 1
        });
        let side = &mut found[place];
        let list = if row.recipe.is_some() { &mut side.recipe } else { &mut side.common };
        list.extend(Figure::new(row));
    }
    found.retain(|side| {
        [&side.published, &side.recipe, &side.common].iter().filter(|list| !list.is_empty()).count() > 1
    });
    for side in &mut found {
        side.disagreements = disagreements(side);
    }
    found.sort_by(|a, b| a.task.cmp(&b.task).then(a.model.cmp(&b.model)));
    found
}

/// A side with what is published of it.
fn side(of: &Row, rows: &[Row]) -> Side {
    let is_it = |row: &&Row| {
        let same = |name: &str| row.model.eq_ignore_ascii_case(name);
        let named = same(&of.model) || of.family.as_deref().is_some_and(same);
        !row.ours && row.task == of.task && row.metric == of.metric && named
    };
    Side {
        task: of.task.clone(),
        metric: of.metric,
        model: of.model.clone(),
        parameters: of.parameters,
        published: rows.iter().filter(is_it).filter_map(Figure::new).collect(),
        recipe: Vec::new(),
        common: Vec::new(),
        disagreements: Vec::new(),
    }
}

/// The pairs from two of the three lists that noise does not explain; figures of ours without an interval say nothing.
fn disagreements(side: &Side) -> Vec<String> {
    let pairs =
        [(&side.recipe, &side.published), (&side.common, &side.published), (&side.common, &side.recipe)];
    let apart = |left: &Figure, right: &Figure| {
        let gap = Gap::new(left.measured(), right.measured());
        let [low, high] = gap.interval.filter(|_| gap.is_beyond_noise() == Some(true))?;
        let (value, low, high) = (signed(gap.value, 4), signed(low, 4), signed(high, 4));
        Some(format!("{} less {}: {value} ({low} to {high})", left.by, right.by))
    };
    let pairs = pairs
        .into_iter()
        .flat_map(|(left, right)| left.iter().flat_map(move |l| right.iter().map(move |r| (l, r))));
    pairs.filter(|(left, _)| left.noise.is_some()).filter_map(|(left, right)| apart(left, right)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Leaderboard;
    use crate::task::published;

    fn row(model: &str, protocol: &str, value: f64, recipe: Option<&str>) -> Row {
        Row {
            model: model.to_owned(),
            family: Some("DNABERT-2".to_owned()),
            protocol: protocol.to_owned(),
            ours: true,
            value: Some(value),
            sd: Some(0.0),
            interval: Some([value - 0.03, value + 0.03]),
            runs: Some(5),
            recipe: recipe.map(str::to_owned),
            ..Row::published(&published::published(Some("tf-0"))[0])
        }
    }

    fn rows() -> Vec<Row> {
        let ours = [
            row("small", "fine-tune, recipe dnabert2", 0.70, Some("dnabert2")),
            row("small", "linear-probe", 0.60, None),
            row("small", "fine-tune", 0.69, None),
            row("dnabert-2", "linear-probe", 0.71, None),
            Row { family: Some("OLMo".to_owned()), ..row("olmo", "linear-probe", 0.5, None) },
        ];
        let published = published::published(Some("tf-0"));
        ours.into_iter().chain(published.iter().map(Row::published)).collect()
    }

    #[test]
    fn what_is_published_stands_beside_what_came_of_the_recipe_and_of_the_common_protocol() {
        let sides = sides(&rows());
        let models: Vec<&str> = sides.iter().map(|side| side.model.as_str()).collect();
        assert_eq!(models, ["dnabert-2", "small"], "nothing is published of an OLMo");
        let small = &sides[1];
        assert_eq!(small.published.iter().map(Figure::text).collect::<Vec<_>>(), ["dnabert2: 0.7199"]);
        let recipe = ["fine-tune, recipe dnabert2: 0.7000 (0.6700 to 0.7300), 5 seeds"];
        assert_eq!(small.recipe.iter().map(Figure::text).collect::<Vec<_>>(), recipe);
        assert_eq!(small.common.len(), 2);
    }

    #[test]
    fn pages_and_tables_have_the_sides() {
        let rows = rows();
        let board = Leaderboard { sides: super::sides(&rows), rows, ..Leaderboard::default() };
        let page = board.page("0.1.0", "2026-11-26").unwrap();
        let disagreement = "<td class=\"wide\">linear-probe less dnabert2: −0.1199 (−0.1499 to −0.0899)<br>linear-probe less";
        assert!(page.contains(disagreement), "{page}");
        let markdown = board.markdown();
        assert!(
            markdown.contains("| tf-0 | small | mcc | dnabert2: 0.7199 | fine-tune, recipe dnabert2: 0.7000"),
            "{markdown}"
        );
    }

    #[test]
    fn disagreements_are_those_beyond_noise() {
        let sides = sides(&rows());
        // 0.70 and 0.69 are within 0.03 of what is published; 0.60 is not, nor within 0.042 of 0.70.
        let expected = [
            "linear-probe less dnabert2: −0.1199 (−0.1499 to −0.0899)",
            "linear-probe less fine-tune, recipe dnabert2: −0.1000 (−0.1424 to −0.0576)",
        ];
        assert_eq!(sides[1].disagreements, expected);
        assert!(sides[0].disagreements.is_empty());
        let blind: Vec<Row> = rows().into_iter().map(|row| Row { interval: None, ..row }).collect();
        assert!(super::sides(&blind)[1].disagreements.is_empty(), "without an interval nothing is said");
    }
}
