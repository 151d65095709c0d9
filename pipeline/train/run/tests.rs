//! The trainer on small models: bit for bit, at its limits, and shared by ranks.

use std::time::Duration as Time;

use tch::{Device, Kind};

use super::*;
use crate::collective::{Meeting, Place};
use crate::loader::tests_support::Rows;
use crate::model::weights::{self, Weights};
use crate::model::{self, Named, Preset, device};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::nucleotide::Nucleotide;
use crate::train::history::{FILE as HISTORY, read_history};
use crate::train::{Duration, Initialize, Precision};

const CONTEXT: u64 = 24;

fn vocabulary() -> Vocabulary {
    let bases = [0, 0].into_iter().chain([2; 30]).collect();
    let (fingerprint, tokenizer) = ("tokenizer".to_owned(), Nucleotide::new().to_json());
    Vocabulary { bases, pad: Some(0), begin: None, fingerprint, tokenizer }
}

fn config(steps: u64) -> Config {
    Config {
        preset: Some(Preset::Olmo300k.into()),
        duration: Duration::Steps(steps),
        batch_rows: 4,
        log_every: Duration::Steps(1),
        learning_rate: 3e-3,
        ..Config::default()
    }
}

/// Asks to stop once a step is recorded.
struct StopAt<'a>(u64, &'a Stop);

impl Observer for StopAt<'_> {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Metrics { step, .. } if *step == self.0) {
            self.1.request();
        }
    }
}

fn train(config: &Config, rows: &Rows, out: &Path, threads: usize) -> Result<Summary, Error> {
    train_until(config, rows, out, threads, u64::MAX)
}

fn train_until(
    config: &Config,
    rows: &Rows,
    out: &Path,
    threads: usize,
    step: u64,
) -> Result<Summary, Error> {
    let (stop, vocabulary) = (Stop::new(), vocabulary());
    let observer = StopAt(step, &stop);
    let data = Data { rows, validation: Some(rows), vocabulary: &vocabulary, fingerprint: "rows" };
    run(config, data, out, Hooks { observer: &observer, stage: "train", stop: &stop, threads })
}

/// Trains in bf16 what is trained in f32 to nearly the same losses, and goes on to the bit.
#[test]
fn bf16_learns_as_f32_does_and_resumes() {
    let rows = Rows::random(10, CONTEXT, 32, 1);
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| {
        let out = folder.path().join(name);
        std::fs::create_dir_all(&out).unwrap();
        out
    };
    let half = Config { precision: Precision::Bf16, ..config(6) };
    let exact = train(&config(6), &rows, &out("f32"), 2).unwrap();
    let near = train(&half, &rows, &out("bf16"), 2).unwrap();
    for (exact, near) in exact.history.iter().zip(&near.history) {
        assert!((exact.loss - near.loss).abs() < 0.02 * exact.loss, "{exact:?} {near:?}");
    }
    assert_ne!(exact.last.loss.to_bits(), near.last.loss.to_bits());
    let error = train_until(&half, &rows, &out("parts"), 1, 3).unwrap_err();
    assert!(matches!(error, Error::Stopped { step: 3, .. }), "{error}");
    let again = train(&half, &rows, &out("parts"), 2).unwrap();
    assert_eq!(losses(&again.history), losses(&near.history));
    assert_eq!(tensors(&again.checkpoint), tensors(&near.checkpoint));
    let error = train(&config(6), &rows, &out("parts"), 1).unwrap_err().to_string();
    assert!(error.contains("precision"), "{error}");
}

/// Run by itself (`--ignored`), since the device is that of the whole process.
#[test]
#[ignore = "needs CUDA"]
fn a_gpu_learns_as_the_processor_does() {
    // Torch looks for CUDA once, and before it computes.
    device::cuda().as_ref().unwrap();
    let rows = Rows::random(10, CONTEXT, 32, 1);
    let folder = tempfile::tempdir().unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        let config = Config { precision, ..config(6) };
        let on = |choice: device::Choice| {
            device::choose(choice);
            let out = folder.path().join(format!("{choice} {precision:?}").replace(':', "-"));
            std::fs::create_dir_all(&out).unwrap();
            let summary = train(&config, &rows, &out, 2).unwrap();
            device::choose(device::Choice::Auto);
            summary.history
        };
        let tolerance = if precision == Precision::F32 { 1e-3 } else { 2e-2 };
        for (cpu, gpu) in on(device::Choice::Cpu).iter().zip(on(device::Choice::Cuda(0))) {
            assert!((cpu.loss - gpu.loss).abs() < tolerance * cpu.loss, "{precision:?}: {cpu:?} {gpu:?}");
        }
    }
}

thread_local! {
    static AHEAD: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether this thread's trainers run ahead, as on a GPU.
pub(super) fn tests_run_ahead() -> bool {
    AHEAD.get()
}

/// Updates are the same, those that are skipped are, and a run goes on where another ended.
#[test]
fn a_trainer_that_runs_ahead_learns_the_same() {
    let rows = Rows::random(10, CONTEXT, 32, 1);
    let folder = tempfile::tempdir().unwrap();
    let run = |config: &Config, name: &str, ahead: bool, until: u64| {
        let out = folder.path().join(name);
        std::fs::create_dir_all(&out).unwrap();
        AHEAD.set(ahead);
        let summary = train_until(config, &rows, &out, 2, until);
        AHEAD.set(false);
        summary
    };
    for (name, limit, warmup) in [("clipped", Some(0.5), 2), ("free", None, 1)] {
        let config = Config {
            grad_clip: limit,
            log_every: Duration::Steps(3),
            warmup: Some(Duration::Steps(warmup)),
            ..config(8)
        };
        let expected = run(&config, name, false, u64::MAX).unwrap();
        let found = run(&config, &format!("{name}-ahead"), true, u64::MAX).unwrap();
        assert!(expected.history.len() >= 3);
        for (found, expected) in found.history.iter().zip(&expected.history) {
            let off = |a: f64, b: f64| (a - b).abs() / b.abs();
            assert!(off(found.loss, expected.loss) < 1e-5, "{name}: {found:?} {expected:?}");
            assert!(
                off(found.gradient_norm, expected.gradient_norm) < 1e-3,
                "{name}: {found:?} {expected:?}"
            );
        }
        let off = apart(&found.checkpoint, &expected.checkpoint, "model");
        assert!(off < 1e-4, "{name}: weights differ by {off}");
        let parts = format!("{name}-parts");
        assert!(matches!(run(&config, &parts, true, 3), Err(Error::Stopped { step: 3, .. })));
        let again = run(&config, &parts, true, u64::MAX).unwrap();
        assert_eq!(losses(&again.history), losses(&found.history));
        assert_eq!(tensors(&again.checkpoint), tensors(&found.checkpoint));
    }
    let wild = Config { learning_rate: 1e30, grad_clip: None, warmup: Some(Duration::Steps(1)), ..config(9) };
    let ended = ["wild", "wild-ahead"].map(|name| run(&wild, name, name != "wild", u64::MAX).unwrap_err());
    let steps = ended.map(|error| match error {
        Error::NotFinite { step, .. } => step,
        other => panic!("{other}"),
    });
    assert_eq!(steps[0], steps[1]);
}

/// Run by itself, as above.
#[test]
#[ignore = "needs CUDA"]
fn one_rank_over_nccl_learns_as_a_process_by_itself() {
    let vocabulary = Vocabulary { bases: vec![2; 4096], ..vocabulary() };
    let rows = Rows::random(64, 1024, 4096, 1);
    let folder = tempfile::tempdir().unwrap();
    device::choose(device::Choice::Cuda(0));
    let config = Config {
        preset: Some(Preset::Olmo110m.into()),
        precision: Precision::Bf16,
        batch_rows: 32,
        micro_batch_rows: Some(32),
        learning_rate: 3e-4,
        ..config(24)
    };
    let [alone, shared] = ["alone", "shared"].map(|name| {
        let place = || Place {
            rank: 0,
            ranks: 1,
            here: None,
            local: None,
            meeting: Meeting::File(folder.path().join("store")),
            interface: None,
            attempt: String::new(),
            patience: Time::from_secs(20),
        };
        let group = (name == "shared").then(|| Group::join(place()).unwrap());
        let out = folder.path().join(name);
        std::fs::create_dir_all(&out).unwrap();
        let stop = Stop::new();
        let data = Data { rows: &rows, validation: None, vocabulary: &vocabulary, fingerprint: "rows" };
        let hooks = Hooks { observer: &Silent, stage: "train", stop: &stop, threads: 1 };
        run_shared(&config, data, &out, hooks, group.as_ref()).unwrap().history
    });
    device::choose(device::Choice::Auto);
    for (alone, shared) in alone.iter().zip(&shared) {
        assert!((alone.loss - shared.loss).abs() < 2e-2 * alone.loss, "{alone:?} {shared:?}");
    }
}

fn losses(history: &[Record]) -> Vec<(u64, f64, Option<f64>)> {
    history.iter().map(|record| (record.step, record.loss, record.validation_loss)).collect()
}

/// The files of a checkpoint whose names begin so, in order.
fn files(checkpoint: &Path, prefix: &str) -> Vec<PathBuf> {
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    let paths = std::fs::read_dir(checkpoint).unwrap().map(|entry| entry.unwrap().path()).filter(named);
    let mut paths = paths.collect::<Vec<_>>();
    paths.sort_unstable();
    paths
}

/// What weights and moments are on disk.
fn tensors(checkpoint: &Path) -> [Vec<u8>; 2] {
    ["model.", "optimizer"].map(|prefix| {
        let all = files(checkpoint, prefix).into_iter().flat_map(|path| std::fs::read(path).unwrap());
        all.collect()
    })
}

#[test]
fn a_stopped_run_goes_on_bit_for_bit() {
    let rows = Rows::random(10, CONTEXT, 32, 1);
    let config = Config { checkpoint_every: Some(Duration::Steps(2)), ..config(7) };
    let mut bytes = Vec::new();
    for threads in [1, 2, 3] {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = train(&config, &rows, whole.path(), threads).unwrap();
        let stopped = train_until(&config, &rows, parts.path(), threads, 3).unwrap_err();
        assert!(stopped.to_string().starts_with("stopped at step 3; a rerun goes on from"), "{stopped}");
        let found = train(&config, &rows, parts.path(), threads).unwrap();
        assert_eq!(losses(&found.history), losses(&expected.history), "{threads} threads");
        assert_eq!(tensors(&found.checkpoint), tensors(&expected.checkpoint), "{threads} threads");
        let saved = read_history(&parts.path().join(HISTORY)).unwrap();
        assert_eq!(losses(&saved), losses(&expected.history));
        assert_eq!(std::fs::read_dir(parts.path().join("checkpoints")).unwrap().count(), 1);
        bytes.push(tensors(&found.checkpoint));
    }
    assert!(bytes.iter().all(|run| *run == bytes[0]), "the number of threads changes the result");
}

#[test]
fn a_finished_run_is_not_run_again() {
    let (rows, out) = (Rows::random(10, CONTEXT, 32, 1), tempfile::tempdir().unwrap());
    let first = train(&config(2), &rows, out.path(), 1).unwrap();
    assert_eq!(train(&config(2), &rows, out.path(), 1).unwrap(), first);
}

#[test]
fn half_written_checkpoints_are_passed_over_and_removed() {
    let rows = Rows::random(10, CONTEXT, 32, 1);
    for ranks in [1, 2] {
        let out = tempfile::tempdir().unwrap();
        let folder = out.path().join("checkpoints");
        for name in ["part-abc", "step-00000009"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            for file in ["model.safetensors", "optimizer-00001-of-00002.safetensors"] {
                std::fs::write(folder.join(name).join(file), b"half").unwrap();
            }
        }
        let summary = train_ranks(&config(1), &rows, out.path(), ranks, NEVER).swap_remove(0).unwrap();
        assert_eq!(summary.checkpoint, folder.join("step-00000001"));
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
    }
}

#[test]
fn checkpoints_of_other_runs_and_damaged_ones_are_refused() {
    let (rows, out) = (Rows::random(10, CONTEXT, 32, 1), tempfile::tempdir().unwrap());
    let summary = train(&config(1), &rows, out.path(), 1).unwrap();
    let refused = |config: &Config, rows: &Rows| train(config, rows, out.path(), 1).unwrap_err().to_string();
    let error = refused(&config(2), &rows);
    assert!(error.ends_with("has another configuration at `schedule.steps`: 1 there, 2 here"), "{error}");
    let error = refused(&config(1), &Rows::random(11, CONTEXT, 32, 1));
    assert!(error.ends_with("has another number of rows: 10 there, 11 here"), "{error}");

    let path = summary.checkpoint.join("optimizer-00000-of-00001.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = refused(&config(1), &rows);
    assert!(error.contains("optimizer-00000-of-00001.safetensors` is damaged: its blake3 is"), "{error}");
}

#[test]
fn one_batch_is_learned_by_heart() {
    let (rows, out) = (Rows::random(4, CONTEXT, 32, 2), tempfile::tempdir().unwrap());
    let summary = train(&config(80), &rows, out.path(), 2).unwrap();
    let first = summary.history[0].loss;
    assert!((first - f64::ln(32.0)).abs() < 0.8, "the first loss is {first}, expected about 3.5");
    assert!(summary.last.loss < 0.1, "the last loss is {}", summary.last.loss);
    let bits = summary.last.validation_bits_per_base.unwrap();
    assert!(bits < 0.1, "{bits} bits per base");
}

#[test]
fn micro_batches_change_nothing_but_memory() {
    let rows = Rows::random(10, CONTEXT, 32, 3);
    let train = |micro_batch_rows| {
        let out = tempfile::tempdir().unwrap();
        super::tests::train(&Config { micro_batch_rows, ..config(4) }, &rows, out.path(), 1).unwrap()
    };
    let (whole, parts) = (train(None), train(Some(3)));
    for (whole, part) in whole.history.iter().zip(&parts.history) {
        assert!((whole.loss - part.loss).abs() < 1e-4, "step {}: {} {}", whole.step, whole.loss, part.loss);
        assert!((whole.gradient_norm / part.gradient_norm - 1.0).abs() < 1e-3, "step {}", whole.step);
    }
}

#[test]
fn padding_is_never_predicted() {
    let out = tempfile::tempdir().unwrap();
    let mut rows = Rows::random(4, CONTEXT, 32, 4);
    rows.0.iter_mut().for_each(|row| row[1..].fill(0));
    let summary = train(&config(1), &rows, out.path(), 1).unwrap();
    assert_eq!((summary.last.loss, summary.last.bits_per_base), (0.0, None));
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let nothing = Rows(Vec::new());
    let wild = Rows::random(4, CONTEXT, 40, 5);
    let rows = Rows::random(4, CONTEXT, 32, 5);
    let fast = Config { learning_rate: 1e30, grad_clip: None, warmup: Some(Duration::Steps(1)), ..config(9) };
    let cases = [
        (config(1), &nothing, "there is no row to train on"),
        (config(1), &wild, "is outside the vocabulary of 32"),
        (fast, &rows, "a lower `learning_rate` or a longer `warmup` may help"),
    ];
    for (config, rows, expected) in cases {
        let out = tempfile::tempdir().unwrap();
        let error = train(&config, rows, out.path(), 1).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Rows with a loss weight for each token.
struct Weighed(Rows, Vec<Vec<u8>>);

impl TokenRows for Weighed {
    fn rows(&self) -> u64 {
        self.0.rows()
    }

    fn context(&self) -> usize {
        self.0.context()
    }

    fn read_row(&self, row: u64, tokens: &mut [i64]) {
        self.0.read_row(row, tokens);
    }

    fn loss_weights(&self, row: u64) -> Option<&[u8]> {
        Some(&self.1[usize::try_from(row).unwrap()])
    }
}

/// The tensors and records of a run on one thread without validation.
fn trained(config: &Config, rows: &dyn TokenRows) -> Result<([Vec<u8>; 2], Vec<Record>), Error> {
    let (stop, vocabulary, out) = (Stop::new(), vocabulary(), tempfile::tempdir().unwrap());
    let data = Data { rows, validation: None, vocabulary: &vocabulary, fingerprint: "" };
    let hooks = Hooks { observer: &Silent, stage: "train", stop: &stop, threads: 1 };
    let summary = run(config, data, out.path(), hooks)?;
    Ok((tensors(&summary.checkpoint), summary.history))
}

#[test]
fn tokens_count_as_their_weights_say() {
    let rows = || Rows::random(8, CONTEXT, 32, 7);
    let weighed = |weight: &dyn Fn(usize) -> u8| {
        let row = (0..usize::try_from(CONTEXT).unwrap()).map(weight).collect::<Vec<_>>();
        Weighed(rows(), vec![row; 8])
    };
    let (plain, losses) = trained(&config(3), &rows()).unwrap();
    assert!(trained(&config(3), &weighed(&|_| 250)).unwrap().0 == plain, "weight 1 changes nothing");
    let halves = weighed(&|i| if i < 12 { 250 } else { 0 });
    let (found, measured) = trained(&config(3), &halves).unwrap();
    assert!(found != plain, "weights count");
    assert!((measured[0].loss - losses[0].loss).abs() < 1e-9, "losses are told unweighted");
    let off = Config { loss_weights: false, ..config(3) };
    assert!(trained(&off, &halves).unwrap().0 == plain, "unless nobody wants them");
    // What comes behind the last token that counts is not learnt from.
    let mut other = weighed(&|i| if i < 12 { 250 } else { 0 });
    other.0.0.iter_mut().for_each(|row| row[12..].fill(5));
    assert!(trained(&config(3), &other).unwrap().0 == found, "weight 0 is no lesson");
    assert!(trained(&config(1), &weighed(&|_| 0)).unwrap().1[0].gradient_norm == 0.0);
    let error = trained(&config(1), &weighed(&|i| if i == 3 { 251 } else { 0 })).unwrap_err().to_string();
    assert!(error.contains("the loss weight at index 3 is the byte 251, expected at most 250"), "{error}");
}

#[test]
fn layers_computed_again_give_the_same_run() {
    let rows = Rows::random(8, CONTEXT, 32, 7);
    let again = Config { activation_checkpointing: true, ..config(3) };
    assert!(trained(&again, &rows).unwrap().0 == trained(&config(3), &rows).unwrap().0);
}

#[test]
fn z_loss_shrinks_scores_and_is_not_told_as_loss() {
    let rows = Rows::random(8, CONTEXT, 32, 7);
    let plain = trained(&config(3), &rows).unwrap();
    let (weights, history) = trained(&Config { z_loss: 0.1, ..config(3) }, &rows).unwrap();
    assert!((history[0].loss - plain.1[0].loss).abs() < 1e-6);
    assert!(weights != plain.0 && (history[0].gradient_norm - plain.1[0].gradient_norm).abs() > 1e-4);
}

#[test]
fn short_contexts_come_first() {
    let rows = Rows::random(8, CONTEXT, 32, 7);
    let warmup = |from| {
        let over = Duration::Steps(4);
        let context_warmup = Some(super::super::ContextWarmup { from, over });
        Config { context_warmup, batch_rows: 8, learning_rate: 1e-9, ..config(5) }
    };
    let loss = |config| trained(&config, &rows).unwrap().1.iter().map(|r| r.loss).collect::<Vec<_>>();
    let (whole, parts) = (loss(warmup(24)), loss(warmup(6)));
    // 6, 6, 12, 12, 24 tokens: nothing is learnt, so that only what is seen makes a difference.
    let same = |a: f64, b: f64| (a - b).abs() < 1e-6;
    assert!(!same(parts[0], whole[0]) && !same(parts[2], whole[2]) && !same(parts[0], parts[2]));
    assert!(same(parts[0], parts[1]) && same(parts[2], parts[3]) && same(parts[4], whole[4]));

    let resolved = warmup(6).resolve(8, 24, 32).unwrap();
    let model = Network::random(&resolved.model, 0, Device::Cpu).unwrap().olmo().unwrap();
    let ids = Tensor::from_slice(&rows.0.concat()).view([-1, 24]);
    let last = Tensor::full([8, 1], crate::loader::IGNORED, (Kind::Int64, Device::Cpu));
    let targets = Tensor::cat(&[ids.narrow(1, 1, 23), last], 1);
    let nats = tch::no_grad(|| model.nats(&ids.view([-1, 6]), &targets.reshape([-1, 6])).unwrap());
    let padded = targets.eq(0).sum(Kind::Int64).int64_value(&[]);
    let paddings = rows.0.iter().flat_map(|row| &row[1..]).filter(|id| **id == 0).count();
    assert_eq!(usize::try_from(padded), Ok(paddings));
    let nats = nats.masked_fill(&targets.reshape([-1, 6]).eq(0), 0.0).sum(Kind::Double).double_value(&[]);
    let expected = nats / (8 * 23 - padded) as f64;
    assert!((parts[0] - expected).abs() < 1e-5, "{} is no {expected}", parts[0]);
}

/// Token 31 has no numbers in the embedding, so that every batch with it has none for its loss.
#[test]
fn steps_without_numbers_are_skipped_and_told_until_they_are_too_many() {
    struct Notes(std::sync::Mutex<Vec<String>>);
    impl Observer for Notes {
        fn event(&self, event: &Event) {
            if let Event::Note { message, .. } = event {
                self.0.lock().unwrap().push(message.clone());
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let overrides = crate::model::Overrides { tied_head: Some(false), ..Default::default() };
    let shape = crate::model::Config::resolve(Some(Preset::Olmo300k), &overrides, 32, 24).unwrap();
    let shape = crate::model::Config { padded_vocabulary: 32, ..shape };
    let weights = Weights::random(&shape, 1, Device::Cpu).unwrap();
    let _nan = weights.tensors()[0].narrow(0, 31, 1).fill_(f64::NAN);
    let ids = crate::model::hf::SpecialIds::default();
    let json = crate::model::hf::write_config(&shape, ids).to_string();
    std::fs::write(folder.path().join("config.json"), json).unwrap();
    weights::write(&folder.path().join("model.safetensors"), &[("", &weights)]).unwrap();

    let mut rows = Rows::random(12, CONTEXT, 31, 7);
    rows.0[5][3] = 31;
    let initialize = Some(Initialize { hf: folder.path().to_owned() });
    let config = Config { preset: None, initialize, ..config(6) };
    let run_with = |config: &Config, rows: &Rows, notes: &Notes| {
        let (stop, vocabulary, out) = (Stop::new(), vocabulary(), tempfile::tempdir().unwrap());
        let data = Data { rows, validation: None, vocabulary: &vocabulary, fingerprint: "" };
        let hooks = Hooks { observer: notes, stage: "train", stop: &stop, threads: 1 };
        let summary = run(config, data, out.path(), hooks)?;
        let (state, model) = checkpoint::load(&summary.checkpoint, Device::Cpu)?;
        Ok::<_, Error>((state, model))
    };
    for ahead in [false, true] {
        AHEAD.set(ahead);
        let notes = Notes(std::sync::Mutex::default());
        let (state, model) = run_with(&config, &rows, &notes).unwrap();
        let notes = notes.0.into_inner().unwrap();
        assert_eq!((state.progress.skipped, state.progress.step), (2, 6), "6 steps of 4 rows are 2 epochs");
        assert!(notes.len() == 2 && notes[0].contains("is skipped: the loss is NaN"), "{notes:?}");
        let finite = |t: &Tensor| t.isfinite().all().int64_value(&[]) == 1;
        assert!(model.weights().tensors()[1..].iter().all(finite));

        let mut all = Rows(rows.0.clone());
        all.0.iter_mut().for_each(|row| row[3] = 31);
        let notes = Notes(std::sync::Mutex::default());
        let limited = Config { max_skipped_steps: 2, ..config.clone() };
        let error = run_with(&limited, &all, &notes).unwrap_err().to_string();
        assert!(
            error.starts_with("step 3: the loss is NaN") && error.contains("the 2 steps before"),
            "{error}"
        );
        assert_eq!(notes.0.into_inner().unwrap().len(), 2);
    }
    AHEAD.set(false);
}

#[test]
fn the_newest_checkpoints_and_the_best_one_are_kept() {
    let rows = Rows::random(6, CONTEXT, 32, 9);
    let every = Some(Duration::Steps(1));
    let config = Config {
        checkpoint_every: every,
        evaluate_every: every,
        keep_checkpoints: 2,
        keep_best: true,
        // Better for some steps, then worse and worse.
        learning_rate: 0.3,
        warmup: Some(Duration::Steps(12)),
        decay: crate::train::schedule::Decay::Constant,
        grad_clip: None,
        ..config(12)
    };
    for ranks in [1, 2] {
        let out = tempfile::tempdir().unwrap();
        let summary = train_ranks(&config, &rows, out.path(), ranks, NEVER).swap_remove(0).unwrap();
        let best =
            summary.history.iter().min_by(|a, b| a.validation_loss.partial_cmp(&b.validation_loss).unwrap());
        let best = best.unwrap().step;
        assert!(best < 11, "the best step is {best}: the test needs a run that gets worse");
        let mut names = std::fs::read_dir(out.path().join("checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>();
        names.sort_unstable();
        assert_eq!(names, [best, 11, 12].map(|step| format!("step-{step:08}")));
        let (state, _) =
            checkpoint::load(&out.path().join("checkpoints").join(&names[0]), Device::Cpu).unwrap();
        assert_eq!(state.progress.best.unwrap().step, best);
    }
}

#[test]
fn documents_must_be_told_to_be_masked() {
    let rows = Rows::random(4, CONTEXT, 32, 1);
    let error = trained(&Config { document_mask: true, ..config(1) }, &rows).unwrap_err().to_string();
    assert_eq!(error, "`document_mask`: the training rows do not say where documents end; pack them again");
}

#[test]
fn checkpoints_of_another_tokenizer_or_other_shards_are_refused() {
    let (rows, out) = (Rows::random(10, CONTEXT, 32, 1), tempfile::tempdir().unwrap());
    let attempt = |tokenizer: &str, fingerprint| {
        let vocabulary = Vocabulary { fingerprint: tokenizer.to_owned(), ..vocabulary() };
        let data = Data { rows: &rows, validation: None, vocabulary: &vocabulary, fingerprint };
        let hooks = Hooks { observer: &Silent, stage: "train", stop: &Stop::new(), threads: 1 };
        run(&config(1), data, out.path(), hooks).map(drop).map_err(|error| error.to_string())
    };
    attempt("bpe", "rows").unwrap();
    let error = attempt("k-mers", "rows").unwrap_err();
    assert!(error.ends_with("has another tokenizer: bpe there, k-mers here"), "{error}");
    let error = attempt("bpe", "other rows").unwrap_err();
    assert!(error.ends_with("has another set of rows: rows there, other rows here"), "{error}");
    let state = out.path().join("checkpoints/step-00000001/checkpoint.json");
    let text = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, text.replace("genomill.checkpoint/3", "genomill.checkpoint/1")).unwrap();
    let error = attempt("bpe", "rows").unwrap_err();
    assert!(
        error.ends_with(
            "is of the format `genomill.checkpoint/1`, this genomill reads `genomill.checkpoint/3` and \
             `genomill.checkpoint/2`"
        ),
        "{error}"
    );
}

#[test]
fn events_need_no_listener() {
    let (stop, vocabulary, rows) = (Stop::new(), vocabulary(), Rows::random(4, CONTEXT, 32, 6));
    let data = Data { rows: &rows, validation: None, vocabulary: &vocabulary, fingerprint: "" };
    let out = tempfile::tempdir().unwrap();
    let hooks = Hooks { observer: &Silent, stage: "train", stop: &stop, threads: 1 };
    let summary = run(&config(1), data, out.path(), hooks).unwrap();
    assert_eq!((summary.last.validation_loss, summary.last.tokens), (None, 4 * CONTEXT));
}

/// HyenaDNA's vocabulary, and rows in which much is to be learnt: each repeats a few bases of its own.
fn bases() -> (Vocabulary, Rows) {
    let tokenizer = Nucleotide::hyena();
    let bases = (0..tokenizer.vocabulary_size()).map(|id| tokenizer.bases(id)).collect();
    let (pad, tokenizer) = (tokenizer.special("[PAD]"), tokenizer.to_json());
    let vocabulary = Vocabulary { bases, pad, begin: None, fingerprint: "bases".to_owned(), tokenizer };
    let mut rows = Rows::random(12, CONTEXT, 4, 5);
    for row in &mut rows.0 {
        (0..row.len()).for_each(|i| row[i] = if i < 4 { row[i] + 7 } else { row[i - 4] });
    }
    rows.0[0][20..].fill(4);
    (vocabulary, rows)
}

fn peers() -> [Named; 2] {
    [model::hyena::Preset::Tiny1k.into(), model::dnabert2::Preset::Small300k.into()]
}

fn train_peer(config: &Config, out: &Path, threads: usize, step: u64) -> Result<Summary, Error> {
    let ((vocabulary, rows), stop) = (bases(), Stop::new());
    let observer = StopAt(step, &stop);
    let data = Data { rows: &rows, validation: Some(&rows), vocabulary: &vocabulary, fingerprint: "rows" };
    run(config, data, out, Hooks { observer: &observer, stage: "train", stop: &stop, threads })
}

/// Hidden tokens are the same again after a stop, and the same in every validation.
#[test]
fn peers_learn_and_stopped_runs_go_on_bit_for_bit() {
    for preset in peers() {
        let config = Config {
            preset: Some(preset),
            evaluate_every: Some(Duration::Steps(1)),
            mask_rate: matches!(preset, Named::Dnabert2(_)).then_some(0.3),
            ..config(8)
        };
        let mut bytes = Vec::new();
        for threads in [1, 2] {
            let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let expected = train_peer(&config, whole.path(), threads, u64::MAX).unwrap();
            let stopped = train_peer(&config, parts.path(), threads, 3).unwrap_err();
            assert!(matches!(stopped, Error::Stopped { step: 3, .. }), "{stopped}");
            let found = train_peer(&config, parts.path(), threads, u64::MAX).unwrap();
            assert_eq!(losses(&found.history), losses(&expected.history), "{preset}");
            bytes.push(tensors(&found.checkpoint));
            assert!(bytes[0] == tensors(&expected.checkpoint) && bytes[0] == *bytes.last().unwrap());
            let loss = |record: &Record| record.validation_loss.unwrap();
            let (first, last) = (loss(&found.history[0]), loss(&found.last));
            assert!(last < 0.9 * first, "{preset}: from {first} to {last}");
            assert_eq!(found.last.validation_bits_per_base.is_some(), config.mask_rate.is_none());
        }
    }
}

#[test]
fn what_peers_cannot_be_trained_on_is_refused() {
    let [hyena, masked] = peers();
    let run_with = |preset, rows: &Rows, vocabulary: &Vocabulary| {
        let out = tempfile::tempdir().unwrap();
        let data = Data { rows, validation: None, vocabulary, fingerprint: "" };
        let hooks = Hooks { observer: &Silent, stage: "train", stop: &Stop::new(), threads: 1 };
        let config = Config { preset: Some(preset), ..config(1) };
        run(&config, data, out.path(), hooks).unwrap_err().to_string()
    };
    let (vocabulary, rows) = bases();
    let long = Rows::random(2, 1027, 12, 1);
    let error = run_with(hyena, &long, &vocabulary);
    assert!(
        error.contains("rows of 1027 tokens are longer than what `hyenadna-tiny-1k` takes, 1026"),
        "{error}"
    );
    let kmer = crate::tokenizer::kmer::Config { k: 2, overlapping: false };
    let tokenizer = crate::tokenizer::kmer::Kmer::new(kmer).unwrap().to_json();
    let error = run_with(hyena, &rows, &Vocabulary { tokenizer, ..vocabulary.clone() });
    assert!(error.contains("for id 0, HyenaDNA expects `[CLS]`: take"), "{error}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/data/dnabert2_tokenizer.json");
    let tokenizer = std::fs::read_to_string(path).unwrap().replace("[MASK]", "[HIDE]");
    let error = run_with(masked, &rows, &Vocabulary { tokenizer, ..vocabulary });
    assert!(error.starts_with("the shards' tokenizer has no `[MASK]`"), "{error}");
}

#[test]
fn a_peer_with_nothing_to_guess_stays_as_it_is_but_for_decay() {
    let (vocabulary, mut rows) = bases();
    rows.0.iter_mut().for_each(|row| row[..].fill(4));
    for preset in peers() {
        let out = tempfile::tempdir().unwrap();
        let data = Data { rows: &rows, validation: None, vocabulary: &vocabulary, fingerprint: "" };
        let hooks = Hooks { observer: &Silent, stage: "train", stop: &Stop::new(), threads: 1 };
        let config = Config { preset: Some(preset), z_loss: 1e-4, ..config(1) };
        let summary = run(&config, data, out.path(), hooks).unwrap();
        assert!(summary.last.gradient_norm == 0.0 && summary.last.loss == 0.0, "{preset}: {summary:?}");
    }
}

/// Trains by several ranks, each on a thread of its own, until one of them is asked to stop after a step.
fn train_ranks(
    config: &Config,
    rows: &Rows,
    out: &Path,
    ranks: usize,
    stop_at: (usize, u64),
) -> Vec<Result<Summary, Error>> {
    train_ranks_in(config, rows, &vec![out; ranks], stop_at)
}

/// The same, each in its folder.
fn train_ranks_in(
    config: &Config,
    rows: &Rows,
    outs: &[&Path],
    stop_at: (usize, u64),
) -> Vec<Result<Summary, Error>> {
    let ranks = outs.len();
    let folder = tempfile::tempdir().unwrap();
    let meeting = Meeting::File(folder.path().join("store"));
    let place = |rank| Place {
        rank,
        ranks,
        here: None,
        local: None,
        meeting: meeting.clone(),
        interface: None,
        attempt: String::new(),
        patience: Time::from_secs(20),
    };
    let one = |rank| {
        // One rank is a process by itself.
        let group = (ranks > 1).then(|| Group::join(place(rank)).unwrap());
        let (stop, vocabulary) = (Stop::new(), vocabulary());
        // Only rank 0 is told of steps: where another is to stop, it is asked before the first one.
        let (whose, step) = stop_at;
        let observer = StopAt(if whose == rank { step } else { u64::MAX }, &stop);
        if whose == rank && rank > 0 {
            stop.request();
        }
        let data = Data { rows, validation: Some(rows), vocabulary: &vocabulary, fingerprint: "rows" };
        let hooks = Hooks { observer: &observer, stage: "train", stop: &stop, threads: 1 };
        let result = run_shared(config, data, outs[rank], hooks, group.as_ref());
        // Nobody leaves while another may still need the store.
        drop(group.map(|group| group.barrier()));
        result
    };
    std::thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..ranks).map(|rank| scope.spawn(move || one(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

const NEVER: (usize, u64) = (0, u64::MAX);

/// The tensors in the files of a checkpoint whose names begin so, by name.
fn named(checkpoint: &Path, prefix: &str) -> Vec<(String, Tensor)> {
    let all = files(checkpoint, prefix).into_iter().flat_map(|path| Tensor::read_safetensors(path).unwrap());
    let mut all = all.collect::<Vec<_>>();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The largest difference between the values of two checkpoints in the files whose names begin so.
fn apart(a: &Path, b: &Path, prefix: &str) -> f64 {
    let (a, b) = (named(a, prefix), named(b, prefix));
    assert!(a.len() == b.len() && a.len() > 10);
    let difference = |((name, a), (other, b)): (&(String, Tensor), &(String, Tensor))| {
        assert_eq!(name, other);
        (a - b).abs().max().double_value(&[])
    };
    a.iter().zip(&b).map(difference).fold(0.0, f64::max)
}

fn same_course(found: &[Record], expected: &[Record]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let near = |a: f64, b: f64, what: &str| {
            assert!((a - b).abs() < 2e-5 * b.abs().max(1.0), "step {}: {what} {a} and {b}", expected.step);
        };
        near(found.loss, expected.loss, "loss");
        near(found.gradient_norm, expected.gradient_norm, "norm");
        near(
            found.validation_loss.unwrap_or(0.0),
            expected.validation_loss.unwrap_or(0.0),
            "validation loss",
        );
        assert_eq!((found.step, found.tokens), (expected.step, expected.tokens));
    }
}

#[test]
fn ranks_do_what_one_process_does() {
    let mut rows = Rows::random(10, CONTEXT, 32, 1);
    rows.0[3][4..].fill(0);
    rows.0[7][9..].fill(0);
    let every = Some(Duration::Steps(3));
    let config = Config { evaluate_every: every, checkpoint_every: every, ..config(10) };
    let alone = tempfile::tempdir().unwrap();
    let expected = train(&config, &rows, alone.path(), 1).unwrap();
    for ranks in [1, 2, 3] {
        let out = tempfile::tempdir().unwrap();
        let found = train_ranks(&config, &rows, out.path(), ranks, NEVER);
        let found: Vec<Summary> = found.into_iter().map(Result::unwrap).collect();
        same_course(&found[0].history, &expected.history);
        assert!(found[1..].iter().all(|other| other.history.is_empty()));
        for prefix in ["model.", "optimizer"] {
            let off = apart(&found[0].checkpoint, &expected.checkpoint, prefix);
            assert!(off < 2e-4, "{ranks} ranks: {prefix} differs by {off}");
        }
        assert!(found.iter().all(|rank| rank.checkpoint == found[0].checkpoint));
        assert_eq!(files(&found[0].checkpoint, "optimizer").len(), ranks);
        assert_eq!(std::fs::read_dir(out.path().join("checkpoints")).unwrap().count(), 1);
    }
}

#[test]
fn any_number_of_ranks_goes_on_where_any_other_stopped() {
    let rows = Rows::random(10, CONTEXT, 32, 1);
    let config = config(6);
    let whole = tempfile::tempdir().unwrap();
    let expected = train(&config, &rows, whole.path(), 1).unwrap();
    for (first, then) in [(2, 1), (1, 2), (2, 3)] {
        let out = tempfile::tempdir().unwrap();
        let stopped = train_ranks(&config, &rows, out.path(), first, (0, 3));
        for stopped in stopped {
            assert!(matches!(stopped, Err(Error::Stopped { step: 3, .. })), "{stopped:?}");
        }
        let found = train_ranks(&config, &rows, out.path(), then, NEVER).swap_remove(0).unwrap();
        same_course(&found.history, &expected.history);
        let off = apart(&found.checkpoint, &expected.checkpoint, "optimizer");
        assert!(off < 2e-4, "{first} ranks, then {then}: the moments differ by {off}");
    }
}

#[test]
fn stopped_ranks_go_on_bit_for_bit() {
    let rows = Rows::random(10, CONTEXT, 32, 1);
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = train_ranks(&config(6), &rows, whole.path(), 2, NEVER).swap_remove(0).unwrap();
    drop(train_ranks(&config(6), &rows, parts.path(), 2, (0, 3)));
    let found = train_ranks(&config(6), &rows, parts.path(), 2, NEVER).swap_remove(0).unwrap();
    assert_eq!(losses(&found.history), losses(&expected.history));
    assert!(tensors(&found.checkpoint) == tensors(&expected.checkpoint));
}

/// A run that ranks stopped after its third step, and its checkpoint.
fn stopped(rows: &Rows, ranks: usize) -> (tempfile::TempDir, PathBuf) {
    let out = tempfile::tempdir().unwrap();
    drop(train_ranks(&config(6), rows, out.path(), ranks, (0, 3)));
    let checkpoint = out.path().join("checkpoints/step-00000003");
    assert_eq!(files(&checkpoint, "optimizer").len(), ranks);
    (out, checkpoint)
}

/// What several ranks wrote goes on, by any number, with the bits of what one file of format 2 holds.
#[test]
fn moments_in_parts_are_those_of_one_file() {
    let rows = Rows::random(10, CONTEXT, 32, 1);
    for (ranks, then) in [(2, 1), (1, 2), (3, 2)] {
        let go_on = |one_file: bool| {
            let (out, checkpoint) = stopped(&rows, ranks);
            if one_file {
                into_format_2(&checkpoint);
            }
            let found = train_ranks(&config(6), &rows, out.path(), then, NEVER).swap_remove(0).unwrap();
            assert_eq!(files(&found.checkpoint, "optimizer").len(), then);
            (losses(&found.history), tensors(&found.checkpoint))
        };
        assert!(go_on(false) == go_on(true), "{ranks} ranks, then {then}");
    }
}

/// Puts all moments of a checkpoint into one file, as they were before.
fn into_format_2(checkpoint: &Path) {
    let all = named(checkpoint, "optimizer");
    let (path, state) = (checkpoint.join("optimizer.safetensors"), checkpoint.join("checkpoint.json"));
    for path in files(checkpoint, "optimizer") {
        std::fs::remove_file(path).unwrap();
    }
    weights::write_named(&path, all).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
    json["format"] = "genomill.checkpoint/2".into();
    let listed = json["files"].as_object_mut().unwrap();
    listed.retain(|name, _| !name.starts_with("optimizer"));
    let hash = blake3::hash(&std::fs::read(&path).unwrap()).to_string();
    listed.insert("optimizer.safetensors".to_owned(), hash.into());
    std::fs::write(state, json.to_string()).unwrap();
}

/// Something done to the files of moments.
type Damage = fn(&[PathBuf]);

#[test]
fn a_part_that_is_missing_cut_or_swapped_is_refused_by_all() {
    let rows = Rows::random(10, CONTEXT, 32, 1);
    let cases: [(Damage, &str); 4] = [
        (
            |paths| std::fs::remove_file(&paths[1]).unwrap(),
            "optimizer-00001-of-00002.safetensors`: no such file",
        ),
        (|paths| cut(&paths[0]), "optimizer-00000-of-00002.safetensors` is damaged: its blake3 is"),
        (|paths| cut(&paths[1]), "optimizer-00001-of-00002.safetensors` is damaged: its blake3 is"),
        (swap, "optimizer-00000-of-00002.safetensors` is damaged: its blake3 is"),
    ];
    for (damage, expected) in cases {
        let (out, checkpoint) = stopped(&rows, 2);
        damage(&files(&checkpoint, "optimizer"));
        for ranks in [1, 2, 3] {
            let all = train_ranks(&config(6), &rows, out.path(), ranks, NEVER);
            let all = all.into_iter().map(|error| error.unwrap_err().to_string()).collect::<Vec<_>>();
            assert!(all.iter().any(|error| error.contains(expected)), "{ranks} ranks: {all:?}");
            let named = |error: &String| error.contains(".safetensors`") && error.contains("optimizer-0000");
            assert!(all.iter().all(named), "{ranks} ranks: {all:?}");
        }
    }
}

fn cut(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
}

fn swap(paths: &[PathBuf]) {
    let [first, second] = [0, 1].map(|at: usize| std::fs::read(&paths[at]).unwrap());
    std::fs::write(&paths[0], second).unwrap();
    std::fs::write(&paths[1], first).unwrap();
}

#[test]
fn ranks_that_do_not_share_the_folder_are_told_so() {
    let rows = Rows::random(10, CONTEXT, 32, 1);
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let all = train_ranks_in(&config(2), &rows, &[here.path(), here.path(), there.path()], NEVER);
    let all = all.into_iter().map(|error| error.unwrap_err().to_string()).collect::<Vec<_>>();
    let expected = format!("rank 2 does not see `{}/checkpoints/part-", there.path().display());
    assert!(all[2].starts_with(&expected), "{}", all[2]);
    for (rank, error) in all[..2].iter().enumerate() {
        let expected = format!("rank 2 of 3 failed, and rank {rank} stops: {expected}");
        assert!(error.starts_with(&expected), "{error}");
    }
    assert_eq!(std::fs::read_dir(here.path().join("checkpoints")).unwrap().count(), 0);
}

#[test]
fn ranks_give_the_same_bits_however_often_they_run_and_however_gradients_come() {
    let rows = Rows::random(10, CONTEXT, 32, 1);
    // Five micro-batches for the first rank.
    let few = Config { batch_rows: 9, micro_batch_rows: Some(1), ..config(4) };
    let run = |config: &Config| {
        let out = tempfile::tempdir().unwrap();
        let found = train_ranks(config, &rows, out.path(), 2, NEVER).swap_remove(0).unwrap();
        tensors(&found.checkpoint)
    };
    let expected = run(&few);
    for again in 0..3 {
        assert!(run(&few) == expected, "run {again}");
    }
    let layers = Config { activation_checkpointing: true, ..few };
    assert!(run(&layers) == expected, "layer by layer");
}

#[test]
fn a_request_to_any_rank_stops_all() {
    let (rows, out) = (Rows::random(10, CONTEXT, 32, 1), tempfile::tempdir().unwrap());
    for stopped in train_ranks(&config(6), &rows, out.path(), 2, (1, 0)) {
        assert!(matches!(stopped, Err(Error::Stopped { step: 0, .. })), "{stopped:?}");
    }
    assert!(out.path().join("checkpoints/step-00000000").is_dir());
}

#[test]
fn the_mean_is_over_all_targets_of_all_ranks() {
    let rows = Rows::random(8, CONTEXT, 32, 1);
    // The mean over ranks is another than the mean of their means.
    let weight = |row: usize| vec![[250, 10][row % 2]; usize::try_from(CONTEXT).unwrap()];
    let rows = Weighed(rows, (0..8).map(weight).collect());
    let run_with = |group: Option<&Group>, out: &Path| {
        let (stop, vocabulary) = (Stop::new(), vocabulary());
        let data = Data { rows: &rows, validation: None, vocabulary: &vocabulary, fingerprint: "rows" };
        let hooks = Hooks { observer: &Silent, stage: "train", stop: &stop, threads: 1 };
        run_shared(&config(5), data, out, hooks, group).unwrap()
    };
    let (alone, shared, meeting) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = run_with(None, alone.path());
    let one = |rank| {
        let place = Place {
            rank,
            ranks: 2,
            here: None,
            local: None,
            meeting: Meeting::File(meeting.path().join("store")),
            interface: None,
            attempt: String::new(),
            patience: Time::from_secs(20),
        };
        let group = Group::join(place).unwrap();
        let summary = run_with(Some(&group), shared.path());
        group.barrier().unwrap();
        summary
    };
    let found = std::thread::scope(|scope| {
        let other = scope.spawn(|| one(1));
        let found = one(0);
        drop(other.join().unwrap());
        found
    });
    same_course(&found.history, &expected.history);
}

#[test]
fn what_ranks_cannot_share_is_refused_by_all() {
    let (rows, out) = (Rows::random(10, CONTEXT, 32, 1), tempfile::tempdir().unwrap());
    for error in train_ranks(&Config { batch_rows: 1, ..config(1) }, &rows, out.path(), 2, NEVER) {
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "`batch_rows` is 1: 2 ranks need at least one row each");
    }
    let mut wild = Rows::random(10, CONTEXT, 32, 1);
    wild.0.iter_mut().for_each(|row| row[3] = 31);
    let limited =
        Config { learning_rate: 1e30, grad_clip: None, warmup: Some(Duration::Steps(1)), ..config(9) };
    for error in train_ranks(&limited, &wild, out.path(), 2, NEVER) {
        assert!(matches!(error, Err(Error::NotFinite { .. })), "{error:?}");
    }
}
