//! Models from outside: what they cost, training, export, scores and samples. Needs the trainer.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use crate::support::{LAMBDA, Scratch, data, genomill, root, stderr};

/// Phage lambda with a small model, trained for some steps.
pub fn trained(keys: &str) -> Scratch {
    let model = format!(
        "  model:   {{uses: train, from: shards, preset: olmo-300k, duration: 6 steps, batch_rows: 4, log_every: 2 steps{keys}}}\n"
    );
    let scratch = Scratch::new(&[LAMBDA, model.as_str()].concat());
    std::fs::copy(data("phage_lambda.fa.gz"), scratch.path("lambda.fa.gz")).unwrap();
    scratch
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn info_counts_what_a_preset_costs() {
    let info = ["model", "info", "olmo-1b", "--vocab", "50280", "--context", "2048"];
    let text = stdout(&genomill().args(info).output().unwrap());
    for expected in ["1,176,764,416\n", "4,707,057,664 bytes\n", "9,414,115,328 bytes\n"] {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }
    let more = ["--json", "--mfu", "0.5", "--peak", "100", "--tokens", "1000000000", "--devices", "2"];
    let json = stdout(&genomill().args(info).args(more).output().unwrap());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let (rate, flop) =
        (json["tokens_per_second"].as_f64().unwrap(), json["flop"]["per_token"].as_f64().unwrap());
    assert!((rate * flop / 50e12 - 1.0).abs() < 1e-9);
    assert!((json["seconds"].as_f64().unwrap() * 2.0 * rate / 1e9 - 1.0).abs() < 1e-9, "{json}");
    let peers: [(&str, &[&str]); 2] = [
        (
            "hyenadna-tiny-1k",
            &["networks that make filters", "in long convolutions, by transforms", "parameters"],
        ),
        ("dnabert2-117m", &["norms and biases", "117,074,176\n", "in attention"]),
    ];
    for (name, expected) in peers {
        let vocabulary = if name.starts_with("hyena") { "12" } else { "4096" };
        let info = ["model", "info", name, "--vocab", vocabulary, "--context", "1024"];
        let text = stdout(&genomill().args(info).output().unwrap());
        for line in expected {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
        assert!(!text.contains("checkpointing"), "they cannot do that: {text}");
    }
    for (wrong, expected) in [
        (
            ["model", "info", "olmo-2b", "--vocab", "5", "--context", "8"],
            "expected one of olmo-300k, olmo-1m",
        ),
        (["model", "info", "olmo-1b", "--vocab", "0", "--context", "8"], "0 is not in 1..=16777216"),
    ] {
        let output = genomill().args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn check_fails_above_the_tolerance() {
    let folder = root().join("tests/golden/olmo2_gqa");
    let check = |tolerance: &str| {
        genomill().args(["model", "check", "--tolerance", tolerance]).arg(&folder).output().unwrap()
    };
    assert!(stdout(&check("5e-5")).contains("compared      2 rows of 96 tokens"));
    let output = check("1e-12");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("expected at most 1.000e-12"), "{}", stderr(&output));
    let hyena =
        genomill().args(["model", "check"]).arg(root().join("tests/golden/hyenadna")).output().unwrap();
    let text = stdout(&hyena);
    assert!(text.contains("compared      2 rows of 7 tokens\n") && text.contains("\nhidden_L258 "), "{text}");
}

#[test]
fn published_weights_are_taken_over_or_refused_by_name() {
    let golden = root().join("tests/golden/hyenadna");
    let scratch = tempfile::tempdir().unwrap();
    let import = |file: &std::path::Path, more: &[&str]| {
        let mut command = genomill();
        command.current_dir(scratch.path()).args(["model", "import", "--from", "hyenadna", "-o", "hyena"]);
        command.args(more).arg(file).output().unwrap()
    };
    let refused = |output: Output, expected: &str| {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "no {expected} in {}", stderr(&output));
    };
    let (weights, damaged) = (golden.join("model.safetensors"), scratch.path().join("damaged"));
    let bytes = std::fs::read(&weights).unwrap();
    for bytes in [&bytes[..bytes.len() / 2], &[&(1_u64 << 60).to_le_bytes(), &bytes[8..]].concat()] {
        std::fs::write(&damaged, bytes).unwrap();
        refused(import(&damaged, &[]), "damaged` is no readable safetensors file");
    }
    let other = "\n  `backbone.layers.1.norm2.bias` is F32 [64], expected F32, F16 or BF16 [256]\n";
    refused(import(&weights, &["--preset", "tiny-1k-d256"]), other);
    assert!(!scratch.path().join("hyena").exists());

    let text = stdout(&import(&weights, &[]));
    assert!(
        text.ends_with("hyena: 2 layers of width 64 for at most 258 tokens, 128,512 parameters\n"),
        "{text}"
    );
    refused(import(&weights, &[]), "it exists already");
    std::fs::copy(golden.join("forward.safetensors"), scratch.path().join("hyena/forward.safetensors"))
        .unwrap();
    let check = genomill().args(["model", "check"]).arg(scratch.path().join("hyena")).output().unwrap();
    assert!(stdout(&check).contains("\nlm_logits_L7 "));
}

#[test]
fn published_weights_of_a_masked_model_are_taken_over_or_refused_by_name() {
    let (golden, scratch) = (root().join("tests/golden/dnabert2"), tempfile::tempdir().unwrap());
    let import = |file: &std::path::Path, more: &[&str]| {
        let mut command = genomill();
        command.current_dir(scratch.path()).args(["model", "import", "--from", "dnabert2", "-o", "bert"]);
        command.args(more).arg(file).output().unwrap()
    };
    let refused = |output: Output, expected: &str| {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "no {expected} in {}", stderr(&output));
    };
    let (weights, damaged) = (golden.join("model.safetensors"), scratch.path().join("damaged"));
    std::fs::write(&damaged, &std::fs::read(&weights).unwrap()[..1000]).unwrap();
    refused(
        import(&damaged, &[]),
        "damaged` does not tell which DNABERT-2 it holds (no config.json beside it",
    );
    refused(import(&damaged, &["--preset", "dnabert2-117m"]), "damaged` is no readable safetensors file");
    refused(
        import(&weights, &["--preset", "dnabert2-117m"]),
        "`bert.encoder.layer.11.mlp.wo.bias` is missing",
    );
    refused(import(&weights, &["--preset", "tiny-1k"]), "--preset: expected one of dnabert2-300k, ");
    let text = stdout(&import(&weights, &[]));
    assert!(text.ends_with("bert: DNABERT-2 of 2 layers of width 72 with 6 heads for 128 ids\n"), "{text}");
}

/// Training, the score of held-out bases, the score of a sequence, the export, and what is not there.
#[test]
fn peers_are_trained_scored_and_exported() {
    let scratch = trained("");
    let yaml = std::fs::read_to_string(scratch.path("flow.yaml")).unwrap();
    let yaml = yaml.replace("model: {bpe: {vocabulary_size: \"${params.vocabulary}\"}}", "model: hyenadna");
    let scores = "  scores:  {uses: evaluate, from: shards, model: model, markov_order: 2}\n";
    let ask = |arguments: &[&str]| {
        let mut command = genomill();
        command.current_dir(scratch.path("")).args(arguments).output().unwrap()
    };
    scratch.file("x.fa", ">a\nACGTTGCAACGT\n");

    scratch.write(&[yaml.replace("olmo-300k", "hyenadna-tiny-1k").as_str(), scores].concat());
    assert!(scratch.run(&[]).status.success());
    let manifest = std::fs::read(scratch.artifact("scores/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let bits = manifest["details"]["evaluations"][0]["model"]["bits_per_base"].as_f64().unwrap();
    assert!((1.5..3.0).contains(&bits), "{bits} bits per base");
    assert!(stdout(&ask(&["score", "work/flow/model", "x.fa"])).lines().count() == 13);
    stdout(&ask(&["model", "export", "work/flow/model", "hyena"]));
    let file = "hyena/model.safetensors";
    let text = stdout(&ask(&["model", "import", "--from", "hyenadna", "-o", "again", file]));
    assert!(
        text.contains("2 layers of width 128 for at most 1026 tokens (tiny-1k), 436,096 parameters"),
        "{text}"
    );
    let from_it = |folder: &str| yaml.replace("preset: olmo-300k", &format!("initialize: {{hf: {folder}}}"));
    scratch.write(&from_it("again"));
    assert_eq!(scratch.ran(&[]), ["model"]);
    scratch.write(&from_it("again").replace("model: hyenadna", "model: nucleotide"));
    let message = stderr(&scratch.run(&[]));
    assert!(message.contains("vocabulary of 23 ids is larger than the embedding of"), "{message}");
    scratch.write(&from_it("again").replace("6 steps", "6 steps, document_mask: true"));
    let message = stderr(&scratch.run(&[]));
    assert!(message.contains("`document_mask` does not go with HyenaDNA: leave it out"), "{message}");
    let error = stderr(&ask(&["generate", "work/flow/model", "--prompt", "ACGT"]));
    assert!(error.contains("this is a HyenaDNA, expected an OLMo"), "{error}");

    scratch.write(&[yaml.replace("olmo-300k", "dnabert2-300k").as_str(), scores].concat());
    let output = scratch.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("it has no bits per base"), "{}", stderr(&output));
    let error = stderr(&ask(&["score", "work/flow/model", "x.fa"]));
    assert!(error.contains("a masked model guesses hidden tokens from both sides"), "{error}");
    stdout(&ask(&["model", "export", "work/flow/model", "bert"]));
    stdout(&ask(&["model", "import", "--from", "dnabert2", "-o", "bert2", "bert/model.safetensors"]));
    scratch.write(&from_it("bert2"));
    assert_eq!(scratch.ran(&[]), ["model"]);
}

/// The files of an encoder lie in the folder itself.
#[test]
fn check_knows_a_dnabert2() {
    let folder = root().join("tests/golden/dnabert2");
    let check = |more: &[&str]| genomill().args(["model", "check"]).args(more).arg(&folder).output().unwrap();
    let text = stdout(&check(&[]));
    for expected in ["compared      3 rows of 40 tokens", "\nlast_hidden ", "\nclassifier_gradients "] {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }
    let output = check(&["--tolerance", "1e-12"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the largest difference is"), "{}", stderr(&output));
}

#[test]
fn an_export_tells_where_the_model_comes_from_and_starts_another_run() {
    let scratch = trained("");
    scratch.ran(&[]);
    let export = |to: &str| {
        let mut command = genomill();
        command.current_dir(scratch.path("")).args(["model", "export", "work/flow/model", "--to", "hf", to]);
        command.output().unwrap()
    };
    stdout(&export("hf"));
    let card = std::fs::read_to_string(scratch.path("hf/README.md")).unwrap();
    assert!(card.contains("| `lambda.fa.gz` | "), "{card}");
    let output = export("hf");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("it exists already"), "{}", stderr(&output));

    let yaml = std::fs::read_to_string(scratch.path("flow.yaml")).unwrap();
    scratch.write(&yaml.replace("preset: olmo-300k", "initialize: {hf: hf}"));
    assert_eq!(scratch.ran(&[]), ["model"]);
    assert_eq!(scratch.ran(&[]), [""; 0]);
    // Another weight is another model.
    let weights = scratch.path("hf/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    assert_eq!(scratch.ran(&[]), ["model"]);
    std::fs::remove_dir_all(scratch.path("hf")).unwrap();
    let message = stderr(&scratch.run(&[]));
    assert!(message.contains("hf/config.json"), "{message}");
}

/// What Slurm sends before time is over (`--signal=USR1@60`).
#[test]
fn a_queues_notice_saves_and_the_rerun_goes_on() {
    let scratch = trained("");
    scratch.ran(&["--until", "shards"]);
    let set = ["--set", "model.duration=400 steps"];
    let mut command = scratch.command("run", &[&set[..], &["--progress", "json"]].concat());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("\"metrics\"")), "training never began");
    assert!(Command::new("kill").args(["-USR1", &child.id().to_string()]).status().unwrap().success());
    let rest = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.contains("told to stop (SIGUSR1)"), "{rest}");
    let message = stderr(&scratch.run(&set));
    assert!(message.contains("model: goes on from step "), "{message}");
    assert!(message.contains("400 steps"), "{message}");
}

#[test]
fn a_model_is_trained_and_scored_within_documents() {
    let scratch = trained("");
    let yaml = std::fs::read_to_string(scratch.path("flow.yaml")).unwrap();
    let scores = "  scores:  {uses: evaluate, from: shards, model: model, markov_order: 2}\n";
    scratch.write(&[yaml.replace("window: 1000", "window: 70"), scores.to_owned()].concat());
    let details = |set: &[&str]| {
        assert!(scratch.run(set).status.success());
        let read = |stage: &str| {
            let manifest = std::fs::read(scratch.artifact(stage).join("manifest.json")).unwrap();
            serde_json::from_slice::<serde_json::Value>(&manifest).unwrap()["details"].clone()
        };
        let model = read("scores")["evaluations"][0]["model"]["bits_per_base"].as_f64().unwrap();
        (read("model")["validation_bits_per_base"].as_f64().unwrap(), model)
    };
    let plain = details(&[]);
    let masked = details(&["--set", "model.document_mask=true"]);
    assert!((plain.0 - masked.0).abs() > 1e-6 && (plain.1 - masked.1).abs() > 1e-6, "{plain:?} {masked:?}");
    let message = stderr(&scratch.run(&["--set", "model.context_warmup={from: 128, over: 3 steps}"]));
    assert!(
        message.contains("`context_warmup.from` is 128: expected the 64 tokens of the rows"),
        "{message}"
    );
}

#[test]
fn a_model_is_asked_for_sequence_and_for_scores() {
    let scratch = trained("");
    scratch.ran(&["--until", "shards"]);
    let mut train = genomill();
    train.current_dir(scratch.path("")).args(["train", "flow.yaml", "--work", "work", "--progress", "plain"]);
    let output = train.output().unwrap();
    assert!(stderr(&output).contains("done: 1 ran, 0 reused"), "{}", stderr(&output));
    let ask = |arguments: &[&str]| {
        let mut command = genomill();
        command
            .current_dir(scratch.path(""))
            .args(&arguments[..1])
            .arg("work/flow/model")
            .args(&arguments[1..]);
        command.output().unwrap()
    };
    let drawn = |more: &[&str]| {
        stdout(&ask(
            &[&["generate", "--prompt", "acgtACGTTT", "--bases", "150", "--count", "2"], more].concat()
        ))
    };
    let sequences = drawn(&[]);
    let lines = sequences.lines().collect::<Vec<_>>();
    assert_eq!(lines.iter().map(|line| line.len()).collect::<Vec<_>>()[1..4], [60, 60, 30], "{sequences}");
    assert!(lines[0].starts_with(">1 step 6, seed 0, after 10 bases") && lines.len() == 8, "{sequences}");
    assert!(lines[1].bytes().all(|base| b"ACGT".contains(&base)) && lines[1] != lines[5], "{sequences}");
    assert_eq!(drawn(&["--no-cache"]), sequences);
    assert_ne!(drawn(&["--seed", "1"]), sequences);
    let greedy = drawn(&["--temperature", "0"]);
    assert_eq!(greedy.lines().nth(1), greedy.lines().nth(5));
    let error = stderr(&ask(&["generate"]));
    assert!(error.contains("so it needs a prompt"), "{error}");
    let error = stderr(&ask(&["generate", "--prompt", "ACX"]));
    assert!(error.contains("--prompt: `X` at base 2 is no IUPAC code"), "{error}");

    scratch.file("x.fa", ">a one\nACGTTGCANNACGT\nggcatt\n>b\nA\n");
    let table = stdout(&ask(&["score", "x.fa"]));
    let rows = table.lines().map(|line| line.split('\t').collect::<Vec<_>>()).collect::<Vec<_>>();
    assert_eq!((rows.len(), &rows[0][..]), (22, &["record", "position", "base", "forward", "reverse"][..]));
    assert_eq!((rows[9][..3].to_vec(), rows[9][3], rows[9][4]), (vec!["a", "8", "N"], ".", "."));
    assert_eq!(rows[1][3], ".", "nothing is said of the first token");
    assert_eq!(rows[20][4], ".", "of the last on the other strand");
    assert!(rows[20][3].parse::<f64>().unwrap() < 0.0 && rows[1][4].parse::<f64>().unwrap() < 0.0);
    assert_eq!(rows[21], ["b", "0", "A", ".", "."]);
    // Sums over the lines of the bedGraph are those over the table.
    let track = stdout(&ask(&["score", "x.fa", "--format", "bedgraph", "--strand", "forward"]));
    let lines = track.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>()).collect::<Vec<_>>();
    let sum = lines.iter().map(|line| {
        let number = |i: usize| line[i].parse::<f64>().unwrap();
        (number(2) - number(1)) * number(3)
    });
    let expected = rows[1..].iter().filter_map(|row| row[3].parse::<f64>().ok()).sum::<f64>();
    assert!((sum.sum::<f64>() - expected).abs() < 1e-3, "{track}");
}

/// A checkpoint at every step, so that the kills hit them too.
#[test]
fn training_that_is_killed_again_and_again_ends_as_if_nobody_had() {
    use genomill::train::checkpoint;
    use std::hash::{BuildHasher, RandomState};
    let keys = ", checkpoint_every: 1 step, keep_checkpoints: 2";
    let (whole, scratch) = (trained(keys), trained(keys));
    let set = ["--set", "model.duration=60 steps"];
    whole.ran(&set);
    scratch.ran(&["--until", "shards"]);
    let drawn = RandomState::new();
    for kill in 0..6_u64 {
        let mut command = scratch.command("run", &[&set[..], &["--progress", "json"]].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let began = lines.any(|line| line.contains("\"metrics\""));
        std::thread::sleep(std::time::Duration::from_micros(drawn.hash_one(kill) % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let part = scratch.artifact(".partial/model");
        let Some(run) = std::fs::read_dir(&part).ok().and_then(|mut runs| runs.next()) else { break };
        if began {
            let found = checkpoint::verify(&run.unwrap().path());
            assert!(found.is_ok(), "kill {kill}: {found:?}");
        }
    }
    scratch.run(&set);
    assert_eq!(scratch.contents(), whole.contents());
}

#[test]
fn a_trace_tells_where_the_time_of_some_steps_goes() {
    let scratch = trained("");
    scratch.ran(&["--until", "shards"]);
    let train = |keys: &[&str]| {
        let mut train = genomill();
        train.current_dir(scratch.path("")).args(["train", "flow.yaml", "--work", "work"]);
        let output =
            train.args(["--progress", "plain", "--trace", "trace.json"]).args(keys).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (file, expected) in [("none/t.json", "there is no folder `none`"), ("work", "`work` is a folder")] {
        let mut train = genomill();
        train.current_dir(scratch.path("")).args(["train", "flow.yaml", "--work", "work", "--trace", file]);
        let output = train.output().unwrap();
        assert!(!output.status.success() && stderr(&output).contains(expected), "{output:?}");
    }
    let said = train(&["--set", "model.duration=4 steps"]);
    assert!(said.contains("no trace: it begins with the step 5 after a start"), "{said}");
    assert!(!scratch.path("trace.json").exists());
    for steps in ["6 steps", "9 steps"] {
        let said = train(&["--set", &format!("model.duration={steps}")]);
        assert!(said.contains("`trace.json` tells where the time of"), "{said}");
        let trace = std::fs::read(scratch.path("trace.json")).unwrap();
        let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
        assert!(!said.contains("ERROR"), "{said}");
        let names =
            trace["traceEvents"].as_array().unwrap().iter().filter_map(|event| event["name"].as_str());
        assert!(names.collect::<Vec<_>>().contains(&"aten::linear"), "{steps}");
    }
}
