//! Continuations of a row of ids, drawn from what a model expects. Memory: the model and its cache.

use tch::{Kind, TchError, Tensor};

use super::olmo::{Cache, Olmo};
use super::weights;
use crate::loader::{fraction, mix};

/// How ids are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Scores are divided by it: below 1 likely ids become likelier; at 0 the likeliest is taken.
    pub temperature: f64,
    /// Only so many of the likeliest ids are drawn from.
    pub top_k: Option<usize>,
    /// Chooses the draws.
    pub seed: u64,
    /// Whether keys and values are kept instead of being computed again.
    pub cache: bool,
}

/// Why a continuation ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Tensors.
    #[error(transparent)]
    Tensors(#[from] weights::Error),
    /// Nothing to continue.
    #[error(
        "there is nothing to continue: the model was trained without a token that begins rows, so it needs a prompt"
    )]
    NoPrompt,
    /// Scores that are none.
    #[error("the model's scores are no numbers")]
    NoNumbers,
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        Self::Tensors(error.into())
    }
}

/// A row that grows id by id. A row longer than the model's context is seen from the half of it on.
#[derive(Debug)]
pub struct Continuation<'a> {
    model: &'a Olmo,
    sampling: Sampling,
    /// The ids that may be drawn.
    allowed: &'a [bool],
    ids: Vec<i64>,
    /// The first id that is seen.
    first: usize,
    cache: Cache,
    /// Ids in the cache.
    cached: usize,
    drawn: u64,
}

impl<'a> Continuation<'a> {
    /// Of `prompt`; only ids that are `allowed` are drawn.
    pub fn new(
        model: &'a Olmo,
        prompt: Vec<i64>,
        allowed: &'a [bool],
        sampling: Sampling,
    ) -> Result<Self, Error> {
        if prompt.is_empty() {
            return Err(Error::NoPrompt);
        }
        let (first, cache, cached, drawn) = (0, Cache::default(), 0, 0);
        Ok(Self { model, sampling, allowed, ids: prompt, first, cache, cached, drawn })
    }

    /// The prompt, and what was drawn.
    pub fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// Draws the next id.
    pub fn draw(&mut self) -> Result<i64, Error> {
        let scores = tch::no_grad(|| self.scores())?;
        let chance = fraction(mix(self.sampling.seed ^ mix(self.drawn)));
        let id = choose(&scores, self.allowed, self.sampling, chance).ok_or(Error::NoNumbers)?;
        self.drawn += 1;
        self.ids.push(id);
        Ok(id)
    }

    /// Scores of every id that may come next.
    fn scores(&mut self) -> Result<Vec<f64>, TchError> {
        let context = self.model.config().context as usize;
        if self.ids.len() - self.first > context {
            self.first = self.ids.len() - (context / 2).max(1);
            (self.cache, self.cached) = (Cache::default(), self.first);
        }
        let row = |ids: &[i64]| Tensor::f_from_slice(ids)?.f_to_device(self.model.device())?.f_unsqueeze(0);
        let hidden = if self.sampling.cache {
            let ids = row(&self.ids[self.cached..])?;
            self.cached = self.ids.len();
            self.model.hidden_after(&ids, &mut self.cache)?
        } else {
            self.model.hidden(&row(&self.ids[self.first..])?)?
        };
        let last = hidden.f_select(1, -1)?;
        Vec::try_from(self.model.logits(&last)?.f_to_kind(Kind::Double)?.f_flatten(0, -1)?)
    }
}

/// The id at `chance`, from 0 to below 1, of what may be drawn; none where no score is a number.
fn choose(scores: &[f64], allowed: &[bool], sampling: Sampling, chance: f64) -> Option<i64> {
    let candidates =
        (0_i64..).zip(scores).zip(allowed).filter(|((_, score), allowed)| **allowed && score.is_finite());
    let mut candidates = candidates.map(|((id, score), _)| (id, *score)).collect::<Vec<_>>();
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let (likeliest, highest) = *candidates.first()?;
    if sampling.temperature <= 0.0 {
        return Some(likeliest);
    }
    candidates.truncate(sampling.top_k.unwrap_or(usize::MAX).max(1));
    let weights = candidates.iter().map(|(_, score)| ((score - highest) / sampling.temperature).exp());
    let weights = weights.collect::<Vec<_>>();
    let mut left = chance * weights.iter().sum::<f64>();
    let drawn = candidates.iter().zip(&weights).find(|(_, weight)| {
        left -= **weight;
        left < 0.0
    });
    Some(drawn.map_or(likeliest, |((id, _), _)| *id))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::model::weights::Weights;
    use crate::model::{Config, Family, Overrides, Preset};

    const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: None, seed: 0, cache: true };

    fn model(family: Family) -> Olmo {
        let overrides = Overrides { family: Some(family), ..Overrides::default() };
        let config = Config::resolve(Some(Preset::Olmo300k), &overrides, 20, 16).unwrap();
        let weights = Weights::random(&config, 3, Device::Cpu).unwrap();
        Olmo::new(config, weights, Device::Cpu).unwrap()
    }

    fn drawn(model: &Olmo, allowed: &[bool], sampling: Sampling) -> Vec<i64> {
        let mut row = Continuation::new(model, vec![3, 4, 5], allowed, sampling).unwrap();
        (0..60).map(|_| row.draw().unwrap()).collect()
    }

    /// Beyond the context too, where the row is seen from its middle on.
    #[test]
    fn the_cache_and_the_seed_decide_as_they_should() {
        let allowed = (0..20).map(|id| id > 2).collect::<Vec<_>>();
        for family in [Family::Olmo, Family::Olmo2] {
            let model = model(family);
            let hot = Sampling { temperature: 1.0, ..GREEDY };
            for sampling in [GREEDY, hot, Sampling { top_k: Some(3), ..hot }] {
                let found = drawn(&model, &allowed, sampling);
                assert!(found.iter().all(|id| (3..20).contains(id)), "{found:?}");
                let again = drawn(&model, &allowed, Sampling { cache: false, ..sampling });
                assert_eq!(again, found, "{family:?}, {sampling:?}");
            }
            assert!(drawn(&model, &allowed, hot) != drawn(&model, &allowed, Sampling { seed: 1, ..hot }));
        }
    }

    #[test]
    fn draws_follow_the_scores() {
        let (scores, all) = ([0.0, f64::ln(2.0), f64::ln(5.0), f64::NAN], [true; 4]);
        let hot = Sampling { temperature: 1.0, ..GREEDY };
        let counts = |sampling| {
            let mut counts = [0_i32; 4];
            for i in 0..8000 {
                let id = choose(&scores, &all, sampling, (f64::from(i) + 0.5) / 8000.0).unwrap();
                counts[usize::try_from(id).unwrap()] += 1;
            }
            counts
        };
        assert_eq!(counts(hot), [1000, 2000, 5000, 0]);
        assert_eq!(counts(GREEDY), [0, 0, 8000, 0]);
        let two = counts(Sampling { top_k: Some(2), ..hot });
        assert_eq!((two[0], two[1] + two[2], (two[1] - 8000 * 2 / 7).abs() < 2), (0, 8000, true));
        let cold = counts(Sampling { temperature: 0.1, ..hot });
        assert!(cold[2] > 7990, "{cold:?}");
        assert_eq!(choose(&scores, &[false, true, false, true], GREEDY, 0.0), Some(1));
        assert_eq!(choose(&[f64::NAN; 4], &all, GREEDY, 0.0), None);
        let model = model(Family::Olmo);
        assert!(matches!(Continuation::new(&model, vec![], &all, GREEDY), Err(Error::NoPrompt)));
    }
}
