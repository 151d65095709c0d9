//! Data as a run on the genome of yeast would give it, for tests and for looking at the page.

use crate::metric::interval::Estimate;
use crate::metric::scores::Metric;
use crate::report::leaderboard::sides::{Figure, Side};
use crate::report::leaderboard::{Leaderboard, Row, SourceOf};
use crate::report::{
    Account, Audited, Command, Contamination, Count, Data, Dropped, Duplicates, Evaluation, Fact, Histogram,
    Leak, Leaks, Machine, Markov, MarkovOrder, MixedSource, Mixture, ModelScore, Part, Point, Sequence,
    Shard, Shared, Source, Split, Stage, Status, Token, TokenLength, Tokens, Training, Vocabularies,
    Vocabulary, Without,
};
use crate::sequence::statistics::Counter;

/// A report with every section.
pub fn full() -> Data {
    Data {
        workflow: "yeast".into(),
        description: Some(
            "Trains a small model on the genome of Saccharomyces cerevisiae and holds out two chromosomes."
                .into(),
        ),
        version: "0.1.0".into(),
        date: "2026-11-24 07:45 UTC".into(),
        machine: Some(Machine {
            cpu: "Xeon Platinum 8481C".into(),
            cores: 2,
            memory: 24_696_061_952,
            accelerator: None,
        }),
        failures: Vec::new(),
        stages: stages(),
        sources: sources(),
        sequences: sequences(),
        accounts: accounts(),
        lengths: lengths(),
        tokens: Some(tokens()),
        vocabularies: Some(vocabularies()),
        splits: splits(),
        mixtures: vec![mixture()],
        leaks: vec![leaks()],
        contamination: vec![contamination()],
        shards: shards(),
        training: Some(training()),
        evaluations: vec![evaluation("validation", 1.921), evaluation("test", 1.918)],
        study: Some(crate::report::study::tests::grid()),
        audits: vec![audited()],
        leaderboard: Some(leaderboard()),
        commands: vec![
            command(
                "Run the workflow again; what is unchanged is reused.",
                "genomill run workflows/yeast.yaml",
            ),
            command(
                "Run it from nothing.",
                "genomill run workflows/yeast.yaml --work scratch --force ingest",
            ),
        ],
    }
}

fn command(purpose: &str, line: &str) -> Command {
    Command { purpose: purpose.into(), line: line.into() }
}

fn stages() -> Vec<Stage> {
    let of: [(&str, &str, &[&str], f64); 13] = [
        ("genome", "ingest", &[], 0.41),
        ("reads", "ingest", &[], 2.84),
        ("clean-genome", "clean", &["genome"], 0.33),
        ("clean-reads", "clean", &["reads"], 1.12),
        ("split", "split", &["clean-genome"], 0.02),
        ("chunks", "chunk", &["split"], 0.08),
        ("vocabulary", "tokenizer", &["clean-genome", "split"], 6.7),
        ("tokens", "tokenize", &["chunks", "vocabulary"], 0.92),
        ("read-tokens", "tokenize", &["clean-reads", "vocabulary"], 1.4),
        ("shards", "shard", &["tokens"], 0.21),
        ("model", "train", &["shards", "vocabulary"], 192.4),
        ("scores", "evaluate", &["model", "shards", "vocabulary", "split"], 24.6),
        ("report", "report", &["scores", "model", "shards", "tokens", "read-tokens"], 0.1),
    ];
    of.into_iter().enumerate().map(stage).collect()
}

fn stage((index, (name, kind, inputs, seconds)): (usize, (&str, &str, &[&str], f64))) -> Stage {
    let cleaned = kind == "clean";
    Stage {
        name: name.into(),
        kind: kind.into(),
        inputs: inputs.iter().map(|&input| input.into()).collect(),
        status: if index < 2 { Status::Reused } else { Status::Ran },
        reason: Some(
            if index < 2 { "its artifact is whole and unchanged" } else { "its config has changed" }.into(),
        ),
        wall_seconds: Some(seconds),
        counts: vec![
            Count { unit: "records".into(), before: Some(17), after: Some(if cleaned { 16 } else { 17 }) },
            Count {
                unit: "bases".into(),
                before: Some(12_157_105),
                after: Some(if cleaned { 12_071_326 } else { 12_157_105 }),
            },
        ],
        dropped: if cleaned { dropped() } else { Vec::new() },
        config: Some(format!("uses: {kind}\nmin_length: 1000\nambiguous: keep")),
        action_key: Some("9f2ab81d03c4e5f60718293a4b5c6d7e8f90".into()),
    }
}

fn dropped() -> Vec<Dropped> {
    vec![
        Dropped { reason: "excluded by name".into(), unit: "records".into(), count: 1 },
        Dropped { reason: "excluded by name".into(), unit: "bases".into(), count: 85_779 },
    ]
}

fn sources() -> Vec<Source> {
    vec![
        Source {
            name: "genome".into(),
            format: "FASTA".into(),
            record: "contigs".into(),
            records: 17,
            bases: 12_157_105,
            longest: Some(1_531_933),
            n50: Some(924_431),
            gc: Some(0.381_6),
            ambiguous: Some(0),
            bytes: Some(3_379_051),
        },
        Source {
            name: "reads".into(),
            format: "BAM".into(),
            record: "reads".into(),
            records: 48_211,
            bases: 2_410_550,
            longest: Some(50),
            n50: Some(50),
            gc: Some(0.412),
            ambiguous: Some(1_204),
            bytes: Some(2_204_118),
        },
    ]
}

fn sequences() -> Vec<Sequence> {
    let statistics = |lengths: &[u64]| {
        let mut counter = Counter::default();
        for &length in lengths {
            counter.end_stretch();
            let gc = length / 1_000 % 7;
            let window = "g".repeat(1_000) + &"A".repeat(1_000 + 100 * usize::try_from(gc).unwrap());
            (0..20).for_each(|i| counter.push(i * window.len() as u64, window.as_bytes()));
            counter.push(900_000, b"NNNNNRYY");
            counter.add_record(length);
        }
        counter.statistics()
    };
    let sequence = |part, name: &str, stage: &str, lengths: &[u64]| Sequence {
        part,
        name: name.into(),
        stage: stage.into(),
        statistics: statistics(lengths),
        ..Sequence::default()
    };
    let duplicates =
        Duplicates { stage: "unique".into(), unit: "windows".into(), compared: 12_074, exact: 61, near: 402 };
    let shared = Shared { stage: "overlap".into(), within: "train".into(), windows: 949, shared: 17 };
    vec![
        Sequence { duplicates: vec![duplicates], ..sequence(Part::Source, "genome", "genome", &CONTIGS) },
        sequence(Part::Split, "train", "split", &CONTIGS[..14]),
        Sequence { shared: vec![shared], ..sequence(Part::Split, "test", "split", &CONTIGS[15..16]) },
    ]
}

fn accounts() -> Vec<Account> {
    let account = |part, name: &str, stage: &str, (before, after), reason: &str| Account {
        part,
        name: name.into(),
        stage: stage.into(),
        before,
        after,
        dropped: vec![Dropped { reason: reason.into(), unit: "bases".into(), count: before - after }],
    };
    vec![
        account(Part::Source, "genome", "unique", (12_157_105, 11_694_021), "near duplicate"),
        account(Part::Split, "train", "chunks", (10_031_969, 10_031_457), "tail shorter than the window"),
    ]
}

const CONTIGS: [u64; 17] = [
    230_218, 813_184, 316_620, 1_531_933, 576_874, 270_161, 1_090_940, 562_643, 439_888, 745_751, 666_816,
    1_078_177, 924_431, 784_333, 1_091_291, 948_066, 85_779,
];

fn lengths() -> Vec<Histogram> {
    let reads = (20..=50)
        .map(|length| (length, if length == 50 { 31_000 } else { 8 * (length - 19) * (length - 19) }));
    vec![
        Histogram::new("Contigs of genome", "contigs", "bases", CONTIGS.map(|length| (length, 1))),
        Histogram::new("Reads of reads", "reads", "bases", reads),
        Histogram::new("Chunks", "chunks", "bases", [(512, 23_500), (37, 1), (211, 2), (480, 6), (3_000, 1)]),
    ]
}

fn tokens() -> Tokens {
    let frequencies: Vec<u64> =
        (1..=4_085_u64).map(|rank| 120_000 / (rank + 18) + rank % 3).chain([0; 6]).collect();
    let length = |bases: u64| {
        let spread = |middle: f64, width: f64| (-(bases as f64 - middle).powi(2) / width).exp();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and small")]
        let of = |size: f64, middle, width| (size * spread(middle, width)) as u64;
        TokenLength { bases, vocabulary: 4 + of(1_200.0, 6.4, 4.0), corpus: 2 + of(700_000.0, 5.4, 5.0) }
    };
    let token = |id, text: &str, count| Token { id, text: text.into(), count };
    Tokens {
        kind: "byte-pair encoding".into(),
        origin: Some("trained on the train split (10,274,956 bases)".into()),
        vocabulary: 4_096,
        special: 5,
        corpus: Some("train split".into()),
        tokens: frequencies.iter().sum(),
        bases: frequencies.iter().sum::<u64>() * 516 / 100,
        frequencies,
        lengths: (1..=19).map(length).collect(),
        longest: vec![
            token(3_911, "CACACACCCACACACCACACC", 61),
            token(2_871, "TTTTTTTTTTTTTTTTTTT", 14),
            token(1_204, "ATATATATATATATATAT", 33),
        ],
        frequent: vec![token(23, "TTTT", 6_316), token(31, "AAAA", 6_210), token(17, "GAA", 5_990)],
    }
}

fn vocabularies() -> Vocabularies {
    let row = |(size, ratio, bits): (u64, f64, f64)| Vocabulary {
        name: format!("vocabulary={size}"),
        kind: "bpe".into(),
        size,
        bases_per_token: Some(ratio),
        unigram_bits_per_base: Some(bits),
        train_unigram_bits_per_base: Some(bits + 0.002 + size as f64 / 6e5),
        unused: Some(size / 40),
        shard_bytes: Some(24_000_000 / u64::from(size.ilog2())),
        shard_bases: Some(12_071_326),
        bases_per_second: Some(9e7 - size as f64 * 1e3),
    };
    let rows = [(16, 1.58, 1.956), (64, 2.42, 1.951), (256, 3.44, 1.946), (1_024, 4.4, 1.94)];
    let more = [(4_096, 5.37, 1.929), (16_384, 6.35, 1.87), (65_536, 7.4, 1.703)];
    let rows = rows.into_iter().chain(more).map(row).collect();
    Vocabularies { split: "test".into(), bases: 948_066, rows }
}

fn splits() -> Vec<Split> {
    let split = |name: &str, contigs: &[&str], bases: u64| Split {
        name: name.into(),
        contigs: contigs.iter().map(|&contig| contig.into()).collect(),
        records: contigs.len() as u64,
        bases,
        rows: Some(bases / 660),
        tokens: Some(bases * 100 / 516),
        token_bases: Some(bases),
    };
    let train = [
        "chrI", "chrII", "chrIII", "chrIV", "chrV", "chrVI", "chrVII", "chrVIII", "chrIX", "chrX", "chrXI",
        "chrXII", "chrXIII", "chrXIV",
    ];
    vec![
        split("train", &train, 10_031_969),
        split("validation", &["chrXV"], 1_091_291),
        split("test", &["chrXVI"], 948_066),
    ]
}

fn mixture() -> Mixture {
    let source = |name: &str, available, written, wanted| MixedSource {
        name: name.into(),
        available,
        left_out: available.saturating_sub(written),
        repeated: written.saturating_sub(available),
        written,
        bases: 4 * written,
        share_available: available as f64 / 2_112_000.0,
        share_wanted: wanted,
        share_written: written as f64 / 2_548_000.0,
    };
    Mixture {
        set: None,
        repeat: 4,
        temperature: Some(2.0),
        sources: vec![source("phage", 12_000, 48_000, 0.07), source("yeast", 2_100_000, 2_500_000, 0.93)],
        shortfalls: vec!["source `phage` has 48000 of the 178360 tokens wanted, 1.9 % of all and not 7.0 %: there are 12000, and `repeat` allows each window 4 times".into()],
    }
}

fn leaks() -> Leaks {
    let leak = |of: &str, within: &str, kmers, shared| Leak {
        of: of.into(),
        within: within.into(),
        kmers,
        shared_kmers: shared,
        standard_error: 0.000_112,
        windows: kmers / 100,
        shared_windows: shared / 200,
    };
    let pairs = vec![leak("test", "train", 100_000, 125), leak("train", "test", 900_000, 125)];
    Leaks { from: "split".into(), k: 31, scale: 10, window_share: 0.5, pairs }
}

fn contamination() -> Contamination {
    Contamination {
        benchmark: "tf".into(),
        stage: Some("decontaminated".into()),
        sequences: 1_000,
        bases: 101_000,
        short: 2,
        found: 41,
        whole: 38,
        places: 43,
        place_bases: 4_200,
    }
}

fn shards() -> Vec<Shard> {
    let shard = |(file, split, rows): (&str, &str, u64)| Shard {
        file: file.into(),
        split: split.into(),
        rows,
        tokens: rows * 128,
        bases: Some(rows * 660),
        bytes: rows * 260 + 4_096,
    };
    [
        ("train-00000.parquet", "train", 8_192),
        ("train-00001.parquet", "train", 7_008),
        ("validation-00000.parquet", "validation", 1_653),
        ("test-00000.parquet", "test", 1_436),
    ]
    .map(shard)
    .into()
}

fn training() -> Training {
    let wave = |step: u64| ((step * 7_919 % 101) as f64 - 50.0) / 900.0;
    let loss = |step: u64| 6.55 + 1.78 * (-(step as f64) / 60.0).exp();
    let rate = |step: u64| {
        if step < 40 {
            0.001 * step as f64 / 40.0
        } else {
            0.000_1 + 0.000_45 * (1.0 + (std::f64::consts::PI * (step - 40) as f64 / 560.0).cos())
        }
    };
    let every = |stride: usize, value: &dyn Fn(u64) -> f64| {
        (0..=600).step_by(stride).map(|step| Point { step, value: value(step) }).collect()
    };
    Training {
        model: "olmo-tiny".into(),
        parameters: 1_312_768,
        device: "cpu".into(),
        steps: 600,
        tokens: 1_228_800,
        wall_seconds: Some(192.4),
        facts: [("Layers", "4"), ("Width", "128"), ("Heads", "4"), ("Rows per batch", "16"), ("Seed", "7")]
            .map(|(name, value)| Fact { name: name.into(), value: value.into() })
            .into(),
        train_loss: every(1, &|step| loss(step) + wave(step)),
        validation_loss: every(100, &|step| loss(step) + 0.03),
        learning_rate: every(5, &rate),
        uniform_loss: Some(4_096_f64.ln()),
    }
}

const PLAIN: [f64; 12] =
    [1.9591, 1.9489, 1.9423, 1.9381, 1.9352, 1.9329, 1.9318, 1.9327, 1.9388, 1.9529, 1.9702, 1.9842];

fn evaluation(split: &str, bits: f64) -> Evaluation {
    let estimate = |value: f64, half: f64| Estimate {
        value,
        low: value - half,
        high: value + half,
        level: 0.95,
        rows: 1_436,
        resamples: 2_000,
    };
    let order = |(order, plain): (u64, f64)| MarkovOrder {
        order,
        plain,
        blended: Some(if order < 6 { plain } else { 1.931 - 0.000_9 * (order - 6) as f64 }),
        pseudo_count: Some(if order < 8 { 0.5 } else { 4.0 }),
    };
    Evaluation {
        split: split.into(),
        scored_on: "chrXVI, 1,436 rows of 128 tokens".into(),
        bases: 940_731,
        model: Some(ModelScore {
            name: "olmo-tiny, step 600".into(),
            trained_on: "the train split (10,031,969 bases)".into(),
            bits_per_base: bits,
            interval: Some(estimate(bits, 0.004)),
            difference: Some(estimate(bits - 1.9265, 0.0018)),
        }),
        markov: Some(Markov {
            fitted_on: "the train split, both strands".into(),
            fitted_bases: 20_063_938,
            orders: (0..).zip(PLAIN).map(order).collect(),
        }),
    }
}

fn audited() -> Audited {
    Audited {
        task: "tf-0".into(),
        test: 1000,
        copies: 12,
        clean: 954,
        half_width: 0.0248,
        baselines: vec![
            Without { name: "majority".into(), official: "50.0 %, MCC 0.000".into(), clean: None },
            Without {
                name: "4-mers".into(),
                official: "80.1 %, MCC 0.602".into(),
                clean: Some("79.7 %, MCC 0.594".into()),
            },
        ],
        findings: vec!["12 of 1000 test examples are copies of training examples".into()],
    }
}

fn leaderboard() -> Leaderboard {
    let ours = Row {
        task: "tf-0".into(),
        metric: Metric::Mcc,
        model: "olmo-tiny".into(),
        family: Some("OLMo".into()),
        protocol: "linear-probe".into(),
        recipe: None,
        ours: true,
        parameters: Some(270_336),
        value: Some(0.512),
        sd: Some(0.011),
        range: Some([0.5, 0.53]),
        interval: Some([0.44, 0.58]),
        clean: Some(0.498),
        runs: Some(5),
        remarks: vec!["12 sequences were cut".into()],
    };
    let published = Row {
        model: "DNABERT-2".into(),
        protocol: "published: dnabert2".into(),
        ours: false,
        parameters: None,
        value: Some(0.7199),
        sd: None,
        range: None,
        interval: None,
        clean: None,
        runs: None,
        remarks: Vec::new(),
        ..ours.clone()
    };
    let sources = vec![SourceOf { key: "dnabert2".into(), text: "DNABERT-2 paper, Table 4".into() }];
    let figure = |by: &str, value: f64, noise| Figure { by: by.into(), value, noise, runs: None };
    let side = Side {
        task: "tf-0".into(),
        metric: Metric::Mcc,
        model: "dnabert2-117m".into(),
        parameters: Some(117_074_944),
        published: vec![figure("dnabert2", 0.7199, None)],
        recipe: vec![figure("fine-tune, recipe dnabert2", 0.701, Some([0.66, 0.74]))],
        common: vec![figure("linear-probe", 0.512, Some([0.44, 0.58]))],
        disagreements: vec!["linear-probe less dnabert2: −0.2079 (−0.2799 to −0.1399)".into()],
    };
    Leaderboard { rows: vec![published, ours], sides: vec![side], pairs: Vec::new(), sources }
}
