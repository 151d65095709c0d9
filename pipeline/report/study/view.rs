//! What the page prints of a study: tables of cells, of what values are worth and of pairs, and response plots.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Absent, Axis, Gap, Kind, Measured, Outcome, Study, numbers};
use crate::report::axis::Axis as Scale;
use crate::report::chart::{Chart, Point, SERIES};
use crate::report::number::{bytes, count, fixed, short, signed};

/// The most cells whose pairs are shown.
const PAIRED: usize = 16;

/// What the template reads.
#[derive(Serialize)]
pub(crate) struct StudyView {
    /// Axes, but for those of which all cells have the same value.
    axes: Vec<String>,
    /// What is the same in all cells.
    constant: Option<String>,
    headings: Vec<String>,
    cells: Vec<CellView>,
    absent: Vec<AbsentView>,
    judged: Vec<JudgedView>,
    plots: Vec<Plot>,
    /// Whether some plot shows the best series only.
    cut: bool,
}

#[derive(Serialize)]
struct CellView {
    number: usize,
    at: Vec<String>,
    figures: Vec<Figure>,
}

/// A figure; `top` where none of its column is better.
#[derive(Serialize)]
struct Figure {
    text: String,
    interval: Option<String>,
    top: bool,
}

#[derive(Serialize)]
struct AbsentView {
    name: String,
    reason: String,
}

/// What the cells are judged by.
#[derive(Serialize)]
struct JudgedView {
    name: String,
    sentence: String,
    worths: Vec<WorthView>,
    pairs: Vec<PairsView>,
    numbers: Vec<usize>,
    /// Whether there is a column for the bits of all bases.
    in_bits: bool,
}

#[derive(Serialize)]
struct WorthView {
    axis: String,
    value: String,
    cell: usize,
    best: String,
    gap: String,
    interval: String,
    bits: String,
    beyond: &'static str,
}

#[derive(Serialize)]
struct PairsView {
    number: usize,
    cells: Vec<PairView>,
}

#[derive(Serialize)]
struct PairView {
    text: String,
    beyond: bool,
}

#[derive(Serialize)]
struct Plot {
    svg: String,
    caption: String,
}

impl StudyView {
    pub(crate) fn new(study: &Study) -> Self {
        let judged = (0..study.outcomes.len()).filter(|&outcome| study.outcomes[outcome].kind.judges());
        let drawn: Vec<(Plot, bool)> = plots(study);
        Self {
            axes: study
                .axes
                .iter()
                .filter(|axis| !study.is_constant(axis))
                .map(|axis| axis.name.clone())
                .collect(),
            constant: constant(study),
            headings: study.outcomes.iter().map(|outcome| outcome.name.clone()).collect(),
            cells: (0..study.cells.len()).map(|cell| CellView::new(study, cell)).collect(),
            absent: study.absent.iter().map(AbsentView::new).collect(),
            judged: judged.filter_map(|outcome| JudgedView::new(study, outcome)).collect(),
            cut: drawn.iter().any(|(_, cut)| *cut),
            plots: drawn.into_iter().map(|(plot, _)| plot).collect(),
        }
    }

    /// The best cells, in words.
    pub(crate) fn sentences(&self) -> impl Iterator<Item = &String> {
        self.judged.iter().map(|judged| &judged.sentence)
    }
}

/// `bases 512, size olmo-1m`: the axes of which every cell has the same value.
fn constant(study: &Study) -> Option<String> {
    let same = study.axes.iter().filter(|axis| study.is_constant(axis));
    let same: BTreeMap<String, String> =
        same.filter_map(|axis| Some((axis.name.clone(), axis.values.first()?.clone()))).collect();
    (!same.is_empty()).then(|| name(&same))
}

impl CellView {
    fn new(study: &Study, cell: usize) -> Self {
        let at = |axis: &Axis| study.cells[cell].at.get(&axis.name).cloned().unwrap_or_default();
        let figure = |outcome: usize| {
            let of = &study.outcomes[outcome];
            let found = study.measured(cell, outcome);
            Figure {
                text: found.map_or_else(|| "–".to_owned(), |found| of.text(found.value)),
                interval: found.and_then(|found| found.interval).map(|ends| of.range(ends)),
                top: study.best(outcome) == Some(cell),
            }
        };
        Self {
            number: cell + 1,
            at: study.axes.iter().filter(|axis| !study.is_constant(axis)).map(at).collect(),
            figures: (0..study.outcomes.len()).map(figure).collect(),
        }
    }
}

impl AbsentView {
    fn new(absent: &Absent) -> Self {
        Self { name: name(&absent.at), reason: absent.reason.clone() }
    }
}

/// `bases 512, tokenizer bpe`.
fn name(at: &BTreeMap<String, String>) -> String {
    at.iter().map(|(axis, value)| format!("{axis} {value}")).collect::<Vec<_>>().join(", ")
}

impl Outcome {
    fn text(&self, value: f64) -> String {
        match self.kind {
            Kind::BitsPerBase | Kind::Score => fixed(value, 4),
            Kind::TokensPerSecond => fixed(value, 0),
            Kind::Bytes => bytes(whole(value)),
            Kind::Operations => format!("{value:.2e}"),
            Kind::Parameters => count(whole(value)),
        }
    }

    fn range(&self, [low, high]: [f64; 2]) -> String {
        format!("{} to {}", self.text(low), self.text(high))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float beyond the range becomes its end"
)]
const fn whole(value: f64) -> u64 {
    value.round() as u64
}

impl JudgedView {
    fn new(study: &Study, outcome: usize) -> Option<Self> {
        let of = &study.outcomes[outcome];
        let worths = study.worths(outcome);
        let found: Vec<usize> =
            (0..study.cells.len()).filter(|&cell| study.measured(cell, outcome).is_some()).collect();
        let numbers: Vec<usize> = if found.len() > PAIRED { Vec::new() } else { found };
        let worth = |worth: &super::Worth| WorthView {
            axis: worth.axis.to_owned(),
            value: worth.value.to_owned(),
            cell: worth.cell + 1,
            best: of.text(worth.best.value),
            gap: signed(worth.gap.value, 4),
            interval: worth
                .gap
                .interval
                .filter(|_| worth.gap.value != 0.0)
                .map_or(String::new(), signed_range),
            bits: of
                .bases
                .filter(|_| worth.gap.value != 0.0)
                .map_or(String::new(), |bases| in_bits(worth.gap.value, bases)),
            beyond: beyond(worth.gap),
        };
        Some(Self {
            name: of.name.clone(),
            sentence: sentence(study, outcome)?,
            in_bits: of.bases.is_some(),
            worths: worths.iter().map(worth).collect(),
            pairs: numbers.iter().map(|&row| PairsView::new(study, outcome, row, &numbers)).collect(),
            numbers: numbers.iter().map(|cell| cell + 1).collect(),
        })
    }
}

/// Whether a difference is more than noise, in a word.
fn beyond(gap: Gap) -> &'static str {
    match gap.is_beyond_noise() {
        _ if gap.value == 0.0 => "",
        Some(true) => "beyond noise",
        Some(false) => "within noise",
        None => "noise not known",
    }
}

fn signed_range([low, high]: [f64; 2]) -> String {
    format!("{} to {}", signed(low, 4), signed(high, 4))
}

/// `+18.0 kbit` over so many bases.
fn in_bits(gap: f64, bases: u64) -> String {
    let bits = gap * bases as f64;
    let sign = if bits > 0.0 { "+" } else { "" };
    format!("{sign}{}bit", short(bits)).replace('-', "−")
}

/// The best cell, its interval, and how many of the others noise does not tell from it.
fn sentence(study: &Study, outcome: usize) -> Option<String> {
    let of = &study.outcomes[outcome];
    let best = study.best(outcome)?;
    let found = study.measured(best, outcome)?;
    let others: Vec<Gap> = (0..study.cells.len())
        .filter(|&cell| cell != best)
        .filter_map(|cell| Some(Gap::new(study.measured(cell, outcome)?, found)))
        .collect();
    let apart = others.iter().filter(|gap| gap.is_beyond_noise() == Some(true)).count();
    let interval =
        found.interval.map_or(String::new(), |ends| format!(" (95 % interval {})", of.range(ends)));
    let farthest = others.iter().map(|gap| gap.value).max_by(|a, b| a.abs().total_cmp(&b.abs()));
    let span = farthest.map_or(String::new(), |gap| {
        let bits = of
            .bases
            .map_or(String::new(), |bases| format!(", {} over all bases scored", in_bits(gap, bases)));
        format!(" The farthest from it differs by {}{bits}.", signed(gap, 4))
    });
    Some(format!(
        "{}: the best of {} cells is {} with {}{interval}; {apart} of the other {} differ from it beyond noise.{span}",
        of.name,
        count(others.len() as u64 + 1),
        name(&study.cells[best].at),
        of.text(found.value),
        others.len(),
    ))
}

impl PairsView {
    fn new(study: &Study, outcome: usize, row: usize, columns: &[usize]) -> Self {
        let pair = |&column: &usize| {
            let gap = study
                .measured(row, outcome)
                .zip(study.measured(column, outcome))
                .filter(|_| row != column)
                .map(|(left, right)| Gap::new(left, right));
            PairView {
                text: gap.map_or(String::new(), |gap| signed(gap.value, 4)),
                beyond: gap.and_then(Gap::is_beyond_noise) == Some(true),
            }
        };
        Self { number: row + 1, cells: columns.iter().map(pair).collect() }
    }
}

/// Every outcome against every axis that varies, and whether a plot leaves series out.
fn plots(study: &Study) -> Vec<(Plot, bool)> {
    let varied: Vec<&Axis> = study.varied().collect();
    let judged = (0..study.outcomes.len()).filter(|&outcome| study.outcomes[outcome].kind.judges());
    let by_work = judged.filter_map(|outcome| by_operations(study, outcome)).map(|plot| (plot, false));
    let drawn = (0..study.outcomes.len()).filter(|&outcome| study.outcomes[outcome].kind.is_drawn());
    let all = drawn.flat_map(|outcome| varied.iter().map(move |axis| (outcome, *axis)));
    all.filter_map(|(outcome, axis)| plot(study, outcome, axis))
        .chain(by_work)
        .chain(courses(study).map(|plot| (plot, false)))
        .collect()
}

/// Where the axis of the courses ends: at what the slowest of them had come down to in a tenth of its training.
const SETTLED: f64 = 0.1;

/// The courses of the best cells by the first outcome that judges; nothing where none is known.
fn courses(study: &Study) -> Option<Plot> {
    let judge = study.outcomes.iter().position(|of| of.kind.judges())?;
    let less = study.outcomes[judge].kind.less_is_better()?;
    let mut cells: Vec<(usize, f64)> = (0..study.cells.len())
        .filter(|&cell| study.cells[cell].course.len() > 1)
        .filter_map(|cell| Some((cell, study.measured(cell, judge)?.value)))
        .collect();
    cells.sort_by(|a, b| if less { a.1.total_cmp(&b.1) } else { b.1.total_cmp(&a.1) });
    let all = cells.len();
    cells.truncate(SERIES.len());
    let course = |cell: usize| study.cells[cell].course.iter().filter(|[x, y]| *x > 0.0 && y.is_finite());
    let points = || cells.iter().flat_map(|(cell, _)| course(*cell));
    let (first, last) = range(points().map(|point| point[0]))?;
    let (low, _) = range(points().map(|point| point[1]))?;
    let settled = |cell: usize| {
        let end = course(cell).next_back().map_or(0.0, |point| point[0]);
        course(cell).find(|point| point[0] >= SETTLED * end).map(|point| point[1])
    };
    let (_, high) = range(cells.iter().filter_map(|(cell, _)| settled(*cell)))?;
    let names: Vec<String> = cells.iter().map(|(cell, _)| format!("cell {}", cell + 1)).collect();
    let rows = Chart::legend_rows(names.iter().map(String::as_str));
    let x = Scale::logarithmic("Training, operations", first, last);
    let y = Scale::linear("Bits per base in training", low, high);
    let mut chart = Chart::new("Bits per base in training by operations", "Less is better.", x, y, rows);
    for (((cell, _), series), name) in cells.iter().zip(SERIES).zip(&names) {
        let line: Vec<Point> = course(*cell).map(|[x, y]| (*x, *y)).collect();
        chart.line(series, &line).legend("line", Some(series), name);
    }
    let which =
        if all > cells.len() { format!(", the {} best of {all} cells", cells.len()) } else { String::new() };
    let caption = format!(
        "Bits per base of the training rows while they were learned, by the operations so far{which}; what is above the axis is cut off."
    );
    Some(Plot { svg: chart.svg(), caption })
}

/// What the cells are judged by, against the operations of their training: what compute buys.
fn by_operations(study: &Study, outcome: usize) -> Option<Plot> {
    let work = study.outcomes.iter().position(|of| of.kind == Kind::Operations)?;
    let of = &study.outcomes[outcome];
    let cells: Vec<(usize, f64, Measured)> = (0..study.cells.len())
        .filter_map(|cell| Some((cell, study.measured(cell, work)?.value, study.measured(cell, outcome)?)))
        .filter(|(_, operations, _)| *operations > 0.0)
        .collect();
    let ends = |(_, _, of): &(usize, f64, Measured)| {
        std::iter::once(of.value).chain(of.interval.into_iter().flatten()).collect::<Vec<_>>()
    };
    let (least, most) = range(cells.iter().map(|(_, operations, _)| *operations))?;
    let (low, high) = range(cells.iter().flat_map(ends))?;
    let x = Scale::logarithmic(&study.outcomes[work].name, least / 1.3, most * 1.3);
    let title = format!("{} by operations", of.name);
    let mut chart = Chart::new(&title, &of.direction(), x, Scale::linear(&of.name, low, high), 0);
    for (cell, operations, found) in &cells {
        if let Some([low, high]) = found.interval {
            chart.interval(SERIES[0], *operations, (low, high));
        }
        let text = format!("cell {}, {}: {}", cell + 1, name(&study.cells[*cell].at), of.text(found.value));
        chart.dots(SERIES[0], &[((*operations, found.value), text)]);
    }
    let caption = format!(
        "{} by the operations of training, on a logarithmic axis; a dot is a cell. The upright axis does not begin at zero.",
        of.name
    );
    Some(Plot { svg: chart.svg(), caption })
}

/// The least and the greatest number.
fn range(values: impl Iterator<Item = f64> + Clone) -> Option<(f64, f64)> {
    let numbers = values.filter(|value| value.is_finite());
    Some((numbers.clone().reduce(f64::min)?, numbers.reduce(f64::max)?))
}

/// The cells of one series: those that agree in all axes but that of the plot.
struct Curve {
    name: String,
    dots: Vec<(usize, Measured)>,
}

fn plot(study: &Study, outcome: usize, axis: &Axis) -> Option<(Plot, bool)> {
    let of = &study.outcomes[outcome];
    let mut curves = curves(study, outcome, axis);
    let all = curves.len();
    let less = of.kind.less_is_better().unwrap_or(true);
    let best = |curve: &Curve| {
        let values = curve.dots.iter().map(|(_, of)| if less { of.value } else { -of.value });
        values.fold(f64::INFINITY, f64::min)
    };
    if all > SERIES.len() {
        curves.sort_by(|a, b| best(a).total_cmp(&best(b)));
        curves.truncate(SERIES.len());
    }
    let svg = draw(of, axis, &curves)?;
    let cut = if all > curves.len() {
        format!("; the {} best of {all} series", curves.len())
    } else {
        String::new()
    };
    let caption = format!("{} by {}{cut}. The upright axis does not begin at zero.", of.name, axis.name);
    Some((Plot { svg, caption }, all > SERIES.len()))
}

fn curves(study: &Study, outcome: usize, axis: &Axis) -> Vec<Curve> {
    let varies = |name: &String| study.axes.iter().any(|other| other.name == *name && other.varies());
    let mut curves: Vec<(BTreeMap<String, String>, Curve)> = Vec::new();
    for (place, cell) in study.cells.iter().enumerate() {
        let Some(x) = axis.place(cell) else { continue };
        let Some(found) = study.measured(place, outcome) else { continue };
        let mut rest = cell.at.clone();
        rest.retain(|name, _| *name != axis.name && varies(name));
        let at = curves.iter().position(|(other, _)| *other == rest).unwrap_or_else(|| {
            curves.push((rest.clone(), Curve { name: name(&rest), dots: Vec::new() }));
            curves.len() - 1
        });
        curves[at].1.dots.push((x, found));
    }
    let mut curves: Vec<Curve> = curves.into_iter().map(|(_, curve)| curve).collect();
    for curve in &mut curves {
        curve.dots.sort_by_key(|(x, _)| *x);
    }
    curves
}

fn draw(of: &Outcome, axis: &Axis, curves: &[Curve]) -> Option<String> {
    let ends = |(_, of): &(usize, Measured)| {
        std::iter::once(of.value).chain(of.interval.into_iter().flatten()).collect::<Vec<_>>()
    };
    let (low, high) = range(curves.iter().flat_map(|curve| curve.dots.iter().flat_map(ends)))?;
    let (x, places) = scale(axis);
    let named = curves.iter().any(|curve| !curve.name.is_empty());
    let rows = if named { legend_rows(curves) } else { 0 };
    let y = Scale::linear(&of.name, low, high);
    let mut chart = Chart::new(&format!("{} by {}", of.name, axis.name), &of.direction(), x, y, rows);
    for (number, (curve, series)) in curves.iter().zip(SERIES).enumerate() {
        let shift = (number as f64 - (curves.len() as f64 - 1.0) / 2.0) * 0.07;
        let place = |x: usize| {
            places.as_ref().map_or(x as f64 + shift, |places| places[x] * 1.04_f64.powf(shift / 0.07))
        };
        let text = |x: usize, found: Measured| {
            let interval = found.interval.map_or(String::new(), |ends| format!(" ({})", of.range(ends)));
            let name = if curve.name.is_empty() { String::new() } else { format!("{}, ", curve.name) };
            format!("{name}{} {}: {}{interval}", axis.name, axis.values[x], of.text(found.value))
        };
        let dots: Vec<(Point, String)> =
            curve.dots.iter().map(|(x, of)| ((place(*x), of.value), text(*x, *of))).collect();
        if places.is_some() && dots.len() > 1 {
            chart.line(series, &dots.iter().map(|(point, _)| *point).collect::<Vec<_>>());
        }
        for (x, found) in &curve.dots {
            if let Some([low, high]) = found.interval {
                chart.interval(series, place(*x), (low, high));
            }
        }
        chart.dots(series, &dots);
        if named {
            chart.legend("dot", Some(series), if curve.name.is_empty() { "the others" } else { &curve.name });
        }
    }
    Some(chart.svg())
}

/// An axis for the values, and where they lie on it if they are numbers far enough apart.
fn scale(axis: &Axis) -> (Scale, Option<Vec<f64>>) {
    if let Some(places) = numbers(&axis.values) {
        return (Scale::logarithmic_at(&axis.name, &places), Some(places));
    }
    let names = (0_u32..).map(f64::from).zip(axis.values.iter().cloned()).collect();
    (Scale::named(&axis.name, names), None)
}

/// Rows that a legend of these takes, as [`Chart`] sets it.
fn legend_rows(curves: &[Curve]) -> u32 {
    Chart::legend_rows(curves.iter().map(|curve| curve.name.as_str()))
}

impl Outcome {
    fn direction(&self) -> String {
        match self.kind.less_is_better() {
            Some(true) => "Less is better.".to_owned(),
            Some(false) => "More is better.".to_owned(),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::grid;
    use super::*;

    #[test]
    fn the_best_cell_is_named_with_its_interval_and_what_the_others_cost() {
        let view = StudyView::new(&grid());
        let sentences: Vec<&String> = view.sentences().collect();
        assert_eq!(
            sentences[0],
            "Bits per base, test: the best of 5 cells is bases 2048, tokenizer bpe, vocabulary 64 with 1.9440 (95 % interval \
             1.9410 to 1.9470); 4 of the other 4 differ from it beyond noise. The farthest from it differs by +0.0180, \
             +18.0\u{a0}kbit over all bases scored."
        );
        assert!(
            sentences[1]
                .contains("the best of 4 cells is bases 512, tokenizer bpe, vocabulary 64 with 0.4200")
        );
        assert!(sentences[1].ends_with(
            "1 of the other 3 differ from it beyond noise. The farthest from it differs by −0.2200."
        ));
    }

    #[test]
    fn pairs_say_how_far_cells_are_from_each_other() {
        let view = StudyView::new(&grid());
        let pairs = &view.judged[0].pairs;
        assert_eq!((pairs.len(), pairs[0].cells.len()), (5, 5));
        assert_eq!((pairs[0].cells[0].text.as_str(), pairs[0].cells[4].text.as_str()), ("", "+0.0070"));
        // Half widths of 0.003 make one of 0.0042.
        assert!(!pairs[0].cells[1].beyond && pairs[0].cells[4].beyond && pairs[4].cells[0].beyond);
        let words: Vec<&str> = view.judged[0].worths.iter().map(|worth| worth.beyond).collect();
        assert_eq!(words, ["beyond noise", "", "beyond noise", "", "", "beyond noise"]);
    }

    #[test]
    fn every_outcome_is_drawn_against_every_axis_that_varies() {
        let view = StudyView::new(&grid());
        assert_eq!(view.plots.len(), 4 * 3 + 2 + 1);
        let by_vocabulary =
            view.plots.iter().find(|plot| plot.caption.starts_with("Bits per base, test by vocabulary"));
        let svg = &by_vocabulary.unwrap().svg;
        // One series with two cells, one with the one that is left beside what failed.
        assert!(
            svg.contains("bases 512, tokenizer bpe") && svg.contains("bases 2048, tokenizer bpe"),
            "{svg}"
        );
        assert_eq!(svg.matches("<circle class=\"dot").count(), 3 + 2, "three cells, two in the legend");
        assert!(!view.cut);
        let by_work =
            view.plots.iter().find(|plot| plot.caption.starts_with("Bits per base, test by the operations"));
        let svg = &by_work.unwrap().svg;
        assert_eq!(svg.matches("<circle class=\"dot").count(), 5);
        assert!(
            svg.contains("<title>cell 5, bases 2048, tokenizer bpe, vocabulary 64: 1.9440</title>"),
            "{svg}"
        );
    }

    #[test]
    fn what_is_the_same_in_all_cells_takes_no_column() {
        let mut study = grid();
        study.cells.retain(|cell| cell.at["bases"] == "512");
        study.axes = super::super::axes(&study.cells);
        let view = StudyView::new(&study);
        assert_eq!(
            (view.axes, view.constant.as_deref()),
            (vec!["tokenizer".to_owned(), "vocabulary".to_owned()], Some("bases 512"))
        );
        assert_eq!(view.cells[0].at, ["nucleotide", ""]);
        assert_eq!(StudyView::new(&grid()).constant, None);
        study.cells.retain(|cell| cell.at.get("vocabulary").is_none_or(|of| of == "64"));
        study.axes = super::super::axes(&study.cells);
        let view = StudyView::new(&study);
        assert_eq!(view.axes, ["tokenizer", "vocabulary"], "not all have a vocabulary");
    }

    #[test]
    fn the_courses_of_the_best_cells_are_drawn() {
        let mut study = grid();
        study.cells[0].course.clear();
        let view = StudyView::new(&study);
        let plot = view.plots.iter().find(|plot| plot.caption.contains("while they were learned")).unwrap();
        assert_eq!(plot.svg.matches("<path class=\"line s").count(), 2 * 4, "four cells, and their legend");
        let drawn = ["cell 5", "cell 4", "cell 2", "cell 3"].map(|name| plot.svg.find(name));
        assert!(drawn.is_sorted() && drawn[0].is_some(), "the best first: {drawn:?}");
        study.cells.iter_mut().for_each(|cell| cell.course.clear());
        assert!(!StudyView::new(&study).plots.iter().any(|plot| plot.caption.contains("learned")));
    }

    #[test]
    fn series_beyond_the_colours_are_left_out_and_said() {
        let mut study = grid();
        let template = study.cells[0].clone();
        for value in 0..20 {
            let mut cell = template.clone();
            cell.at.insert("seed".into(), value.to_string());
            if let Some(of) = &mut cell.values[0] {
                of.value -= f64::from(value) * 1e-4;
            }
            study.cells.push(cell);
        }
        study.axes = super::super::axes(&study.cells);
        let view = StudyView::new(&study);
        assert!(view.cut && view.judged[0].pairs.is_empty(), "25 cells make too many pairs");
        let cut = view.plots.iter().find(|plot| plot.caption.contains("the 6 best of"));
        assert!(cut.unwrap().svg.contains("seed 19"), "the best is drawn");
    }
}
