//! What a request for a stream asks for, once its query is understood.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::endpoint::{Endpoint, RESERVED, Showing, joined};
use super::keepalive::Keepalive;
use super::query::Query;
use super::refusal::Refusal;
use crate::catalog::EventId;
use crate::config::parse_duration;

/// The header by which an `EventSource` says where it stopped.
const LAST_EVENT_ID: &str = "last-event-id";

/// Characters of the longest event type.
const MAX_TYPE: usize = 100;

/// How long batches may be apart: less would be none, more would let a stream fall behind the window.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

/// The longest time between two updates that is told apart from never.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// A request's wishes, in terms of the endpoint that it came to.
#[derive(Debug)]
pub(super) struct Parameters {
    pub(super) organization: Option<Arc<str>>,
    /// None: every one that the endpoint has.
    pub(super) channels: Option<BTreeSet<Arc<str>>>,
    pub(super) types: Option<BTreeSet<Arc<str>>>,
    /// Tag and values; each tag once.
    pub(super) tags: Vec<(u16, Vec<Box<[u8]>>)>,
    pub(super) begin: Begin,
    pub(super) keepalive: Arc<Keepalive>,
    /// Events go out in batches at most so often; zero: as they come. Of a live preset: what a query answers.
    pub(super) interval: Duration,
}

/// Where a stream is asked to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    Now,
    Earliest,
    After(EventId),
    Since(Duration),
    /// The client has an id that is none of ours.
    Unreadable,
}

impl Parameters {
    pub(super) fn read(endpoint: &Endpoint, query: &Query, headers: &HeaderMap) -> Result<Self, Refusal> {
        if endpoint.native {
            refuse_unknown(endpoint, query)?;
        }
        let organization = query.scalar("organizationId")?.filter(|id| !id.is_empty());
        if endpoint.native && organization.is_none() {
            return Err(Refusal::bad_request("organizationId: required, the id of one organization"));
        }
        if let Some(showing) = &endpoint.live {
            // What is shown is whole from the start, and not made of events: there is nothing to resume or to choose.
            return Ok(Self {
                organization: organization.map(Arc::from),
                channels: Some(endpoint.channels.clone()),
                types: None,
                tags: tags(endpoint, query),
                begin: Begin::Now,
                keepalive: keepalive(endpoint, query)?,
                interval: update_interval(showing, query)?,
            });
        }
        Ok(Self {
            organization: organization.map(Arc::from),
            channels: channels("channel", endpoint, query.list("channel"))?,
            types: types(query.list("types"))?,
            tags: tags(endpoint, query),
            begin: Begin::read(query, headers)?,
            keepalive: keepalive(endpoint, query)?,
            interval: interval(query)?,
        })
    }
}

fn refuse_unknown(endpoint: &Endpoint, query: &Query) -> Result<(), Refusal> {
    let tags = || endpoint.tags.iter().map(|(name, _)| &**name);
    match query.names().find(|name| !RESERVED.contains(name) && !tags().any(|tag| tag == *name)) {
        None => Ok(()),
        Some(name) => {
            let allowed: Vec<_> = RESERVED.into_iter().chain(tags()).collect();
            Err(Refusal::bad_request(format!("{name}: unknown parameter; allowed are {}", joined(&allowed))))
        }
    }
}

/// `what` is what the names are called where they were given.
pub(super) fn channels<'a>(
    what: &str,
    endpoint: &Endpoint,
    names: impl Iterator<Item = &'a str>,
) -> Result<Option<BTreeSet<Arc<str>>>, Refusal> {
    let asked = names.map(|name| match endpoint.channels.get(name) {
        Some(channel) => Ok(Arc::clone(channel)),
        None => Err(Refusal::bad_request(format!(
            "{what}: there is no channel {name:?} here; allowed are {}",
            joined(&endpoint.channels)
        ))),
    });
    let asked = asked.collect::<Result<BTreeSet<_>, _>>()?;
    Ok(if asked.is_empty() { (!endpoint.native).then(|| endpoint.channels.clone()) } else { Some(asked) })
}

pub(super) fn types<'a>(names: impl Iterator<Item = &'a str>) -> Result<Option<BTreeSet<Arc<str>>>, Refusal> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
    let asked = names.map(|name| {
        if !name.is_empty() && name.len() <= MAX_TYPE && name.bytes().all(plain) {
            Ok(Arc::from(name))
        } else {
            Err(Refusal::bad_request(
                "types: event types, 1 to 100 of A-Z a-z 0-9 . _ : - each, between commas",
            ))
        }
    });
    let asked = asked.collect::<Result<BTreeSet<_>, _>>()?;
    Ok((!asked.is_empty()).then_some(asked))
}

fn tags(endpoint: &Endpoint, query: &Query) -> Vec<(u16, Vec<Box<[u8]>>)> {
    let mut tags = Vec::new();
    for (name, tag) in &endpoint.tags {
        add_tag(&mut tags, *tag, query.list(name).map(|value| value.as_bytes().into()));
    }
    tags
}

/// Two names of one tag are one list; one without a value is no filter.
pub(super) fn add_tag(
    tags: &mut Vec<(u16, Vec<Box<[u8]>>)>,
    tag: u16,
    values: impl Iterator<Item = Box<[u8]>>,
) {
    let mut values = values.peekable();
    if values.peek().is_none() {
        return;
    }
    match tags.iter_mut().find(|(known, _)| *known == tag) {
        Some((_, known)) => known.extend(values),
        None => tags.push((tag, values.collect())),
    }
}

fn keepalive(endpoint: &Endpoint, query: &Query) -> Result<Arc<Keepalive>, Refusal> {
    match query.scalar("keepalive")? {
        Some("event") if *endpoint.keepalive == Keepalive::Comment => Ok(Arc::new(Keepalive::native())),
        None | Some("" | "comment" | "event") => Ok(Arc::clone(&endpoint.keepalive)),
        Some(_) => Err(Refusal::bad_request("keepalive: allowed are comment, event")),
    }
}

fn interval(query: &Query) -> Result<Duration, Refusal> {
    let Some(text) = query.scalar("interval")?.filter(|text| !text.is_empty()) else {
        return Ok(Duration::ZERO);
    };
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    let read = if plain { text.parse().ok().map(Duration::from_millis) } else { parse_duration(text) };
    read.filter(|interval| INTERVALS.contains(interval)).ok_or_else(|| {
        Refusal::bad_request(
            "interval: allowed are 10ms to 60s, as a duration such as 500ms or in milliseconds",
        )
    })
}

/// In milliseconds; so long that no timer takes it is for ever.
fn update_interval(showing: &Showing, query: &Query) -> Result<Duration, Refusal> {
    let Some(name) = showing.parameter.as_deref() else {
        return Ok(showing.interval);
    };
    let Some(text) = query.scalar(name)?.filter(|text| !text.is_empty()) else {
        return Ok(showing.interval);
    };
    let least = showing.min_interval;
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    let millis = plain.then(|| text.parse().unwrap_or(u64::MAX));
    let interval = millis.map(|millis| Duration::from_millis(millis).min(LONGEST));
    interval.filter(|interval| *interval >= least).ok_or_else(|| {
        Refusal::bad_request(format!(
            "{name}: a whole number of milliseconds, at least {}",
            least.as_millis()
        ))
    })
}

impl Begin {
    /// The header goes before `lastEventId`, that before `since`. An empty id is none: `EventSource` sends it so.
    fn read(query: &Query, headers: &HeaderMap) -> Result<Self, Refusal> {
        let since = query.scalar("since")?.filter(|since| !since.is_empty()).map(Self::since).transpose()?;
        let parameter = query.scalar("lastEventId")?.map(str::as_bytes);
        let header = headers.get(LAST_EVENT_ID).map(http::HeaderValue::as_bytes);
        let id = [header, parameter].into_iter().flatten().find(|id| !id.is_empty());
        let after = id.map(|id| std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()));
        Ok(match after {
            Some(Some(id)) => Self::After(id),
            Some(None) => Self::Unreadable,
            None => since.unwrap_or(Self::Now),
        })
    }

    fn since(text: &str) -> Result<Self, Refusal> {
        if text == "earliest" {
            return Ok(Self::Earliest);
        }
        let id = text.parse().ok().map(Self::After);
        id.or_else(|| parse_duration(text).map(Self::Since)).ok_or_else(|| {
            Refusal::bad_request("since: allowed are earliest, an event id, a duration such as 5m")
        })
    }
}

#[cfg(test)]
mod tests;
