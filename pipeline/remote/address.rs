//! Addresses: `https://host/path`, `http://host/path`, `s3://bucket/key`, each with an optional pin `#sha256=...`.

use std::fmt;
use std::path::Path;

use super::Error;

/// Hexadecimal digits of a sha256.
const SHA256_DIGITS: usize = 64;

/// How an object is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
    S3,
}

/// Where an object is, and optionally what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) scheme: Scheme,
    /// `host` or `host:port`, or the bucket.
    pub(super) place: String,
    /// After the slash: percent-encoded for a web server, the key as it is in a bucket.
    pub(super) path: String,
    /// After the question mark; web servers only.
    pub(super) query: Option<String>,
    /// The hash that its content must have.
    pub(super) sha256: Option<String>,
}

/// Whether a text has the form of an address rather than that of a path: it starts with letters and `://`.
pub fn is_address(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    let mut letters = scheme.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// When the scheme is another one, when the host is missing, when it has a user name or password (they would
    /// end up in manifests), when the part after `#` is no pin.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|reason| Error::Address { found: text.to_owned(), reason })
    }

    /// The address of a file beneath this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let folder = self.path.trim_end_matches('/');
        let encoded = if self.scheme == Scheme::S3 { name.to_owned() } else { encode(name) };
        let path = if folder.is_empty() { encoded } else { format!("{folder}/{encoded}") };
        Self { path, sha256: None, ..self.clone() }
    }

    /// The hash that its content must have, in hexadecimal.
    pub fn sha256(&self) -> Option<&str> {
        self.sha256.as_deref()
    }

    /// What the file is called, with nothing but letters, digits and `._-`; never empty, never hidden.
    pub fn file_name(&self) -> String {
        let name = self.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let name: String = name.trim_start_matches('.').chars().map(plain).take(100).collect();
        if name.is_empty() { "object".to_owned() } else { name }
    }

    /// Whether it is an object in a bucket.
    #[cfg(feature = "remote")]
    pub(super) fn is_in_bucket(&self) -> bool {
        self.scheme == Scheme::S3
    }

    /// What it has in common with all that one client reaches.
    #[cfg(feature = "remote")]
    pub(super) fn root(&self) -> String {
        Self { path: String::new(), ..self.clone() }.to_string()
    }
}

impl fmt::Display for Address {
    /// Without the pin.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
            Scheme::S3 => "s3",
        };
        write!(f, "{scheme}://{}/{}", self.place, self.path)?;
        self.query.iter().try_for_each(|query| write!(f, "?{query}"))
    }
}

fn parse(text: &str) -> Result<Address, String> {
    let forms = "expected `https://host/path`, `s3://bucket/key` or `http://host/path`";
    let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("it has no `://`; {forms}"))?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        "s3" => Scheme::S3,
        _ => return Err(format!("`{scheme}://` is not read; {forms}")),
    };
    if text.chars().any(char::is_control) || (scheme != Scheme::S3 && text.contains(char::is_whitespace)) {
        return Err("it has white space; write a blank as `%20`".to_owned());
    }
    let (rest, pin) = rest.rsplit_once('#').map_or((rest, None), |(rest, pin)| (rest, Some(pin)));
    let sha256 = pin.map(|pin| hash(pin.strip_prefix("sha256=").unwrap_or(pin))).transpose()?;
    let query = if scheme == Scheme::S3 { None } else { rest.split_once('?') };
    let (rest, query) = query.map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    if place.contains('@') {
        return Err("it has a user name or a password, which would end up in manifests".to_owned());
    }
    let path = path.trim_start_matches('/').to_owned();
    if place.is_empty() {
        return Err(format!("it names no host; {forms}"));
    }
    let query = query.map(str::to_owned);
    Ok(Address { scheme, place: place.to_owned(), path, query, sha256 })
}

/// A sha256 as people write it, in lower case; the error says what is wrong.
pub fn hash(text: &str) -> Result<String, String> {
    if text.len() == SHA256_DIGITS && text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!(
        "the sha256 `{text}` has {} characters, expected {SHA256_DIGITS} hexadecimal digits",
        text.len()
    ))
}

/// Percent-encodes all but letters, digits, `-._~` and `/`.
fn encode(name: &str) -> String {
    let byte = |&byte: &u8| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    name.as_bytes().iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn addresses_are_told_from_paths() {
        for (text, expected) in [
            ("https://host/a.fa", true),
            ("s3://bucket/a", true),
            ("gs://bucket/a", true),
            ("work/flow/shards", false),
            ("/data/a://b", false),
            ("://a", false),
            ("C:/a", false),
        ] {
            assert_eq!(is_address(Path::new(text)), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_read_and_written() {
        let pinned = format!("https://host:8443/a/b.fa.gz?key=1#sha256={}", PIN.to_uppercase());
        for (text, written, pin, name) in [
            ("https://host/a/b.fa.gz", "https://host/a/b.fa.gz", None, "b.fa.gz"),
            ("HTTPS://host/a", "https://host/a", None, "a"),
            ("s3://bucket/a b/c?d#sha256", "", None, ""),
            ("s3://bucket/a b/c?d", "s3://bucket/a b/c?d", None, "c_d"),
            ("s3://bucket//a/", "s3://bucket/a/", None, "a"),
            (&pinned, "https://host:8443/a/b.fa.gz?key=1", Some(PIN), "b.fa.gz"),
            ("https://host/a/..", "https://host/a/..", None, "object"),
        ] {
            match Address::parse(text) {
                Ok(address) => {
                    assert_eq!(address.to_string(), written, "{text}");
                    assert_eq!(address.sha256(), pin, "{text}");
                    assert_eq!(address.file_name(), name, "{text}");
                }
                Err(error) => assert_eq!(written, "", "{error}"),
            }
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, expected) in [
            ("gs://bucket/a", "`gs://` is not read; expected `https://host/path`"),
            ("a/b", "it has no `://`"),
            ("https:///a", "it names no host"),
            ("https://me:secret@host/a", "it has a user name or a password"),
            ("https://host/a#sha256=12", "the sha256 `12` has 2 characters, expected 64 hexadecimal digits"),
            ("https://host/a#part", "the sha256 `part` has"),
            ("https://host/a b", "write a blank as `%20`"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot fetch `{text}`: ")), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn files_lie_beneath_a_prefix() {
        for (prefix, name, expected) in [
            ("s3://bucket/set", "train 0.parquet", "s3://bucket/set/train 0.parquet"),
            ("https://host/set/", "train 0.parquet", "https://host/set/train%200.parquet"),
            ("https://host/set?key=1", "a/b", "https://host/set/a/b?key=1"),
            ("s3://bucket", "a", "s3://bucket/a"),
        ] {
            assert_eq!(Address::parse(prefix).unwrap().join(name).to_string(), expected);
        }
    }
}
