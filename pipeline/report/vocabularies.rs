//! Vocabularies side by side: a table whose best values are marked, and two charts.

use serde::Serialize;

use super::number::{bytes, count, fixed};
use super::{Vocabularies, Vocabulary, figure};

/// What the page prints of the vocabularies.
#[derive(Serialize)]
pub(super) struct VocabulariesView {
    split: String,
    bases: u64,
    headings: Vec<&'static str>,
    rows: Vec<Row>,
    /// Whether the times of encoding are there.
    timed: bool,
    /// Whether there is a column for the model of the training tokens.
    trained: bool,
    bases_per_token: Option<String>,
    unigram_bits: Option<String>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    size: u64,
    cells: Vec<Cell>,
}

/// A figure; `top` where none of its column is better.
#[derive(Serialize)]
struct Cell {
    text: String,
    top: bool,
}

/// A column: what is above it, whether more is better, its value, and how that is printed.
struct Column {
    heading: &'static str,
    more: bool,
    value: fn(&Vocabulary) -> Option<f64>,
    text: fn(&Vocabulary) -> Option<String>,
}

const COLUMNS: [Column; 7] = [
    Column {
        heading: "Bases per token",
        more: true,
        value: |of| of.bases_per_token,
        text: |of| of.bases_per_token.map(|ratio| fixed(ratio, 3)),
    },
    Column {
        heading: "Unigram bits per base",
        more: false,
        value: |of| of.unigram_bits_per_base,
        text: |of| of.unigram_bits_per_base.map(|bits| fixed(bits, 4)),
    },
    Column {
        heading: "The same under train",
        more: false,
        value: |of| of.train_unigram_bits_per_base,
        text: |of| of.train_unigram_bits_per_base.map(|bits| fixed(bits, 4)),
    },
    Column {
        heading: "Unused tokens",
        more: false,
        value: |of| of.unused.map(|unused| unused as f64),
        text: |of| of.unused.map(count),
    },
    Column {
        heading: "Shards",
        more: false,
        value: |of| of.shard_bytes.map(|size| size as f64),
        text: |of| of.shard_bytes.map(bytes),
    },
    Column {
        heading: "Bytes per base",
        more: false,
        value: bytes_per_base,
        text: |of| bytes_per_base(of).map(|ratio| fixed(ratio, 3)),
    },
    Column {
        heading: "Encoding, MB/s",
        more: true,
        value: |of| of.bases_per_second,
        text: |of| of.bases_per_second.map(|rate| fixed(rate / 1e6, 1)),
    },
];

fn bytes_per_base(of: &Vocabulary) -> Option<f64> {
    let bases = of.shard_bases.filter(|&bases| bases > 0)?;
    Some(of.shard_bytes? as f64 / bases as f64)
}

impl VocabulariesView {
    pub(super) fn new(data: &Vocabularies) -> Self {
        let has = |column: &&Column| data.rows.iter().any(|row| (column.value)(row).is_some());
        let columns: Vec<&Column> = COLUMNS.iter().filter(has).collect();
        Self {
            split: data.split.clone(),
            bases: data.bases,
            headings: columns.iter().map(|column| column.heading).collect(),
            rows: data.rows.iter().map(|row| Row::new(row, &data.rows, &columns)).collect(),
            timed: data.rows.iter().any(|row| row.bases_per_second.is_some()),
            trained: data.rows.iter().any(|row| row.train_unigram_bits_per_base.is_some()),
            bases_per_token: figure::bases_per_token(data),
            unigram_bits: figure::unigram_bits(data),
        }
    }
}

impl Row {
    fn new(row: &Vocabulary, all: &[Vocabulary], columns: &[&Column]) -> Self {
        let cell = |column: &&Column| Cell {
            text: (column.text)(row).unwrap_or_else(|| "–".to_owned()),
            top: is_best(column, row, all),
        };
        Self { name: row.name.clone(), size: row.size, cells: columns.iter().map(cell).collect() }
    }
}

/// Whether no other value of the column is better, and some is worse.
fn is_best(column: &Column, row: &Vocabulary, all: &[Vocabulary]) -> bool {
    let rank = |row: &Vocabulary| {
        (column.value)(row).filter(|value| value.is_finite()).map(|v| if column.more { v } else { -v })
    };
    let others = || all.iter().filter_map(rank);
    rank(row).is_some_and(|own| others().all(|other| other <= own) && others().any(|other| other < own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(size: u64, ratio: Option<f64>, unused: u64) -> Vocabulary {
        Vocabulary { size, bases_per_token: ratio, unused: Some(unused), ..Vocabulary::default() }
    }

    #[test]
    fn the_best_of_each_column_is_marked() {
        let rows = vec![
            row(16, Some(1.5), 0),
            row(64, Some(2.5), 0),
            row(256, None, 3),
            row(512, Some(f64::NAN), 3),
        ];
        let view = VocabulariesView::new(&Vocabularies { rows, ..Vocabularies::default() });
        assert_eq!(view.headings, ["Bases per token", "Unused tokens"]);
        let marked: Vec<Vec<bool>> =
            view.rows.iter().map(|row| row.cells.iter().map(|cell| cell.top).collect()).collect();
        assert_eq!(marked, [[false, true], [true, true], [false, false], [false, false]]);
        assert_eq!(view.rows[2].cells[0].text, "–");
        assert!(!view.timed && !view.trained && view.unigram_bits.is_none());
    }

    #[test]
    fn equal_values_are_no_best() {
        let rows = vec![row(16, Some(1.5), 0), row(64, Some(1.5), 0)];
        let view = VocabulariesView::new(&Vocabularies { rows, ..Vocabularies::default() });
        assert!(view.rows.iter().all(|row| row.cells.iter().all(|cell| !cell.top)));
    }
}
