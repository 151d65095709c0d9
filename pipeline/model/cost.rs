//! What a model costs to train, from its shape alone: bytes and floating-point operations. Nothing is allocated.

use serde::Serialize;

use super::config::{Config, Family};

/// Bytes of an f32.
pub(super) const FLOAT: u64 = 4;

/// Scores of the vocabulary that an OLMo in training has in memory at once: 256 MiB in f32, about three times that with what
/// comes of them.
pub(super) const SCORES: u64 = 1 << 26;

/// Bytes of training as this trainer does it: everything in f32. Activations are counted by hand: of OLMo a tenth below
/// what was measured on `olmo-6m`, with checkpointing a fifth above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The weights.
    pub weights: u64,
    /// Their gradients; every thread that computes a micro-batch has its own.
    pub gradients: u64,
    /// Both moments of `AdamW`.
    pub optimizer: u64,
    /// What one row leaves for its backward pass.
    pub activations_per_row: u64,
    /// The same when each layer is computed again in the backward pass.
    pub checkpointed_activations_per_row: u64,
}

/// Floating-point operations; a multiplication and an addition are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Per token of a training step, forward and backward: 6 per parameter of a matrix product, and attention.
    pub per_token: u64,
    /// Of these in attention, as if every position saw the whole row (the usual count).
    pub attention_per_token: u64,
}

impl Memory {
    /// Weights, gradients of one thread and moments.
    pub const fn state(&self) -> u64 {
        self.weights + self.gradients + self.optimizer
    }

    /// All of it, for micro-batches of `rows` rows on `threads` threads, and whether layers are computed again. Beside the
    /// gradients of each thread their sum is held.
    pub const fn total(&self, rows: u64, threads: u64, checkpointing: bool) -> u64 {
        let row =
            if checkpointing { self.checkpointed_activations_per_row } else { self.activations_per_row };
        self.weights + self.optimizer + self.gradients + threads * (self.gradients + rows * row)
    }
}

impl Config {
    /// Bytes to train it.
    pub fn memory(&self) -> Memory {
        let parameters = FLOAT * self.count().total();
        let (layers, context) = (u64::from(self.layers), u64::from(self.context));
        let (layer, width, head) =
            (context * self.kept_per_layer(), u64::from(self.width), self.kept_by_the_head());
        Memory {
            weights: parameters,
            gradients: parameters,
            optimizer: 2 * parameters,
            activations_per_row: FLOAT * (layers * layer + head),
            checkpointed_activations_per_row: FLOAT * (context * layers * width + layer.max(head)),
        }
    }

    /// Operations to train it.
    pub fn work(&self) -> Work {
        let count = self.count();
        let head = u64::from(self.vocabulary) * u64::from(self.width);
        let attention = 12 * u64::from(self.layers) * u64::from(self.width) * u64::from(self.context);
        Work {
            per_token: 6 * (count.attention + count.feed_forward + head) + attention,
            attention_per_token: attention,
        }
    }

    /// Values per token that a layer keeps for its backward pass: the inputs of its two norms and of its products,
    /// queries, keys and values before and after they are turned, attention's output, and four of the inner width
    /// (gate, up, the gate's activation, their product).
    fn kept_per_layer(&self) -> u64 {
        let (width, kv) = (u64::from(self.width), u64::from(self.kv_width()));
        let qkv = width + 2 * kv;
        let turned = width + kv;
        let norms = match self.family {
            Family::Olmo => 4 * width,
            Family::Olmo2 => 4 * width + turned,
        };
        norms + qkv + turned + width + 4 * u64::from(self.feed_forward)
    }

    /// Values per row of the last norm, and of the logarithmic softmax of the scores that are there at once, with the gradients of both.
    fn kept_by_the_head(&self) -> u64 {
        let (context, width) = (u64::from(self.context), u64::from(self.width));
        2 * context * width + 3 * SCORES.min(context * u64::from(self.vocabulary))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Overrides, Preset};

    fn preset(preset: Preset, vocabulary: u32, context: u32) -> Config {
        Config::resolve(Some(preset), &Overrides::default(), vocabulary, context).unwrap()
    }

    /// By hand: 16 layers of 4 d^2 + 3 d 8192 weights, a head of 4096 x 2048, and 12 L d T.
    #[test]
    fn olmo_1b_takes_7_30_gflop_per_token() {
        let work = preset(Preset::Olmo1b, 4096, 2048).work();
        let layers = 16 * (4 * 2048 * 2048 + 3 * 2048 * 8192);
        let attention = 12 * 16 * 2048 * 2048;
        assert_eq!(work.attention_per_token, attention);
        assert_eq!(work.per_token, 6 * (layers + 4096 * 2048) + attention);
        assert_eq!(work.per_token / 10_000_000, 729);
    }

    #[test]
    fn state_takes_16_bytes_per_parameter() {
        for name in Preset::ALL {
            let config = preset(name, 100, 512);
            assert_eq!(config.memory().state(), 16 * config.count().total(), "{name:?}");
        }
    }

    #[test]
    fn a_head_takes_no_more_than_the_scores_that_are_there_at_once() {
        for context in [512_u64, 1024] {
            let [one, two] = [context, 2 * context].map(|context| {
                let context32 = u32::try_from(context).unwrap();
                preset(Preset::Olmo1m, 100_000, context32).memory().activations_per_row
                    - FLOAT * 3 * SCORES.min(context * 100_000)
            });
            assert_eq!(two, 2 * one, "{context}");
        }
    }

    #[test]
    fn rows_threads_and_checkpointing_count() {
        let memory = preset(Preset::Olmo6m, 4096, 512).memory();
        let rows = |rows, threads| memory.total(rows, threads, false);
        assert_eq!(rows(1, 1), memory.state() + memory.gradients + memory.activations_per_row);
        assert_eq!(rows(3, 2) - rows(2, 2), 2 * memory.activations_per_row);
        assert_eq!(rows(1, 2) - rows(1, 1), memory.gradients + memory.activations_per_row);
        assert!(memory.total(1, 1, true) < rows(1, 1));
    }
}
