//! Scores that others have published for the known tasks, as data: `published.csv`, read in November 2026.
//!
//! Protocols differ: which data validated, how many runs, whether the best epoch was chosen on the test set. Scores of different sources
//! are not comparable, not even of the same model; they stand side by side so that this can be seen.

use serde::{Deserialize, Serialize};

use super::Metric;

const TABLE: &str = include_str!("published.csv");

/// A published score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The task, as in [`super::KNOWN`].
    pub task: String,
    /// The model as the source calls it.
    pub model: String,
    /// Of what `value` is.
    pub metric: Metric,
    /// As published, from 0 to 1 (correlations from -1).
    pub value: f64,
    /// How far it spreads, in the sense of its source.
    pub spread: Option<f64>,
    /// The key of its source among [`SOURCES`].
    pub source: String,
}

/// Where scores come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Source {
    /// As in the table.
    pub key: &'static str,
    /// What it is.
    pub title: &'static str,
    /// How the scores came to be, as far as it says.
    pub protocol: &'static str,
    /// What `spread` is.
    pub spread: &'static str,
    /// Whether it is not those who ran the models.
    pub is_secondary: bool,
}

/// All sources.
pub const SOURCES: [Source; 6] = [
    Source {
        key: "caduceus",
        title: "Caduceus paper, Table 1 (arXiv 2403.03234)",
        protocol: "5 seeds, a tenth of the training set validates",
        spread: "half of the range over seeds",
        is_secondary: false,
    },
    Source {
        key: "dnabert2",
        title: "DNABERT-2 paper, Table 4 (arXiv 2306.15006)",
        protocol: "full fine-tuning of DNABERT models, LoRA of Nucleotide Transformer; validation set of GUE",
        spread: "",
        is_secondary: false,
    },
    Source {
        key: "generator",
        title: "GENERator, Table 4 of its repository (GenerTeam/GENERator)",
        protocol: "10-fold cross-validation",
        spread: "standard error",
        is_secondary: false,
    },
    Source {
        key: "genomic-benchmarks",
        title: "experiments/README.md of ML-Bioinfo-CEITEC/genomic_benchmarks at 605d853",
        protocol: "one run",
        spread: "",
        is_secondary: false,
    },
    Source {
        key: "gue-secondary",
        title: "a plotting script in a public repository, which mis-orders some cells of other models",
        protocol: "not said; HyenaDNA's promoters look like failed fine-tuning",
        spread: "",
        is_secondary: true,
    },
    Source {
        key: "hyenadna",
        title: "HyenaDNA paper, Table 4.1 (arXiv 2306.15794)",
        protocol: "the best epoch on the test set",
        spread: "",
        is_secondary: false,
    },
];

/// The scores of a task, the best first; of all tasks without a name.
pub fn published(task: Option<&str>) -> Vec<Published> {
    let mut reader = csv::Reader::from_reader(TABLE.as_bytes());
    let rows = reader.deserialize::<Published>().filter_map(Result::ok);
    let mut rows: Vec<Published> = rows.filter(|row| task.is_none_or(|task| row.task == task)).collect();
    rows.sort_by(|a, b| a.task.cmp(&b.task).then(b.value.total_cmp(&a.value)));
    rows
}

/// The source of a score.
pub fn source(published: &Published) -> Option<&'static Source> {
    SOURCES.iter().find(|source| source.key == published.source)
}

#[cfg(test)]
mod tests {
    use super::super::KNOWN;
    use super::*;

    #[test]
    fn every_row_is_of_a_known_task_and_a_known_source() {
        let rows = published(None);
        assert_eq!(rows.len(), TABLE.lines().count() - 1, "every row is read");
        for row in &rows {
            let known = KNOWN.iter().find(|known| known.name == row.task);
            assert_eq!(known.map(|known| known.metric), Some(row.metric), "{row:?}");
            let source = source(row).unwrap_or_else(|| panic!("{row:?} has no source"));
            assert!(
                !row.spread.is_some_and(|_| source.spread.is_empty()),
                "{row:?} spreads in no known sense"
            );
            assert!((-1.0..=1.0).contains(&row.value), "{row:?}");
        }
        for known in KNOWN {
            assert!(rows.iter().any(|row| row.task == known.name), "no score of {}", known.name);
        }
    }

    #[test]
    fn scores_of_a_task_stand_side_by_side() {
        let rows = published(Some("human_enhancers_ensembl"));
        let of = |model: &str| -> Vec<(f64, &str)> {
            rows.iter().filter(|row| row.model == model).map(|row| (row.value, row.source.as_str())).collect()
        };
        assert_eq!(of("HyenaDNA"), [(0.901, "generator"), (0.892, "hyenadna"), (0.849, "caduceus")]);
        assert!(rows.is_sorted_by(|a, b| a.value >= b.value));
    }
}
