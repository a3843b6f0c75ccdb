//! An event: what a change came to mean, addressed to one organization, its wire form finished.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::postgres::Lsn;

/// An organization's id as the application's rows carry it. `*` is every organization.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrganizationId(Arc<str>);

impl OrganizationId {
    /// The organization that stands for all of them: its journal is followed by every stream.
    pub const EVERY: &'static str = "*";

    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn is_every(&self) -> bool {
        &*self.0 == Self::EVERY
    }
}

impl std::borrow::Borrow<str> for OrganizationId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrganizationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which history ids belong to: a hash of the server's identity, the source and the catalog. 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    #[must_use]
    pub const fn new(hash: u64) -> Self {
        Self(hash)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Names one event for ever, and a place in every journal: `<epoch>.<commit lsn>.<ordinal>`, the position decimal.
///
/// The ordinal counts (change, rule, old or new half) of the transaction from 1, whether or not a rule fired.
/// Ordinal 0 is a position and no event: every commit below that position is done. Ids of one epoch order as
/// (commit position, ordinal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    pub epoch: Epoch,
    pub commit_lsn: Lsn,
    pub ordinal: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an event id: <epoch>.<commit lsn>.<ordinal>")]
pub struct InvalidEventId;

impl EventId {
    /// The position at which every commit below `lsn` is done.
    #[must_use]
    pub const fn position(epoch: Epoch, lsn: Lsn) -> Self {
        Self { epoch, commit_lsn: lsn, ordinal: 0 }
    }

    /// What orders the ids of one epoch.
    #[must_use]
    pub const fn place(self) -> (Lsn, u32) {
        (self.commit_lsn, self.ordinal)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.commit_lsn.as_u64(), self.ordinal)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    /// Accepts exactly what `Display` writes: an id has one spelling.
    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let decimal = |digits: &str| {
            let canonical = digits == "0" || !digits.starts_with('0');
            (canonical && digits.bytes().all(|b| b.is_ascii_digit()))
                .then(|| digits.parse::<u64>().ok())
                .flatten()
        };
        let read = || {
            let (epoch, rest) = text.split_once('.')?;
            let (lsn, ordinal) = rest.split_once('.')?;
            let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            let epoch = (epoch.len() == 16 && epoch.bytes().all(hex))
                .then(|| u64::from_str_radix(epoch, 16).ok())??;
            Some(Self {
                epoch: Epoch(epoch),
                commit_lsn: Lsn::new(decimal(lsn)?),
                ordinal: u32::try_from(decimal(ordinal)?).ok()?,
            })
        };
        read().ok_or(InvalidEventId)
    }
}

/// What a mapped change hands on: where it belongs, who may see it, and its frame.
///
/// Borrowed from the mapper's own buffers: a journal copies what it keeps.
#[derive(Debug)]
pub struct Event<'a> {
    pub id: EventId,
    pub organization: &'a str,
    pub commit_millis: i64,
    pub kind: Kind<'a>,
    /// None: every stream of the organization whose filter matches.
    pub audience: Option<&'a Arc<Audience>>,
}

impl Event<'_> {
    /// The whole SSE block; empty for a `data.sync`, which each stream writes for itself.
    #[must_use]
    pub const fn frame(&self) -> &[u8] {
        match self.kind {
            Kind::Data { frame, .. } => frame,
            Kind::Sync { .. } => &[],
        }
    }
}

/// The two kinds of journal entry.
#[derive(Debug)]
pub enum Kind<'a> {
    /// A domain event. `frame` is the whole SSE block, `id: …\ndata: {…}\n\n`.
    Data { event_type: &'a Arc<str>, channel: &'a Arc<str>, tags: &'a Tags, frame: &'a [u8] },
    /// `data.sync`, for streams that listen to any of `channels` (empty: all). It carries no frame: its `delayMs` is
    /// jittered per stream, so the stream writes it.
    Sync { reason: SyncReason, channels: &'a Arc<[Arc<str>]> },
}

/// Why it can't be proven that nothing was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncReason {
    HistoryExpired,
    HistoryReset,
    SlowConsumer,
    Truncated,
    Unroutable,
}

impl SyncReason {
    pub const ALL: [Self; 5] =
        [Self::HistoryExpired, Self::HistoryReset, Self::SlowConsumer, Self::Truncated, Self::Unroutable];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HistoryExpired => "history_expired",
            Self::HistoryReset => "history_reset",
            Self::SlowConsumer => "slow_consumer",
            Self::Truncated => "truncated",
            Self::Unroutable => "unroutable",
        }
    }
}

/// Who may see an event (`only`): holders of one of the roles, or the user. Never empty of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    pub roles: Vec<Arc<str>>,
    pub user: Option<Box<str>>,
}

impl Audience {
    #[must_use]
    pub fn admits(&self, user: &str, role: Option<&str>) -> bool {
        self.user.as_deref() == Some(user) || role.is_some_and(|role| self.roles.iter().any(|r| &**r == role))
    }
}

/// An event's tags: name and value pairs. An update carries a tag's old and its new value as two pairs, so that
/// either matches. Encoded flat, so that a journal copies them as bytes; names are indexes into the catalog's list
/// of tag names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Per pair: name u16, length u32 (both little endian), value bytes.
    bytes: Vec<u8>,
}

impl Tags {
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    pub fn push(&mut self, name: u16, value: &[u8]) {
        // A value longer than a filter can name can't match; keeping its head would match what it is not.
        let Ok(length) = u32::try_from(value.len()) else {
            return;
        };
        self.bytes.extend_from_slice(&name.to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(value);
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn iter(&self) -> TagIter<'_> {
        TagIter::over(&self.bytes)
    }
}

/// Walks encoded tags: (name, value).
#[derive(Clone, Debug)]
pub struct TagIter<'a> {
    rest: &'a [u8],
}

impl<'a> TagIter<'a> {
    /// Over bytes that [`Tags::as_bytes`] gave; anything else ends the walk early.
    #[must_use]
    pub const fn over(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for TagIter<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.rest.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        self.rest = rest;
        Some((u16::from_le_bytes(*name), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = EventId { epoch: Epoch::new(0xabc), commit_lsn: Lsn::new(0x16_B374_D848), ordinal: 3 };
        assert_eq!(id.to_string(), "0000000000000abc.97500059720.3");
        assert_eq!(id.to_string().parse(), Ok(id));
        for other in ["", "abc.1.1", "0000000000000ABC.1.1", "0000000000000abc.01.1", "0000000000000abc.1.+1"]
        {
            assert_eq!(other.parse::<EventId>(), Err(InvalidEventId), "{other:?}");
        }
    }

    #[test]
    fn tags_come_out_as_they_went_in() {
        let mut tags = Tags::default();
        tags.push(1, b"a");
        tags.push(7, b"");
        assert_eq!(tags.iter().collect::<Vec<_>>(), [(1, &b"a"[..]), (7, &b""[..])]);
        assert_eq!(TagIter::over(&tags.as_bytes()[..5]).count(), 0);
    }
}
