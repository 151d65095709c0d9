//! `genomill completions` and `genomill man`: what a shell and `man` want to know of the commands.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, CommandFactory, ValueEnum};

use super::{Arguments, Error};
use crate::fs;

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// `genomill completions bash > ~/.local/share/bash-completion/completions/genomill`
    Bash,
    /// `genomill completions zsh > DIR/_genomill`, with DIR in `fpath`
    Zsh,
    /// `genomill completions fish > ~/.config/fish/completions/genomill.fish`
    Fish,
}

#[derive(Debug, Args)]
pub struct ManArguments {
    /// Write a page for each command into this folder; without it the page of genomill goes to stdout
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the completions; in memory first, since the generator would panic on a closed pipe.
pub fn completions(shell: Shell) -> Result<(), Error> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "genomill", &mut text);
    Ok(io::stdout().write_all(&text)?)
}

pub fn man(arguments: &ManArguments) -> Result<(), Error> {
    let command = Arguments::command();
    let Some(folder) = &arguments.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return Ok(io::stdout().write_all(&page)?);
    };
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder).map_err(fs::error("write pages into", folder))?;
    Ok(writeln!(io::stdout(), "{}", folder.display())?)
}
