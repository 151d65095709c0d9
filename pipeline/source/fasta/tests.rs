use std::fmt::Write as _;
use std::io::{self, Read};

use proptest::prelude::*;

use super::*;

/// Hands out at most `step` bytes at a time.
struct Dribble<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.step.min(out.len()).min(self.bytes.len());
        let (head, rest) = self.bytes.split_at(count);
        out[..count].copy_from_slice(head);
        self.bytes = rest;
        Ok(count)
    }
}

type Record = (String, String, Vec<u8>);

fn read(fasta: &[u8], step: usize, block: usize) -> Result<Vec<Record>, Error> {
    let mut reader = Reader::new("x.fa", Dribble { bytes: fasta, step }).with_block_bases(block);
    let mut records: Vec<Record> = Vec::new();
    while let Some(event) = reader.next_event()? {
        match event {
            Event::Record(header) => {
                records.push((header.name.clone(), header.description.clone(), Vec::new()));
            }
            Event::Bases(bases) => {
                assert!((1..=block).contains(&bases.len()));
                records.last_mut().unwrap().2.extend_from_slice(bases);
            }
            Event::End { bases } => assert_eq!(bases, records.last().unwrap().2.len() as u64),
        }
    }
    Ok(records)
}

#[test]
fn well_formed_files_give_their_records() {
    for (fasta, expected) in [
        (">a\nACGT\n", "a||ACGT"),
        (">a\r\nACGT\r\nAC\r\n", "a||ACGTAC"),
        (">a\nACGT", "a||ACGT"),
        (">a\r\nACGT\r", "a||ACGT"),
        (">a x y \nAC\n", "a|x y|AC"),
        (">a\tx\nAC\n", "a|x|AC"),
        ("> a x\nAC\n", "a|x|AC"),
        (">a\n\nAC\n\n\nGT\n\n>b\nA\n", "a||ACGT b||A"),
        (">a\nA\n>b\nC", "a||A b||C"),
        (">a\nacgtNnuU\n", "a||acgtNnuU"),
        ("\n \r\n>a\nA", "a||A"),
        (">a\nACGT\nACGT\nACGT\nAC\n>b\nAC\nAC\nACG\nA", "a||ACGTACGTACGTAC b||ACACACGA"),
        (">a\nAC\nACGTT\nAC\nAC\nA\nACGTACGT\nAC\n", "a||ACACGTTACACAACGTACGTAC"),
        (">a\nACGT\n>b\nA\n>c\nA\n>d\nA\n>e\nA\n", "a||ACGT b||A c||A d||A e||A"),
    ] {
        for step in [1, 2, 3, 7, 1000] {
            for block in [1, 2, 3, 5, 1000] {
                let records = read(fasta.as_bytes(), step, block).unwrap();
                let text = |(name, description, bases): Record| {
                    format!("{name}|{description}|{}", String::from_utf8(bases).unwrap())
                };
                let found: Vec<String> = records.into_iter().map(text).collect();
                // A description may hold blanks, so the records are joined, not split.
                assert_eq!(found.join(" "), expected, "{fasta:?} in steps of {step}, blocks of {block}");
            }
        }
    }
}

#[test]
fn malformed_files_are_refused_where_they_are_wrong() {
    for (fasta, expected) in [
        ("", "cannot read `x.fa`: the file is empty; expected a FASTA record"),
        ("\n\n", "cannot read `x.fa`: the file is empty; expected a FASTA record"),
        ("\nACGT\n>a\nA\n", "cannot read `x.fa`, line 2: expected `>` before the first record, found `ACGT`"),
        ("@r\nA\n", "cannot read `x.fa`, line 1: expected `>` before the first record, found `@r`"),
        ("\0\0", r"cannot read `x.fa`, line 1: expected `>` before the first record, found `\0\0`"),
        (">\nA\n", "cannot read `x.fa`, line 1: found a header without a name; expected one after `>`"),
        (">a\0\nA\n", "cannot read `x.fa`, line 1: found a NUL byte in a header; expected text"),
        (">a\n>b\nA\n", "cannot read `x.fa`, line 1: record `a` is empty; expected bases after its header"),
        (">a\nA\n>b\n\n", "cannot read `x.fa`, line 3: record `b` is empty; expected bases after its header"),
        (">a\nA\n>a x\nA\n", "cannot read `x.fa`, line 3: found a second record `a`; the first is at line 1"),
        (
            ">a\nACGT\nACGT\nAC*T\nACGT\n",
            "cannot read `a:10-11` of `x.fa` (line 4, column 3): byte 0x2A (`*`) is no IUPAC nucleotide code",
        ),
        (
            ">a\nACGT\nACGT\nACGT\nACGT\nACG\0\n",
            "cannot read `a:19-20` of `x.fa` (line 6, column 4): byte 0x00 (NUL) is no IUPAC nucleotide code",
        ),
        (
            ">a\nAC GT\n",
            "cannot read `a:2-3` of `x.fa` (line 2, column 3): byte 0x20 (blank) is no IUPAC nucleotide code",
        ),
        (
            ">a\nAC\rGT\n",
            "cannot read `a:2-3` of `x.fa` (line 2, column 3): byte 0x0D (carriage return) is no IUPAC nucleotide code",
        ),
        (
            ">a\nAC>GT\n",
            "cannot read `a:2-3` of `x.fa` (line 2, column 3): byte 0x3E (`>`) is no IUPAC nucleotide code",
        ),
    ] {
        for step in [1, 2, 3, 1000] {
            for block in [1, 3, 1000] {
                let error = read(fasta.as_bytes(), step, block).unwrap_err();
                assert_eq!(error.to_string(), expected, "{fasta:?} in steps of {step}, blocks of {block}");
            }
        }
    }
}

#[test]
fn a_name_that_is_no_text_is_refused_and_a_description_is_kept_readable() {
    let error = read(b">\xFF\nA\n", 9, 9).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read `x.fa`, line 1: found a record name that is not UTF-8; expected text"
    );
    assert_eq!(read(b">a \xE9\nA\n", 9, 9).unwrap()[0].1, "\u{FFFD}");
}

#[test]
fn a_header_may_be_long_but_not_endless() {
    let long = [b">a ".to_vec(), vec![b'x'; 600_000], b"\nA\n".to_vec()].concat();
    assert_eq!(read(&long, 100_000, 9).unwrap()[0].1.len(), 600_000);
    let endless = [b">a ".to_vec(), vec![b'x'; MAX_HEADER_BYTES]].concat();
    let error = read(&endless, 100_000, 9).unwrap_err();
    assert!(matches!(error, Error::Header { problem: HeaderProblem::TooLong, line: 1, .. }), "{error}");
}

#[test]
fn blocks_are_full_but_for_the_last() {
    let bases: Vec<u8> = b"ACGT".repeat(25_000);
    for width in [60, 20_000, 100_000] {
        let lines: Vec<u8> = bases.chunks(width).flat_map(|line| [line, b"\n"].concat()).collect();
        let fasta = [b">a\n".to_vec(), lines].concat();
        let mut reader = Reader::new("x.fa", &fasta[..]).with_block_bases(30_000);
        let mut lengths = Vec::new();
        while let Some(event) = reader.next_event().unwrap() {
            if let Event::Bases(bases) = event {
                lengths.push(bases.len());
            }
        }
        assert_eq!(lengths, [30_000, 30_000, 30_000, 10_000], "lines of {width}");
    }
}

fn naive(fasta: &str) -> Vec<Record> {
    let record = |text: &str| {
        let (header, lines) = text.split_once('\n').unwrap();
        let (name, description) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        let bases = lines.split('\n').flat_map(|line| line.trim_end_matches('\r').bytes()).collect();
        (name.to_owned(), description.to_owned(), bases)
    };
    fasta.split('>').skip(1).map(record).collect()
}

proptest! {
    #[test]
    fn any_cut_gives_what_a_naive_parser_gives(
        records in prop::collection::vec(
            (1usize..40, prop::collection::vec(prop_oneof![4 => Just(0usize), 1 => 1usize..40], 1..12), any::<bool>()),
            1..5,
        ),
        step in 1usize..200,
        block in 1usize..200,
    ) {
        let mut fasta = String::new();
        for (i, (width, lines, crlf)) in records.iter().enumerate() {
            let end = if *crlf { "\r\n" } else { "\n" };
            write!(fasta, ">r{i} some text{end}A{end}").unwrap();
            for line in lines {
                let length = if *line == 0 { *width } else { *line };
                let bases: String = "ACGTNacgtnRY".chars().cycle().skip(length % 7).take(length).collect();
                write!(fasta, "{bases}{end}").unwrap();
            }
        }
        prop_assert_eq!(read(fasta.as_bytes(), step, block).unwrap(), naive(&fasta));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(
        prop_oneof![Just(b'>'), Just(b'\n'), Just(b'\r'), Just(b'A'), Just(b'C'), any::<u8>()], 0..60,
    ), step in 1usize..9, block in 1usize..9) {
        let whole = read(&bytes, 1000, 1000).map_err(|e| e.to_string());
        prop_assert_eq!(read(&bytes, step, block).map_err(|e| e.to_string()), whole);
    }
}
