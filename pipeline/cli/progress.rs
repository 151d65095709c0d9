//! What a run looks like: bars on a terminal, plain lines elsewhere, JSON lines for machines. All on stderr.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{
    HumanBytes, HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle,
};

use super::say;
use crate::observer::{Event, Observer, Silent, Unit};

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// Bars on a terminal, plain lines elsewhere
    Auto,
    /// One line per event, and every ten seconds
    Plain,
    /// One JSON object per line
    Json,
    /// Nothing but errors
    None,
}

/// Between two plain lines of the same stage.
const INTERVAL: Duration = Duration::from_secs(10);

/// Between two JSON lines of the same stage's progress.
const JSON_INTERVAL: Duration = Duration::from_millis(500);

pub fn observer(style: Style) -> Box<dyn Observer> {
    match style {
        Style::Auto if io::stderr().is_terminal() => Box::new(Bars::default()),
        Style::Auto | Style::Plain => Box::new(Plain::default()),
        Style::Json => Box::new(Json::default()),
        Style::None => Box::new(Silent),
    }
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Bases => "bases",
        Unit::Tokens => "tokens",
        Unit::Bytes => "bytes",
        Unit::Steps => "steps",
        Unit::Items => "items",
    }
}

fn amount(done: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => HumanBytes(done).to_string(),
        _ => format!("{} {}", HumanCount(done), unit_name(unit)),
    }
}

fn metrics(values: &[(String, f64)]) -> String {
    let number = |v: f64| {
        if v != 0.0 && (v.abs() < 1e-3 || v.abs() >= 1e6) { format!("{v:.3e}") } else { format!("{v:.4}") }
    };
    values.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect::<Vec<_>>().join("  ")
}

/// When each stage last spoke; its first progress counts as if it did.
#[derive(Default)]
struct Pace {
    last: HashMap<String, Instant>,
}

impl Pace {
    /// Whether `interval` has passed since the stage's last line, which ends with this one if so.
    fn due(&mut self, stage: &str, interval: Duration) -> bool {
        let now = Instant::now();
        let last = *self.last.entry(stage.to_owned()).or_insert(now);
        let due = now - last >= interval;
        if due {
            self.last.insert(stage.to_owned(), now);
        }
        due
    }
}

/// How far the part of a stage is that it works on now: what is counted in another unit, out of another total or from the
/// beginning again is another part, and goes at a rate of its own.
#[derive(Debug, Clone, Copy)]
struct Part {
    began: Instant,
    /// Done when it began.
    first: u64,
    done: u64,
    total: Option<u64>,
    unit: Unit,
}

/// A part must go on for so long before its rate is told.
const RATE_AFTER: Duration = Duration::from_secs(1);

impl Part {
    /// The part that a stage is in after it told this, and whether it began with it.
    fn after(before: Option<Self>, done: u64, total: Option<u64>, unit: Unit) -> (Self, bool) {
        let same = |part: &Self| part.total == total && part.unit == unit && part.done <= done;
        match before.filter(same) {
            Some(part) => (Self { done, ..part }, false),
            None => (Self { began: Instant::now(), first: done, done, total, unit }, true),
        }
    }

    /// What is done in a second, once that can be told.
    fn rate(self, elapsed: Duration) -> Option<f64> {
        let done = self.done - self.first;
        (done > 0 && elapsed >= RATE_AFTER).then(|| done as f64 / elapsed.as_secs_f64())
    }

    /// `, 12 s to go`, once that can be told.
    fn to_go(self, elapsed: Duration) -> Option<String> {
        let left = self.total?.saturating_sub(self.done) as f64 / self.rate(elapsed)?;
        Some(format!(", {left:.0} s to go"))
    }

    /// `120 bases of 400 bases, 10 bases/s, 28 s to go`, as far as it can be told.
    fn line(self, elapsed: Duration) -> String {
        let of = self.total.map(|total| format!(" of {}", amount(total, self.unit)));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
        let rate = self.rate(elapsed).map(|rate| format!(", {}/s", amount(rate as u64, self.unit)));
        let parts = [Some(amount(self.done, self.unit)), of, rate, self.to_go(elapsed)];
        parts.into_iter().flatten().collect()
    }

    /// ` of 400, 12 s to go`, as far as it can be told.
    fn of_steps(self, elapsed: Duration) -> String {
        let of = self.total.map(|total| format!(" of {total}"));
        [of, self.to_go(elapsed)].into_iter().flatten().collect()
    }
}

/// Plain lines, for logs.
#[derive(Default)]
struct Plain {
    pace: Mutex<Pace>,
    /// The part that each stage is in.
    parts: Mutex<HashMap<String, Part>>,
}

impl Plain {
    fn part(&self, stage: &str, done: u64, total: Option<u64>, unit: Unit) -> Part {
        let mut parts = lock(&self.parts);
        let (part, _) = Part::after(parts.get(stage).copied(), done, total, unit);
        parts.insert(stage.to_owned(), part);
        part
    }
}

impl Observer for Plain {
    fn event(&self, event: &Event) {
        match event {
            Event::StageStarted { stage, reason } => say(&format!("{stage}: runs: {reason}")),
            Event::StageReused { stage } => say(&format!("{stage}: reused")),
            Event::StageFinished { stage, seconds, summary } => {
                say(&format!("{stage}: done in {seconds:.1} s: {summary}"));
            }
            // Why is told when the run ends.
            Event::StageFailed { stage, .. } => say(&format!("{stage}: failed")),
            Event::Note { stage: Some(stage), message } => say(&format!("{stage}: {message}")),
            Event::Note { stage: None, message } => say(message),
            Event::Metrics { stage, step, values } => {
                if lock(&self.pace).due(stage, INTERVAL) {
                    let part = lock(&self.parts).get(stage).copied().filter(|part| part.unit == Unit::Steps);
                    let words = part.map_or_else(String::new, |part| part.of_steps(part.began.elapsed()));
                    say(&format!("{stage}: step {step}{words}  {}", metrics(values)));
                }
            }
            Event::Progress { stage, done, total, unit } => {
                let part = self.part(stage, *done, *total, *unit);
                if *unit != Unit::Steps && lock(&self.pace).due(stage, INTERVAL) {
                    say(&format!("{stage}: {}", part.line(part.began.elapsed())));
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One JSON object per event.
#[derive(Default)]
struct Json {
    pace: Mutex<Pace>,
}

impl Observer for Json {
    fn event(&self, event: &Event) {
        if let Event::Progress { stage, .. } = event
            && !lock(&self.pace).due(stage, JSON_INTERVAL)
        {
            return;
        }
        if let Ok(text) = serde_json::to_string(event) {
            drop(writeln!(io::stderr(), "{text}"));
        }
    }
}

/// A bar per running stage; finished stages leave a line.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    shown: Mutex<HashMap<String, ProgressBar>>,
    /// The part that each stage is in.
    parts: Mutex<HashMap<String, Part>>,
}

impl Bars {
    fn print(&self, line: &str) {
        drop(self.all.println(line));
    }

    fn bar(&self, stage: &str, total: Option<u64>, unit: Unit) -> ProgressBar {
        let mut bars = lock(&self.shown);
        let bar = bars.entry(stage.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::no_length());
            bar.set_prefix(stage.to_owned());
            bar
        });
        if bar.length() != total || bar.position() == 0 {
            bar.set_style(style(total.is_some(), unit));
            if let Some(total) = total {
                bar.set_length(total);
            }
        }
        bar.clone()
    }
}

fn style(bounded: bool, unit: Unit) -> ProgressStyle {
    let name = unit_name(unit);
    let template = if bounded {
        format!(
            "{{prefix:12}} {{bar:30}} {{human_pos}}/{{human_len}} {name}  {{per_sec}}  {{to_go}}  {{msg}}"
        )
    } else {
        format!("{{prefix:12}} {{spinner}} {{human_pos}} {name}  {{per_sec}}  {{elapsed}}")
    };
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("to_go", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        if state.per_sec() > 0.0 {
            // A bar that cannot be written shows nothing.
            write!(out, "{:#} to go", HumanDuration(state.eta())).ok();
        }
    })
}

impl Observer for Bars {
    fn event(&self, event: &Event) {
        match event {
            Event::StageStarted { stage, reason } => self.print(&format!("{stage}: runs: {reason}")),
            Event::StageReused { stage } => self.print(&format!("{stage}: reused")),
            Event::StageFinished { stage, seconds, summary } => {
                if let Some(bar) = lock(&self.shown).remove(stage) {
                    bar.finish_and_clear();
                }
                self.print(&format!("{stage}: done in {seconds:.1} s: {summary}"));
            }
            Event::StageFailed { stage, .. } => {
                if let Some(bar) = lock(&self.shown).remove(stage) {
                    bar.finish_and_clear();
                }
                self.print(&format!("{stage}: failed"));
            }
            Event::Note { stage, message } => {
                let prefix = stage.as_ref().map_or_else(String::new, |stage| format!("{stage}: "));
                self.print(&format!("{prefix}{message}"));
            }
            Event::Metrics { stage, values, .. } => {
                if let Some(bar) = lock(&self.shown).get(stage) {
                    bar.set_message(metrics(values));
                }
            }
            Event::Progress { stage, done, total, unit } => {
                let bar = self.bar(stage, *total, *unit);
                let mut parts = lock(&self.parts);
                let (part, begins) = Part::after(parts.get(stage).copied(), *done, *total, *unit);
                parts.insert(stage.clone(), part);
                bar.set_position(*done);
                if begins {
                    bar.reset_eta();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, done: u64, total: Option<u64>, unit: Unit) -> Part {
        Part { began: Instant::now(), first, done, total, unit }
    }

    #[test]
    fn steps_tell_how_long_they_will_take() {
        let steps = |first, done, total| part(first, done, total, Unit::Steps);
        let cases = [
            (steps(0, 10, Some(50)), " of 50, 20 s to go"),
            (steps(40, 45, Some(50)), " of 50, 5 s to go"),
            (steps(40, 40, Some(50)), " of 50"),
            (steps(0, 60, Some(50)), " of 50, 0 s to go"),
            (steps(0, 10, None), ""),
        ];
        for (steps, expected) in cases {
            assert_eq!(steps.of_steps(Duration::from_secs(5)), expected);
        }
    }

    #[test]
    fn a_time_to_go_is_told_once_there_is_a_rate() {
        let cases = [
            (part(0, 100, Some(400), Unit::Items), 10_000, "100 items of 400 items, 10 items/s, 30 s to go"),
            (part(90, 100, Some(400), Unit::Items), 10_000, "100 items of 400 items, 1 items/s, 300 s to go"),
            (part(100, 100, Some(400), Unit::Items), 10_000, "100 items of 400 items"),
            (part(0, 1, Some(400), Unit::Items), 2, "1 items of 400 items"),
            (part(0, 100, None, Unit::Bases), 10_000, "100 bases, 10 bases/s"),
        ];
        for (part, milliseconds, expected) in cases {
            assert_eq!(part.line(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn what_is_counted_anew_is_another_part() {
        let events = [
            (500, None, Unit::Bases, true),
            (900, None, Unit::Bases, false),
            (0, Some(40), Unit::Items, true),
            (40, Some(40), Unit::Items, false),
            // The next split, of as many rows.
            (0, Some(40), Unit::Items, true),
            (7, Some(40), Unit::Items, false),
            (8, Some(41), Unit::Items, true),
        ];
        let mut before = None;
        for (done, total, unit, expected) in events {
            let (part, begins) = Part::after(before, done, total, unit);
            assert_eq!(begins, expected, "{done} of {total:?} {unit:?}");
            before = Some(part);
        }
    }
}
