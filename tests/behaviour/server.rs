//! A web server on this machine that also passes for S3 (paths are `/bucket/key`): objects are put, whole or in pieces, also
//! where there is none only, listed and read in parts; and it fails as it is told.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each of the two test binaries uses a part")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
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
    /// No answer for so long.
    Hang(Duration),
    /// Nothing, once.
    Pass,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// Uploads in pieces, by their numbers: the pieces by theirs.
    uploads: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
    /// Whether conditions of puts are not understood.
    unconditional: bool,
    mishaps: BTreeMap<String, VecDeque<Mishap>>,
    log: Vec<Request>,
}

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `HEAD`, `PUT`, `POST`, `DELETE`.
    pub method: String,
    /// With the slash, percent-encoded.
    pub path: String,
    /// After the question mark.
    pub query: String,
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

    /// The paths of all objects, without the slash before them, as they are in keys.
    pub fn names(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().map(|path| decoded(&path[1..])).collect()
    }

    /// An object.
    pub fn object(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state.lock().unwrap();
        let found = state.objects.iter().find(|(name, _)| decoded(&name[1..]) == path);
        found.map(|(_, body)| body.clone())
    }

    /// Does something to every object whose path ends so; tells to how many.
    pub fn change(&self, end: &str, change: impl Fn(&mut Vec<u8>)) -> usize {
        let mut state = self.state.lock().unwrap();
        let found = state.objects.iter_mut().filter(|(path, _)| decoded(path).ends_with(end));
        found.map(|(_, body)| change(body)).count()
    }

    /// Removes every object whose path ends so.
    pub fn remove(&self, end: &str) {
        self.state.lock().unwrap().objects.retain(|path, _| !decoded(path).ends_with(end));
    }

    /// From now on conditions of puts are not understood.
    pub fn ignore_conditions(&self) {
        self.state.lock().unwrap().unconditional = true;
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
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = reader.by_ref().lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let (mut from, mut signed, mut length, mut anew) = (None, false, 0, false);
    for line in lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length: ") {
            length = bytes.parse().unwrap();
        }
        anew |= line == "if-none-match: *";
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok();
        }
        signed |= line.starts_with("authorization: aws4-hmac-sha256");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut out = stream;
    let (object, mishap) = {
        let mut state = state.lock().unwrap();
        let mishap = state.mishaps.get_mut(&path).and_then(VecDeque::pop_front);
        let mishap = mishap.filter(|mishap| !matches!(mishap, Mishap::Pass));
        let object = state.objects.get(&path).cloned();
        state.log.push(Request {
            method: method.clone(),
            path: path.clone(),
            query: query.clone(),
            from,
            signed,
        });
        if mishap.is_none() && (method != "GET" || query.contains("list-type=2")) && method != "HEAD" {
            let (status, text) = state.keep((&method, &path, &query), body, anew);
            return refuse(&mut out, status, &text);
        }
        (object, mishap)
    };
    match (&mishap, object) {
        (Some(Mishap::Status(status, words)), _) => refuse(&mut out, *status, words),
        (Some(Mishap::Hang(time)), _) => {
            std::thread::sleep(*time);
            Ok(())
        }
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

impl State {
    /// Puts, takes away or lists; the status and what is said.
    fn keep(
        &mut self,
        (method, path, query): (&str, &str, &str),
        body: Vec<u8>,
        anew: bool,
    ) -> (u16, String) {
        let of = |name: &str| {
            let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
        };
        match (method, of("uploadId")) {
            ("GET", _) => return (200, self.list(path, &of("prefix").unwrap(), of("delimiter").is_some())),
            ("PUT", Some(id)) => {
                let at = of("partNumber").unwrap().parse().unwrap();
                self.uploads.get_mut(&id).unwrap().insert(at, body);
            }
            ("PUT", None) if anew && !self.unconditional && self.objects.contains_key(path) => {
                return (412, "<Error><Code>PreconditionFailed</Code></Error>".to_owned());
            }
            ("PUT", None) => drop(self.objects.insert(path.to_owned(), body)),
            ("POST", None) => {
                let id = format!("{path}-{}", self.uploads.len());
                self.uploads.insert(id.clone(), BTreeMap::new());
                let text = format!("<UploadId>{id}</UploadId>");
                return (
                    200,
                    format!("<InitiateMultipartUploadResult>{text}</InitiateMultipartUploadResult>"),
                );
            }
            ("POST", Some(id)) => {
                let pieces = self.uploads.remove(&id).unwrap().into_values().collect::<Vec<_>>();
                self.objects.insert(path.to_owned(), pieces.concat());
                let text = "<ETag>e</ETag>";
                return (
                    200,
                    format!("<CompleteMultipartUploadResult>{text}</CompleteMultipartUploadResult>"),
                );
            }
            ("DELETE", Some(id)) => drop(self.uploads.remove(&id)),
            _ => return (501, String::new()),
        }
        (200, String::new())
    }

    fn list(&self, bucket: &str, prefix: &str, flat: bool) -> String {
        let date = "<LastModified>2026-11-24T12:00:00.000Z</LastModified>";
        let contents = self.objects.iter().filter_map(|(path, body)| {
            let key = decoded(path.strip_prefix(&format!("{bucket}/"))?);
            let rest = key.strip_prefix(prefix)?;
            let size = format!("<Size>{}</Size><ETag>e</ETag>{date}", body.len());
            (!flat || !rest.contains('/')).then(|| format!("<Contents><Key>{key}</Key>{size}</Contents>"))
        });
        format!("<ListBucketResult>{}</ListBucketResult>", contents.collect::<String>())
    }
}

/// With `%40` as `@`.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let byte = u8::from_str_radix(&part[..2], 16).unwrap();
        text + &char::from(byte).to_string() + &part[2..]
    })
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
    write!(
        out,
        "HTTP/1.1 {status} x\r\nETag: \"e\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{words}",
        words.len()
    )
}
