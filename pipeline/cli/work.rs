//! `--work`: a folder, or an address that many machines can share, beside which this one has a folder for its copies.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Error;
use crate::observer::{Observer, Stop};
use crate::remote::{Address, Depot, Remote, is_address};
use crate::workflow::{Shared, Workflow};

/// For the commands that take both.
#[derive(Debug, Clone, Args)]
pub struct Work {
    /// The folder in which each workflow has its folder of artifacts; `s3://bucket/prefix` is one that many machines can share
    #[arg(long, value_name = "DIR", default_value = "work")]
    work: PathBuf,
    /// The folder of this machine for copies of what is at an address; by default one in the cache
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// Where the artifacts of a workflow are.
#[derive(Debug)]
pub struct Place {
    /// Their folder, or that of the copies.
    pub work: PathBuf,
    /// What they are shared by.
    pub depot: Option<Depot>,
    /// What people call it.
    pub name: String,
}

impl Work {
    /// A folder of this machine.
    pub fn folder(work: &Path) -> Self {
        Self { work: work.to_owned(), scratch: None }
    }

    /// The folder, which must be one of this machine.
    pub fn local(&self) -> Result<&Path, Error> {
        folder(&self.work.to_string_lossy()).map_err(Error::Other)?;
        Ok(&self.work)
    }

    pub fn place(&self, workflow: &Workflow, remote: &Remote) -> Result<Place, Error> {
        if !is_address(&self.work) {
            if self.scratch.is_some() {
                return Err(Error::Other(
                    "`--scratch` goes with an address, such as `--work s3://bucket/prefix`".to_owned(),
                ));
            }
            let work = self.work.join(&workflow.name);
            return Ok(Place { name: work.display().to_string(), work, depot: None });
        }
        let root = Address::parse(&self.work.to_string_lossy())?;
        let hash = blake3::hash(root.to_string().trim_end_matches('/').as_bytes()).to_hex();
        let scratch = || remote.cache().join("work").join(&hash[..32]);
        let work = self.scratch.clone().unwrap_or_else(scratch).join(&workflow.name);
        let depot = Depot::new(remote, root.join(&workflow.name))?;
        Ok(Place {
            name: format!("{}, copies in {}", depot.at(""), work.display()),
            work,
            depot: Some(depot),
        })
    }
}

impl Place {
    pub fn shared<'a>(&'a self, observer: &'a dyn Observer, stop: &'a Stop) -> Option<Shared<'a>> {
        self.depot.as_ref().map(|depot| Shared { depot, observer, stop })
    }
}

/// Reads the `--work` of a command that needs a folder.
pub fn folder(text: &str) -> Result<PathBuf, String> {
    if is_address(Path::new(text)) { Err(format!("`{text}` {REFUSED}")) } else { Ok(text.into()) }
}

/// Why an address is refused, and what to do.
const REFUSED: &str = "is an address, and a folder is needed here, for the jobs of a cluster one that all nodes see; `run`, `plan`, \
     `status` and `run-task` take addresses, also in jobs that you send yourself";
