//! A HyenaDNA's tensors under their published names and shapes, before any is allocated.

use super::config::Config;

/// Trainable tensors of a layer.
pub const PER_LAYER: usize = 23;
/// The embedding, which is the head too.
pub const EMBEDDING: &str = "backbone.embeddings.word_embeddings.weight";
/// What checkpoints of the training code store once more for the head.
pub const HEAD: &str = "lm_head.weight";
/// A head for classes, where a model has one: `[classes, width]` and `[classes]`.
pub const CLASSES: [&str; 2] = ["head.output_transform.weight", "head.output_transform.bias"];

/// A trainable tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its published name.
    pub name: String,
    /// Names under which the same tensor is stored again.
    pub copies: Vec<String>,
    /// Its shape.
    pub shape: Vec<u32>,
}

impl Slot {
    /// Number of values.
    pub fn len(&self) -> u64 {
        self.shape.iter().map(|&size| u64::from(size)).product()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The name of a part of layer `layer`.
pub fn in_layer(layer: u32, part: &str) -> String {
    format!("backbone.layers.{layer}.{part}")
}

impl Config {
    /// The trainable tensors: embedding, then layer by layer, then the last norm; without a head for classes.
    pub fn slots(&self) -> Vec<Slot> {
        let slot = |name: &str, shape: &[u32]| named(name.to_owned(), shape);
        let embedding = slot(EMBEDDING, &[self.padded_vocabulary, self.width]);
        let last = ["weight", "bias"].map(|part| slot(&format!("backbone.ln_f.{part}"), &[self.width]));
        let layers = (0..self.layers).flat_map(|layer| self.layer(layer));
        std::iter::once(embedding).chain(layers).chain(last).collect()
    }

    /// Number of trainable parameters, without a head for classes.
    pub fn parameters(&self) -> u64 {
        self.slots().iter().map(Slot::len).sum()
    }

    /// What each layer stores though `l_max` and the width tell it: positions, their features, and how fast each
    /// filter decays.
    pub fn tables(&self) -> [(&'static str, [u32; 3]); 3] {
        [
            ("mixer.filter_fn.pos_emb.t", [1, self.longest, 1]),
            ("mixer.filter_fn.pos_emb.z", [1, self.longest, self.features]),
            ("mixer.filter_fn.modulation.deltas", [1, 1, self.width]),
        ]
    }

    fn layer(&self, layer: u32) -> [Slot; PER_LAYER] {
        let (width, inner, filter) = (self.width, self.feed_forward, self.filter_width);
        let slot = |part: &str, shape: &[u32]| named(in_layer(layer, part), shape);
        let network = |part: &str| format!("mixer.filter_fn.implicit_filter.{part}");
        let frequencies = ["3.freq", "5.freq"].map(|part| in_layer(layer, &network(part)));
        let frequency = slot(&network("1.freq"), &[1, filter]);
        [
            slot("mixer.in_proj.weight", &[3 * width, width]),
            slot("mixer.in_proj.bias", &[3 * width]),
            slot("mixer.out_proj.weight", &[width, width]),
            slot("mixer.out_proj.bias", &[width]),
            slot("mixer.short_filter.weight", &[3 * width, 1, self.short_filter]),
            slot("mixer.short_filter.bias", &[3 * width]),
            slot("mixer.filter_fn.bias", &[width]),
            slot(&network("0.weight"), &[filter, self.features]),
            slot(&network("0.bias"), &[filter]),
            Slot { copies: frequencies.into(), ..frequency },
            slot(&network("2.weight"), &[filter, filter]),
            slot(&network("2.bias"), &[filter]),
            slot(&network("4.weight"), &[filter, filter]),
            slot(&network("4.bias"), &[filter]),
            slot(&network("6.weight"), &[width, filter]),
            slot("norm1.weight", &[width]),
            slot("norm1.bias", &[width]),
            slot("mlp.fc1.weight", &[inner, width]),
            slot("mlp.fc1.bias", &[inner]),
            slot("mlp.fc2.weight", &[width, inner]),
            slot("mlp.fc2.bias", &[width]),
            slot("norm2.weight", &[width]),
            slot("norm2.bias", &[width]),
        ]
    }
}

fn named(name: String, shape: &[u32]) -> Slot {
    Slot { name, copies: Vec::new(), shape: shape.to_vec() }
}

/// A name as the published class has it: checkpoints of the training code put `model.` before it, and those made with
/// gradient checkpointing `.layer` behind `mixer` and `mlp`.
pub fn published(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    name.replace(".mixer.layer.", ".mixer.").replace(".mlp.layer.", ".mlp.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hyena::Preset;

    #[test]
    fn presets_have_the_published_sizes() {
        let cases = [
            (Preset::Tiny1k, 436_096),
            (Preset::Tiny1kD256, 1_641_088),
            (Preset::Small32k, 3_277_568),
            (Preset::Medium160k, 6_550_528),
        ];
        for (preset, expected) in cases {
            assert_eq!(preset.config().parameters(), expected, "{preset}");
        }
    }

    #[test]
    fn names_of_checkpoints_become_the_published_ones() {
        let cases = [
            ("model.backbone.layers.0.mixer.layer.in_proj.bias", "backbone.layers.0.mixer.in_proj.bias"),
            ("backbone.layers.11.mlp.layer.fc1.weight", "backbone.layers.11.mlp.fc1.weight"),
            ("model.lm_head.weight", HEAD),
            (EMBEDDING, EMBEDDING),
        ];
        for (name, expected) in cases {
            assert_eq!(published(name), expected);
        }
    }
}
