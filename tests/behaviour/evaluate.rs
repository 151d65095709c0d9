//! Models scored on tasks, from outside: by the command, within a workflow, and on the leaderboard. Needs the trainer.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::{LAMBDA, Scratch, data, genomill, root, stderr};

/// A task of 120 examples of 48 bases, of which half have a word; the same ones on every machine.
fn task(folder: &Path, name: &str) {
    let mut state = 7_u64;
    let mut draw = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut part = |file: &str, count: usize| {
        let row = |i: usize| {
            let mut bases: String =
                (0..48).map(|_| b"ACGT"[usize::try_from(draw(4)).unwrap()] as char).collect();
            if i % 2 == 1 {
                let at = usize::try_from(draw(30)).unwrap();
                bases.replace_range(at..at + 16, "GATTACAGGATTACAG");
            }
            format!("{bases},{}\n", i % 2)
        };
        let rows: String = (0..count).map(row).collect();
        std::fs::create_dir_all(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join(file), format!("sequence,label\n{rows}")).unwrap();
    };
    part("train.csv", 120);
    part("dev.csv", 40);
    part("test.csv", 40);
}

fn hyena() -> String {
    format!("hyena={}", root().join("tests/golden/hyenadna").display())
}

fn dnabert2(folder: &Path) -> String {
    let golden = root().join("tests/golden/dnabert2");
    std::fs::create_dir_all(folder.join("dnabert2")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden.join(file), folder.join("dnabert2").join(file)).unwrap();
    }
    let kmers = genomill::tokenizer::kmer::Config { k: 3, overlapping: true };
    let kmers = genomill::tokenizer::kmer::Kmer::new(kmers).unwrap();
    std::fs::write(folder.join("dnabert2/tokenizer.json"), genomill::tokenizer::Tokenizer::to_json(&kmers))
        .unwrap();
    "dnabert2".to_owned()
}

fn evaluate(folder: &Path, models: &[&str], more: &[&str]) -> Output {
    let mut command = genomill();
    command.current_dir(folder).arg("evaluate").args(models).args(["-o", "out", "--progress", "none"]);
    command.args(more).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn models_are_scored_on_tasks_and_a_second_look_is_an_act() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    task(folder, "words");
    let models = [hyena(), dnabert2(folder)];
    let models = models.each_ref().map(String::as_str);
    let probe = |more: &[&str]| {
        evaluate(folder, &models, &[&["--tasks", "words", "--protocol", "linear-probe"], more].concat())
    };
    let text = stdout(&probe(&[]));
    for expected in [
        "words (version 1): hyena, linear-probe\n",
        "words (version 1): dnabert2, linear-probe\n",
        "seeds make no difference",
    ] {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }
    assert_eq!(stdout(&probe(&[])), text, "what is there is taken");
    let output = probe(&["--pooling", "last"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("one more must be asked for (--look-again)"), "{}", stderr(&output));
    let again = stdout(&probe(&["--pooling", "last", "--look-again"]));
    assert!(again.contains("! look 2 at this test set by this model and protocol"), "{again}");

    let board = |more: &[&str]| {
        let mut command = genomill();
        command.current_dir(folder).args(["task", "leaderboard", "out"]).args(more).output().unwrap()
    };
    let markdown = stdout(&board(&[]));
    for expected in [
        "| words | hyena | linear-probe | mcc | ",
        "| words | dnabert2, linear-probe | hyena, linear-probe | mcc | ",
        "look 2 at this test set",
    ] {
        assert!(markdown.contains(expected), "no {expected} in\n{markdown}");
    }
    assert_eq!(stdout(&board(&["--format", "csv"])).lines().count(), 3);
    stdout(&board(&["--html", "board.html"]));
    let page = std::fs::read_to_string(folder.join("board.html")).unwrap();
    assert!(page.contains("<option>linear-probe</option>") && page.contains("<td class=\"key\">words</td>"));
    let output = genomill().current_dir(folder).args(["task", "leaderboard", "words"]).output().unwrap();
    assert!(stderr(&output).contains("`words` holds no results"), "{}", stderr(&output));

    let output = evaluate(folder, &models[1..], &["--tasks", "words", "--protocol", "zero-shot"]);
    assert!(stderr(&output).contains("`dnabert2` is a masked model"), "{}", stderr(&output));
    let json = evaluate(folder, &models[..1], &["--tasks", "words", "--protocol", "zero-shot", "--json"]);
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(
        (&json[0]["format"], json[0]["runs"].as_array().unwrap().len()),
        (&"genomill.evaluation/1".into(), 1)
    );
}

/// A shape needs no checkpoint, and baselines stand beside models by the same rules.
#[test]
fn shapes_and_baselines_are_scored_as_models_are() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    task(folder, "words");
    std::fs::write(folder.join("quick.yaml"), "training: {epochs: 2, learning_rates: [0.001]}\n").unwrap();
    let scratch =
        ["--tasks", "words", "--protocol", "from-scratch", "--config", "quick.yaml", "--seeds", "2"];
    let shape = ["--preset", "hyenadna-tiny-1k", "small=dnabert2-300k", "--tokenizer", "hyenadna"];
    let output = evaluate(folder, &[], &[&scratch[..], &shape, &["--baseline", "cnn"]].concat());
    let text = stdout(&output);
    for model in ["hyenadna-tiny-1k", "small", "cnn"] {
        assert!(text.contains(&format!("words (version 1): {model}, from-scratch\n")), "{text}");
    }
    let kmer = ["--tasks", "words", "--protocol", "linear-probe", "--baseline", "kmer", "--json"];
    let json: Value = serde_json::from_str(&stdout(&evaluate(folder, &[], &kmer))).unwrap();
    assert_eq!((&json[0]["looks"], &json[0]["model"]["family"]), (&1.into(), &"baseline".into()));
    let place = folder.join("out/words/from-scratch/cnn");
    assert!(place.join("predictions-1.parquet").is_file() && place.join("looks.json").is_file());
    let board = genomill().current_dir(folder).args(["task", "leaderboard", "out"]).output().unwrap();
    let board = stdout(&board);
    for row in [
        "| words | cnn | from-scratch |",
        "| words | kmer | linear-probe |",
        "| words | small | from-scratch |",
    ] {
        assert!(board.contains(row), "no {row} in\n{board}");
    }
    let recipe = ["--tasks", "words", "--protocol", "from-scratch", "--baseline", "cnn", "--recipe", "cnn"];
    let text = stdout(&evaluate(folder, &[], &[&recipe[..], &["--seeds", "1"]].concat()));
    assert!(text.contains("words (version 1): cnn, from-scratch, recipe cnn\n"), "{text}");
    let other = ["--preset", "olmo-300k", "--tasks", "words", "--protocol", "from-scratch"];
    let error = stderr(&evaluate(folder, &[], &other));
    assert!(error.contains("`olmo-300k` has no tokenizer of its own"), "{error}");
}

/// Bases of genes and effects of variants, from a file of tasks.
#[test]
fn genes_and_variants_are_tasks_too() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (mut fasta, mut gff, mut vcf) = (String::new(), String::new(), String::new());
    for (name, letters) in [("one", "ACGTTGCA"), ("two", "GATTACAC")] {
        writeln!(fasta, ">{name}\n{}", letters.repeat(20)).unwrap();
        for (start, end) in [(11, 40), (61, 90)] {
            writeln!(gff, "{name}\tx\tCDS\t{start}\t{end}\t.\t+\t0\tParent=a").unwrap();
        }
        if name == "two" {
            writeln!(gff, "{name}\tx\tCDS\t101\t110\t.\t-\t0\tParent=b").unwrap();
        }
        for at in [50, 58, 66, 74] {
            let label = if at % 16 == 2 { "bad" } else { "good" };
            let (reference, other) = if name == "one" { ("C", "A") } else { ("A", "C") };
            writeln!(vcf, "{name}\t{at}\t.\t{reference}\t{other}\t.\t.\tSIG={label}").unwrap();
        }
    }
    std::fs::write(folder.join("a.fa"), fasta).unwrap();
    std::fs::write(folder.join("a.gff3"), gff).unwrap();
    std::fs::write(folder.join("a.vcf"), &vcf).unwrap();
    let tasks = "tasks:\n  finding: {version: 1, genes: {annotation: a.gff3, assembly: a.fa, window: 40, test: [two]}}\n";
    let effects = "tasks:\n  effects: {version: 1, variants: {vcf: a.vcf, assembly: a.fa, info: SIG, positive: [bad], negative: [good], window: 20}}\n";
    std::fs::write(folder.join("genes.yaml"), tasks).unwrap();
    std::fs::write(folder.join("variants.yaml"), effects).unwrap();
    std::fs::write(folder.join("quick.yaml"), "training: {epochs: 1, learning_rates: [0.01]}\n").unwrap();
    let hyena = hyena();
    let probe =
        ["--tasks", "genes.yaml", "--protocol", "linear-probe", "--config", "quick.yaml", "--seeds", "1"];
    let text = stdout(&evaluate(folder, &[&hyena], &probe));
    for expected in [
        "recall of `donor, forward` (1 bases): ",
        "! every base has a class: 160 bases in 4 windows",
        "! `exon, reverse` has 10 bases in test and none to learn from",
    ] {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }
    let zero_shot = ["--tasks", "variants.yaml", "--protocol", "zero-shot", "--json"];
    let json: Value = serde_json::from_str(&stdout(&evaluate(folder, &[&hyena], &zero_shot))).unwrap();
    assert_eq!((&json[0]["task"]["metric"], &json[0]["task"]["examples"][2]), (&"auroc".into(), &8.into()));
    let board = genomill().current_dir(folder).args(["task", "leaderboard", "out"]).output().unwrap();
    assert!(stdout(&board).contains("| finding | hyena | linear-probe | mcc |"), "{}", stdout(&board));
    std::fs::write(folder.join("a.vcf"), "one\t5\t.\tA\tC\t.\t.\tSIG=bad\n").unwrap();
    let error = stderr(&evaluate(folder, &[&hyena], &zero_shot));
    assert!(error.contains("a.vcf`, line 1: found the reference `A`, but `a.fa` has `T` there"), "{error}");
    let audit = |arguments: &[&str]| {
        genomill().current_dir(folder).args(["task", "audit"]).args(arguments).output().unwrap()
    };
    let text = stdout(&audit(&["genes.yaml"]));
    for expected in ["open frames", "9-mers", "clean test examples: windows 4"] {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }
    let error = stderr(&audit(&["genes.yaml", "--clean", "kept"]));
    assert!(error.contains("task `finding` is about bases or variants"), "{error}");
    std::fs::write(folder.join("a.vcf"), vcf).unwrap();
    let text = stdout(&audit(&["variants.yaml"]));
    for expected in ["transition", "lost CpG", "AUROC 0."] {
        assert!(text.contains(expected), "no {expected} in\n{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    task(folder, "words");
    std::fs::write(folder.join("typo.yaml"), "training: {epoch: 3}\n").unwrap();
    std::fs::write(folder.join("twice.yaml"), "protocol: lora\n").unwrap();
    std::fs::write(folder.join("zero.yaml"), "training: {learning_rates: [0]}\n").unwrap();
    let hyena = hyena();
    let cases: [(&[&str], &[&str], &str); 10] = [
        (
            &[&hyena],
            &["--protocol", "guess"],
            "[possible values: linear-probe, cnn-head, fine-tune, lora, from-scratch, zero-shot]",
        ),
        (
            &[&hyena],
            &["--protocol", "lora", "--config", "typo.yaml"],
            "`training.epoch`: unknown field `epoch`",
        ),
        (
            &[&hyena],
            &["--protocol", "lora", "--config", "twice.yaml"],
            "found `protocol`, which --protocol says",
        ),
        (
            &[&hyena],
            &["--protocol", "lora", "--config", "zero.yaml"],
            "`training.learning_rates` is [0.0], expected numbers above 0",
        ),
        (&["nowhere"], &["--protocol", "lora"], "`nowhere` holds no model: expected a checkpoint"),
        (
            &[&hyena, &hyena],
            &["--protocol", "lora"],
            "two models are called `hyena`: name one, as in other=hyena",
        ),
        (
            &[&hyena],
            &["--protocol", "linear-probe", "--pooling", "cls"],
            "`hyena` puts no token in front of a sequence",
        ),
        (
            &[],
            &["--protocol", "lora", "--baseline", "cnn"],
            "`cnn` is a baseline: expected the protocol `from-scratch`",
        ),
        (
            &[],
            &["--protocol", "lora", "--preset", "hyenadna-tiny"],
            "unknown shape `hyenadna-tiny` of --preset",
        ),
        (&[], &["--protocol", "lora"], "required arguments were not provided"),
    ];
    for (models, more, expected) in cases {
        let output = evaluate(folder, models, &[&["--tasks", "words"], more].concat());
        assert_ne!(output.status.code(), Some(0));
        assert!(stderr(&output).contains(expected), "{} instead of {expected}", stderr(&output));
    }
}

#[test]
fn a_workflow_trains_a_model_and_scores_it_on_tasks() {
    let scratch = Scratch::new(
        &[
            LAMBDA,
            "  model:   {uses: train, from: shards, preset: olmo-300k, duration: 4 steps, batch_rows: 4}\n",
            "  tasks:   {uses: evaluate, model: model, tasks: tasks.yaml, protocol: cnn-head, seeds: 2, training: {epochs: 1, learning_rates: [0.001]}}\n",
            "  ids:     {uses: tokenizer, model: nucleotide}\n",
            "  shapes:  {uses: evaluate, preset: olmo-300k, tokenizer: ids, baselines: [cnn], tasks: tasks.yaml, protocol: from-scratch, seeds: 1, training: {epochs: 1, learning_rates: [0.001]}}\n",
            "  report:  {uses: report, from: [tasks, shapes]}\n",
        ]
        .concat(),
    );
    std::fs::copy(data("phage_lambda.fa.gz"), scratch.path("lambda.fa.gz")).unwrap();
    task(&scratch.path(""), "words");
    scratch.file("tasks.yaml", "tasks:\n  words: {version: 3, gue: words}\n");
    let result = |scratch: &Scratch| -> Value {
        let path = scratch.artifact("tasks").join("results/words/cnn-head/model/result.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    scratch.ran(&[]);
    let first = result(&scratch);
    assert_eq!(
        (&first["task"]["version"], &first["looks"], first["runs"].as_array().unwrap().len()),
        (&3.into(), &1.into(), 2)
    );
    let page = std::fs::read_to_string(scratch.artifact("report").join("report.html")).unwrap();
    assert!(page.contains("<section id=\"tasks\">") && page.contains("<td>cnn-head</td>"));
    let shape = scratch.artifact("shapes").join("results/words/from-scratch/olmo-300k+ids/result.json");
    assert!(shape.is_file(), "a shape is named with its tokenizer");
    assert_eq!(scratch.ran(&[]), [""; 0]);
    // Another test set is another task, and another configuration another look.
    scratch.ran(&["--set", "tasks.seeds=1"]);
    assert_eq!(result(&scratch)["looks"], 2);
    let test = std::fs::read_to_string(scratch.path("words/test.csv")).unwrap();
    let shorter: Vec<&str> = test.lines().take(39).collect();
    std::fs::write(scratch.path("words/test.csv"), shorter.join("\n") + "\n").unwrap();
    assert!(scratch.ran(&[]).contains(&"tasks".to_owned()));
    assert_eq!(result(&scratch)["task"]["examples"][2], 38);

    let problems = |keys: &str, expected: &str| {
        scratch.write(&[LAMBDA, "  tasks:   {uses: evaluate, ", keys, "}\n"].concat());
        let message = stderr(&scratch.run(&[]));
        assert!(message.contains(expected), "{message}");
    };
    problems("markov_order: 2", "there is neither `from` nor `tasks`");
    problems("from: shards, tasks: tasks.yaml", "stands beside `from`");
    problems(
        "tasks: tasks.yaml, folders: {x: other}",
        "`protocol` of stage `tasks`: is missing, which `tasks` needs",
    );
    problems(
        "tasks: tasks.yaml, protocol: lora",
        "there is none of `model`, `folders`, `preset` and `baselines`",
    );
    problems(
        "tasks: tasks.yaml, protocol: lora, preset: hyenadna-tiny-1k",
        "`hyenadna-tiny-1k` needs the protocol `from-scratch`, found `lora`",
    );
    problems(
        "tasks: tasks.yaml, protocol: lora, baselines: [kmer]",
        "`kmer` needs the protocol `linear-probe`",
    );
    problems(
        "tasks: tasks.yaml, protocol: from-scratch, preset: olmo-300k",
        "`tokenizer` of stage `tasks`: is missing, which `olmo-300k` needs",
    );
    problems(
        "tasks: tasks.yaml, protocol: lore, folders: {x: other}",
        "unknown value `lore`, expected one of `linear-probe`",
    );
    problems(
        "tasks: tasks.yaml, protocol: lora, folders: {x: other}, training: {epochs: 0}",
        "`training.epochs`",
    );
    problems(
        "tasks: tasks.yaml, protocol: lora, folders: {x: other}, training: {epoch: 1}",
        "unknown key `epoch`",
    );
    problems("tasks: none.yaml, protocol: lora, folders: {x: other}", "none.yaml`");
}
