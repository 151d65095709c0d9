//! Fills rows with windows: end to end, each on rows of its own, or where they fit best. Memory: some rows, and for `best_fit`
//! the pieces that are waiting ([`WAITING_TOKENS`] and a window).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Error;
use super::super::tokenize::Document;
use crate::shard::{LossWeights, Packing, Row, Segment};
use crate::tokenizer::Tokenizer;
use crate::units::Strand;

/// Tokens that wait for the rows where they fit best.
const WAITING_TOKENS: usize = 4 << 20;

/// Pieces whose memory is kept for the next: few, since each may have held a whole row.
const SPARE: usize = 8;

/// How windows share rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pack {
    /// Windows follow each other, over the ends of rows.
    #[default]
    Concat,
    /// Each window begins a row; the rest of its last row is padding.
    None,
    /// Windows are cut where they are longer than a row, and no more: the pieces go to the rows where the least room is
    /// left, the longest first; what no piece fills is padding.
    BestFit,
}

impl Pack {
    /// As the configuration and the manifest have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Concat => "concat",
            Self::None => "none",
            Self::BestFit => "best_fit",
        }
    }
}

/// A window, or a part of one, that lies in one row.
#[derive(Debug, Clone, Default)]
struct Piece {
    tokens: Vec<u32>,
    weights: Vec<u8>,
    segments: Vec<Segment>,
}

impl Piece {
    /// Takes what the row holds, and its memory, for its own.
    fn swap_with(&mut self, row: &mut Row) {
        std::mem::swap(&mut self.tokens, &mut row.tokens);
        std::mem::swap(&mut self.weights, &mut row.weights);
        std::mem::swap(&mut self.segments, &mut row.segments);
    }
}

/// Makes rows of windows and hands them out in an order that depends on the windows alone.
pub struct Packer<'a, F> {
    tokenizer: &'a dyn Tokenizer,
    context: usize,
    pack: Pack,
    around: &'a Packing,
    row: Row,
    waiting: Vec<Piece>,
    waiting_tokens: usize,
    /// Pieces whose memory serves the next.
    spare: Vec<Piece>,
    emit: F,
}

impl<'a, F: FnMut(&mut Row) -> Result<(), Error>> Packer<'a, F> {
    /// Makes rows of `context` tokens, with the special tokens that `around` names; each row goes to `emit`, which empties it.
    pub fn new(
        tokenizer: &'a dyn Tokenizer,
        context: usize,
        pack: Pack,
        around: &'a Packing,
        emit: F,
    ) -> Self {
        let (row, waiting, spare) = (Row::default(), Vec::new(), Vec::new());
        Self { tokenizer, context, pack, around, row, waiting, waiting_tokens: 0, spare, emit }
    }

    /// Packs a window, whose tokens stand for so many `bases`; `weights` has a byte for each of its tokens, or is empty when
    /// rows have none.
    pub fn push(&mut self, document: &Document, bases: u64, weights: &[u8]) -> Result<(), Error> {
        let around = [self.around.begin, self.around.end, self.around.separator];
        if document.tokens.is_empty() && around == [None; 3] {
            return Ok(());
        }
        let mut cut = Cut::new(self.tokenizer, self.context, document, bases, weights, &mut self.spare);
        if self.pack == Pack::Concat {
            // The row is filled where it lies.
            cut.go_on(&mut self.row);
        }
        for piece in cut.pieces(self.around) {
            match self.pack {
                Pack::Concat => self.append(piece)?,
                Pack::None => {
                    self.append(piece)?;
                    self.end_row()?;
                }
                Pack::BestFit => {
                    self.waiting_tokens += piece.tokens.len();
                    self.waiting.push(piece);
                }
            }
        }
        if self.waiting_tokens >= WAITING_TOKENS { self.place() } else { Ok(()) }
    }

    /// Ends the row, so that no window after it shares one with those before.
    pub fn end(&mut self) -> Result<(), Error> {
        self.place()?;
        self.end_row()
    }

    /// Puts the waiting pieces into the rows where they fit best.
    fn place(&mut self) -> Result<(), Error> {
        self.waiting_tokens = 0;
        let mut pieces: Vec<Option<Piece>> =
            std::mem::take(&mut self.waiting).into_iter().map(Some).collect();
        let lengths: Vec<usize> = pieces.iter().flatten().map(|piece| piece.tokens.len()).collect();
        for row in best_fit(&lengths, self.context) {
            for piece in row {
                pieces[piece].take().map_or(Ok(()), |piece| self.append(piece))?;
            }
            self.end_row()?;
        }
        Ok(())
    }

    /// Appends a piece that fits; a row that is full is handed out.
    fn append(&mut self, mut piece: Piece) -> Result<(), Error> {
        if self.row.tokens.is_empty() {
            piece.swap_with(&mut self.row);
        }
        let first = number(self.row.tokens.len());
        for segment in &mut piece.segments {
            segment.token_start += first;
            segment.token_end += first;
        }
        self.row.tokens.append(&mut piece.tokens);
        self.row.weights.append(&mut piece.weights);
        self.row.segments.append(&mut piece.segments);
        self.row.documents.push(number(self.row.tokens.len()));
        if self.spare.len() < SPARE {
            self.spare.push(piece);
        }
        if self.row.tokens.len() == self.context { self.end_row() } else { Ok(()) }
    }

    /// Hands the row out, padded; an empty one is none.
    fn end_row(&mut self) -> Result<(), Error> {
        if self.row.tokens.is_empty() {
            return Ok(());
        }
        let row = &mut self.row;
        row.padding = self.context - row.tokens.len();
        if row.padding > 0 {
            row.documents.push(number(self.context));
        }
        if !row.weights.is_empty() {
            row.weights.resize(self.context, 0);
        }
        row.tokens.resize(self.context, self.around.padding);
        (self.emit)(row)
    }
}

/// The rows that pieces of these lengths go to, none above `context`: best fit, the longest first. Rows come in the order
/// of their first piece, pieces in their own.
fn best_fit(lengths: &[usize], context: usize) -> Vec<Vec<usize>> {
    let mut longest: Vec<usize> = (0..lengths.len()).collect();
    longest.sort_by_key(|&piece| std::cmp::Reverse(lengths[piece]));
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut open: BTreeSet<(usize, usize)> = BTreeSet::new();
    for piece in longest {
        let length = lengths[piece];
        let (room, row) = open.range((length, 0)..).next().copied().unwrap_or((context, rows.len()));
        if row == rows.len() {
            rows.push(Vec::new());
        }
        open.remove(&(room, row));
        rows[row].push(piece);
        if room > length {
            open.insert((room - length, row));
        }
    }
    for row in &mut rows {
        row.sort_unstable();
    }
    rows.sort_unstable();
    rows
}

/// Cuts a window, with the special tokens around it, into pieces.
struct Cut<'a> {
    tokenizer: &'a dyn Tokenizer,
    context: usize,
    document: &'a Document,
    weights: &'a [u8],
    /// Whether tokens have weights.
    weighted: bool,
    /// Bases of the whole window.
    all: u64,
    /// Bases of the window before the next token.
    bases: u64,
    done: Vec<Piece>,
    piece: Piece,
    spare: &'a mut Vec<Piece>,
    /// Tokens that the piece began with.
    before: usize,
}

impl<'a> Cut<'a> {
    fn new(
        tokenizer: &'a dyn Tokenizer,
        context: usize,
        document: &'a Document,
        all: u64,
        weights: &'a [u8],
        spare: &'a mut Vec<Piece>,
    ) -> Self {
        let weighted = !weights.is_empty();
        let (done, piece) = (Vec::new(), spare.pop().unwrap_or_default());
        Self { tokenizer, context, document, weights, weighted, all, bases: 0, done, piece, spare, before: 0 }
    }

    /// Has the first piece begin with what a row holds, which is empty then.
    fn go_on(&mut self, row: &mut Row) {
        self.piece.swap_with(row);
        self.before = self.piece.tokens.len();
    }

    /// The pieces, each of `context` tokens but the last.
    fn pieces(mut self, around: &Packing) -> Vec<Piece> {
        self.special(around.begin);
        self.tokens();
        self.special(around.end);
        self.special(around.separator);
        self.end_piece();
        self.spare.push(self.piece);
        self.done
    }

    fn end_piece(&mut self) {
        if self.piece.tokens.len() > self.before {
            let next = self.spare.pop().unwrap_or_default();
            self.done.push(std::mem::replace(&mut self.piece, next));
            self.before = 0;
        }
    }

    fn special(&mut self, token: Option<u32>) {
        if let Some(token) = token {
            self.piece.tokens.push(token);
            self.piece.weights.extend(self.weighted.then_some(LossWeights::ONE));
            self.end_full_piece();
        }
    }

    fn end_full_piece(&mut self) {
        if self.piece.tokens.len() == self.context {
            self.end_piece();
        }
    }

    fn tokens(&mut self) {
        let mut from = 0;
        while from < self.document.tokens.len() {
            let to = (from + self.context - self.piece.tokens.len()).min(self.document.tokens.len());
            let segment = self.segment(from, to);
            self.piece.segments.push(segment);
            self.piece.tokens.extend_from_slice(&self.document.tokens[from..to]);
            if self.weighted {
                self.piece.weights.extend_from_slice(&self.weights[from..to]);
            }
            from = to;
            self.end_full_piece();
        }
    }

    /// Where tokens `from..to` of the window lie. On the reverse strand the first token is the last of the interval.
    fn segment(&mut self, from: usize, to: usize) -> Segment {
        let Document { record, source, interval, strand, tokens } = self.document;
        // What a token stands for may depend on the one before it: overlapping k-mers.
        let before = from.saturating_sub(1);
        let bases = |range: std::ops::Range<usize>| self.tokenizer.bases_of(&tokens[range]);
        let start = self.bases;
        self.bases =
            if to == tokens.len() { self.all } else { start + bases(before..to) - bases(before..from) };
        let (start, end) = match strand {
            Strand::Forward => (interval.start + start, interval.start + self.bases),
            Strand::Reverse => (interval.end - self.bases, interval.end - start),
        };
        let token_start = number(self.piece.tokens.len());
        Segment {
            token_start,
            token_end: token_start + number(to - from),
            record: record.clone(),
            source: source.clone(),
            start,
            end,
            strand: *strand,
        }
    }
}

/// A position within a row.
fn number(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::kmer::{Config, Kmer};
    use crate::tokenizer::nucleotide::Nucleotide;
    use crate::units::Interval;

    fn document(tokenizer: &dyn Tokenizer, start: u64, bases: &str, strand: Strand) -> Document {
        let mut tokens = Vec::new();
        tokenizer.encode_into(bases.as_bytes(), &mut tokens);
        let interval = Interval::new(start, start + bases.len() as u64);
        Document { record: "r".into(), source: "s".into(), interval, strand, tokens }
    }

    fn around(begin: Option<u32>, end: Option<u32>, separator: Option<u32>) -> Packing {
        Packing { pack: String::new(), begin, end, separator, padding: 4 }
    }

    fn rows(tokenizer: &dyn Tokenizer, pack: Pack, around: &Packing, windows: &[Document]) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut packer = Packer::new(tokenizer, 8, pack, around, |row| {
            rows.push(std::mem::take(row));
            Ok(())
        });
        for window in windows {
            let bases = tokenizer.bases_of(&window.tokens);
            packer.push(window, bases, &vec![9; window.tokens.len()]).unwrap();
        }
        packer.end().unwrap();
        rows
    }

    /// A row as text: bases, `^` begin, `$` end, `|` separator, `.` padding; then its documents and places.
    fn show(tokenizer: &dyn Tokenizer, row: &Row) -> String {
        let letter = |&id: &u32| match id {
            2 => "^",
            1 => "$",
            0 => "|",
            4 => ".",
            id => tokenizer.text(id).unwrap(),
        };
        let text: String = row.tokens.iter().map(letter).collect();
        let places =
            row.segments.iter().map(|s| format!("{}-{}={}-{}", s.token_start, s.token_end, s.start, s.end));
        let places = places.collect::<Vec<_>>().join(",");
        format!("{text} {:?} {places} {}", row.documents, row.padding)
    }

    #[test]
    fn windows_are_packed_three_ways() {
        let tokenizer = Nucleotide::new();
        let window = |start, bases| document(&tokenizer, start, bases, Strand::Forward);
        let windows = [window(0, "ACGTA"), window(5, "CC"), window(7, "GGGGGGGGGGG"), window(18, "T")];
        let cases: [(Pack, Packing, &[&str]); 5] = [
            (
                Pack::Concat,
                around(None, None, Some(0)),
                &[
                    "ACGTA|CC [6, 8] 0-5=0-5,6-8=5-7 0",
                    "|GGGGGGG [1, 8] 1-8=7-14 0",
                    "GGGG|T|. [5, 7, 8] 0-4=14-18,5-6=18-19 1",
                ],
            ),
            (
                Pack::None,
                around(None, None, None),
                &[
                    "ACGTA... [5, 8] 0-5=0-5 3",
                    "CC...... [2, 8] 0-2=5-7 6",
                    "GGGGGGGG [8] 0-8=7-15 0",
                    "GGG..... [3, 8] 0-3=15-18 5",
                    "T....... [1, 8] 0-1=18-19 7",
                ],
            ),
            (
                Pack::BestFit,
                around(None, None, None),
                &[
                    "ACGTAGGG [5, 8] 0-5=0-5,5-8=15-18 0",
                    "CCT..... [2, 3, 8] 0-2=5-7,2-3=18-19 5",
                    "GGGGGGGG [8] 0-8=7-15 0",
                ],
            ),
            (
                Pack::BestFit,
                around(Some(2), Some(1), None),
                &[
                    "^ACGTA$. [7, 8] 1-6=0-5 1",
                    "^CC$.... [4, 8] 1-3=5-7 4",
                    "^GGGGGGG [8] 1-8=7-14 0",
                    "GGGG$^T$ [5, 8] 0-4=14-18,6-7=18-19 0",
                ],
            ),
            (
                Pack::Concat,
                around(Some(2), Some(1), Some(0)),
                &[
                    "^ACGTA$| [8] 1-6=0-5 0",
                    "^CC$|^GG [5, 8] 1-3=5-7,6-8=7-9 0",
                    "GGGGGGGG [8] 0-8=9-17 0",
                    "G$|^T$|. [3, 7, 8] 0-1=17-18,4-5=18-19 1",
                ],
            ),
        ];
        for (pack, around, expected) in cases {
            let found: Vec<String> =
                rows(&tokenizer, pack, &around, &windows).iter().map(|row| show(&tokenizer, row)).collect();
            assert_eq!(found, expected, "{pack:?} {around:?}");
        }
    }

    #[test]
    fn the_reverse_strand_and_overlapping_words_keep_their_places() {
        let nucleotide = Nucleotide::new();
        let window = document(&nucleotide, 100, "ACGTACGTAC", Strand::Reverse);
        let found = rows(&nucleotide, Pack::Concat, &around(None, None, None), &[window]);
        assert_eq!(show(&nucleotide, &found[0]), "ACGTACGT [8] 0-8=102-110 0");
        assert_eq!(show(&nucleotide, &found[1]), "AC...... [2, 8] 0-2=100-102 6");
        let kmer = Kmer::new(Config { k: 3, overlapping: true }).unwrap();
        let window = document(&kmer, 0, "ACGTACGTACGTACG", Strand::Forward);
        let found = rows(&kmer, Pack::None, &around(None, None, None), &[window]);
        let places: Vec<_> = found.iter().map(|row| (row.segments[0].start, row.segments[0].end)).collect();
        assert_eq!(places, [(0, 10), (10, 15)]);
        assert_eq!(found[1].segments[0].places(&kmer, &found[1].tokens)[0], Interval::new(10, 11));
    }

    #[test]
    fn weights_go_with_their_tokens() {
        let tokenizer = Nucleotide::new();
        let window = document(&tokenizer, 0, "ACG", Strand::Forward);
        let found = rows(&tokenizer, Pack::None, &around(Some(2), None, Some(0)), &[window]);
        assert_eq!(found[0].weights, [250, 9, 9, 9, 250, 0, 0, 0]);
    }

    #[test]
    fn best_fit_leaves_no_more_room_than_it_must() {
        let cases: [(&[usize], &[&[usize]]); 4] = [
            (&[], &[]),
            (&[5, 3, 8, 4, 4], &[&[0, 1], &[2], &[3, 4]]),
            (&[6, 5, 2, 3], &[&[0, 2], &[1, 3]]),
            (&[1, 1, 1], &[&[0, 1, 2]]),
        ];
        for (lengths, expected) in cases {
            assert_eq!(best_fit(lengths, 8), expected, "{lengths:?}");
        }
    }
}
