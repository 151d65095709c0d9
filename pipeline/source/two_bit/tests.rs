use std::io::Write;

use super::*;

/// A 2bit file as its specification has it, in either byte order.
fn two_bit(records: &[(&str, &str)], big_endian: bool) -> Vec<u8> {
    let number = |n: usize| {
        let n = u32::try_from(n).unwrap();
        if big_endian { n.to_be_bytes() } else { n.to_le_bytes() }
    };
    let index: usize = records.iter().map(|(name, _)| 5 + name.len()).sum();
    let (mut head, mut bodies) = (Vec::new(), Vec::new());
    for n in [0x1A41_2743, 0, records.len(), 0] {
        head.extend(number(n));
    }
    for (name, bases) in records {
        head.push(u8::try_from(name.len()).unwrap());
        head.extend(name.as_bytes());
        head.extend(number(16 + index + bodies.len()));
        bodies.extend(number(bases.len()));
        let unknown: fn(u8) -> bool = |b| b.eq_ignore_ascii_case(&b'N');
        let lower: fn(u8) -> bool = |b| b.is_ascii_lowercase();
        for belongs in [unknown, lower] {
            let runs: Vec<(usize, usize)> = runs(bases.as_bytes(), belongs);
            bodies.extend(number(runs.len()));
            bodies.extend(runs.iter().flat_map(|run| number(run.0)));
            bodies.extend(runs.iter().flat_map(|run| number(run.1)));
        }
        bodies.extend(number(0));
        for four in bases.as_bytes().chunks(4) {
            let code = |b: &u8| b"TCAG".iter().position(|c| c.eq_ignore_ascii_case(b)).unwrap_or(0);
            let byte = four.iter().enumerate().map(|(i, b)| code(b) << (6 - 2 * i)).sum::<usize>();
            bodies.push(u8::try_from(byte).unwrap());
        }
    }
    [head, bodies].concat()
}

fn runs(bases: &[u8], belongs: fn(u8) -> bool) -> Vec<(usize, usize)> {
    let mut runs = Vec::<(usize, usize)>::new();
    for (i, _) in bases.iter().enumerate().filter(|(_, b)| belongs(**b)) {
        match runs.last_mut() {
            Some(run) if run.0 + run.1 == i => run.1 += 1,
            _ => runs.push((i, 1)),
        }
    }
    runs
}

fn read(bytes: &[u8], block: usize) -> Result<Vec<(String, String)>, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let mut reader = Reader::open(file.path(), block)?;
    let mut records: Vec<(String, String)> = Vec::new();
    while let Some(event) = reader.next_event()? {
        match event {
            Event::Record(header) => records.push((header.name.clone(), String::new())),
            Event::Bases(bases) => records.last_mut().unwrap().1 += str::from_utf8(bases).unwrap(),
            Event::End { bases } => assert_eq!(records.last().unwrap().1.len() as u64, bases),
        }
    }
    Ok(records)
}

#[test]
fn records_come_back_in_either_byte_order_and_any_blocks() {
    let records = [("chr1", "ACGTNNNNacgtnnACGTT"), ("b", "T"), ("c", "NNNNN")];
    let expected: Vec<_> = records.iter().map(|(n, b)| ((*n).to_owned(), (*b).to_owned())).collect();
    for big_endian in [false, true] {
        for block in [1, 3, 4, 7, 100] {
            assert_eq!(read(&two_bit(&records, big_endian), block).unwrap(), expected, "blocks of {block}");
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let whole = two_bit(&[("a", "ACGTNN"), ("b", "TTTT")], false);
    let message = |bytes: &[u8]| {
        let text = read(bytes, 10).unwrap_err().to_string();
        let (before, after) = text.split_once('`').unwrap();
        format!("{before}x{}", after.split_once('`').unwrap().1)
    };
    assert_eq!(message(b""), "cannot read x: expected 2bit, found an empty file");
    assert_eq!(message(b">a\nACGT"), "cannot read x: expected 2bit, found `>a\\nA`");
    let mut version = whole.clone();
    version[4] = 9;
    assert_eq!(message(&version), "cannot read x at byte 4: found version 9 of 2bit, expected 0 or 1");
    let cut = &whole[..whole.len() - 1];
    assert!(message(cut).contains("the file is truncated: expected 1 bytes here"), "{}", message(cut));
    let twice = two_bit(&[("a", "A"), ("a", "C")], false);
    assert_eq!(message(&twice), "cannot read x: found a second record `a`");
    let empty = two_bit(&[("a", "")], false);
    assert_eq!(message(&empty), "cannot read x: record `a` is empty; expected bases");
}

#[test]
fn damage_never_panics() {
    let whole = two_bit(&[("a", "ACGTNNacgt"), ("b", "TTTT")], false);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            drop(read(&damaged, 3));
        }
        assert!(read(&whole[..at], 3).is_err(), "cut at {at}");
    }
}
