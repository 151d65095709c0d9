//! Sources and shards at addresses, through the command line; the server is on this machine.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::server::{Mishap, Server};
use crate::support::{Scratch, data, genomill, stderr};

/// Phage lambda from a server to a split, without and with the pin.
fn flow(server: &Server, pin: &str) -> String {
    format!(
        "
name: flow
stages:
  raw:     {{uses: ingest, sources: [{{fasta: '{}'{pin}}}]}}
  clean:   {{uses: clean, from: raw, min_length: 100}}
  split:   {{uses: split, from: clean, block: 4000, validation_fraction: 0.15, test_fraction: 0.15}}
",
        server.url("phage/lambda.fa.gz")
    )
}

/// Without what the environment says of caches, buckets and proxies.
fn at(mut command: Command, cache: &Path) -> Command {
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "GENOMILL_CACHE"] {
        command.env_remove(name);
    }
    command.arg("--cache").arg(cache);
    command
}

/// A run whose cache is `cache` in the scratch folder.
fn run(scratch: &Scratch, command: &str, arguments: &[&str]) -> Output {
    at(scratch.command(command, arguments), &scratch.path("cache")).output().unwrap()
}

/// A command that must succeed, and what it prints.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A server with phage lambda.
fn lambda() -> (Server, Vec<u8>) {
    let (server, bytes) = (Server::start(), std::fs::read(data("phage_lambda.fa.gz")).unwrap());
    server.put("phage/lambda.fa.gz", &bytes);
    (server, bytes)
}

/// The hash that an error says to write beside the source.
fn said(output: &Output) -> String {
    let text = stderr(output);
    let (_, rest) = text.split_once("write `").unwrap_or_else(|| panic!("{text}"));
    rest.split('`').next().unwrap().to_owned()
}

#[test]
fn a_source_without_a_pin_is_refused_with_the_pin_to_write() {
    let (server, bytes) = lambda();
    let scratch = Scratch::new(&flow(&server, ""));
    let plan = run(&scratch, "plan", &[]);
    assert!(String::from_utf8_lossy(&plan.stdout).contains("has no `sha256`"), "{}", stderr(&plan));
    assert!(server.requests().is_empty(), "a plan asks nobody");
    let output = run(&scratch, "run", &[]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "stage `raw` reads what may change: `{}` has {} bytes now",
        server.url("phage/lambda.fa.gz"),
        bytes.len()
    );
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    assert!(!scratch.artifact("raw").exists());

    // As it says; and what was fetched to say so is not fetched again.
    server.requests();
    scratch.write(&flow(&server, &format!(", {}", said(&output))));
    let output = run(&scratch, "run", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(server.requests().is_empty());
}

#[test]
fn a_pinned_source_gives_what_a_local_one_gives_and_is_asked_for_once() {
    let (server, _) = lambda();
    let scratch = Scratch::new(&flow(&server, ""));
    let pin = said(&run(&scratch, "run", &[]));
    let yaml = flow(&server, &format!(", {pin}"));
    std::fs::remove_dir_all(scratch.path("cache")).unwrap();
    scratch.write(&yaml);
    server.requests();
    let output = run(&scratch, "run", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(server.requests().len(), 1);

    let local = Scratch::new(&yaml.replace(&server.url("phage/"), "").replace(&format!(", {pin}"), ""));
    std::fs::copy(data("phage_lambda.fa.gz"), local.path("lambda.fa.gz")).unwrap();
    local.ran(&[]);
    assert_eq!(scratch.contents(), local.contents());
    let manifest = std::fs::read_to_string(scratch.artifact("raw/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let source = &manifest["sources"][0];
    assert_eq!(source["path"], server.url("phage/lambda.fa.gz"));
    assert_eq!(format!("sha256: {}", source["sha256"].as_str().unwrap()), pin);
    assert_eq!(source["bytes"], std::fs::metadata(data("phage_lambda.fa.gz")).unwrap().len());
    assert_eq!(source["blake3"].as_str().unwrap().len(), 64);

    // Neither the network nor the cache is needed to know that nothing changed.
    std::fs::remove_dir_all(scratch.path("cache")).unwrap();
    let output = run(&scratch, "run", &[]);
    assert!(stderr(&output).contains("0 ran, 3 reused"), "{}", stderr(&output));
    assert!(server.requests().is_empty());
}

#[test]
fn another_file_behind_the_address_is_refused() {
    let (server, _) = lambda();
    let scratch = Scratch::new(&flow(&server, ""));
    let pin = said(&run(&scratch, "run", &[]));
    std::fs::remove_dir_all(scratch.path("cache")).unwrap();
    server.put("phage/lambda.fa.gz", b">a\nACGT\n");
    scratch.write(&flow(&server, &format!(", {pin}")));
    let output = run(&scratch, "run", &[]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("`{}` is not what was expected: its sha256 is ", server.url("phage/lambda.fa.gz"));
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
    assert!(
        stderr(&output).contains(&format!("expected {}", &pin["sha256: ".len()..])),
        "{}",
        stderr(&output)
    );
    assert!(!scratch.artifact("raw").exists());
}

#[test]
fn addresses_and_pins_that_cannot_be_are_problems_of_the_workflow() {
    let server = Server::start();
    let digits = "0".repeat(64);
    for (source, expected) in [
        ("fasta: gs://bucket/a.fa".to_owned(), "`gs://` is not read"),
        ("fasta: 'https://me:secret@host/a.fa'".to_owned(), "it has a user name or a password"),
        (format!("fasta: a.fa, sha256: '{digits}'"), "`sha256`, which goes with an address"),
        (format!("fasta: '{}', sha256: abc", server.url("a.fa")), "the sha256 `abc` has 3 characters"),
        (
            format!("fasta: '{}#sha256={}', sha256: '{digits}'", server.url("a.fa"), "1".repeat(64)),
            "a `sha256` that is not the one at the end of its address",
        ),
    ] {
        let scratch =
            Scratch::new(&format!("name: flow\nstages:\n  raw: {{uses: ingest, sources: [{{{source}}}]}}\n"));
        let output = run(&scratch, "plan", &[]);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output).replace("│ ", "").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(expected), "{source}: {text}");
    }
}

#[test]
fn a_killed_download_goes_on_and_an_interrupt_says_so() {
    let (server, bytes) = lambda();
    let scratch = Scratch::new(&flow(&server, &format!(", sha256: '{}'", "0".repeat(64))));
    let cut = bytes.len() / 2;
    for (signal, code, more) in [("-KILL", None, cut), ("-INT", Some(130), 10)] {
        server.upset("phage/lambda.fa.gz", &[Mishap::Silent(more, Duration::from_mins(1))]);
        let mut command = at(scratch.command("run", &[]), &scratch.path("cache"));
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        // Until the half that the server gives has come.
        let part = || std::fs::read_dir(scratch.path("cache/part")).ok()?.next()?.ok()?.metadata().ok();
        for _ in 0..1000 {
            if part().is_some_and(|part| part.len() >= cut as u64) && !server.requests().is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(100));
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), code, "{}", stderr(&output));
        if code.is_some() {
            assert!(stderr(&output).contains("the same command goes on from here"), "{}", stderr(&output));
        }
    }
    server.requests();
    let output = run(&scratch, "run", &[]);
    // The pin is wrong, so that the whole is asked for once more before it is refused.
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("its sha256 is"), "{}", stderr(&output));
    let asked: Vec<Option<usize>> = server.requests().iter().map(|request| request.from).collect();
    assert!(asked[0].is_some_and(|from| from >= cut) && asked[1..] == [None], "{asked:?}");
}

/// Shards of phage lambda, and a server that has them as `https` and as a bucket would.
fn shards() -> (Scratch, Server) {
    let (scratch, server) = (Scratch::lambda(), Server::start());
    scratch.ran(&[]);
    server.put_folder("bucket/sets/lambda", &scratch.artifact("shards"));
    (scratch, server)
}

/// `genomill shards ARGUMENTS` with the server as its bucket.
fn look(scratch: &Scratch, server: &Server, arguments: &[&str]) -> Command {
    let mut command = genomill();
    command.arg("shards").args(arguments);
    let mut command = at(command, &scratch.path("cache"));
    command.env("AWS_ENDPOINT_URL", server.url("").trim_end_matches('/'));
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret");
    command
}

/// The last parts of the paths asked for, sorted.
fn asked(server: &Server) -> Vec<String> {
    let requests = server.requests();
    let mut names: Vec<String> =
        requests.iter().map(|r| r.path.rsplit('/').next().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_command_gives_for_an_address_what_it_gives_for_a_folder() {
    let (scratch, server) = shards();
    let folder = scratch.artifact("shards").display().to_string();
    let commands: [&[&str]; 6] = [
        &["info"],
        &["head", "--split", "test"],
        &["stats", "--split", "validation", "--json"],
        &["find", "gi|9626243|ref|NC_001416.1|:1000-1100"],
        &["trace", "0", "--split", "test"],
        &["verify"],
    ];
    for address in ["s3://bucket/sets/lambda".to_owned(), server.url("bucket/sets/lambda/")] {
        for arguments in commands {
            let at = |place| printed(&mut look(&scratch, &server, &with_place(arguments, place)));
            let (here, there) = (at(&folder), at(&address));
            assert_eq!(here, there, "{arguments:?}");
        }
        let (out, other) = (scratch.path("out"), scratch.path("other"));
        let export = |place: &str, out: &Path| {
            let arguments = ["export", place, "--to", "npy", "--output", out.to_str().unwrap()];
            printed(&mut look(&scratch, &server, &arguments));
        };
        export(&folder, &out);
        export(&address, &other);
        assert!(
            std::fs::read(out.join("train.npy")).unwrap() == std::fs::read(other.join("train.npy")).unwrap()
        );
        std::fs::remove_dir_all(out).unwrap();
        std::fs::remove_dir_all(other).unwrap();
        std::fs::remove_dir_all(scratch.path("cache")).unwrap();
    }
}

/// Arguments with the place behind the first.
fn with_place<'a>(arguments: &[&'a str], place: &'a str) -> Vec<&'a str> {
    [&arguments[..1], &[place], &arguments[1..]].concat()
}

#[test]
fn only_what_is_needed_is_fetched_and_a_pin_needs_no_network() {
    let (scratch, server) = shards();
    let address = "s3://bucket/sets/lambda";
    let output = look(&scratch, &server, &["info", address]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(asked(&server), ["manifest.json"]);
    let text = stderr(&output);
    let pinned = text.lines().find_map(|line| line.split("again: ").nth(1)).unwrap().to_owned();
    assert!(pinned.starts_with(&format!("{address}#sha256=")), "{text}");

    printed(&mut look(&scratch, &server, &["head", &pinned, "--split", "test"]));
    assert_eq!(asked(&server), ["test-00000.parquet", "tokenizer.json"]);
    printed(&mut look(&scratch, &server, &["head", address, "--split", "test"]));
    assert_eq!(asked(&server), ["manifest.json"]);
    let folder = printed(&mut look(&scratch, &server, &["fetch", &pinned]));
    assert_eq!(asked(&server), ["train-00000.parquet", "validation-00000.parquet"]);
    printed(&mut look(&scratch, &server, &["verify", folder.trim()]));
    printed(&mut look(&scratch, &server, &["verify", &pinned]));
    assert_eq!(asked(&server), Vec::<String>::new());

    // The manifest has changed, and everything else has not.
    let manifest = std::fs::read(scratch.artifact("shards/manifest.json")).unwrap();
    server.put("bucket/sets/lambda/manifest.json", &[&manifest[..], b"\n"].concat());
    printed(&mut look(&scratch, &server, &["info", &pinned]));
    assert_eq!(asked(&server), Vec::<String>::new());
    printed(&mut look(&scratch, &server, &["info", address]));
    assert_eq!(asked(&server), ["manifest.json"]);
}

#[test]
fn bad_sets_are_refused_with_the_address_and_the_reason() {
    let (scratch, server) = shards();
    let manifest = std::fs::read_to_string(scratch.artifact("shards/manifest.json")).unwrap();
    let put = |name: &str, text: &str| server.put(&format!("bucket/{name}/manifest.json"), text.as_bytes());
    put("page", "<html></html>");
    put("other", "{\"schema\": \"genomill/artifact/9\"}");
    put("escape", &manifest.replace("tokenizer.json", "../../../../tokenizer.json"));
    put("empty", &manifest);
    server.put_folder("bucket/flipped", &scratch.artifact("shards"));
    let mut parquet = std::fs::read(scratch.artifact("shards/test-00000.parquet")).unwrap();
    parquet[100] ^= 1;
    server.put("bucket/flipped/test-00000.parquet", &parquet);
    for (arguments, expected) in [
        (["head", "s3://bucket/none"], "cannot fetch `s3://bucket/none/manifest.json`: HTTP 404 Not Found"),
        (["head", "s3://bucket/page"], "cannot use `s3://bucket/page/manifest.json`: cannot read"),
        (["head", "s3://bucket/other"], "its schema is `genomill/artifact/9`"),
        (
            ["verify", "s3://bucket/escape"],
            "it has a file `../../../../tokenizer.json`, expected a path within",
        ),
        (["verify", "s3://bucket/empty"], "HTTP 404 Not Found, expected the file (NoSuchKey: No such key)"),
        (
            ["verify", "s3://bucket/flipped"],
            "flipped/test-00000.parquet` is not what was expected: its blake3 is",
        ),
        (["head", "gs://bucket/a"], "`gs://` is not read"),
    ] {
        let output = look(&scratch, &server, &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
    let output = look(&scratch, &server, &["head", "s3://bucket/sets/lambda", "--split", "nonesuch"]);
    let output = { output }.output().unwrap();
    assert!(stderr(&output).contains("has no split `nonesuch`, it has `test`"), "{}", stderr(&output));
}

#[test]
fn a_workflow_takes_over_shards_and_scores_them() {
    let (packed, server) = shards();
    let evaluate = "  score:   {uses: evaluate, from: shards, markov_order: 3}\n";
    packed.write(&format!("{}{evaluate}", crate::support::LAMBDA));
    packed.ran(&[]);
    let flow = |pin: &str, splits: &str| {
        let address = server.url("bucket/sets/lambda");
        let fetch = format!("  shards:  {{uses: fetch, shards: '{address}'{pin}{splits}}}\n");
        format!("name: flow\nstages:\n{fetch}{evaluate}  page: {{uses: report, from: [score]}}\n")
    };
    let scratch = Scratch::new(&flow("", ""));
    let pin = format!(", {}", said(&run(&scratch, "run", &[])));
    scratch.write(&flow(&pin, ""));
    server.requests();
    let output = run(&scratch, "run", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        asked(&server),
        ["test-00000.parquet", "tokenizer.json", "train-00000.parquet", "validation-00000.parquet"]
    );
    let scores = |scratch: &Scratch| std::fs::read_to_string(scratch.artifact("score/scores.json")).unwrap();
    assert_eq!(scores(&scratch), scores(&packed));
    printed(&mut look(&scratch, &server, &["verify", scratch.artifact("shards").to_str().unwrap()]));
    let output = run(&scratch, "run", &[]);
    assert!(stderr(&output).contains("0 ran, 3 reused"), "{}", stderr(&output));

    scratch.write(&flow(&pin, ", splits: [train, test]"));
    std::fs::remove_dir_all(scratch.path("cache")).unwrap();
    server.requests();
    let output = run(&scratch, "run", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        asked(&server),
        ["manifest.json", "test-00000.parquet", "tokenizer.json", "train-00000.parquet"]
    );
    assert_eq!(scores(&scratch), scores(&packed));
    printed(&mut look(&scratch, &server, &["verify", scratch.artifact("shards").to_str().unwrap()]));
}
