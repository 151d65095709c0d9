//! What audits of tasks found: a row for each task, and what matters most in words.

use serde::{Deserialize, Serialize};

use crate::task::Part;
use crate::task::audit::{Audit, Baseline};

/// What an audit found of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Audited {
    /// The task's name.
    pub task: String,
    /// Test examples.
    pub test: u64,
    /// Those that are in the training set too.
    pub copies: u64,
    /// Those that share nothing much with the training set.
    pub clean: u64,
    /// Half of the width of the binomial 95 % interval of an accuracy of 0.8, from 0 to 1.
    pub half_width: f64,
    /// What is scored without a model of DNA.
    pub baselines: Vec<Without>,
    /// What matters most, in words.
    pub findings: Vec<String>,
}

/// A score without a model of DNA, in words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Without {
    /// What was used.
    pub name: String,
    /// On the test set as it is.
    pub official: String,
    /// On its clean examples, where there are any.
    pub clean: Option<String>,
}

impl From<&Audit> for Audited {
    fn from(audit: &Audit) -> Self {
        let test = audit.parts.iter().find(|summary| summary.part == Part::Test);
        Self {
            task: audit.task.clone(),
            test: test.map_or(0, |summary| summary.examples),
            copies: audit.copies.iter().map(|class| class.copies).sum(),
            clean: audit.clean.iter().sum(),
            half_width: audit.noise.half_width,
            baselines: audit.baselines.iter().map(Without::from).collect(),
            findings: audit.findings.clone(),
        }
    }
}

impl From<&Baseline> for Without {
    fn from(baseline: &Baseline) -> Self {
        Self {
            name: baseline.name.to_owned(),
            official: baseline.official.to_string(),
            clean: baseline.clean.map(|score| score.to_string()),
        }
    }
}
