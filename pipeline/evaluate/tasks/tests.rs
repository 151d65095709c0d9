//! Models on small tasks: what is scored, looked at, kept and refused.

use std::cell::RefCell;
use std::fmt::Write as _;

use super::super::encoder::tests::open;
use super::super::protocol::{Inputs, Recipe, Training};
use super::*;
use crate::observer::{Silent, Stop};
use crate::sequence::kmer::spread;
use crate::task::{Csv, Task};

/// Sequences of 60 bases with a word or without one; of the last `rare` of the test set the label is one that nothing is learned of.
fn dataset(folder: &Path, name: &str, with_validation: bool, rare: usize) -> Dataset {
    let file = |name: &str, from: u64, count: u64, rare: usize| {
        let row = |i: u64| {
            let mut bases: String =
                (0..60).map(|j| b"ACGT"[(spread(i << 8 | j) % 4) as usize] as char).collect();
            if i % 2 == 1 {
                let at = (spread(i) % 40) as usize;
                bases.replace_range(at..at + 16, "GATTACAGGATTACAG");
            }
            let label = if i + rare as u64 >= from + count { 2 } else { i % 2 };
            format!("{bases},{label}\n")
        };
        let text = format!("sequence,label\n{}", (from..from + count).map(row).collect::<String>());
        std::fs::write(folder.join(name), text).unwrap();
    };
    file("train.csv", 0, 160, 0);
    file("dev.csv", 1 << 20, 40, 0);
    file("test.csv", 1 << 21, 60, rare);
    let csv = Csv {
        train: "train.csv".into(),
        validation: with_validation.then(|| "dev.csv".into()),
        test: "test.csv".into(),
        sequence: "sequence".into(),
        label: "label".into(),
    };
    Task { version: 1, csv: Some(csv), ..Task::default() }.read(name, folder).unwrap()
}

fn config(protocol: Protocol) -> Config {
    let training = Training { epochs: 2, learning_rates: vec![1e-3, 1e-2], ..Training::default() };
    Config { seeds: 3, training, ..Config::new(protocol) }
}

fn ask(
    dataset: &Dataset,
    config: &Config,
    out: &Path,
    again: bool,
    threads: usize,
) -> Result<Outcome, Error> {
    let (encoder, stop) = (open("olmo2_gqa/hf"), Stop::new());
    let hooks = Hooks { observer: &Silent, stage: "evaluate", stop: &stop, threads };
    let again = if again { Again::Always } else { Again::Refuse };
    let place = Place { out, earlier: None, cache: Some(&out.join("cache")), again };
    evaluate(&encoder, dataset, config, place, hooks)
}

#[test]
fn every_protocol_scores_the_test_set_the_same_on_any_number_of_threads() {
    let data = tempfile::tempdir().unwrap();
    for (protocol, with_validation) in Protocol::ALL
        .into_iter()
        .zip([false, true, true, false, true, true])
        .chain([(Protocol::LinearProbe, true)])
    {
        let dataset = dataset(data.path(), "words", with_validation, 0);
        let of = |threads| {
            let out = tempfile::tempdir().unwrap();
            let outcome = ask(&dataset, &config(protocol), out.path(), false, threads).unwrap();
            let folder = folder(out.path(), "words", &protocol.to_string(), "olmo2_gqa/hf");
            let predictions =
                outcome.runs.iter().map(|run| Predictions::read(&folder.join(&run.predictions)).unwrap());
            let predictions = predictions.collect::<Vec<_>>();
            let mut left: Vec<_> =
                std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
            left.sort();
            assert_eq!(left.len(), 2 + outcome.runs.len(), "{left:?}");
            (outcome, predictions)
        };
        let (outcome, predictions) = of(1);
        let matters = protocol.is_trained() || (protocol == Protocol::LinearProbe && !with_validation);
        assert_eq!(outcome.runs.len(), if matters { 3 } else { 1 }, "{protocol}");
        assert_eq!((outcome.looks, outcome.given.sequences), (1, if with_validation { 260 } else { 220 }));
        for (run, predictions) in outcome.runs.iter().zip(&predictions) {
            let right = predictions.predicted.iter().zip(&predictions.labels).filter(|(a, b)| a == b).count();
            let accuracy = run.scores.shown(Metric::Accuracy).unwrap();
            assert!((accuracy - right as f64 / 60.0).abs() < 1e-12 && predictions.labels.len() == 60);
        }
        if matches!(protocol, Protocol::LinearProbe | Protocol::CnnHead) {
            let (other, others) = of(3);
            assert_eq!((&outcome, &predictions), (&other, &others), "{protocol}");
        }
        if protocol == Protocol::LinearProbe && !with_validation {
            let auroc = outcome.runs[0].scores.shown(Metric::Auroc).unwrap();
            assert!(auroc > 0.75, "{auroc}");
            assert!(
                outcome.runs.iter().any(|run| run.scores != outcome.runs[0].scores),
                "seeds make no difference"
            );
        }
    }
}

#[test]
fn a_choice_at_the_edge_of_what_was_tried_is_told() {
    let data = tempfile::tempdir().unwrap();
    let dataset = dataset(data.path(), "words", true, 0);
    let notes = |protocol, training| {
        let out = tempfile::tempdir().unwrap();
        let config = Config { seeds: 1, training, ..Config::new(protocol) };
        let notes = ask(&dataset, &config, out.path(), false, 1).unwrap().notes;
        notes.into_iter().filter(|note| note.contains("validates best")).collect::<Vec<_>>()
    };
    for (learning_rates, expected) in [
        (
            vec![1e-7, 1e-2],
            &["the highest of `training.learning_rates`, 0.01, validates best: one beyond it may be better"]
                [..],
        ),
        (
            vec![1e-2, 1e3],
            &["the lowest of `training.learning_rates`, 0.01, validates best: one beyond it may be better"],
        ),
        (vec![1e-7, 1e-2, 1e3], &[]),
        (vec![1e-2], &[]),
    ] {
        let training = Training { epochs: 1, learning_rates, ..Training::default() };
        assert_eq!(notes(Protocol::CnnHead, training), expected);
    }
    let training = Training { strengths: vec![1e-9, 1e-3], ..Training::default() };
    assert_eq!(
        notes(Protocol::LinearProbe, training),
        ["the highest of `training.strengths`, 0.001, validates best: one beyond it may be better"]
    );
}

#[test]
fn a_second_look_is_asked_for_and_counted() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = dataset(data.path(), "words", true, 0);
    let config = config(Protocol::LinearProbe);
    let ask = |config: &Config, again| ask(&dataset, config, out.path(), again, 1);
    let first = ask(&config, false).unwrap();
    // The same again is no look: what is there is taken.
    let file = folder(out.path(), "words", &config.protocol.to_string(), "olmo2_gqa/hf").join(FILE);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"looks\": 1", "\"looks\": 1 ")).unwrap();
    assert_eq!(ask(&config, false).unwrap(), first);
    assert!(std::fs::read_to_string(&file).unwrap().contains("1 "));
    let mut other = config.clone();
    other.training.strengths = vec![1.0];
    let error = ask(&other, false).unwrap_err();
    assert!(matches!(error, Error::Looked { looks: 1, .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().matches("1 ").count(), 1, "nothing is touched");
    let second = ask(&other, true).unwrap();
    assert_eq!(second.looks, 2);
    assert!(second.notes.iter().any(|note| note.starts_with("look 2 ")), "{:?}", second.notes);
    // The first configuration is another one now.
    assert!(matches!(ask(&config, false), Err(Error::Looked { looks: 2, .. })));
    let third = ask(&config, true).unwrap();
    assert_eq!((third.looks, &third.runs), (3, &first.runs));
    // And the same may be asked for once more.
    assert_eq!(ask(&config, true).unwrap().looks, 4);

    // Results that take the place of others count on, and look again at what is another.
    let next = tempfile::tempdir().unwrap();
    let instead = |config: &Config| {
        let (encoder, stop) = (open("olmo2_gqa/hf"), Stop::new());
        let hooks = Hooks { observer: &Silent, stage: "evaluate", stop: &stop, threads: 1 };
        let (out, earlier) = (next.path(), Some(out.path()));
        let place = Place { out, earlier, cache: None, again: Again::IfOther };
        evaluate(&encoder, &dataset, config, place, hooks).unwrap().looks
    };
    assert_eq!([instead(&config), instead(&config), instead(&other), instead(&other)], [4, 4, 5, 5]);
}

/// Asks to stop after some progress, and keeps how far it went.
struct After<'a>(u64, &'a Stop, std::sync::Mutex<RefCell<u64>>);
impl crate::observer::Observer for After<'_> {
    fn event(&self, event: &Event) {
        let Event::Progress { done, .. } = event else { return };
        if *done >= self.0 {
            self.1.request();
        }
        self.2.lock().unwrap().replace(*done);
    }
}

#[test]
fn a_run_that_was_stopped_goes_on_seed_by_seed() {
    let (data, whole, out) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = dataset(data.path(), "words", true, 0);
    let config = config(Protocol::FineTune);
    let expected = ask(&dataset, &config, whole.path(), false, 1).unwrap();
    let (encoder, stop) = (open("olmo2_gqa/hf"), Stop::new());
    let observer = After(25 * 32, &stop, std::sync::Mutex::default());
    let hooks = Hooks { observer: &observer, stage: "evaluate", stop: &stop, threads: 1 };
    let place = Place { out: out.path(), earlier: None, cache: None, again: Again::Refuse };
    let error = evaluate(&encoder, &dataset, &config, place, hooks).unwrap_err();
    assert!(error.is_stop(), "{error}");
    let folder = folder(out.path(), "words", &Protocol::FineTune.to_string(), "olmo2_gqa/hf");
    assert!(folder.join("seed-0.json").is_file() && !folder.join("seed-2.json").is_file());
    let stop = Stop::new();
    let observer = After(u64::MAX, &stop, std::sync::Mutex::default());
    let hooks = Hooks { observer: &observer, stage: "evaluate", stop: &stop, threads: 1 };
    let found = evaluate(&encoder, &dataset, &config, place, hooks).unwrap();
    assert_eq!(found, expected);
    assert_eq!(observer.2.lock().unwrap().take(), 40 * 32, "4 runs of 10 steps");
}

/// Two test examples are copies of training examples.
#[test]
fn clean_test_examples_are_scored_beside_all() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole =
        ask(&dataset(data.path(), "words", true, 0), &config(Protocol::LinearProbe), out.path(), false, 1);
    let whole = whole.unwrap();
    assert_eq!((whole.task.clean, &whole.clean, &whole.runs[0].clean), (60, &None, &None));
    let read = |name: &str| std::fs::read_to_string(data.path().join(name)).unwrap();
    let copies = read("train.csv").lines().skip(1).take(2).fold(String::new(), |all, line| all + line + "\n");
    std::fs::write(data.path().join("test.csv"), read("test.csv") + &copies).unwrap();
    let csv = Csv {
        train: "train.csv".into(),
        validation: Some("dev.csv".into()),
        test: "test.csv".into(),
        sequence: "sequence".into(),
        label: "label".into(),
    };
    let copied = Task { version: 1, csv: Some(csv), ..Task::default() }.read("words", data.path()).unwrap();
    let found = ask(&copied, &config(Protocol::LinearProbe), out.path(), true, 1).unwrap();
    assert_eq!((found.task.clean, found.task.examples[2], found.runs[0].scores.examples), (60, 62, 62));
    assert_eq!(found.runs[0].clean.as_ref(), Some(&whole.runs[0].scores));
    assert_eq!(found.clean.unwrap().all, whole.summary.all);
}

#[test]
fn kept_embeddings_are_used_and_damaged_ones_made_anew() {
    let data = tempfile::tempdir().unwrap();
    let dataset = dataset(data.path(), "words", true, 0);
    let out = tempfile::tempdir().unwrap();
    let config = Config {
        inputs: Inputs { strands: Strands::Both, ..Inputs::default() },
        ..config(Protocol::LinearProbe)
    };
    let first = ask(&dataset, &config, out.path(), false, 1).unwrap();
    let kept: Vec<_> =
        std::fs::read_dir(out.path().join("cache")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(kept.len(), 6);
    let times =
        || kept.iter().map(|path| std::fs::metadata(path).unwrap().modified().unwrap()).collect::<Vec<_>>();
    let before = times();
    std::fs::write(&kept[0], "damaged").unwrap();
    let again = ask(&dataset, &config, out.path(), true, 1).unwrap();
    assert_eq!(again.runs, first.runs);
    assert_eq!(times()[1..], before[1..]);
    assert!(std::fs::metadata(&kept[0]).unwrap().len() > 1000);
    let forward = Config { inputs: Inputs::default(), ..config };
    assert_ne!(ask(&dataset, &forward, out.path(), true, 1).unwrap().runs[0].scores, first.runs[0].scores);
}

/// Three sequences of an assembly: coding stretches are rich in G and C.
fn genes(folder: &Path) -> Dataset {
    let (mut fasta, mut gff) = (String::new(), String::new());
    for name in ["one", "two", "three"] {
        let mut bases = String::new();
        for gene in 0..8_u64 {
            for coding in [false, true] {
                let from = bases.len() + 1;
                let letters = if coding { b"GCGC" } else { b"ATAC" };
                bases.extend((0..40_u64).map(|j| {
                    let draw = spread(gene << 16 | j << 1 | u64::from(coding) ^ spread(name.len() as u64));
                    letters[(draw % 4) as usize] as char
                }));
                if coding {
                    let end = bases.len();
                    writeln!(gff, "{name}\tx\tCDS\t{from}\t{end}\t.\t+\t0\tParent=g{gene}").unwrap();
                }
            }
        }
        writeln!(fasta, ">{name}\n{bases}").unwrap();
    }
    std::fs::write(folder.join("a.fa"), fasta).unwrap();
    std::fs::write(folder.join("a.gff3"), gff).unwrap();
    let yaml = "{version: 1, genes: {annotation: a.gff3, assembly: a.fa, window: 64, validation: [two], test: [three]}}";
    serde_saphyr::from_str::<Task>(yaml).unwrap().read("genes", folder).unwrap()
}

#[test]
fn every_base_is_scored_and_intervals_are_over_windows() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = genes(data.path());
    for protocol in [Protocol::LinearProbe, Protocol::CnnHead] {
        let mut config = config(protocol);
        (config.seeds, config.training.epochs, config.training.batch) = (2, 12, 1);
        let outcome = ask(&dataset, &config, out.path(), false, 1).unwrap();
        let run = &outcome.runs[1];
        assert_eq!((outcome.runs.len(), run.scores.examples), (2, 640));
        assert_eq!(outcome.task.examples, [10, 10, 10]);
        let mcc = run.scores.shown(Metric::Mcc).unwrap();
        assert!(mcc > 0.25, "{protocol}: {mcc}");
        assert!(run.scores.intervals[&Metric::Mcc].low < mcc && run.scores.classes[1].recall > Some(0.3));
        let folder = folder(out.path(), "genes", &protocol.to_string(), "olmo2_gqa/hf");
        let predictions = Predictions::read(&folder.join(&run.predictions)).unwrap();
        assert_eq!((predictions.lines.first(), predictions.lines.last()), (Some(&1), Some(&640)));
        let right = predictions.predicted.iter().zip(&predictions.labels).filter(|(a, b)| a == b).count();
        assert_eq!(run.scores.shown(Metric::Accuracy), Some(right as f64 / 640.0));
        assert!(predictions.scores.is_empty());
    }
    let error = |config: &Config| ask(&dataset, config, out.path(), false, 1).unwrap_err().to_string();
    let wrong = error(&config(Protocol::ZeroShot));
    assert!(
        wrong.starts_with("task `genes` is about bases: expected a model with a network, any protocol"),
        "{wrong}"
    );
    let cut = Inputs { max_tokens: Some(9), ..Inputs::default() };
    let wrong = error(&Config { inputs: cut, ..config(Protocol::FineTune) });
    assert!(wrong.contains("the model takes 9"), "nothing is cut off in silence: {wrong}");
}

/// What a model was trained on is likelier than what it never saw: here the golden model says how likely, and the score is that.
#[test]
fn variants_are_scored_by_what_they_change() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bases: String = (0..200_u64).map(|j| b"ACGT"[(spread(j) % 4) as usize] as char).collect();
    std::fs::write(data.path().join("a.fa"), format!(">c\n{bases}\n")).unwrap();
    let line = |at: usize| {
        let (reference, label) = (&bases[at..=at], if at.is_multiple_of(2) { "bad" } else { "good" });
        let other = if reference == "A" { "T" } else { "A" };
        format!("c\t{}\t.\t{reference}\t{other}\t.\t.\tSIG={label}\n", at + 1)
    };
    let lines: String = (40..80).map(line).collect();
    std::fs::write(data.path().join("a.vcf"), lines).unwrap();
    let yaml = "{version: 1, variants: {vcf: a.vcf, assembly: a.fa, info: SIG, positive: [bad], negative: [good], window: 40}}";
    let dataset = serde_saphyr::from_str::<Task>(yaml).unwrap().read("variants", data.path()).unwrap();
    let mut ratios = Vec::new();
    for strands in [Strands::Forward, Strands::Both] {
        let mut config = config(Protocol::ZeroShot);
        config.inputs.strands = strands;
        let outcome = ask(&dataset, &config, out.path(), true, 2).unwrap();
        assert_eq!(
            (outcome.runs.len(), outcome.runs[0].scores.examples, outcome.summary.metric),
            (1, 40, Metric::Auroc)
        );
        let folder = folder(out.path(), "variants", &Protocol::ZeroShot.to_string(), "olmo2_gqa/hf");
        let predictions = Predictions::read(&folder.join("predictions-0.parquet")).unwrap();
        ratios.push(predictions.scores.chunks(2).map(|pair| pair[0]).collect::<Vec<_>>());
        let less_likely = predictions.scores.chunks(2).map(|pair| u32::from(pair[1] > pair[0]));
        assert!(less_likely.eq(predictions.predicted.iter().copied()));
    }
    let (encoder, workers) = (open("olmo2_gqa/hf"), Workers::start(1).unwrap());
    let sum = |sequence: &[u8]| {
        let (rows, _) = encoder.rows(std::iter::once(sequence), &Inputs::default()).unwrap();
        f64::from(encoder.likelihoods(&rows, &workers, &Stop::new(), &|_| {}).unwrap().unwrap()[0].0)
    };
    for (at, example) in dataset.part(Part::Test).iter().enumerate() {
        let pair = [dataset.bases(example).unwrap(), dataset.against(example).unwrap()];
        let turned = pair.map(|bases| {
            let mut turned = Vec::new();
            reverse_complement_into(bases, &mut turned);
            turned
        });
        let forward = sum(pair[0]) - sum(pair[1]);
        let both = f64::midpoint(forward, sum(&turned[0]) - sum(&turned[1]));
        assert!(
            (ratios[0][at] - forward).abs() < 1e-3 && (ratios[1][at] - both).abs() < 1e-3,
            "variant {at}"
        );
    }
    let wrong = ask(&dataset, &config(Protocol::LinearProbe), out.path(), true, 1).unwrap_err().to_string();
    assert!(
        wrong.starts_with("task `variants` is about variants: expected the protocol `zero-shot`"),
        "{wrong}"
    );
}

#[test]
fn a_recipe_stands_beside_the_common_protocol() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = dataset(data.path(), "words", true, 0);
    let (encoder, stop) = (Encoder::of_baseline(super::super::protocol::Baseline::Cnn).unwrap(), Stop::new());
    let ask = |recipe, training| {
        let hooks = Hooks { observer: &Silent, stage: "evaluate", stop: &stop, threads: 1 };
        let place = Place { out: out.path(), earlier: None, cache: None, again: Again::Refuse };
        let config = Config { recipe, training, seeds: 1, ..Config::new(Protocol::FromScratch) };
        evaluate(&encoder, &dataset, &config, place, hooks)
    };
    let few = Training { epochs: 1, learning_rates: vec![1e-3], ..Training::default() };
    let common = ask(None, few.clone()).unwrap();
    let recipe = ask(Some(Recipe::Cnn), Training::default()).unwrap();
    assert_eq!((common.looks, recipe.looks, recipe.config.recipe), (1, 1, Some(Recipe::Cnn)));
    assert_eq!((common.config.training.epochs, recipe.config.training.epochs), (1, 10));
    assert!(out.path().join("words/from-scratch+recipe-cnn/cnn/result.json").is_file());
    let error = ask(Some(Recipe::Hyenadna), Training::default()).unwrap_err().to_string();
    assert_eq!(error, "`recipe` `hyenadna` is for HyenaDNA, found a model of baseline");
    let error = ask(Some(Recipe::Cnn), few).unwrap_err().to_string();
    assert!(error.starts_with("`recipe` stands beside `training`"), "{error}");
}

#[test]
fn validation_by_families_is_another_choice_and_is_said() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = dataset(data.path(), "words", true, 0);
    let drawn = |validation| {
        let config = Config { validation, seeds: 2, ..config(Protocol::LinearProbe) };
        ask(&dataset, &config, out.path(), true, 1).unwrap()
    };
    let (one, families) = (drawn(Validation::Drawn), drawn(Validation::Homology));
    assert!(
        families
            .notes
            .contains(&"validation by 160 families of training examples, the largest of 1".to_owned())
    );
    assert_eq!((one.runs.len(), families.runs.len()), (2, 2));
    assert_ne!(one.runs[0].tried, families.runs[0].tried);
}

#[test]
fn what_cannot_be_scored_is_said_before_anything_is_looked_at() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let of = |dataset: &Dataset, config: &Config, expected: &str| {
        let error = ask(dataset, config, out.path(), false, 1).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!out.path().join("words").exists());
    };
    let mut unseen = dataset(data.path(), "words", true, 2);
    of(
        &unseen,
        &config(Protocol::LinearProbe),
        "the class `2` has 2 examples in test and none to learn from",
    );
    of(&unseen, &config(Protocol::ZeroShot), "the class `2`");
    unseen.forget_bases();
    of(&unseen, &config(Protocol::LinearProbe), "has no bases to show a model");
    let known = dataset(data.path(), "words", true, 0);
    let mut wrong = config(Protocol::Lora);
    wrong.training.lora_rank = 0;
    of(&known, &wrong, "`training.lora_rank` is 0, expected at least 1");
    let cls = Inputs { pooling: super::super::protocol::Pooling::Cls, ..Inputs::default() };
    of(&known, &Config { inputs: cls, ..config(Protocol::LinearProbe) }, "puts no token in front");
    let long =
        Inputs { long: super::super::protocol::Long::Refuse, max_tokens: Some(9), ..Inputs::default() };
    of(&known, &Config { inputs: long, ..config(Protocol::LinearProbe) }, "the model takes 9: let it be cut");
    let (encoder, stop) = (open("dnabert2"), Stop::new());
    let hooks = Hooks { observer: &Silent, stage: "evaluate", stop: &stop, threads: 1 };
    let place = Place { out: out.path(), earlier: None, cache: None, again: Again::Refuse };
    let error =
        evaluate(&encoder, &known, &config(Protocol::ZeroShot), place, hooks).unwrap_err().to_string();
    assert!(error.contains("`dnabert2` is a masked model, which has no likelihood"), "{error}");
}
