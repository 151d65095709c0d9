use super::fixture::full;
use super::*;

const SECTIONS: [&str; 18] = [
    "summary",
    "workflow",
    "stages",
    "sources",
    "sequences",
    "lengths",
    "tokens",
    "vocabularies",
    "splits",
    "mixture",
    "leaks",
    "contamination",
    "shards",
    "training",
    "study",
    "bits-per-base",
    "tasks",
    "reproduce",
];

fn minimal() -> Data {
    Data { workflow: "lambda".into(), version: "0.1.0".into(), date: "2026-11-24".into(), ..Data::default() }
}

fn has_section(page: &str, id: &str) -> bool {
    page.contains(&format!(r#"<section id="{id}">"#))
}

#[test]
fn full_data_shows_every_section() {
    let page = render(&full()).unwrap();
    for id in SECTIONS {
        assert!(has_section(&page, id), "{id}");
        assert!(page.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    for text in [
        "12,157,105",
        "38.2 %",
        "10,031,969",
        "beats the best Markov baseline (order 11, blended)",
        "3 min 12 s",
        "a window is written up to 4 times; the temperature is 2",
        "Source `phage` has 48000",
        "0.125 % ± 0.011",
        "unique: 61 exact and 402 near duplicates of 12,074 windows",
        "overlap: 17 of 949 windows in train",
        "title=\"R 17, Y 34\"",
        "tail shorter than the window: 512",
        "<td class=\"key\">tf, decontaminated</td>",
        "<td class=\"n\">0.4400 to 0.5800</td>",
        "fine-tune, recipe dnabert2: 0.7010 (0.6600 to 0.7400)",
        "the best of 5 cells is bases 2048, tokenizer bpe, vocabulary 64",
        "<td class=\"n top\">+0.0180</td>",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("class=\"chart\"").count(), 16 + 4 * 3 + 3);
}

#[test]
fn minimal_data_shows_nothing_false() {
    let page = render(&minimal()).unwrap();
    for id in SECTIONS {
        assert!(!has_section(&page, id) && !page.contains(&format!("#{id}\"")), "{id}");
    }
    assert!(page.contains("<h1>lambda</h1>"));
}

#[test]
fn each_part_may_be_missing() {
    type Removal = (&'static str, fn(&mut Data));
    let without: [Removal; 15] = [
        ("vocabularies", |data| data.vocabularies = None),
        ("workflow", |data| data.stages.clear()),
        ("sources", |data| data.sources.clear()),
        ("sequences", |data| {
            data.sequences.clear();
            data.accounts.clear();
        }),
        ("lengths", |data| data.lengths.clear()),
        ("tokens", |data| data.tokens = None),
        ("splits", |data| data.splits.clear()),
        ("mixture", |data| data.mixtures.clear()),
        ("leaks", |data| data.leaks.clear()),
        ("contamination", |data| data.contamination.clear()),
        ("shards", |data| data.shards.clear()),
        ("training", |data| data.training = None),
        ("study", |data| data.study = None),
        ("bits-per-base", |data| data.evaluations.clear()),
        ("reproduce", |data| data.commands.clear()),
    ];
    for (id, remove) in without {
        let mut data = full();
        remove(&mut data);
        let page = render(&data).unwrap();
        assert!(!has_section(&page, id), "{id}");
    }
}

#[test]
fn parts_may_be_empty() {
    let data = Data {
        stages: vec![Stage::default()],
        sources: vec![Source::default()],
        sequences: vec![Sequence::default()],
        accounts: vec![Account::default()],
        lengths: vec![Histogram::default()],
        tokens: Some(Tokens::default()),
        vocabularies: Some(Vocabularies { rows: vec![Vocabulary::default(); 2], ..Vocabularies::default() }),
        splits: vec![Split::default()],
        leaks: vec![Leaks::default(), Leaks { pairs: vec![Leak::default()], ..Leaks::default() }],
        contamination: vec![Contamination::default()],
        shards: vec![Shard::default()],
        training: Some(Training::default()),
        evaluations: vec![
            Evaluation::default(),
            Evaluation { markov: Some(Markov::default()), ..Evaluation::default() },
        ],
        study: Some(Study::default()),
        commands: vec![Command::default()],
        machine: Some(Machine::default()),
        ..minimal()
    };
    let page = render(&data).unwrap();
    assert!(!page.contains("NaN") && !page.contains("inf "));
    assert!(!page.contains("class=\"chart\""));
}

#[test]
fn a_model_alone_and_baselines_alone_are_shown() {
    for (model, markov) in [(true, false), (false, true)] {
        let mut data = full();
        for evaluation in &mut data.evaluations {
            evaluation.model = evaluation.model.take().filter(|_| model);
            evaluation.markov = evaluation.markov.take().filter(|_| markov);
        }
        let page = render(&data).unwrap();
        assert_eq!(page.contains("olmo-tiny, step 600"), model);
        assert_eq!(page.contains("Markov order k</th>"), markov);
        assert!(!page.contains("beats the best"));
    }
}

#[test]
fn a_model_that_loses_is_said_to_lose() {
    let mut data = full();
    for model in data.evaluations.iter_mut().filter_map(|evaluation| evaluation.model.as_mut()) {
        (model.bits_per_base, model.interval, model.difference) = (1.97, None, None);
    }
    let page = render(&data).unwrap();
    assert!(page.contains("does not beat the best Markov baseline") && !page.contains("step 600 beats"));
}

#[test]
fn diverged_training_is_survived() {
    let mut data = full();
    if let Some(training) = &mut data.training {
        training.train_loss.iter_mut().for_each(|point| point.value = f64::NAN);
        training.validation_loss.clear();
    }
    let page = render(&data).unwrap();
    assert!(!page.contains("NaN") && page.contains("Loss, first and last"));
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let page = render(&full()).unwrap();
    for word in ["http://", "https://", "<script", "<link rel=\"stylesheet", "@import", "url(", "src="] {
        let found = page.matches(word).count();
        let own = if word == "url(" { page.matches("url(#arrow)").count() } else { 0 };
        assert_eq!(found, own, "{word}");
    }
}

#[test]
fn names_and_texts_are_escaped() {
    let evil = "<script>alert('1')</script>";
    let mut data = full();
    data.workflow = evil.into();
    data.stages[3].name = evil.into();
    data.stages[3].config = Some(evil.into());
    data.sources[0].name = evil.into();
    data.sequences[0].name = evil.into();
    data.sequences[0].duplicates[0].stage = evil.into();
    data.accounts[0].dropped[0].reason = evil.into();
    data.lengths[0].title = evil.into();
    data.splits[0].contigs = vec![evil.into()];
    data.commands[0].line = evil.into();
    if let Some(study) = &mut data.study {
        study.outcomes[0].name = evil.into();
        study.absent[0].reason = evil.into();
        for value in study.cells.iter_mut().filter_map(|cell| cell.at.get_mut("tokenizer")) {
            *value = evil.into();
        }
        study.axes[1].values = vec![evil.into()];
    }
    data.evaluations[0].split = evil.into();
    if let Some(board) = &mut data.leaderboard {
        board.rows[0].model = evil.into();
        board.sides[0].model = evil.into();
    }
    if let Some(model) = &mut data.evaluations[0].model {
        model.name = evil.into();
    }
    let page = render(&data).unwrap();
    assert!(!page.contains("<script"));
    assert!(page.matches("&lt;script&gt;").count() >= 15);
}

#[test]
fn long_shard_lists_are_cut_and_summed() {
    let mut data = full();
    data.shards = (0..1_000)
        .map(|i| Shard { file: format!("train-{i:05}.parquet"), rows: 10, ..Shard::default() })
        .collect();
    let page = render(&data).unwrap();
    assert!(page.contains("train-00023.parquet") && !page.contains("train-00024.parquet"));
    assert!(page.contains("the first 24 of 1,000") && page.contains("10,000"));
}

#[test]
fn data_survives_json() {
    let json = serde_json::to_string(&full()).unwrap();
    let back: Data = serde_json::from_str(&json).unwrap();
    assert!(render(&back).unwrap() == render(&full()).unwrap());
}
