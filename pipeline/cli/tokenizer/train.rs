//! `genomill tokenizer train`: byte-pair encoding from FASTA files. The file is written at the end, whole or not at all.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Pieces, pieces, pieces_of};
use crate::cli::progress::{self, Style};
use crate::cli::run::{on_signal, threads};
use crate::cli::{Error, say};
use crate::fs;
use crate::observer::{Event, Observer, Stop, Unit};
use crate::source::fasta;
use crate::source::input::{Input, STDIN};
use crate::tokenizer::bpe::learnt::Account;
use crate::tokenizer::bpe::train::{Alphabet, Config, SoftMasked, Trainer};
use crate::tokenizer::{self, Tokenizer};
use crate::units::{parse_bases, parse_bytes};

#[derive(Debug, Args)]
pub struct TrainArguments {
    /// FASTA files, plain, gzip or bgzip, or `-` for standard input; lower case means soft-masked. Their order does not matter
    #[arg(required = true)]
    fasta: Vec<PathBuf>,
    /// Number of tokens, special tokens and letters included
    #[arg(long, value_name = "N", default_value_t = 4096)]
    vocab: u32,
    /// What records are cut into: `fixed:N` bases, or `contig`
    #[arg(long, default_value = "fixed:1000", value_parser = pieces)]
    pieces: Pieces,
    /// The longest token, in bases; by default there is no limit
    #[arg(long, value_name = "BASES")]
    max_token_length: Option<u32>,
    /// Do not merge pairs that occur fewer times
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_frequency: u64,
    /// Special tokens in the order of their ids, with commas between; an empty text for none
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    special_tokens: Option<Vec<String>>,
    /// Which single letters are tokens; other codes become `[UNK]`
    #[arg(long, value_enum, default_value_t = Letters::Iupac)]
    alphabet: Letters,
    /// What to learn from soft-masked bases: `keep` (as much as from others), `exclude`, or a share of them from 0 to 1
    #[arg(long, value_name = "keep|exclude|WEIGHT", default_value = "keep", value_parser = soft_masked)]
    soft_masked: SoftMasked,
    /// Count every piece on both strands
    #[arg(long)]
    reverse_complement: bool,
    /// Learn from at most this many bases, such as `2Gb`; which ones does not depend on the order of the files
    #[arg(long, value_name = "BASES", value_parser = parse_bases)]
    sample: Option<u64>,
    /// Learn in at most this much memory, such as `8GB`; what would not fit is left out, as by --sample
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Worker threads; by default one per core. They do not change the result
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// How to show progress on stderr
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
    /// Where to write the tokenizer, as Hugging Face reads it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Which single letters are tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Letters {
    /// All 16 IUPAC codes
    Iupac,
    /// A C G T N
    Acgtn,
    /// A C G T
    Acgt,
}

impl From<Letters> for Alphabet {
    fn from(letters: Letters) -> Self {
        match letters {
            Letters::Iupac => Self::Iupac,
            Letters::Acgtn => Self::Acgtn,
            Letters::Acgt => Self::Acgt,
        }
    }
}

fn soft_masked(text: &str) -> Result<SoftMasked, String> {
    match (text, f64::from_str(text)) {
        ("keep", _) => Ok(SoftMasked::Keep),
        ("exclude", _) => Ok(SoftMasked::Exclude),
        (_, Ok(weight)) if (0.0..=1.0).contains(&weight) => Ok(SoftMasked::Weight(weight)),
        _ => Err(format!("expected `keep`, `exclude` or a share from 0 to 1, found `{text}`")),
    }
}

impl TrainArguments {
    fn config(&self) -> Config {
        let special = self.special_tokens.clone();
        let special = special.map(|texts| texts.into_iter().filter(|text| !text.is_empty()).collect());
        let usual = Config::default();
        Config {
            vocabulary_size: self.vocab,
            max_token_length: self.max_token_length,
            min_frequency: self.min_frequency,
            special_tokens: special.unwrap_or(usual.special_tokens),
            alphabet: self.alphabet.into(),
            reverse_complement: self.reverse_complement,
            soft_masked: self.soft_masked,
            sample: self.sample,
            memory: self.memory,
        }
    }
}

pub fn train(arguments: &TrainArguments) -> Result<(), Error> {
    let stop = Arc::new(Stop::new());
    on_signal(&stop)?;
    let observer = progress::observer(arguments.progress);
    let config = arguments.config();
    let mut trainer = Trainer::new(config.clone())?;
    let mut account = Account::default();
    let mut reading = Reading::new(&arguments.fasta, observer.as_ref(), &stop);
    reading.read(arguments, |piece| {
        account.push(&mut trainer, piece);
        account.pushed()
    })?;
    let learnt = account.learnt(&config, &trainer)?;
    let mut progress = |done, total| {
        let stage = "merging".to_owned();
        observer.event(&Event::Progress { stage, done, total: Some(total), unit: Unit::Items });
    };
    let bpe = trainer.finish(threads(arguments.threads), &mut progress, &stop)?;
    fs::write_atomic(&arguments.output, bpe.to_json().as_bytes())?;
    if arguments.progress != Style::None {
        say(&format!("{} tokens {learnt}: {}", bpe.vocabulary_size(), arguments.output.display()));
    }
    Ok(())
}

/// Reads FASTA files, tells how far it is, and stops when asked to.
struct Reading<'a> {
    files: &'a [PathBuf],
    observer: &'a dyn Observer,
    stop: &'a Arc<Stop>,
    /// Bytes of the files, as they lie on disk; none with a stream among them.
    size: Option<u64>,
    /// Bytes read of them.
    taken: Arc<AtomicU64>,
}

impl<'a> Reading<'a> {
    fn new(files: &'a [PathBuf], observer: &'a dyn Observer, stop: &'a Arc<Stop>) -> Self {
        let size = |file: &PathBuf| {
            std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file).map(|file| file.len())
        };
        Self { files, observer, stop, size: files.iter().map(size).sum(), taken: Arc::default() }
    }

    /// Hands out the pieces of all files; `push` says how many bases it has had.
    fn read(&mut self, arguments: &TrainArguments, mut push: impl FnMut(&[u8]) -> u64) -> Result<(), Error> {
        let mut told = 0;
        for file in self.files {
            let input = self.open(file)?;
            let reader = fasta::Reader::new(input.file().to_owned(), input);
            let done = pieces_of(reader, arguments.pieces, |piece| {
                let bases = push(piece);
                if bases - told >= PROGRESS_BASES {
                    told = bases;
                    self.tell(bases);
                }
                self.check()
            });
            // A stream that is stopped looks like one that fails.
            self.check()?;
            done?;
        }
        Ok(())
    }

    fn open(&self, file: &Path) -> Result<Input, fasta::Error> {
        let taken = Arc::clone(&self.taken);
        let input = if file == Path::new(STDIN) {
            Input::new("standard input", Counted { inner: Patient::new(self.stop), taken })
        } else {
            fs::open(file).map_err(Into::into).and_then(|inner| Input::new(file, Counted { inner, taken }))
        };
        Ok(input?)
    }

    fn check(&self) -> Result<(), Error> {
        if self.stop.is_requested() { Err(tokenizer::Error::Stopped.into()) } else { Ok(()) }
    }

    /// How far it is; how many bases there will be is told from the share of bytes that is read.
    fn tell(&self, done: u64) {
        let taken = self.taken.load(Ordering::Relaxed);
        let total = self.size.filter(|size| taken > 0 && *size >= taken);
        let total = total
            .and_then(|size| u64::try_from(u128::from(done) * u128::from(size) / u128::from(taken)).ok());
        let stage = "reading".to_owned();
        self.observer.event(&Event::Progress { stage, done, total, unit: Unit::Bases });
    }
}

/// Between two events of progress.
const PROGRESS_BASES: u64 = 1 << 20;

/// Counts the bytes that pass.
struct Counted<R> {
    inner: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Standard input, read beside, so that a request to stop is heard while nothing comes. Memory: some blocks.
struct Patient {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: io::Cursor<Vec<u8>>,
    stop: Arc<Stop>,
}

impl Patient {
    fn new(stop: &Arc<Stop>) -> Self {
        let (sender, blocks) = sync_channel(4);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            loop {
                let block = io::stdin().lock().read(&mut buffer).map(|count| buffer[..count].to_vec());
                let last = !matches!(&block, Ok(block) if !block.is_empty());
                if sender.send(block).is_err() || last {
                    break;
                }
            }
        });
        Self { blocks, block: io::Cursor::default(), stop: Arc::clone(stop) }
    }
}

impl Read for Patient {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.block.read(out)?;
        if count > 0 || out.is_empty() {
            return Ok(count);
        }
        loop {
            match self.blocks.recv_timeout(Duration::from_millis(50)) {
                Ok(block) => {
                    self.block = io::Cursor::new(block?);
                    return self.block.read(out);
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
                Err(RecvTimeoutError::Timeout) if self.stop.is_requested() => {
                    return Err(io::Error::other("stopped on request"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_masked_is_a_word_or_a_share() {
        for (text, expected) in [
            ("keep", Some(SoftMasked::Keep)),
            ("exclude", Some(SoftMasked::Exclude)),
            ("0.25", Some(SoftMasked::Weight(0.25))),
            ("1", Some(SoftMasked::Weight(1.0))),
            ("1.5", None),
            ("nan", None),
            ("drop", None),
        ] {
            assert_eq!(soft_masked(text).ok(), expected, "{text}");
        }
    }
}
