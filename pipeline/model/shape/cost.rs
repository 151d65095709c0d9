//! What a model of any family costs to train: parameters by part, bytes, floating-point operations. Nothing is allocated.
//!
//! Activations are counted by hand from the forward passes: what autograd keeps, in f32. Of HyenaDNA an eighth below what was measured
//! (`tiny-1k`, 1,024 tokens), of DNABERT-2 an eighth to a fifth (`1m`, 256 and 1,024 tokens).

use super::Shape;
use crate::model::cost::{FLOAT, Memory, Work};
use crate::model::layout::{Count, Parameter, Role};
use crate::model::{dnabert2, hyena};

/// Tokens that a masked model is asked for, at the usual rate: 3 of 20.
const ASKED: [u64; 2] = [3, 20];

impl Shape {
    /// Number of parameters by part.
    pub fn parts(&self) -> Count {
        Count::of(&self.layout())
    }

    /// Bytes to train it on rows of `context` tokens. Only an OLMo can compute its layers again in the backward pass.
    pub fn memory(&self, context: u32) -> Memory {
        let row = match self {
            Self::Olmo(config) => return config.memory(),
            Self::Hyena { hyenadna } => kept_by_hyena(hyenadna, context.into()),
            Self::Dnabert2 { dnabert2 } => kept_by_dnabert2(dnabert2, context.into()),
        };
        let parameters = FLOAT * self.count();
        Memory {
            weights: parameters,
            gradients: parameters,
            optimizer: 2 * parameters,
            activations_per_row: FLOAT * row,
            checkpointed_activations_per_row: FLOAT * row,
        }
    }

    /// Operations of a training step on rows of `context` tokens, as [`Work`] counts them. Of a HyenaDNA the place of attention is
    /// taken by its long convolutions, 5 n log2 n for half of each complex transform; a DNABERT-2 is counted as if the masked
    /// head answered at every position.
    pub fn work(&self, context: u32) -> Work {
        let tokens = f64::from(context);
        let mixing = match self {
            Self::Olmo(config) => return config.work(),
            Self::Hyena { hyenadna } => {
                let transform = 2.5 * 2.0 * (2.0 * tokens).log2();
                3.0 * 2.0 * transform * f64::from(hyenadna.layers) * f64::from(hyenadna.width)
            }
            Self::Dnabert2 { dnabert2 } => {
                12.0 * f64::from(dnabert2.layers) * f64::from(dnabert2.width) * tokens
            }
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and far below 2^64"
        )]
        let mixing = mixing as u64;
        Work { per_token: 6 * self.in_products() + mixing, attention_per_token: mixing }
    }

    /// The same per token, all of it.
    pub fn work_per_token(&self, context: usize) -> f64 {
        self.work(u32::try_from(context).unwrap_or(u32::MAX)).per_token as f64
    }

    /// Parameters that every token is multiplied with: all matrices, the embedding as the head.
    fn in_products(&self) -> u64 {
        let of_tokens = |p: &&Parameter| !matches!(p.role, Role::Norm | Role::Filter);
        self.layout().iter().filter(of_tokens).map(Parameter::len).sum()
    }
}

/// Values that a row leaves. A layer: the inputs of both norms, of the operator's two products and of the short convolution, what its
/// three outputs are multiplied with, the spectrum, the result; inputs of the feed-forward branch's products and of its GELU.
/// Filters are made once for all rows of a micro-batch; here they count for each.
fn kept_by_hyena(config: &hyena::Config, tokens: u64) -> u64 {
    let (width, inner) = (u64::from(config.width), u64::from(config.feed_forward));
    let layer = 2 * width + 2 * width + 3 * width + 3 * width + 4 * width + width + 2 * inner;
    let filters = 9 * u64::from(config.filter_width) + 4 * width;
    let head = 2 * width + 3 * u64::from(config.padded_vocabulary);
    tokens * (u64::from(config.layers) * (layer + filters) + head)
}

/// Values that a row leaves. A layer: the inputs of its four products and two norms, queries, keys and values, attention's output, gate
/// and value and what becomes of them. The head's values are those of the tokens that are asked for. The distances of
/// attention are the same for all layers.
fn kept_by_dnabert2(config: &dnabert2::Config, tokens: u64) -> u64 {
    let (width, inner) = (u64::from(config.width), u64::from(config.feed_forward));
    let layer = 4 * width + 4 * width + 4 * inner;
    let head = (3 * width + 3 * u64::from(config.vocabulary)) * ASKED[0] / ASKED[1];
    let distances = u64::from(config.heads) * tokens * tokens;
    tokens * (u64::from(config.layers) * layer + 2 * width + head) + distances
}

#[cfg(test)]
mod tests {
    use crate::model::Named;

    #[test]
    fn every_preset_has_its_parts_and_its_costs() {
        for named in Named::all() {
            let shape = named.shape(100, 128).unwrap();
            let (parts, memory) = (shape.parts(), shape.memory(128));
            assert_eq!(parts.total(), shape.count(), "{named}");
            assert_eq!(memory.state(), 16 * shape.count(), "{named}");
            assert_eq!(parts.filters > 0, shape.family() == "HyenaDNA", "{named}");
            assert!(memory.activations_per_row > 0 && memory.total(2, 1, false) > memory.total(1, 1, false));
            let [short, long] = [64, 128].map(|context| shape.work(context));
            assert!(
                short.per_token - short.attention_per_token == long.per_token - long.attention_per_token
                    || shape.family() == "OLMo"
            );
        }
    }

    /// By hand: two layers of width 128 for 16 ids.
    #[test]
    fn hyenadna_tiny_has_the_published_parts() {
        let shape = "hyenadna-tiny-1k".parse::<Named>().unwrap().shape(12, 1024).unwrap();
        let parts = shape.parts();
        assert_eq!((parts.embedding, parts.feed_forward), (16 * 128, 2 * 2 * 128 * 512));
        // A transform of 2,048 points takes 2.5 x 2 x 11 operations per token and channel, six of them per layer.
        assert_eq!(shape.work(1024).attention_per_token, 6 * 55 * 2 * 128);
    }

    #[test]
    fn rows_longer_than_the_positions_are_refused() {
        let refused = "hyenadna-tiny-1k".parse::<Named>().unwrap().shape(12, 2048).unwrap_err();
        assert_eq!(refused, "rows of 2048 tokens are longer than what `hyenadna-tiny-1k` takes, 1026");
    }
}
