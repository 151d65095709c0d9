//! A first workflow for somebody's own FASTA files: contigs are looked at once, and what is held out, the windows, the
//! vocabulary and the context follow from their number and lengths. Memory: names and lengths of the contigs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

use super::schema;
use crate::source::contigs::{self, Format, Reader};
use crate::source::fasta::{BLOCK_BASES, Event};

/// The share of the bases that a held-out contig should have, and the most that both together may have.
const HELD_OUT: f64 = 0.08;
const MOST_HELD_OUT: f64 = 0.4;

/// Contigs from which on whole ones are held out.
const FEWEST_CONTIGS: usize = 3;

/// Contigs that are shorter are no test of anything, in bases.
const SHORTEST_HELD_OUT: u64 = 2000;

/// Blocks into which a genome of few contigs is cut, about: each falls into validation and test with a chance of a tenth.
const BLOCKS: u64 = 40;

/// A FASTA file and what it holds.
#[derive(Debug, Clone)]
pub struct Genome {
    /// The file.
    pub path: PathBuf,
    /// Name and length in bases of each contig, in the order of the file.
    pub contigs: Vec<(String, u64)>,
}

impl Genome {
    /// Reads a FASTA file, plain or compressed, to its end.
    pub fn read(path: &Path) -> Result<Self, contigs::Error> {
        let mut reader = Reader::open(path, Format::Fasta, BLOCK_BASES)?;
        let (mut contigs, mut name) = (Vec::new(), String::new());
        while let Some(event) = reader.next_event()? {
            match event {
                Event::Record(header) => name.clone_from(&header.name),
                Event::Bases(_) => {}
                Event::End { bases } => contigs.push((std::mem::take(&mut name), bases)),
            }
        }
        Ok(Self { path: path.to_owned(), contigs })
    }
}

/// What is held out of training.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HeldOut {
    /// Whole contigs: for validation, for test.
    Contigs(String, String),
    /// Blocks of this many bases.
    Blocks(u64),
}

/// What fits the sequence; lengths in bases, context in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fitting {
    bases: u64,
    contigs: usize,
    min_length: u64,
    held_out: HeldOut,
    window: u64,
    vocabulary: u64,
    context: u64,
}

/// The text of a workflow called `name` that turns the genomes into shards. It is to be written into `folder`, from which
/// its paths start, beside a schema for editors that is called `schema`.
pub fn workflow(name: &str, genomes: &[Genome], folder: &Path, schema: &str) -> String {
    let fitting = Fitting::new(genomes);
    let Fitting { bases, contigs, min_length, window, vocabulary, context, .. } = fitting;
    let mut text = format!(
        "# yaml-language-server: $schema={schema}
# Editors complete and check this file if that schema is there: `genomill schema workflow > {schema}`.
# Written by `genomill init` for {contigs} contigs of {bases} bases. Look at it with `genomill plan FILE`, run it with
# `genomill run FILE`; what is whole and unchanged is not made again.
name: {name}
params: {{vocabulary: {vocabulary}, context: {context}}}

stages:
  raw:      # the files; `genomill schema workflow` and the README say what else can be read
    uses: ingest
    sources:
"
    );
    for (source, genome) in names(genomes).iter().zip(genomes) {
        let path = quoted(&relative(&genome.path, folder).to_string_lossy());
        add(&mut text, format_args!("      - {{name: {}, fasta: {path}}}\n", quoted(source)));
    }
    add(
        &mut text,
        format_args!(
            "  clean:    # stretches between runs of N, from {min_length} bases on\n    {{uses: clean, from: raw, min_length: {min_length}}}\n"
        ),
    );
    text.push_str(&split(&fitting.held_out));
    add(
        &mut text,
        format_args!(
            "  windows:  # training sequence on both strands
    {{uses: chunk, from: split, window: {window}, reverse_complement: [train]}}
  bpe:      # learnt from the training split alone
    {{uses: tokenizer, from: split, model: {{bpe: {{vocabulary_size: \"${{params.vocabulary}}\"{}}}}}}}
  tokens:
    {{uses: tokenize, from: windows, tokenizer: bpe}}
  shards:   # rows of this many tokens
    {{uses: shard, from: tokens, context: \"${{params.context}}\"}}
  report:   # one page about all of it
    {{uses: report, from: [shards]}}

# With the trainer built in (`make build`), a model and its scores; let the report read from them: `from: [scores]`.
#  model:
#    {{uses: train, from: shards, preset: olmo-1m, duration: 1 epochs}}
#  scores:
#    {{uses: evaluate, from: shards, model: model, splits: [test], markov_order: 8}}
",
            sample(bases)
        ),
    );
    text
}

/// The JSON Schema that the workflow's first line names.
pub fn schema_text() -> String {
    format!("{:#}\n", schema::workflow())
}

/// Learning from more than a gigabase takes long and changes little.
fn sample(bases: u64) -> &'static str {
    if bases > 1_000_000_000 { ", sample: 1Gb" } else { "" }
}

fn split(held_out: &HeldOut) -> String {
    match held_out {
        HeldOut::Contigs(validation, test) => format!(
            "  split:    # whole contigs are held out; look whether these are good ones
    {{uses: split, from: clean, validation: [{}], test: [{}]}}\n",
            quoted(validation),
            quoted(test)
        ),
        HeldOut::Blocks(block) => format!(
            "  split:    # no two contigs are fit to be held out: blocks of this many bases are
    {{uses: split, from: clean, block: {block}, validation_fraction: 0.1, test_fraction: 0.1}}\n"
        ),
    }
}

impl Fitting {
    fn new(genomes: &[Genome]) -> Self {
        let lengths: Vec<u64> =
            genomes.iter().flat_map(|genome| &genome.contigs).map(|(_, bases)| *bases).collect();
        let bases: u64 = lengths.iter().sum();
        let in_long: u64 = lengths.iter().filter(|length| **length >= 1000).sum();
        let min_length = if in_long as f64 >= 0.9 * bases as f64 { 1000 } else { 100 };
        let held_out = held_out(genomes, bases);
        let piece = match held_out {
            HeldOut::Contigs(..) => half_of_bases_lie_in(lengths.clone()),
            HeldOut::Blocks(block) => block,
        };
        let window = power_of_two(piece / 2).clamp(128, 8192);
        let vocabulary = match bases {
            ..1_000_000 => 256,
            1_000_000..50_000_000 => 1024,
            _ => 4096,
        };
        // A token has two to five bases, and rows are filled from several windows.
        Self {
            bases,
            contigs: lengths.len(),
            min_length,
            held_out,
            window,
            vocabulary,
            context: (window / 8).max(32),
        }
    }
}

/// Two contigs of about the wanted size each, where there are enough; else blocks.
fn held_out(genomes: &[Genome], bases: u64) -> HeldOut {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    let contigs = || genomes.iter().flat_map(|genome| &genome.contigs);
    contigs().for_each(|(name, _)| *times.entry(name).or_default() += 1);
    let distance = |length: u64| (length as f64 / bases as f64 / HELD_OUT).ln().abs();
    let mut fit: Vec<&(String, u64)> = contigs()
        .filter(|(name, length)| times[name.as_str()] == 1 && *length >= SHORTEST_HELD_OUT)
        .collect();
    fit.sort_by(|a, b| distance(a.1).total_cmp(&distance(b.1)).then_with(|| a.0.cmp(&b.0)));
    match fit[..] {
        [validation, test, ..]
            if times.len() >= FEWEST_CONTIGS
                && (validation.1 + test.1) as f64 <= MOST_HELD_OUT * bases as f64
                && validation.1.min(test.1) as f64 >= 0.1 * HELD_OUT * bases as f64 =>
        {
            HeldOut::Contigs(validation.0.clone(), test.0.clone())
        }
        _ => HeldOut::Blocks(round((bases / BLOCKS).clamp(500, 1_000_000))),
    }
}

/// The length such that half of all bases lie in contigs of at least this length.
fn half_of_bases_lie_in(mut lengths: Vec<u64>) -> u64 {
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let half = lengths.iter().sum::<u64>().div_ceil(2);
    let mut sum = 0;
    lengths
        .into_iter()
        .find(|length| {
            sum += length;
            sum >= half
        })
        .unwrap_or(0)
}

/// The largest power of two that is no larger; 1 for 0.
fn power_of_two(n: u64) -> u64 {
    1 << n.max(1).ilog2()
}

/// The largest of 1, 2 or 5 times a power of ten that is no larger.
fn round(n: u64) -> u64 {
    let ten = 10_u64.pow(n.max(1).ilog10());
    [5, 2].into_iter().map(|factor| factor * ten).find(|round| *round <= n).unwrap_or(ten)
}

/// What each source is called: its file's name without endings, and with a number where two are alike.
fn names(genomes: &[Genome]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for genome in genomes {
        let file = genome.path.file_name().unwrap_or_default().to_string_lossy();
        let mut stem = file.as_ref();
        for ending in [".gz", ".bgz", ".zst", ".xz", ".fasta", ".fna", ".fa"] {
            stem = stem.strip_suffix(ending).filter(|rest| !rest.is_empty()).unwrap_or(stem);
        }
        let free = |name: &String| !names.contains(name);
        let numbered = (2..).map(|number| format!("{stem}-{number}"));
        let name = [stem.to_owned()].into_iter().chain(numbered).find(free);
        names.extend(name);
    }
    names
}

/// A text as YAML reads it again: as it is where that is plain, else in quotation marks.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    let word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_'));
    if begins && text.chars().all(plain) && !word.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

/// A path as seen from a folder; absolute where the two have nothing in common.
fn relative(path: &Path, folder: &Path) -> PathBuf {
    let full = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let (Ok(path), Ok(folder)) = (full(path), full(folder)) else { return path.to_owned() };
    let common = path.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    if common <= 1 {
        return path;
    }
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    up.chain(path.components().skip(common)).collect()
}

fn add(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    text.write_fmt(what).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn genome(contigs: &[(&str, u64)]) -> Genome {
        let contigs = contigs.iter().map(|(name, bases)| ((*name).to_owned(), *bases)).collect();
        Genome { path: PathBuf::from("genome.fa.gz"), contigs }
    }

    #[test]
    fn what_is_held_out_fits_the_genome() {
        let contigs = |validation: &str, test: &str| HeldOut::Contigs(validation.to_owned(), test.to_owned());
        for (genome, expected) in [
            (genome(&[("phage", 48_502)]), HeldOut::Blocks(1000)),
            (genome(&[("bacterium", 4_641_652), ("plasmid", 100_000)]), HeldOut::Blocks(100_000)),
            (
                genome(&[("a", 50_000_000), ("b", 8_000_000), ("c", 9_000_000), ("d", 33_000_000)]),
                contigs("b", "c"),
            ),
            (genome(&[("a", 500), ("b", 500), ("c", 500), ("d", 500)]), HeldOut::Blocks(500)),
            (genome(&[("a", 1_000_000), ("b", 900_000), ("c", 950_000)]), HeldOut::Blocks(50_000)),
            (
                genome(&[("chrM", 5000), ("big", 99_000_000), ("also", 80_000_000)]),
                HeldOut::Blocks(1_000_000),
            ),
        ] {
            assert_eq!(Fitting::new(std::slice::from_ref(&genome)).held_out, expected, "{genome:?}");
        }
    }

    #[test]
    fn contigs_whose_name_stands_twice_are_not_held_out() {
        let of = |last: &str| genome(&[("a", 40_000), ("b", 40_000), ("c", 8000), (last, 8000)]);
        let HeldOut::Contigs(validation, test) = Fitting::new(&[of("d"), of("e")]).held_out else {
            panic!("there are contigs to hold out")
        };
        assert_eq!((validation.as_str(), test.as_str()), ("d", "e"));
    }

    #[test]
    fn texts_are_quoted_where_yaml_would_read_something_else() {
        for (text, expected) in [
            ("chrXVI", "chrXVI"),
            ("NC_001416.1", "NC_001416.1"),
            ("../a/b.fa", "\"../a/b.fa\""),
            ("1", "\"1\""),
            ("1e5", "\"1e5\""),
            ("no", "\"no\""),
            ("NULL", "\"NULL\""),
            ("a: b", "\"a: b\""),
            ("a\"b", "\"a\\\"b\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn paths_start_from_the_folder_of_the_workflow() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("flows")).unwrap();
        std::fs::write(root.join("a.fa"), "").unwrap();
        for (from, expected) in [(root.to_owned(), "a.fa"), (root.join("flows"), "../a.fa")] {
            assert_eq!(relative(&root.join("a.fa"), &from), Path::new(expected));
        }
    }

    #[test]
    fn sources_have_names_of_their_own() {
        let named = |path: &str| Genome { path: PathBuf::from(path), contigs: vec![] };
        let genomes = [named("x/a.fa.gz"), named("y/a.fasta"), named("a-2.fna"), named(".fa")];
        assert_eq!(names(&genomes), ["a", "a-2", "a-2-2", ".fa"]);
    }

    #[test]
    fn roundings() {
        for (n, expected) in [(0, 1), (7, 5), (1212, 1000), (2999, 2000), (5000, 5000), (99_999, 50_000)] {
            assert_eq!(round(n), expected);
        }
        for (n, expected) in [(0, 1), (1, 1), (500, 256), (512, 512)] {
            assert_eq!(power_of_two(n), expected);
        }
        assert_eq!(half_of_bases_lie_in(vec![1, 2, 3, 10]), 10);
        assert_eq!(half_of_bases_lie_in(vec![]), 0);
    }
}
