//! Requests: what a refusal means, how long a server may be silent, and when it is asked again.

use std::cell::Cell;
use std::error::Error as StdError;
use std::pin::pin;
use std::time::{Duration, Instant};

use object_store::client::{HttpError, HttpErrorKind};

use super::store::{self, Refusal};
use super::{Address, Error, Settings, Watch};
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

/// What S3 says of a bucket that there is not; a missing object has the same status.
const NO_BUCKET: &str = "NoSuchBucket";

/// Words of errors of the connection that another attempt would meet again.
const FINAL: [&str; 2] = ["certificate", "scheme is not allowed"];

/// Bytes that all transfers of a call have brought.
pub struct Tally<'a> {
    watch: Watch<'a>,
    done: Cell<u64>,
    told: Cell<u64>,
    total: Cell<u64>,
}

impl<'a> Tally<'a> {
    /// Of so many bytes, as far as is known.
    pub fn new(total: u64, watch: Watch<'a>) -> Self {
        Self { watch, done: Cell::new(0), told: Cell::new(0), total: Cell::new(total) }
    }

    /// There are more bytes than was known.
    pub fn expect(&self, bytes: u64) {
        self.total.set(self.total.get() + bytes);
    }

    pub fn add(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        let (done, total) = (self.done.get(), self.total.get());
        if done.abs_diff(self.told.get()) >= PROGRESS_BYTES || (bytes > 0 && done == total) {
            self.told.set(done);
            self.watch.progress(done, (total > 0).then_some(total));
        }
    }

    pub fn take_back(&self, bytes: u64) {
        self.done.set(self.done.get().saturating_sub(bytes));
    }
}

/// Why an attempt ended before the object did.
pub enum Fault {
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

/// What is asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// To give.
    Fetch,
    /// To keep.
    Put,
}

/// A request, and who waits for the answer.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub settings: &'a Settings,
    pub address: &'a Address,
    pub watch: Watch<'a>,
    pub deed: Deed,
    /// What the answer should be, in words.
    pub expected: &'static str,
}

impl Ask<'_> {
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    pub fn failed(&self, reason: String) -> Error {
        match self.deed {
            Deed::Fetch => Error::Failed { address: self.name(), reason },
            Deed::Put => Error::NotKept { address: self.name(), reason },
        }
    }

    /// Asks until there is an answer; a refusal with one of these statuses is one too.
    pub async fn patiently<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        answers: &[u16],
        request: impl Fn() -> F,
    ) -> Result<Result<T, u16>, Error> {
        let mut attempts = 0;
        loop {
            let fault = match self.listen(request()).await {
                Ok(Ok(answer)) => return Ok(Ok(answer)),
                Ok(Err(error)) => match find::<Refusal>(&error) {
                    Some(Refusal { status, body })
                        if answers.contains(status) && !body.contains(NO_BUCKET) =>
                    {
                        return Ok(Err(*status));
                    }
                    _ => self.fault(&error, 0),
                },
                Err(fault) => fault,
            };
            match fault {
                Fault::Final(error) => return Err(error),
                Fault::Passing(reason) => {
                    attempts += 1;
                    self.pause(attempts, &reason).await?;
                }
                Fault::FromTheStart => {
                    return Err(self.failed("the answer is not to the question".to_owned()));
                }
            }
        }
    }

    /// Waits for the server, but neither for ever nor after someone asked to stop.
    pub async fn listen<T>(&self, answer: impl Future<Output = T>) -> Result<T, Fault> {
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
    pub fn fault(&self, error: &object_store::Error, from: u64) -> Fault {
        if let Some(refusal) = find::<Refusal>(error) {
            let (status, words) = (refusal.status, quoted(&refusal.body));
            let known =
                reqwest::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            let name = known.map_or_else(String::new, |name| format!(" {name}"));
            let reason =
                format!("HTTP {status}{name}, expected {}{words}{}", self.expected, self.hint(status));
            return match status {
                416 if from > 0 => Fault::FromTheStart,
                408 | 429 | 500 | 502..=504 => Fault::Passing(reason),
                409 if self.deed == Deed::Put => Fault::Passing(reason),
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
        match (status, self.address.is_in_bucket()) {
            (0 | 400 | 401 | 403, true) if !self.has_credentials() => {
                "; no credentials are set: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for \
                 a public bucket"
            }
            (301 | 400, true) => "; is AWS_REGION the bucket's?",
            _ => "",
        }
    }

    /// Waits before the next attempt, or says that there is none.
    pub async fn pause(&self, attempts: u32, reason: &str) -> Result<(), Error> {
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
            stopped(self.watch.stop, self.address)?;
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
pub fn deepest(error: &(dyn StdError + 'static)) -> String {
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
