//! Where the time of some steps goes, written once in a run for whom asked for it. One choice for the whole process.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tch::Device;

use super::error::Error;
use crate::model::{device, gpu};

/// The first step of this process that is noted: those before it warm up.
const FIRST: u64 = 5;
/// How many are.
const STEPS: u64 = 3;

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Asks for a trace in this file; on the process's first thread, once the device is chosen.
///
/// # Errors
/// When there is no such device, or torch cannot make a trace.
pub fn choose(file: PathBuf) -> Result<(), Error> {
    gpu::prepare_trace(device::open()?).map_err(Error::Trace)?;
    drop(FILE.set(file));
    Ok(())
}

/// A trace that is asked for, until it is written.
pub(super) struct Trace {
    file: Option<&'static Path>,
    /// Steps that this process began.
    begun: u64,
}

impl Trace {
    /// What was asked for; nothing of a rank that does not lead.
    pub(super) fn chosen(leads: bool) -> Self {
        Self { file: FILE.get().map(PathBuf::as_path).filter(|_| leads), begun: 0 }
    }

    /// Before a step: begins to note, or ends; what to tell people.
    pub(super) fn step(&mut self, device: Device) -> Result<Option<String>, Error> {
        self.begun += 1;
        if self.begun == FIRST && self.file.is_some() {
            gpu::begin_trace(device).map_err(Error::Trace)?;
        }
        if self.begun < FIRST + STEPS { Ok(None) } else { self.end() }
    }

    /// Ends, unless that is done; what to tell people.
    pub(super) fn end(&mut self) -> Result<Option<String>, Error> {
        let Some(file) = self.file.take() else { return Ok(None) };
        if self.begun < FIRST {
            return Ok(Some(format!("no trace: it begins with the step {FIRST} after a start")));
        }
        gpu::end_trace(file).map_err(Error::Trace)?;
        Ok(Some(format!("`{}` tells where the time of some steps went", file.display())))
    }
}
