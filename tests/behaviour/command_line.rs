//! Exit codes, help, and the commands that only look.

use crate::support::{Scratch, genomill, root, stderr};

#[test]
fn exit_codes_tell_success_failure_and_usage_apart() {
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--help"], 0, ""),
        (&["run", "--help"], 0, ""),
        (&[], 2, "Usage"),
        (&["run", "x.yaml", "--forse", "a"], 2, "--force"),
        (&["run", "x.yaml", "--jobs", "0"], 2, "--jobs"),
        (&["run", "x.yaml", "--set", "nonsense"], 2, "expected stage.key=value, found `nonsense`"),
        (&["run", "no-such.yaml"], 1, "cannot read `no-such.yaml`: no such file or directory"),
    ];
    for (arguments, code, message) in cases {
        let output = genomill().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let command = format!("{} schema workflow | head -c 10", env!("CARGO_BIN_EXE_genomill"));
    let output =
        std::process::Command::new("bash").args(["-o", "pipefail", "-c", &command]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn shards_are_shown_and_verified() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    let shards = scratch.artifact("shards");
    let shown = |arguments: &[&str]| {
        let output = genomill().arg("shards").args(arguments).arg(&shards).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(shown(&["info"]).contains("genomill/shard/1  context 64 tokens of 2 bytes"));
    assert!(shown(&["head", "-n", "1"]).contains("NC_001416.1|:0-"));
    assert!(shown(&["verify"]).contains("all as the manifest says"));
}

#[test]
fn shards_are_exported_once_and_whole() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    let export = |to: &[&str], out: &str| {
        let mut command = genomill();
        command.args(["shards", "export", "-o"]).arg(scratch.path(out)).arg(scratch.artifact("shards"));
        command.arg("--to").args(to).output().unwrap()
    };
    for to in ["megatron", "olmo-core", "mds", "hf", "npy"] {
        let output = export(&[to], to);
        assert!(output.status.success(), "{to}: {}", stderr(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("train: "), "{to}");
        assert!(scratch.path(to).join("manifest.json").is_file(), "{to}");
    }
    let output = export(&["npy"], "npy");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("it exists already"), "{}", stderr(&output));
    assert!(stderr(&export(&["npy", "--zstd"], "other")).contains("--zstd goes with --to mds only"));
    assert!(!scratch.path("other").exists());
}

#[test]
fn a_token_row_decodes_to_the_genome_at_its_provenance() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    let set = genomill::shard::ShardSet::open(&scratch.artifact("shards")).unwrap();
    let tokenizer = set.tokenizer().unwrap();
    let genome = lambda_bases();
    let mut bases = 0;
    for (name, split) in &set.details.splits {
        let rows = set.rows(name).unwrap();
        let segments = split.files.iter().flat_map(|file| set.segments(file).unwrap());
        for (row, segments) in (0..).zip(segments) {
            let tokens = rows.get(row).to_vec();
            for s in segments {
                let mut found = Vec::new();
                tokenizer
                    .decode_into(&tokens[s.token_start as usize..s.token_end as usize], &mut found)
                    .unwrap();
                let mut expected =
                    genome[usize::try_from(s.start).unwrap()..usize::try_from(s.end).unwrap()].to_vec();
                if s.strand == genomill::units::Strand::Reverse {
                    genomill::sequence::complement::reverse_complement(&mut expected);
                }
                assert_eq!(found, expected, "row {row} of {name}: {s:?}");
                bases += found.len() as u64;
            }
        }
    }
    assert_eq!(bases, set.details.splits.values().map(|split| split.bases).sum::<u64>());
}

/// Phage lambda, read without our FASTA reader.
fn lambda_bases() -> Vec<u8> {
    use std::io::Read;
    let file = std::fs::File::open(root().join("workflows/data/phage_lambda.fa.gz")).unwrap();
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text.lines().skip(1).flat_map(|line| line.trim().to_ascii_uppercase().into_bytes()).collect()
}

#[test]
fn tokenizers_are_shown_and_used() {
    let file = root().join("workflows/data/dnabert2_tokenizer.json");
    let run = |arguments: &[&str]| {
        let (command, rest) = arguments.split_first().unwrap();
        let output = genomill().args(["tokenizer", command]).arg(&file).args(rest).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
    };
    assert!(run(&["info"]).1.contains("vocabulary   4096"));
    let (_, ids, _) = run(&["encode", "ACGTACGTTTGACA"]);
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert_eq!(run(&[&["decode"], ids.as_slice()].concat()).1, "ACGTACGTTTGACA\n");
    let (code, _, message) = run(&["encode", "ACG!"]);
    assert_eq!(
        (code, message.as_str()),
        (Some(1), "error: cannot encode line 1: `!` at base 3 is no IUPAC code\n")
    );
}

#[test]
fn a_tokenizer_is_trained_from_fasta_and_tells_what_it_does() {
    let scratch = Scratch::lambda();
    let train = |pieces: &str, output: &str| {
        let mut command = genomill();
        command.current_dir(scratch.path("")).args(["tokenizer", "train", "lambda.fa.gz", "--vocab", "64"]);
        command.args(["--pieces", pieces, "-o", output]).output().unwrap()
    };
    let output = train("fixed:1000", "a.json");
    assert!(stderr(&output).contains("64 tokens learnt from 48502 bases"), "{}", stderr(&output));
    let shown = genomill()
        .current_dir(scratch.path(""))
        .args(["tokenizer", "info", "a.json", "--on", "lambda.fa.gz"])
        .output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    assert!(shown.contains("vocabulary   64") && shown.contains("on 48502 bases"), "{shown}");
    assert_eq!(train("every", "b.json").status.code(), Some(2));
    assert!(!scratch.path("b.json").exists());
}

/// `genomill tokenizer train ARGUMENTS -o OUTPUT` in a folder of its own.
fn train(scratch: &Scratch, arguments: &[&str], output: &str) -> std::process::Output {
    let mut command = genomill();
    command.current_dir(scratch.path("")).args(["tokenizer", "train"]).args(arguments).args(["-o", output]);
    command.output().unwrap()
}

#[test]
fn options_of_training_are_honoured_and_reported() {
    let scratch = Scratch::lambda();
    let masked = lambda_bases();
    let half = masked.len() / 2;
    let text = [b">a\n", masked[..half].to_ascii_lowercase().as_slice(), &masked[half..], b"NNNN\n"].concat();
    std::fs::write(scratch.path("masked.fa"), text).unwrap();
    let special = "[UNK],[PAD],[EOS]";
    let cases: [(&[&str], &str); 9] = [
        (
            &[],
            "64 tokens learnt from 48502 of 48506 bases (100.0 %; left out: 4 codes other than A, C, G and T)",
        ),
        (
            &["--soft-masked", "exclude"],
            "learnt from 24251 of 48506 bases (50.0 %; left out: 4 codes other than A, C, G and T; 24251 soft-masked)",
        ),
        (&["--soft-masked", "0"], "24251 soft-masked"),
        (&["--sample", "20kb"], "sampled out, `sample` is 20000 bases"),
        (&["--memory", "1MB", "--sample", "1Gb"], "nothing to train on: learnt from 0 of 48506"),
        (&["--memory", "1MB"], "sampled out, `memory` is 1000000 bytes"),
        (&["--alphabet", "acgt", "--special-tokens", special, "--vocab", "16"], "16 tokens learnt"),
        (&["--alphabet", "acgt", "--special-tokens", "[PAD]"], "one for other codes"),
        (&["--min-frequency", "1000000"], "23 tokens learnt"),
    ];
    for (options, expected) in cases {
        let output = train(
            &scratch,
            &[&["masked.fa", "--vocab", "64"][..=usize::from(!options.contains(&"--vocab")) * 2], options]
                .concat(),
            "t.json",
        );
        assert!(stderr(&output).contains(expected), "{options:?}: {}, expected {expected}", stderr(&output));
    }
    let output = train(
        &scratch,
        &["lambda.fa.gz", "--vocab", "300", "--max-token-length", "3", "--threads", "1"],
        "t.json",
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let longest = genomill::tokenizer::open(&scratch.path("t.json")).unwrap();
    assert!((0..longest.vocabulary_size()).all(|id| longest.bases(id) <= 3));
    for (option, value, expected) in [
        ("--sample", "2X", "expected bases such as"),
        ("--memory", "much", "expected bytes such as"),
        ("--soft-masked", "2", "a share from 0 to 1"),
        ("--threads", "0", "1..=4096"),
    ] {
        let output = train(&scratch, &["lambda.fa.gz", option, value], "no.json");
        assert_eq!(output.status.code(), Some(2), "{option} {value}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    assert!(!scratch.path("no.json").exists());
}

#[test]
fn training_does_not_depend_on_the_order_of_files_nor_on_how_they_come() {
    use std::io::Write;
    let scratch = Scratch::lambda();
    let bases = lambda_bases();
    std::fs::write(scratch.path("a.fa"), [b">a\n", &bases[..20_000]].concat()).unwrap();
    std::fs::write(scratch.path("b.fa"), [b">b\n", &bases[20_000..]].concat()).unwrap();
    let options = ["--vocab", "200", "--pieces", "fixed:100", "--sample", "30k"];
    let made = |files: &[&str], name: &str| {
        let output = train(&scratch, &[files, &options].concat(), name);
        assert!(output.status.success(), "{}", stderr(&output));
        std::fs::read(scratch.path(name)).unwrap()
    };
    let expected = made(&["a.fa", "b.fa"], "1.json");
    assert!(made(&["b.fa", "a.fa"], "2.json") == expected);
    let mut command = genomill();
    command
        .current_dir(scratch.path(""))
        .args(["tokenizer", "train", "a.fa", "-"])
        .args(options)
        .args(["-o", "3.json"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&std::fs::read(scratch.path("b.fa")).unwrap()).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(std::fs::read(scratch.path("3.json")).unwrap() == expected);
}
