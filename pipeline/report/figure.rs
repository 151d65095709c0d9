//! The charts of the report, each from its part of the data; `None` where there is nothing to draw.

use super::axis::{Axis, Tick};
use super::chart::{Chart, Point, Series};
use super::number::{count, fixed, percent};
use super::sequences::{gc_range, share_of};
use super::{Baseline, Evaluation, Histogram, Markov, Tokens, Training, Vocabularies, Vocabulary};
use crate::sequence::statistics::Statistics;

/// A distribution of lengths, as bars.
pub(super) fn lengths(histogram: &Histogram) -> Option<String> {
    let (first, last) = (histogram.bins.first()?, histogram.bins.last()?);
    let label = format!("Length ({})", histogram.unit);
    // On a logarithmic axis the bin of length 0 begins just below length 1.
    let at = |length: u64| if histogram.logarithmic { (length as f64).max(0.9) } else { length as f64 };
    let x = if histogram.logarithmic { Axis::logarithmic } else { Axis::tight }(
        &label,
        at(first.low),
        at(last.high),
    );
    let most = histogram.bins.iter().map(|bin| bin.count).max()?;
    let y = Axis::linear(&capitalised(&histogram.counted), 0.0, most as f64);
    let description =
        format!("{} {} in {} bins.", count(histogram.total()), histogram.counted, histogram.bins.len());
    let mut chart = Chart::new(&histogram.title, &description, x, y, 0);
    for bin in histogram.bins.iter().filter(|bin| bin.count > 0) {
        let range = if bin.high - bin.low == 1 {
            count(bin.low)
        } else {
            format!("{} to {}", count(bin.low), count(bin.high - 1))
        };
        let text = format!("{range} {}: {} {}", histogram.unit, count(bin.count), histogram.counted);
        chart.bar(Series::First, (at(bin.low), at(bin.high)), bin.count as f64, &text);
    }
    Some(chart.svg())
}

/// Shares of the bases by the share of G and C of their window, as bars.
pub(super) fn gc_windows(title: &str, statistics: &Statistics) -> Option<String> {
    let bins = &statistics.gc_windows;
    let bases: u64 = bins.iter().sum();
    let share = |part: u64| 100.0 * part as f64 / bases.max(1) as f64;
    let filled = |bin: &usize| bins[*bin] > 0;
    let (first, last) = ((0..bins.len()).find(filled)?, (0..bins.len()).rfind(filled)?);
    let at = |bin: usize| 100.0 * bin as f64 / bins.len() as f64;
    let x =
        Axis::tight("G and C in the window (%)", at(first.saturating_sub(2)), at((last + 3).min(bins.len())));
    let y = Axis::linear("Bases (%)", 0.0, bins.iter().map(|&part| share(part)).fold(0.0, f64::max));
    let description = format!("{} bases in {} bins.", count(bases), bins.len());
    let mut chart = Chart::new(&format!("G and C of {title}"), &description, x, y, 0);
    for bin in (first..=last).filter(filled) {
        let text = format!("{}: {}", gc_range(bin), share_of(bins[bin], bases));
        chart.bar(Series::First, (at(bin), at(bin + 1)), share(bins[bin]), &text);
    }
    Some(chart.svg())
}

/// How often tokens occur, by rank, both axes logarithmic.
pub(super) fn ranks(tokens: &Tokens) -> Option<String> {
    let mut frequencies: Vec<u64> = tokens.frequencies.iter().copied().filter(|&count| count > 0).collect();
    frequencies.sort_unstable_by(|a, b| b.cmp(a));
    let (&most, &least) = (frequencies.first()?, frequencies.last()?);
    let used = frequencies.len();
    let x = Axis::logarithmic("Rank of the token", 1.0, used as f64);
    let y = Axis::logarithmic("Occurrences", least as f64 * 0.8, most as f64 * 1.25);
    let description = format!(
        "{} tokens occur; the most frequent {} times, the rarest {}.",
        count(used as u64),
        count(most),
        count(least)
    );
    let mut chart = Chart::new("Token frequency by rank", &description, x, y, 0);
    Some(chart.line(Series::First, &rank_points(&frequencies)).svg())
}

/// About a hundred ranks, evenly spread on a logarithmic axis.
fn rank_points(frequencies: &[u64]) -> Vec<Point> {
    let last = frequencies.len();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 1 to the number of tokens"
    )]
    let rank = |i: u32| ((last as f64).powf(f64::from(i) / 120.0).round() as usize).clamp(1, last);
    let mut ranks: Vec<usize> = (0..=120).map(rank).collect();
    ranks.dedup();
    ranks.into_iter().map(|rank| (rank as f64, frequencies[rank - 1] as f64)).collect()
}

/// Shares of the vocabulary and of the corpus by length of token, side by side.
pub(super) fn token_lengths(tokens: &Tokens) -> Option<String> {
    let vocabulary: u64 = tokens.lengths.iter().map(|of| of.vocabulary).sum();
    let corpus: u64 = tokens.lengths.iter().map(|of| of.corpus).sum();
    let share = |part: u64, all: u64| if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 };
    let shares =
        tokens.lengths.iter().flat_map(|of| [share(of.vocabulary, vocabulary), share(of.corpus, corpus)]);
    let most = shares.fold(0.0, f64::max);
    let (shortest, longest) = (tokens.lengths.first()?.bases, tokens.lengths.last()?.bases);
    let x = whole_numbers("Length of the token (bases)", shortest, longest);
    let y = Axis::linear("Share (%)", 0.0, most);
    let mut chart =
        Chart::new("Length of tokens", "Shares of the vocabulary and of the corpus by length.", x, y, 1);
    chart.legend("block", Some(Series::First), "vocabulary").legend("block", Some(Series::Second), "corpus");
    for of in &tokens.lengths {
        let middle = of.bases as f64;
        let text = |part: u64, whole: &str, all| {
            format!("{} bases: {} of the {whole}", of.bases, percent(share(part, all) / 100.0))
        };
        chart.bar(
            Series::First,
            (middle - 0.4, middle),
            share(of.vocabulary, vocabulary),
            &text(of.vocabulary, "vocabulary", vocabulary),
        );
        chart.bar(
            Series::Second,
            (middle, middle + 0.4),
            share(of.corpus, corpus),
            &text(of.corpus, "corpus", corpus),
        );
    }
    Some(chart.svg())
}

/// Bases per token by size of the vocabulary, the sizes on a logarithmic axis.
pub(super) fn bases_per_token(vocabularies: &Vocabularies) -> Option<String> {
    let values: [Measure; 1] = [("", Series::First, |row| row.bases_per_token)];
    by_size(vocabularies, "Bases per token", "More is shorter.", &values)
}

/// Unigram bits per base by size of the vocabulary: under the tokens' own frequencies, and under those of training.
pub(super) fn unigram_bits(vocabularies: &Vocabularies) -> Option<String> {
    let own = |row: &Vocabulary| row.unigram_bits_per_base;
    let train = |row: &Vocabulary| row.train_unigram_bits_per_base;
    let values: [Measure; 2] =
        [("own frequencies", Series::First, own), ("frequencies of train", Series::Second, train)];
    by_size(vocabularies, "Unigram bits per base", "Lower is better.", &values)
}

/// A curve's name in the legend, its colour and its value of a vocabulary.
type Measure = (&'static str, Series, fn(&Vocabulary) -> Option<f64>);

fn by_size(
    vocabularies: &Vocabularies,
    label: &str,
    description: &str,
    measures: &[Measure],
) -> Option<String> {
    let rows = &vocabularies.rows;
    let curve = |&(name, series, of): &Measure| {
        let text = |row: &Vocabulary, value| {
            format!("{}, {} ids: {} {}", row.name, count(row.size), fixed(value, 3), label.to_lowercase())
        };
        let dots: Vec<(Point, String)> = rows
            .iter()
            .filter_map(|row| Some((row, of(row).filter(|value| value.is_finite())?)))
            .map(|(row, value)| ((row.size as f64, value), text(row, value)))
            .collect();
        (name, series, dots)
    };
    let curves: Vec<_> = measures.iter().map(curve).filter(|(.., dots)| !dots.is_empty()).collect();
    let values = || curves.iter().flat_map(|(.., dots)| dots.iter().map(|((_, value), _)| *value));
    let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
    let mut sizes: Vec<f64> = rows.iter().map(|row| row.size.max(1) as f64).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let x = Axis::logarithmic_at("Vocabulary (ids)", &sizes);
    let legend = u32::from(measures.len() > 1);
    let title = format!("{label} by size of the vocabulary");
    let mut chart = Chart::new(&title, description, x, Axis::linear(label, low, high), legend);
    // A line leads from one size to the next of the same kind of tokens.
    let one_kind = rows.iter().all(|row| row.kind == rows[0].kind) && sizes.len() == rows.len();
    for (name, series, dots) in &curves {
        if one_kind {
            chart.line(*series, &dots.iter().map(|(point, _)| *point).collect::<Vec<_>>());
        }
        chart.dots(*series, dots);
        if !name.is_empty() {
            chart.legend("dot", Some(*series), name);
        }
    }
    Some(chart.svg())
}

/// An axis for small whole numbers, with half a step of room at the ends and no tick between two of them.
fn whole_numbers(label: &str, first: u64, last: u64) -> Axis {
    let mut axis = Axis::tight(label, first as f64 - 0.6, last as f64 + 0.6);
    let stride = (last - first) / 12 + 1;
    axis.ticks =
        (first..=last).filter(|n| (n - first).is_multiple_of(stride)).map(|n| (n as f64, count(n))).collect();
    axis
}

/// Loss of training and validation by step.
pub(super) fn losses(training: &Training) -> Option<String> {
    let (train, validation) = (points(&training.train_loss), points(&training.validation_loss));
    let values = || train.iter().chain(&validation).map(|&(_, loss)| loss).filter(|loss| loss.is_finite());
    let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
    let uniform = training.uniform_loss.filter(|loss| loss.is_finite() && *loss > low && *loss < 2.0 * high);
    let x = steps_axis(train.iter().chain(&validation));
    let y = Axis::linear("Loss (nats per token)", low, uniform.map_or(high, |loss| loss.max(high)));
    let description =
        format!("The loss lies between {} and {} nats per token.", fixed(low, 3), fixed(high, 3));
    let mut chart = Chart::new("Loss by step", &description, x, y, 1);
    if let Some(loss) = uniform {
        chart.rule("rule", loss).legend("dashed", None, &format!("uniform ({})", fixed(loss, 2)));
    }
    if !train.is_empty() {
        chart.line(Series::First, &train).legend("line", Some(Series::First), "train");
    }
    if !validation.is_empty() {
        let text =
            |&(step, loss): &Point| format!("step {}: validation loss {}", fixed(step, 0), fixed(loss, 4));
        let dots: Vec<(Point, String)> = validation.iter().map(|point| (*point, text(point))).collect();
        chart.line(Series::Second, &validation).dots(Series::Second, &dots).legend(
            "line",
            Some(Series::Second),
            "validation",
        );
    }
    Some(chart.svg())
}

/// Learning rate by step.
pub(super) fn learning_rate(training: &Training) -> Option<String> {
    let rates = points(&training.learning_rate);
    let highest = rates.iter().map(|&(_, rate)| rate).filter(|rate| rate.is_finite()).reduce(f64::max)?;
    let (x, y) = (steps_axis(rates.iter()), Axis::linear("Learning rate", 0.0, highest));
    let mut chart = Chart::new("Learning rate by step", &format!("Its peak is {highest}."), x, y, 0);
    Some(chart.line(Series::First, &rates).svg())
}

fn points(points: &[super::Point]) -> Vec<Point> {
    points.iter().map(|point| (point.step as f64, point.value)).collect()
}

fn steps_axis<'a>(points: impl Iterator<Item = &'a Point>) -> Axis {
    Axis::tight("Step", 0.0, points.map(|&(step, _)| step).fold(1.0, f64::max))
}

/// Bits per base of the Markov models by order, and of the model at the right.
pub(super) fn bits_per_base(evaluation: &Evaluation) -> Option<String> {
    let baselines: Vec<Baseline> = evaluation.markov.iter().flat_map(Markov::baselines).collect();
    let interval = evaluation.model.as_ref().and_then(|model| model.interval);
    let scores = baselines.iter().map(|baseline| baseline.bits_per_base);
    let model = evaluation.model.as_ref().map(|model| model.bits_per_base);
    let ends = interval.into_iter().flat_map(|interval| [interval.low, interval.high]);
    let values: Vec<f64> = scores.chain(model).chain(ends).filter(|bits| bits.is_finite()).collect();
    let (low, high) = (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
    let names = order_names(evaluation);
    let model_at = names.last().map_or(0.0, |&(x, _)| x);
    let label = if evaluation.markov.is_some() { "Markov order k (bases of context)" } else { "" };
    let y = Axis::linear("Bits per base", low, high.max(2.0));
    let title = format!("Bits per base, {}", evaluation.split);
    let mut chart =
        Chart::new(&title, "Lower is better; 2 is uniform guessing.", Axis::named(label, names), y, 2);
    chart.rule("rule", 2.0).legend("dashed", None, "uniform (2)");
    draw_baselines(&mut chart, &baselines);
    draw_model(&mut chart, evaluation, model_at);
    Some(chart.svg())
}

/// The orders, then `model` at a distance where there is one.
fn order_names(evaluation: &Evaluation) -> Vec<Tick> {
    let orders = evaluation.markov.iter().flat_map(|markov| &markov.orders).map(|of| of.order.to_string());
    let mut names: Vec<Tick> = (0_u32..).map(f64::from).zip(orders).collect();
    if evaluation.model.is_some() {
        names.push((names.len() as f64 + 0.5, "model".to_owned()));
    }
    names
}

fn draw_baselines(chart: &mut Chart, baselines: &[Baseline]) {
    for (blended, series, name) in
        [(false, Series::First, "Markov"), (true, Series::Third, "Markov, blended")]
    {
        let of_kind = baselines.iter().filter(|baseline| baseline.blended == blended);
        let text = |of: &Baseline| format!("{}: {} bits per base", of.name(), fixed(of.bits_per_base, 4));
        let dots: Vec<(Point, String)> =
            (0_u32..).zip(of_kind).map(|(i, of)| ((f64::from(i), of.bits_per_base), text(of))).collect();
        if !dots.is_empty() {
            let line: Vec<Point> = dots.iter().map(|(point, _)| *point).collect();
            chart.line(series, &line).dots(series, &dots).legend("dot", Some(series), name);
        }
    }
}

fn draw_model(chart: &mut Chart, evaluation: &Evaluation, x: f64) {
    let Some(model) = &evaluation.model else { return };
    if !model.bits_per_base.is_finite() {
        return;
    }
    chart.rule("s2", model.bits_per_base);
    if let Some(interval) = model.interval {
        chart.interval(Series::Second, x, (interval.low, interval.high));
    }
    let text = format!("{}: {} bits per base", model.name, fixed(model.bits_per_base, 4));
    chart.diamond(Series::Second, (x, model.bits_per_base), &text).legend(
        "diamond",
        Some(Series::Second),
        &model.name,
    );
}

pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
