//! The report opens in a browser: every section there, nothing loaded from elsewhere, no error on the console.

use std::path::Path;
use std::process::Command;

use crate::support::{LAMBDA, Scratch, genomill, stderr};

fn page() -> (Scratch, std::path::PathBuf) {
    let yaml = format!(
        "{LAMBDA}  scores:  {{uses: evaluate, from: shards, markov_order: 3}}\n  report:  {{uses: report, from: [scores]}}\n"
    );
    let scratch = Scratch::lambda();
    scratch.write(&yaml);
    scratch.ran(&[]);
    let page = scratch.artifact("report/report.html");
    (scratch, page)
}

#[test]
fn the_report_stands_alone_and_names_every_stage() {
    let (_scratch, page) = page();
    let html = std::fs::read_to_string(page).unwrap();
    for stage in ["raw", "clean", "split", "windows", "bpe", "tokens", "shards", "scores"] {
        assert!(html.contains(stage), "{stage}");
    }
    assert!(html.contains("<svg"));
    loads_nothing(&html);
}

fn loads_nothing(html: &str) {
    for load in ["src=\"http", "href=\"http", "url(http", "rel=\"stylesheet", "@import", "<script src"] {
        assert!(!html.contains(load), "the page loads something: {load}");
    }
}

#[test]
fn two_runs_are_put_side_by_side_on_a_page_that_stands_alone() {
    let scratch = Scratch::lambda();
    scratch.ran(&[]);
    scratch.write(&LAMBDA.replace("name: flow", "name: wide"));
    scratch.ran(&["--set", "shards.context=32"]);
    let page = scratch.path("compare.html");
    let mut command = genomill();
    command.current_dir(scratch.path("")).args([
        "compare",
        "work/flow",
        "work/wide",
        "--html",
        "compare.html",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", stderr(&output));
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("<td class=\"key\">shards</td><td class=\"path\">context</td><td class=\"n\">64</td>"),
        "{html}"
    );
    loads_nothing(&html);
    opens_in_chromium(&page);
}

#[test]
fn the_report_opens_in_chromium() {
    let (_scratch, page) = page();
    opens_in_chromium(&page);
}

/// Nothing on the console, and all of the page there; skipped without chromium.
fn opens_in_chromium(page: &Path) {
    let profile = tempfile::tempdir().unwrap();
    let shown = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--enable-logging=stderr",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output();
    let Ok(shown) = shown else {
        eprintln!("skipped: chromium is not installed");
        return;
    };
    let dom = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(dom.contains("</section>") && dom.contains("</html>"), "{}", stderr(&shown));
    assert!(!stderr(&shown).contains("CONSOLE"), "{}", stderr(&shown));
}
