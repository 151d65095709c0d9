//! The report: one HTML file that shows what a workflow did, with nothing to load from elsewhere; and another that puts two
//! runs side by side, [`Comparison`], and one with the scores of models on tasks, [`Leaderboard`].
//!
//! [`Data`] says what is shown; what is missing from it is left out of the page. [`render`] draws the figures as inline
//! SVG and fills the page's template. Text is escaped everywhere. Memory: the page, some hundred kilobytes.

mod audits;
mod axis;
mod chart;
mod comparison;
mod dag;
mod data;
mod figure;
mod histogram;
mod leaderboard;
mod number;
mod sequences;
pub mod study;
mod verdict;
mod view;
mod vocabularies;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;

use crate::metric::interval::Estimate;

use view::View;

pub use audits::{Audited, Without};
pub use comparison::{Comparison, PairState, StagePair, ValuePair, render_comparison};
pub use dag::standalone as graph;
pub use data::*;
pub use histogram::{Bin, Histogram};
pub use leaderboard::Leaderboard;
pub use number::{bytes, count, seconds};
pub use study::Study;
pub use verdict::Baseline;

/// Why a report could not be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The page's template failed.
    #[error("cannot render the report: {0}")]
    Template(#[from] minijinja::Error),
}

/// The report as one HTML page.
pub fn render(data: &Data) -> Result<String, Error> {
    Ok(environment()?.get_template("page.html")?.render(Serde(View::new(data)))?)
}

/// The templates of all pages, and what they print numbers with.
fn environment() -> Result<minijinja::Environment<'static>, Error> {
    let mut templates = minijinja::Environment::new();
    templates.add_filter("count", number::count);
    templates.add_filter("fixed", number::fixed);
    templates.add_filter("percent", number::percent);
    templates.add_filter("seconds", number::seconds);
    templates.add_filter("bytes", number::bytes);
    templates.add_filter("capitalised", |text: &str| figure::capitalised(text));
    templates.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    templates.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    // The name's ending turns escaping on.
    templates.add_template("head.html", include_str!("report/head.html"))?;
    templates.add_template("study.html", include_str!("report/study.html"))?;
    templates.add_template("page.html", include_str!("report/page.html"))?;
    templates.add_template("board.html", include_str!("report/board.html"))?;
    templates.add_template("leaderboard.html", include_str!("report/leaderboard.html"))?;
    templates.add_template("comparison.html", include_str!("report/comparison.html"))?;
    Ok(templates)
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
