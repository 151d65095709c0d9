//! `genomill init`: a first workflow for somebody's own FASTA files.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Error, say};
use crate::fs;
use crate::workflow::starter::{self, Genome};

#[derive(Debug, Args)]
pub struct Arguments {
    /// FASTA files, plain or compressed; by default those of this folder
    fasta: Vec<PathBuf>,
    /// The workflow file to write; it must not exist
    #[arg(short, long, value_name = "FILE", default_value = "workflow.yaml")]
    output: PathBuf,
    /// Also write the schema that the workflow's first line names, for editors: genomill.schema.json beside it
    #[arg(long)]
    schema: bool,
}

/// The file of the schema, beside the workflow.
const SCHEMA: &str = "genomill.schema.json";

/// Endings of FASTA files, before those of compression.
const ENDINGS: [&str; 3] = [".fa", ".fasta", ".fna"];
const COMPRESSED: [&str; 5] = ["", ".gz", ".bgz", ".zst", ".xz"];

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    if arguments.output.exists() {
        return Err(exists(&arguments.output));
    }
    let files = if arguments.fasta.is_empty() { found()? } else { arguments.fasta.clone() };
    let genomes: Vec<Genome> = files.iter().map(|file| Genome::read(file)).collect::<Result<_, _>>()?;
    let folder = arguments.output.parent().unwrap_or(Path::new(""));
    let text = starter::workflow(&name(&arguments.output), &genomes, folder, SCHEMA);
    create(&arguments.output, &text)?;
    if arguments.schema {
        fs::write_atomic(&folder.join(SCHEMA), starter::schema_text().as_bytes())?;
    }
    writeln!(io::stdout(), "{}", arguments.output.display())?;
    say(&format!("look at it, then: genomill run {}", arguments.output.display()));
    Ok(())
}

/// Writes a file that does not exist.
fn create(path: &Path, text: &str) -> Result<(), Error> {
    let mut file = match File::create_new(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(path)),
        Err(error) => return Err(fs::error("create", path)(error).into()),
    };
    Ok(file.write_all(text.as_bytes()).map_err(fs::error("write", path))?)
}

fn exists(path: &Path) -> Error {
    Error::Other(format!("cannot write `{}`: it exists already; -o names another file", path.display()))
}

/// The FASTA files of the current folder, by name.
fn found() -> Result<Vec<PathBuf>, Error> {
    let folder = Path::new(".");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fs::error("list", folder))? {
        let name = entry.map_err(fs::error("list", folder))?.file_name();
        let lower = name.to_string_lossy().to_ascii_lowercase();
        let mut endings =
            ENDINGS.iter().flat_map(|ending| COMPRESSED.map(|packed| format!("{ending}{packed}")));
        if endings.any(|ending| lower.ends_with(&ending)) {
            files.push(PathBuf::from(name));
        }
    }
    files.sort();
    if files.is_empty() {
        let expected = "expected files that end in .fa, .fasta or .fna, or those with .gz, .bgz, .zst or .xz";
        return Err(Error::Other(format!("no FASTA file is named and none is in this folder; {expected}")));
    }
    Ok(files)
}

/// What the workflow is called: its file, as far as names may be.
fn name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = stem.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(['-', '_', '.']);
    if name.is_empty() { "mine".to_owned() } else { name.to_owned() }
}
