//! Tables with a sequence and a label in each row: Parquet by the file's name, else CSV or TSV; a file for each part, or a column that says which part a row is
//! for. Memory: a batch of rows, besides the examples.

use std::path::{Path, PathBuf};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::folders::Gather;
use super::{Dataset, Error, Part};
use crate::sequence::alphabet;
use crate::source::table;

/// Rows read at once.
const BATCH_ROWS: usize = 4096;

/// Tables with a row for each example: `file` with a column `split`, or `train` and `test`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// A file with all parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The column of `file` that says which part a row is for: `train`, `validation` (or `valid`, `val`, `dev`) or `test`. Default
    /// `split`.
    #[serde(default = "split")]
    pub split: String,
    /// To learn from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// To choose by. Without it a part of `train` is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// To score on, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// The column with the bases. Default `sequence`.
    #[serde(default = "super::sequence")]
    pub sequence: String,
    /// The column with the class: texts, or whole numbers. Default `label`.
    #[serde(default = "super::label")]
    pub label: String,
}

fn split() -> String {
    "split".to_owned()
}

impl Table {
    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.file, &self.train, &self.validation, &self.test].into_iter().flatten()
    }
}

/// Reads the examples.
pub fn read(name: &str, table: &Table, base: &Path) -> Result<Dataset, Error> {
    let mut gather = Gather::new(name);
    let parts =
        [(Part::Train, &table.train), (Part::Validation, &table.validation), (Part::Test, &table.test)];
    match (&table.file, &table.train, &table.test) {
        (Some(file), None, None) if table.validation.is_none() => {
            let path = base.join(file);
            let number = gather.file(&path);
            let columns = [table.sequence.as_str(), &table.label, &table.split];
            each_row(&path, &columns, &mut |line, row| {
                gather.labelled(part_of(row[2])?, row[0], row[1], (number, line))
            })?;
        }
        (None, Some(_), Some(_)) => {
            for (part, file) in parts.into_iter().filter_map(|(part, file)| Some((part, file.as_ref()?))) {
                let path = base.join(file);
                let number = gather.file(&path);
                each_row(&path, &[&table.sequence, &table.label], &mut |line, row| {
                    gather.labelled(part, row[0], row[1], (number, line))
                })?;
            }
        }
        _ => {
            let problem = "`table` expects `file`, or `train` and `test`, and not both".to_owned();
            return Err(Error::Sites { task: name.to_owned(), problem });
        }
    }
    Ok(gather.finish(None))
}

fn part_of(text: &str) -> Result<Part, String> {
    match text {
        "train" => Ok(Part::Train),
        "validation" | "valid" | "val" | "dev" => Ok(Part::Validation),
        "test" => Ok(Part::Test),
        _ => Err(format!("found the part `{text}`, expected `train`, `validation` or `test`")),
    }
}

/// A sequence of at least one IUPAC code.
pub(super) fn check_sequence(bases: &str) -> Result<(), String> {
    if bases.is_empty() {
        return Err("found an empty sequence, expected bases".to_owned());
    }
    alphabet::first_invalid(bases.as_bytes()).map_or(Ok(()), |at| {
        let found = bases.as_bytes()[at];
        Err(format!("base {at} of the sequence is byte {found:#04X}, which is no IUPAC nucleotide code"))
    })
}

/// What hears of every row: its number and its texts. What is wrong with it is given back.
type Each<'a> = &'a mut dyn FnMut(u64, &[&str]) -> Result<(), String>;

/// Calls `each` with the number of every row, from 1 (in CSV its line), and the texts of some columns.
fn each_row(path: &Path, columns: &[&str], each: Each<'_>) -> Result<(), Error> {
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet")) {
        return each_row_of_parquet(path, columns, each);
    }
    let mut rows = table::Reader::open(path, columns)?;
    while rows.next_row()? {
        let texts = (0..columns.len()).map(|column| rows.text(column)).collect::<Result<Vec<_>, _>>()?;
        each(rows.line(), &texts).map_err(|problem| rows.wrong(problem))?;
    }
    Ok(())
}

fn each_row_of_parquet(path: &Path, columns: &[&str], each: Each<'_>) -> Result<(), Error> {
    let wrong = |problem: String| Error::Parquet { file: path.to_owned(), problem };
    let file = std::fs::File::open(path).map_err(|source| Error::Read { file: path.to_owned(), source })?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| wrong(error.to_string()))?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    if let Some(missing) = columns.iter().find(|column| !names.iter().any(|name| name == *column)) {
        let found = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(wrong(format!("found no column `{missing}`; there are {found}")));
    }
    let projection = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let reader = builder.with_batch_size(BATCH_ROWS).with_projection(projection).build();
    let mut line = 0;
    for batch in reader.map_err(|error| wrong(error.to_string()))? {
        let batch = batch.map_err(|error| wrong(error.to_string()))?;
        let options = FormatOptions::default();
        let columns = columns.iter().filter_map(|column| batch.column_by_name(column));
        let texts = columns.map(|column| ArrayFormatter::try_new(column, &options));
        let texts = texts.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(error.to_string()))?;
        for row in 0..batch.num_rows() {
            line += 1;
            let row: Vec<String> = texts.iter().map(|column| column.value(row).to_string()).collect();
            let row: Vec<&str> = row.iter().map(String::as_str).collect();
            let in_row = |problem: String| wrong(format!("row {line}: {problem}"));
            if row.contains(&"") {
                return Err(in_row("found an empty column, expected text".to_owned()));
            }
            each(line, &row).map_err(in_row)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::super::Task;
    use super::*;

    /// A Parquet file; labels are numbers where they read as such.
    fn parquet(path: &Path, rows: &[[&str; 3]], names: [&str; 3]) {
        let text =
            |column: usize| Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row[column])));
        let numbers: Option<Vec<i64>> = rows.iter().map(|row| row[1].parse().ok()).collect();
        let labels: ArrayRef = match numbers {
            Some(numbers) => Arc::new(Int64Array::from(numbers)),
            None => text(1),
        };
        let columns: [(&str, ArrayRef); 3] = [(names[0], text(0)), (names[1], labels), (names[2], text(2))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer =
            ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn read(folder: &Path, yaml: &str) -> Result<Dataset, String> {
        let task: Task = serde_saphyr::from_str(&format!("{{version: 1, table: {yaml}}}")).unwrap();
        task.read("mine", folder).map_err(|error| error.to_string().replace(folder.to_str().unwrap(), ""))
    }

    const ROWS: [[&str; 3]; 4] =
        [["acgt", "10", "train"], ["GGC", "9", "train"], ["TTN", "9", "dev"], ["ACG", "10", "test"]];

    #[test]
    fn parts_come_from_a_column_or_from_files_of_either_kind() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let names = ["sequence", "label", "split"];
        parquet(&folder.join("all.parquet"), &ROWS, names);
        parquet(&folder.join("train.parquet"), &ROWS[..2], names);
        parquet(&folder.join("test.parquet"), &ROWS[3..], ["bases", "class", "split"]);
        let csv: String = ROWS.iter().map(|row| row.join(",") + "\n").collect();
        std::fs::write(folder.join("all.csv"), format!("sequence,label,part\n{csv}")).unwrap();
        std::fs::write(folder.join("test.tsv"), "label\tsequence\n10\tACG\n").unwrap();
        for (yaml, parts) in [
            ("{file: all.parquet}", [2, 1, 1]),
            ("{file: all.csv, split: part}", [2, 1, 1]),
            ("{train: train.parquet, test: test.tsv}", [2, 0, 1]),
            ("{train: all.csv, validation: all.csv, test: test.tsv}", [4, 4, 1]),
        ] {
            let dataset = read(folder, yaml).unwrap();
            assert_eq!(Part::ALL.map(|part| dataset.part(part).len()), parts, "{yaml}");
            assert_eq!(dataset.classes, ["9", "10"], "{yaml}");
            let first = &dataset.part(Part::Train)[0];
            assert_eq!((dataset.bases(first), first.class), (Some(&b"ACGT"[..]), 1), "{yaml}");
        }
        let error = read(folder, "{train: train.parquet, test: test.parquet}").unwrap_err();
        assert_eq!(
            error,
            "cannot read `/test.parquet`: found no column `sequence`; there are `bases`, `class`, `split`"
        );
        let error = read(folder, "{file: all.csv}").unwrap_err();
        assert_eq!(
            error,
            "cannot read `/all.csv`, line 1: found no column `split`; there are `sequence`, `label`, `part`"
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_row() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for (row, expected) in [
            (
                ["ACGJ", "1", "train"],
                "base 3 of the sequence is byte 0x4A, which is no IUPAC nucleotide code",
            ),
            (["ACG", "1", "all"], "found the part `all`, expected `train`, `validation` or `test`"),
            (["", "1", "test"], "found an empty column, expected text"),
        ] {
            let names = ["sequence", "label", "split"];
            parquet(&folder.join("a.parquet"), &[ROWS[0], row, ROWS[3]], names);
            let error = read(folder, "{file: a.parquet}").unwrap_err();
            assert_eq!(error, format!("cannot read `/a.parquet`: row 2: {expected}"));
            let csv = format!("sequence,label,split\nACGT,1,test\n{}\n", row.join(","));
            std::fs::write(folder.join("a.csv"), csv).unwrap();
            let error = read(folder, "{file: a.csv}").unwrap_err();
            assert_eq!(error, format!("cannot read `/a.csv`, line 3: {expected}"));
        }
        parquet(&folder.join("a.parquet"), &ROWS[..3], ["sequence", "label", "split"]);
        for (yaml, expected) in [
            ("{file: a.parquet}", "task `mine` has no example to test on"),
            (
                "{file: a.parquet, test: a.parquet}",
                "`table` expects `file`, or `train` and `test`, and not both",
            ),
            ("{train: a.parquet}", "`table` expects `file`, or `train` and `test`, and not both"),
        ] {
            let error = read(folder, yaml).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        std::fs::write(folder.join("a.parquet"), "PAR1 no table").unwrap();
        assert!(read(folder, "{file: a.parquet}").unwrap_err().starts_with("cannot read `/a.parquet`: "));
    }
}
