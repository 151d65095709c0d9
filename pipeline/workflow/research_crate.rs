//! A run as metadata of an RO-Crate 1.1 that follows the Provenance Run Crate profile 0.5: the workflow, its stages as
//! actions with what they read and made, the tools and their versions. Memory: the manifests.
//!
//! Only what the work folder knows is told: manifests, and times from the logs of its runs. Paths start from the work folder.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::{Workflow, journal};
use crate::TOOL;
use crate::artifact::{self, Artifact, Counts, FileEntry, MANIFEST, Manifest, SourceFile};
use crate::remote::is_address;

/// The name of the metadata file in the root of a crate.
pub const METADATA: &str = "ro-crate-metadata.json";

/// The version of the three run profiles, and of the terms that they bring.
const PROFILES: [(&str, &str, &str); 4] = [
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/provenance/0.5", "Provenance Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
];

/// The engine and the language of workflow files.
const ENGINE: &str = "#genomill";
const LANGUAGE: &str = "#genomill-workflow";

/// What a crate is made of beside the artifacts.
#[derive(Debug, Clone)]
pub struct About {
    /// The name of the workflow's file in the crate.
    pub file: String,
    /// The workflow as written.
    pub text: String,
    /// The files that it includes: their names in the crate, and their texts.
    pub included: Vec<(String, String)>,
    /// Its name.
    pub workflow: String,
    /// Its stages; other artifacts of the work folder are no part of the crate.
    pub stages: Vec<String>,
    /// Values of the command line in place of those written, as `stage.key=value`.
    pub set: Vec<String>,
    /// Under which licence the crate is published; none if nobody said.
    pub license: Option<String>,
}

impl About {
    /// A workflow and the text of its file.
    pub fn new(workflow: &Workflow, text: String) -> Self {
        let stages = workflow.stages.iter().map(|entry| entry.name.clone()).collect();
        let included = workflow.beside().into_iter().map(|(name, text)| (name, text.to_owned())).collect();
        let (file, workflow) = (name_of(&workflow.path), workflow.name.clone());
        Self { file, text, included, workflow, stages, set: Vec::new(), license: None }
    }

    /// What the newest log of a work folder says of the workflow; none without a log.
    pub fn last_run(work: &Path) -> Option<Self> {
        let start = journal::last_start(work)?;
        let texts = |key: &str| {
            let items = start[key].as_array().into_iter().flatten().filter_map(Value::as_str);
            items.map(str::to_owned).collect::<Vec<_>>()
        };
        Some(Self {
            file: name_of(Path::new(start["file"].as_str()?)),
            text: start["text"].as_str()?.to_owned(),
            included: serde_json::from_value(start["included"].clone()).unwrap_or_default(),
            workflow: start["workflow"].as_str()?.to_owned(),
            stages: texts("stages"),
            set: texts("set"),
            license: None,
        })
    }
}

fn name_of(file: &Path) -> String {
    file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The metadata of a work folder, as JSON-LD.
///
/// # Errors
/// When the folder holds no artifact of the workflow, or a manifest in it cannot be read.
pub fn metadata(work: &Path, about: &About) -> Result<Value, artifact::Error> {
    let artifacts = artifacts(work, &about.stages)?;
    if artifacts.is_empty() {
        return Err(artifact::Error::Missing(work.to_owned()));
    }
    let times = journal::times(work);
    let mut graph = Graph::default();
    for artifact in &artifacts {
        graph.artifact(artifact);
    }
    for artifact in &artifacts {
        let manifest = &artifact.manifest;
        let time = times
            .get(&manifest.stage)
            .map(|(start, end)| (with_offset(start), with_offset(end)))
            .or_else(|| Some((String::new(), written(artifact)?)));
        graph.tool(manifest);
        graph.sources(manifest);
        graph.action(manifest, time);
        graph.step(manifest);
    }
    graph.run(about, &artifacts);
    graph.frame(about, &artifacts);
    Ok(json!({
        "@context": ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"],
        "@graph": graph.entities,
    }))
}

/// The artifacts of these stages that are there, each after those that it was made from.
fn artifacts(work: &Path, stages: &[String]) -> Result<Vec<Artifact>, artifact::Error> {
    let there = stages.iter().map(|stage| work.join(stage)).filter(|folder| folder.join(MANIFEST).is_file());
    let mut found: Vec<Artifact> = there.map(|folder| Artifact::open(&folder)).collect::<Result<_, _>>()?;
    let mut sorted: Vec<Artifact> = Vec::new();
    while !found.is_empty() {
        let waits = |artifact: &Artifact| {
            let inputs = &artifact.manifest.inputs;
            inputs.iter().any(|input| found.iter().any(|other| other.manifest.stage == input.stage))
        };
        // Stages that name each other, after renames, would wait for ever.
        let next = found.iter().position(|artifact| !waits(artifact)).unwrap_or(0);
        sorted.push(found.remove(next));
    }
    Ok(sorted)
}

/// When an artifact was published, as RFC 3339 has it, in UTC.
fn written(artifact: &Artifact) -> Option<String> {
    let time = std::fs::metadata(artifact.path(MANIFEST)).and_then(|metadata| metadata.modified()).ok()?;
    Some(rfc3339(time))
}

/// In UTC, written as `+00:00`, for some checkers of crates do not know `Z`.
fn rfc3339(time: SystemTime) -> String {
    with_offset(&humantime::format_rfc3339_millis(time).to_string())
}

fn with_offset(time: &str) -> String {
    time.strip_suffix('Z').map_or_else(|| time.to_owned(), |time| format!("{time}+00:00"))
}

/// The entities, in the order in which they were added; each once.
#[derive(Default)]
struct Graph {
    entities: Vec<Value>,
    ids: BTreeSet<String>,
    /// When the first stage began and the last one ended.
    first: Option<String>,
    last: Option<String>,
}

impl Graph {
    fn add(&mut self, entity: Value) {
        if let Some(id) = entity["@id"].as_str()
            && self.ids.insert(id.to_owned())
        {
            self.entities.push(entity);
        }
    }

    /// The folder and its files.
    fn artifact(&mut self, artifact: &Artifact) {
        let manifest = &artifact.manifest;
        let id = folder_id(&manifest.stage);
        let manifest_bytes = std::fs::metadata(artifact.path(MANIFEST)).map_or(0, |metadata| metadata.len());
        let own = format!("{id}{MANIFEST}");
        self.add(json!({
            "@id": own, "@type": "File", "name": MANIFEST, "encodingFormat": "application/json",
            "contentSize": manifest_bytes.to_string(),
            "description": format!("How `{}` was made, with the size and blake3 of every file", manifest.stage),
        }));
        for file in &manifest.files {
            self.add(file_entity(&id, file));
        }
        let parts = manifest.files.iter().map(|file| format!("{id}{}", encoded(&file.path)));
        let parts = parts.chain([own]).collect::<BTreeSet<_>>();
        self.add(json!({
            "@id": id, "@type": "Dataset", "name": manifest.stage,
            "description": format!("What the stage `{}` ({}) made", manifest.stage, manifest.kind),
            "identifier": format!("blake3:{}", manifest.content),
            "hasPart": references(parts),
        }));
    }

    /// The kind of stage, of the version that made an artifact.
    fn tool(&mut self, manifest: &Manifest) {
        self.add(json!({
            "@id": tool_id(manifest), "@type": "SoftwareApplication",
            "name": format!("{} stage {}", manifest.tool.split(' ').next().unwrap_or("genomill"), manifest.kind),
            "softwareVersion": format!("{}, algorithm {}", manifest.tool, manifest.algorithm),
            "url": reference(REPOSITORY),
            "isPartOf": reference(ENGINE),
        }));
    }

    /// The files from outside.
    fn sources(&mut self, manifest: &Manifest) {
        for source in &manifest.sources {
            let mut entity = json!({
                "@id": source_id(source), "@type": "File", "name": source.path,
            });
            if let Some(map) = entity.as_object_mut() {
                identify(map, source);
            }
            self.add(entity);
        }
    }

    /// What a stage did.
    fn action(&mut self, manifest: &Manifest, time: Option<(String, String)>) {
        let config = format!("#config/{}", encoded(&manifest.stage));
        self.add(json!({
            "@id": config, "@type": "PropertyValue", "name": "configuration", "value": manifest.config.to_string(),
        }));
        let inputs = manifest.inputs.iter().map(|input| self.input(&input.stage, &input.content));
        let objects: Vec<String> =
            inputs.chain(manifest.sources.iter().map(source_id)).chain([config.clone()]).collect();
        for input in &manifest.inputs {
            let id = self.input(&input.stage, &input.content);
            self.add(json!({
                "@id": id, "@type": "Dataset", "name": input.stage,
                "description": "An artifact that is no part of this crate: it is gone, or another one has its place now",
                "identifier": format!("blake3:{}", input.content),
            }));
        }
        let mut action = json!({
            "@id": action_id(&manifest.stage), "@type": "CreateAction",
            "name": format!("Stage {} of {}", manifest.stage, manifest.tool),
            "description": account(&manifest.counts),
            "instrument": reference(&tool_id(manifest)),
            "object": references(objects),
            "result": reference(&folder_id(&manifest.stage)),
            "actionStatus": "http://schema.org/CompletedActionStatus",
        });
        if let (Some((start, end)), Some(map)) = (time, action.as_object_mut()) {
            self.last = self.last.take().max(Some(end.clone()));
            map.insert("endTime".to_owned(), end.into());
            if !start.is_empty() {
                self.first = Some(self.first.take().map_or(start.clone(), |first| first.min(start.clone())));
                map.insert("startTime".to_owned(), start.into());
            }
        }
        self.add(action);
    }

    /// The folder of an input, or what stands for it when the folder holds something else by now.
    fn input(&self, stage: &str, content: &str) -> String {
        let id = folder_id(stage);
        let same = |entity: &&Value| entity["@id"] == id.as_str();
        let now = self.entities.iter().find(same).and_then(|entity| entity["identifier"].as_str());
        if now == Some(&format!("blake3:{content}")) { id } else { format!("#artifact/{content}") }
    }

    /// The stage as a step of the workflow, and that the engine ran it.
    fn step(&mut self, manifest: &Manifest) {
        let position = self.entities.iter().filter(|entity| entity["@type"] == "HowToStep").count() + 1;
        let step = step_id(&manifest.stage);
        self.add(json!({
            "@id": step, "@type": "HowToStep", "name": manifest.stage, "position": position.to_string(),
            "workExample": reference(&tool_id(manifest)),
        }));
        self.add(json!({
            "@id": format!("#control/{}", encoded(&manifest.stage)), "@type": "ControlAction",
            "name": format!("Run stage {}", manifest.stage),
            "instrument": reference(&step), "object": reference(&action_id(&manifest.stage)),
        }));
    }

    /// The run as a whole: what went in, what came out, and the engine's part.
    fn run(&mut self, about: &About, artifacts: &[Artifact]) {
        let read: BTreeSet<&str> = artifacts
            .iter()
            .flat_map(|a| a.manifest.inputs.iter().map(|input| input.stage.as_str()))
            .collect();
        let stages = || artifacts.iter().map(|artifact| artifact.manifest.stage.as_str());
        let results = stages().filter(|stage| !read.contains(stage)).map(folder_id);
        let sources: BTreeSet<String> =
            artifacts.iter().flat_map(|artifact| artifact.manifest.sources.iter().map(source_id)).collect();
        let mut objects: Vec<String> = sources.into_iter().collect();
        if !about.set.is_empty() {
            objects.push("#set".to_owned());
            let value = about.set.join(" ");
            self.add(json!({ "@id": "#set", "@type": "PropertyValue", "name": "--set", "value": value }));
        }
        let mut run = json!({
            "@id": "#run", "@type": "CreateAction", "name": format!("Run of the workflow {}", about.workflow),
            "instrument": reference(&encoded(&about.file)),
            "object": references(objects),
            "result": references(results),
            "actionStatus": "http://schema.org/CompletedActionStatus",
        });
        let mut engine = json!({
            "@id": "#engine-run", "@type": "OrganizeAction", "name": format!("Run of {TOOL}"),
            "instrument": reference(ENGINE),
            "object": references(stages().map(|stage| format!("#control/{}", encoded(stage)))),
            "result": reference("#run"),
        });
        for (key, time) in [("startTime", self.first.clone()), ("endTime", self.last.clone())] {
            for entity in [&mut run, &mut engine] {
                if let (Some(time), Some(map)) = (time.clone(), entity.as_object_mut()) {
                    map.insert(key.to_owned(), time.into());
                }
            }
        }
        self.add(run);
        self.add(engine);
    }

    /// The licence: an entity if it has an address.
    fn license(&mut self, about: &About) -> Value {
        let license = about.license.as_deref().unwrap_or("not stated");
        if !["https://", "http://"].iter().any(|scheme| license.starts_with(scheme)) {
            return license.into();
        }
        self.add(json!({ "@id": license, "@type": "CreativeWork", "name": license }));
        reference(license)
    }

    /// The workflow, its language and engine, the profiles, the root and what describes it.
    fn frame(&mut self, about: &About, artifacts: &[Artifact]) {
        let stages = || artifacts.iter().map(|artifact| artifact.manifest.stage.as_str());
        let tools: BTreeSet<String> = artifacts.iter().map(|artifact| tool_id(&artifact.manifest)).collect();
        let file = encoded(&about.file);
        let included: Vec<String> = about.included.iter().map(|(name, _)| encoded(name)).collect();
        let identifier = |text: &str| format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex());
        self.add(json!({
            "@id": file,
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": about.workflow, "encodingFormat": "application/yaml",
            "version": identifier(&about.text),
            "contentSize": about.text.len().to_string(),
            "identifier": identifier(&about.text),
            "programmingLanguage": reference(LANGUAGE),
            "hasPart": references(included.iter().cloned().chain(tools)),
            "step": references(stages().map(step_id)),
        }));
        for (name, text) in &about.included {
            self.add(json!({
                "@id": encoded(name), "@type": ["File", "SoftwareSourceCode"], "name": name,
                "description": format!("Included by {}", about.file), "encodingFormat": "application/yaml",
                "contentSize": text.len().to_string(), "identifier": identifier(text),
                "programmingLanguage": reference(LANGUAGE),
            }));
        }
        self.add(json!({
            "@id": LANGUAGE, "@type": "ComputerLanguage", "name": "genomill workflow", "version": crate_version(),
            "url": reference(REPOSITORY),
        }));
        self.add(json!({
            "@id": ENGINE, "@type": "SoftwareApplication", "name": "genomill", "softwareVersion": crate_version(),
            "url": reference(REPOSITORY),
        }));
        for (id, name, version) in PROFILES {
            self.add(json!({ "@id": id, "@type": "CreativeWork", "name": name, "version": version }));
        }
        let sources: BTreeSet<String> =
            artifacts.iter().flat_map(|artifact| artifact.manifest.sources.iter().map(source_id)).collect();
        let parts = [file.clone()].into_iter().chain(included).chain(stages().map(folder_id)).chain(sources);
        let actions =
            ["#run".to_owned(), "#engine-run".to_owned()].into_iter().chain(stages().map(action_id));
        let published = self.last.clone().unwrap_or_else(|| rfc3339(SystemTime::now()));
        let license = self.license(about);
        let root = json!({
            "@id": "./", "@type": "Dataset", "name": about.workflow,
            "description": format!("A run of the genomill workflow {}: what it read, did and made", about.workflow),
            "datePublished": published,
            "license": license,
            "conformsTo": references(PROFILES.iter().map(|(id, ..)| (*id).to_owned())),
            "hasPart": references(parts),
            "mainEntity": reference(&file),
            "mentions": references(actions),
        });
        let descriptor = json!({
            "@id": METADATA, "@type": "CreativeWork", "about": reference("./"),
            "conformsTo": references([
                "https://w3id.org/ro/crate/1.1".to_owned(),
                "https://w3id.org/workflowhub/workflow-ro-crate/1.0".to_owned(),
            ]),
        });
        self.entities.splice(0..0, [descriptor, root]);
    }
}

/// Where genomill is from.
const REPOSITORY: &str = "https://crates.io/crates/genomill";

fn crate_version() -> &'static str {
    TOOL.split(' ').nth(1).unwrap_or(TOOL)
}

fn file_entity(folder: &str, file: &FileEntry) -> Value {
    let mut entity = json!({
        "@id": format!("{folder}{}", encoded(&file.path)), "@type": "File", "name": file.path,
        "contentSize": file.bytes.to_string(),
        "identifier": format!("blake3:{}", file.blake3),
    });
    if let (Some(format), Some(map)) = (format_of(&file.path), entity.as_object_mut()) {
        map.insert("encodingFormat".to_owned(), format.into());
    }
    entity
}

/// What a stage did with the bases, in words.
fn account(counts: &Counts) -> String {
    let Counts { bases_in, bases_out, .. } = counts;
    format!("{bases_in} bases in, {bases_out} out, {} dropped", counts.dropped_bases())
}

/// Size and hashes of a file from outside, as far as they are known.
fn identify(entity: &mut Map<String, Value>, source: &SourceFile) {
    if !source.blake3.is_empty() {
        entity.insert("contentSize".to_owned(), source.bytes.to_string().into());
        entity.insert("identifier".to_owned(), format!("blake3:{}", source.blake3).into());
    }
    if let Some(sha256) = &source.sha256 {
        entity.insert("sha256".to_owned(), sha256.as_str().into());
    }
}

/// The media type of a file, by its ending.
fn format_of(path: &str) -> Option<&'static str> {
    let ending = path.rsplit_once('.')?.1;
    [
        ("parquet", "application/vnd.apache.parquet"),
        ("json", "application/json"),
        ("html", "text/html"),
        ("safetensors", "application/octet-stream"),
    ]
    .into_iter()
    .find_map(|(known, format)| (known == ending).then_some(format))
}

fn folder_id(stage: &str) -> String {
    format!("{}/", encoded(stage))
}

fn action_id(stage: &str) -> String {
    format!("#action/{}", encoded(stage))
}

fn step_id(stage: &str) -> String {
    format!("#step/{}", encoded(stage))
}

fn tool_id(manifest: &Manifest) -> String {
    format!("#tool/{}", encoded(&format!("{}/{}/{}", manifest.kind, manifest.algorithm, manifest.tool)))
}

/// An address, or a name made of the content: where a file lay on somebody's machine is of no use elsewhere.
fn source_id(source: &SourceFile) -> String {
    if is_address(Path::new(&source.path)) {
        return source.path.clone();
    }
    format!("urn:blake3:{}", source.blake3)
}

fn reference(id: &str) -> Value {
    json!({ "@id": id })
}

/// One reference, or a list of several.
fn references(ids: impl IntoIterator<Item = String>) -> Value {
    let mut all: Vec<Value> = ids.into_iter().map(|id| reference(&id)).collect();
    if all.len() == 1 { all.remove(0) } else { all.into() }
}

/// A path as it stands in a URI: all but letters, digits and `-._~/@=,+` percent-encoded.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/@=,+".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_as_uris_have_them() {
        for (path, expected) in [
            ("shards/train-00000.parquet", "shards/train-00000.parquet"),
            ("bpe@context=256,vocabulary=16", "bpe@context=256,vocabulary=16"),
            ("a b#c?.yaml", "a%20b%23c%3F.yaml"),
            ("ä", "%C3%A4"),
        ] {
            assert_eq!(encoded(path), expected);
        }
    }

    #[test]
    fn times_have_an_offset() {
        for (time, expected) in [("2026-11-25T19:31:08.505Z", "2026-11-25T19:31:08.505+00:00"), ("", "")] {
            assert_eq!(with_offset(time), expected);
        }
    }
}
