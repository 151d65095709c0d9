//! A HyenaDNA's tensors under their published names and shapes, before any is allocated.

use super::config::Config;
use crate::model::layout::{Parameter, Part, Role, Start};
use crate::model::published::Published;

/// Trainable tensors of a layer.
pub const PER_LAYER: usize = 23;
/// The embedding, which is the head too.
pub const EMBEDDING: &str = "backbone.embeddings.word_embeddings.weight";
/// What checkpoints of the training code store once more for the head.
pub const HEAD: &str = "lm_head.weight";
/// A head for classes, where a model has one: `[classes, width]` and `[classes]`.
pub const CLASSES: [&str; 2] = ["head.output_transform.weight", "head.output_transform.bias"];

/// Standard deviation of matrices at the start; of those that add to the residual stream less.
const DEVIATION: f64 = 0.02;
/// The frequency of a filter's sines at the start.
const FREQUENCY: f64 = 10.0;

/// The name of a part of layer `layer`.
pub fn in_layer(layer: u32, part: &str) -> String {
    format!("backbone.layers.{layer}.{part}")
}

impl Config {
    /// The trainable tensors: embedding, then layer by layer, then the last norm, and the head for classes.
    pub fn layout(&self, classes: Option<u32>) -> Vec<Parameter> {
        let width = self.width;
        let (rows, start) = (self.padded_vocabulary, normal(self.padded_vocabulary));
        let mut embedding = tensor(Role::Embedding, EMBEDDING, &[rows, width], start);
        embedding.parts[0].copies.push(HEAD.to_owned());
        let mut all = vec![embedding];
        all.extend((0..self.layers).flat_map(|layer| self.layer(layer)));
        all.extend(norm("backbone.ln_f", width));
        if let Some(classes) = classes {
            all.push(tensor(Role::Head, CLASSES[0], &[classes, width], normal(classes)));
            all.push(tensor(Role::Norm, CLASSES[1], &[classes], Start::Zeros));
        }
        all
    }

    /// Number of trainable parameters, without a head for classes.
    pub fn parameters(&self) -> u64 {
        self.layout(None).iter().map(Parameter::len).sum()
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

    /// In the order of the published class, except that a norm follows the branch that it stands before.
    fn layer(&self, layer: u32) -> Vec<Parameter> {
        let name = |part: &str| in_layer(layer, part);
        let (width, inner) = (self.width, self.feed_forward);
        let mut all = self.operator(layer);
        all.extend(norm(&name("norm1"), width));
        all.push(tensor(Role::FeedForward, &name("mlp.fc1.weight"), &[inner, width], normal(inner)));
        all.push(tensor(Role::Norm, &name("mlp.fc1.bias"), &[inner], Start::Zeros));
        all.push(tensor(Role::FeedForward, &name("mlp.fc2.weight"), &[width, inner], self.adding()));
        all.push(tensor(Role::Norm, &name("mlp.fc2.bias"), &[width], Start::Zeros));
        all.extend(norm(&name("norm2"), width));
        all
    }

    /// The projections, the short filter, and what makes the long ones.
    fn operator(&self, layer: u32) -> Vec<Parameter> {
        let name = |part: &str| in_layer(layer, &format!("mixer.{part}"));
        let (width, filter) = (self.width, self.filter_width);
        let mixing = |part: &str, shape: &[u32], start| tensor(Role::Attention, &name(part), shape, start);
        let bias = |part: &str, shape: &[u32], start| tensor(Role::Norm, &name(part), shape, start);
        let network = |part: &str, shape: &[u32], start| {
            tensor(Role::Filter, &name(&format!("filter_fn.implicit_filter.{part}")), shape, start)
        };
        let short = Start::Uniform(f64::from(self.short_filter).sqrt().recip());
        let mut frequency = network("1.freq", &[1, filter], Start::All(FREQUENCY));
        let copies = ["3.freq", "5.freq"].map(|part| name(&format!("filter_fn.implicit_filter.{part}")));
        frequency.parts[0].copies.extend(copies);
        vec![
            mixing("in_proj.weight", &[3 * width, width], normal(3 * width)),
            bias("in_proj.bias", &[3 * width], Start::Zeros),
            mixing("out_proj.weight", &[width, width], self.adding()),
            bias("out_proj.bias", &[width], Start::Zeros),
            mixing("short_filter.weight", &[3 * width, 1, self.short_filter], short),
            bias("short_filter.bias", &[3 * width], short),
            bias("filter_fn.bias", &[width], Start::Normal { deviation: 1.0, used_rows: width.into() }),
            network("0.weight", &[filter, self.features], normal(filter)),
            network("0.bias", &[filter], Start::Zeros),
            frequency,
            network("2.weight", &[filter, filter], normal(filter)),
            network("2.bias", &[filter], Start::Zeros),
            network("4.weight", &[filter, filter], normal(filter)),
            network("4.bias", &[filter], Start::Zeros),
            network("6.weight", &[width, filter], normal(width)),
        ]
    }

    /// The start of a matrix that adds to the residual stream.
    fn adding(&self) -> Start {
        let deviation = DEVIATION / f64::from(2 * self.layers).sqrt();
        Start::Normal { deviation, used_rows: self.width.into() }
    }
}

fn normal(rows: u32) -> Start {
    Start::Normal { deviation: DEVIATION, used_rows: rows.into() }
}

fn tensor(role: Role, name: &str, shape: &[u32], start: Start) -> Parameter {
    let parts = vec![Part::new(name.to_owned(), shape[0])];
    Parameter { role, parts, columns: shape[1..].iter().map(|&size| size.into()).collect(), start }
}

fn norm(name: &str, width: u32) -> [Parameter; 2] {
    let part = |part: &str, start| tensor(Role::Norm, &format!("{name}.{part}"), &[width], start);
    [part("weight", Start::Ones), part("bias", Start::Zeros)]
}

/// A name as the published class has it: checkpoints of the training code put `model.` before it, and those made with
/// gradient checkpointing `.layer` behind `mixer` and `mlp`.
pub fn published(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    name.replace(".mixer.layer.", ".mixer.").replace(".mlp.layer.", ".mlp.")
}

/// The model that the shapes in a file speak of, where they do; the published vocabulary where the embedding has as many
/// rows.
pub fn config_of(file: &Published<'_>) -> Option<Config> {
    let first = |part: &str, place| file.size(&in_layer(0, part), place);
    let layers = file.names().filter(|name| name.ends_with(".norm1.weight")).count();
    let (usual, rows) = (super::Preset::Tiny1k.config(), file.size(EMBEDDING, 0)?);
    let vocabulary = if rows == usual.padded_vocabulary { usual.vocabulary } else { rows };
    let config = Config {
        layers: u32::try_from(layers).ok()?,
        width: file.size(EMBEDDING, 1)?,
        feed_forward: first("mlp.fc1.weight", 0)?,
        vocabulary,
        padded_vocabulary: rows,
        longest: first("mixer.filter_fn.pos_emb.z", 1)?,
        features: first("mixer.filter_fn.pos_emb.z", 2)?,
        filter_width: first("mixer.filter_fn.implicit_filter.1.freq", 1)?,
        short_filter: first("mixer.short_filter.weight", 2)?,
        norm_epsilon: usual.norm_epsilon,
    };
    config.possible()
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
