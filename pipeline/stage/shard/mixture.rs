//! How often each window of the training split is written, so that its sources stand in the proportions that people ask
//! for. Tokens are those of windows, without the special ones around them. Memory: 96 KiB per source.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Error;
use super::super::tokenize::Document;
use crate::shard::{Mixed, MixedSource, WindowCount};
use crate::units::{self, Amount, similar};

/// The proportions of the sources in the split `train`; other splits stay as they are.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mixture {
    /// What is wanted of each source, by the names that `ingest` gives them. Every source of the split is named, or has a weight in
    /// `weights_from`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    sources: BTreeMap<String, Wanted>,
    /// The `ingest` stage whose sources' `weight` (in the workflow or in a table of samples) counts where `sources` says nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weights_from: Option<String>,
    /// Tokens of all sources together. Default: as many as there are, or fewer where `repeat` does not allow the shares.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "units::tokens")]
    #[schemars(with = "Amount")]
    tokens: Option<u64>,
    /// Where no source has a weight, a source weighs its tokens to the power of 1 / `temperature`: at 1 (default) the
    /// sources stand as they are, above it they are more alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    /// How often a window is written at most. Default 1.
    #[serde(default = "once")]
    #[schemars(range(min = 1))]
    repeat: u32,
    /// Chooses the windows that are left out, or written once more than others; a window falls the same way whatever else
    /// there is.
    #[serde(default)]
    seed: u64,
}

/// What is wanted of a source: a share by weight, or so many tokens.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Its weight among the sources without `tokens`: above 0, and for all of these or for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<f64>,
    /// So many tokens, such as `1M`; 0 leaves the source out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "units::tokens")]
    #[schemars(with = "Amount")]
    tokens: Option<u64>,
}

const fn once() -> u32 {
    1
}

impl Mixture {
    /// What is wrong with it, whatever the data.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.sources.is_empty() && self.weights_from.is_none() {
            problems.push("names no source, expected each of those in `train`".to_owned());
        }
        if self.repeat == 0 {
            problems.push("`repeat` is 0, expected at least 1".to_owned());
        }
        for (name, wanted) in &self.sources {
            if wanted.weight.is_some() && wanted.tokens.is_some() {
                problems.push(format!("source `{name}` has `weight` and `tokens`, expected one of them"));
            }
            let weight = wanted.weight.filter(|weight| !(weight.is_finite() && *weight > 0.0));
            problems
                .extend(weight.map(|w| format!("source `{name}` has weight {w}, expected a number above 0")));
        }
        problems.extend(self.temperature_problem());
        problems.extend(self.total_problem());
        problems
    }

    /// The stage whose sources have weights.
    pub fn weights_from(&self) -> Option<&str> {
        self.weights_from.as_deref()
    }

    /// Fills in the weights of the sources that are there and say nothing else; nothing more comes from elsewhere then.
    fn fill_in<'a>(&mut self, weights: &BTreeMap<String, f64>, there: impl Iterator<Item = &'a String>) {
        for (name, &weight) in there.filter_map(|name| weights.get_key_value(name)) {
            let wanted = self.sources.entry(name.clone()).or_default();
            if wanted.tokens.is_none() {
                wanted.weight.get_or_insert(weight);
            }
        }
        self.weights_from = None;
    }

    /// The sources that share what those with `tokens` leave.
    fn sharing(&self) -> impl Iterator<Item = (&String, &Wanted)> {
        self.sources.iter().filter(|(_, wanted)| wanted.tokens.is_none())
    }

    fn has_weights(&self) -> bool {
        self.sharing().any(|(_, wanted)| wanted.weight.is_some())
    }

    fn temperature_problem(&self) -> Option<String> {
        if let Some(stage) = &self.weights_from {
            let reason = || format!("`temperature` says nothing, for the weights come from `{stage}`");
            return self.temperature.map(|_| reason());
        }
        let without = self.sharing().find(|(_, wanted)| wanted.weight.is_none());
        match (self.temperature, without) {
            (_, Some((name, _))) if self.has_weights() => Some(format!(
                "source `{name}` has neither `weight` nor `tokens`, but others have weights: give all of them one, or none"
            )),
            (Some(_), None) => Some(
                "`temperature` says nothing, for every source has a `weight` or `tokens` of its own"
                    .to_owned(),
            ),
            (Some(t), _) if !(t.is_finite() && t > 0.0) => {
                Some(format!("`temperature` is {t}, expected a number above 0"))
            }
            _ => None,
        }
    }

    fn total_problem(&self) -> Option<String> {
        let total = self.tokens?;
        let budgets: u64 = self.sources.values().filter_map(|wanted| wanted.tokens).sum();
        if self.sharing().next().is_none() && self.weights_from.is_none() {
            return Some("`tokens` says nothing, for every source has `tokens` of its own".to_owned());
        }
        (budgets >= total).then(|| {
            format!(
                "`tokens` is {total}, of which the sources with `tokens` take {budgets}, which leaves none"
            )
        })
    }

    /// What each source gets; `available` has the tokens of each, in the order of `sources`.
    fn allot(&self, available: &[u64]) -> Vec<Allotment> {
        let cap = |tokens: u64| tokens.saturating_mul(self.repeat.into());
        let weights = self.weights(available);
        let weighed = |i: &usize| weights[*i] > 0.0;
        let budget = |wanted: &Wanted| wanted.tokens.unwrap_or(0);
        let budgets: u64 = self.sources.values().map(budget).sum();
        let taken: u64 = self.sources.values().zip(available).map(|(w, &a)| budget(w).min(cap(a))).sum();
        let (wanted, given) = if let Some(total) = self.tokens {
            // What a source with `tokens` does not have is made up for by the others.
            (total.saturating_sub(budgets), total.saturating_sub(taken))
        } else {
            let sum: f64 = weights.iter().sum();
            let sharing = || (0..weights.len()).filter(weighed);
            let fits = sharing().map(|i| cap(available[i]) as f64 * sum / weights[i]);
            let all: u64 = sharing().map(|i| available[i]).sum();
            let most = whole(fits.fold(all as f64, f64::min));
            (most, most)
        };
        let caps: Vec<u64> = available.iter().map(|&tokens| cap(tokens)).collect();
        let (shares, filled) = (shares(&weights, wanted), fill(&weights, &caps, given));
        let allotment = |(i, wanted): (usize, &Wanted)| match wanted.tokens {
            Some(tokens) => Allotment { wanted: tokens, given: tokens.min(caps[i]) },
            None => Allotment { wanted: shares[i], given: filled[i] },
        };
        self.sources.values().enumerate().map(allotment).collect()
    }

    /// The weights of the sources that share; 0 of those with `tokens`.
    fn weights(&self, available: &[u64]) -> Vec<f64> {
        let power = 1.0 / self.temperature.unwrap_or(1.0);
        let weight = |(wanted, &tokens): (&Wanted, &u64)| match (wanted.tokens, wanted.weight) {
            (Some(_), _) => 0.0,
            (None, Some(weight)) => weight,
            (None, None) => (tokens as f64).powf(power),
        };
        self.sources.values().zip(available).map(weight).collect()
    }
}

/// Tokens that a source should have, and that it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Allotment {
    wanted: u64,
    given: u64,
}

/// Parts of `total` in proportion to `weights`.
fn shares(weights: &[f64], total: u64) -> Vec<u64> {
    fill(weights, &vec![u64::MAX; weights.len()], total)
}

/// Parts of `total` in proportion to `weights`, none above its cap: what one cannot take goes to the others.
fn fill(weights: &[f64], caps: &[u64], total: u64) -> Vec<u64> {
    let mut parts = vec![0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
    let mut rest = total;
    loop {
        let scale = rest as f64 / open.iter().map(|&i| weights[i]).sum::<f64>();
        let (full, others): (Vec<usize>, Vec<usize>) =
            open.iter().copied().partition(|&i| whole(weights[i] * scale) >= caps[i]);
        if full.is_empty() {
            for i in others {
                parts[i] = whole(weights[i] * scale);
            }
            return parts;
        }
        for i in full {
            parts[i] = caps[i];
            rest = rest.saturating_sub(caps[i]);
        }
        open = others;
    }
}

/// The nearest whole number of tokens.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is meant")]
fn whole(tokens: f64) -> u64 {
    tokens.round() as u64
}

/// Bits of a key that a reading of the windows tells apart.
const BITS: u32 = 12;
/// Readings at most: then a source is divided into 2^36 parts.
const READINGS: u32 = 3;

/// What was decided of every window.
pub struct Draw {
    mixture: Mixture,
    sources: BTreeMap<String, Source>,
}

/// A source: its windows in the order of their keys, of which those below `below` are written once more than others.
#[derive(Debug, Default)]
struct Source {
    available: WindowCount,
    allotted: Option<Allotment>,
    /// How often every window is written.
    times: u64,
    below: u64,
    /// Windows below `below`.
    extra: WindowCount,
    /// Tokens that `extra` may still take.
    rest: u64,
    /// While there is something to decide: the windows whose keys begin as `below` does, by the next [`BITS`] bits.
    buckets: Vec<WindowCount>,
    /// Readings so far.
    readings: u32,
}

impl Source {
    fn count(&mut self, key: u64, window: WindowCount) {
        let bits = self.readings * BITS;
        let undecided = self.buckets.len() == 1 << BITS && prefix(key, bits) == prefix(self.below, bits);
        if self.readings == 0 {
            self.available.add(window);
        }
        if undecided {
            let bucket = (key << bits) >> (u64::BITS - BITS);
            self.buckets[usize::try_from(bucket).unwrap_or_default()].add(window);
        }
    }

    fn allot(&mut self, allotted: Allotment) {
        self.times = allotted.given / self.available.tokens.max(1);
        self.rest = allotted.given % self.available.tokens.max(1);
        self.allotted = Some(allotted);
    }

    /// Takes the buckets that still fit; whether the first that does not is to be looked at more closely.
    fn narrow(&mut self) -> bool {
        let buckets = std::mem::take(&mut self.buckets);
        self.readings += 1;
        if self.rest == 0 || buckets.is_empty() {
            return false;
        }
        let mut fits = 0;
        while let Some(bucket) = buckets.get(fits).filter(|bucket| bucket.tokens <= self.rest) {
            self.rest -= bucket.tokens;
            self.extra.add(*bucket);
            fits += 1;
        }
        self.below += (fits as u64) << (u64::BITS - self.readings * BITS);
        let closer = self.rest > 0
            && self.readings < READINGS
            && buckets.get(fits).is_some_and(|bucket| bucket.windows > 1);
        if closer {
            self.buckets = vec![WindowCount::default(); 1 << BITS];
        }
        closer
    }

    fn times(&self, key: u64) -> u64 {
        self.times + u64::from(key < self.below)
    }
}

/// The first `bits` bits of a key.
fn prefix(key: u64, bits: u32) -> u64 {
    key.checked_shr(u64::BITS - bits).unwrap_or(0)
}

impl Draw {
    /// Decides about every window. `weights` are those of sources that the mixture does not name; `read` calls what it is given for
    /// each window, as often as it is called itself.
    pub fn new(
        mixture: &Mixture,
        weights: &BTreeMap<String, f64>,
        mut read: impl FnMut(&mut dyn FnMut(&Document, u64)) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut draw = Self { mixture: mixture.clone(), sources: BTreeMap::new() };
        read(&mut |window: &Document, bases| draw.count(window, bases))?;
        draw.mixture.fill_in(weights, draw.sources.keys());
        draw.check_names()?;
        draw.allot();
        while draw.narrow() {
            read(&mut |window: &Document, bases| draw.count(window, bases))?;
        }
        Ok(draw)
    }

    fn count(&mut self, window: &Document, bases: u64) {
        if !self.sources.contains_key(&*window.source) {
            let buckets = vec![WindowCount::default(); 1 << BITS];
            self.sources.insert(window.source.to_string(), Source { buckets, ..Source::default() });
        }
        let count = WindowCount { windows: 1, tokens: window.tokens.len() as u64, bases };
        let key = key(self.mixture.seed, window);
        if let Some(source) = self.sources.get_mut(&*window.source) {
            source.count(key, count);
        }
    }

    /// The sources that there are must be those that are named.
    fn check_names(&self) -> Result<(), Error> {
        let (named, found) = (&self.mixture.sources, &self.sources);
        let list = |names: Vec<&String>| {
            names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let unknown = named.keys().find(|name| !found.contains_key(*name)).map(|name| {
            let hint = similar(name, found.keys().map(String::as_str));
            let hint = hint.map_or_else(String::new, |hint| format!("; did you mean `{hint}`?"));
            let there = list(found.keys().collect());
            format!("no window of `train` comes from a source called `{name}`; there are {there}{hint}")
        });
        let unnamed = || {
            found.keys().find(|name| !named.contains_key(*name)).map(|name| {
                let named = list(named.keys().collect());
                format!("source `{name}` of `train` is not named, expected each of them; named are {named}; `{{tokens: 0}}` leaves a source out")
            })
        };
        let wrong = unknown.or_else(unnamed).or_else(|| self.mixture.problems().into_iter().next());
        wrong.map_or(Ok(()), |reason| Err(Error::Config { key: "mixture", reason }))
    }

    fn allot(&mut self) {
        let available: Vec<u64> = self.sources.values().map(|source| source.available.tokens).collect();
        let allotments = self.mixture.allot(&available);
        self.sources.values_mut().zip(allotments).for_each(|(source, allotted)| source.allot(allotted));
    }

    fn narrow(&mut self) -> bool {
        let closer = self.sources.values_mut().map(Source::narrow);
        closer.filter(|&closer| closer).count() > 0
    }

    /// How often a window is written.
    pub fn times(&self, window: &Document) -> u64 {
        let source = self.sources.get(&*window.source);
        source.map_or(0, |source| source.times(key(self.mixture.seed, window)))
    }

    /// How often the window that is written most often is.
    pub fn passes(&self) -> u64 {
        let most = |source: &Source| source.times + u64::from(source.extra.windows > 0);
        self.sources.values().map(most).max().unwrap_or(0)
    }

    /// What the manifest says of the mixture.
    pub fn details(&self) -> Mixed {
        let wanted: u64 = self.sources.values().filter_map(|source| source.allotted).map(|a| a.wanted).sum();
        let mut sources: BTreeMap<String, MixedSource> =
            self.sources.iter().map(|(name, source)| (name.clone(), self.mixed(source, wanted))).collect();
        let written: u64 = sources.values().map(|source| source.written.tokens).sum();
        for source in sources.values_mut() {
            source.share_written = share(source.written.tokens, written);
        }
        let Mixture { repeat, temperature, seed, .. } = self.mixture;
        Mixed { repeat, temperature, seed, sources }
    }

    fn mixed(&self, source: &Source, total_wanted: u64) -> MixedSource {
        let (available, extra) = (source.available, source.extra);
        let tokens_wanted = source.allotted.map_or(0, |allotted| allotted.wanted);
        let once = if source.times > 0 { available } else { extra };
        let mut written = available.times(source.times);
        written.add(extra);
        MixedSource {
            available,
            left_out: available.less(once),
            repeated: written.less(once),
            written,
            tokens_wanted,
            share_wanted: share(tokens_wanted, total_wanted),
            share_written: 0.0,
            capped: tokens_wanted > available.tokens.saturating_mul(self.mixture.repeat.into()),
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Where a window stands in the order in which its source is drawn from: a hash of its place and the seed.
fn key(seed: u64, window: &Document) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&window.interval.start.to_le_bytes());
    hasher.update(window.strand.symbol().as_bytes()).update(window.record.as_bytes());
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::{Interval, Strand};

    fn mixture(json: &str) -> Mixture {
        serde_json::from_str(json).unwrap()
    }

    /// `count` windows of a source, of `tokens` tokens and four bases each.
    fn windows(source: &str, count: u64, tokens: usize) -> Vec<Document> {
        let window = |i: u64| Document {
            record: format!("{source}-1").into(),
            source: source.into(),
            interval: Interval::new(i * 100, (i + 1) * 100),
            strand: Strand::Forward,
            tokens: vec![0; tokens],
        };
        (0..count).map(window).collect()
    }

    fn draw(mixture: &Mixture, windows: &[Document]) -> Result<Draw, Error> {
        Draw::new(mixture, &BTreeMap::new(), |each| {
            for window in windows {
                each(window, 4 * window.tokens.len() as u64);
            }
            Ok(())
        })
    }

    #[test]
    fn mistakes_are_told_before_any_data_is_read() {
        let cases: [(&str, &[&str]); 12] = [
            (r#"{"sources": {"a": {}}}"#, &[]),
            (r#"{"sources": {"a": {"weight": 2}, "b": {"tokens": "1M"}}, "tokens": "2M", "repeat": 4}"#, &[]),
            (r#"{"sources": {}}"#, &["names no source"]),
            (r#"{"sources": {"a": {}}, "repeat": 0}"#, &["`repeat` is 0"]),
            (r#"{"sources": {"a": {"weight": 1, "tokens": 1}}}"#, &["source `a` has `weight` and `tokens`"]),
            (r#"{"sources": {"a": {"weight": 0}}}"#, &["source `a` has weight 0, expected a number above 0"]),
            (r#"{"sources": {"a": {"weight": 1}, "b": {}}}"#, &["source `b` has neither `weight` nor"]),
            (r#"{"sources": {"a": {"weight": 1}}, "temperature": 2}"#, &["`temperature` says nothing"]),
            (
                r#"{"sources": {"a": {}}, "temperature": 0}"#,
                &["`temperature` is 0, expected a number above 0"],
            ),
            (r#"{"sources": {"a": {"tokens": 5}}, "tokens": 6}"#, &["`tokens` says nothing"]),
            (r#"{"sources": {"a": {"tokens": 5}, "b": {}}, "tokens": 5}"#, &["take 5, which leaves none"]),
            (r#"{"sources": {"a": {"weight": -1}}, "repeat": 0}"#, &["`repeat` is 0", "weight -1"]),
        ];
        for (json, expected) in cases {
            let found = mixture(json).problems();
            assert_eq!(found.len(), expected.len(), "{json}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(expected), "{json}: {found}");
            }
        }
        let wrong = serde_json::from_str::<Mixture>(r#"{"sources": {"a": {"tokens": "1Q"}}}"#).unwrap_err();
        assert!(wrong.to_string().contains("expected tokens such as `1000000`"), "{wrong}");
    }

    #[test]
    fn sources_get_what_is_wanted_up_to_their_caps() {
        // Sources a, b (and c) have 1,000, 100 (and 10) tokens; wanted and given of each.
        let cases: [(&str, &[(u64, u64)]); 10] = [
            // As they are.
            (r#"{"sources": {"a": {}, "b": {}}}"#, &[(1000, 1000), (100, 100)]),
            // Equal shares without repeats: as many as the smallest has.
            (r#"{"sources": {"a": {"weight": 1}, "b": {"weight": 1}}}"#, &[(100, 100), (100, 100)]),
            // Four times, and no more tokens than there are without a mixture.
            (
                r#"{"sources": {"a": {"weight": 1}, "b": {"weight": 1}}, "repeat": 4}"#,
                &[(400, 400), (400, 400)],
            ),
            (
                r#"{"sources": {"a": {"weight": 1}, "b": {"weight": 1}}, "repeat": 40}"#,
                &[(550, 550), (550, 550)],
            ),
            // The square root of 1000 : 100 : 10 is 10 : 3.162 : 1; c limits it.
            (
                r#"{"sources": {"a": {}, "b": {}, "c": {}}, "temperature": 2, "repeat": 3}"#,
                &[(300, 300), (95, 95), (30, 30)],
            ),
            // A total that the cap does not allow in these shares: the other source makes up for it.
            (
                r#"{"sources": {"a": {"weight": 1}, "b": {"weight": 1}}, "tokens": 800, "repeat": 2}"#,
                &[(400, 600), (400, 200)],
            ),
            // A total that the cap does not allow at all.
            (
                r#"{"sources": {"a": {"weight": 1}, "b": {"weight": 1}}, "tokens": "1M", "repeat": 2}"#,
                &[(500_000, 2000), (500_000, 200)],
            ),
            // So many tokens of one, whatever the other has.
            (r#"{"sources": {"a": {"weight": 2}, "b": {"tokens": 30}}}"#, &[(1000, 1000), (30, 30)]),
            (r#"{"sources": {"a": {"tokens": 0}, "b": {"tokens": 150}}}"#, &[(0, 0), (150, 100)]),
            (r#"{"sources": {"a": {}, "b": {"tokens": 150}}, "tokens": 500}"#, &[(350, 400), (150, 100)]),
        ];
        for (json, expected) in cases {
            let mixture = mixture(json);
            assert_eq!(mixture.problems(), Vec::<String>::new(), "{json}");
            let found = mixture.allot(&[1000, 100, 10][..expected.len()]);
            let found: Vec<_> = found.iter().map(|a| (a.wanted, a.given)).collect();
            assert_eq!(found, expected, "{json}");
        }
    }

    #[test]
    fn windows_are_written_as_often_as_their_source_needs() {
        let all = [windows("a", 1000, 10), windows("b", 50, 7)].concat();
        let mixture =
            mixture(r#"{"sources": {"a": {"tokens": 3333}, "b": {"tokens": 900}}, "repeat": 3, "seed": 5}"#);
        let draw = draw(&mixture, &all).unwrap();
        let of = |source: &str| all.iter().filter(|w| *w.source == *source).map(|w| draw.times(w)).collect();
        let (a, b): (Vec<u64>, Vec<u64>) = (of("a"), of("b"));
        assert_eq!((a.iter().sum::<u64>(), a.iter().max()), (333, Some(&1)), "3,333 tokens are 333 windows");
        // 900 = 2 x 350 + 200, and 28 windows have 196 tokens.
        assert_eq!((b.iter().sum::<u64>(), b.iter().min(), b.iter().max()), (128, Some(&2), Some(&3)));
        assert_eq!(draw.passes(), 3);
        let details = draw.details();
        let count = |windows, tokens| WindowCount { windows, tokens, bases: 4 * tokens };
        let (a, b) = (&details.sources["a"], &details.sources["b"]);
        assert_eq!(
            (a.available, a.left_out, a.repeated),
            (count(1000, 10_000), count(667, 6670), count(0, 0))
        );
        assert_eq!((b.available, b.left_out, b.repeated), (count(50, 350), count(0, 0), count(78, 546)));
        assert_eq!((b.written, b.capped), (count(128, 896), false));
        assert!((b.share_wanted - 900.0 / 4233.0).abs() < 1e-12, "{b:?}");
        assert!((b.share_written - 896.0 / 4226.0).abs() < 1e-12, "{b:?}");
        assert!(details.shortfalls().is_empty());
    }

    /// Many windows share a bucket at first, which is looked at more closely; what is decided already is not counted again.
    #[test]
    fn large_sources_are_met_to_a_window_too() {
        let all = [windows("a", 40_000, 1), windows("b", 50, 7)].concat();
        let mixture = mixture(r#"{"sources": {"a": {"tokens": 7777}, "b": {}}, "seed": 9}"#);
        let details = draw(&mixture, &all).unwrap().details();
        let (a, b) = (&details.sources["a"], &details.sources["b"]);
        assert_eq!((a.available.tokens, a.written.tokens), (40_000, 7777));
        assert_eq!((b.available.tokens, b.written.tokens), (350, 350));
    }

    #[test]
    fn a_source_that_its_cap_keeps_small_is_told() {
        let all = [windows("a", 100, 10), windows("b", 10, 10)].concat();
        let mixture =
            mixture(r#"{"sources": {"a": {"weight": 1}, "b": {"weight": 1}}, "tokens": 800, "repeat": 2}"#);
        let details = draw(&mixture, &all).unwrap().details();
        assert!(details.sources["b"].capped && !details.sources["a"].capped);
        assert_eq!(
            details.shortfalls(),
            [
                "source `b` has 200 of the 400 tokens wanted, 25.0 % of all and not 50.0 %: there are 100, and `repeat` allows each window 2 times"
            ]
        );
    }

    #[test]
    fn every_source_is_named_and_every_name_is_a_source() {
        let all = [windows("human", 3, 1), windows("ecoli", 3, 1)].concat();
        for (json, expected) in [
            (
                r#"{"sources": {"human": {}, "ecolli": {}}}"#,
                "no window of `train` comes from a source called `ecolli`; there are `ecoli`, `human`; did you mean `ecoli`?",
            ),
            (
                r#"{"sources": {"human": {}}}"#,
                "source `ecoli` of `train` is not named, expected each of them; named are `human`; `{tokens: 0}` leaves a source out",
            ),
        ] {
            let mixture = mixture(json);
            let error = draw(&mixture, &all).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(error, format!("`mixture`: {expected}"));
        }
    }

    /// Another seed or another source changes what it should and nothing else.
    #[test]
    fn a_window_falls_the_same_way_whatever_else_there_is() {
        let (a, b) = (windows("a", 400, 10), windows("b", 50, 7));
        let drawn = |json: &str, all: &[Document]| -> Vec<u64> {
            let mixture = mixture(json);
            let draw = draw(&mixture, all).unwrap();
            a.iter().map(|window| draw.times(window)).collect()
        };
        let one = drawn(r#"{"sources": {"a": {"tokens": 1000}}}"#, &a);
        let both =
            drawn(r#"{"sources": {"a": {"tokens": 1000}, "b": {}}}"#, &[b.clone(), a.clone()].concat());
        let seed = drawn(r#"{"sources": {"a": {"tokens": 1000}}, "seed": 1}"#, &a);
        assert_eq!(one, both);
        assert_ne!(one, seed);
        let more = drawn(r#"{"sources": {"a": {"tokens": 2000}}}"#, &a);
        assert!(one.iter().zip(&more).all(|(one, more)| one <= more), "more tokens are the same and others");
    }

    proptest! {
        #[test]
        fn budgets_are_met_to_a_window_and_accounts_balance(
            lengths in proptest::collection::vec(1_usize..60, 1..400),
            budget in 0_u64..40_000,
            repeat in 1_u32..5,
            seed in any::<u64>(),
        ) {
            let mut all = windows("a", lengths.len() as u64, 0);
            all.iter_mut().zip(&lengths).for_each(|(window, &length)| window.tokens = vec![0; length]);
            let mixture = mixture(&format!(
                r#"{{"sources": {{"a": {{"tokens": {budget}}}}}, "repeat": {repeat}, "seed": {seed}}}"#
            ));
            let draw = draw(&mixture, &all).unwrap();
            let source = draw.details().sources["a"].clone();
            let written: u64 = all.iter().map(|w| draw.times(w) * w.tokens.len() as u64).sum();
            prop_assert_eq!(written, source.written.tokens);
            prop_assert!(all.iter().all(|w| draw.times(w) <= repeat.into() && draw.times(w) <= draw.passes()));
            let given = budget.min(source.available.tokens * u64::from(repeat));
            prop_assert!(written <= given && given - written < 60, "{} of {}", written, given);
            let mut sum = source.written;
            sum.add(source.left_out);
            prop_assert_eq!(sum.less(source.repeated), source.available);
        }
    }
}
