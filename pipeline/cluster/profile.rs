//! What a site wants of jobs, as a YAML file. Memory: the file.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Error;
use crate::units::{self, Amount, TimeText};

/// What a site wants of jobs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// The partition of the cluster. Default: the cluster's own.
    pub partition: Option<String>,
    /// Who pays.
    pub account: Option<String>,
    /// The quality of service.
    pub qos: Option<String>,
    /// Features that nodes must have.
    pub constraint: Option<String>,
    /// More options of `sbatch`, such as `--exclude=n7`.
    pub extra: Vec<String>,
    /// Modules that a job loads.
    pub modules: Vec<String>,
    /// Lines of shell that a job runs before genomill, such as `export SCRATCH=/scratch`.
    pub setup: Vec<String>,
    /// What genomill is run with, such as `apptainer exec --bind /data genomill.sif`; not quoted.
    pub container: Option<String>,
    /// The program on the nodes, or in the container. Default: the one that submits, by its path.
    pub genomill: Option<String>,
    /// Threads of stages that can use many and do not say how many. Default 1.
    pub threads: Option<NonZeroU32>,
    /// Memory of stages that do not say how much they need, as bytes or as `8GB`. Default: what the cluster gives.
    #[serde(deserialize_with = "units::bytes")]
    #[schemars(with = "Amount")]
    pub memory: Option<u64>,
    /// The most time of stages that do not say how much they need, as `2h`. Default: what the cluster gives.
    #[serde(deserialize_with = "units::time")]
    #[schemars(with = "TimeText")]
    pub time: Option<Duration>,
    /// The most elements of an array, which share the partitions of a stage. Default 64.
    pub elements: NonZeroU32,
    /// The most elements of an array that run at a time. Default: as many as the cluster lets.
    pub at_once: Option<NonZeroU32>,
    /// The least partitions of an element, as far as there are so many. Default 1.
    pub partitions_per_element: NonZeroU32,
    /// The most jobs that are submitted in a second. Default 5.
    pub submissions_per_second: f64,
    /// How long an element waits until it sees what another machine wrote. Default 2 min.
    #[serde(deserialize_with = "wait")]
    #[schemars(with = "TimeText")]
    pub wait: Duration,
    /// What `resubmit` does with what ran out of memory or of time.
    pub more: More,
}

/// How much more is asked for in the next try.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct More {
    /// The memory is multiplied by this. Default 2; 1 asks for no more.
    pub memory: f64,
    /// The most memory that is asked for. Default: without a limit.
    #[serde(deserialize_with = "units::bytes")]
    #[schemars(with = "Amount")]
    pub most_memory: Option<u64>,
    /// The time is multiplied by this. Default 2; 1 asks for no more.
    pub time: f64,
    /// The most time that is asked for. Default: without a limit.
    #[serde(deserialize_with = "units::time")]
    #[schemars(with = "TimeText")]
    pub most_time: Option<Duration>,
}

impl Default for More {
    fn default() -> Self {
        Self { memory: 2.0, most_memory: None, time: 2.0, most_time: None }
    }
}

const ELEMENTS: NonZeroU32 = NonZeroU32::new(64).unwrap();

const WAIT: Duration = Duration::from_mins(2);

impl Default for Profile {
    fn default() -> Self {
        Self {
            partition: None,
            account: None,
            qos: None,
            constraint: None,
            extra: Vec::new(),
            modules: Vec::new(),
            setup: Vec::new(),
            container: None,
            genomill: None,
            threads: None,
            memory: None,
            time: None,
            elements: ELEMENTS,
            at_once: None,
            partitions_per_element: NonZeroU32::MIN,
            submissions_per_second: 5.0,
            wait: WAIT,
            more: More::default(),
        }
    }
}

fn wait<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Ok(units::time(deserializer)?.unwrap_or(WAIT))
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// When the file cannot be read, or says something that a profile does not.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Profile { file: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let profile: Self = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        profile.problem().map_or(Ok(profile), |problem| Err(wrong(problem)))
    }

    fn problem(&self) -> Option<String> {
        let numbers = [
            ("submissions_per_second", self.submissions_per_second, 0.001),
            ("more.memory", self.more.memory, 1.0),
            ("more.time", self.more.time, 1.0),
        ];
        let number = numbers.into_iter().find(|(_, value, least)| !(*value >= *least && value.is_finite()));
        let number =
            number.map(|(key, value, least)| format!("`{key}` is {value}, expected at least {least}"));
        let broken = |text: &&String| text.contains('\n') || !text.starts_with('-');
        let extra = self.extra.iter().find(broken);
        number.or_else(|| {
            extra.map(|text| format!("`extra` holds `{text}`, expected an option such as `--exclude=n7`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read_with_units_or_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.yaml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Profile::open(&path)
        };
        let profile = read(
            "partition: main\nmemory: 8GB\ntime: 2h\nelements: 8\nwait: 5 s\nmore: {most_memory: 64GB}\n",
        )
        .unwrap();
        assert_eq!((profile.memory, profile.time), (Some(8_000_000_000), Some(Duration::from_hours(2))));
        assert_eq!((profile.elements.get(), profile.wait), (8, Duration::from_secs(5)));
        assert_eq!((profile.more.memory, profile.more.most_memory), (2.0, Some(64_000_000_000)));
        for (text, expected) in [
            ("partitoin: main\n", "unknown field `partitoin`"),
            ("elements: 0\n", "nonzero u32"),
            ("more: {memory: 0.5}\n", "`more.memory` is 0.5, expected at least 1"),
            ("submissions_per_second: 0\n", "`submissions_per_second` is 0"),
            ("extra: [exclude]\n", "expected an option such as `--exclude=n7`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("site.yaml"), "{text}: {error}");
        }
    }
}
