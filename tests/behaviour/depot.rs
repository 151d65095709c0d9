//! Machines that share a work folder in a bucket: each is a folder of its own here, the store is a server on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::server::{Mishap, Request, Server};
use crate::support::{LAMBDA, Scratch, contents, data, genomill, stderr};

/// Where the artifacts of the workflow are.
const PLACE: &str = "bucket/shared/flow";

/// With `tokens` in 5 partitions.
fn yaml() -> String {
    let old = "{uses: tokenize, from: windows, tokenizer: bpe}";
    LAMBDA.replace(old, "{uses: tokenize, from: windows, tokenizer: bpe, partition: 20kb}")
}

/// A machine with phage lambda and the workflow, which has made nothing.
fn machine() -> Scratch {
    let scratch = Scratch::new(&yaml());
    std::fs::copy(data("phage_lambda.fa.gz"), scratch.path("lambda.fa.gz")).unwrap();
    scratch
}

/// `genomill COMMAND flow.yaml --work s3://bucket/shared ARGUMENTS` on a machine.
fn at(server: &Server, machine: &Scratch, command: &str, arguments: &[&str]) -> Command {
    let mut process = genomill();
    for name in ["AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_ALLOW_HTTP", "GENOMILL_CACHE"] {
        process.env_remove(name);
    }
    process.env("AWS_ENDPOINT_URL", server.url("").trim_end_matches('/'));
    process.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret");
    process.current_dir(machine.path("")).args([command, "flow.yaml", "--work", "s3://bucket/shared"]);
    process.args(["--cache", "cache", "--scratch", "scratch"]).args(arguments);
    process
}

/// Does it, which must succeed; what it says on stdout and stderr.
fn said(server: &Server, machine: &Scratch, command: &str, arguments: &[&str]) -> String {
    let output = at(server, machine, command, arguments).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output)
}

/// Runs, which must succeed; the stages that were made.
fn ran(server: &Server, machine: &Scratch, arguments: &[&str]) -> Vec<String> {
    let text = said(server, machine, "run", &[&["--progress", "json"], arguments].concat());
    let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let started = events.filter(|event| event["event"] == "stage_started");
    started.map(|event| event["stage"].as_str().unwrap().to_owned()).collect()
}

/// Does it, which must fail; what it says on stderr.
fn refused(server: &Server, machine: &Scratch, command: &str, arguments: &[&str]) -> String {
    failed(&at(server, machine, command, arguments).output().unwrap())
}

fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", stderr(output));
    stderr(output)
}

/// The lasting files that a machine has of artifacts that it has whole, as they would lie in a work folder.
fn copies(machine: &Scratch) -> BTreeMap<String, String> {
    contents(&machine.path("scratch/flow"))
}

/// What a run without a bucket makes.
fn expected(arguments: &[&str]) -> BTreeMap<String, String> {
    let local = machine();
    local.ran(arguments);
    local.contents()
}

fn of_stage(all: &BTreeMap<String, String>, stage: &str) -> BTreeMap<String, String> {
    let of = |path: &&String| path.starts_with(&format!("{stage}/"));
    all.keys().filter(of).map(|path| (path.clone(), all[path].clone())).collect()
}

/// The manifest of a stage in the bucket, of which there must be one.
fn seal(server: &Server, stage: &str) -> String {
    let is_seal = |name: &String| {
        let rest = name.strip_prefix(&format!("{PLACE}/{stage}/"));
        rest.is_some_and(|rest| !rest.contains('/'))
    };
    let seals: Vec<String> = server.names().into_iter().filter(is_seal).collect();
    assert_eq!(seals.len(), 1, "{seals:?}");
    seals[0].clone()
}

/// What was got of the bucket but manifests, by stage and without repetition; data lies in folders named by 32 digits.
fn stages_fetched(requests: &[Request]) -> Vec<String> {
    let got = requests.iter().filter(|request| request.method == "GET");
    let paths = got.filter_map(|request| request.path.strip_prefix(&format!("/{PLACE}/")));
    let data = paths.filter(|path| path.split('/').any(|part| part.len() == 32));
    let mut stages: Vec<String> = data.map(|path| path.split('/').next().unwrap().to_owned()).collect();
    stages.sort();
    stages.dedup();
    stages
}

const ALL: [&str; 7] = ["raw", "clean", "split", "windows", "bpe", "tokens", "shards"];

#[test]
fn what_one_machine_made_another_reuses_and_fetches_what_it_needs() {
    let (server, first, second) = (Server::start(), machine(), machine());
    let mut made = ran(&server, &first, &[]);
    made.sort();
    let mut all = ALL;
    all.sort_unstable();
    assert_eq!(made, all);
    assert_eq!(copies(&first), expected(&[]));
    let requests = server.requests();
    for stage in ALL {
        let puts = requests.iter().filter(|request| request.method == "PUT");
        let puts: Vec<&Request> =
            puts.filter(|request| request.path.starts_with(&format!("/{PLACE}/{stage}/"))).collect();
        assert_eq!(
            format!("/{}", seal(&server, stage)),
            puts.last().unwrap().path,
            "the manifest comes last"
        );
    }

    // Neither to plan nor to reuse takes more than manifests.
    let plan = said(&server, &second, "plan", &[]);
    assert_eq!(plan.matches("reuse").count(), 7, "{plan}");
    assert!(
        said(&server, &second, "run", &[]).contains("done: 0 ran, 7 reused; artifacts in s3://bucket/shared")
    );
    let status = said(&server, &second, "status", &[]);
    assert_eq!(status.matches("done     2026-11-24T12:00:00").count(), 7, "{status}");
    assert!(said(&server, &second, "run-task", &["tokens"]).contains("`tokens` was there"));
    assert_eq!(stages_fetched(&server.requests()), [""; 0]);
    assert!(!second.path("scratch/flow/tokens").exists());

    // A stage that runs has its inputs brought, and what they refer to; nothing else.
    let other = ["--set", "shards.context=32"];
    assert_eq!(ran(&server, &second, &other), ["shards"]);
    assert_eq!(stages_fetched(&server.requests()), ["clean", "tokens"]);
    assert_eq!(of_stage(&copies(&second), "shards"), of_stage(&expected(&other), "shards"));
    assert_eq!(of_stage(&copies(&second), "tokens"), of_stage(&copies(&first), "tokens"));

    // Both are kept, and a copy that was damaged is fetched again.
    assert_eq!(ran(&server, &first, &other), [""; 0]);
    assert_eq!(ran(&server, &first, &[]), [""; 0]);
    let page = second.path("scratch/flow/tokens/train/part-00000.parquet");
    let whole = std::fs::read(&page).unwrap();
    std::fs::write(&page, "x").unwrap();
    assert_eq!(ran(&server, &second, &["--set", "shards.context=16"]), ["shards"]);
    assert_eq!(std::fs::read(&page).unwrap(), whole);
}

#[test]
fn a_report_has_what_it_tells_of_the_stages_behind() {
    let (server, first, second) = (Server::start(), machine(), machine());
    for machine in [&first, &second] {
        machine.write(&format!("{}  report:  {{uses: report, from: [bpe, split]}}\n", yaml()));
    }
    ran(&server, &first, &["--until", "bpe"]);
    server.requests();
    assert_eq!(ran(&server, &second, &["--until", "report"]), ["report"]);
    assert_eq!(stages_fetched(&server.requests()), ["bpe", "clean", "split"], "files of no other stage");
    let page = std::fs::read_to_string(second.path("scratch/flow/report/report.html")).unwrap();
    for stage in ["raw", "clean", "split", "bpe"] {
        assert!(page.contains(&format!(">{stage}<")), "{stage}");
    }
    assert_eq!(ran(&server, &first, &["--until", "report"]), [""; 0]);
}

#[test]
fn partitions_made_on_two_machines_are_put_together_by_a_third() {
    let (server, machines) = (Server::start(), [machine(), machine(), machine()]);
    let [first, second, third] = &machines;
    ran(&server, first, &["--until", "windows"]);
    ran(&server, second, &["--only", "bpe"]);
    let task = |machine, share| {
        at(&server, machine, "run-task", &["tokens", "--share", share])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let plan = said(&server, third, "plan", &["--until", "tokens"]);
    assert!(plan.contains("tokens   tokenize   runs: not made yet\n"), "{plan}");
    let children = [task(first, "0/2"), task(second, "1/2"), task(second, "1/2")];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    for command in ["plan", "status"] {
        let text = said(&server, third, command, &[]);
        assert!(text.contains("all of its 5 partitions are there"), "{text}");
    }
    // One that is there is neither made nor put again, even where there is no copy.
    server.requests();
    let text = said(&server, first, "run-task", &["tokens", "--partition", "1,2"]);
    assert!(text.contains("partitions 1-2 of `tokens` were there"), "{text}");
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.method == "GET" || request.path.ends_with("/genomill.json"))
    );
    assert!(!first.path("scratch/flow/.partial/tokens").join("x").exists());

    let names = server.names();
    assert_eq!(ran(&server, third, &["--only", "tokens"]), ["tokens"]);
    let stages = stages_fetched(&server.requests());
    assert!(stages.contains(&".partial".to_owned()), "{stages:?}");
    let parts = |names: &[String]| names.iter().filter(|name| name.contains("/.partial/")).count();
    assert_eq!(parts(&server.names()), parts(&names), "it made none");
    assert_eq!(ran(&server, third, &[]), ["shards"]);
    let all = expected(&[]);
    for stage in ["tokens", "shards"] {
        assert_eq!(of_stage(&copies(third), stage), of_stage(&all, stage));
    }
    assert!(
        said(&server, first, "run-task", &["tokens", "--share", "0/2"]).contains("was there, made of all")
    );
}

#[test]
fn a_run_uses_the_partitions_that_are_there_and_makes_the_others() {
    let (server, first, second) = (Server::start(), machine(), machine());
    ran(&server, &first, &["--until", "windows"]);
    ran(&server, &first, &["--only", "bpe"]);
    said(&server, &first, "run-task", &["tokens", "--partition", "1,3"]);
    let status = said(&server, &second, "status", &[]);
    assert!(status.contains("2 of its 5 partitions are there, missing 0,2,4"), "{status}");
    assert_eq!(ran(&server, &second, &[]), ["tokens", "shards"]);
    assert_eq!(of_stage(&copies(&second), "shards"), of_stage(&expected(&[]), "shards"));

    // A damaged one is refused with its name.
    let third = machine();
    server.remove(&seal(&server, "tokens"));
    let is_part = |name: &&String| name.contains("/part-00003-of-00005/");
    let damaged = server.names().iter().find(is_part).unwrap().clone();
    server.change(&damaged, |body| body[9] ^= 1);
    let error = refused(&server, &third, "run", &[]);
    let expected =
        format!("stage `tokens` cannot use the work folder at its address: `s3://{damaged}` is not");
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn what_is_damaged_in_the_bucket_is_refused_with_its_name() {
    let (server, first, second) = (Server::start(), machine(), machine());
    ran(&server, &first, &[]);
    let (tokens, other) = (seal(&server, "tokens"), ["--set", "shards.context=32"]);
    assert_eq!(server.change("validation/part-00000.parquet", |body| body[9] ^= 1), 1);
    let error = refused(&server, &second, "run", &other);
    let file = format!("`s3://{}/", tokens.trim_end_matches(".json"));
    assert!(error.contains(&file), "{error}");
    assert!(
        error.contains("/validation/part-00000.parquet` is not what was expected: its blake3 is"),
        "{error}"
    );
    server.remove("validation/part-00000.parquet");
    let error = refused(&server, &second, "run", &other);
    assert!(error.contains("/validation/part-00000.parquet`: HTTP 404 Not Found"), "{error}");
    // The machine that made it has it, and does not ask.
    assert_eq!(ran(&server, &first, &other), ["shards"]);

    let key = tokens.rsplit('/').next().unwrap().trim_end_matches(".json");
    let edit = |from: &str, to: &str| {
        server
            .change(&tokens, |body| *body = String::from_utf8(body.clone()).unwrap().replace(from, to).into())
    };
    assert_eq!(edit("validation/part-00000.parquet", "../../part-00000.parquet"), 1);
    let error = refused(&server, &second, "plan", &[]);
    let expected =
        format!("`s3://{tokens}` is damaged: it has a file `../../part-00000.parquet`, expected a path");
    assert!(error.contains(&expected), "{error}");
    edit("../../part", "validation/part");
    edit(key, &"0".repeat(64));
    let error = refused(&server, &second, "plan", &[]);
    let expected =
        format!("`s3://{tokens}` is damaged: its action key is {}, its name says {key}", "0".repeat(64));
    assert!(error.contains(&expected), "{error}");
    server.change(&tokens, |body| body.truncate(100));
    let error = refused(&server, &second, "plan", &[]);
    assert!(error.contains(&format!("cannot read `s3://{tokens}`: EOF while parsing")), "{error}");
}

#[test]
fn of_two_who_make_the_same_the_second_finds_it_there() {
    let (server, first, second) = (Server::start(), machine(), machine());
    // At the same time, each from nothing.
    let runs = [&first, &second].map(|machine| {
        at(&server, machine, "run", &["--until", "split"]).stderr(Stdio::piped()).spawn().unwrap()
    });
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    ran(&server, &first, &[]);

    // A manifest that comes to be there just before it is put: the answer is 412.
    let (raw, absent) = (seal(&server, "raw"), Mishap::Status(404, ""));
    let second = machine();
    server.upset(&raw, &[absent.clone(), absent.clone()]);
    server.requests();
    assert_eq!(ran(&server, &second, &[]), ["raw"]);
    let mut puts = server.requests().into_iter().filter(|request| request.method == "PUT");
    assert_eq!(puts.next_back().unwrap().path, format!("/{raw}"));

    // The same with another content: both are named, and the one in the bucket is used from then on.
    let manifest = String::from_utf8(server.object(&raw).unwrap()).unwrap();
    let content = |text: &str| text.split("\"content\": \"").nth(1).unwrap()[..64].to_owned();
    let (ours, theirs) = (content(&manifest), "7".repeat(64));
    server.change(&raw, |body| *body = manifest.replace(&ours, &theirs).into());
    let third = machine();
    server.upset(&raw, &[absent.clone(), absent]);
    let error = refused(&server, &third, "run", &["--until", "raw"]);
    let address = raw.trim_end_matches(".json");
    let expected =
        format!("stage `raw` came out as content {ours} here, and as {theirs} at `s3://{address}`");
    assert!(error.contains(&expected), "{error}");
    assert!(!third.path("scratch/flow/raw").exists());
    assert_eq!(ran(&server, &third, &["--until", "raw"]), [""; 0]);
}

#[test]
fn a_run_that_was_killed_while_it_put_files_leaves_nothing_that_counts() {
    let (server, first, second) = (Server::start(), machine(), machine());
    let elsewhere = Server::start();
    ran(&elsewhere, &second, &["--until", "split"]);
    let split = seal(&elsewhere, "split");
    // Asked for when it is decided, before it is put, and put.
    server.upset(&split, &[Mishap::Pass, Mishap::Pass, Mishap::Hang(Duration::from_secs(20))]);
    let mut child = at(&server, &first, "run", &["--until", "split"]).stderr(Stdio::null()).spawn().unwrap();
    let (began, put) =
        (Instant::now(), |request: &Request| request.method == "PUT" && request.path == format!("/{split}"));
    while !server.requests().iter().any(put) {
        assert!(began.elapsed() < Duration::from_mins(1), "it never put the manifest");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let names = server.names();
    assert!(
        names.iter().any(|name| name.starts_with(split.trim_end_matches(".json"))),
        "files are there: {names:?}"
    );
    assert!(!names.contains(&split));

    // To others it is not made; the machine that made it puts what is missing.
    let third = machine();
    let plan = said(&server, &third, "plan", &["--until", "split"]);
    assert!(plan.contains("split    split      runs: not made yet") && plan.contains("reuse"), "{plan}");
    server.requests();
    assert_eq!(ran(&server, &first, &["--until", "split"]), [""; 0]);
    let puts = server.requests().into_iter().filter(|request| request.method == "PUT");
    let puts: Vec<String> = puts.map(|request| request.path).collect();
    assert_eq!(puts, ["/bucket/shared/flow/genomill.json".to_owned(), format!("/{split}")]);
    assert_eq!(ran(&server, &third, &["--until", "split"]), [""; 0]);
    assert_eq!(server.object(&split), elsewhere.object(&split));
}

#[test]
fn a_store_that_cannot_be_shared_is_refused_before_anything_is_made() {
    let probe = "bucket/shared/flow/genomill.json";
    for (mishaps, expected) in [
        (
            vec![Mishap::Status(404, "<Error><Code>NoSuchBucket</Code></Error>")],
            "HTTP 404 Not Found, expected a store that takes conditional puts (`If-None-Match: *`) (NoSuchBucket)",
        ),
        (
            vec![Mishap::Status(403, "<Error><Code>AccessDenied</Code></Error>")],
            "HTTP 403 Forbidden, expected a store that takes conditional puts (`If-None-Match: *`) (AccessDenied)",
        ),
        (vec![Mishap::Status(501, "")], "HTTP 501 Not Implemented, expected a store"),
        (vec![], "it put a second time what was there, so it does not know `If-None-Match: *`"),
    ] {
        let (server, machine) = (Server::start(), machine());
        server.ignore_conditions();
        server.upset(probe, &mishaps);
        let error = refused(&server, &machine, "run", &[]);
        assert!(error.contains(&format!("cannot put `s3://{probe}`: {expected}")), "{error}");
        assert!(server.names().iter().all(|name| name == probe), "{:?}", server.names());
        assert!(!machine.path("scratch/flow/raw").exists());
    }
}

#[test]
fn what_needs_a_folder_says_so() {
    let (server, machine) = (Server::start(), machine());
    let place = |command: &str, work: &str, arguments: &[&str]| {
        let mut process = genomill();
        process.current_dir(machine.path("")).args([
            command,
            "flow.yaml",
            "--work",
            work,
            "--cache",
            "cache",
        ]);
        let output = process.args(arguments).output().unwrap();
        (output.status.code().unwrap(), stderr(&output))
    };
    for command in ["submit", "resubmit", "watch", "cancel", "logs", "gc", "train"] {
        let (code, error) = place(command, "s3://bucket/shared", &[]);
        let expected = "`s3://bucket/shared` is an address, and a folder is needed here";
        assert!(code == 2 && error.contains(expected), "{command}: {code} {error}");
    }
    for (work, arguments, expected) in [
        ("s3://bucket/shared", &["--format", "snakemake"][..], "is an address, and a folder is needed here"),
        ("https://host/shared", &[], "a work folder can be in a bucket, expected `s3://bucket/prefix`"),
        ("gs://bucket/shared", &[], "`gs://` is not read"),
        ("work", &["--scratch", "scratch"], "`--scratch` goes with an address"),
    ] {
        let (code, error) = place("plan", work, arguments);
        assert!(code == 1 && error.contains(expected), "{work}: {code} {error}");
    }
    machine.write(&yaml().replace("lambda.fa.gz", "'-'"));
    let error = refused(&server, &machine, "run", &[]);
    let expected = "stage `raw` cannot share a work folder with other machines: it reads standard input";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn without_a_scratch_folder_copies_lie_in_the_cache() {
    let (server, machine) = (Server::start(), machine());
    let mut command = genomill();
    command.current_dir(machine.path("")).env("AWS_ENDPOINT_URL", server.url("").trim_end_matches('/'));
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret");
    command.args(["run", "flow.yaml", "--work", "s3://bucket/shared/", "--cache", "cache", "--until", "raw"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let folders: Vec<PathBuf> =
        std::fs::read_dir(machine.path("cache/work")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1);
    assert!(folders[0].join("flow/raw/manifest.json").exists());
    assert!(server.names().contains(&seal(&server, "raw")));
}
