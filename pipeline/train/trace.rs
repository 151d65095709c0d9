//! Where the time of some steps goes, written once in a run for whom asked for it. One choice for the whole process. A trace that
//! fails under way is told, and the run goes on without.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tch::Device;

use super::error::Error;
use crate::fs;
use crate::model::{device, gpu};

/// The first step of this process that is noted: those before it warm up.
const FIRST: u64 = 5;
/// How many are.
const STEPS: u64 = 3;

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Asks for a trace in this file; on the process's first thread, once the device is chosen.
///
/// # Errors
/// When there is no such device, torch cannot make a trace, or no file can come to be there.
pub fn choose(file: PathBuf) -> Result<(), Error> {
    let folder = fs::folder_of(&file);
    if !folder.is_dir() {
        return Err(Error::Trace(format!("there is no folder `{}`", folder.display())));
    }
    if file.is_dir() {
        return Err(Error::Trace(format!("`{}` is a folder: expected the name of a file", file.display())));
    }
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
    pub(super) fn step(&mut self, device: Device) -> Option<String> {
        self.begun += 1;
        if self.begun == FIRST
            && self.file.is_some()
            && let Err(why) = gpu::begin_trace(device)
        {
            self.file = None;
            return Some(format!("no trace: {why}"));
        }
        if self.begun < FIRST + STEPS { None } else { self.end() }
    }

    /// Ends, unless that is done; what to tell people.
    pub(super) fn end(&mut self) -> Option<String> {
        let file = self.file.take()?;
        Some(if self.begun < FIRST {
            format!("no trace: it begins with the step {FIRST} after a start")
        } else if let Err(why) = written(file) {
            format!("no trace: {why}")
        } else {
            format!("`{}` tells where the time of some steps went", file.display())
        })
    }
}

/// Writes the trace, which is there when it is whole.
fn written(file: &Path) -> Result<(), String> {
    let said = |error: fs::Error| error.to_string();
    let part = fs::temporary_file(fs::folder_of(file)).map_err(said)?.into_temp_path();
    gpu::end_trace(&part)?;
    part.persist(file).map_err(|failed| said(fs::error("write", file)(failed.error)))
}
