//! `genomill task cnn`: the convolutional baseline, learned and scored.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, value_parser};

use super::for_each_task;
use crate::cli::run::{on_signal, threads};
use crate::cli::{Error, print_json, say};
use crate::evaluate::cnn::{self, Config, Report};
use crate::metric::scores::Metric;
use crate::observer::Stop;
use crate::report::count;

#[derive(Debug, Args)]
pub struct Arguments {
    /// A YAML file of tasks, or a folder of Genomic Benchmarks or GUE
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// FASTA files that the intervals of a folder of Genomic Benchmarks lie on
    #[arg(long, value_name = "FASTA", num_args = 1..)]
    reference: Vec<PathBuf>,
    /// Runs, with seeds from 0
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u64).range(1..))]
    seeds: u64,
    /// Times that every training example is seen
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u32).range(1..))]
    epochs: u32,
    /// Runs side by side; by default as many as there are cores
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let stop = Arc::new(Stop::new());
    on_signal(&stop)?;
    let threads = threads(arguments.threads);
    let config = Config { seeds: (0..arguments.seeds).collect(), epochs: arguments.epochs, threads };
    let mut reports = Vec::new();
    for_each_task(&arguments.paths, &arguments.reference, |dataset| {
        let told = |seed, epoch, loss: f64| {
            say(&format!("{}: seed {seed}, epoch {epoch}: validation loss {loss:.4}", dataset.name));
        };
        let report = cnn::run(dataset, &config, &stop, &told)?;
        if !arguments.json {
            io::stdout().write_all(text(&report).as_bytes())?;
        }
        reports.push(report);
        Ok(())
    })?;
    if arguments.json { print_json(&reports) } else { Ok(()) }
}

/// Scores of a baseline for people.
fn text(report: &Report) -> String {
    let metrics = [Metric::Accuracy, Metric::Mcc, Metric::MacroF1, Metric::Auroc, Metric::Auprc];
    let mut lines = vec![format!("{} (version {}): CNN from scratch", report.task, report.version)];
    let names = metrics.map(|metric| format!("{:>10}", metric.to_string()));
    lines.push(format!("  seed  epoch{}", names.concat()));
    for run in &report.runs {
        let scores = metrics.map(|metric| run.scores.shown(metric));
        let scores =
            scores.map(|score| score.map_or(format!("{:>10}", "-"), |score| format!("{score:>10.4}")));
        lines.push(format!("  {:>4}  {:>5}{}", run.seed, run.epoch, scores.concat()));
    }
    let summary = &report.summary;
    if let Some(all) = &summary.all {
        let sd = all.sd.map_or("-".to_owned(), |sd| format!("{sd:.4}"));
        let metric = summary.metric.to_string();
        let (mean, min, max, runs) = (all.mean, all.min, all.max, all.runs);
        lines.push(format!("  {metric} of {runs} runs: mean {mean:.4}, sd {sd}, {min:.4} to {max:.4}"));
    }
    if !summary.collapsed.is_empty() {
        let seeds: Vec<String> = summary.collapsed.iter().map(u64::to_string).collect();
        lines.push(format!("  ! collapsed: seed {}", seeds.join(", ")));
    }
    if report.cut > 0 {
        lines.push(format!(
            "  ! {} test examples are longer than any training example, and were cut",
            count(report.cut)
        ));
    }
    lines.join("\n") + "\n\n"
}
