//! The few things that every room shares: strands and intervals; amounts of bases, tokens and bytes as people write them;
//! and what a misspelt name was meant to be.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A strand of a double-stranded sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Strand {
    /// As the record is written.
    #[serde(rename = "+")]
    Forward,
    /// The reverse complement of the record.
    #[serde(rename = "-")]
    Reverse,
}

impl Strand {
    /// `+` or `-`.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Forward => "+",
            Self::Reverse => "-",
        }
    }
}

impl fmt::Display for Strand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

impl FromStr for Strand {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "+" => Ok(Self::Forward),
            "-" => Ok(Self::Reverse),
            other => Err(format!("expected strand `+` or `-`, found `{other}`")),
        }
    }
}

/// An interval of a record: 0-based, half-open, in bases of the forward strand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Interval {
    /// First base.
    pub start: u64,
    /// One past the last base; never below `start`.
    pub end: u64,
}

/// Sorts intervals, and makes one of those that overlap or touch.
pub fn merge(intervals: &mut Vec<Interval>) {
    intervals.sort_unstable();
    intervals.dedup_by(|next, kept| {
        let touches = next.start <= kept.end;
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
}

impl Interval {
    /// # Panics
    /// When `end < start`.
    pub const fn new(start: u64, end: u64) -> Self {
        assert!(start <= end, "interval ends before it starts");
        Self { start, end }
    }

    /// Length in bases.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether it holds no base.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether the two share at least one base.
    pub const fn overlaps(self, other: Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.start < other.end && other.start < self.end
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

const DECIMAL: [(&str, u64); 5] =
    [("", 1), ("k", 1000), ("m", 1_000_000), ("g", 1_000_000_000), ("t", 1_000_000_000_000)];
const BINARY: [(&str, u64); 4] = [("ki", 1 << 10), ("mi", 1 << 20), ("gi", 1 << 30), ("ti", 1 << 40)];

/// Bases as people write them: `2000000`, `500k`, `1.5Mb`, `2 Gbp`; k, M, G and T are powers of a thousand, in either case.
///
/// # Errors
/// What was expected, in words.
pub fn parse_bases(text: &str) -> Result<u64, String> {
    parse(text, &["bp", "b", ""], &DECIMAL)
        .ok_or_else(|| format!("expected bases such as `2000000`, `500k` or `2Gb`, found `{text}`"))
}

/// Bytes as people write them: `4096`, `512MB`, `8 GiB`; k, M, G and T are powers of a thousand, with an `i` of 1024.
///
/// # Errors
/// What was expected, in words.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    parse(text, &["b", ""], &[&DECIMAL[..], &BINARY[..]].concat())
        .ok_or_else(|| format!("expected bytes such as `500000000`, `512MB` or `8GiB`, found `{text}`"))
}

/// Tokens as people write them: `1000000`, `500k`, `1.5M`; k, M, G and T are powers of a thousand, in either case.
///
/// # Errors
/// What was expected, in words.
pub fn parse_tokens(text: &str) -> Result<u64, String> {
    parse(text, &[""], &DECIMAL)
        .ok_or_else(|| format!("expected tokens such as `1000000`, `500k` or `2G`, found `{text}`"))
}

/// A time as people write it: `90 s`, `30 min`, `2h`, `1.5 h`, `1d 12h`.
///
/// # Errors
/// What was expected, in words.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let refused = || format!("expected a time such as `90 s`, `30 min`, `2h` or `1d 12h`, found `{text}`");
    let (mut seconds, mut rest) = (0.0, text.trim());
    if rest.is_empty() {
        return Err(refused());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refused)?;
        let (number, after) = (&rest[..end], rest[end..].trim_start());
        let unit = &after[..after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len())];
        let factor = match unit.to_lowercase().as_str() {
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(refused()),
        };
        seconds += number.parse::<f64>().map_err(|_| refused())? * factor;
        rest = after[unit.len()..].trim_start();
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| refused())
}

/// A number, one of the prefixes, one of the units; none if it is anything else or does not fit 64 bits.
fn parse(text: &str, units: &[&str], prefixes: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim().to_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let factor = units
        .iter()
        .filter_map(|tail| unit.strip_suffix(tail))
        .find_map(|prefix| prefixes.iter().find(|(name, _)| *name == prefix))?
        .1;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let amount = number.parse::<f64>().ok()? * factor as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked beside")]
    let whole = amount.round() as u64;
    (amount < 9e15 && number.bytes().any(|b| b.is_ascii_digit())).then_some(whole)
}

/// A stretch of a record as people type it: `chr20:1000000-1001000`, or `chr20` for all of it; 0-based and half-open, and
/// digits may be grouped by commas.
///
/// Names may hold colons: only what looks like `START-END` after the last one is an interval.
///
/// # Errors
/// What was expected, in words.
pub fn parse_region(text: &str) -> Result<(&str, Option<Interval>), String> {
    let parts = text.rsplit_once(':').and_then(|(record, range)| Some((record, range.split_once('-')?)));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b',') && !text.is_empty();
    let Some((record, (start, end))) = parts.filter(|(_, (a, b))| digits(a) && digits(b)) else {
        return Ok((text, None));
    };
    let number = |text: &str| text.replace(',', "").parse::<u64>().map_err(|e| format!("`{text}`: {e}"));
    let (start, end) = (number(start)?, number(end)?);
    if start >= end {
        return Err(format!("`{text}` holds no base: expected NAME:START-END with START below END"));
    }
    Ok((record, Some(Interval::new(start, end))))
}

/// Reads an amount that may be a number, a text such as `2Gb`, or absent.
fn amount<'de, D: Deserializer<'de>>(
    deserializer: D,
    parse: fn(&str) -> Result<u64, String>,
) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(serde_json::Number),
        Text(String),
        None(()),
    }
    let text = match Written::deserialize(deserializer) {
        Ok(Written::Number(number)) => number.to_string(),
        Ok(Written::Text(text)) => text,
        Ok(Written::None(())) => return Ok(None),
        Err(_) => "another kind of value".to_owned(),
    };
    parse(&text).map(Some).map_err(serde::de::Error::custom)
}

/// For `#[serde(deserialize_with)]`: bases as a number, as [`parse_bases`] reads them, or none.
pub fn bases<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    amount(deserializer, parse_bases)
}

/// For `#[serde(deserialize_with)]`: bytes as a number, as [`parse_bytes`] reads them, or none.
pub fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    amount(deserializer, parse_bytes)
}

/// For `#[serde(deserialize_with)]`: tokens as a number, as [`parse_tokens`] reads them, or none.
pub fn tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    amount(deserializer, parse_tokens)
}

/// Reads a time as people write it, as [`parse_time`] does; null is none.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        other => other.to_string(),
    };
    parse_time(&text).map(Some).map_err(serde::de::Error::custom)
}

/// For schemas: what [`time`] reads.
pub struct TimeText;

impl JsonSchema for TimeText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "null"], "pattern": "^([0-9.]+ ?(s|sec|m|min|h|H|d) ?)+$" })
    }
}

/// For `#[schemars(with)]`: what [`bases`], [`bytes`] and [`tokens`] read.
pub struct Amount;

impl JsonSchema for Amount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string", "null"], "minimum": 0,
            "pattern": "^[0-9]+([.][0-9]+)? ?([kKmMgGtT]i?)?([bB][pP]?)?$"
        })
    }
}

/// The candidate that a person may have meant.
pub fn similar<'a>(found: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = candidates.map(|c| (strsim::jaro_winkler(&found.to_lowercase(), &c.to_lowercase()), c));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, c)| c.to_owned())
}

/// An error and what it comes from, in one line; what was said already is not said again.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        let plain = cause.split(" (os error").next().unwrap_or(&cause).to_lowercase();
        if text.to_lowercase().contains(&plain) { text } else { format!("{text}: {cause}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, bases, bytes) in [
            ("0", Some(0), Some(0)),
            ("2000000", Some(2_000_000), Some(2_000_000)),
            ("500k", Some(500_000), Some(500_000)),
            ("2Gb", Some(2_000_000_000), Some(2_000_000_000)),
            ("1.5 Mbp", Some(1_500_000), None),
            ("8GB", Some(8_000_000_000), Some(8_000_000_000)),
            ("8GiB", None, Some(8 << 30)),
            ("0.5ki", None, Some(512)),
            ("20000000000T", None, None),
            ("", None, None),
            (".", None, None),
            ("1..5k", None, None),
            ("-1", None, None),
            ("1e9", None, None),
            ("Gb", None, None),
            ("2X", None, None),
        ] {
            assert_eq!((parse_bases(text).ok(), parse_bytes(text).ok()), (bases, bytes), "{text}");
        }
        assert_eq!(
            parse_bases("2X").unwrap_err(),
            "expected bases such as `2000000`, `500k` or `2Gb`, found `2X`"
        );
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90 s", Some(90)),
            ("30 min", Some(1800)),
            ("2h", Some(7200)),
            ("1.5 H", Some(5400)),
            ("1d 12h", Some(129_600)),
            ("1h30m", Some(5400)),
            ("", None),
            ("2", None),
            ("h", None),
            ("-1h", None),
            ("2 weeks", None),
            ("1..5h", None),
        ] {
            let found = parse_time(text);
            assert_eq!(found.as_ref().ok().map(Duration::as_secs), seconds, "{text}");
            assert!(found.is_ok() || found.unwrap_err().ends_with(&format!("found `{text}`")));
        }
    }

    #[test]
    fn amounts_in_files_are_numbers_texts_or_nothing() {
        #[derive(Debug, Deserialize)]
        struct Holder {
            #[serde(deserialize_with = "super::bases")]
            sample: Option<u64>,
        }
        for (json, expected) in [
            (r#"{"sample": 5}"#, Ok(Some(5))),
            (r#"{"sample": "2Gb"}"#, Ok(Some(2_000_000_000))),
            (r#"{"sample": null}"#, Ok(None)),
            (r#"{"sample": -5}"#, Err("found `-5`")),
            (r#"{"sample": [5]}"#, Err("found `another kind of value`")),
        ] {
            match (serde_json::from_str::<Holder>(json), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.sample, expected, "{json}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, _) => panic!("{json}: {found:?}"),
            }
        }
    }

    #[test]
    fn intervals_touching_do_not_overlap() {
        for (a, b, expected) in [((0, 5), (5, 9), false), ((0, 6), (5, 9), true), ((3, 3), (0, 9), false)] {
            assert_eq!(Interval::new(a.0, a.1).overlaps(Interval::new(b.0, b.1)), expected, "{a:?} {b:?}");
        }
    }
}
