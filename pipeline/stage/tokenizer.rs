//! Trains a tokenizer on the training split, or takes one over. Memory: about 2 bytes per base that it trains on.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chunk::{WINDOWS, has_windows};
use super::records::{INTERVALS, MASKS, SEQUENCE, SequenceReader, Stretch, for_each_stretch, index};
use super::{Error, File, Outcome, Stage, Task, from, problem, to_json};
use crate::artifact::{Artifact, Counts};
use crate::fs;
use crate::observer::Unit;
use crate::tokenizer::bpe::learnt::{Account, Learnt};
use crate::tokenizer::bpe::train::{Config as BpeConfig, SoftMasked, Trainer};
use crate::tokenizer::kmer::{Config as KmerConfig, Kmer};
use crate::tokenizer::nucleotide::Nucleotide;
use crate::tokenizer::{self as tokenizers, Tokenizer};
use crate::units::{Interval, Strand};

/// The tokenizer's file within the artifact, as Hugging Face reads it.
pub const TOKENIZER: &str = "tokenizer.json";

/// Bases read between two events of progress.
const PROGRESS_BASES: u64 = 1 << 20;

/// Which tokenizer.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The stage whose training split it learns from: one that `uses` split or chunk. Only `bpe` needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// What kind of tokenizer.
    model: Model,
    /// What the training sequence is cut into: no token crosses a cut. Default: pieces of 1000 bases.
    #[serde(default)]
    pieces: Pieces,
}

/// A kind of tokenizer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Model {
    /// Byte-pair encoding, learnt from the training split.
    Bpe(BpeConfig),
    /// Words of k bases.
    Kmer(KmerConfig),
    /// One token per base, `HyenaDNA`'s ids and one for each other code.
    Nucleotide,
    /// `HyenaDNA`'s 12 ids and no more, as its published weights have them: codes other than A, C, G, T and N are lost.
    Hyenadna,
    /// A `tokenizer.json` file, relative to the workflow file; or its address with the pin, `https://...#sha256=...`.
    File(PathBuf),
}

/// What the training sequence is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Pieces {
    /// Pieces of this many bases.
    Fixed(u64),
    /// Whole stretches between runs of N.
    Contig,
    /// The windows of a chunk stage, as they are.
    Chunks,
}

impl Default for Pieces {
    fn default() -> Self {
        Self::Fixed(1000)
    }
}

impl Stage for Config {
    fn inputs(&self) -> Vec<(String, String)> {
        self.from.as_deref().map(from).unwrap_or_default()
    }

    fn files(&self, _: &Path) -> Result<Vec<File>, Error> {
        Ok(if let Model::File(path) = &self.model { vec![File::new(path)] } else { Vec::new() })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Model::Bpe(config) = &self.model {
            problems.extend(config.check().err().map(|error| ("model", error.to_string())));
            if self.from.is_none() {
                problems.push(("model", "bpe learns from a stage, give `from`".to_owned()));
            }
        }
        if let Model::File(path) = &self.model {
            problems.extend(problem(path).map(|problem| ("model", problem)));
        }
        if self.pieces == Pieces::Fixed(0) {
            problems.push(("pieces", "fixed is 0, expected at least 1 base".to_owned()));
        }
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let mut learnt = None;
        let tokenizer: Box<dyn Tokenizer> = match &self.model {
            Model::Bpe(config) => {
                let (bpe, from) = self.train(config, task)?;
                learnt = Some(from);
                Box::new(bpe)
            }
            Model::Kmer(config) => Box::new(Kmer::new(*config)?),
            Model::Nucleotide => Box::new(Nucleotide::new()),
            Model::Hyenadna => Box::new(Nucleotide::hyena()),
            Model::File(path) => tokenizers::open(&task.file(path))?,
        };
        let path = task.out.join(TOKENIZER);
        std::fs::write(&path, tokenizer.to_json()).map_err(fs::error("write", &path))?;
        let size = tokenizer.vocabulary_size();
        let counts = learnt.as_ref().map(account).unwrap_or_default();
        let details = json!({
            "vocabulary_size": size,
            "fingerprint": tokenizer.fingerprint().to_hex().to_string(),
            "trained_on_bases": counts.bases_out,
            "trained_on": learnt.as_ref().map(ToString::to_string),
        });
        let from = learnt.map_or_else(String::new, |learnt| format!(" {learnt}"));
        Ok(Outcome { counts, details, summary: format!("{size} tokens{from}"), ..Outcome::default() })
    }
}

/// What was read, learnt from and left out.
fn account(learnt: &Learnt) -> Counts {
    let mut counts = Counts { bases_in: learnt.read, bases_out: learnt.bases, ..Counts::default() };
    learnt.left_out.iter().for_each(|(reason, bases)| counts.drop_bases(reason, *bases));
    counts
}

impl Config {
    fn train(&self, config: &BpeConfig, task: &Task) -> Result<(tokenizers::bpe::Bpe, Learnt), Error> {
        let input = task.input_of("from", &["split", "chunk", "decontaminate"])?;
        let chunks = has_windows(input);
        if chunks != (self.pieces == Pieces::Chunks) {
            let reason = "`chunks` takes a chunk stage, `fixed` and `contig` take a split stage".to_owned();
            return Err(Error::Config { key: "pieces", reason });
        }
        let mut trainer = Trainer::new(config.clone())?;
        let mut account = Account::default();
        let total = input.manifest.details["splits"]["train"]["bases"].as_u64().filter(|_| !chunks);
        let mut told = 0;
        self.read_pieces(task, input, config.soft_masked != SoftMasked::Keep, |piece| {
            account.push(&mut trainer, piece);
            if account.pushed() - told >= PROGRESS_BASES {
                told = account.pushed();
                task.progress(told, total, Unit::Bases);
            }
        })?;
        let learnt = account.learnt(config, &trainer)?;
        let mut progress = |done, total| task.progress(done, Some(total), Unit::Items);
        let bpe = trainer.finish(task.threads, &mut progress, task.stop).map_err(|error| match error {
            tokenizers::Error::Stopped => Error::Interrupted,
            error => error.into(),
        })?;
        Ok((bpe, learnt))
    }

    /// Hands out the forward strand of the training split, piece by piece.
    fn read_pieces(
        &self,
        task: &Task,
        input: &Artifact,
        masked: bool,
        mut push: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let sequence = task.referenced(input, "sequence")?;
        let mut reader = SequenceReader::open(&sequence.path(SEQUENCE))?;
        let table = if has_windows(input) { WINDOWS } else { INTERVALS };
        let masks = if masked { read_masks(&sequence)? } else { Vec::new() };
        let mut bases = Vec::new();
        for_each_stretch::<Error>(&input.path(table), |stretch| {
            if stretch.split != "train" || stretch.strand == Strand::Reverse {
                return Ok(());
            }
            task.check()?;
            for piece in self.pieces_of(stretch.interval) {
                fetch(&mut reader, &Stretch { interval: piece, ..stretch.clone() }, &sequence, &mut bases)?;
                lower(&masks, stretch.record, piece, &mut bases);
                push(&bases);
            }
            Ok(())
        })
    }

    fn pieces_of(&self, interval: Interval) -> impl Iterator<Item = Interval> {
        let length = if let Pieces::Fixed(length) = self.pieces { length } else { interval.len().max(1) };
        let starts = (interval.start..interval.end).step_by(usize::try_from(length).unwrap_or(usize::MAX));
        starts.map(move |start| Interval::new(start, start.saturating_add(length).min(interval.end)))
    }
}

/// Soft-masked intervals of all records, ascending: 24 bytes each.
pub(super) fn read_masks(sequence: &Artifact) -> Result<Vec<(u64, Interval)>, Error> {
    let mut masks = Vec::new();
    for_each_stretch::<Error>(&sequence.path(MASKS), |stretch| {
        masks.push((stretch.record, stretch.interval));
        Ok(())
    })?;
    Ok(masks)
}

/// Writes what is soft-masked in lower case, as the trainer expects it.
fn lower(masks: &[(u64, Interval)], record: u64, piece: Interval, bases: &mut [u8]) {
    let first = masks.partition_point(|(r, mask)| (*r, mask.end) <= (record, piece.start));
    for (_, mask) in masks[first..].iter().take_while(|(r, mask)| *r == record && mask.start < piece.end) {
        let from = index(mask.start.max(piece.start) - piece.start);
        let to = index(mask.end.min(piece.end) - piece.start);
        bases[from..to].make_ascii_lowercase();
    }
}

/// The forward bases of a stretch.
pub fn fetch(
    reader: &mut SequenceReader,
    stretch: &Stretch,
    sequence: &Artifact,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    if reader.fetch(stretch.record, stretch.interval, out)? {
        return Ok(());
    }
    Err(Error::Unusable {
        input: sequence.manifest.stage.clone(),
        reason: format!("record {} has no bases {}", stretch.record, stretch.interval),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_written_in_lower_case_where_they_meet_a_piece() {
        let masks = [
            (0, Interval::new(2, 5)),
            (1, Interval::new(0, 3)),
            (1, Interval::new(6, 20)),
            (2, Interval::new(0, 9)),
        ];
        for (record, (start, end), expected) in
            [(0, (0, 4), "ACgt"), (0, (5, 9), "ACGT"), (1, (2, 8), "aCGTac"), (3, (0, 2), "AC")]
        {
            let mut bases = b"ACGTACGT"[..index(end - start)].to_vec();
            lower(&masks, record, Interval::new(start, end), &mut bases);
            assert_eq!(String::from_utf8(bases).unwrap(), expected, "{record}:{start}-{end}");
        }
    }
}
