//! Who is alive: each rank counts up in the store, so that a rank which does not is known by its number. Memory: a number
//! per rank.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::store::Store;

/// Between two beats.
const BEAT: Duration = Duration::from_millis(500);

/// Without a beat for so long, a rank is lost.
const SILENCE: Duration = Duration::from_millis(1800);

/// The key of there being somebody who has failed or noticed that another has.
const ENDING: &str = "ending";

/// This rank's beats, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    rank: usize,
    ranks: usize,
    store: Store,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What is known of the ranks once an operation has failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Those that do not beat and have not said why.
    pub(super) lost: Vec<usize>,
    /// The first that said why it ended, and what.
    pub(super) failed: Option<(usize, String)>,
}

impl Watch {
    /// Begins to beat.
    pub(super) fn start(store: &Store, rank: usize, ranks: usize) -> Result<Self, String> {
        let (beating, watching) = (store.again()?, store.again()?);
        let (end, ended) = channel();
        beating.add(&beat(rank), 1)?;
        // A store that is gone ends the beats; who it was will be known by whoever needs it.
        let thread = std::thread::spawn(move || {
            while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout)
                && beating.add(&beat(rank), 1).is_ok()
            {}
        });
        Ok(Self { rank, ranks, store: watching, end: Some(end), thread: Some(thread) })
    }

    /// Tells the others why this rank ends; they may be gone, or the store.
    pub(super) fn tell(&self, why: &str) {
        self.say(&failure(self.rank), why.as_bytes());
    }

    /// Tells the others that this rank noticed the end of another, so that it is not taken for lost itself.
    pub(super) fn notice(&self) {
        self.say(&noticed(self.rank), b"");
    }

    /// Says something, and then that something was said: a wait asks for that alone.
    fn say(&self, key: &str, value: &[u8]) {
        for (key, value) in [(key, value), (ENDING, b"")] {
            drop(self.store.set(key, value));
        }
    }

    /// Whether another rank has said that it ends or that it noticed the end of one.
    pub(super) fn somebody_ends(&self) -> Result<bool, String> {
        for rank in self.others() {
            if self.store.get(&failure(rank))?.is_some() || self.store.get(&noticed(rank))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Listens for a while; none where the store itself is gone.
    pub(super) fn listen(&self) -> Option<Findings> {
        let before = self.beats().ok()?;
        std::thread::sleep(SILENCE);
        self.compare(&before).ok()
    }

    /// How often each rank has beaten.
    pub(super) fn beats(&self) -> Result<Vec<i64>, String> {
        (0..self.ranks).map(|rank| self.store.add(&beat(rank), 0)).collect()
    }

    /// Who has not beaten since.
    pub(super) fn compare(&self, before: &[i64]) -> Result<Findings, String> {
        let now = self.beats()?;
        let mut findings = Findings::default();
        for rank in self.others() {
            let why = self.store.get(&failure(rank))?;
            let silent = now[rank] == before[rank] && self.store.get(&noticed(rank))?.is_none();
            if let Some(why) = why {
                let why = String::from_utf8_lossy(&why).into_owned();
                findings.failed.get_or_insert((rank, why));
            } else if silent {
                findings.lost.push(rank);
            }
        }
        Ok(findings)
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.rank;
        (0..self.ranks).filter(move |rank| *rank != own)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Looks at what others say of an end during a long wait, and seldom at their beats.
pub(super) struct Patience {
    looked: Instant,
    beats: Option<Vec<i64>>,
}

impl Patience {
    /// Between two looks; a rank that has not beaten between two of them is lost.
    const LOOK: Duration = Duration::from_secs(30);

    pub(super) fn new() -> Self {
        Self { looked: Instant::now(), beats: None }
    }

    /// Whether somebody has told of an end, or a look is due and finds ranks that are lost. An operation waits for ranks that it
    /// has no connection to; those that have one may be the first to know.
    pub(super) fn runs_out(&mut self, watch: &Watch) -> bool {
        if !matches!(watch.store.get(ENDING), Ok(None)) {
            return true;
        }
        if self.looked.elapsed() < Self::LOOK {
            return false;
        }
        self.looked = Instant::now();
        let findings = self.beats.take().map(|before| watch.compare(&before));
        self.beats = watch.beats().ok();
        let clear =
            |found: &Result<Findings, String>| found.as_ref().is_ok_and(|f| *f == Findings::default());
        self.beats.is_none() || findings.is_some_and(|found| !clear(&found))
    }
}

fn beat(rank: usize) -> String {
    format!("beat/{rank}")
}

fn failure(rank: usize) -> String {
    format!("failure/{rank}")
}

fn noticed(rank: usize) -> String {
    format!("noticed/{rank}")
}
