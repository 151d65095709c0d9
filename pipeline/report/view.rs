//! What the template prints beside the data itself: charts, sentences and derived figures.

use serde::Serialize;

use super::leaderboard::Board;
use super::number::{bytes, count, fixed, short, signed};
use super::sequences::SequencesView;
use super::study::view::StudyView;
use super::vocabularies::VocabulariesView;
use super::{Data, Estimate, Evaluation, Stage, Status, Tokens, Training, dag, figure, verdict};

/// Everything that the template reads.
#[derive(Serialize)]
pub(super) struct View<'a> {
    data: &'a Data,
    style: &'static str,
    tiles: Vec<Tile>,
    verdicts: Vec<String>,
    dag: Option<String>,
    stages: Vec<StageView<'a>>,
    status: StatusView,
    sequences: Option<SequencesView<'a>>,
    lengths: Vec<Figure>,
    tokens: Option<TokensView>,
    vocabularies: Option<VocabulariesView>,
    shards: ShardsView,
    training: Option<TrainingView>,
    evaluations: Vec<EvaluationView<'a>>,
    study: Option<StudyView>,
    board: Option<Board<'a>>,
}

/// A figure in the summary.
#[derive(Serialize)]
struct Tile {
    label: &'static str,
    value: String,
    note: String,
}

/// A chart and what it shows.
#[derive(Serialize)]
struct Figure {
    svg: String,
    caption: String,
}

/// A stage with its quantities and what became of each.
#[derive(Serialize)]
struct StageView<'a> {
    stage: &'a Stage,
    number: usize,
    key: Option<String>,
    counts: Vec<CountView<'a>>,
}

#[derive(Serialize)]
struct CountView<'a> {
    unit: &'a str,
    before: Option<u64>,
    after: Option<u64>,
    dropped: Option<u64>,
    /// Whether what went in is what came out and what was dropped.
    accounted: bool,
}

#[derive(Serialize)]
struct StatusView {
    ran: usize,
    reused: usize,
    seconds: f64,
}

#[derive(Serialize)]
struct TokensView {
    bases_per_token: Option<f64>,
    used: Option<u64>,
    once: Option<u64>,
    entropy: Option<f64>,
    ranks: Option<String>,
    lengths: Option<String>,
}

#[derive(Serialize)]
struct ShardsView {
    shown: usize,
    rows: u64,
    tokens: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct TrainingView {
    losses: Option<String>,
    learning_rate: Option<String>,
    tokens_per_second: Option<f64>,
    first_loss: Option<f64>,
    last_loss: Option<f64>,
    last_validation: Option<f64>,
}

#[derive(Serialize)]
struct EvaluationView<'a> {
    evaluation: &'a Evaluation,
    verdict: Option<String>,
    svg: Option<String>,
    best: Option<BestView>,
    interval: Option<String>,
    difference: Option<String>,
}

#[derive(Serialize)]
struct BestView {
    order: u64,
    blended: bool,
}

/// The longest table of shards that is worth printing.
const SHARDS: usize = 24;

impl<'a> View<'a> {
    pub(super) fn new(data: &'a Data) -> Self {
        let evaluations: Vec<EvaluationView> = data.evaluations.iter().map(EvaluationView::new).collect();
        let study = data.study.as_ref().map(StudyView::new);
        // Of a study the summary says which cell is best, not what each of them is.
        let verdicts = match &study {
            Some(study) => study.sentences().cloned().collect(),
            None => evaluations.iter().filter_map(EvaluationView::sentence).collect(),
        };
        Self {
            data,
            style: include_str!("style.css"),
            tiles: tiles(data),
            verdicts,
            dag: dag::svg(&data.stages),
            stages: data.stages.iter().enumerate().map(StageView::new).collect(),
            status: StatusView::new(&data.stages),
            sequences: SequencesView::new(data),
            lengths: data.lengths.iter().filter_map(Figure::lengths).collect(),
            tokens: data.tokens.as_ref().map(TokensView::new),
            vocabularies: data.vocabularies.as_ref().map(VocabulariesView::new),
            shards: ShardsView::new(data),
            training: data.training.as_ref().map(TrainingView::new),
            evaluations,
            study,
            board: data.leaderboard.as_ref().map(Board::new),
        }
    }
}

fn tile(label: &'static str, value: &str, note: String) -> Tile {
    Tile { label, value: value.trim_end().to_owned(), note }
}

/// The figures that a reader looks for first, as far as there are any.
fn tiles(data: &Data) -> Vec<Tile> {
    let read: u64 = data.sources.iter().map(|source| source.bases).sum();
    let records: u64 = data.sources.iter().map(|source| source.records).sum();
    let split = data.splits.iter().fold((0, 0), |(rows, tokens), split| {
        (rows + split.rows.unwrap_or(0), tokens + split.tokens.unwrap_or(0))
    });
    let mut tiles = Vec::new();
    if !data.sources.is_empty() {
        tiles.push(tile("Bases read", &short(read as f64), format!("{} records", count(records))));
    }
    if split.1 > 0 {
        tiles.push(tile("Tokens", &short(split.1 as f64), format!("{} rows", count(split.0))));
    }
    if let Some(tokens) = &data.tokens {
        let ratio = bases_per_token(tokens).map_or_else(|| "–".to_owned(), |ratio| fixed(ratio, 2));
        tiles.push(tile(
            "Bases per token",
            &ratio,
            format!("{}, {} ids", tokens.kind, count(tokens.vocabulary)),
        ));
    }
    if let Some(vocabularies) = &data.vocabularies {
        let sizes = || vocabularies.rows.iter().map(|row| row.size);
        let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
        let range = format!("{} to {} ids", count(least), count(most));
        tiles.push(tile("Vocabularies", &count(vocabularies.rows.len() as u64), range));
    }
    if !data.shards.is_empty() {
        let size = data.shards.iter().map(|shard| shard.bytes).sum();
        tiles.push(tile("Shards", &bytes(size), format!("{} files", count(data.shards.len() as u64))));
    }
    if let Some(training) = &data.training {
        let steps = format!("{}, {} steps", training.model, count(training.steps));
        tiles.push(tile("Parameters", &short(training.parameters as f64), steps));
    }
    match &data.study {
        Some(study) => tiles.push(study_tile(study)),
        None => tiles.extend(data.evaluations.iter().filter_map(evaluation_tile)),
    }
    tiles
}

fn study_tile(study: &super::Study) -> Tile {
    let absent = match study.absent.len() {
        0 => "all of them there".to_owned(),
        absent => format!("{} not there", count(absent as u64)),
    };
    tile("Cells", &count(study.cells.len() as u64), absent)
}

fn evaluation_tile(evaluation: &Evaluation) -> Option<Tile> {
    let best = evaluation.markov.as_ref().and_then(super::Markov::best);
    let beside =
        best.map_or_else(String::new, |best| format!("; best Markov {}", fixed(best.bits_per_base, 3)));
    let model = evaluation.model.as_ref()?;
    Some(tile("Bits per base", &fixed(model.bits_per_base, 3), format!("{}{beside}", evaluation.split)))
}

impl<'a> StageView<'a> {
    fn new((index, stage): (usize, &'a Stage)) -> Self {
        let key = stage.action_key.as_ref().map(|key| key.chars().take(12).collect());
        Self {
            stage,
            number: index + 1,
            key,
            counts: stage.counts.iter().map(|count| CountView::new(stage, count)).collect(),
        }
    }
}

impl<'a> CountView<'a> {
    fn new(stage: &Stage, count: &'a super::Count) -> Self {
        let mut reasons = stage.dropped.iter().filter(|dropped| dropped.unit == count.unit).peekable();
        let dropped = reasons.peek().is_some().then(|| reasons.map(|dropped| dropped.count).sum::<u64>());
        let (before, after) = (count.before, count.after);
        let accounted =
            before.is_some() && before == after.and_then(|after| after.checked_add(dropped.unwrap_or(0)));
        Self { unit: &count.unit, before, after, dropped, accounted }
    }
}

impl StatusView {
    fn new(stages: &[Stage]) -> Self {
        let reused = stages.iter().filter(|stage| stage.status == Status::Reused).count();
        let ran = stages.iter().filter(|stage| stage.status == Status::Ran);
        Self { ran: stages.len() - reused, reused, seconds: ran.filter_map(|stage| stage.wall_seconds).sum() }
    }
}

impl Figure {
    fn lengths(histogram: &super::Histogram) -> Option<Self> {
        let binned = if histogram.logarithmic { ", in bins of equal ratio" } else { "" };
        let caption =
            format!("{}: {} {}{binned}.", histogram.title, count(histogram.total()), histogram.counted);
        Some(Self { svg: figure::lengths(histogram)?, caption })
    }
}

fn bases_per_token(tokens: &Tokens) -> Option<f64> {
    (tokens.tokens > 0).then(|| tokens.bases as f64 / tokens.tokens as f64)
}

impl TokensView {
    fn new(tokens: &Tokens) -> Self {
        let known = !tokens.frequencies.is_empty();
        let with = |wanted: fn(u64) -> bool| {
            tokens.frequencies.iter().filter(|&&count| wanted(count)).count() as u64
        };
        Self {
            bases_per_token: bases_per_token(tokens),
            used: known.then(|| with(|count| count > 0)),
            once: known.then(|| with(|count| count == 1)),
            entropy: entropy(&tokens.frequencies),
            ranks: figure::ranks(tokens),
            lengths: figure::token_lengths(tokens),
        }
    }
}

/// Entropy of the frequencies, in bits per token.
fn entropy(frequencies: &[u64]) -> Option<f64> {
    let total = frequencies.iter().sum::<u64>() as f64;
    let bits = |&count: &u64| count as f64 / total * (total / count as f64).log2();
    (total > 0.0).then(|| frequencies.iter().filter(|&&count| count > 0).map(bits).sum())
}

impl ShardsView {
    fn new(data: &Data) -> Self {
        let sum = |of: fn(&super::Shard) -> u64| data.shards.iter().map(of).sum();
        Self {
            shown: data.shards.len().min(SHARDS),
            rows: sum(|shard| shard.rows),
            tokens: sum(|shard| shard.tokens),
            bytes: sum(|shard| shard.bytes),
        }
    }
}

impl TrainingView {
    fn new(training: &Training) -> Self {
        let seconds = training.wall_seconds.filter(|&seconds| seconds > 0.0);
        Self {
            losses: figure::losses(training),
            learning_rate: figure::learning_rate(training),
            tokens_per_second: seconds.map(|seconds| training.tokens as f64 / seconds),
            first_loss: training.train_loss.first().map(|point| point.value),
            last_loss: training.train_loss.last().map(|point| point.value),
            last_validation: training.validation_loss.last().map(|point| point.value),
        }
    }
}

impl<'a> EvaluationView<'a> {
    fn new(evaluation: &'a Evaluation) -> Self {
        let best = evaluation.markov.as_ref().and_then(super::Markov::best);
        Self {
            evaluation,
            verdict: verdict::verdict(evaluation),
            svg: figure::bits_per_base(evaluation),
            interval: evaluation.model.as_ref().and_then(|model| model.interval.as_ref()).map(interval),
            difference: evaluation.model.as_ref().and_then(|model| model.difference.as_ref()).map(difference),
            best: best.map(|best| BestView { order: best.order, blended: best.blended }),
        }
    }

    /// The verdict with the name of what it was scored on.
    fn sentence(&self) -> Option<String> {
        let verdict = self.verdict.as_ref()?;
        Some(format!("On {}: {verdict}", self.evaluation.split))
    }
}

/// `1.912 to 1.934`.
fn interval(estimate: &Estimate) -> String {
    format!("{} to {}", fixed(estimate.low, 3), fixed(estimate.high, 3))
}

/// `−0.022 (−0.025 to −0.019)`.
fn difference(estimate: &Estimate) -> String {
    let [value, low, high] = [estimate.value, estimate.low, estimate.high].map(|bits| signed(bits, 3));
    format!("{value} ({low} to {high})")
}
