//! The clients: one for each host and each bucket. Retrying, resuming and waiting are the work of `download`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::address::Scheme;
use super::{Address, Error, Settings};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(20);

/// Parts of a refusal's body that are read.
const BODY_PARTS: usize = 4;

/// Runs what asks stores on this thread, in a runtime that lives as long as the call; the address is for errors.
pub fn block_on<T>(address: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Failed {
        address: address.to_owned(),
        reason: format!("cannot start a runtime: {error}"),
    })?;
    let result = runtime.block_on(work);
    // Looking up a host that does not answer cannot be called off, but need not be waited for.
    runtime.shutdown_background();
    result
}

/// A client for what is at the host or in the bucket of an address.
pub fn open(settings: &Settings, address: &Address) -> Result<Arc<dyn ObjectStore>, Error> {
    if address.scheme == Scheme::S3 {
        return Ok(Arc::new(bucket(settings, address)?));
    }
    choose_crypto();
    web(settings, address).map_err(|reason| Error::Failed { address: address.to_string(), reason })
}

/// A client for the bucket of an address.
pub fn bucket(settings: &Settings, address: &Address) -> Result<AmazonS3, Error> {
    choose_crypto();
    build_bucket(settings, address).map_err(|reason| Error::Failed { address: address.to_string(), reason })
}

/// Someone else in the process may have chosen already; then theirs it is.
fn choose_crypto() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Where the client finds the object.
pub fn location(address: &Address) -> Result<Path, Error> {
    let bad = |reason: String| Error::Address { found: address.to_string(), reason };
    if address.path.is_empty() {
        return Err(bad("it names no file".to_owned()));
    }
    let path = if address.scheme == Scheme::S3 {
        Path::parse(&address.path)
    } else {
        Path::from_url_path(&address.path)
    };
    path.map_err(|error| bad(error.to_string()))
}

/// Whether `host` or `host:port` is this machine.
fn is_loopback(place: &str) -> bool {
    let (name, port) = place.rsplit_once(':').unwrap_or((place, ""));
    let host = if port.chars().all(|c| c.is_ascii_digit()) { name } else { place };
    host == "localhost"
        || host == "[::1]"
        || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn options() -> ClientOptions {
    ClientOptions::new().with_timeout_disabled().with_connect_timeout(CONNECT)
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn web(settings: &Settings, address: &Address) -> Result<Arc<dyn ObjectStore>, String> {
    let plain = address.scheme == Scheme::Http;
    let local = is_loopback(&address.place);
    if plain && !local && !settings.allow_http {
        return Err(
            "it would leave this machine unencrypted; expected `https://` (GENOMILL_ALLOW_HTTP=1 allows it)"
                .to_owned(),
        );
    }
    let scheme = if plain { "http" } else { "https" };
    let query = address.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
    let builder = HttpBuilder::new()
        .with_url(format!("{scheme}://{}/{query}", address.place))
        .with_client_options(options().with_allow_http(plain))
        .with_http_connector(Connector { direct: local })
        .with_retry(no_retries());
    builder.build().map(|store| Arc::new(store) as _).map_err(|error| error.to_string())
}

fn build_bucket(settings: &Settings, address: &Address) -> Result<AmazonS3, String> {
    let mut builder = AmazonS3Builder::new().with_client_options(options()).with_retry(no_retries());
    for (name, value) in &settings.aws {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let mut direct = false;
    if let Some(host) = plain_endpoint(settings) {
        if is_loopback(host) {
            direct = true;
            builder = builder.with_allow_http(true);
        } else if !is_set(settings, "AWS_ALLOW_HTTP") {
            return Err(format!(
                "its endpoint `http://{host}` is not encrypted; expected `https://` (AWS_ALLOW_HTTP=true allows it)"
            ));
        }
    }
    let store = builder.with_http_connector(Connector { direct }).with_bucket_name(&address.place).build();
    store.map_err(|error| error.to_string())
}

/// The host of the endpoint, if it is one without encryption.
fn plain_endpoint(settings: &Settings) -> Option<&str> {
    let named = |wanted: &str| settings.aws.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let endpoint = named("AWS_ENDPOINT_URL_S3").or_else(|| named("AWS_ENDPOINT_URL"));
    let rest = endpoint.or_else(|| named("AWS_ENDPOINT"))?.strip_prefix("http://")?;
    rest.split('/').next()
}

/// Whether a variable says yes.
pub fn is_set(settings: &Settings, name: &str) -> bool {
    let yes = |value: &str| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str());
    settings.aws.iter().any(|(other, value)| other == name && yes(value))
}

/// Makes clients whose errors tell the status.
#[derive(Debug)]
struct Connector {
    /// To servers on this machine, which no proxy knows.
    direct: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        if !self.direct {
            return Ok(HttpClient::new(Client(ReqwestConnector::default().connect(options)?)));
        }
        let client = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT).build();
        let generic = |error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) };
        client.map(|client| HttpClient::new(Client(HttpClient::new(client)))).map_err(generic)
    }
}

/// An answer that is a refusal.
#[derive(Debug, thiserror::Error)]
#[error("HTTP {status}")]
pub struct Refusal {
    /// Its number.
    pub status: u16,
    /// The server's words, the first of them.
    pub body: String,
}

/// A client for which a refusal is an error: a [`Refusal`] among the causes of what the store returns.
#[derive(Debug)]
struct Client(HttpClient);

#[async_trait::async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.0.execute(request).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let parts = answer.into_body().bytes_stream().take(BODY_PARTS).try_collect::<Vec<_>>().await;
        let body = String::from_utf8_lossy(&parts.unwrap_or_default().concat()).into_owned();
        Err(HttpError::new(HttpErrorKind::Unknown, Refusal { status: status.as_u16(), body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_several_names() {
        for (place, expected) in [
            ("127.0.0.1:80", true),
            ("127.0.0.1", true),
            ("localhost:80", true),
            ("[::1]:80", true),
            ("[::1]", true),
            ("localhost.example.org", false),
            ("10.0.0.1:80", false),
        ] {
            assert_eq!(is_loopback(place), expected, "{place}");
        }
    }
}
