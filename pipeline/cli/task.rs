//! `genomill task`: look at benchmark tasks before any model runs on them.

mod leaderboard;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{Error, print_json};
use crate::fs;
use crate::report::count;
use crate::task::audit::{Audit, Options, audit};
use crate::task::{Dataset, KNOWN, Kind, Part, find, published};
use crate::units::{parse_bytes, similar};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what a test set shares with its training set, and what scores without a model of DNA reach
    Audit {
        /// A YAML file of tasks, or a folder of Genomic Benchmarks or GUE
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// FASTA files that the intervals of a folder of Genomic Benchmarks lie on
        #[arg(long, value_name = "FASTA", num_args = 1..)]
        reference: Vec<PathBuf>,
        /// Write the test examples that share nothing much with the training set to DIR/TASK.test.csv
        #[arg(long, value_name = "DIR")]
        clean: Option<PathBuf>,
        /// Memory for the k-mers of a training set; above it a sample of them is looked at
        #[arg(long, value_parser = parse_bytes, default_value = "1GB")]
        memory: u64,
        /// Order in which the 4-mer baseline sees examples
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the tasks of the suites that are known by name, with the metric of their published scores
    List,
    /// Put results of `genomill evaluate` side by side, with what others have published
    Leaderboard(leaderboard::Arguments),
    /// Print scores that others have published, with their sources and protocols
    Published {
        /// Names of tasks; by default all
        tasks: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::List => list(),
        Command::Leaderboard(arguments) => leaderboard::run(arguments),
        Command::Published { tasks, json } => published(tasks, *json),
        Command::Audit { paths, reference, clean, memory, seed, json } => {
            let options = Options { memory: *memory, seed: *seed };
            let mut audits = Vec::new();
            for_each_task(paths, reference, |dataset| {
                let (found, kept) = audit(dataset, &options);
                if let Some(folder) = clean {
                    if dataset.kind != Kind::Sequences {
                        let name = &dataset.name;
                        let what = "`--clean` writes tables of sequences with one class each";
                        return Err(Error::Other(format!(
                            "task `{name}` is about bases or variants: {what}"
                        )));
                    }
                    write_clean(dataset, &kept, folder)?;
                }
                if !json {
                    io::stdout().write_all(text(&found).as_bytes())?;
                }
                audits.push(found);
                Ok(())
            })?;
            if *json { print_json(&audits) } else { Ok(()) }
        }
    }
}

/// Reads the tasks at some paths, one after the other.
pub(super) fn for_each_task(
    paths: &[PathBuf],
    reference: &[PathBuf],
    mut each: impl FnMut(&Dataset) -> Result<(), Error>,
) -> Result<(), Error> {
    for path in paths {
        let (file, base) = find(path)?;
        for (name, mut task) in file.tasks {
            if task.genomic_benchmarks.is_some() {
                task.reference.extend_from_slice(reference);
            }
            each(&task.read(&name, &base)?)?;
        }
    }
    Ok(())
}

fn list() -> Result<(), Error> {
    let mut out = io::stdout().lock();
    for known in KNOWN {
        let examples = known.examples.map_or(String::new(), |[train, test]| {
            format!("{} to train on, {} to test on", count(train), count(test))
        });
        let metric = known.metric.to_string();
        let line =
            format!("{:34}{:20}{:10}{} classes  {examples}", known.name, known.suite, metric, known.classes);
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn published(tasks: &[String], json: bool) -> Result<(), Error> {
    let mut rows = Vec::new();
    for task in tasks {
        let found = published::published(Some(task));
        if found.is_empty() {
            let meant = similar(task, KNOWN.iter().map(|known| known.name));
            let meant = meant.map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
            return Err(Error::Other(format!("no published score of a task `{task}` is known{meant}")));
        }
        rows.extend(found);
    }
    if tasks.is_empty() {
        rows = published::published(None);
    }
    if json {
        return print_json(&rows);
    }
    let mut out = io::stdout().lock();
    for row in &rows {
        let spread = row.spread.map_or(String::new(), |spread| format!("± {spread:.3}"));
        let metric = row.metric.to_string();
        let (task, model, value, source) = (&row.task, &row.model, row.value, &row.source);
        writeln!(out, "{task:34}{model:40}{metric:10}{value:>7.4} {spread:9}{source}")?;
    }
    writeln!(out)?;
    for source in published::SOURCES.iter().filter(|source| rows.iter().any(|row| row.source == source.key)) {
        let secondary = if source.is_secondary { " (not from who ran the models)" } else { "" };
        let spread =
            if source.spread.is_empty() { String::new() } else { format!("; ±: {}", source.spread) };
        writeln!(out, "{}: {}{secondary}; {}{spread}", source.key, source.title, source.protocol)?;
    }
    Ok(writeln!(
        out,
        "Protocols differ: scores of different sources are not comparable, not even of the same model."
    )?)
}

/// Writes the clean test examples as a table that can be a test set itself.
fn write_clean(dataset: &Dataset, kept: &[bool], folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder)?;
    let mut table = csv::Writer::from_writer(Vec::new());
    let wrong = |error: csv::Error| Error::Other(error.to_string());
    table.write_record(["region", "start", "end", "strand", "label", "sequence"]).map_err(wrong)?;
    for (example, _) in dataset.part(Part::Test).iter().zip(kept).filter(|(_, kept)| **kept) {
        let place = example.place.map(|place| {
            let strand = place.strand.map_or("", |strand| strand.symbol());
            let (interval, contig) = (place.interval, dataset.contigs[place.contig as usize].clone());
            [contig, interval.start.to_string(), interval.end.to_string(), strand.to_owned()]
        });
        let bases = String::from_utf8_lossy(dataset.bases(example).unwrap_or_default()).into_owned();
        let class = dataset.classes[example.class as usize].clone();
        let row = place.unwrap_or_default().into_iter().chain([class, bases]);
        table.write_record(row).map_err(wrong)?;
    }
    let bytes = table.into_inner().map_err(|error| Error::Other(error.to_string()))?;
    Ok(fs::write_atomic(&folder.join(format!("{}.test.csv", dataset.name)), &bytes)?)
}

/// An audit for people.
fn text(audit: &Audit) -> String {
    let mut lines = vec![format!("{} (version {})", audit.task, audit.version)];
    for summary in &audit.parts {
        let classes = audit.classes.iter().zip(&summary.by_class);
        let classes: Vec<String> =
            classes.map(|(class, &examples)| format!("{class} {}", count(examples))).collect();
        let [shortest, median, longest] = summary.lengths;
        lines.push(format!(
            "  {:11} {:>9} examples of {shortest} to {longest} bases, median {median}: {}",
            summary.part.name(),
            count(summary.examples),
            classes.join(", ")
        ));
    }
    let dropped = audit.dropped.iter();
    lines.extend(dropped.map(|(reason, &sites)| format!("  left out: {} ({reason})", count(sites))));
    lines.push(format!("  {:20} {:>20} {:>20}", "without a model of DNA", "test set", "clean"));
    for baseline in &audit.baselines {
        let clean = baseline.clean.map_or("-".to_owned(), |score| score.to_string());
        let official = baseline.official.to_string();
        lines.push(format!("    {:18} {official:>20} {clean:>20}", baseline.name));
    }
    let clean: Vec<String> = audit
        .copies
        .iter()
        .zip(&audit.clean)
        .map(|(class, &examples)| format!("{} {}", class.class, count(examples)))
        .collect();
    lines.push(format!("  clean test examples: {}", clean.join(", ")));
    lines.push(format!(
        "  chance: one test example is {} points, and an accuracy of 80 % is sure to within {} points",
        points(audit.noise.one_example),
        points(audit.noise.half_width)
    ));
    lines.extend(audit.findings.iter().map(|finding| format!("  ! {finding}")));
    if audit.overlap.is_none() && audit.near.is_none() {
        lines.push("  without coordinates and bases, near copies cannot be found".to_owned());
    } else if audit.near.is_none() {
        lines.push(
            "  without --reference, what only bases tell (near copies, GC, 4-mers) is left out".to_owned(),
        );
    }
    lines.join("\n") + "\n\n"
}

/// A share in points of a hundred, to two digits.
fn points(share: f64) -> String {
    let points = 100.0 * share;
    if points < 0.1 { format!("{points:.3}") } else { format!("{points:.2}") }
}
