//! A child process: its logs, its end, and how it is stopped.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::fs;
use crate::observer::Stop;
use crate::stage;

/// The files that hold what the program printed.
pub(in crate::stage) const LOGS: [&str; 2] = ["stdout.log", "stderr.log"];

/// How many lines of a log a failure shows.
const LINES: usize = 20;

/// How much of the end of a log is looked at for these, in bytes.
const TAIL_BYTES: u64 = 64 << 10;

/// Between two looks at the child.
const PAUSE: Duration = Duration::from_millis(20);

/// From asking a process group to end to ending it.
const GRACE: Duration = Duration::from_secs(5);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program is not there.
    #[error("cannot find the program `{program}`, neither in `PATH` nor as a path from `{}`", folder.display())]
    NoProgram {
        /// As the workflow writes it.
        program: String,
        /// The folder that it was started in.
        folder: PathBuf,
    },
    /// The program cannot be started.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// As the workflow writes it.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The end of the program cannot be seen.
    #[error("cannot wait for `{program}`: {source}")]
    Wait {
        /// As the workflow writes it.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program ended with a failure.
    #[error("`{program}` ended with {status}{}", shown(tail))]
    Failed {
        /// As the workflow writes it.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it printed.
        tail: Vec<String>,
    },
    /// A declared output is a link, which another file could be put behind.
    #[error("`{output}`, which `outputs` lists, is a link to `{}`, expected a file", to.display())]
    Link {
        /// The output.
        output: String,
        /// What it leads to.
        to: PathBuf,
    },
    /// A declared output is not there.
    #[error("the command made no `{output}`, which `outputs` lists; it made {}", listed(found))]
    NoOutput {
        /// The file.
        output: String,
        /// What is there.
        found: Vec<String>,
    },
}

fn shown(tail: &[String]) -> String {
    if tail.is_empty() {
        return ", and printed nothing".to_owned();
    }
    format!(", after it had printed:\n  {}", tail.join("\n  "))
}

fn listed(found: &[String]) -> String {
    let found: Vec<String> =
        found.iter().filter(|name| !LOGS.contains(&name.as_str())).map(|name| format!("`{name}`")).collect();
    if found.is_empty() { "no file".to_owned() } else { found.join(", ") }
}

/// A program to run.
pub(in crate::stage) struct Process<'a> {
    /// The program and its arguments; at least the program.
    pub arguments: &'a [String],
    /// Variables beside those of genomill's own environment.
    pub variables: Vec<(String, String)>,
    /// Where it runs.
    pub folder: &'a Path,
    /// Where its logs go.
    pub out: &'a Path,
}

impl Process<'_> {
    /// Runs it to its end, or to the request to stop.
    pub fn run(&self, stop: &Stop) -> Result<(), stage::Error> {
        let mut child = self.start()?;
        let status = self.wait(&mut child, stop)?;
        // What it left running would write on.
        signal(&child, Signal::KILL);
        if status.success() {
            return Ok(());
        }
        // Who stops genomill may have stopped the program as well.
        if stop.is_requested() {
            return Err(stage::Error::Interrupted);
        }
        Err(Error::Failed { program: self.program().to_owned(), status, tail: self.tail()? }.into())
    }

    fn program(&self) -> &str {
        self.arguments.first().map_or("", String::as_str)
    }

    fn start(&self) -> Result<Child, stage::Error> {
        let [out, err] = LOGS.map(|name| fs::create(&self.out.join(name)));
        let program = self.program();
        // A path starts from the folder that it is to run in, not from the one that genomill runs in.
        let path = if program.contains('/') { self.folder.join(program) } else { PathBuf::from(program) };
        let path = if program.contains('/') { std::path::absolute(&path).unwrap_or(path) } else { path };
        let child = Command::new(path)
            .args(&self.arguments[1..])
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder)
            .stdin(Stdio::null())
            .stdout(out?)
            .stderr(err?)
            .process_group(0)
            .spawn();
        let (program, folder) = (program.to_owned(), self.folder.to_owned());
        child.map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::NoProgram { program, folder }.into(),
            _ => Error::Start { program, source }.into(),
        })
    }

    /// Waits for the end of a child; on request its whole process group is ended.
    fn wait(&self, child: &mut Child, stop: &Stop) -> Result<ExitStatus, stage::Error> {
        let failed = |source| Error::Wait { program: self.program().to_owned(), source };
        // Short at first: many programs end at once.
        let mut pause = PAUSE / 256;
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status);
            }
            if stop.is_requested() {
                end(child).map_err(failed)?;
                return Err(stage::Error::Interrupted);
            }
            std::thread::sleep(pause);
            pause = PAUSE.min(pause * 2);
        }
    }

    /// The last lines of what it printed: on standard error if anything, else on standard output.
    fn tail(&self) -> Result<Vec<String>, fs::Error> {
        for log in LOGS.iter().rev() {
            let lines = last_lines(&self.out.join(log))?;
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
        Ok(Vec::new())
    }
}

/// Asks a process group to end, and ends it if it does not.
fn end(child: &mut Child) -> Result<(), std::io::Error> {
    let asked = Instant::now();
    signal(child, Signal::TERM);
    while child.try_wait()?.is_none() && asked.elapsed() < GRACE {
        std::thread::sleep(PAUSE);
    }
    signal(child, Signal::KILL);
    child.wait().map(drop)
}

/// A group that is gone already needs no signal.
fn signal(child: &Child, signal: Signal) {
    kill_process_group(Pid::from_child(child), signal).ok();
}

fn last_lines(path: &Path) -> Result<Vec<String>, fs::Error> {
    let mut file = fs::open(path)?;
    let read = |file: &mut File| {
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read(&mut file).map_err(fs::error("read", path))?;
    let mut lines = VecDeque::new();
    for line in BufReader::new(&bytes[..]).split(b'\n').map_while(Result::ok) {
        lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
        if lines.len() > LINES {
            lines.pop_front();
        }
    }
    Ok(lines.into())
}

/// The files of a folder and those below it, as paths with `/` relative to it, in alphabetical order.
pub(super) fn files(root: &Path, below: &Path, found: &mut Vec<String>) -> Result<(), fs::Error> {
    let folder = root.join(below);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(fs::error("list", &folder))? {
        names.push(entry.map_err(fs::error("list", &folder))?.file_name());
    }
    names.sort();
    for name in names {
        let path = below.join(name);
        let there = root.join(&path);
        let metadata = std::fs::symlink_metadata(&there).map_err(fs::error("read", &there))?;
        if metadata.is_dir() {
            files(root, &path, found)?;
        } else {
            found.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}
