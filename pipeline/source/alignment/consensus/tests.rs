use std::fmt::Write as _;
use std::io::Cursor;

use proptest::prelude::*;

use super::super::Options as Filters;
use super::*;

const REFERENCE: &str = ">c first\nACGTACGTAC\nGTACGTACGT\n>empty\nGGcc\n>d\nTTTTTTTT\n";

/// A line of a SAM file: flags, contig, position from 1, CIGAR, bases.
type Line<'a> = (u16, &'a str, u64, &'a str, &'a str);

fn sam(lines: &[Line]) -> String {
    let head =
        "@HD\tVN:1.6\tSO:coordinate\n@SQ\tSN:c\tLN:20\n@SQ\tSN:empty\tLN:4\n@SQ\tSN:d\tLN:8\n".to_owned();
    (0..).zip(lines).fold(head, |text, (number, (flags, contig, start, cigar, bases))| {
        text + &format!("r{number}\t{flags}\t{contig}\t{start}\t60\t{cigar}\t*\t0\t0\t{bases}\t*\n")
    })
}

/// The consensus as `NAME BASES`, contig by contig, and what was wrong with reads that were passed.
fn consensus(
    alignment: impl Into<Vec<u8>>,
    reference: &str,
    more: &str,
    block: usize,
) -> Result<(Vec<String>, Vec<String>), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ref.fa");
    std::fs::write(&file, reference).unwrap();
    let options = serde_json::from_str(&format!(r#"{{"reference": "ref.fa"{more}}}"#)).unwrap();
    let show = |error: Error| error.to_string().replace(&format!("{}/", folder.path().display()), "");
    let reader = Reader::new(Input::new("x.sam", Cursor::new(alignment.into())).unwrap(), Filters::default());
    let mut found =
        Consensus::new(reader.map_err(show)?, &file, options, more.contains("below")).map_err(show)?;
    found.reference = Contigs::open(&file, &found.reads.reader, block).map_err(show)?;
    let (mut contigs, mut length) = (Vec::<String>::new(), 0);
    while let Some(part) = found.next_part().map_err(show)? {
        match part {
            Part::Contig(name) => {
                contigs.push(format!("{name} "));
                length = 0;
            }
            Part::Bases(bases) => {
                length += bases.len();
                contigs.last_mut().unwrap().push_str(str::from_utf8(bases).unwrap());
            }
            Part::End(bases) => assert_eq!(bases, length as u64),
        }
    }
    Ok((contigs, found.take_bad()))
}

#[test]
fn most_votes_win_and_ties_have_an_order() {
    for (lines, more, expected) in [
        (&[][..], "", ["NNNNNNNNNNNNNNNNNNNN", "NNNN", "NNNNNNNN"]),
        (&[], r#", "below": "reference""#, ["ACGTACGTACGTACGTACGT", "GGCC", "TTTTTTTT"]),
        // One read decides; soft clips have no votes.
        (&[(0, "c", 3, "2S4M1S", "AAGTTTC")], "", ["NNGTTTNNNNNNNNNNNNNN", "NNNN", "NNNNNNNN"]),
        // The stored bases count, whatever strand was sequenced.
        (&[(16, "d", 1, "4M", "ACGT")], "", ["NNNNNNNNNNNNNNNNNNNN", "NNNN", "ACGTNNNN"]),
        // Two to one; a tie with the reference's base; a tie without it.
        (
            &[
                (0, "d", 1, "3M", "AGT"),
                (0, "d", 1, "3M", "AAG"),
                (0, "d", 1, "3M", "TCC"),
                (0, "d", 3, "1M", "C"),
            ],
            "",
            ["NNNNNNNNNNNNNNNNNNNN", "NNNN", "AACNNNNN"],
        ),
        (&[(0, "d", 1, "1M", "T"), (0, "d", 1, "1M", "A")], "", ["NNNNNNNNNNNNNNNNNNNN", "NNNN", "TNNNNNNN"]),
        // Deletions by majority drop the base; a tie keeps it. Skips have no votes.
        (
            &[
                (0, "c", 1, "2M2D2M2N2M", "ACACAC"),
                (0, "c", 1, "3M1D2M", "ACGAC"),
                (0, "c", 1, "10M", "NNNNNNNNAC"),
            ],
            "",
            ["ACGACNNACNNNNNNNNNN", "NNNN", "NNNNNNNN"],
        ),
        // Insertions by majority; not by half; those at the end of a read have no vote.
        (
            &[
                (0, "c", 1, "2M2I4M1I2M", "ACttGTACGGT"),
                (0, "c", 1, "2M2I6M", "ACTTGTACGT"),
                (0, "c", 1, "8M", "ACGTACGT"),
                (0, "d", 1, "2M1I2M1I", "TTATTC"),
                (0, "d", 1, "4M", "TTTT"),
                (0, "d", 8, "1I1M", "AT"),
            ],
            "",
            ["ACTTGTACGTNNNNNNNNNNNN", "NNNN", "TTTTNNNT"],
        ),
        // Below the depth there is no call, nor an insertion.
        (
            &[(0, "c", 1, "4M1I2M", "ACGTAAC"), (0, "c", 3, "2M1I4M", "CTAACGT")],
            r#", "min_depth": 2"#,
            ["NNGTAACNNNNNNNNNNNNNN", "NNNN", "NNNNNNNN"],
        ),
        (
            &[(0, "c", 1, "4M1I2M", "TTTTTTT")],
            r#", "min_depth": 2, "below": "reference""#,
            ["ACGTACGTACGTACGTACGT", "GGCC", "TTTTTTTT"],
        ),
        // What the filters leave out has no votes: secondary, duplicate, failed, supplementary, unmapped.
        (
            &[
                (0x100, "c", 1, "2M", "TT"),
                (0x400, "c", 1, "2M", "TT"),
                (0x200, "c", 1, "2M", "TT"),
                (0x800, "c", 1, "2M", "TT"),
                (0x4, "c", 1, "*", "TT"),
                (0, "c", 2, "2M", "GG"),
            ],
            "",
            ["NGGNNNNNNNNNNNNNNNNN", "NNNN", "NNNNNNNN"],
        ),
    ] {
        for block in [1, 3, 7, 100] {
            let (found, bad) = consensus(sam(lines), REFERENCE, more, block).unwrap();
            let names = ["c", "empty", "d"].iter().zip(expected);
            let expected: Vec<String> = names.map(|(name, bases)| format!("{name} {bases}")).collect();
            assert_eq!(found, expected, "{lines:?}, blocks of {block}");
            assert!(bad.is_empty());
        }
    }
}

#[test]
fn reads_out_of_order_or_place_are_refused() {
    let first = (0, "c", 5, "4M", "ACGT");
    for (lines, reference, expected) in [
        (
            &[first, (0, "c", 4, "4M", "ACGT")][..],
            REFERENCE,
            "cannot take record 2 of `x.sam` into a consensus: `r1` lies at c:3, after one at c:4; expected reads \
             sorted by coordinate (`samtools sort`), contigs in the order of `ref.fa` unless it has an index (`samtools faidx`)",
        ),
        (
            &[(0, "d", 1, "1M", "A"), first],
            REFERENCE,
            "cannot take record 2 of `x.sam` into a consensus: `r1` lies at c:4, after one at d:0; expected reads \
             sorted by coordinate (`samtools sort`), contigs in the order of `ref.fa` unless it has an index (`samtools faidx`)",
        ),
        (
            &[first],
            ">x\nACGT\n",
            "cannot take record 1 of `x.sam` into a consensus: `r0` is aligned to `c`, which `ref.fa` has not",
        ),
        (
            &[first, (0, "c", 8, "2M", "AC")],
            ">c\nACGTACG\n",
            "cannot take record 2 of `x.sam` into a consensus: `r1` lies at c:7-9, but there `ref.fa` has 7 bases; \
             is it the reference that the reads were aligned to?",
        ),
        (
            &[first, (0, "c", 6, "1M", "A")],
            ">c\nACGTACG\n",
            "cannot take record 1 of `x.sam` into a consensus: `r0` lies at c:4-8, but there `ref.fa` has 7 bases; \
             is it the reference that the reads were aligned to?",
        ),
        (
            &[(0, "c", 1, "3M", "ACGT")],
            REFERENCE,
            "cannot read record 1 of `x.sam`: found a CIGAR of 3 bases, expected 4, those of the read",
        ),
        (
            &[(0, "c", 1, "4S9N", "ACGT")],
            REFERENCE,
            "cannot read record 1 of `x.sam`: found a CIGAR of over 65535 operations, which stands in the tag `CG`; \
             expected a shorter one",
        ),
    ] {
        for block in [1, 5, 100] {
            assert_eq!(consensus(sam(lines), reference, "", block).unwrap_err(), expected);
        }
    }
    let bad = [(0, "c", 1, "3M", "ACGT"), (0, "c", 1, "2M", "GG")];
    let (found, bad) = consensus(sam(&bad), REFERENCE, r#", "below": "unknown""#, 9).unwrap();
    assert_eq!(found[0], "c GGNNNNNNNNNNNNNNNNNN");
    assert_eq!(
        bad,
        ["cannot read record 1 of `x.sam`: found a CIGAR of 3 bases, expected 4, those of the read"]
    );
}

#[test]
fn an_index_gives_contigs_in_the_order_of_the_reads() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.fa");
    std::fs::write(&file, ">d\nTTTTTTTT\n>more\nAC\n>c\nACGTACGTAC\nGTACGTACGT\n>empty\nGG\n").unwrap();
    let index = "d\t8\t3\t8\t9\nmore\t2\t18\t2\t3\nc\t20\t24\t10\t11\nempty\t2\t53\t2\t3\n";
    std::fs::write(folder.path().join("r.fa.fai"), index).unwrap();
    let text = sam(&[(0, "c", 9, "4M", "AGTA"), (0, "d", 2, "1M", "G")]);
    let reader = Reader::new(Input::new("x.sam", Cursor::new(text)).unwrap(), Filters::default()).unwrap();
    let options = Options { reference: file.clone(), min_depth: 1, below: Below::Reference };
    let mut consensus = Consensus::new(reader, &file, options, false).unwrap();
    let mut found = String::new();
    while let Some(part) = consensus.next_part().unwrap() {
        match part {
            Part::Contig(name) => write!(found, "{name} ").unwrap(),
            Part::Bases(bases) => found.push_str(str::from_utf8(bases).unwrap()),
            Part::End(bases) => write!(found, " {bases}, ").unwrap(),
        }
    }
    assert_eq!(found, "c ACGTACGTAGTAACGTACGT 20, empty GG 2, d TGTTTTTT 8, more AC 2, ");
}

proptest! {
    /// Blocks of any length give what one block gives.
    #[test]
    fn blocks_do_not_show(
        reads in prop::collection::vec((1u64..12, 1u64..4, 0u64..4, 0u64..3, 1u64..4, "[ACGT]{12}"), 0..12),
        block in 1usize..9,
    ) {
        let mut reads = reads;
        reads.sort_unstable();
        let mut text = sam(&[]);
        for (start, before, inserted, deleted, after, bases) in &reads {
            let taken = usize::try_from(before + inserted + after).unwrap();
            let cigar = format!("{before}M{inserted}I{deleted}D{after}M");
            writeln!(text, "r\t0\tc\t{start}\t60\t{cigar}\t*\t0\t0\t{}\t*", &bases[..taken]).unwrap();
        }
        prop_assert_eq!(consensus(text.as_str(), REFERENCE, "", block), consensus(text.as_str(), REFERENCE, "", 100));
    }
}

/// As `samtools consensus -m simple -c 0 -a` (1.16.1) calls them. It differs where a tie has the reference's base (it does
/// not know it), counts N among the votes, asks `-d` of an insertion by itself, and takes supplementary alignments.
#[test]
fn samtools_calls_the_same_bases() {
    let lines = [
        (0, "c", 1, "2M2I4M1I2M", "ACTTGTACGGT"),
        (0, "c", 1, "2M2I6M", "ACTTGTACGT"),
        (0, "c", 1, "8M", "ACGTACGT"),
        (0, "c", 9, "2M2D4M", "ACACGT"),
        (16, "c", 9, "2M2D4M", "ACACGT"),
        (0, "c", 9, "8M", "AGGTACGA"),
        (0x400, "c", 9, "8M", "TTTTTTTT"),
        (0, "c", 9, "4S3M", "TTTTACG"),
        (0, "d", 2, "3M", "AGT"),
        (0, "d", 2, "3M", "AAG"),
        (0, "d", 2, "3M", "ACT"),
    ];
    let expected = ["c ACTTGTACGTACGACGTNNNN", "empty NNNN", "d NAATNNNN"];
    let (found, _) = consensus(sam(&lines), REFERENCE, "", 6).unwrap();
    assert_eq!(found, expected);
    assert_eq!(consensus(bam(&sam(&lines)), REFERENCE, "", 6).unwrap().0, expected);
}

/// A SAM file as BAM.
fn bam(text: &str) -> Vec<u8> {
    use noodles::sam::alignment::io::Write as _;

    let mut reader = noodles::sam::io::Reader::new(text.as_bytes());
    let header = reader.read_header().unwrap();
    let mut writer = noodles::bam::io::Writer::new(Vec::new());
    writer.write_header(&header).unwrap();
    for record in reader.record_bufs(&header) {
        writer.write_alignment_record(&header, &record.unwrap()).unwrap();
    }
    writer.try_finish().unwrap();
    writer.into_inner().into_inner()
}

#[test]
fn cram_gives_the_consensus_of_the_reads_that_it_was_made_from() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specimens/alignment");
    let reference = folder.join("cram.fa");
    let found = ["cram.sam", "needs_reference.cram"].map(|name| {
        let reader =
            Reader::open_with_reference(&folder.join(name), Some(&reference), Filters::default()).unwrap();
        let options = Options { reference: reference.clone(), min_depth: 1, below: Below::Unknown };
        let mut consensus = Consensus::new(reader, &reference, options, false).unwrap();
        let mut found = Vec::new();
        while let Some(part) = consensus.next_part().unwrap() {
            if let Part::Bases(bases) = part {
                found.extend_from_slice(bases);
            }
        }
        (String::from_utf8(found).unwrap(), consensus.used(), consensus.unplaced())
    });
    assert!(found[0].1.records > 10, "{:?}", found[0]);
    assert_eq!(found[0], found[1]);
}
