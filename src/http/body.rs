//! The body of a request: JSON, of a bounded length, within a bounded time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::refusal::Refusal;

/// How long a client may take for all of it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const LATE: Refusal =
    Refusal::fixed(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not come in time");
const BROKEN: Refusal =
    Refusal::fixed(StatusCode::BAD_REQUEST, "bad_request", "the body ended before it was whole");

/// Whether the body says that it is JSON.
pub(super) fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next().and_then(|value| value.to_str().ok()), types.next()) else {
        return Err(Refusal::NOT_JSON);
    };
    let mut parts = value.split(';').map(str::trim);
    let json = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/json"));
    let plain = parts.filter(|part| !part.is_empty()).all(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        name.eq_ignore_ascii_case("charset") && value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    let encoded = headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    if json && plain && !encoded { Ok(()) } else { Err(Refusal::NOT_JSON) }
}

/// All of it, `most` bytes at most.
pub(super) async fn read(headers: &HeaderMap, mut body: Body, most: usize) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::too_large(most);
    let told = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    let until = Instant::now() + BODY_TIMEOUT;
    let mut read = BytesMut::new();
    while let Some(frame) = timeout_at(until, body.frame()).await.map_err(|_| LATE)? {
        let Ok(data) = frame.map_err(|_| BROKEN)?.into_data() else { continue };
        if read.len() + data.len() > most {
            return Err(too_large());
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

/// Why a body is no object, to be told. Cut: of a text that stands in an object's place serde repeats all.
pub(super) fn mistake(error: &serde_json::Error) -> String {
    error.to_string().chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_taken() {
        let check = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            check_type(&headers).is_ok()
        };
        for value in
            ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""]
        {
            assert!(check(&[("content-type", value)]), "{value}");
        }
        for value in [
            "text/plain",
            "application/json; charset=latin1",
            "application/jsonp",
            "",
            "application/json, a/b",
        ] {
            assert!(!check(&[("content-type", value)]), "{value}");
        }
        assert!(!check(&[]));
        let json = ("content-type", "application/json");
        assert!(!check(&[json, json]));
        assert!(!check(&[json, ("content-encoding", "gzip")]));
        assert!(check(&[json, ("content-encoding", "identity")]));
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound_and_not_at_all_when_it_says_that_it_is_longer() {
        let none = HeaderMap::new();
        assert_eq!(read(&none, Body::from("12345"), 5).await.unwrap(), "12345");
        let error = read(&none, Body::from("123456"), 5).await.unwrap_err();
        assert_eq!(
            (error.status(), error.message()),
            (StatusCode::PAYLOAD_TOO_LARGE, "the body has more than 5 bytes")
        );
        let mut told = HeaderMap::new();
        told.insert(CONTENT_LENGTH, "6".parse().unwrap());
        let endless = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(&told, endless, 5).await.unwrap_err().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
