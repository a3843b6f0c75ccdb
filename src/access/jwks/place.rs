//! Where a key set is, and how it is fetched: bounded in time and bytes, following nobody elsewhere.
//!
//! Over HTTP by `reqwest`, which `walcast tail` uses already: TLS by the system's own roots, and its proxy settings.
//! A redirect is an error: what may name our keys is the configured address and nothing that it points to.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{ACCEPT, CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Url};

/// From the first byte sent to the last one read.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a document. Real ones have a few KiB, with certificates some tens.
const MAX_DOCUMENT: usize = 256 << 10;

/// Bytes of an entity tag that is worth sending back.
const MAX_TAG: usize = 256;

#[derive(Debug)]
pub(super) enum Place {
    Url { client: Client, url: Box<Url> },
    File(PathBuf),
}

/// What came of a fetch.
#[derive(Debug)]
pub(super) enum Fetched {
    Document {
        json: Vec<u8>,
        tag: Option<HeaderValue>,
        /// For how long it says that it holds.
        holds: Option<Duration>,
    },
    /// As it was when it had the tag.
    Unchanged { holds: Option<Duration> },
}

/// Why there is nothing. No text names the address: it may hold what is nobody's business.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    Http(String),
    #[error("it answers with status {0}")]
    Refused(u16),
    #[error("the file can't be read: {0}")]
    File(#[from] std::io::Error),
    #[error("it is larger than {} KiB", MAX_DOCUMENT >> 10)]
    TooLarge,
    #[error("it is not a JSON Web Key Set")]
    NoKeySet,
}

impl Place {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        let builder = Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .user_agent(concat!("walcast/", env!("CARGO_PKG_VERSION")));
        // What does not leave this machine goes through no proxy.
        let builder = if url.scheme() == "http" { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| cause(&error))?;
        Ok(Self::Url { client, url: Box::new(url) })
    }

    pub(super) async fn fetch(&self, tag: Option<&HeaderValue>) -> Result<Fetched, FetchError> {
        match self {
            Self::Url { client, url } => fetch(client, url, tag).await,
            Self::File(path) => {
                let mut json = Vec::new();
                // A document is small, and read a few times an hour.
                std::fs::File::open(path)?.take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut json)?;
                if json.len() > MAX_DOCUMENT {
                    Err(FetchError::TooLarge)
                } else {
                    Ok(Fetched::Document { json, tag: None, holds: None })
                }
            }
        }
    }
}

async fn fetch(client: &Client, url: &Url, tag: Option<&HeaderValue>) -> Result<Fetched, FetchError> {
    let failed = |error: reqwest::Error| FetchError::Http(cause(&error));
    let mut request = client.get(url.clone()).header(ACCEPT, "application/jwk-set+json, application/json");
    if let Some(tag) = tag {
        request = request.header(IF_NONE_MATCH, tag.clone());
    }
    let mut response = request.send().await.map_err(failed)?;
    let holds = max_age(response.headers());
    match response.status().as_u16() {
        200 => {}
        304 if tag.is_some() => return Ok(Fetched::Unchanged { holds }),
        status => return Err(FetchError::Refused(status)),
    }
    let tag = response.headers().get(ETAG).filter(|tag| tag.len() <= MAX_TAG).cloned();
    let mut json = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if json.len() + chunk.len() > MAX_DOCUMENT {
            return Err(FetchError::TooLarge);
        }
        json.extend_from_slice(&chunk);
    }
    Ok(Fetched::Document { json, tag, holds })
}

/// `max-age` (RFC 9111 section 5.2.2.1); nothing where it may not be kept.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut age = None;
    for directive in values.flat_map(|value| value.split(',')).map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Some(Duration::ZERO),
            "max-age" => age = value.trim_matches('"').parse().ok().map(Duration::from_secs),
            _ => {}
        }
    }
    age
}

/// The innermost cause: what reqwest puts around it repeats the URL.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no whole answer within {TIMEOUT:?}");
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if std::ptr::addr_eq(cause, error) { "the request failed".to_owned() } else { cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_for_how_long_it_holds() {
        let age = |value: &str| max_age(&[(CACHE_CONTROL, value.parse().unwrap())].into_iter().collect());
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(age("public, max-age=300, must-revalidate"), seconds(300));
        assert_eq!(age("Max-Age=\"5\""), seconds(5));
        assert_eq!(age("max-age=300, no-cache"), seconds(0));
        assert_eq!(age("no-store"), seconds(0));
        assert_eq!(age("max-age=soon"), None);
        assert_eq!(age("private"), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_file_is_bounded_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        let place = Place::new(path.to_str().unwrap()).unwrap();
        assert!(matches!(place.fetch(None).await, Err(FetchError::File(_))));
        std::fs::write(&path, vec![b' '; MAX_DOCUMENT]).unwrap();
        assert!(
            matches!(place.fetch(None).await, Ok(Fetched::Document { json, .. }) if json.len() == MAX_DOCUMENT)
        );
        std::fs::write(&path, vec![b' '; MAX_DOCUMENT + 1]).unwrap();
        assert!(matches!(place.fetch(None).await, Err(FetchError::TooLarge)));
    }
}
