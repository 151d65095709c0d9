//! A scratch folder with a workflow, and what to do with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A small real input.
pub fn data(name: &str) -> PathBuf {
    root().join("workflows/data").join(name)
}

/// The binary under test.
pub fn genomill() -> Command {
    Command::new(env!("CARGO_BIN_EXE_genomill"))
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder of its own with `flow.yaml`; artifacts go to `work/flow/`.
pub struct Scratch {
    folder: tempfile::TempDir,
}

/// Phage lambda from FASTA to shards, without a model.
pub const LAMBDA: &str = "
name: flow
params: {vocabulary: 96}
stages:
  raw:     {uses: ingest, sources: [{fasta: lambda.fa.gz}]}
  clean:   {uses: clean, from: raw, min_length: 100}
  split:   {uses: split, from: clean, block: 4000, validation_fraction: 0.15, test_fraction: 0.15}
  windows: {uses: chunk, from: split, window: 1000, reverse_complement: [train]}
  bpe:     {uses: tokenizer, from: split, model: {bpe: {vocabulary_size: \"${params.vocabulary}\"}}}
  tokens:  {uses: tokenize, from: windows, tokenizer: bpe}
  shards:  {uses: shard, from: tokens, context: 64}
";

impl Scratch {
    pub fn new(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("flow.yaml"), yaml).unwrap();
        Self { folder }
    }

    /// With phage lambda beside the workflow.
    pub fn lambda() -> Self {
        let scratch = Self::new(LAMBDA);
        std::fs::copy(data("phage_lambda.fa.gz"), scratch.path("lambda.fa.gz")).unwrap();
        scratch
    }

    /// The same folder once more, with all that was made in it.
    pub fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let from = self.folder.path().join(".");
        let copied = Command::new("cp").arg("-a").args([&from, folder.path()]).status().unwrap();
        assert!(copied.success());
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of an artifact.
    pub fn artifact(&self, name: &str) -> PathBuf {
        self.path("work/flow").join(name)
    }

    /// Gives all files and folders this date, as `1999-01-01`.
    pub fn dated(&self, date: &str) {
        let all =
            Command::new("find").arg(self.path("")).args(["-exec", "touch", "-d", date, "{}", "+"]).status();
        assert!(all.unwrap().success());
    }

    pub fn write(&self, yaml: &str) {
        std::fs::write(self.path("flow.yaml"), yaml).unwrap();
    }

    /// Writes a file beside the workflow, in a folder that may be new.
    pub fn file(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Plans, which must succeed; as JSON.
    pub fn plan(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.command("plan", &[&["--json"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `genomill COMMAND flow.yaml --work work ARGUMENTS`, started in the folder.
    pub fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let mut process = genomill();
        process
            .current_dir(self.folder.path())
            .args([command, "flow.yaml", "--work", "work"])
            .args(arguments);
        process
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command("run", arguments).output().unwrap()
    }

    /// Runs, which must succeed, and returns the names of the stages that ran.
    pub fn ran(&self, arguments: &[&str]) -> Vec<String> {
        self.ran_with(&[], arguments)
    }

    /// The same with variables in the environment.
    pub fn ran_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Vec<String> {
        let events = self.events(variables, arguments).into_iter();
        let started = events.filter(|event| event["event"] == "stage_started");
        started.map(|event| event["stage"].as_str().unwrap().to_owned()).collect()
    }

    /// Runs, which must succeed, and returns what it told of its progress.
    pub fn events(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Vec<serde_json::Value> {
        let mut command = self.command("run", &[&["--progress", "json"], arguments].concat());
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Plans, runs, and returns the names of the stages that ran, in order, with where the run did not do what the plan
    /// said, or said it in other words.
    pub fn ran_as_planned(
        &self,
        variables: &[(&str, &str)],
        arguments: &[&str],
    ) -> (Vec<String>, Vec<String>) {
        let mut plan = self.command("plan", &[&["--json"], arguments].concat());
        let plan = plan.envs(variables.iter().copied()).output().unwrap();
        assert!(plan.status.success(), "{}", stderr(&plan));
        let plan: Vec<serde_json::Value> = serde_json::from_slice(&plan.stdout).unwrap();
        let events = self.events(variables, arguments);
        let of = |kind: &str| {
            let told = events.iter().filter(|event| event["event"] == kind);
            told.map(|event| (event["stage"].clone(), event["reason"].clone())).collect::<Vec<_>>()
        };
        let (started, reused) = (of("stage_started"), of("stage_reused"));
        let differs = |stage: &&serde_json::Value| {
            let ran = started.iter().find(|(name, _)| *name == stage["stage"]).map(|(_, reason)| reason);
            let is_reused = reused.iter().any(|(name, _)| *name == stage["stage"]);
            let is_one_of = |reason: &serde_json::Value| {
                let possible: Vec<&str> = stage["reason"].as_str().unwrap().split(" or ").collect();
                reason.as_str().unwrap().split("; ").all(|reason| possible.contains(&reason))
            };
            match (stage["decision"].as_str().unwrap(), ran) {
                ("run", Some(reason)) => *reason != stage["reason"],
                ("depends", Some(reason)) => !is_one_of(reason),
                ("reuse" | "depends", None) => !is_reused,
                ("skip" | "left_out", None) => is_reused,
                _ => true,
            }
        };
        let wrong = plan.iter().filter(differs).map(|stage| format!("planned {stage}, told {events:?}"));
        let ran = started.iter().map(|(name, _)| name.as_str().unwrap().to_owned());
        (ran.collect(), wrong.collect())
    }

    /// The hash of every lasting file of every artifact, by path.
    pub fn contents(&self) -> BTreeMap<String, String> {
        contents(&self.path("work/flow"))
    }
}

/// The hash of every lasting file of every artifact in a work folder, by path; read from the files, not the manifests.
pub fn contents(work: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for stage in std::fs::read_dir(work).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(text) = std::fs::read(stage.join("manifest.json")) else { continue };
        let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for file in manifest["files"].as_array().unwrap().iter().filter(|file| file["volatile"] != true) {
            let path = stage.join(file["path"].as_str().unwrap());
            let hash = blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string();
            found.insert(path.strip_prefix(work).unwrap().display().to_string(), hash);
        }
    }
    found
}
