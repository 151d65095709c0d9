//! Every format and way to name files: the same bases come out, whatever they were wrapped in.

use std::io::{Read, Write};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Scratch, data, stderr};

/// `genomill run` on one ingest stage, which must succeed; its manifest.
fn manifest(scratch: &Scratch) -> Value {
    scratch.ran(&[]);
    serde_json::from_slice(&std::fs::read(scratch.artifact("raw/manifest.json")).unwrap()).unwrap()
}

fn flow(sources: &str) -> String {
    format!("name: flow\nstages:\n  raw: {{uses: ingest, sources: [{sources}]}}\n")
}

/// The bytes of the artifact's tables.
fn tables(scratch: &Scratch) -> [Vec<u8>; 2] {
    ["records", "sequence-000000000000"]
        .map(|name| std::fs::read(scratch.artifact(&format!("raw/{name}.parquet"))).unwrap())
}

/// Why a run fails.
fn failure(scratch: &Scratch) -> String {
    let output = scratch.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(!scratch.artifact("raw").exists(), "an artifact was left");
    stderr(&output)
}

/// Phage lambda in lines of 60 bases, named `lambda`.
fn lambda() -> String {
    let mut text = String::new();
    let file = std::fs::File::open(data("phage_lambda.fa.gz")).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    let bases: String = text.lines().skip(1).collect();
    let lines: Vec<&str> =
        bases.as_bytes().chunks(60).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!(">lambda\n{}\n", lines.join("\n"))
}

#[test]
fn wrappers_and_standard_input_give_the_same_tables() {
    let text = lambda();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let xz = {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let plain = Scratch::new(&flow("{fasta: x.fa}"));
    std::fs::write(plain.path("x.fa"), &text).unwrap();
    manifest(&plain);
    for (name, bytes) in [("x.fa.gz", gzip), ("x.fa.zst", zstd), ("x.fa.xz", xz)] {
        let scratch = Scratch::new(&flow(&format!("{{fasta: {name}}}")));
        std::fs::write(scratch.path(name), bytes).unwrap();
        manifest(&scratch);
        assert!(tables(&scratch) == tables(&plain), "{name}");
    }
    let piped = Scratch::new(&flow("{fasta: '-', name: x}"));
    for _ in 0..2 {
        let mut run = piped.command("run", &[]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        run.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stderr(&output).contains("1 ran, 0 reused"), "{}", stderr(&output));
        assert!(tables(&piped) == tables(&plain));
    }
}

#[test]
fn regions_keep_their_coordinates_with_and_without_an_index() {
    let text = lambda();
    let flow = "
name: flow
stages:
  raw:     {uses: ingest, sources: [{fasta: x.fa, regions: {bed: x.bed, intervals: ['lambda:40000-41000'], flank: 50}}]}
  clean:   {uses: clean, from: raw}
  split:   {uses: split, from: clean}
  windows: {uses: chunk, from: split, window: 500}
  bpe:     {uses: tokenizer, model: nucleotide}
  tokens:  {uses: tokenize, from: windows, tokenizer: bpe}
  shards:  {uses: shard, from: tokens, context: 64}
";
    let mut all = Vec::new();
    for indexed in [false, true] {
        let scratch = Scratch::new(flow);
        std::fs::write(scratch.path("x.fa"), &text).unwrap();
        std::fs::write(scratch.path("x.bed"), "lambda\t2000\t3000\nlambda\t0\t1000\nlambda\t2500\t4000\n")
            .unwrap();
        if indexed {
            std::fs::write(scratch.path("x.fa.fai"), "lambda\t48502\t8\t60\t61\n").unwrap();
        }
        let manifest = manifest(&scratch);
        // 0-1050, 1950-4050 and 39950-41050.
        assert_eq!(manifest["counts"]["bases_in"], 48_502);
        assert_eq!(manifest["counts"]["bases_out"], 1050 + 2100 + 1100);
        assert_eq!(manifest["counts"]["dropped"]["outside the regions"], 48_502 - 4250);
        all.push((tables(&scratch), scratch.contents()));
        let shards = scratch.artifact("shards");
        let verify = |arguments: &[&str]| {
            crate::support::genomill().arg("shards").args(arguments).arg(&shards).output().unwrap()
        };
        let output = verify(&["verify", "--against", scratch.path("x.fa").to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert!(all[0] == all[1]);
}

#[test]
fn regions_that_do_not_fit_are_refused_with_a_way_out() {
    let fasta = ">1 x\nACGTACGTAC\n>MT\nACGT\n";
    for (regions, more, expected) in [
        ("{intervals: ['chr1:0-5', chrM]}", "", "cannot take regions of `chr1` (in `intervals`): "),
        (
            "{intervals: ['chr1:0-5', chrM]}",
            "",
            "`rename: {\"1\": \"chr1\", \"MT\": \"chrM\"}` in this source",
        ),
        ("{bed: x.bed}", "", "cannot take `1:5-11` ("),
        ("{bed: x.bed}", "", "x.bed`, line 2): `1` of "),
        ("{gff: x.gff3, features: [CDS]}", "", "found no feature `CDS`"),
        ("{intervals: ['chr1:0-5']}", ", rename: {\"2\": chr1}", "has no sequence `2`"),
        ("{intervals: ['1:0-5']}", ", rename: {\"1\": MT}", "the name of another"),
    ] {
        let scratch = Scratch::new(&flow(&format!("{{fasta: x.fa, regions: {regions}{more}}}")));
        std::fs::write(scratch.path("x.fa"), fasta).unwrap();
        std::fs::write(scratch.path("x.bed"), "1\t0\t5\n1\t5\t11\n").unwrap();
        std::fs::write(scratch.path("x.gff3"), "1\tx\tgene\t1\t5\t.\t+\t.\t.\n").unwrap();
        let message = failure(&scratch).replace("\n  │ ", " ").replace("  ", " ");
        let flat: String = message.split_whitespace().collect::<Vec<_>>().join(" ").replace("│ ", "");
        assert!(flat.contains(expected), "{expected}: {flat}");
    }
    let renamed = "{fasta: x.fa, regions: {intervals: ['chr1:0-5', chrM]}, rename: {'1': chr1, MT: chrM}}";
    let scratch = Scratch::new(&flow(renamed));
    std::fs::write(scratch.path("x.fa"), fasta).unwrap();
    assert_eq!(manifest(&scratch)["counts"]["bases_out"], 9);
}

#[test]
fn folders_patterns_and_tables_give_the_files_that_they_name() {
    let write = |scratch: &Scratch| {
        std::fs::create_dir(scratch.path("in")).unwrap();
        for (name, bases) in [("in/b.fa", "ACGT"), ("in/a.fasta", "GG"), ("in/notes.txt", "no bases")] {
            std::fs::write(scratch.path(name), format!(">c\n{bases}\n")).unwrap();
        }
        std::fs::write(
            scratch.path("in/s.csv"),
            "path,name,weight,taxonomy\na.fasta,a,0.5,Fungi\nb.fa,b,,\n",
        )
        .unwrap();
    };
    let mut all = Vec::new();
    for source in ["{fasta: in/}", "{fasta: 'in/*.fa*'}", "{table: in/s.csv}"] {
        let scratch = Scratch::new(&flow(source));
        write(&scratch);
        let manifest = manifest(&scratch);
        let names: Vec<&str> = manifest["details"]["sources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "b"], "{source}");
        if source.contains("table") {
            assert_eq!(manifest["details"]["sources"][0]["weight"], 0.5);
            assert_eq!(manifest["details"]["sources"][0]["taxonomy"], "Fungi");
        }
        all.push(tables(&scratch));
        assert!(scratch.ran(&[]).is_empty(), "nothing changed");
        std::fs::write(scratch.path("in/b.fa"), ">c\nTTTT\n").unwrap();
        assert_eq!(scratch.ran(&[]), ["raw"], "a file changed");
    }
    assert!(all[0] == all[1] && all[1] == all[2]);
    let scratch = Scratch::new(&flow("{fasta: in/}"));
    write(&scratch);
    manifest(&scratch);
    std::fs::rename(scratch.path("in/b.fa"), scratch.path("in/d.fa")).unwrap();
    assert_eq!(scratch.ran(&[]), ["raw"], "a file has another name");
}

#[test]
fn pairs_of_fastq_are_filtered_and_named() {
    let scratch = Scratch::new(&flow(
        "{fastq: r_1.fq, mates: r_2.fq, quality: {min_base_quality: 20, min_mean_quality: 10}}",
    ));
    std::fs::write(scratch.path("r_1.fq"), "@a/1\nACGT\n+\nII+I\n@b\nGGGG\n+\n####\n").unwrap();
    std::fs::write(scratch.path("r_2.fq"), "@a/2\nTTT\n+\nIII\n@b 2:N:0\nCC\n+\nII\n").unwrap();
    let manifest = manifest(&scratch);
    assert_eq!(manifest["counts"]["bases_in"], 13);
    assert_eq!(manifest["counts"]["dropped"]["read: low_mean_quality"], 4);
    assert_eq!(manifest["details"]["sources"][0]["records"], 3);
    assert_eq!(manifest["details"]["sources"][0]["low_quality"], 1);
    assert_eq!(manifest["details"]["sources"][0]["ambiguous"], 1);
    std::fs::write(scratch.path("r_2.fq"), "@a/2\nTTT\n+\nIII\n").unwrap();
    let output = scratch.run(&[]);
    assert!(stderr(&output).contains("cannot pair"), "{}", stderr(&output));
}

#[test]
fn bad_records_are_skipped_on_request_and_listed() {
    let files = [
        ("{fasta: x.fa}", "x.fa", ">a\nACGT\n>b\n>c\nAC-T\n>d\nGG\n", 2, 6),
        ("{fastq: x.fq}", "x.fq", "@a\nACGT\n+\nIIII\n@b\nAC\n+\nI\n@c\nGG\n+\nII\n", 1, 6),
        (
            "{bam: x.sam}",
            "x.sam",
            "@HD\tVN:1.6\n@SQ\tSN:r\tLN:9\na\t0\tr\t1\t9\t4M\t*\t0\t0\tACGT\t*\nb\t0\tr\t1\t9\t4Q\t*\t0\t0\tACGT\t*\n\
             c\t0\tr\t1\t9\t2M\t*\t0\t0\tGG\t*\n",
            1,
            6,
        ),
    ];
    for (source, name, text, skipped, bases) in files {
        let scratch = Scratch::new(&flow(source));
        std::fs::write(scratch.path(name), text).unwrap();
        assert!(failure(&scratch).contains("cannot read"), "{name}");
        scratch.write(&flow(source).replace("sources:", "on_bad_record: skip, sources:"));
        let manifest = manifest(&scratch);
        assert_eq!(manifest["counts"]["other"]["bad records skipped"], skipped, "{name}");
        assert_eq!(manifest["details"]["skipped"].as_array().unwrap().len(), skipped, "{name}");
        assert_eq!(manifest["counts"]["bases_out"], bases, "{name}");
        assert_eq!(manifest["counts"]["other"]["records"], 2, "{name}");
    }
}

/// 9,741,545 bases as a naive script in another language counts them: the coding sequences of the yeast annotation, each
/// with 100 bases on either side, merged and cut at the ends of the chromosomes.
#[test]
fn coding_sequences_of_yeast_are_taken_under_the_names_of_the_annotation() {
    let numbers = [
        "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI",
    ];
    let pairs: Vec<String> = numbers.iter().map(|n| format!("chr{n}: {n}")).collect();
    let (fasta, gff) = (data("yeast_sacCer3.fa.gz"), data("yeast_R64-1-1.99.gff3.gz"));
    let source = |rename: &str| {
        format!(
            "{{fasta: {}, regions: {{gff: {}, features: [CDS], flank: 100}}, rename: {{{rename}}}}}",
            fasta.display(),
            gff.display()
        )
    };
    let scratch = Scratch::new(&flow(&source(&pairs.join(", "))));
    let message = failure(&scratch).split_whitespace().collect::<Vec<_>>().join(" ").replace("│ ", "");
    assert!(message.contains("`rename: {\"chrM\": \"Mito\"}` in this source"), "{message}");
    scratch.write(&flow(&source(&(pairs.join(", ") + ", chrM: Mito"))));
    let manifest = manifest(&scratch);
    assert_eq!(manifest["counts"]["bases_in"], 12_157_105);
    assert_eq!(manifest["counts"]["bases_out"], 9_741_545);
}

/// As `samtools view -F 0xF00 -L` counts reads and bases, and a naive script the bases of a quality below 20.
#[test]
fn reads_of_yeast_are_those_that_samtools_gives() {
    let bam = data("yeast_atac_sacCer3.bam");
    let run = |more: &str| {
        let scratch = Scratch::new(&flow(&format!("{{bam: {}{more}}}", bam.display())));
        manifest(&scratch)
    };
    let all = run(", reads: {min_base_quality: 20}");
    assert_eq!(all["counts"]["other"]["records"], 88_985);
    assert_eq!(all["counts"]["bases_out"], 4_398_325);
    assert_eq!(all["details"]["sources"][0]["low_quality"], 65_768);
    let reverse = run(", reads: {required_flags: 16, excluded_flags: 4}");
    assert_eq!(reverse["counts"]["other"]["records"], 44_441);
    let regions =
        run(", regions: {intervals: ['chrIV:312000-314000', 'chrIV:1266000-1267000', 'chrV:0-100000']}");
    assert_eq!(regions["counts"]["other"]["records"], 3225);
    assert_eq!(regions["counts"]["bases_out"], 159_992);
    assert_eq!(regions["counts"]["bases_in"], 4_398_325);
}

#[test]
fn a_consensus_takes_the_place_of_reads() {
    let source = "{bam: x.sam, consensus: {reference: ref.fa, below: reference}, rename: {c: chrC}}";
    let scratch = Scratch::new(&flow(source));
    let read = |flags: u16, start: u64, cigar: &str, bases: &str| {
        format!("r\t{flags}\tc\t{start}\t9\t{cigar}\t*\t0\t0\t{bases}\t*\n")
    };
    let head = "@HD\tVN:1.6\n@SQ\tSN:c\tLN:12\n@SQ\tSN:gone\tLN:2\n";
    let reads = [
        read(0, 2, "3M1D2M", "CCCAA"),
        read(0x400, 2, "3M", "GGG"),
        read(16, 9, "2M2I2M", "GTTTGT"),
        "r\t0\tgone\t1\t9\t1M2D1M\t*\t0\t0\tAA\t*\nu\t4\t*\t0\t0\t*\t*\t0\t0\tACGTA\t*\n".to_owned(),
    ];
    std::fs::write(scratch.path("x.sam"), head.to_owned() + &reads.concat()).unwrap();
    std::fs::write(scratch.path("ref.fa"), ">c\nacgtacgtacgt\n>gone\nGGGG\n").unwrap();
    let manifest = manifest(&scratch);
    let counts = &manifest["counts"];
    assert_eq!((&counts["bases_out"], &counts["bases_in"]), (&15.into(), &(15 + 3 + 5).into()));
    assert_eq!(counts["dropped"], serde_json::json!({"read: duplicate": 3, "read: unmapped": 5}));
    // ACCC-AAT + GTTTGT; of `gone`, A--A.
    let plain = Scratch::new(&flow("{name: x, fasta: x.fa}"));
    std::fs::write(plain.path("x.fa"), ">chrC\nACCCAATGTTTGT\n>gone\nAA\n").unwrap();
    plain.ran(&[]);
    assert!(tables(&scratch) == tables(&plain), "as if the consensus had been written");
    for (more, expected) in [
        ("{bam: x.sam, consensus: {reference: ref.fa, min_depth: 0}}", "has a `min_depth` of 0"),
        (
            "{fasta: ref.fa, consensus: {reference: ref.fa}}",
            "has `consensus`, which only `bam` and `cram` take",
        ),
        ("{bam: x.sam, consensus: {reference: ref.fa}, regions: {intervals: [c]}}", "move places"),
    ] {
        scratch.write(&flow(more));
        let output = scratch.run(&[]);
        let message = stderr(&output).split_whitespace().collect::<Vec<_>>().join(" ").replace("│ ", "");
        assert!(message.contains(expected), "{message}");
    }
    let unsorted = reads[2].clone() + &reads[0];
    std::fs::write(scratch.path("x.sam"), head.to_owned() + &unsorted).unwrap();
    let other = Scratch::new(&flow(source));
    std::fs::copy(scratch.path("x.sam"), other.path("x.sam")).unwrap();
    std::fs::copy(scratch.path("ref.fa"), other.path("ref.fa")).unwrap();
    let message = failure(&other).split_whitespace().collect::<Vec<_>>().join(" ").replace("│ ", "");
    assert!(
        message.contains("`r` lies at c:1, after one at c:8; expected reads sorted by coordinate"),
        "{message}"
    );
}
