//! What the sequences of sources and splits are made of: the rows of the tables and the charts.

use serde::Serialize;

use super::number::{count, percent};
use super::{Account, Bin, Data, Histogram, Part, Sequence, figure};
use crate::sequence::statistics::{GC_BINS, WINDOW};

/// Charts are drawn for as many sources, and for as many splits.
const DRAWN: usize = 8;

/// The longest table of accounts that is worth printing.
const ACCOUNTS: usize = 200;

/// Everything of the section.
#[derive(Serialize)]
pub(super) struct SequencesView<'a> {
    window: u64,
    rows: Vec<RowView<'a>>,
    figures: Vec<FigureView>,
    /// Whether there are sources or splits without charts.
    undrawn: bool,
    accounts: Vec<AccountView<'a>>,
    all_accounts: usize,
}

#[derive(Serialize)]
struct RowView<'a> {
    sequence: &'a Sequence,
    gc: Option<f64>,
    soft_masked: Option<f64>,
    n: Option<f64>,
    other_codes: Option<f64>,
    codes: String,
    twice: Vec<String>,
}

#[derive(Serialize)]
struct FigureView {
    title: String,
    gc: Option<String>,
    lengths: Option<String>,
}

#[derive(Serialize)]
struct AccountView<'a> {
    account: &'a Account,
    accounted: bool,
}

impl<'a> SequencesView<'a> {
    pub(super) fn new(data: &'a Data) -> Option<Self> {
        let of = |part| data.sequences.iter().filter(move |sequence| sequence.part == part);
        let drawn = of(Part::Source).take(DRAWN).chain(of(Part::Split).take(DRAWN));
        let figures = drawn.map(FigureView::new).filter(|of| of.gc.is_some() || of.lengths.is_some());
        let undrawn = [Part::Source, Part::Split].into_iter().any(|part| of(part).count() > DRAWN);
        (!data.sequences.is_empty() || !data.accounts.is_empty()).then(|| Self {
            window: WINDOW,
            rows: data.sequences.iter().map(RowView::new).collect(),
            figures: figures.collect(),
            undrawn,
            accounts: data.accounts.iter().take(ACCOUNTS).map(AccountView::new).collect(),
            all_accounts: data.accounts.len(),
        })
    }
}

impl<'a> RowView<'a> {
    fn new(sequence: &'a Sequence) -> Self {
        let statistics = &sequence.statistics;
        let share = |part: u64| (statistics.bases > 0).then(|| part as f64 / statistics.bases as f64);
        let codes = statistics.codes.iter().map(|(code, n)| format!("{code} {}", count(*n)));
        Self {
            sequence,
            gc: statistics.gc(),
            soft_masked: share(statistics.soft_masked),
            n: share(statistics.n),
            other_codes: share(statistics.other_codes()),
            codes: codes.collect::<Vec<_>>().join(", "),
            twice: twice(sequence),
        }
    }
}

/// What was found twice, in words.
fn twice(sequence: &Sequence) -> Vec<String> {
    let of = |found: &super::Duplicates| {
        let (exact, near, all) = (count(found.exact), count(found.near), count(found.compared));
        format!("{}: {exact} exact and {near} near duplicates of {all} {}", found.stage, found.unit)
    };
    let shared = |found: &super::Shared| {
        let (shared, all) = (count(found.shared), count(found.windows));
        format!("{}: {shared} of {all} windows in {}", found.stage, found.within)
    };
    sequence.duplicates.iter().map(of).chain(sequence.shared.iter().map(shared)).collect()
}

impl FigureView {
    fn new(sequence: &Sequence) -> Self {
        let part = if sequence.part == Part::Source { "Source" } else { "Split" };
        let title = format!("{part} {}", sequence.name);
        Self {
            gc: figure::gc_windows(&title, &sequence.statistics),
            lengths: figure::lengths(&lengths(&title, sequence)),
            title,
        }
    }
}

/// The lengths of records, in the bins that they were counted in; none where there is one record.
fn lengths(title: &str, sequence: &Sequence) -> Histogram {
    let counted = &sequence.statistics.lengths;
    let several = counted.iter().map(|(.., count)| count).sum::<u64>() > 1;
    let bins = counted.iter().filter(|_| several);
    Histogram {
        title: format!("Lengths of records of {title}"),
        counted: "records".to_owned(),
        unit: "bases".to_owned(),
        logarithmic: true,
        bins: bins.map(|&(low, high, count)| Bin { low, high, count }).collect(),
    }
}

impl<'a> AccountView<'a> {
    fn new(account: &'a Account) -> Self {
        let dropped: u64 = account.dropped.iter().map(|dropped| dropped.count).sum();
        Self { account, accounted: account.after.checked_add(dropped) == Some(account.before) }
    }
}

/// `38 to 40 %` of the bin of a share of G and C.
pub(super) fn gc_range(bin: usize) -> String {
    let at = |bin: usize| bin * 100 / GC_BINS;
    format!("{} to {} %", at(bin), at(bin + 1))
}

/// `12.3 % of 12,157,105 bases`.
pub(super) fn share_of(part: u64, bases: u64) -> String {
    format!("{} of {} bases", percent(part as f64 / bases.max(1) as f64), count(bases))
}
