//! Looks provenance up, both ways: from a token to its bases, and from bases to the rows that hold them. Memory: the hits.

use std::collections::BTreeSet;
use std::str::FromStr;

use rayon::prelude::*;
use serde::Serialize;

use super::{Error, Segment, ShardFile, ShardSet};
use crate::tokenizer::Tokenizer;
use crate::units::{Interval, Strand, parse_region};

/// A stretch of a record as people type it: `chr20:1000000-1001000`, or `chr20` for all of it. 0-based and half-open, as
/// everywhere here; digits may be grouped by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Name of the record.
    pub record: String,
    /// Which part of it; none for all.
    pub interval: Option<Interval>,
}

impl FromStr for Query {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (record, interval) = parse_region(text)?;
        Ok(Self { record: record.to_owned(), interval })
    }
}

impl Query {
    /// The same stretch when its numbers are 1-based and both ends belong to it, as samtools has it.
    pub fn from_one_based(mut self) -> Result<Self, String> {
        if let Some(interval) = &mut self.interval {
            let start =
                interval.start.checked_sub(1).ok_or("bases are counted from 1, found 0".to_owned())?;
            *interval = Interval::new(start, interval.end);
        }
        Ok(self)
    }

    fn wants(&self, segment: &Segment) -> bool {
        let overlaps = |interval: Interval| interval.overlaps(segment.interval());
        *segment.record == self.record && self.interval.is_none_or(overlaps)
    }
}

/// Tokens of a row that stand for bases of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// The split.
    pub split: String,
    /// The row within the split.
    pub row: u64,
    /// First token within the row.
    pub token_start: u32,
    /// One past the last token.
    pub token_end: u32,
    /// The record.
    pub record: String,
    /// Its source.
    pub source: String,
    /// First base of the tokens.
    pub start: u64,
    /// One past their last base.
    pub end: u64,
    /// The strand that they spell.
    pub strand: Strand,
}

/// Every run of tokens that stands for a base of `query`, by split and row.
///
/// # Errors
/// [`Error::UnknownRecord`] when no row comes from such a record.
pub fn find(set: &ShardSet, query: &Query) -> Result<Vec<Hit>, Error> {
    let tokenizer = set.tokenizer()?;
    let (mut hits, mut names) = (Vec::new(), BTreeSet::new());
    for (name, split) in &set.details.splits {
        let first = split.files.iter().scan(0, |rows, file| {
            *rows += file.rows;
            Some(*rows - file.rows)
        });
        let files: Vec<(u64, &ShardFile)> = first.zip(&split.files).collect();
        let search = Search { set, tokenizer: tokenizer.as_ref(), query, split: name };
        let found = files.par_iter().map(|(first, file)| search.file(*first, file));
        for (more, seen) in found.collect::<Result<Vec<_>, Error>>()? {
            hits.extend(more);
            names.extend(seen);
        }
    }
    if !names.contains(&query.record) {
        let (path, record) = (set.folder.clone(), query.record.clone());
        let known = names.iter().take(20).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(Error::UnknownRecord { path, record, known, total: names.len() });
    }
    Ok(hits)
}

struct Search<'a> {
    set: &'a ShardSet,
    tokenizer: &'a dyn Tokenizer,
    query: &'a Query,
    split: &'a str,
}

impl Search<'_> {
    /// The hits in a file whose first row is row `first` of the split, and the names of its records.
    fn file(&self, first: u64, file: &ShardFile) -> Result<(Vec<Hit>, BTreeSet<String>), Error> {
        let (mut wanted, mut names) = (Vec::new(), BTreeSet::new());
        self.set.for_each_row(file, |row, segments| {
            for segment in segments {
                if !names.contains(&*segment.record) {
                    names.insert(segment.record.to_string());
                }
                if self.query.wants(&segment) {
                    wanted.push((row, segment));
                }
            }
            Ok(())
        })?;
        if wanted.is_empty() {
            return Ok((Vec::new(), names));
        }
        let rows = self.set.rows_of(std::slice::from_ref(file))?;
        let hit = |(row, segment): (u64, Segment)| self.hit(first + row, &segment, &rows.get(row).to_vec());
        Ok((wanted.into_iter().filter_map(hit).collect(), names))
    }

    /// The tokens of a segment that overlap the query.
    fn hit(&self, row: u64, segment: &Segment, tokens: &[u32]) -> Option<Hit> {
        let places = segment.places(self.tokenizer, tokens);
        let wanted = |place: &Interval| self.query.interval.is_none_or(|interval| interval.overlaps(*place));
        let from = places.iter().position(wanted)?;
        let to = places.iter().rposition(wanted)? + 1;
        let within = |token: usize| segment.token_start + u32::try_from(token).unwrap_or(u32::MAX);
        Some(Hit {
            split: self.split.to_owned(),
            row,
            token_start: within(from),
            token_end: within(to),
            record: segment.record.to_string(),
            source: segment.source.to_string(),
            start: places[from].start.min(places[to - 1].start),
            end: places[from].end.max(places[to - 1].end),
            strand: segment.strand,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_people_type_them() {
        let some = |record: &str, start, end| {
            Ok(Query { record: record.to_owned(), interval: Some(Interval::new(start, end)) })
        };
        let all = |record: &str| Ok(Query { record: record.to_owned(), interval: None });
        for (text, expected) in [
            ("chr20:1000000-1001000", some("chr20", 1_000_000, 1_001_000)),
            ("chr20:1,000,000-1,001,000", some("chr20", 1_000_000, 1_001_000)),
            ("chr20", all("chr20")),
            ("HLA-A*01:01", all("HLA-A*01:01")),
            ("HLA-A*01:01:5-9", some("HLA-A*01:01", 5, 9)),
            ("a:5-5", Err("`a:5-5` holds no base: expected NAME:START-END with START below END".to_owned())),
        ] {
            assert_eq!(text.parse::<Query>(), expected, "{text}");
        }
        let one_based = "a:1-9".parse::<Query>().unwrap().from_one_based();
        assert_eq!(one_based, some("a", 0, 9));
        assert!("a:0-9".parse::<Query>().unwrap().from_one_based().is_err());
    }
}
