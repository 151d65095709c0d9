//! Typed progress events. The library emits them; whoever runs it decides what they look like.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::Serialize;

/// What progress is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bases of sequence.
    Bases,
    /// Tokens.
    Tokens,
    /// Bytes of a file.
    Bytes,
    /// Optimizer steps.
    Steps,
    /// Anything else that is counted.
    Items,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A stage begins; `reason` says why it does not reuse what is there.
    StageStarted {
        /// The stage's name in the workflow.
        stage: String,
        /// Why it runs.
        reason: String,
    },
    /// A stage's artifact is whole and unchanged.
    StageReused {
        /// The stage's name in the workflow.
        stage: String,
    },
    /// A stage advances.
    Progress {
        /// The stage's name in the workflow.
        stage: String,
        /// How far.
        done: u64,
        /// Out of how much, where known.
        total: Option<u64>,
        /// Counted in what.
        unit: Unit,
    },
    /// Figures of a training step or of an evaluation, by name.
    Metrics {
        /// The stage's name in the workflow.
        stage: String,
        /// The step at which they hold.
        step: u64,
        /// Name and value, in the order to show them.
        values: Vec<(String, f64)>,
    },
    /// A stage published its artifact.
    StageFinished {
        /// The stage's name in the workflow.
        stage: String,
        /// Wall time.
        seconds: f64,
        /// One line that says what came out.
        summary: String,
    },
    /// A stage failed; those that do not need it go on.
    StageFailed {
        /// The stage's name in the workflow.
        stage: String,
        /// Why, with its causes.
        error: String,
    },
    /// Something a person should know.
    Note {
        /// The stage's name in the workflow, where there is one.
        stage: Option<String>,
        /// The message.
        message: String,
    },
}

/// Receives events, from any thread.
pub trait Observer: Send + Sync {
    /// Takes one event; must not block for long.
    fn event(&self, event: &Event);
}

/// Ignores every event.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event) {}
}

/// A request to stop, shared by every worker of a run.
#[derive(Debug, Default)]
pub struct Stop {
    requested: OnceLock<Arc<AtomicBool>>,
    /// When the time is up.
    deadline: Option<Instant>,
}

impl Stop {
    /// A request not yet made.
    pub const fn new() -> Self {
        Self { requested: OnceLock::new(), deadline: None }
    }

    fn requested(&self) -> &Arc<AtomicBool> {
        self.requested.get_or_init(Arc::default)
    }

    /// The same request, which also counts as made once this much time has passed.
    #[must_use]
    pub fn within(&self, time: Option<Duration>) -> Self {
        let deadline = time.and_then(|time| Instant::now().checked_add(time));
        Self { requested: Arc::clone(self.requested()).into(), deadline }
    }

    /// Asks everyone to stop at the next safe point.
    pub fn request(&self) {
        self.requested().store(true, Ordering::Relaxed);
    }

    /// Whether someone asked to stop, or the time is up.
    pub fn is_requested(&self) -> bool {
        self.requested().load(Ordering::Relaxed)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}
