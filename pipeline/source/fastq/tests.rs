use std::io::Cursor;

use super::*;

fn reader(text: &str) -> Reader {
    Reader::new(Input::new("x.fq", Cursor::new(text.as_bytes().to_vec())).unwrap())
}

fn reads(text: &str) -> Result<Vec<String>, Error> {
    let (mut reader, mut reads) = (reader(text), Vec::new());
    while let Some(Read { name, bases, qualities }) = reader.next_read()? {
        reads.push(format!("{name} {} {}", bases.escape_ascii(), qualities.escape_ascii()));
    }
    Ok(reads)
}

#[test]
fn records_come_back_as_they_were_written() {
    for (text, expected) in [
        ("@a\nACGT\n+\nIIII\n", vec!["a ACGT IIII"]),
        ("@a b c\r\nACgt\r\n+a b c\r\nII@+\r\n", vec!["a ACgt II@+"]),
        ("\n@a\nA\n+a\n@\n\n@b\nN\n+\n+\n\n\n", vec!["a A @", "b N +"]),
        ("@a\nA\n+\n!", vec!["a A !"]),
    ] {
        assert_eq!(reads(text).unwrap(), expected, "{text:?}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, expected) in [
        ("", "cannot read `x.fq`: the file is empty; expected a FASTQ record"),
        (">a\nACGT\n", "cannot read `x.fq`, line 1: expected `@` and a name, found `>a`"),
        (
            "@ a\nA\n+\nI\n",
            "cannot read `x.fq`, line 1: found a header without a name; expected one after `@`",
        ),
        (
            "@a\nAC\nGT\n+\nIIII\n",
            "cannot read `x.fq`, line 3: expected `+` after one line of bases, found `GT`",
        ),
        (
            "@a\nA\n+\n",
            "cannot read `x.fq`, line 4: the file is truncated: it ends in the middle of the record",
        ),
        ("@a\n\n+\n\n", "cannot read record 1 of `x.fq` (line 1, `a`): found 0 bases, expected at least 1"),
        (
            "@a\nACGT\n+\nIII\n",
            "cannot read record 1 of `x.fq` (line 1, `a`): found 3 quality characters, expected 4, one a base",
        ),
        (
            "@a\nACET\n+\nIIII\n",
            "cannot read record 1 of `x.fq` (line 1, `a`): found `E` as base 2, expected an IUPAC nucleotide code",
        ),
        (
            "@a\nA\n+\nI\n@b\nACG\n+\nI I\n",
            "cannot read record 2 of `x.fq` (line 5, `b`): found ` ` as quality of base 1, expected a character from \
             `!` to `~`",
        ),
        (
            "@a\nA\n+b\nI\n",
            "cannot read record 1 of `x.fq` (line 1, `a`): found `+b`, expected `+` alone or with the name of the \
             record",
        ),
    ] {
        assert_eq!(reads(text).unwrap_err().to_string(), expected, "{text:?}");
    }
}

#[test]
fn the_record_after_a_bad_one_can_be_read() {
    let mut reader = reader("@a\nACGT\n+\nI\n@b\nGG\n+\nII\n");
    assert!(reader.next_read().unwrap_err().is_of_one_record());
    assert_eq!(reader.next_read().unwrap().unwrap().name, "b");
    assert!(reader.next_read().unwrap().is_none());
}

#[test]
fn mates_are_read_together() {
    let pairs = |first: &str, second: &str| {
        let (mut pairs, mut names) = (Pairs::new(reader(first), reader(second)), Vec::new());
        loop {
            match pairs.next_pair() {
                Ok(Some((first, second))) => names.push(format!("{} {}", first.name, second.name)),
                Ok(None) => return names.join(", "),
                Err(error) => {
                    names.push(error.to_string());
                    if !error.is_of_one_record() {
                        return names.join(", ");
                    }
                }
            }
        }
    };
    let read = |name: &str| format!("@{name}\nA\n+\nI\n");
    let many = |names: &[&str]| names.iter().map(|name| read(name)).collect::<String>();
    assert_eq!(pairs(&many(&["a/1", "b"]), &many(&["a/2", "b"])), "a/1 a/2, b b");
    assert_eq!(
        pairs(&many(&["a", "b"]), &many(&["a", "c"])),
        "a a, cannot pair record 2 of `x.fq` and `x.fq`: found `b` and `c`, expected one name"
    );
    let unequal = "cannot pair `x.fq` and `x.fq`: found 1 records in the first, more in the second";
    assert_eq!(pairs(&many(&["a", "b"]), &many(&["a"])), format!("a a, {unequal}"));
    assert_eq!(pairs(&many(&["a"]), &many(&["a", "b"])), format!("a a, {unequal}"));
    let bad = "@a\nA\n+\nII\n@b\nA\n+\nI\n";
    assert!(pairs(bad, &many(&["a", "b"])).ends_with("one a base, b b"));
}

proptest::proptest! {
    /// Whatever the bytes are: reads, or an error; never a panic.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let Ok(input) = Input::new("x.fq", Cursor::new(bytes)) else { return Ok(()) };
        let mut reader = Reader::new(input);
        while let Ok(Some(read)) = reader.next_read() {
            assert_eq!(read.bases.len(), read.qualities.len());
        }
    }

    /// Written and read again, a read is the same.
    #[test]
    fn written_reads_come_back(bases in "[ACGTNacgtn]{1,80}", shift in 0u8..60) {
        let qualities: String = bases.bytes().map(|b| char::from(b'!' + b % 30 + shift)).collect();
        let text = format!("@r x\n{bases}\n+\n{qualities}\n");
        assert_eq!(reads(&text).unwrap(), [format!("r {bases} {}", qualities.as_bytes().escape_ascii())]);
    }
}
