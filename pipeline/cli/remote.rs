//! The way to objects at addresses, as the environment says; and shard folders that may be addresses.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::progress::{self, Style};
use super::{Error, run, say};
use crate::artifact::Artifact;
use crate::observer::Stop;
use crate::remote::{self, Address, Remote, Settings, Watch};
use crate::shard::remote::{Need, open, pin};

/// The cache of `--cache`, else of `GENOMILL_CACHE`, else `genomill` in the user's cache folder; how to reach what, from
/// `AWS_...` and `GENOMILL_ALLOW_HTTP`.
pub fn remote(cache: Option<&Path>) -> Remote {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let users = || {
        let folder = named("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
        let folder = folder.or_else(|| named("HOME").map(|home| PathBuf::from(home).join(".cache")));
        folder.unwrap_or_else(std::env::temp_dir).join("genomill")
    };
    let cache = cache.map(Path::to_owned).or_else(|| named("GENOMILL_CACHE").map(PathBuf::from));
    let aws = std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
            .filter(|(name, _)| name.starts_with("AWS_"))
    });
    let mut settings = Settings::new(cache.unwrap_or_else(users));
    settings.aws = aws.collect();
    settings.allow_http = named("GENOMILL_ALLOW_HTTP").is_some_and(|value| value != "0");
    Remote::new(settings)
}

/// The artifact in a shard folder, which may be an address; then what is needed of it is brought here first.
pub fn artifact(folder: &Path, need: Need, remote: &Remote) -> Result<Artifact, Error> {
    if !remote::is_address(folder) {
        return Ok(Artifact::open(folder)?);
    }
    let address = Address::parse(&folder.to_string_lossy())?;
    let stop = Arc::new(Stop::new());
    run::on_signal(&stop)?;
    let observer = progress::observer(Style::Auto);
    let watch = Watch { stage: "fetch", observer: observer.as_ref(), stop: &stop };
    let artifact = open(&address, need, remote, watch)?;
    if let (None, Some(sha256)) = (address.sha256(), pin(&artifact)) {
        say(&format!("pinned, and without asking the server again: {address}#sha256={sha256}"));
    }
    Ok(artifact)
}
