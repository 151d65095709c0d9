//! A web server on this machine that also passes for S3 (paths are `/bucket/key`), and that fails as it is told.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each of the two test binaries uses a part")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong with one answer.
#[derive(Debug, Clone)]
pub enum Mishap {
    /// This status and these words.
    Status(u16, &'static str),
    /// As many bytes of the body, then the end of the connection.
    Cut(usize),
    /// As many bytes of the body, then silence for so long.
    Silent(usize, Duration),
    /// The whole body, whatever part was asked for.
    Whole,
    /// To another address.
    Elsewhere(String),
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    mishaps: BTreeMap<String, VecDeque<Mishap>>,
    log: Vec<Request>,
}

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `HEAD`.
    pub method: String,
    /// With the slash, percent-encoded.
    pub path: String,
    /// The first byte asked for.
    pub from: Option<usize>,
    /// Whether it was signed.
    pub signed: bool,
}

/// Serves until the process ends.
#[derive(Clone)]
pub struct Server {
    place: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Starts a server without objects.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { place: listener.local_addr().unwrap().to_string(), state: Arc::default() };
        let state = Arc::clone(&server.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&state);
                std::thread::spawn(move || drop(serve(&stream, &state)));
            }
        });
        server
    }

    /// `http://host:port/path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.place)
    }

    /// Puts an object at a path without a slash before it.
    pub fn put(&self, path: &str, body: &[u8]) {
        self.state.lock().unwrap().objects.insert(format!("/{path}"), body.to_vec());
    }

    /// Puts every file of a folder beneath a path.
    pub fn put_folder(&self, path: &str, folder: &Path) {
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.file_name().unwrap().to_str().unwrap();
            self.put(&format!("{path}/{name}"), &std::fs::read(&file).unwrap());
        }
    }

    /// The next answers for a path go wrong.
    pub fn upset(&self, path: &str, mishaps: &[Mishap]) {
        let mut state = self.state.lock().unwrap();
        state.mishaps.entry(format!("/{path}")).or_default().extend(mishaps.iter().cloned());
    }

    /// What was asked since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let (mut from, mut signed) = (None, false);
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok();
        }
        signed |= line.starts_with("authorization: aws4-hmac-sha256");
    }
    let (object, mishap) = {
        let mut state = state.lock().unwrap();
        let mishap = state.mishaps.get_mut(&path).and_then(VecDeque::pop_front);
        let object = state.objects.get(&path).cloned();
        state.log.push(Request { method: method.clone(), path, from, signed });
        (object, mishap)
    };
    let mut out = stream;
    match (&mishap, object) {
        (Some(Mishap::Status(status, words)), _) => refuse(&mut out, *status, words),
        (Some(Mishap::Elsewhere(address)), _) => write!(
            out,
            "HTTP/1.1 302 Found\r\nLocation: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ),
        (_, None) => {
            refuse(&mut out, 404, "<Error><Code>NoSuchKey</Code><Message>No such key</Message></Error>")
        }
        (_, Some(body)) => {
            let from = if matches!(mishap, Some(Mishap::Whole)) { None } else { from };
            if from.is_some_and(|from| from >= body.len()) {
                return refuse(&mut out, 416, "");
            }
            head(&mut out, from, body.len())?;
            if method == "HEAD" {
                return Ok(());
            }
            let rest = &body[from.unwrap_or(0)..];
            match mishap {
                Some(Mishap::Cut(count)) => out.write_all(&rest[..count.min(rest.len())]),
                Some(Mishap::Silent(count, time)) => {
                    out.write_all(&rest[..count.min(rest.len())])?;
                    out.flush()?;
                    std::thread::sleep(time);
                    Ok(())
                }
                _ => out.write_all(rest),
            }
        }
    }
}

fn head(out: &mut impl Write, from: Option<usize>, size: usize) -> std::io::Result<()> {
    let start = from.unwrap_or(0);
    let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
    write!(out, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", size - start)?;
    if from.is_some() {
        write!(out, "Content-Range: bytes {start}-{}/{size}\r\n", size - 1)?;
    }
    write!(out, "Last-Modified: Tue, 24 Nov 2026 12:00:00 GMT\r\nETag: \"{size}\"\r\n\r\n")
}

fn refuse(out: &mut impl Write, status: u16, words: &str) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{words}", words.len())
}
