use super::*;
use crate::workflow::Workflow;

const SWEEP: &str = "
name: sweep
matrix: {vocabulary: [32, 64, 96]}
stages:
  raw: {uses: ingest, sources: [{fasta: a.fa}], resources: {memory: 4GB}}
  split: {uses: split, from: raw}
  windows: {uses: chunk, from: split, window: 100}
  bpe: {uses: tokenizer, from: split, model: {bpe: {vocabulary_size: \"${matrix.vocabulary}\"}}, resources: {threads: 8}}
  tokens: {uses: tokenize, from: windows, tokenizer: bpe, partition: PARTITION}
  shards: {uses: shard, from: tokens, context: 64}
  summary: {uses: report, from: [shards]}
";

struct Opened {
    workflow: Workflow,
    _folder: tempfile::TempDir,
}

/// With a file of 1,000 bytes, and so at most 8,000 bases.
fn opened(partition: &str) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.fa"), format!(">a\n{}\n", "A".repeat(996))).unwrap();
    let path = folder.path().join("sweep.yaml");
    std::fs::write(&path, SWEEP.replace("PARTITION", partition)).unwrap();
    Opened { workflow: Workflow::open(&path, &[], &|_| None).unwrap(), _folder: folder }
}

/// The jobs of stages; `standing` by stage: of, and the numbers that are missing.
fn jobs(
    workflow: &Workflow,
    stages: &[&str],
    standing: &[(&str, u32, &str)],
    alive: &Alive,
    profile: &Profile,
) -> Jobs {
    let (more, of) = (More::default(), |of: u32, missing: &str| {
        let absent = missing.parse::<crate::stage::partition::Wanted>();
        let absent = absent.map_or(0, |wanted| wanted.among(of as usize).unwrap().len());
        Standing { of, made: of - u32::try_from(absent).unwrap(), missing: missing.to_owned() }
    });
    let standing =
        standing.iter().map(|(stage, n, missing)| ((*stage).to_owned(), of(*n, missing))).collect();
    let needed = |entry: &&Entry| stages.is_empty() || stages.contains(&entry.base.as_str());
    let stages = workflow.stages.iter().filter(needed).map(|entry| entry.name.as_str()).collect();
    Jobs::new(&Needs { workflow, stages, standing, more: &more }, profile, alive, 1000)
}

/// Each job as a line: title, elements, width, what it waits for.
fn lines(jobs: &Jobs) -> Vec<String> {
    let name = |at: &usize| jobs.jobs[*at].title();
    let after = |after: &After| match after {
        After::Job(at) => name(at),
        After::Element(at, element) => format!("{}[{element}]", name(at)),
        After::Each(at) => format!("each {}", name(at)),
        After::Earlier(id) => format!("#{id}"),
    };
    let line = |job: &Job| {
        let elements = job.elements.as_ref().map_or_else(String::new, |elements| {
            format!(" [{}] of {}", crate::stage::partition::listed(elements.iter().copied()), job.width)
        });
        let waits: Vec<String> = job.after.iter().map(after).collect();
        format!("{}{elements} after {}", job.title(), waits.join(", "))
    };
    jobs.jobs[1..].iter().map(line).collect()
}

#[test]
fn expansions_go_element_by_element_and_lists_wait_for_all() {
    let opened = opened("256Mb");
    let jobs = jobs(&opened.workflow, &[], &[], &Alive::default(), &Profile::default());
    let expected = [
        "raw after check",
        "split after raw",
        "windows after split",
        "bpe-3 [0-2] of 1 after split",
        "tokens-3 [0-2] of 1 after windows, each bpe-3",
        "shards-3 [0-2] of 1 after each tokens-3",
        "summary after shards-3",
    ];
    assert_eq!(lines(&jobs), expected);
    let asked = |at: usize| &jobs.jobs[at].asked;
    assert_eq!((asked(1).memory, asked(4).threads, asked(2).threads), (Some(4_000_000_000), 8, 1));
}

#[test]
fn partitions_are_an_array_before_the_stage_as_wide_as_they_may_come_to_be() {
    let opened = opened("2kb");
    let profile = Profile { elements: 3.try_into().unwrap(), ..Profile::default() };
    let stages = ["bpe", "tokens", "shards"];
    let found = jobs(&opened.workflow, &stages, &[], &Alive::default(), &profile);
    let lines_found = lines(&found);
    assert_eq!(lines_found[0], "bpe-3 [0-2] of 1 after check");
    assert_eq!(lines_found[1], "tokens@vocabulary=32-partitions [0-2] of 3 after bpe-3[0]");
    assert_eq!(lines_found[2], "tokens@vocabulary=32 after tokens@vocabulary=32-partitions");
    assert_eq!(lines_found[8], "shards@vocabulary=64 after tokens@vocabulary=64");
    // What is known counts, and what is there is not made again.
    let tokens = "tokens@vocabulary=32";
    for (of, missing, elements, pack) in [
        (1000, "0-999", "[0-2] of 3", 1),
        (1000, "7,10,999", "[0-1] of 3", 1),
        (2, "0-1", "[0-1] of 2", 1),
        (5, "0-4", "[0-1] of 2", 4),
    ] {
        let profile = Profile { partitions_per_element: pack.try_into().unwrap(), ..profile.clone() };
        let found =
            jobs(&opened.workflow, &["tokens"], &[(tokens, of, missing)], &Alive::default(), &profile);
        assert!(
            lines(&found).contains(&format!("{tokens}-partitions {elements} after check")),
            "{:?}",
            lines(&found)
        );
    }
    for (of, missing) in [(1, "0"), (5, "")] {
        let found =
            jobs(&opened.workflow, &["tokens"], &[(tokens, of, missing)], &Alive::default(), &profile);
        assert!(lines(&found).contains(&format!("{tokens} after check")), "{:?}", lines(&found));
    }
}

#[test]
fn what_is_in_the_queue_goes_on_unless_what_it_reads_is_made_anew() {
    let opened = opened("2kb");
    let profile = Profile { elements: 3.try_into().unwrap(), ..Profile::default() };
    let tokens = "tokens@vocabulary=32";
    let element = |element: u32| AliveElement { id: format!("9_{element}"), element, width: 3 };
    let mut alive = Alive {
        whole: HashMap::from([
            (tokens.to_owned(), "10".to_owned()),
            ("shards@vocabulary=32".to_owned(), "11".to_owned()),
        ]),
        partitions: HashMap::from([(tokens.to_owned(), vec![element(1)])]),
    };
    let of = |jobs: &Jobs| {
        let mut lines = lines(jobs);
        lines.retain(|line| {
            line.starts_with("tokens@vocabulary=32") || line.starts_with("shards@vocabulary=32")
        });
        (lines, jobs.cancel.iter().cloned().collect::<Vec<_>>())
    };
    let stages = ["tokens", "shards"];
    // One element failed beside one that runs: it is sent again, and what waited for both is sent anew.
    let found = jobs(&opened.workflow, &stages, &[(tokens, 6, "0-1,3-4")], &alive, &profile);
    let expected = [
        "tokens@vocabulary=32-partitions [0] of 3 after check",
        "tokens@vocabulary=32 after tokens@vocabulary=32-partitions, #9_1",
        "shards@vocabulary=32 after tokens@vocabulary=32",
    ];
    assert_eq!(of(&found), (expected.map(str::to_owned).to_vec(), vec!["10".to_owned(), "11".to_owned()]));
    // Nothing failed: all of it goes on.
    let found = jobs(&opened.workflow, &stages, &[(tokens, 6, "1,4")], &alive, &profile);
    assert_eq!(of(&found), (vec![], vec![]));
    // What tokens read is made anew.
    let found = jobs(&opened.workflow, &["bpe", "tokens", "shards"], &[], &alive, &profile);
    assert_eq!(of(&found).1, ["10", "11", "9_1"]);
    assert_eq!(of(&found).0[0], "tokens@vocabulary=32-partitions [0-2] of 3 after bpe-3[0]");
    // The last stage alone is missing.
    alive.partitions.clear();
    alive.whole.remove("shards@vocabulary=32");
    let found = jobs(&opened.workflow, &stages, &[(tokens, 6, "")], &alive, &profile);
    assert_eq!(of(&found), (vec!["shards@vocabulary=32 after check, #10".to_owned()], vec![]));
}
