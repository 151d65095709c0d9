//! Bad input files: one message that says file, place, found and expected; exit code 1; nothing that looks finished.

use std::process::Command;

use crate::support::{Scratch, data, root, stderr};

#[test]
fn every_bad_specimen_is_refused_with_its_message_and_leaves_no_artifact() {
    let index = std::fs::read_to_string(root().join("tests/specimens/specimens.tsv")).unwrap();
    let mut refused = 0;
    for line in index.lines().skip(1).filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let (file, format, label) = (fields[0], fields[1], fields[2]);
        let key = match format {
            "fasta" => "fasta",
            "bam" | "sam" | "alignment" => "bam",
            "fastq" | "two_bit" | "genbank" => format,
            _ => continue,
        };
        let specimen = root().join("tests/specimens").join(file);
        let yaml = format!(
            "name: flow\nstages:\n  raw: {{uses: ingest, sources: [{{{key}: {}}}]}}\n",
            specimen.display()
        );
        let scratch = Scratch::new(&yaml);
        let output = scratch.run(&[]);
        if label == "valid" {
            assert!(output.status.success(), "{file}: {}", stderr(&output));
            continue;
        }
        refused += 1;
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{file}: {message}");
        assert!(message.contains("error: stage `raw` failed: cannot "), "{file}: {message}");
        assert!(message.contains(specimen.file_name().unwrap().to_str().unwrap()), "{file}: {message}");
        assert!(!scratch.artifact("raw").exists(), "{file} left an artifact");
        assert!(!scratch.artifact(".staging").exists(), "{file} left a staging folder");
    }
    assert!(refused > 20, "only {refused} bad specimens were tried");
}

#[test]
fn reads_equal_what_samtools_gives() {
    let Ok(samtools) = Command::new("samtools")
        .args(["view", "-c", "-F", "0xF00", "-q", "30"])
        .arg(data("yeast_atac_sacCer3.bam"))
        .output()
    else {
        eprintln!("skipped: samtools is not installed");
        return;
    };
    let expected: u64 = String::from_utf8_lossy(&samtools.stdout).trim().parse().unwrap();
    let bam = data("yeast_atac_sacCer3.bam");
    let yaml = format!(
        "name: flow\nstages:\n  raw: {{uses: ingest, sources: [{{bam: {}, reads: {{min_mapping_quality: 30, unmapped: false}}}}]}}\n",
        bam.display()
    );
    let scratch = Scratch::new(&yaml);
    scratch.ran(&[]);
    let manifest = std::fs::read(scratch.artifact("raw/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let mapped = manifest["counts"]["other"]["records"].as_u64().unwrap();
    let unknown_quality = 0;
    assert_eq!(mapped, expected + unknown_quality);
}
