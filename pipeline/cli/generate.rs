//! `genomill generate`: DNA drawn from a trained model.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::Error;
use crate::loader::mix;
use crate::model::device;
use crate::model::generate::{Continuation, Sampling};
use crate::model::olmo::Olmo;
use crate::sequence::alphabet;
use crate::tokenizer::Tokenizer;
use crate::train::checkpoint;

/// Bases of a line.
const LINE: usize = 60;

#[derive(Debug, Args)]
pub struct Arguments {
    /// A checkpoint, or a folder with some: the newest is taken
    checkpoint: PathBuf,
    /// The bases to continue; they are not printed again
    #[arg(long, value_name = "BASES", default_value = "")]
    prompt: String,
    /// Bases to draw: A, C, G and T
    #[arg(long, value_name = "N", default_value_t = 200)]
    bases: usize,
    /// Sequences to draw
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u64,
    /// Below 1 likely tokens become likelier; 0 takes the likeliest
    #[arg(long, default_value_t = 1.0, value_parser = temperature)]
    temperature: f64,
    /// Draw from so many of the likeliest tokens only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// Chooses the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Compute keys and values again for every token: slow, the same result
    #[arg(long)]
    no_cache: bool,
}

fn temperature(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0);
    number.ok_or_else(|| "expected a number from 0 up".to_owned())
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let other = |error: checkpoint::Error| Error::Other(error.to_string());
    let folder = checkpoint::find(&arguments.checkpoint).map_err(other)?;
    let device = device::open().map_err(|error| Error::Other(error.to_string()))?;
    let (state, model) = checkpoint::load(&folder, device).map_err(other)?;
    let tokenizer = checkpoint::tokenizer(&folder, &state).map_err(other)?;
    let prompt = prompt(&arguments.prompt, state.vocabulary.begin, tokenizer.as_ref())?;
    let mut out = io::stdout().lock();
    for number in 0..arguments.count {
        let bases = continuation(arguments, &model, tokenizer.as_ref(), prompt.clone(), number)?;
        let (name, step, seed) = (number + 1, state.progress.step, arguments.seed);
        writeln!(out, ">{name} step {step}, seed {seed}, after {} bases", arguments.prompt.len())?;
        for line in bases.chunks(LINE) {
            writeln!(out, "{}", String::from_utf8_lossy(line))?;
        }
    }
    Ok(())
}

/// The ids of the prompt, after the one that begins rows where there is one.
fn prompt(bases: &str, begin: Option<u32>, tokenizer: &dyn Tokenizer) -> Result<Vec<i64>, Error> {
    let mut bases = bases.as_bytes().to_vec();
    if let Some(position) = alphabet::first_invalid(&bases) {
        let found = char::from(bases[position]);
        return Err(Error::Other(format!("--prompt: `{found}` at base {position} is no IUPAC code")));
    }
    alphabet::normalize(&mut bases);
    let mut ids = begin.into_iter().collect();
    tokenizer.encode_into(&bases, &mut ids);
    Ok(ids.into_iter().map(i64::from).collect())
}

fn continuation(
    arguments: &Arguments,
    model: &Olmo,
    tokenizer: &dyn Tokenizer,
    prompt: Vec<i64>,
    number: u64,
) -> Result<Vec<u8>, Error> {
    let sampling = Sampling {
        temperature: arguments.temperature,
        top_k: arguments.top_k.map(|k| k as usize),
        seed: mix(arguments.seed ^ mix(number)),
        cache: !arguments.no_cache,
    };
    let allowed = (0..tokenizer.vocabulary_size()).map(|id| spells_bases(tokenizer, id)).collect::<Vec<_>>();
    let before = prompt.len();
    let other = |error: crate::model::generate::Error| Error::Other(error.to_string());
    let mut row = Continuation::new(model, prompt, &allowed, sampling).map_err(other)?;
    let mut drawn = 0;
    while drawn < arguments.bases {
        let id = row.draw().map_err(other)?;
        drawn += tokenizer.bases(to_u32(id)) as usize;
    }
    // Overlapping k-mers are spelt together with what comes before them.
    let ids = row.ids().iter().map(|id| to_u32(*id)).collect::<Vec<_>>();
    let (mut bases, mut skipped) = (Vec::new(), Vec::new());
    tokenizer.decode_into(&ids, &mut bases)?;
    tokenizer.decode_into(&ids[..before], &mut skipped)?;
    bases.drain(..skipped.len());
    bases.truncate(arguments.bases);
    Ok(bases)
}

/// Whether a token stands for bases, and for no other codes than A, C, G and T.
fn spells_bases(tokenizer: &dyn Tokenizer, id: u32) -> bool {
    let spelt = |text: &str| text.bytes().all(|base| b"ACGT".contains(&base));
    tokenizer.bases(id) > 0 && tokenizer.text(id).is_some_and(spelt)
}

/// Ids are those of a vocabulary.
fn to_u32(id: i64) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}
