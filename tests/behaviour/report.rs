//! The report opens in a browser: every section there, nothing loaded from elsewhere, no error on the console.

use std::path::Path;
use std::process::{Command, Output};

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

/// Four small models of which two cannot be: rows of BPE tokens are not what a HyenaDNA takes.
#[cfg(feature = "train")]
fn study() -> Scratch {
    let yaml = LAMBDA
        .replace(
            "params: {vocabulary: 96}",
            "matrix: {vocabulary: [32, 64], size: [olmo-300k, hyenadna-tiny-1k]}",
        )
        .replace("params.vocabulary", "matrix.vocabulary");
    let scratch = Scratch::lambda();
    scratch.write(&format!(
        "{yaml}  model:   {{uses: train, from: shards, preset: \"${{matrix.size}}\", duration: 2e9 flops, batch_rows: 2}}\n  \
         scores:  {{uses: evaluate, from: shards, model: model, markov_order: 2}}\n  \
         report:  {{uses: report, from: [scores]}}\n"
    ));
    scratch
}

#[test]
#[cfg(feature = "train")]
fn the_cells_of_a_matrix_are_a_study_and_those_that_failed_are_said() {
    let scratch = study();
    let output = scratch.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    let shown = |arguments: &[&str]| {
        let mut command = genomill();
        command.current_dir(scratch.path("")).args(["compare"]).args(arguments);
        command.output().unwrap()
    };
    let output = shown(&["work/flow", "--html", "study.html"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let html = std::fs::read_to_string(scratch.path("study.html")).unwrap();
    for expected in [
        "<section id=\"study\">",
        "the best of 2 cells is size olmo-300k, vocabulary ",
        "Cells that are not there.",
        "<td>size hyenadna-tiny-1k, vocabulary 32</td><td class=\"wide\">`model@size=hyenadna-tiny-1k,vocabulary=32` failed: ",
        "Bits per base, test by vocabulary.",
    ] {
        assert!(html.contains(expected), "no {expected} in {html}");
    }
    loads_nothing(&html);
    opens_in_chromium(&scratch.path("study.html"));
    fits_a_telephone(&scratch.path("study.html"));
    let page = scratch.artifact("report/report.html");
    let html = std::fs::read_to_string(&page).unwrap();
    for expected in [
        "<section id=\"study\">",
        "Cells that are not there.",
        "Failed in this run: the page does without what they would have made.",
        "<td>model@size=hyenadna-tiny-1k,vocabulary=32</td>",
    ] {
        assert!(html.contains(expected), "no {expected} in {html}");
    }
    loads_nothing(&html);
    fits_a_telephone(&page);

    scratch.ran(&["--set", "matrix.size=[olmo-300k]"]);
    let page = scratch.artifact("report/report.html");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("<section id=\"study\">")
            && html.contains("Training, tokens per second by vocabulary.")
    );
    assert!(!html.contains("Cells that are not there.") && !html.contains("<section id=\"training\">"));
    loads_nothing(&html);
    opens_in_chromium(&page);
    fits_a_telephone(&page);
    let refused = stderr(&shown(&["work/flow"]));
    assert!(refused.contains("--html"), "one folder is not compared with anything: {refused}");
}

#[test]
fn a_run_without_a_matrix_is_no_study() {
    let scratch = Scratch::lambda();
    scratch.ran(&["--until", "raw"]);
    let mut command = genomill();
    command.current_dir(scratch.path("")).args(["compare", "work/flow", "--html", "study.html"]);
    let refused = stderr(&command.output().unwrap());
    assert!(refused.contains("no two cells of a matrix that are scored"), "{refused}");
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
    let report = |arguments: &[&str]| {
        let mut command = genomill();
        command.current_dir(scratch.path("")).arg("report").args(arguments).output().unwrap()
    };
    let same = report(&["--compare", "work/flow", "work/wide", "--html", "same.html"]);
    assert!(same.status.success(), "{}", stderr(&same));
    assert_eq!(std::fs::read_to_string(scratch.path("same.html")).unwrap(), html);
    let refused = report(&["work/flow"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("`work/flow` holds no report"), "{}", stderr(&refused));
    assert_eq!(report(&[]).status.code(), Some(2));
}

#[test]
fn the_report_opens_in_chromium() {
    let (_scratch, page) = page();
    opens_in_chromium(&page);
    fits_a_telephone(&page);
}

/// Nothing sticks out of a window that is 400 pixels wide, but what scrolls by itself; skipped without chromium.
fn fits_a_telephone(page: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    let told = "<script>addEventListener('load', () => parent.postMessage(document.documentElement.scrollWidth, '*'))</script></body>";
    std::fs::write(folder.path().join("page.html"), html.replace("</body>", told)).unwrap();
    let frame = "<!DOCTYPE html><title>none</title><script>onmessage = event => document.title = 'wide: ' + event.data</script>\
        <iframe width=\"400\" height=\"800\" style=\"border: 0\" src=\"page.html\"></iframe>";
    std::fs::write(folder.path().join("frame.html"), frame).unwrap();
    let Some(shown) = chromium(&folder.path().join("frame.html"), &["--virtual-time-budget=5000"]) else {
        return;
    };
    let dom = String::from_utf8_lossy(&shown.stdout).into_owned();
    let wide = dom.split_once("<title>wide: ").and_then(|(_, rest)| rest.split_once("</title>"));
    let wide: u32 = wide.and_then(|(wide, _)| wide.parse().ok()).unwrap_or_else(|| panic!("{dom}"));
    assert!(wide <= 400, "the page is {wide} pixels wide in a window of 400");
}

/// Nothing on the console, and all of the page there; skipped without chromium.
fn opens_in_chromium(page: &Path) {
    let Some(shown) = chromium(page, &[]) else { return };
    let dom = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(dom.contains("</section>") && dom.contains("</html>"), "{}", stderr(&shown));
    assert!(!stderr(&shown).contains("CONSOLE"), "{}", stderr(&shown));
}

/// What chromium makes of a page; nothing where it is not installed.
fn chromium(page: &Path, more: &[&str]) -> Option<Output> {
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
        .args(more)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output();
    if shown.is_err() {
        eprintln!("skipped: chromium is not installed");
    }
    shown.ok()
}
