//! Downloads: several at a time, each resumed where it broke off, tried again after a while, and checked.
//!
//! All of it runs on the calling thread, in a runtime that lives as long as the call.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::{GetOptions, GetRange, ObjectStore};

use super::part::{self, Part};
use super::store::{self, Refusal};
use super::{Address, Error, Expected, Fetched, PARALLEL, Settings, Wanted, Watch};
use crate::observer::Stop;

/// Between two looks at whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Bytes between two events of progress.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Characters of a server's words that an error repeats.
const QUOTED: usize = 200;

/// The variables that say who is asking.
const CREDENTIALS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Where machines of Amazon's say who they are.
const METADATA: &str = "169.254.169.254";

/// Words of errors of the connection that another attempt would meet again.
const FINAL: [&str; 2] = ["certificate", "scheme is not allowed"];

/// Brings every object, in the order in which they are done; the first failure ends the others, whose parts stay.
pub fn all(settings: &Settings, wanted: &[&Wanted], watch: Watch) -> Result<Vec<Fetched>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Failed {
        address: wanted.first().map(|wanted| wanted.address.to_string()).unwrap_or_default(),
        reason: format!("cannot start a runtime: {error}"),
    })?;
    let fetched = runtime.block_on(every(settings, wanted, watch));
    // Looking up a host that does not answer cannot be called off, but need not be waited for.
    runtime.shutdown_background();
    fetched
}

async fn every(settings: &Settings, wanted: &[&Wanted], watch: Watch<'_>) -> Result<Vec<Fetched>, Error> {
    let mut stores = BTreeMap::new();
    let mut downloads = Vec::new();
    let tally = Tally::new(wanted, watch);
    for wanted in wanted {
        let address = &wanted.address;
        let key = address.root();
        if !stores.contains_key(&key) {
            stores.insert(key.clone(), store::open(settings, address)?);
        }
        downloads.push(Download {
            settings,
            wanted,
            watch,
            tally: &tally,
            store: Arc::clone(&stores[&key]),
            location: store::location(address)?,
        });
    }
    let running = downloads.iter().map(Download::run);
    futures_util::stream::iter(running).buffer_unordered(PARALLEL).try_collect().await
}

/// What all downloads of a call have brought.
struct Tally<'a> {
    watch: Watch<'a>,
    done: Cell<u64>,
    told: Cell<u64>,
    total: Cell<u64>,
}

impl<'a> Tally<'a> {
    fn new(wanted: &[&Wanted], watch: Watch<'a>) -> Self {
        let known = wanted.iter().map(|wanted| match wanted.expected {
            Expected::Blake3(bytes, _) => bytes,
            _ => 0,
        });
        Self { watch, done: Cell::new(0), told: Cell::new(0), total: Cell::new(known.sum()) }
    }

    fn add(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        let (done, total) = (self.done.get(), self.total.get());
        if done.abs_diff(self.told.get()) >= PROGRESS_BYTES || (bytes > 0 && done == total) {
            self.told.set(done);
            self.watch.progress(done, (total > 0).then_some(total));
        }
    }

    fn take_back(&self, bytes: u64) {
        self.done.set(self.done.get().saturating_sub(bytes));
    }
}

/// Why an attempt ended before the object did.
enum Fault {
    /// Trying again would not help.
    Final(Error),
    /// Trying again may help.
    Passing(String),
    /// The server cannot go on in the middle.
    FromTheStart,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// One object on its way.
struct Download<'a> {
    settings: &'a Settings,
    wanted: &'a Wanted,
    watch: Watch<'a>,
    tally: &'a Tally<'a>,
    store: Arc<dyn ObjectStore>,
    location: object_store::path::Path,
}

impl Download<'_> {
    async fn run(&self) -> Result<Fetched, Error> {
        let stopped = || Error::Stopped { address: self.name() };
        let mut part = Part::open(&self.part(), self.watch.stop).await?.ok_or_else(stopped)?;
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
                        self.watch.note(format!(
                            "`{}` has changed since its download began; starting anew",
                            self.name()
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
                    self.pause(attempts, &reason).await?;
                    part.resume();
                }
            }
        }
        let to = self.destination(&part.so_far());
        part.publish(&to)
    }

    fn name(&self) -> String {
        self.wanted.address.to_string()
    }

    fn failed(&self, reason: String) -> Error {
        Error::Failed { address: self.name(), reason }
    }

    /// The file in which it grows.
    fn part(&self) -> PathBuf {
        if let Some(to) = &self.wanted.to {
            let name = to.file_name().unwrap_or_default().to_string_lossy();
            return to.with_file_name(format!("{name}.part"));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.name().as_bytes());
        if let Expected::Sha256(sha256) = &self.wanted.expected {
            hasher.update(sha256.as_bytes());
        }
        let hash = hasher.finalize().to_hex();
        self.settings.cache.join("part").join(format!("{}.part", &hash[..32]))
    }

    /// Where it will be.
    fn destination(&self, fetched: &Fetched) -> PathBuf {
        let place = || self.in_cache(&fetched.sha256);
        self.wanted.to.clone().unwrap_or_else(place)
    }

    fn in_cache(&self, sha256: &str) -> PathBuf {
        self.settings.cache.join("sha256").join(sha256).join(self.wanted.address.file_name())
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
        let stopped = || Error::Stopped { address: self.name() };
        let fetched = part::hashed(&to, self.watch.stop)?.ok_or_else(stopped)?;
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
                Err(Error::Differs { address: self.name(), what, found: found.clone(), expected })
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
        let answer = self.listen(request).await?.map_err(|error| self.fault(&error, from))?;
        let expected = answer.meta.size;
        if let Expected::Blake3(bytes, _) = self.wanted.expected
            && bytes != expected
        {
            let (found, bytes) = (expected.to_string(), bytes.to_string());
            let what = "size in bytes";
            return Err(Error::Differs { address: self.name(), what, found, expected: bytes }.into());
        }
        if size.replace(expected).is_none() && !matches!(self.wanted.expected, Expected::Blake3(..)) {
            self.tally.total.set(self.tally.total.get() + expected);
        }
        let mut stream = answer.into_stream();
        while let Some(chunk) = self.listen(stream.next()).await? {
            let chunk = chunk.map_err(|error| Fault::Passing(deepest(&error)))?;
            part.append(&chunk)?;
            self.tally.add(chunk.len() as u64);
        }
        if part.bytes() == expected {
            return Ok(());
        }
        Err(Fault::Passing(format!("the answer ended after {} of {expected} bytes", part.bytes())))
    }

    /// Waits for the server, but neither for ever nor after someone asked to stop.
    async fn listen<T>(&self, answer: impl Future<Output = T>) -> Result<T, Fault> {
        let (mut answer, began) = (pin!(answer), Instant::now());
        loop {
            if let Ok(answer) = tokio::time::timeout(TICK.min(self.settings.stall), &mut answer).await {
                return Ok(answer);
            }
            if self.watch.stop.is_requested() {
                return Err(Fault::Final(Error::Stopped { address: self.name() }));
            }
            if began.elapsed() >= self.settings.stall {
                let seconds = self.settings.stall.as_secs_f32();
                return Err(Fault::Passing(format!("the server said nothing for {seconds} s")));
            }
        }
    }

    /// What a refused request means.
    fn fault(&self, error: &object_store::Error, from: u64) -> Fault {
        if let Some(refusal) = find::<Refusal>(error) {
            let (status, words) = (refusal.status, quoted(&refusal.body));
            let known =
                reqwest::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            let name = known.map_or_else(String::new, |name| format!(" {name}"));
            let reason = format!("HTTP {status}{name}, expected the file{words}{}", self.hint(status));
            return match status {
                416 if from > 0 => Fault::FromTheStart,
                408 | 429 | 500 | 502..=504 => Fault::Passing(reason),
                _ => Fault::Final(self.failed(reason)),
            };
        }
        let reason = deepest(error);
        let Some(http) = find::<HttpError>(error) else {
            // An answer, but not to the question: most often the whole where a part was asked for.
            return if from > 0 { Fault::FromTheStart } else { Fault::Final(self.failed(reason)) };
        };
        // Without credentials the machine itself is asked for some, at this address; most machines have none.
        let nobody = !self.has_credentials() && error.to_string().contains(METADATA);
        if nobody || FINAL.iter().any(|words| reason.contains(words)) {
            let hint = if nobody { self.hint(0) } else { "" };
            return Fault::Final(self.failed(format!("{reason}{hint}")));
        }
        let place = if http.kind() == HttpErrorKind::Connect { "cannot connect: " } else { "" };
        Fault::Passing(format!("{place}{reason}"))
    }

    fn has_credentials(&self) -> bool {
        let given = |name: &str| self.settings.aws.iter().any(|(other, _)| other == name);
        CREDENTIALS.iter().any(|name| given(name)) || store::is_set(self.settings, "AWS_SKIP_SIGNATURE")
    }

    /// What a person may have forgotten.
    fn hint(&self, status: u16) -> &'static str {
        match (status, self.wanted.address.is_in_bucket()) {
            (0 | 400 | 401 | 403, true) if !self.has_credentials() => {
                "; no credentials are set: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for \
                 a public bucket"
            }
            (301 | 400, true) => "; is AWS_REGION the bucket's?",
            _ => "",
        }
    }

    /// Waits before the next attempt, or says that there is none.
    async fn pause(&self, attempts: u32, reason: &str) -> Result<(), Error> {
        let most = self.settings.attempts;
        if attempts >= most {
            let times = if attempts == 1 { "once".to_owned() } else { format!("{attempts} times") };
            return Err(self.failed(format!("{reason}; tried {times}")));
        }
        let wait = self.settings.backoff.saturating_mul(1 << (attempts - 1).min(16)).min(LONGEST_WAIT);
        let seconds = wait.as_secs_f32();
        self.watch.note(format!(
            "`{}`: {reason}; attempt {} of {most} in {seconds} s",
            self.name(),
            attempts + 1
        ));
        let until = Instant::now() + wait;
        while Instant::now() < until {
            tokio::time::sleep(TICK.min(wait)).await;
            stopped(self.watch.stop, &self.wanted.address)?;
        }
        Ok(())
    }
}

fn stopped(stop: &Stop, address: &Address) -> Result<(), Error> {
    if stop.is_requested() { Err(Error::Stopped { address: address.to_string() }) } else { Ok(()) }
}

/// The error of a type among an error and its causes.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The last cause, which says most: without its first capital and without the error number.
fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// A server's own words, if they are for people: the code and message of S3, or one line of text.
fn quoted(body: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
    };
    let words = match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ if body.trim_start().starts_with('<') => String::new(),
        _ => body.lines().next().unwrap_or_default().trim().to_owned(),
    };
    let words: String = words.chars().filter(|c| !c.is_control()).take(QUOTED).collect();
    if words.is_empty() { words } else { format!(" ({words})") }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn servers_are_quoted_where_they_speak_to_people() {
        let s3 =
            "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        for (body, expected) in [
            (s3, " (AccessDenied: Access Denied)"),
            ("no such file\nmore", " (no such file)"),
            ("<html><body>404</body></html>", ""),
            ("", ""),
            ("a\u{1b}[31m", " (a[31m)"),
        ] {
            assert_eq!(quoted(body), expected);
        }
    }
}
