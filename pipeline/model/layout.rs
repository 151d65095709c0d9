//! A model's trainable tensors, before any is allocated: names, shapes, how each starts, what decays.
//!
//! Matrices that read the same input are one tensor here (queries, keys and values; gate and up), which makes one
//! matrix product of several; on disk each part has its own name, as Hugging Face's classes call it.

use serde::Serialize;

use super::config::{Config, Family, Init};

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The embedding (and the head, where they are tied).
    Embedding,
    /// A matrix of a layer's attention, or of what stands in its place.
    Attention,
    /// A matrix of a layer's feed-forward branch.
    FeedForward,
    /// The weights of a norm, or a bias.
    Norm,
    /// What makes HyenaDNA's long filters; never decays.
    Filter,
    /// A head of its own.
    Head,
}

/// A trainable tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// What it is for.
    pub role: Role,
    /// Its parts on disk, in the order of its rows.
    pub parts: Vec<Part>,
    /// Sizes behind the rows: none of a vector, the columns of a matrix.
    pub columns: Vec<u64>,
    /// How it starts.
    pub start: Start,
}

/// Some rows of a tensor, under a name of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The name on disk.
    pub name: String,
    /// Number of rows.
    pub rows: u64,
    /// Names under which it may be stored again.
    pub copies: Vec<String>,
}

/// How a tensor starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// Every value 1.
    Ones,
    /// Every value 0.
    Zeros,
    /// Every value this.
    All(f64),
    /// Evenly between minus this and this.
    Uniform(f64),
    /// Normal around 0, cut at 3 standard deviations; rows from `used_rows` on are 0.
    Normal {
        /// Standard deviation before the cut.
        deviation: f64,
        /// Rows that are ever used.
        used_rows: u64,
    },
}

/// How many parameters a model has, by part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The embedding, padding included (and the head, where they are tied).
    pub embedding: u64,
    /// Queries, keys, values and outputs of all layers; of HyenaDNA the operator's matrices and short filters.
    pub attention: u64,
    /// What makes HyenaDNA's long filters.
    #[serde(skip_serializing_if = "is_zero")]
    pub filters: u64,
    /// Gates, ups and downs of all layers.
    pub feed_forward: u64,
    /// Norms and biases.
    pub norms: u64,
    /// A head of its own.
    pub head: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde wants")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Parameter {
    /// Rows of all parts.
    pub fn rows(&self) -> u64 {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// Number of values.
    pub fn len(&self) -> u64 {
        self.rows() * self.columns.iter().product::<u64>()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Part {
    /// `rows` rows under one name.
    pub fn new(name: String, rows: u32) -> Self {
        Self { name, rows: rows.into(), copies: Vec::new() }
    }

    /// Its shape, with these sizes behind the rows.
    pub fn shape(&self, columns: &[u64]) -> Vec<u64> {
        std::iter::once(self.rows).chain(columns.iter().copied()).collect()
    }

    /// Every name under which it may be stored.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.name).chain(&self.copies)
    }
}

impl Count {
    /// Of these tensors.
    pub fn of(parameters: &[Parameter]) -> Self {
        parameters.iter().fold(Self::default(), |mut count, parameter| {
            *match parameter.role {
                Role::Embedding => &mut count.embedding,
                Role::Attention => &mut count.attention,
                Role::Filter => &mut count.filters,
                Role::FeedForward => &mut count.feed_forward,
                Role::Norm => &mut count.norms,
                Role::Head => &mut count.head,
            } += parameter.len();
            count
        })
    }

    /// The layers, their norms included, and the last norm.
    pub const fn layers(self) -> u64 {
        self.attention + self.filters + self.feed_forward + self.norms
    }

    /// All of them.
    pub const fn total(self) -> u64 {
        self.embedding + self.layers() + self.head
    }
}

impl Config {
    /// The trainable tensors: embedding, then layer by layer, then the last norm and the head where they exist.
    pub fn parameters(&self) -> Vec<Parameter> {
        let embedding = self.vocabulary_matrix(Role::Embedding, "model.embed_tokens.weight");
        let layers = (0..self.layers).flat_map(|layer| self.layer(layer));
        let norm = (self.family == Family::Olmo2).then(|| norm("model.norm.weight".to_owned(), self.width));
        let head = (!self.tied_head).then(|| self.vocabulary_matrix(Role::Head, "lm_head.weight"));
        std::iter::once(embedding).chain(layers).chain(norm).chain(head).collect()
    }

    /// Number of parameters; nothing is allocated.
    pub fn count(&self) -> Count {
        Count::of(&self.parameters())
    }

    /// The tensors of one layer: qkv, output, gate and up, down; with OLMo-2 also the norms of queries, keys,
    /// attention and feed-forward.
    fn layer(&self, layer: u32) -> Vec<Parameter> {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let (width, kv, inner) = (self.width, self.kv_width(), self.feed_forward);
        let q = (name("self_attn.q_proj"), width);
        let k = (name("self_attn.k_proj"), kv);
        let v = (name("self_attn.v_proj"), kv);
        let output = (name("self_attn.o_proj"), width);
        let gate = (name("mlp.gate_proj"), inner);
        let up = (name("mlp.up_proj"), inner);
        let down = (name("mlp.down_proj"), width);
        let mut tensors = vec![
            matrix(Role::Attention, [q, k, v], width, self.deviation(width, None)),
            matrix(Role::Attention, [output], width, self.deviation(width, Some(layer))),
            matrix(Role::FeedForward, [gate, up], width, self.deviation(width, None)),
            matrix(Role::FeedForward, [down], inner, self.deviation(inner, Some(layer))),
        ];
        if self.family == Family::Olmo2 {
            tensors.extend([
                norm(name("self_attn.q_norm"), width),
                norm(name("self_attn.k_norm"), kv),
                norm(name("post_attention_layernorm"), width),
                norm(name("post_feedforward_layernorm"), width),
            ]);
        }
        tensors
    }

    fn vocabulary_matrix(&self, role: Role, name: &str) -> Parameter {
        let deviation = self.deviation(self.width, None);
        Parameter {
            role,
            parts: vec![Part::new(name.to_owned(), self.padded_vocabulary)],
            columns: vec![self.width.into()],
            start: Start::Normal { deviation, used_rows: self.vocabulary.into() },
        }
    }

    /// Standard deviation at the start of a matrix that reads `inputs` values; `adds_to` is the layer, from 0 on,
    /// of a matrix that adds to the residual stream.
    fn deviation(&self, inputs: u32, adds_to: Option<u32>) -> f64 {
        let depth = adds_to.map_or(1.0, |layer| 2.0 * f64::from(layer + 1));
        match self.init {
            Init::Mitchell => (f64::from(inputs) * depth).sqrt().recip(),
            Init::Normal => 0.02,
        }
    }
}

fn matrix<const N: usize>(role: Role, parts: [(String, u32); N], columns: u32, deviation: f64) -> Parameter {
    let parts = parts.into_iter().map(|(name, rows)| Part::new(name, rows)).collect::<Vec<_>>();
    let used_rows = parts.iter().map(|part| part.rows).sum();
    let start = Start::Normal { deviation, used_rows };
    Parameter { role, parts, columns: vec![columns.into()], start }
}

fn norm(name: String, width: u32) -> Parameter {
    let parts = vec![Part::new(name, width)];
    Parameter { role: Role::Norm, parts, columns: Vec::new(), start: Start::Ones }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::{Overrides, Preset};

    fn preset(preset: Preset, vocabulary: u32) -> Config {
        Config::resolve(Some(preset), &Overrides::default(), vocabulary, 2048).unwrap()
    }

    #[test]
    fn presets_have_the_published_sizes() {
        let cases = [
            (Preset::Olmo1b, 50_280, 1_176_764_416),
            (Preset::Olmo7b, 50_280, 6_888_095_744),
            (Preset::Olmo2With1b, 100_278, 1_484_916_736),
            (Preset::Olmo2With7b, 100_278, 7_298_617_344),
        ];
        for (name, vocabulary, expected) in cases {
            assert_eq!(preset(name, vocabulary).count().total(), expected, "{name:?}");
        }
    }

    #[test]
    fn small_presets_are_named_after_their_layers() {
        let cases = [
            (Preset::Olmo300k, 262_144),
            (Preset::Olmo1m, 1_048_576),
            (Preset::Olmo6m, 6_291_456),
            (Preset::Olmo25m, 25_690_112),
            (Preset::Olmo110m, 113_246_208),
        ];
        for (name, expected) in cases {
            let count = preset(name, 4096).count();
            assert_eq!((count.layers(), count.head), (expected, 0), "{name:?}");
        }
    }

    #[test]
    fn names_are_unique_and_complete() {
        let config = preset(Preset::Olmo2With1b, 100);
        let parameters = config.parameters();
        let mut names = parameters.iter().flat_map(|p| &p.parts).map(|part| &part.name).collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 16 * 11 + 3);
        let queries = parameters[1].parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>();
        assert_eq!(queries, ["q", "k", "v"].map(|x| format!("model.layers.0.self_attn.{x}_proj.weight")));
    }

    #[test]
    fn deviations_shrink_with_depth() {
        let parameters = preset(Preset::Olmo1b, 100).parameters();
        let deviation = |index: usize| match parameters[index].start {
            Start::Normal { deviation, .. } => deviation,
            _ => 0.0,
        };
        let expected = [2048.0, 2048.0, 2048.0 * 2.0, 2048.0, 8192.0 * 2.0, 2048.0, 2048.0 * 4.0];
        for (index, variance) in expected.into_iter().enumerate() {
            assert!((deviation(index) - f64::sqrt(1.0 / variance)).abs() < 1e-12, "parameter {index}");
        }
    }
}
