//! What manifests say of the sequences of sources and splits.

use serde::Deserialize;
use serde_json::Value;

use crate::artifact::{self, Artifact};
use crate::report::{Account, Dropped, Duplicates, Leaks, Part, Sequence, Shared};

/// The sequences of every source as they were read, and of every split.
pub(super) fn sequences(artifacts: &[Artifact]) -> Vec<Sequence> {
    let of = |kind: &'static str| artifacts.iter().filter(move |artifact| artifact.manifest.kind == kind);
    of("ingest")
        .flat_map(|read| sources(read, artifacts))
        .chain(of("split").flat_map(|s| splits(s, artifacts)))
        .collect()
}

/// What became of the bases of each source and split at each stage that knows them.
pub(super) fn accounts(artifacts: &[Artifact]) -> Vec<Account> {
    let of = |artifact: &Artifact| {
        let (stage, counts) = (&artifact.manifest.stage, &artifact.manifest.counts);
        let sources = counts.by_source.iter().map(|(name, of)| account(Part::Source, name, stage, of));
        let splits = counts.by_split.iter().map(|(name, of)| account(Part::Split, name, stage, of));
        sources.chain(splits).collect::<Vec<_>>()
    };
    let mut accounts: Vec<Account> = artifacts.iter().flat_map(of).collect();
    // A part's stages follow each other in the order of the workflow.
    accounts.sort_by(|a, b| (a.part == Part::Split, &a.name).cmp(&(b.part == Part::Split, &b.name)));
    accounts
}

fn account(part: Part, name: &str, stage: &str, of: &artifact::Account) -> Account {
    let dropped = |(reason, &count): (&String, &u64)| Dropped {
        reason: reason.clone(),
        unit: "bases".to_owned(),
        count,
    };
    Account {
        part,
        name: name.to_owned(),
        stage: stage.to_owned(),
        before: of.bases_in,
        after: of.bases_out,
        dropped: of.dropped.iter().map(dropped).collect(),
    }
}

fn sources(read: &Artifact, artifacts: &[Artifact]) -> Vec<Sequence> {
    let list = read.manifest.details["sources"].as_array().into_iter().flatten();
    let stage = &read.manifest.stage;
    let source = |value: &Value| Sequence {
        part: Part::Source,
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        stage: stage.clone(),
        statistics: parse(value).unwrap_or_default(),
        ..Sequence::default()
    };
    list.map(source).map(|source| Sequence { duplicates: duplicates(&source, artifacts), ..source }).collect()
}

/// What the stages behind the one that read a source found twice in it.
fn duplicates(source: &Sequence, artifacts: &[Artifact]) -> Vec<Duplicates> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Found {
        compared: u64,
        exact: u64,
        near: u64,
    }
    let dedups = artifacts.iter().filter(|artifact| artifact.manifest.kind == "dedup");
    let found = dedups.filter(|dedup| made_from(dedup, "ingest", artifacts) == Some(source.stage.as_str()));
    let of = |dedup: &Artifact| {
        let Found { compared, exact, near } = parse(&dedup.manifest.details["sources"][&source.name])?;
        let windows = dedup.manifest.counts.other.contains_key("windows");
        let unit = if windows { "windows" } else { "intervals" }.to_owned();
        Some(Duplicates { stage: dedup.manifest.stage.clone(), unit, compared, exact, near })
    };
    found.filter_map(of).collect()
}

fn splits(split: &Artifact, artifacts: &[Artifact]) -> Vec<Sequence> {
    let list = split.manifest.details["splits"].as_object().into_iter().flatten();
    let stage = &split.manifest.stage;
    let of = |(name, value): (&String, &Value)| Sequence {
        part: Part::Split,
        name: name.clone(),
        stage: stage.clone(),
        statistics: parse(value).unwrap_or_default(),
        shared: shared(name, stage, artifacts),
        ..Sequence::default()
    };
    list.map(of).collect()
}

/// What other splits of the stage have of a split.
fn shared(name: &str, stage: &str, artifacts: &[Artifact]) -> Vec<Shared> {
    let leaks = artifacts.iter().filter(|artifact| artifact.manifest.kind == "leaks");
    let of = |artifact: &Artifact| {
        let leaks: Leaks = parse(&artifact.manifest.details["leaks"]).unwrap_or_default();
        let pairs = leaks.pairs.into_iter().filter(|pair| pair.of == name);
        let shared = |pair: crate::report::Leak| Shared {
            stage: artifact.manifest.stage.clone(),
            within: pair.within,
            windows: pair.windows,
            shared: pair.shared_windows,
        };
        pairs.map(shared).collect::<Vec<_>>()
    };
    leaks.filter(|leaks| made_from(leaks, "split", artifacts) == Some(stage)).flat_map(of).collect()
}

/// The stage of a kind that an artifact's data went through, following `from`.
fn made_from<'a>(artifact: &Artifact, kind: &str, artifacts: &'a [Artifact]) -> Option<&'a str> {
    let from = artifact.manifest.inputs.iter().find(|input| input.role == "from")?;
    let found = artifacts.iter().find(|other| other.manifest.stage == from.stage)?;
    if found.manifest.kind == kind { Some(&found.manifest.stage) } else { made_from(found, kind, artifacts) }
}

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}
