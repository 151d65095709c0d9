//! Softmax regression on how often each 4-mer occurs, learned by gradient descent in a fixed order. Memory: 1 kB an example.

use rayon::prelude::*;

use super::super::super::{Dataset, Example, Part};
use super::most;
use crate::sequence::kmer::spread;

const K: u32 = 4;
/// 4-mers of one strand, and one that is always there.
const FEATURES: usize = 257;
/// Times that every example is seen, and steps, whichever is more.
const LEAST_EPOCHS: usize = 20;
const LEAST_STEPS: usize = 1000;
const BATCH: usize = 256;
/// The first step; the last one is 0. Steps follow the gradient, since Adam gives features of no use as much weight.
const RATE: f32 = 0.05;
/// Pulls weights to 0, per step and times the rate.
const DECAY: f32 = 0.01;

type Features = Box<[f32; FEATURES]>;

/// The classes of the test examples, as learned from the training examples.
pub fn predict(dataset: &Dataset, seed: u64) -> Vec<u32> {
    let features = |part| -> Vec<Features> {
        dataset
            .part(part)
            .par_iter()
            .map(|example| frequencies(dataset.bases(example).unwrap_or_default()))
            .collect()
    };
    let (mut train, mut test) = (features(Part::Train), features(Part::Test));
    let scale = Scale::of(&train);
    train.par_iter_mut().chain(test.par_iter_mut()).for_each(|features| scale.apply(features));
    let model = Model::learn(dataset.part(Part::Train), &train, dataset.classes.len(), seed);
    test.par_iter().map(|features| model.class(features)).collect()
}

/// The share that each 4-mer has.
fn frequencies(bases: &[u8]) -> Features {
    let mut counts = Box::new([0.0; FEATURES]);
    let (mut word, mut run) = (0_usize, 0);
    for base in bases {
        let Some(code) = b"ACGT".iter().position(|letter| letter == base) else {
            run = 0;
            continue;
        };
        word = (word << 2 | code) & 255;
        run += 1;
        if run >= K {
            counts[word] += 1.0;
        }
    }
    let all: f32 = counts.iter().sum();
    counts.iter_mut().for_each(|count| *count /= all.max(1.0));
    counts[FEATURES - 1] = 1.0;
    counts
}

/// Mean and standard deviation of each feature.
struct Scale(Vec<[f32; 2]>);

impl Scale {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "means and deviations of shares, which are at most 1"
    )]
    fn of(examples: &[Features]) -> Self {
        let count = examples.len().max(1) as f64;
        let scale = |feature: usize| {
            let values = || examples.iter().map(|example| f64::from(example[feature]));
            let mean = values().sum::<f64>() / count;
            let deviation = (values().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
            [mean as f32, if deviation > 0.0 { deviation as f32 } else { 1.0 }]
        };
        Self((0..FEATURES - 1).into_par_iter().map(scale).collect())
    }

    fn apply(&self, features: &mut Features) {
        features
            .iter_mut()
            .zip(&self.0)
            .for_each(|(value, [mean, deviation])| *value = (*value - mean) / deviation);
    }
}

/// A row of weights for each class.
struct Model(Vec<[f32; FEATURES]>);

impl Model {
    fn learn(examples: &[Example], features: &[Features], classes: usize, seed: u64) -> Self {
        let mut model = Self(vec![[0.0; FEATURES]; classes]);
        let mut order: Vec<usize> = (0..examples.len()).collect();
        let batches = examples.len().div_ceil(BATCH).max(1);
        let epochs = LEAST_EPOCHS.max(LEAST_STEPS.div_ceil(batches));
        for epoch in 0..epochs as u64 {
            order.sort_by_cached_key(|&at| spread(at as u64 ^ spread(seed << 16 | epoch)));
            let rate = RATE * (1.0 - epoch as f32 / epochs as f32);
            for batch in order.chunks(BATCH) {
                let gradient = model.gradient(batch, examples, features);
                model.descend(&gradient, rate);
            }
        }
        model
    }

    /// Probabilities of the classes.
    fn probabilities(&self, features: &Features) -> Vec<f32> {
        let logit =
            |weights: &[f32; FEATURES]| weights.iter().zip(features.iter()).map(|(w, x)| w * x).sum::<f32>();
        let logits: Vec<f32> = self.0.iter().map(logit).collect();
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = logits.iter().map(|logit| (logit - highest).exp()).collect();
        let sum: f32 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect()
    }

    fn class(&self, features: &Features) -> u32 {
        // Ordered as they are, since no probability is below 0 or NaN.
        most(self.probabilities(features).iter().map(|probability| probability.to_bits()))
    }

    /// The mean gradient of the cross-entropy over a batch.
    fn gradient(&self, batch: &[usize], examples: &[Example], features: &[Features]) -> Vec<[f32; FEATURES]> {
        let mut gradient = vec![[0.0; FEATURES]; self.0.len()];
        for &at in batch {
            let probabilities = self.probabilities(&features[at]);
            for ((class, row), probability) in (0..).zip(&mut gradient).zip(probabilities) {
                let error =
                    (probability - f32::from(u8::from(examples[at].class == class))) / batch.len() as f32;
                row.iter_mut().zip(features[at].iter()).for_each(|(sum, x)| *sum += error * x);
            }
        }
        gradient
    }

    fn descend(&mut self, gradient: &[[f32; FEATURES]], rate: f32) {
        for (weight, slope) in self.0.iter_mut().flatten().zip(gradient.iter().flatten()) {
            *weight -= rate * (slope + DECAY * *weight);
        }
    }
}
