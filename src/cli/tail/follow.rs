//! Keeps one stream going: connects, reads, and after any end connects again where it left off.

use std::io::{self, Write};
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;

use super::render::Style;
use super::sse::Reader;
use crate::access::NewToken;
use crate::cli::exit::{Refused, Usage};
use crate::config::{Access, Secret};

const PATH: &str = "/api/realtime/stream";

/// Until a stream says `retry:`.
const RETRY: Duration = Duration::from_secs(2);

/// Waits after failed attempts double up to this.
const MAX_WAIT: Duration = Duration::from_secs(30);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream that is silent for longer than several keepalives is taken for dead.
const SILENCE: Duration = Duration::from_secs(120);

/// Of a token signed for one connection; a stream ends with it and goes on with the next.
const TOKEN_LASTS: Duration = Duration::from_secs(12 * 3600);

/// How much of an answer that is no stream is read for its message.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Who follows.
#[derive(Clone, Debug)]
pub(in crate::cli) enum Credential {
    Given(Secret),
    /// A new token for each connection.
    Signed(Box<Signer>),
}

/// Signs tokens as an application's backend would.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Signer {
    pub(in crate::cli) secret: Secret,
    pub(in crate::cli) user: String,
    pub(in crate::cli) organization: Option<String>,
    /// Where no memberships table says it.
    pub(in crate::cli) role: Option<String>,
    pub(in crate::cli) access: Access,
}

impl Signer {
    pub(in crate::cli) fn sign(&self, lasts: Duration) -> anyhow::Result<Secret> {
        let token = NewToken::new(&self.user, lasts, &self.access)
            .within(self.organization.as_deref(), self.role.as_deref());
        Ok(token.sign(&self.secret)?.into())
    }
}

impl Credential {
    /// The token of the next connection.
    fn token(&self) -> anyhow::Result<Secret> {
        match self {
            Self::Given(token) => Ok(token.clone()),
            Self::Signed(signer) => signer.sign(TOKEN_LASTS),
        }
    }
}

#[derive(Clone, Debug)]
pub(in crate::cli) struct Follow {
    /// `http://127.0.0.1:8080`.
    pub(in crate::cli) base: String,
    pub(in crate::cli) credential: Credential,
    pub(in crate::cli) parameters: Vec<(String, String)>,
    pub(in crate::cli) since: Option<String>,
    pub(in crate::cli) style: Style,
    /// Says nothing about the connection.
    pub(in crate::cli) quiet: bool,
}

/// How one connection ended.
enum Ended {
    /// Go on after so long.
    Again(Duration),
    /// Nothing was had: wait longer each time.
    Failed(String),
    /// The server wants no more of us (204).
    Finished,
}

impl Follow {
    /// Follows until the server refuses, or writing fails.
    pub(in crate::cli) async fn run(&self, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let mut last_id = String::new();
        let mut failures = 0u32;
        loop {
            let wait = match self.connect(&client, &mut last_id, out).await? {
                Ended::Finished => return Ok(()),
                Ended::Again(wait) => {
                    failures = 0;
                    wait
                }
                Ended::Failed(why) => {
                    let most = RETRY.saturating_mul(2u32.saturating_pow(failures)).min(MAX_WAIT);
                    failures = failures.saturating_add(1);
                    let wait = most.mul_f64(fastrand::f64().mul_add(0.5, 0.5));
                    self.tell(&format!("{why}; again in {:.1} s", wait.as_secs_f64()));
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn tell(&self, text: &str) {
        if !self.quiet {
            // A terminal that is gone is no reason to stop.
            let _ = writeln!(io::stderr(), "walcast: {text}");
        }
    }

    fn url(&self, resuming: bool) -> anyhow::Result<Url> {
        let base = self.base.trim_end_matches('/');
        let wrong = |why: String| Usage(format!("--url must be one such as http://127.0.0.1:8080: {why}"));
        let mut url = Url::parse(&format!("{base}{PATH}")).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("the scheme {} is neither http nor https", url.scheme())).into());
        }
        let since = self.since.iter().filter(|_| !resuming).map(|since| ("since".to_owned(), since.clone()));
        let parameters: Vec<_> = self.parameters.iter().cloned().chain(since).collect();
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        Ok(url)
    }

    async fn connect(
        &self,
        client: &reqwest::Client,
        last_id: &mut String,
        out: &mut (dyn Write + Send),
    ) -> anyhow::Result<Ended> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", self.credential.token()?.expose()))
            .map_err(|_| Usage("the token holds what no header can".to_owned()))?;
        bearer.set_sensitive(true);
        let mut request = client
            .get(self.url(!last_id.is_empty())?)
            .header(ACCEPT, "text/event-stream")
            .header(AUTHORIZATION, bearer);
        if let Ok(id) = HeaderValue::try_from(last_id.as_str())
            && !last_id.is_empty()
        {
            request = request.header("Last-Event-ID", id);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                return Ok(Ended::Failed(format!("can't reach {}: {}", self.base, cause(&error))));
            }
        };
        match response.status() {
            StatusCode::OK => self.read(response, last_id, out).await,
            StatusCode::NO_CONTENT => Ok(Ended::Finished),
            status => refusal(status, response).await,
        }
    }

    async fn read(
        &self,
        response: Response,
        last_id: &mut String,
        out: &mut (dyn Write + Send),
    ) -> anyhow::Result<Ended> {
        let mut reader = Reader::after(last_id);
        let mut pieces = response.bytes_stream();
        let mut connected = false;
        let why = loop {
            let piece = match pieces.next().await {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => break format!("the stream broke: {}", cause(&error)),
                None => break "the stream ended".to_owned(),
            };
            for frame in reader.push(&piece)? {
                *last_id = frame.last_id;
                let Some(data) = frame.data else { continue };
                if !connected && let Some(text) = greeting(&data) {
                    self.tell(&text);
                }
                connected = true;
                if let Some(line) = self.style.line(&data) {
                    show(out, &line)?;
                }
            }
        };
        let wait = reader.retry_millis().map_or(RETRY, Duration::from_millis);
        // A stream that said nothing at all is a worker that lets nobody in yet; only its `retry:` counts.
        if connected || reader.retry_millis().is_some() {
            self.tell(&format!("{why}; again in {:.1} s", wait.as_secs_f64()));
            return Ok(Ended::Again(wait));
        }
        Ok(Ended::Failed(why))
    }
}

fn show(out: &mut (dyn Write + Send), line: &str) -> io::Result<()> {
    writeln!(out, "{line}")?;
    out.flush()
}

/// What an answer that is no stream means.
async fn refusal(status: StatusCode, response: Response) -> anyhow::Result<Ended> {
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let message = message(response).await;
    let text = format!("{}: {message}", status.as_u16());
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Refused(text).into()),
        StatusCode::TOO_MANY_REQUESTS => match after {
            Some(seconds) => Ok(Ended::Again(Duration::from_secs(seconds))),
            None => Ok(Ended::Failed(text)),
        },
        status if status.is_server_error() => Ok(Ended::Failed(text)),
        _ => Err(Usage(text).into()),
    }
}

/// `message` of `{"error", "message"}`, or the text's beginning.
async fn message(response: Response) -> String {
    let mut body = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(Ok(piece)) = pieces.next().await
        && body.len() < MAX_ANSWER_BYTES
    {
        body.extend_from_slice(&piece);
    }
    let answer: Option<Value> = serde_json::from_slice(&body).ok();
    let told = answer.as_ref().and_then(|answer| answer.get("message")?.as_str());
    let text = told.map_or_else(|| String::from_utf8_lossy(&body).chars().take(200).collect(), str::to_owned);
    text.chars().filter(|c| !c.is_control()).collect()
}

/// From the `connected` frame: whom one follows now.
fn greeting(data: &str) -> Option<String> {
    let frame: Value = serde_json::from_str(data).ok()?;
    if frame.get("type")?.as_str()? != "connected" {
        return None;
    }
    let organization = frame.get("organization");
    let text = |name: &str| organization?.get(name)?.as_str();
    let id = frame.get("organizationId").and_then(Value::as_str).unwrap_or("?");
    let name = text("name").map_or_else(|| id.to_owned(), |name| format!("{name} ({id})"));
    let role = text("role").map_or_else(String::new, |role| format!(" as {role}"));
    let resumed = frame.get("resumed").and_then(Value::as_bool).unwrap_or_default();
    let verb = if resumed { "resumed" } else { "following" };
    let line: String =
        format!("{verb} {name}{role}; times are UTC").chars().filter(|c| !c.is_control()).collect();
    Some(line)
}

/// The innermost cause: what reqwest puts around it repeats the URL.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
