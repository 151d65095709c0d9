//! What a manifest says of the proportions of the sources in its split `train`. Tokens are those of windows, without the
//! special ones around them and without padding.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The mixture that was asked for, and the one that there is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Mixed {
    /// How often a window is written at most.
    pub repeat: u32,
    /// What flattened the shares; absent where it was left at 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// What chose the windows.
    pub seed: u64,
    /// The sources by name.
    pub sources: BTreeMap<String, MixedSource>,
}

/// A source: `available` is what is left out and what is written for the first time; that and `repeated` are `written`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MixedSource {
    /// What there is.
    pub available: WindowCount,
    /// What is not written at all.
    pub left_out: WindowCount,
    /// What is written again, each time counted.
    pub repeated: WindowCount,
    /// What is written.
    pub written: WindowCount,
    /// Tokens that were wanted; whole windows are written, so that there are a few less.
    pub tokens_wanted: u64,
    /// Share of the tokens that was wanted, 0 to 1.
    pub share_wanted: f64,
    /// Share of the tokens that are written, 0 to 1.
    pub share_written: f64,
    /// Whether `repeat` kept it below what was wanted.
    pub capped: bool,
}

/// Windows, their tokens and their bases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WindowCount {
    /// Windows.
    pub windows: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Bases that these stand for.
    pub bases: u64,
}

impl WindowCount {
    /// Counts others too.
    pub fn add(&mut self, other: Self) {
        self.windows += other.windows;
        self.tokens += other.tokens;
        self.bases += other.bases;
    }

    /// All of them so many times.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { windows: self.windows * times, tokens: self.tokens * times, bases: self.bases * times }
    }

    /// Those that are not in `part`.
    #[must_use]
    pub fn less(self, part: Self) -> Self {
        Self {
            windows: self.windows - part.windows,
            tokens: self.tokens - part.tokens,
            bases: self.bases - part.bases,
        }
    }
}

impl Mixed {
    /// A sentence for every source that `repeat` kept below what was wanted.
    pub fn shortfalls(&self) -> Vec<String> {
        let capped = self.sources.iter().filter(|(_, source)| source.capped);
        let sentence = |(name, source): (&String, &MixedSource)| {
            format!(
                "source `{name}` has {} of the {} tokens wanted, {:.1} % of all and not {:.1} %: there are {}, and `repeat` allows each window {} times",
                source.written.tokens,
                source.tokens_wanted,
                source.share_written * 100.0,
                source.share_wanted * 100.0,
                source.available.tokens,
                self.repeat
            )
        };
        capped.map(sentence).collect()
    }
}
