//! Downloads from a server on this machine, in good and bad weather.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::server::{Mishap, Request, Server};
use super::*;
use crate::artifact::FileEntry;
use crate::observer::Silent;

static STOP: Stop = Stop::new();
const WATCH: Watch = Watch { stage: "test", observer: &Silent, stop: &STOP };

/// More than fits into the buffers on the way.
fn body() -> Vec<u8> {
    (0..3_000_000_u32).map(|i| (i.wrapping_mul(i) >> 7).to_le_bytes()[0]).collect()
}

fn is_part(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|ending| ending == "part")
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    part::hex(digest.as_ref())
}

/// Three quick attempts.
fn settings(cache: &Path) -> Settings {
    let mut settings = Settings::new(cache.to_owned());
    (settings.attempts, settings.backoff) = (3, Duration::from_millis(1));
    settings.stall = Duration::from_millis(500);
    settings
}

fn remote(cache: &Path) -> Remote {
    Remote::new(settings(cache))
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// Every file of a folder and its folders.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn an_object_lands_under_its_hash_and_is_not_fetched_again() {
    let (work, server, body) = (tempfile::tempdir().unwrap(), Server::start(), body());
    server.put("dir/a%20b.fa", &body);
    let (remote, hash) = (remote(work.path()), sha256(&body));
    let address = address(&server.url("dir/a%20b.fa"));
    let unpinned = remote.unpinned(&address, WATCH).unwrap();
    assert_eq!((unpinned.bytes, unpinned.sha256.as_str()), (3_000_000, hash.as_str()));
    assert_eq!(unpinned.path, work.path().join("sha256").join(&hash).join("a_20b.fa"));
    assert_eq!(unpinned.blake3, blake3::hash(&body).to_hex().to_string());
    assert!(std::fs::read(&unpinned.path).unwrap() == body);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(remote.pinned(&address, &hash, &Hashes::default(), WATCH).unwrap(), unpinned);
    assert_eq!(server.requests().len(), 0);
    assert_eq!(files(work.path()).len(), 2, "{:?}", files(work.path()));
}

#[test]
fn a_damaged_cache_is_mended() {
    let (work, server, body) = (tempfile::tempdir().unwrap(), Server::start(), body());
    server.put("a", &body);
    let (remote, hash, address) = (remote(work.path()), sha256(&body), address(&server.url("a")));
    let path = remote.pinned(&address, &hash, &Hashes::default(), WATCH).unwrap().path;
    let mut other = body.clone();
    other[7] ^= 1;
    std::fs::write(&path, &other).unwrap();
    remote.pinned(&address, &hash, &Hashes::default(), WATCH).unwrap();
    assert!(std::fs::read(&path).unwrap() == body);
}

/// Mishaps, how many requests they cost, and the first bytes that these ask for.
/// A name, what goes wrong, and from which byte each request asks.
type Case<'a> = (&'a str, &'a [Mishap], &'a [Option<usize>]);

#[test]
fn mishaps_that_pass_are_overcome() {
    use Mishap::{Cut, Elsewhere, Silent, Status, Whole};
    let long = Duration::from_secs(5);
    let server = Server::start();
    server.put("other", &body());
    let cases: [Case<'_>; 8] = [
        ("none", &[], &[None]),
        ("500 and 503", &[Status(500, "busy"), Status(503, "")], &[None, None, None]),
        ("429", &[Status(429, "slow down")], &[None, None]),
        ("cut short", &[Cut(1_000_000)], &[None, Some(1_000_000)]),
        (
            "cut four times",
            &[Cut(10), Cut(10), Cut(10), Cut(10)],
            &[None, Some(10), Some(20), Some(30), Some(40)],
        ),
        ("silence", &[Silent(1_000, long)], &[None, Some(1_000)]),
        ("no ranges", &[Cut(1_000_000), Whole], &[None, Some(1_000_000), None]),
        ("a redirect", &[Elsewhere(server.url("other"))], &[None, None]),
    ];
    for (name, mishaps, expected) in cases {
        let work = tempfile::tempdir().unwrap();
        server.put("a", &body());
        server.upset("a", mishaps);
        let fetched = remote(work.path())
            .pinned(&address(&server.url("a")), &sha256(&body()), &Hashes::default(), WATCH)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(std::fs::read(fetched.path).unwrap() == body(), "{name}");
        let asked: Vec<Option<usize>> = server.requests().iter().map(|request| request.from).collect();
        assert_eq!(asked, expected, "{name}");
    }
}

#[test]
fn mishaps_that_stay_are_errors_that_say_what_and_where() {
    use Mishap::{Cut, Silent, Status, Whole};
    let long = Duration::from_secs(5);
    let server = Server::start();
    let cases: [(&str, Vec<Mishap>, &str, usize); 8] = [
        ("404", vec![Status(404, "no such file")], "HTTP 404 Not Found, expected the file (no such file)", 1),
        ("403", vec![Status(403, "")], "HTTP 403 Forbidden, expected the file", 1),
        ("401", vec![Status(401, "<html></html>")], "HTTP 401 Unauthorized, expected the file", 1),
        (
            "500",
            vec![Status(500, ""); 3],
            "HTTP 500 Internal Server Error, expected the file; tried 3 times",
            3,
        ),
        ("cut", vec![Cut(0); 3], "; tried 3 times", 3),
        ("silent", vec![Silent(0, long); 3], "the server said nothing for 0.5 s; tried 3 times", 3),
        ("cut without ranges", vec![Cut(9), Whole, Cut(9), Whole, Cut(9)], "; tried 3 times", 5),
        ("another status", vec![Status(418, "")], "HTTP 418 I'm a teapot, expected the file", 1),
    ];
    for (name, mishaps, expected, requests) in cases {
        let work = tempfile::tempdir().unwrap();
        server.put("a", &body());
        server.upset("a", &mishaps);
        let remote = remote(work.path());
        let error = remote.unpinned(&address(&server.url("a")), WATCH).unwrap_err().to_string();
        let start = format!("cannot fetch `{}`: ", server.url("a"));
        assert!(error.starts_with(&start) && error.ends_with(expected), "{name}: {error}");
        assert_eq!(server.requests().len(), requests, "{name}");
        let left = files(work.path());
        assert!(left.iter().all(|file| is_part(file)), "{name}: {left:?}");
    }
}

#[test]
fn no_server_is_an_error() {
    let work = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = remote(work.path()).unpinned(&address(&format!("http://{free}/a")), WATCH).unwrap_err();
    let expected =
        format!("cannot fetch `http://{free}/a`: cannot connect: connection refused; tried 3 times");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn plain_http_does_not_leave_the_machine_unasked() {
    let work = tempfile::tempdir().unwrap();
    let error = remote(work.path()).unpinned(&address("http://example.invalid/a"), WATCH).unwrap_err();
    let expected = "it would leave this machine unencrypted; expected `https://`";
    assert!(error.to_string().contains(expected), "{error}");
    let mut settings = settings(work.path());
    settings.aws = vec![("AWS_ENDPOINT_URL".to_owned(), "http://example.invalid".to_owned())];
    let error = Remote::new(settings).unpinned(&address("s3://bucket/a"), WATCH).unwrap_err();
    assert!(error.to_string().contains("AWS_ALLOW_HTTP=true allows it"), "{error}");
}

#[test]
fn another_content_is_refused_and_leaves_nothing() {
    let (work, server) = (tempfile::tempdir().unwrap(), Server::start());
    server.put("a", b"ACGT");
    let (remote, address) = (remote(work.path()), address(&server.url("a")));
    let pin = sha256(b"ACGA");
    let error = remote.pinned(&address, &pin, &Hashes::default(), WATCH).unwrap_err().to_string();
    let expected =
        format!("`{address}` is not what was expected: its sha256 is {}, expected {pin}", sha256(b"ACGT"));
    assert_eq!(error, expected);
    let blake3 = blake3::hash(b"ACGT").to_hex();
    for (bytes, hash, expected) in [
        (5, "", "its size in bytes is 4, expected 5".to_owned()),
        (4, "00", format!("its blake3 is {blake3}, expected 00")),
    ] {
        let to = Some(work.path().join("a"));
        let wanted =
            Wanted { address: address.clone(), to, expected: Expected::Blake3(bytes, hash.to_owned()) };
        let error = remote.fetch(&[wanted], WATCH).unwrap_err().to_string();
        assert_eq!(error, format!("`{address}` is not what was expected: {expected}"));
    }
    let left = files(work.path());
    assert!(left.iter().all(|file| is_part(file)), "{left:?}");
}

#[test]
fn an_interrupted_download_goes_on_even_in_another_process() {
    let (work, server, body) = (tempfile::tempdir().unwrap(), Server::start(), body());
    server.put("a", &body);
    let (remote, address, hash) = (remote(work.path()), address(&server.url("a")), sha256(&body));
    server.upset("a", &[Mishap::Cut(1000), Mishap::Status(404, "")]);
    remote.pinned(&address, &hash, &Hashes::default(), WATCH).unwrap_err();
    server.requests();
    remote.pinned(&address, &hash, &Hashes::default(), WATCH).unwrap();
    assert_eq!(server.requests()[0].from, Some(1000));
}

#[test]
fn a_part_of_something_else_is_started_anew() {
    let (work, server, old) = (tempfile::tempdir().unwrap(), Server::start(), body());
    let mut new = old.clone();
    new[3] ^= 1;
    server.put("a", &old);
    let (remote, address) = (remote(work.path()), address(&server.url("a")));
    let wanted = Wanted {
        address,
        to: Some(work.path().join("a")),
        expected: Expected::Blake3(new.len() as u64, blake3::hash(&new).to_hex().to_string()),
    };
    server.upset("a", &[Mishap::Cut(1000), Mishap::Status(404, "")]);
    remote.fetch(std::slice::from_ref(&wanted), WATCH).unwrap_err();
    server.put("a", &new);
    server.requests();
    remote.fetch(&[wanted], WATCH).unwrap();
    let asked: Vec<Option<usize>> = server.requests().iter().map(|request| request.from).collect();
    assert_eq!(asked, [Some(1000), None]);
    assert!(std::fs::read(work.path().join("a")).unwrap() == new);
}

#[test]
fn a_whole_part_needs_no_request() {
    let (work, server) = (tempfile::tempdir().unwrap(), Server::start());
    std::fs::write(work.path().join("a.part"), b"ACGT").unwrap();
    let wanted = Wanted {
        address: address(&server.url("a")),
        to: Some(work.path().join("a")),
        expected: Expected::Blake3(4, blake3::hash(b"ACGT").to_hex().to_string()),
    };
    remote(work.path()).fetch(&[wanted], WATCH).unwrap();
    assert_eq!(files(work.path()), ["a"]);
    assert!(server.requests().is_empty());
}

#[test]
fn many_objects_come_side_by_side_and_two_runs_share_the_work() {
    let (work, server, body) = (tempfile::tempdir().unwrap(), Server::start(), body());
    let wanted: Vec<Wanted> = (0..20)
        .map(|number| {
            server.put(&format!("{number}"), &body[number..]);
            let expected = Expected::Blake3(
                (body.len() - number) as u64,
                blake3::hash(&body[number..]).to_hex().to_string(),
            );
            let to = Some(work.path().join(format!("{number}")));
            Wanted { address: address(&server.url(&format!("{number}"))), to, expected }
        })
        .collect();
    let remote = remote(work.path());
    std::thread::scope(|scope| {
        let runs = [0, 1].map(|_| scope.spawn(|| remote.fetch(&wanted, WATCH)));
        for run in runs {
            run.join().unwrap().unwrap();
        }
    });
    assert_eq!(files(work.path()).len(), 20, "{:?}", files(work.path()));
    assert_eq!(server.requests().len(), 20);
}

/// Remembers progress.
#[derive(Default)]
struct Heard(Mutex<Vec<(u64, Option<u64>)>>);

impl Observer for Heard {
    fn event(&self, event: &Event) {
        if let Event::Progress { done, total, .. } = event {
            self.0.lock().unwrap().push((*done, *total));
        }
    }
}

#[test]
fn progress_is_told_in_bytes() {
    let (work, server, body) = (tempfile::tempdir().unwrap(), Server::start(), body());
    server.put("a", &body);
    server.upset("a", &[Mishap::Cut(1_500_000), Mishap::Whole]);
    let (heard, stop) = (Heard::default(), Stop::new());
    let watch = Watch { stage: "test", observer: &heard, stop: &stop };
    remote(work.path()).unpinned(&address(&server.url("a")), watch).unwrap();
    let heard = heard.0.into_inner().unwrap();
    assert_eq!(heard.last(), Some(&(3_000_000, Some(3_000_000))), "{heard:?}");
    assert!(heard.iter().all(|(done, total)| *done <= 3_000_000 && *total == Some(3_000_000)), "{heard:?}");
}

#[test]
fn a_request_to_stop_is_heard_while_the_server_is_silent() {
    let (work, server, stop) = (tempfile::tempdir().unwrap(), Server::start(), Stop::new());
    server.put("a", &body());
    server.upset("a", &[Mishap::Silent(1000, Duration::from_mins(1))]);
    let mut settings = settings(work.path());
    settings.stall = Duration::from_mins(1);
    let remote = Remote::new(settings);
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            stop.request();
        });
        let watch = Watch { stage: "test", observer: &Silent, stop: &stop };
        let error = remote.unpinned(&address(&server.url("a")), watch).unwrap_err();
        assert!(matches!(error, Error::Stopped { .. }), "{error}");
    });
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(files(work.path()).len(), 1, "the part stays");
}

#[test]
fn buckets_are_read_with_and_without_credentials() {
    let (work, server) = (tempfile::tempdir().unwrap(), Server::start());
    server.put("bucket/dir/a%20b", b"ACGT");
    let set = |pairs: &[(&str, &str)]| {
        let mut settings = settings(work.path());
        settings.aws = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        settings.aws.push(("AWS_ENDPOINT_URL".to_owned(), server.url("").trim_end_matches('/').to_owned()));
        Remote::new(settings)
    };
    let object = address("s3://bucket/dir/a b");
    for (pairs, signed) in [
        (vec![("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")], true),
        (vec![("AWS_SKIP_SIGNATURE", "true")], false),
    ] {
        let fetched = set(&pairs).unpinned(&object, WATCH).unwrap();
        assert_eq!(fetched.sha256, sha256(b"ACGT"));
        let requests = server.requests();
        assert_eq!((requests.len(), requests[0].signed), (1, signed), "{requests:?}");
    }
    let error = set(&[("AWS_SKIP_SIGNATURE", "true")]).unpinned(&address("s3://bucket/b"), WATCH);
    let expected =
        "cannot fetch `s3://bucket/b`: HTTP 404 Not Found, expected the file (NoSuchKey: No such key)";
    assert_eq!(error.unwrap_err().to_string(), expected);
    server.upset("bucket/b", &[Mishap::Status(403, "<Error><Code>AccessDenied</Code></Error>")]);
    let error = set(&[("AWS_SKIP_SIGNATURE", "true")]).unpinned(&address("s3://bucket/b"), WATCH);
    assert!(error.unwrap_err().to_string().ends_with("HTTP 403 Forbidden, expected the file (AccessDenied)"));
}

/// A depot in a bucket, with the quick settings.
fn depot(server: &Server, cache: &Path) -> Depot {
    let mut settings = settings(cache);
    let endpoint = server.url("").trim_end_matches('/').to_owned();
    let pairs = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
    ];
    settings.aws = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Depot::new(&Remote::new(settings), address("s3://bucket/set")).unwrap()
}

fn entry(folder: &Path, path: &str, bytes: &[u8]) -> FileEntry {
    let file = folder.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, bytes).unwrap();
    let blake3 = blake3::hash(bytes).to_hex().to_string();
    FileEntry { path: path.to_owned(), bytes: bytes.len() as u64, blake3, volatile: false }
}

/// Methods and paths, without the bucket and with the question mark.
fn asked(server: &Server) -> Vec<String> {
    let line = |request: Request| {
        let query = request.query.split('=').next().map(str::to_owned).unwrap_or_default();
        format!("{} {}{}{query}", request.method, &request.path[1..], if query.is_empty() { "" } else { "?" })
    };
    server.requests().into_iter().map(line).collect()
}

#[test]
fn what_a_depot_keeps_stays_as_it_was_put_first() {
    let (work, server, body) = (tempfile::tempdir().unwrap(), Server::start(), body());
    let (depot, from, to) = (depot(&server, work.path()), work.path().join("from"), work.path().join("to"));
    let files =
        [entry(&from, "large", &body), entry(&from, "a@b=1/small", b"ACGT"), entry(&from, "none", b"")];
    let name = "stage@k=1/key";
    assert_eq!(depot.sealed(name, WATCH).unwrap(), None);
    assert_eq!(depot.store(name, (&from, &files), b"seal", WATCH).unwrap(), Stored::Now);
    let Stored::There(there) = depot.store(name, (&from, &files), b"other", WATCH).unwrap() else { panic!() };
    assert_eq!(
        (there.bytes.as_slice(), depot.sealed(name, WATCH).unwrap()),
        (&b"seal"[..], Some(there.clone()))
    );
    let hash = &blake3::hash(b"seal").to_hex()[..32];
    let expected = ["a@b=1/small", "large", "none"].map(|file| format!("bucket/set/{name}/{hash}/{file}"));
    assert_eq!(server.names(), [&[format!("bucket/set/{name}.json")][..], &expected].concat());
    assert_eq!(depot.names("stage@k=1", WATCH).unwrap(), ["key"]);
    assert_eq!(depot.names("other", WATCH).unwrap(), [""; 0]);

    let all = || files.iter().map(|file| (name, &b"seal"[..], file, to.as_path()));
    depot.bring(all(), WATCH).unwrap();
    assert!(std::fs::read(to.join("large")).unwrap() == body);
    assert_eq!(std::fs::read(to.join("a@b=1/small")).unwrap(), b"ACGT");
    std::fs::remove_dir_all(&to).unwrap();
    assert_eq!(server.change("/large", |body| body[7] ^= 1), 1);
    let error = depot.bring(all(), WATCH).unwrap_err().to_string();
    let large = format!("`s3://bucket/set/{name}/{hash}/large` is not what was expected: its blake3 is");
    assert!(error.starts_with(&large), "{error}");
}

#[test]
fn an_upload_that_broke_off_leaves_nothing_that_counts_and_goes_on() {
    let (work, server, body) = (tempfile::tempdir().unwrap(), Server::start(), body());
    let (depot, from) = (depot(&server, work.path()), work.path().join("from"));
    let files = [entry(&from, "a", b"ACGT"), entry(&from, "b", &body)];
    let hash = &blake3::hash(b"seal").to_hex()[..32];
    let place = format!("bucket/set/key/{hash}");
    // The second piece fails twice, the third for good.
    let (busy, denied) =
        (Mishap::Status(503, ""), Mishap::Status(403, "<Error><Code>AccessDenied</Code></Error>"));
    server.upset(
        &format!("{place}/b"),
        &[busy.clone(), busy.clone(), Mishap::Pass, busy, Mishap::Pass, denied],
    );
    let error = depot.store("key", (&from, &files), b"seal", WATCH).unwrap_err().to_string();
    let expected =
        format!("cannot put `s3://{place}/b`: HTTP 403 Forbidden, expected to put it (AccessDenied)");
    assert_eq!(error, expected);
    assert_eq!((depot.sealed("key", WATCH).unwrap(), depot.names("", WATCH).unwrap()), (None, vec![]));
    assert!(asked(&server).contains(&format!("DELETE {place}/b?uploadId")));
    assert_eq!(depot.store("key", (&from, &files), b"seal", WATCH).unwrap(), Stored::Now);
    let asked = asked(&server);
    assert!(!asked.iter().any(|line| line.starts_with(&format!("PUT {place}/a"))), "it was there: {asked:?}");
    assert_eq!(asked.last().unwrap(), "PUT bucket/set/key.json", "{asked:?}");
    assert!(server.object(&format!("{place}/b")).unwrap() == body);
    // A file that is shorter than it is said to be is not put.
    std::fs::write(from.join("a"), b"AC").unwrap();
    let error = depot.store("other", (&from, &files), b"seal", WATCH).unwrap_err().to_string();
    assert!(error.contains("cannot read `") && depot.sealed("other", WATCH).unwrap().is_none(), "{error}");
}

#[test]
fn stores_are_tried_before_they_are_trusted() {
    let code = |code: &'static str| Mishap::Status(404, code);
    let expected = "expected a store that takes conditional puts (`If-None-Match: *`)";
    for (mishaps, ignores, found) in [
        (vec![], false, String::new()),
        (vec![Mishap::Status(409, "busy")], false, String::new()),
        (
            vec![],
            true,
            format!(
                "it put a second time what was there, so it does not know `If-None-Match: *`; {expected}"
            ),
        ),
        (vec![Mishap::Status(501, "")], false, format!("HTTP 501 Not Implemented, {expected}")),
        (
            vec![code("<Error><Code>NoSuchBucket</Code></Error>")],
            false,
            format!("HTTP 404 Not Found, {expected} (NoSuchBucket)"),
        ),
        (vec![Mishap::Status(403, "")], false, format!("HTTP 403 Forbidden, {expected}")),
    ] {
        let (work, server) = (tempfile::tempdir().unwrap(), Server::start());
        if ignores {
            server.ignore_conditions();
        }
        server.upset("bucket/set/genomill.json", &mishaps);
        let probe = depot(&server, work.path()).probe(WATCH).map_err(|error| error.to_string());
        let found = if found.is_empty() {
            Ok(())
        } else {
            Err(format!("cannot put `s3://bucket/set/genomill.json`: {found}"))
        };
        assert_eq!(probe, found);
    }
    // Once it is known to be there, one request tells; and a missing bucket is not an object that is missing.
    let (work, server) = (tempfile::tempdir().unwrap(), Server::start());
    let depot = depot(&server, work.path());
    for requests in [2, 1] {
        depot.probe(WATCH).unwrap();
        assert_eq!(asked(&server).len(), requests);
    }
    server.upset("bucket/set/key.json", &[code("<Error><Code>NoSuchBucket</Code></Error>")]);
    let error = depot.sealed("key", WATCH).unwrap_err().to_string();
    assert!(error.contains("expected the object, or 404") && error.ends_with("(NoSuchBucket)"), "{error}");
    for refused in ["https://host/a", "s3://bucket/a#sha256=00"] {
        let address = Address::parse(&refused.replace("=00", &format!("={}", "0".repeat(64)))).unwrap();
        let error = Depot::new(&remote(work.path()), address).unwrap_err().to_string();
        assert!(error.ends_with("expected `s3://bucket/prefix`"), "{error}");
    }
}
