//! What an evaluation gives, as JSON.

use std::fmt::Write as _;

use bytes::BytesMut;
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelTimestamp, CelUInt,
};
use cel::common::value::Val;
use chrono::{Datelike, Timelike, Utc};

use super::double::encode_double;
use super::{EvalError, MAX_RESULT};
use crate::catalog::value::encode_string;

/// An expression's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Bool(bool),
    String(String),
    /// A number, a timestamp, a list, a map: encoded already.
    Json(Vec<u8>),
}

impl Value {
    /// None for what is not a bool.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Appends it as JSON: a double as `to_json(float8)` prints it (`1.0` is `1`), a timestamp as
    /// `to_json(timestamptz)` does in UTC, the keys of a map in byte order.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::String(text) => encode_string(text.as_bytes(), out),
            Self::Json(json) => out.extend_from_slice(json),
        }
    }

    pub(super) fn of(value: &dyn Val) -> Result<Self, EvalError> {
        if let Some(value) = value.downcast_ref::<CelBool>() {
            return Ok(Self::Bool(*value.inner()));
        }
        if value.downcast_ref::<CelNull>().is_some() {
            return Ok(Self::Null);
        }
        let mut out = BytesMut::new();
        if let Some(text) = value.downcast_ref::<CelString<'_>>() {
            if text.inner().len() > MAX_RESULT {
                return Err(EvalError::ResultTooLarge);
            }
            return Ok(Self::String(text.inner().to_owned()));
        }
        encode(value, &mut out)?;
        Ok(Self::Json(out.into()))
    }
}

fn encode(value: &dyn Val, out: &mut BytesMut) -> Result<(), EvalError> {
    if let Some(value) = value.downcast_ref::<CelInt>() {
        out.extend_from_slice(itoa::Buffer::new().format(*value.inner()).as_bytes());
    } else if let Some(value) = value.downcast_ref::<CelDouble>() {
        encode_double(*value.inner(), out);
    } else if let Some(value) = value.downcast_ref::<CelString<'_>>() {
        encode_string(value.inner().as_bytes(), out);
    } else if let Some(value) = value.downcast_ref::<CelBool>() {
        out.extend_from_slice(if *value.inner() { b"true" } else { b"false" });
    } else if value.downcast_ref::<CelNull>().is_some() {
        out.extend_from_slice(b"null");
    } else if let Some(value) = value.downcast_ref::<CelUInt>() {
        out.extend_from_slice(itoa::Buffer::new().format(*value.inner()).as_bytes());
    } else if let Some(value) = value.downcast_ref::<CelTimestamp>() {
        encode_timestamp(value, out);
    } else if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        out.extend_from_slice(b"[");
        for (index, item) in list.inner().iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b",");
            }
            encode(item.as_ref(), out)?;
        }
        out.extend_from_slice(b"]");
    } else if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        encode_map(map, out)?;
    } else {
        return Err(EvalError::NoJson(value.get_type().name().to_owned()));
    }
    if out.len() > MAX_RESULT { Err(EvalError::ResultTooLarge) } else { Ok(()) }
}

/// In the order of the keys: the map itself has a different one in every process.
fn encode_map(map: &CelMap<'_>, out: &mut BytesMut) -> Result<(), EvalError> {
    let mut entries: Vec<(Vec<u8>, &dyn Val)> = Vec::with_capacity(map.inner().len());
    for (key, value) in map.inner() {
        entries.push((key_text(key)?, value.as_ref()));
    }
    entries.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
    out.extend_from_slice(b"{");
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        encode_string(key, out);
        out.extend_from_slice(b":");
        encode(*value, out)?;
    }
    out.extend_from_slice(b"}");
    Ok(())
}

fn key_text(key: &CelMapKey<'_>) -> Result<Vec<u8>, EvalError> {
    if let Some(text) = key.inner().downcast_ref::<CelString<'_>>() {
        return Ok(text.inner().as_bytes().to_vec());
    }
    let mut text = BytesMut::new();
    encode(key.inner(), &mut text)?;
    Ok(text.into())
}

fn encode_timestamp(value: &CelTimestamp, out: &mut BytesMut) {
    let utc = value.inner().with_timezone(&Utc);
    let (year, month, day) = (utc.year(), utc.month(), utc.day());
    let (hour, minute, second) = (utc.hour(), utc.minute(), utc.second());
    let _ = write!(out, "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    let micros = utc.timestamp_subsec_micros();
    if micros > 0 {
        let fraction = format!("{micros:06}");
        let _ = write!(out, ".{}", fraction.trim_end_matches('0'));
    }
    out.extend_from_slice(b"+00:00\"");
}
