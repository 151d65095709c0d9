//! The trainable tensors of a DNABERT-2 under their published names, before any is allocated.

use super::Config;
use crate::model::layout::{Parameter, Part, Role, Start};

/// The embedding, which is the last matrix of the masked head too.
#[cfg(feature = "train")]
pub(super) const WORDS: &str = "bert.embeddings.word_embeddings.weight";
/// The name of that matrix.
const DECODER: &str = "cls.predictions.decoder.weight";

/// Standard deviation of every matrix at the start.
const DEVIATION: f64 = 0.02;

/// What stands on the encoder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heads {
    /// Scores of every id at every position; the last matrix is the embedding.
    pub masked: bool,
    /// A layer on the first position.
    pub pooler: bool,
    /// Scores of this many classes, of what the pooler gives.
    pub classes: Option<u32>,
}

impl Config {
    /// The trainable tensors: 4 of the embedding, 11 of each layer, then those of the heads: 5, 2 and 2.
    pub fn parameters(&self, heads: Heads) -> Vec<Parameter> {
        let (width, token_types) = (self.width, self.token_types);
        let mut all = vec![
            matrix(Role::Embedding, "bert.embeddings.word_embeddings", self.vocabulary, width),
            matrix(Role::Embedding, "bert.embeddings.token_type_embeddings", token_types, width),
        ];
        all[0].parts[0].copies.push(DECODER.to_owned());
        all.extend(norm("bert.embeddings.LayerNorm", width));
        all.extend((0..self.layers).flat_map(|layer| self.layer(layer)));
        if heads.masked {
            all.extend(linear(Role::Head, "cls.predictions.transform.dense", width, width));
            all.extend(norm("cls.predictions.transform.LayerNorm", width));
            all.push(vector("cls.predictions.decoder.bias".to_owned(), self.vocabulary, Start::Zeros));
        }
        if heads.pooler {
            all.extend(linear(Role::Head, "bert.pooler.dense", width, width));
        }
        if let Some(classes) = heads.classes {
            all.extend(linear(Role::Head, "classifier", classes, width));
        }
        all
    }

    /// Queries, keys and values; what attention gives, and its norm; gate and values, their way back, and its norm.
    fn layer(&self, layer: u32) -> Vec<Parameter> {
        let name = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
        let (width, inner) = (self.width, self.feed_forward);
        let mut all = Vec::new();
        all.extend(linear(Role::Attention, &name("attention.self.Wqkv"), 3 * width, width));
        all.extend(linear(Role::Attention, &name("attention.output.dense"), width, width));
        all.extend(norm(&name("attention.output.LayerNorm"), width));
        all.push(matrix(Role::FeedForward, &name("mlp.gated_layers"), 2 * inner, width));
        all.extend(linear(Role::FeedForward, &name("mlp.wo"), width, inner));
        all.extend(norm(&name("mlp.layernorm"), width));
        all
    }
}

fn matrix(role: Role, name: &str, rows: u32, columns: u32) -> Parameter {
    let parts = vec![Part::new(format!("{name}.weight"), rows)];
    let start = Start::Normal { deviation: DEVIATION, used_rows: rows.into() };
    Parameter { role, parts, columns: vec![columns.into()], start }
}

fn vector(name: String, rows: u32, start: Start) -> Parameter {
    Parameter { role: Role::Norm, parts: vec![Part::new(name, rows)], columns: Vec::new(), start }
}

fn linear(role: Role, name: &str, rows: u32, columns: u32) -> [Parameter; 2] {
    [matrix(role, name, rows, columns), vector(format!("{name}.bias"), rows, Start::Zeros)]
}

fn norm(name: &str, width: u32) -> [Parameter; 2] {
    [
        vector(format!("{name}.weight"), width, Start::Ones),
        vector(format!("{name}.bias"), width, Start::Zeros),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dnabert2::Preset;

    fn count(preset: Preset, heads: Heads) -> u64 {
        preset.config(4096, None).unwrap().parameters(heads).iter().map(Parameter::len).sum()
    }

    #[test]
    fn the_published_preset_has_the_published_size() {
        let pooled = Heads { pooler: true, ..Heads::default() };
        assert_eq!(count(Preset::Published117m, pooled), 117_068_544);
        let masked = Heads { masked: true, ..Heads::default() };
        let head = 768 * 768 + 768 + 2 * 768 + 4096;
        assert_eq!(
            count(Preset::Published117m, masked) - count(Preset::Published117m, Heads::default()),
            head
        );
        let classes = Heads { classes: Some(3), ..pooled };
        assert_eq!(count(Preset::Published117m, classes), 117_068_544 + 3 * 769);
    }

    #[test]
    fn names_are_unique() {
        let heads = Heads { masked: true, pooler: true, classes: Some(2) };
        let parameters = Preset::Small6m.config(4096, None).unwrap().parameters(heads);
        let mut names = parameters.iter().flat_map(|p| &p.parts).map(|part| &part.name).collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 4 + 6 * 11 + 5 + 2 + 2);
    }
}
