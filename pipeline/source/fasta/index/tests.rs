use std::io::Write;

use super::*;

const BASES: usize = 5000;

/// Two records, lines of `width` bases with `end`, and the index that `samtools faidx` makes of them.
fn fasta(width: usize, end: &str) -> (Vec<u8>, String, [Vec<u8>; 2]) {
    let (mut text, mut index) = (Vec::new(), String::new());
    let records = [0u32, 1].map(|record| {
        let base =
            |i: u32| b"ACGTNacgtn"[(i.wrapping_mul(2_654_435_761).wrapping_add(record) >> 16) as usize % 10];
        (0..u32::try_from(BASES).unwrap() + 13 * record).map(base).collect::<Vec<u8>>()
    });
    for (name, bases) in ["chr1", "chr2"].iter().zip(&records) {
        text.extend(format!(">{name} described{end}").bytes());
        let (offset, line_bytes) = (text.len(), width + end.len());
        index.extend([format!("{name}\t{}\t{offset}\t{width}\t{line_bytes}\n", bases.len())]);
        for line in bases.chunks(width) {
            text.extend_from_slice(line);
            text.extend_from_slice(end.as_bytes());
        }
    }
    (text, index, records)
}

/// Compressed in small blocks, and the `.gzi`: all blocks but the first.
fn bgzip(text: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut file, mut pairs) = (Vec::new(), Vec::new());
    for (i, part) in text.chunks(700).enumerate() {
        if i > 0 {
            pairs.push((file.len() as u64, 700 * i as u64));
        }
        let mut writer = noodles::bgzf::io::Writer::new(Vec::new());
        writer.write_all(part).unwrap();
        let block = writer.finish().unwrap();
        file.extend_from_slice(&block[..block.len() - 28]);
    }
    let mut end = noodles::bgzf::io::Writer::new(Vec::new());
    end.flush().unwrap();
    file.extend(end.finish().unwrap());
    let mut index = (pairs.len() as u64).to_le_bytes().to_vec();
    for (a, b) in pairs {
        index.extend(a.to_le_bytes().into_iter().chain(b.to_le_bytes()));
    }
    (file, index)
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(fasta: &[u8], fai: &str, gzi: Option<&[u8]>) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(files.path(), fasta).unwrap();
        std::fs::write(beside(&files.path(), ".fai"), fai).unwrap();
        if let Some(gzi) = gzi {
            std::fs::write(beside(&files.path(), ".gzi"), gzi).unwrap();
        }
        files
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("x.fa")
    }

    fn open(&self) -> Result<Option<Indexed>, Error> {
        Indexed::open(&self.path())
    }

    /// The bases of an interval of record `record`.
    fn read(&self, record: usize, start: u64, end: u64, block: usize) -> Result<Vec<u8>, Error> {
        let indexed = self.open()?.unwrap();
        let mut bases = indexed.bases(&indexed.entries()[record], Interval::new(start, end), block)?;
        let (mut found, mut next) = (Vec::new(), start);
        while let Some((at, bases)) = bases.next_block()? {
            assert_eq!(at, next);
            next += bases.len() as u64;
            assert!(next == end || next % block as u64 == 0, "a block ends at {next}");
            found.extend_from_slice(bases);
        }
        Ok(found)
    }
}

#[test]
fn any_interval_is_found() {
    for (width, end) in [(60, "\n"), (61, "\r\n"), (7, "\n"), (9000, "\n")] {
        let (text, fai, records) = fasta(width, end);
        let (compressed, gzi) = bgzip(&text);
        for files in [Files::new(&text, &fai, None), Files::new(&compressed, &fai, Some(&gzi))] {
            for (record, start, stop) in [
                (0, 0, 1),
                (0, 59, 61),
                (0, 60, 120),
                (0, 0, BASES),
                (1, 7, 14),
                (1, 3000, 5013),
                (1, 5012, 5013),
            ] {
                for block in [64, 1000] {
                    let found = files.read(record, start as u64, stop as u64, block).unwrap();
                    let expected = &records[record][start..stop];
                    assert!(found == expected, "{width}: {record}:{start}-{stop} in blocks of {block}");
                }
            }
        }
    }
}

#[test]
fn files_without_an_index_or_inner_places_are_not_indexed() {
    let (text, fai, _) = fasta(60, "\n");
    let (compressed, _) = bgzip(&text);
    assert!(Files::new(&compressed, &fai, None).open().unwrap().is_none());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&text).unwrap();
    assert!(Files::new(&gzip.finish().unwrap(), &fai, Some(b"")).open().unwrap().is_none());
    let files = Files::new(&text, &fai, None);
    std::fs::remove_file(beside(&files.path(), ".fai")).unwrap();
    assert!(files.open().unwrap().is_none());
}

#[test]
fn an_index_that_does_not_fit_is_refused() {
    let (text, fai, _) = fasta(60, "\n");
    let other_name = fai.replace("chr2", "chr3");
    let other_width = fai.replace("\t60\t61", "\t50\t51");
    let longer = fai.replace("chr1\t5000", "chr1\t5400");
    for (fai, record, start, end, expected) in [
        (&other_name, 1, 0, 5, "there is no header of it before byte"),
        (&other_width, 0, 0, 100, "lines do not end where it has them"),
        (&longer, 0, 0, 5400, "lines do not end where it has them"),
        (&fai.replace("5013\t", "9013\t"), 1, 8000, 8100, "the file ends before it"),
    ] {
        let error = Files::new(&text, fai, None).read(record, start, end, 1 << 20).unwrap_err().to_string();
        assert!(error.contains("its index does not fit") && error.contains(expected), "{error}");
    }
    let other =
        Files::new(&text.iter().map(|b| if *b == b'g' { b'*' } else { *b }).collect::<Vec<u8>>(), &fai, None);
    let error = other.read(0, 0, 100, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("byte 0x2A is no IUPAC nucleotide code"), "{error}");
}

#[test]
fn indexes_that_are_none_are_refused() {
    let (text, fai, _) = fasta(60, "\n");
    for line in [
        "",
        "chr1",
        "chr1\t5000\t16\t0\t1",
        "chr1\t5000\t16\t60\t60",
        "chr1\tx\t16\t60\t61",
        fai.lines().next().unwrap(),
    ] {
        let error = Files::new(&text, &format!("{fai}{line}\n"), None).open().err().unwrap().to_string();
        assert!(error.contains("x.fa.fai`, line 3: found `"), "{error}");
    }
    let (compressed, gzi) = bgzip(&text);
    for gzi in [&gzi[..gzi.len() - 1], b"", b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"] {
        let error = Files::new(&compressed, &fai, Some(gzi)).open().err().unwrap().to_string();
        assert!(error.contains("x.fa.gzi`: found "), "{error}");
    }
}
