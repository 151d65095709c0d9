//! What a run looks like: bars on a terminal, plain lines elsewhere, JSON lines for machines. All on stderr.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{HumanBytes, HumanCount, MultiProgress, ProgressBar, ProgressStyle};

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

/// When a stage last spoke, and when it began.
#[derive(Default)]
struct Pace {
    last: HashMap<String, (Instant, Instant)>,
}

impl Pace {
    /// The time since the stage's first progress, if `interval` has passed since its last line.
    fn due(&mut self, stage: &str, interval: Duration) -> Option<Duration> {
        let now = Instant::now();
        let (first, last) = *self.last.entry(stage.to_owned()).or_insert((now, now));
        if now - last < interval {
            return None;
        }
        self.last.insert(stage.to_owned(), (first, now));
        Some(now - first)
    }
}

/// Plain lines, for logs.
#[derive(Default)]
struct Plain {
    pace: Mutex<Pace>,
    /// How far the stages are that go by steps.
    steps: Mutex<HashMap<String, Steps>>,
}

/// Steps of a stage.
#[derive(Clone, Copy)]
struct Steps {
    began: Instant,
    /// Done when it began.
    first: u64,
    done: u64,
    total: Option<u64>,
}

impl Plain {
    fn step(&self, stage: &str, done: u64, total: Option<u64>) {
        let mut stages = lock(&self.steps);
        let steps = Steps { began: Instant::now(), first: done, done, total };
        let steps = stages.entry(stage.to_owned()).or_insert(steps);
        (steps.done, steps.total) = (done, total);
    }
}

impl Steps {
    /// ` of 400, 12 s to go`, as far as it can be told.
    fn words(self, elapsed: Duration) -> String {
        let Some(total) = self.total else { return String::new() };
        let done = self.done - self.first;
        if done == 0 {
            return format!(" of {total}");
        }
        let left = elapsed.as_secs_f64() / done as f64 * total.saturating_sub(self.done) as f64;
        format!(" of {total}, {left:.0} s to go")
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
                if lock(&self.pace).due(stage, INTERVAL).is_some() {
                    let steps = lock(&self.steps).get(stage).copied();
                    let words = steps.map_or_else(String::new, |steps| steps.words(steps.began.elapsed()));
                    say(&format!("{stage}: step {step}{words}  {}", metrics(values)));
                }
            }
            Event::Progress { stage, done, total, unit } => {
                if *unit == Unit::Steps {
                    return self.step(stage, *done, *total);
                }
                // What is counted in another unit goes at another rate.
                if let Some(elapsed) = lock(&self.pace).due(&format!("{stage} {unit:?}"), INTERVAL) {
                    say(&format!("{stage}: {}", line(*done, *total, *unit, elapsed)));
                }
            }
        }
    }
}

fn line(done: u64, total: Option<u64>, unit: Unit, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    let per_second = format!("{}/s", amount(rate as u64, unit));
    match total {
        Some(total) if done > 0 => {
            let left = total.saturating_sub(done) as f64 / rate.max(1e-9);
            format!("{} of {}, {per_second}, {left:.0} s to go", amount(done, unit), amount(total, unit))
        }
        _ => format!("{}, {per_second}", amount(done, unit)),
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
            && lock(&self.pace).due(stage, JSON_INTERVAL).is_none()
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
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn print(&self, line: &str) {
        drop(self.all.println(line));
    }

    fn bar(&self, stage: &str, total: Option<u64>, unit: Unit) -> ProgressBar {
        let mut bars = lock(&self.bars);
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
            "{{prefix:12}} {{bar:30}} {{human_pos}}/{{human_len}} {name}  {{per_sec}}  {{eta}} to go  {{msg}}"
        )
    } else {
        format!("{{prefix:12}} {{spinner}} {{human_pos}} {name}  {{per_sec}}  {{elapsed}}")
    };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Observer for Bars {
    fn event(&self, event: &Event) {
        match event {
            Event::StageStarted { stage, reason } => self.print(&format!("{stage}: runs: {reason}")),
            Event::StageReused { stage } => self.print(&format!("{stage}: reused")),
            Event::StageFinished { stage, seconds, summary } => {
                if let Some(bar) = lock(&self.bars).remove(stage) {
                    bar.finish_and_clear();
                }
                self.print(&format!("{stage}: done in {seconds:.1} s: {summary}"));
            }
            Event::StageFailed { stage, .. } => {
                if let Some(bar) = lock(&self.bars).remove(stage) {
                    bar.finish_and_clear();
                }
                self.print(&format!("{stage}: failed"));
            }
            Event::Note { stage, message } => {
                let prefix = stage.as_ref().map_or_else(String::new, |stage| format!("{stage}: "));
                self.print(&format!("{prefix}{message}"));
            }
            Event::Metrics { stage, values, .. } => {
                if let Some(bar) = lock(&self.bars).get(stage) {
                    bar.set_message(metrics(values));
                }
            }
            Event::Progress { stage, done, total, unit } => {
                self.bar(stage, *total, *unit).set_position(*done);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_tell_how_long_they_will_take() {
        let steps = |first, done, total| Steps { began: Instant::now(), first, done, total };
        let cases = [
            (steps(0, 10, Some(50)), " of 50, 20 s to go"),
            (steps(40, 45, Some(50)), " of 50, 5 s to go"),
            (steps(40, 40, Some(50)), " of 50"),
            (steps(0, 60, Some(50)), " of 50, 0 s to go"),
            (steps(0, 10, None), ""),
        ];
        for (steps, expected) in cases {
            assert_eq!(steps.words(Duration::from_secs(5)), expected);
        }
    }
}
