//! Tokenizers: sequences of bases to token ids and back.
//!
//! Input is upper-case IUPAC bytes ([`IUPAC`]). Every tokenizer tells how many bases a token stands for, so that losses
//! in nats per token become bits per base and scores of different tokenizers can be compared.
//!
//! Three families share the trait: [`nucleotide`] (one token a base, `HyenaDNA`'s ids), [`kmer`] (words of k bases, as
//! DNABERT and Nucleotide Transformer use them) and [`bpe`] (byte pair encoding, trained on a genome). All are written
//! to and read from Hugging Face's `tokenizer.json` ([`hf_json`]).

use std::path::Path;

use crate::fs;

pub mod bpe;
pub mod hf_json;
pub mod info;
pub mod kmer;
pub mod nucleotide;
pub mod parallel;
pub mod vocabulary;
pub mod window;

#[cfg(test)]
mod conformance;

/// The IUPAC nucleotide codes, in the order of their bytes.
pub const IUPAC: &[u8; 16] = b"ABCDGHKMNRSTUVWY";

/// Turns bases into token ids and back, without loss.
pub trait Tokenizer: Send + Sync {
    /// Number of ids, special tokens included: valid ids are `0..vocabulary_size()`.
    fn vocabulary_size(&self) -> u32;

    /// Appends the ids of `bases` (no special tokens are added).
    ///
    /// A byte that the vocabulary lacks becomes the unknown token, as in Hugging Face's tokenizers.
    fn encode_into(&self, bases: &[u8], ids: &mut Vec<u32>);

    /// Appends the bases of `ids`; special tokens stand for no bases.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for an id outside the vocabulary.
    fn decode_into(&self, ids: &[u32], bases: &mut Vec<u8>) -> Result<(), Error>;

    /// Number of bases that `token` stands for; 0 for special tokens and for ids out of range.
    fn bases(&self, token: u32) -> u32;

    /// The id of a special token by its text, such as `[PAD]` or `[EOS]`.
    fn special(&self, text: &str) -> Option<u32>;

    /// The text of `token`: its bases, or the name of a special token; `None` for ids out of range.
    fn text(&self, token: u32) -> Option<&str>;

    /// Ids that stand before and after a sequence when special tokens are asked for.
    fn template(&self) -> (&[u32], &[u32]) {
        (&[], &[])
    }

    /// Appends the ids of `bases` between the special tokens of [`Tokenizer::template`].
    fn encode_with_special_tokens_into(&self, bases: &[u8], ids: &mut Vec<u32>) {
        let (before, after) = self.template();
        ids.extend_from_slice(before);
        self.encode_into(bases, ids);
        ids.extend_from_slice(after);
    }

    /// Bytes in which shards keep an id: 2, or 4 where the vocabulary has more than 65,536 ids.
    fn id_bytes(&self) -> usize {
        if self.vocabulary_size() > 1 << 16 { 4 } else { 2 }
    }

    /// Number of bases that `ids` stand for together.
    fn bases_of(&self, ids: &[u32]) -> u64 {
        ids.iter().map(|&id| u64::from(self.bases(id))).sum()
    }

    /// The tokenizer as the text of a Hugging Face `tokenizer.json`, always the same for the same tokenizer.
    fn to_json(&self) -> String;

    /// The blake3 hash of [`Tokenizer::to_json`].
    fn fingerprint(&self) -> blake3::Hash {
        blake3::hash(self.to_json().as_bytes())
    }
}

/// Opens a `tokenizer.json`.
///
/// # Errors
/// [`Error::File`], with the path and the reason, when it cannot be read or would not give the ids that Hugging Face's
/// tokenizers give.
pub fn open(path: &Path) -> Result<Box<dyn Tokenizer>, Error> {
    let text = fs::read_to_string(path)?;
    hf_json::read(&text).map_err(|source| Error::File { path: path.to_owned(), source: Box::new(source) })
}

/// Why a tokenizer could not be made, opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An id outside the vocabulary.
    #[error("cannot decode token {found}: the vocabulary has ids 0 to {last}")]
    UnknownToken {
        /// The id.
        found: u32,
        /// The largest valid id.
        last: u32,
    },
    /// Two neighbouring k-mers that do not overlap.
    #[error("cannot decode token {index}: k-mer `{found}` does not overlap `{previous}` before it")]
    NoOverlap {
        /// Position of the token, counted from 0.
        index: usize,
        /// The k-mer there.
        found: String,
        /// The k-mer before it.
        previous: String,
    },
    /// A file that could not be read.
    #[error(transparent)]
    Io(#[from] fs::Error),
    /// A tokenizer file that is refused.
    #[error("cannot use tokenizer `{}`: {source}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// The reason.
        source: Box<Error>,
    },
    /// Text that is no JSON, is cut short, or lacks a field.
    #[error("no tokenizer.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A field of `tokenizer.json` whose value cannot be honoured.
    #[error("`{field}` is {found}; expected {expected}")]
    Field {
        /// Path of the field, such as `model.dropout`.
        field: String,
        /// What stands there.
        found: String,
        /// What would do.
        expected: String,
    },
    /// Ids that are not 0, 1, 2, ... without holes.
    #[error("no token has id {missing}, though ids go up to {last}")]
    Hole {
        /// The first id without a token.
        missing: u32,
        /// The largest id.
        last: u32,
    },
    /// One id or one text used twice.
    #[error("tokens `{first}` and `{second}` share id {id}")]
    SharedId {
        /// The id.
        id: u32,
        /// A token with that id.
        first: String,
        /// Another token with that id.
        second: String,
    },
    /// A merge with a part or a result that is no token.
    #[error("merge {index} (`{left}` `{right}`) names `{missing}`, which is not in the vocabulary")]
    MergeOfUnknown {
        /// Position of the merge, counted from 0.
        index: usize,
        /// Left part.
        left: String,
        /// Right part.
        right: String,
        /// The text that is no token.
        missing: String,
    },
    /// A pair that is merged twice.
    #[error("merge {index} (`{left}` `{right}`) stands in the list twice")]
    MergeTwice {
        /// Position of the second merge, counted from 0.
        index: usize,
        /// Left part.
        left: String,
        /// Right part.
        right: String,
    },
    /// A training option that cannot be honoured.
    #[error("`{option}` is {found}; expected {expected}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        expected: String,
    },
    /// A training corpus of which all is left out.
    #[error("nothing to train on: {0}")]
    NothingLearnt(bpe::learnt::Learnt),
    /// A training corpus without a base of the alphabet.
    #[error("nothing to train on: no A, C, G or T among {pieces} pieces")]
    NothingToTrainOn {
        /// Pieces that were pushed.
        pieces: u64,
    },
    /// A training corpus with a pair whose occurrences cannot be numbered.
    #[error(
        "a pair of tokens occurs {pairs} times after the first merges; at most {most} fit: train on a sample"
    )]
    TooLarge {
        /// Occurrences of the pair.
        pairs: u64,
        /// How many fit.
        most: u64,
    },
    /// The system has no memory left.
    #[error("cannot get the memory to train in: {source}; train on a sample")]
    Memory {
        /// The system's words.
        source: std::io::Error,
    },
    /// Someone asked to stop.
    #[error("stopped before the vocabulary was complete")]
    Stopped,
}
