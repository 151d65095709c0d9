//! Tokenizers: sequences of bases to token ids and back.
//!
//! Input is upper-case IUPAC bytes. Every tokenizer tells how many bases a token stands for, so that losses in nats per
//! token become bits per base and scores of different tokenizers can be compared.

/// Turns bases into token ids and back, without loss.
pub trait Tokenizer: Send + Sync {
    /// Number of ids, special tokens included: valid ids are `0..vocabulary_size()`.
    fn vocabulary_size(&self) -> u32;

    /// Appends the ids of `bases` (no special tokens are added).
    fn encode_into(&self, bases: &[u8], ids: &mut Vec<u32>);

    /// Appends the bases of `ids`; special tokens stand for no bases.
    fn decode_into(&self, ids: &[u32], bases: &mut Vec<u8>) -> Result<(), Error>;

    /// Number of bases that `token` stands for; 0 for special tokens and for ids out of range.
    fn bases(&self, token: u32) -> u32;

    /// The id of a special token by its text, such as `[PAD]` or `[EOS]`.
    fn special(&self, text: &str) -> Option<u32>;
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
}
