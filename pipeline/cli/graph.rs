//! `genomill graph`: the stages of a workflow for programs that draw.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Error, environment};
use crate::workflow::graph::Graph;
use crate::workflow::{Override, Workflow};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The workflow file
    file: PathBuf,
    /// Put VALUE in place of what the file says, as for `genomill run`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    set: Vec<Override>,
    /// In which language
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A Mermaid flowchart, as GitHub shows it in Markdown
    Mermaid,
    /// Graphviz: `genomill graph FILE --format dot | dot -Tpdf -o graph.pdf`
    Dot,
    /// A picture, light or dark as the reader likes it
    Svg,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let graph = Graph::new(&Workflow::open(&arguments.file, &arguments.set, &environment)?);
    let text = match arguments.format {
        Format::Mermaid => graph.mermaid(),
        Format::Dot => graph.dot(),
        Format::Svg => graph.svg() + "\n",
    };
    Ok(write!(io::stdout(), "{text}")?)
}
