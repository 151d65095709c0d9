//! Trains a tokenizer on the training split, or takes one over. A partition picks what is learnt from in so many bases;
//! learning is done when all have. Memory: about 2 bytes per base that it trains on.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chunk::{WINDOWS, has_windows};
use super::partition::{self, Bounds, Finished, Made, Partition, Partitioned, Work};
use super::records::{
    BLOCK_BASES, INTERVALS, MASKS, SequenceReader, SequenceWriter, Stretch, for_each_stretch,
    for_each_stretch_of, index,
};
use super::{Error, File, Outcome, Stage, Task, from, problem, to_json};
use crate::artifact::{Artifact, Counts};
use crate::fs;
use crate::observer::Unit;
use crate::tokenizer::bpe::learnt::{Account, Learnt};
use crate::tokenizer::bpe::train::{Config as BpeConfig, Part, SoftMasked, Trainer};
use crate::tokenizer::kmer::{Config as KmerConfig, Kmer};
use crate::tokenizer::nucleotide::Nucleotide;
use crate::tokenizer::{self as tokenizers, Tokenizer};
use crate::units::{self, Interval, Strand};

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
    /// Bases of a partition, the part of the reading that is done at a time and kept when the run ends early; what comes out
    /// is the same for every number. Only `bpe` has several. Default 256Mb.
    #[serde(default, deserialize_with = "units::bases", skip_serializing)]
    #[schemars(with = "units::Amount")]
    partition: Option<u64>,
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
        problems.extend(partition::problem(self.partition));
        problems
    }

    fn resolved(&self) -> Value {
        to_json(self)
    }

    fn run(&self, task: &Task) -> Result<Outcome, Error> {
        let tokenizer: Box<dyn Tokenizer> = match &self.model {
            Model::Bpe(_) => return partition::run(self, task),
            Model::Kmer(config) => Box::new(Kmer::new(*config)?),
            Model::Nucleotide => Box::new(Nucleotide::new()),
            Model::Hyenadna => Box::new(Nucleotide::hyena()),
            Model::File(path) => tokenizers::open(&task.file(path))?,
        };
        outcome(task, tokenizer.as_ref(), None)
    }

    fn partitioned(&self) -> Option<&dyn Partitioned> {
        matches!(self.model, Model::Bpe(_)).then_some(self)
    }
}

/// Writes the tokenizer and says what it is.
fn outcome(task: &Task, tokenizer: &dyn Tokenizer, learnt: Option<&Learnt>) -> Result<Outcome, Error> {
    let path = task.out.join(TOKENIZER);
    std::fs::write(&path, tokenizer.to_json()).map_err(fs::error("write", &path))?;
    let size = tokenizer.vocabulary_size();
    let counts = learnt.map(account).unwrap_or_default();
    let details = json!({
        "vocabulary_size": size,
        "fingerprint": tokenizer.fingerprint().to_hex().to_string(),
        "trained_on_bases": counts.bases_out,
        "trained_on": learnt.map(ToString::to_string),
    });
    let from = learnt.map_or_else(String::new, |learnt| format!(" {learnt}"));
    Ok(Outcome { counts, details, summary: format!("{size} tokens{from}"), ..Outcome::default() })
}

/// What was read, learnt from and left out.
fn account(learnt: &Learnt) -> Counts {
    let mut counts = Counts { bases_in: learnt.read, bases_out: learnt.bases, ..Counts::default() };
    learnt.left_out.iter().for_each(|(reason, bases)| counts.drop_bases(reason, *bases));
    counts
}

/// Whether it is learnt from: the forward strand of the training split.
fn is_training(stretch: &Stretch) -> bool {
    stretch.split == "train" && stretch.strand == Strand::Forward
}

impl Partitioned for Config {
    fn bounds(&self, task: &Task) -> Result<Vec<u64>, Error> {
        let mut bounds = Bounds::new(self.size());
        for_each_stretch::<Error>(&stretches(self.input(task)?), |stretch| {
            bounds.push(if is_training(&stretch) { stretch.interval.len() } else { 0 });
            Ok(())
        })?;
        Ok(bounds.finish())
    }

    fn size(&self) -> u64 {
        self.partition.unwrap_or(partition::SIZE)
    }

    fn open<'a>(&'a self, task: &'a Task<'a>) -> Result<Box<dyn Work + 'a>, Error> {
        let Model::Bpe(learning) = &self.model else {
            return Err(Error::Config { key: "model", reason: "only `bpe` is learnt".to_owned() });
        };
        let input = self.input(task)?;
        let mut bases = 0;
        for_each_stretch::<Error>(&stretches(input), |stretch| {
            bases += if is_training(&stretch) { stretch.interval.len() } else { 0 };
            Ok(())
        })?;
        let sequence = task.referenced(input, "sequence")?;
        let masked = learning.soft_masked != SoftMasked::Keep;
        let masks = if masked { read_masks(&sequence)? } else { Vec::new() };
        Ok(Box::new(Ready { config: self, learning, task, input, sequence, masks, bases }))
    }
}

/// The table of what may be learnt from.
fn stretches(input: &Artifact) -> PathBuf {
    input.path(if has_windows(input) { WINDOWS } else { INTERVALS })
}

/// What every partition needs; the items are the rows of the table of intervals or windows.
struct Ready<'a> {
    config: &'a Config,
    learning: &'a BpeConfig,
    task: &'a Task<'a>,
    input: &'a Artifact,
    sequence: Artifact,
    /// Its soft-masked intervals, where they matter.
    masks: Vec<(u64, Interval)>,
    /// Bases of the training split.
    bases: u64,
}

/// What a partition says of itself; what it picked lies in a file of sequence, as if it were one record.
#[derive(Debug, Serialize, Deserialize)]
struct Picked {
    part: Part,
    account: Account,
}

impl Work for Ready<'_> {
    fn make(&self, task: &Task, partition: Partition) -> Result<Made, Error> {
        let (mut trainer, mut account) = (self.trainer()?, Account::default());
        let mut told = 0;
        self.read_pieces(task, partition, |piece| {
            account.push(&mut trainer, piece);
            if account.pushed() - told >= PROGRESS_BASES {
                told = account.pushed();
                task.progress(told, Some(self.bases), Unit::Bases);
            }
        })?;
        let mut writer = SequenceWriter::create(task.out, 0)?;
        let (part, blocks) = trainer.part(BLOCK_BASES);
        for (start, block) in (0..).step_by(BLOCK_BASES).zip(blocks) {
            writer.push(0, start, &block)?;
        }
        writer.finish()?;
        Ok(Made { account: to_json(&Picked { part, account }), bases: account.pushed(), seconds: Vec::new() })
    }

    fn merge(&self, made: &mut dyn Iterator<Item = Result<Finished, Error>>) -> Result<Outcome, Error> {
        let (mut trainer, mut account) = (self.trainer()?, Account::default());
        for kept in made {
            let kept = kept?;
            let picked: Picked = kept.account()?;
            let mut reader = SequenceReader::open_file(kept.folder(), 0);
            let blocks = std::iter::from_fn(|| reader.next_block().transpose());
            trainer.append(picked.part, blocks.map(|block| block.map(|block| block.bases)))?;
            account.add(picked.account);
            self.task.check()?;
        }
        let learnt = account.learnt(self.learning, &trainer)?;
        let mut progress = |done, total| self.task.progress(done, Some(total), Unit::Items);
        let bpe = trainer.finish(self.task.threads, &mut progress, self.task.stop);
        let bpe = bpe.map_err(|error| match error {
            tokenizers::Error::Stopped => Error::Interrupted,
            error => error.into(),
        })?;
        outcome(self.task, &bpe, Some(&learnt))
    }
}

impl Ready<'_> {
    fn trainer(&self) -> Result<Trainer, Error> {
        let mut trainer = Trainer::new(self.learning.clone())?;
        trainer.expect(self.bases);
        Ok(trainer)
    }

    /// Hands out what there is to learn from in a partition, piece by piece.
    fn read_pieces(
        &self,
        task: &Task,
        partition: Partition,
        mut push: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let mut rows = Vec::new();
        for_each_stretch_of::<Error>(&stretches(self.input), partition.start..partition.end, |stretch| {
            rows.extend(Some(stretch).filter(is_training));
            Ok(())
        })?;
        let Some(first) = rows.first() else { return Ok(()) };
        let mut reader = SequenceReader::open_at(&self.sequence, first.record, first.interval.start)?;
        let mut bases = Vec::new();
        for stretch in &rows {
            task.check()?;
            for piece in self.config.pieces_of(stretch.interval) {
                let stretch = Stretch { interval: piece, ..stretch.clone() };
                fetch(&mut reader, &stretch, &self.sequence, &mut bases)?;
                lower(&self.masks, stretch.record, piece, &mut bases);
                push(&bases);
            }
        }
        Ok(())
    }
}

impl Config {
    /// What it learns from.
    fn input<'a>(&self, task: &'a Task) -> Result<&'a Artifact, Error> {
        let input = task.input_of("from", &["split", "chunk", "decontaminate"])?;
        if has_windows(input) == (self.pieces == Pieces::Chunks) {
            return Ok(input);
        }
        let reason = "`chunks` takes a chunk stage, `fixed` and `contig` take a split stage".to_owned();
        Err(Error::Config { key: "pieces", reason })
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
