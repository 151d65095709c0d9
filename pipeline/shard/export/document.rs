//! Rows as documents: their tokens one after the other without padding, and where each document ends.
//!
//! A document is what one window of a record gave, from its first token to the special tokens behind it. It may begin in one
//! row and end in another. `[BOS]` and `[CLS]` belong to the document behind them. Memory: the provenance of one shard file.

use super::{Error, Source, Tokens, Written, append};
use crate::shard::Segment;
use crate::units::Strand;

/// Special tokens that open a document.
const OPENERS: [&str; 2] = ["[BOS]", "[CLS]"];

/// A document, when all its tokens have been seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    /// Number of tokens, special ones included.
    pub(super) tokens: u64,
    /// Where its bases lie; none where no token has any.
    pub(super) origin: Option<Origin>,
    /// The row in which it begins.
    pub(super) row: u64,
}

/// The bases that a document stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) record: String,
    pub(super) source: String,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) strand: Strand,
}

/// What takes the documents of a split, in order.
pub(super) trait Sink {
    /// Some tokens of the document under way, little-endian.
    fn tokens(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// The document under way is whole.
    fn end(&mut self, document: &Document) -> Result<(), Error>;
}

/// Hands every token of a split but its padding to `sink`.
pub(super) fn for_each(source: &Source, sink: &mut impl Sink) -> Result<Written, Error> {
    let special = &source.set.details.special;
    let openers = OPENERS.iter().filter_map(|name| special.get(*name).copied()).collect();
    let pad = special.get("[PAD]").copied().unwrap_or(0);
    let written = Written { documents: Some(0), ..Written::default() };
    let mut walk = Walk { source, sink, openers, pad, open: None, full: false, bytes: Vec::new(), written };
    for file in &source.split.files {
        for segments in source.set.segments(file)? {
            walk.row(&segments)?;
        }
    }
    walk.close()?;
    Ok(walk.written)
}

struct Walk<'a, S> {
    source: &'a Source<'a>,
    sink: &'a mut S,
    openers: Vec<u32>,
    pad: u32,
    open: Option<Document>,
    /// Whether the last row ended with bases, so that the next may go on with them.
    full: bool,
    bytes: Vec<u8>,
    written: Written,
}

impl<S: Sink> Walk<'_, S> {
    fn row(&mut self, segments: &[Segment]) -> Result<(), Error> {
        let row = self.written.rows;
        let tokens = self.source.rows.get(row);
        let ids = tokens.to_vec();
        let last = segments.last().map_or(0, |segment| segment.token_end as usize);
        let used = last.max(ids.len() - ids.iter().rev().take_while(|id| **id == self.pad).count());
        let mut done = 0;
        let mut behind = 0;
        for segment in segments {
            if !self.goes_on(segment) {
                let begin = self.begin(&ids[..segment.token_start as usize], behind);
                self.take(tokens, done..begin, row)?;
                self.close()?;
                done = begin;
            }
            self.take(tokens, done..segment.token_end as usize, row)?;
            self.extend(segment);
            (done, behind) = (segment.token_end as usize, segment.token_end as usize);
            self.full = false;
        }
        self.take(tokens, done..used, row)?;
        self.full = last == ids.len();
        self.written.rows += 1;
        self.written.padding_dropped += (ids.len() - used) as u64;
        Ok(())
    }

    /// Whether a segment is the rest of the one at the end of the last row.
    fn goes_on(&self, segment: &Segment) -> bool {
        let origin = self.open.as_ref().and_then(|document| document.origin.as_ref());
        self.full && segment.token_start == 0 && origin.is_some_and(|origin| origin.precedes(segment))
    }

    /// Where the document of a segment begins: before the openers in front of it, behind the segment before.
    fn begin(&self, before: &[u32], behind: usize) -> usize {
        let openers = before[behind..].iter().rev().take_while(|id| self.openers.contains(id)).count();
        if self.open.is_none() { behind } else { before.len() - openers }
    }

    fn take(&mut self, tokens: Tokens<'_>, range: std::ops::Range<usize>, row: u64) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        self.bytes.clear();
        let part = match tokens {
            Tokens::U16(ids) => Tokens::U16(&ids[range.clone()]),
            Tokens::U32(ids) => Tokens::U32(&ids[range.clone()]),
        };
        append(part, &mut self.bytes);
        let open = self.open.get_or_insert(Document { tokens: 0, origin: None, row });
        open.tokens += range.len() as u64;
        self.written.tokens += range.len() as u64;
        self.sink.tokens(&self.bytes)
    }

    fn extend(&mut self, segment: &Segment) {
        if let Some(document) = &mut self.open {
            match &mut document.origin {
                Some(origin) => origin.extend(segment),
                None => document.origin = Some(Origin::of(segment)),
            }
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        let Some(document) = self.open.take() else { return Ok(()) };
        self.written.documents = self.written.documents.map(|count| count + 1);
        self.sink.end(&document)
    }
}

impl Origin {
    fn of(segment: &Segment) -> Self {
        Self {
            record: segment.record.to_string(),
            source: segment.source.to_string(),
            start: segment.start,
            end: segment.end,
            strand: segment.strand,
        }
    }

    /// Whether a segment begins where this ends.
    fn precedes(&self, segment: &Segment) -> bool {
        let joins = match self.strand {
            Strand::Forward => self.end == segment.start,
            Strand::Reverse => self.start == segment.end,
        };
        joins
            && self.strand == segment.strand
            && *self.record == *segment.record
            && *self.source == *segment.source
    }

    fn extend(&mut self, segment: &Segment) {
        self.start = self.start.min(segment.start);
        self.end = self.end.max(segment.end);
    }
}
