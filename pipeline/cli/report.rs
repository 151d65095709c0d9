//! `genomill report`: where the page of a run lies, which its `report` stage writes; and the page of two runs, which
//! `genomill compare --html` writes.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::{Error, compare, say};
use crate::stage::report::PAGE;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The work folder of a run, such as work/yeast: prints the path of its page
    #[arg(required_unless_present = "compare")]
    work: Option<PathBuf>,
    /// Write a page of two runs side by side, as `genomill compare FIRST SECOND --html FILE` does
    #[arg(long, num_args = 2, value_names = ["FIRST", "SECOND"], conflicts_with = "work")]
    compare: Vec<PathBuf>,
    /// Where to write that page
    #[arg(long, value_name = "FILE", default_value = "compare.html", requires = "compare")]
    html: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let Some(work) = &arguments.work else {
        let [first, second] = &arguments.compare[..] else { return Ok(()) };
        compare::write_page(first.clone(), second.clone(), arguments.html.clone())?;
        say(&format!("written: {}", arguments.html.display()));
        return Ok(());
    };
    let artifacts = compare::artifacts(work)?;
    let mut pages = artifacts.iter().filter(|a| a.manifest.kind == "report").map(|a| a.path(PAGE)).peekable();
    if pages.peek().is_none() {
        let reason = format!(
            "`{}` holds no report; give its workflow a stage such as `report: {{uses: report, from: [shards]}}`",
            work.display()
        );
        return Err(Error::Other(reason));
    }
    let mut out = io::stdout().lock();
    pages.try_for_each(|page| Ok(writeln!(out, "{}", page.display())?))
}
