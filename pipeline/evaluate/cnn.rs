//! The convolutional baseline of Genomic Benchmarks: what a model of DNA has to beat.
//!
//! Embedding of 100, three times convolution of 8 (16, 8 and 4 channels), batch norm, `ReLU` and pooling of 2, then 512 units and the
//! classes. One thing differs from the published one: the loss is cross-entropy, where that one applies a sigmoid twice. Shapes in comments: B rows,
//! T tokens, C classes.

use tch::{Kind, TchError, Tensor};

use super::encoder::Batch;
use super::optimizer::Draws;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::nucleotide::Nucleotide;

const WIDTH: i64 = 100;
/// A, C, G, T, anything else, and what fills a row.
const SYMBOLS: i64 = 6;
const OTHER: i64 = 4;
const FILL: i64 = 5;
const CHANNELS: [i64; 3] = [16, 8, 4];
const KERNEL: i64 = 8;
const HIDDEN: i64 = 512;
/// The shortest row that three convolutions and poolings leave something of.
const LEAST_LENGTH: i64 = 64;

/// Weights that are learned, and what batch norms remember.
pub(super) struct Cnn {
    pub weights: Vec<Tensor>,
    /// Mean and variance of each batch norm.
    pub norms: Vec<[Tensor; 2]>,
    /// The symbol of each token, `[ids]`.
    symbols: Tensor,
    /// Symbols of a row.
    length: i64,
}

impl Cnn {
    /// With first weights as `PyTorch` draws them: between plus and minus one over the root of the inputs of a unit; the embedding
    /// from -1 to 1. Rows have at most `longest` tokens.
    pub(super) fn new(classes: usize, longest: usize, seed: u64) -> Result<Self, TchError> {
        let size = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let longest = size(longest).max(LEAST_LENGTH);
        let mut draws = Draws::new(seed);
        let mut weights = vec![draws.uniform(&[SYMBOLS, WIDTH], 1)?];
        let (mut inputs, mut length, mut norms) = (WIDTH, longest, Vec::new());
        for channels in CHANNELS {
            weights.push(draws.uniform(&[channels, inputs, KERNEL], inputs * KERNEL)?);
            weights.push(draws.uniform(&[channels], inputs * KERNEL)?);
            let ones = Tensor::f_ones(channels, (Kind::Float, tch::Device::Cpu))?;
            let zeros = ones.f_zeros_like()?;
            norms.push([zeros.copy(), ones.copy()]);
            weights.extend([ones.set_requires_grad(true), zeros.set_requires_grad(true)]);
            (inputs, length) = (channels, (length - KERNEL + 1) / 2);
        }
        for (units, inputs) in [(HIDDEN, inputs * length), (size(classes), HIDDEN)] {
            weights.extend([draws.uniform(&[units, inputs], inputs)?, draws.uniform(&[units], inputs)?]);
        }
        Ok(Self { weights, norms, symbols: symbols()?, length: longest })
    }

    /// Number of weights.
    pub(super) fn parameters(&self) -> u64 {
        self.weights.iter().map(|weight| weight.numel() as u64).sum()
    }

    /// Scores of the classes, `[B, C]`, of the tokens of [`Nucleotide::new`].
    pub(super) fn logits(&self, batch: &Batch, training: bool) -> Result<Tensor, TchError> {
        let known = self.symbols.f_index_select(0, &batch.ids.f_flatten(0, 1)?)?.f_view_as(&batch.ids)?;
        let there = known.f_where_self(&batch.valid, &Tensor::from(FILL))?;
        let missing = self.length - there.size()[1];
        let ids = there.f_pad([0, missing], "constant", FILL as f64)?;
        self.forward(&ids, training)
    }

    /// Logits of the classes, `[B, C]`, of symbols, `[B, length]`.
    fn forward(&self, ids: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let mut hidden = Tensor::f_embedding(&self.weights[0], ids, -1, false, false)?.f_transpose(1, 2)?;
        for (layer, [mean, variance]) in self.weights[1..13].chunks(4).zip(&self.norms) {
            let [kernel, bias, scale, shift] = layer else { continue };
            hidden = hidden.f_conv1d(kernel, Some(bias), 1, 0, 1, 1)?;
            hidden = hidden.f_batch_norm(
                Some(scale),
                Some(shift),
                Some(mean),
                Some(variance),
                training,
                0.1,
                1e-5,
                false,
            )?;
            hidden = hidden.f_relu()?.f_max_pool1d(2, 2, 0, 1, false)?;
        }
        let hidden =
            hidden.f_flatten(1, -1)?.f_linear(&self.weights[13], Some(&self.weights[14]))?.f_relu()?;
        hidden.f_linear(&self.weights[15], Some(&self.weights[16]))
    }
}

/// The symbol of each token of [`Nucleotide::new`].
fn symbols() -> Result<Tensor, TchError> {
    let (tokenizer, mut bases) = (Nucleotide::new(), Vec::new());
    tokenizer.encode_into(b"ACGT", &mut bases);
    let of = |id: u32| (0..).zip(&bases).find(|(_, base)| **base == id).map_or(OTHER, |(symbol, _)| symbol);
    Tensor::f_from_slice(&(0..tokenizer.vocabulary_size()).map(of).collect::<Vec<i64>>())
}
