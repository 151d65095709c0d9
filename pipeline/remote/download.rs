//! Downloads: several at a time, each resumed where it broke off, tried again after a while, and checked.
//!
//! All of it runs on the calling thread, in a runtime that lives as long as the call.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, ObjectStore};

use super::ask::{Ask, Deed, Fault, Tally, deepest};
use super::part::{self, Part};
use super::{Error, Expected, Fetched, PARALLEL, Settings, Wanted, Watch, store};

/// Brings every object, in the order in which they are done; the first failure ends the others, whose parts stay.
pub fn all(settings: &Settings, wanted: &[&Wanted], watch: Watch) -> Result<Vec<Fetched>, Error> {
    let address = wanted.first().map(|wanted| wanted.address.to_string()).unwrap_or_default();
    store::block_on(&address, every(settings, wanted, watch))
}

async fn every(settings: &Settings, wanted: &[&Wanted], watch: Watch<'_>) -> Result<Vec<Fetched>, Error> {
    let mut stores = BTreeMap::new();
    let mut downloads = Vec::new();
    let known = wanted.iter().map(|wanted| match wanted.expected {
        Expected::Blake3(bytes, _) => bytes,
        _ => 0,
    });
    let tally = Tally::new(known.sum(), watch);
    for wanted in wanted {
        let address = &wanted.address;
        let key = address.root();
        if !stores.contains_key(&key) {
            stores.insert(key.clone(), store::open(settings, address)?);
        }
        downloads.push(Download {
            ask: Ask { settings, address, watch, deed: Deed::Fetch, expected: "the file" },
            wanted,
            tally: &tally,
            store: Arc::clone(&stores[&key]),
            location: store::location(address)?,
        });
    }
    let running = downloads.iter().map(Download::run);
    futures_util::stream::iter(running).buffer_unordered(PARALLEL).try_collect().await
}

/// One object on its way.
struct Download<'a> {
    ask: Ask<'a>,
    wanted: &'a Wanted,
    tally: &'a Tally<'a>,
    store: Arc<dyn ObjectStore>,
    location: object_store::path::Path,
}

impl Download<'_> {
    async fn run(&self) -> Result<Fetched, Error> {
        let stopped = || Error::Stopped { address: self.ask.name() };
        let mut part = Part::open(&self.part(), self.ask.watch.stop).await?.ok_or_else(stopped)?;
        if let Some(fetched) = self.made_meanwhile()? {
            part.remove()?;
            return Ok(fetched);
        }
        self.tally.add(part.bytes());
        let (mut attempts, mut furthest, mut size) = (0, part.bytes(), None);
        if self.is_whole(&part) {
            let to = self.destination(&part.so_far());
            return part.publish(&to);
        }
        loop {
            match self.attempt(&mut part, &mut size).await {
                Ok(()) => match self.check(&part.so_far()) {
                    Ok(()) => break,
                    Err(_) if part.is_resumed() => {
                        self.ask.watch.note(format!(
                            "`{}` has changed since its download began; starting anew",
                            self.ask.name()
                        ));
                        self.restart(&mut part)?;
                    }
                    Err(error) => {
                        part.remove()?;
                        return Err(error);
                    }
                },
                Err(Fault::FromTheStart) => self.restart(&mut part)?,
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Passing(reason)) => {
                    attempts = if part.bytes() > furthest { 1 } else { attempts + 1 };
                    furthest = furthest.max(part.bytes());
                    self.ask.pause(attempts, &reason).await?;
                    part.resume();
                }
            }
        }
        let to = self.destination(&part.so_far());
        part.publish(&to)
    }

    /// The file in which it grows.
    fn part(&self) -> PathBuf {
        if let Some(to) = &self.wanted.to {
            let name = to.file_name().unwrap_or_default().to_string_lossy();
            return to.with_file_name(format!("{name}.part"));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.ask.name().as_bytes());
        if let Expected::Sha256(sha256) = &self.wanted.expected {
            hasher.update(sha256.as_bytes());
        }
        let hash = hasher.finalize().to_hex();
        self.ask.settings.cache.join("part").join(format!("{}.part", &hash[..32]))
    }

    /// Where it will be.
    fn destination(&self, fetched: &Fetched) -> PathBuf {
        let place = || self.in_cache(&fetched.sha256);
        self.wanted.to.clone().unwrap_or_else(place)
    }

    fn in_cache(&self, sha256: &str) -> PathBuf {
        self.ask.settings.cache.join("sha256").join(sha256).join(self.wanted.address.file_name())
    }

    /// What another process, or one that was killed just before its last line, left at the destination.
    fn made_meanwhile(&self) -> Result<Option<Fetched>, Error> {
        let to = match (&self.wanted.to, &self.wanted.expected) {
            (Some(to), _) => to.clone(),
            (None, Expected::Sha256(sha256)) => self.in_cache(sha256),
            (None, _) => return Ok(None),
        };
        if !to.is_file() {
            return Ok(None);
        }
        let stopped = || Error::Stopped { address: self.ask.name() };
        let fetched = part::hashed(&to, self.ask.watch.stop)?.ok_or_else(stopped)?;
        Ok(self.check(&fetched).is_ok().then_some(fetched))
    }

    /// Whether a killed process left nothing but the renaming to do.
    fn is_whole(&self, part: &Part) -> bool {
        part.bytes() > 0 && self.wanted.expected != Expected::Anything && self.check(&part.so_far()).is_ok()
    }

    fn check(&self, fetched: &Fetched) -> Result<(), Error> {
        let bytes = fetched.bytes.to_string();
        let pairs = match &self.wanted.expected {
            Expected::Sha256(sha256) => vec![("sha256", &fetched.sha256, sha256.clone())],
            Expected::Blake3(size, blake3) => {
                vec![("size in bytes", &bytes, size.to_string()), ("blake3", &fetched.blake3, blake3.clone())]
            }
            Expected::Anything => vec![],
        };
        match pairs.into_iter().find(|(_, found, expected)| *found != expected) {
            Some((what, found, expected)) => {
                Err(Error::Differs { address: self.ask.name(), what, found: found.clone(), expected })
            }
            None => Ok(()),
        }
    }

    fn restart(&self, part: &mut Part) -> Result<(), Error> {
        self.tally.take_back(part.bytes());
        part.restart()
    }

    /// Asks for what is missing and adds it as it comes; `size` is learnt from the first answer.
    async fn attempt(&self, part: &mut Part, size: &mut Option<u64>) -> Result<(), Fault> {
        let from = part.bytes();
        let range = (from > 0).then_some(GetRange::Offset(from));
        let request = self.store.get_opts(&self.location, GetOptions { range, ..GetOptions::default() });
        let answer = self.ask.listen(request).await?.map_err(|error| self.ask.fault(&error, from))?;
        let expected = answer.meta.size;
        if let Expected::Blake3(bytes, _) = self.wanted.expected
            && bytes != expected
        {
            let (found, bytes) = (expected.to_string(), bytes.to_string());
            let what = "size in bytes";
            return Err(Error::Differs { address: self.ask.name(), what, found, expected: bytes }.into());
        }
        if size.replace(expected).is_none() && !matches!(self.wanted.expected, Expected::Blake3(..)) {
            self.tally.expect(expected);
        }
        let mut stream = answer.into_stream();
        while let Some(chunk) = self.ask.listen(stream.next()).await? {
            let chunk = chunk.map_err(|error| Fault::Passing(deepest(&error)))?;
            part.append(&chunk)?;
            self.tally.add(chunk.len() as u64);
        }
        if part.bytes() == expected {
            return Ok(());
        }
        Err(Fault::Passing(format!("the answer ended after {} of {expected} bytes", part.bytes())))
    }
}
