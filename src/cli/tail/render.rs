//! One line a person can read for each event.

use std::ffi::OsStr;
use std::fmt::Write;

use serde_json::{Map, Value};

/// How events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Style {
    Json,
    Plain,
    Color,
}

/// Characters of one field's value that are shown.
const MAX_VALUE: usize = 36;

/// Fields of one event that are shown; the rest are counted.
const MAX_FIELDS: usize = 8;

/// One per channel, by its name. Red and yellow are for what needs attention.
const COLORS: [u8; 8] = [36, 32, 35, 34, 96, 92, 95, 94];
const ATTENTION: u8 = 33;

impl Style {
    /// `no_color` is the variable of no-color.org: any value but an empty one.
    pub(in crate::cli) fn of(json: bool, terminal: bool, no_color: Option<&OsStr>) -> Self {
        let plain = !terminal || no_color.is_some_and(|value| !value.is_empty());
        match (json, plain) {
            (true, _) => Self::Json,
            (false, true) => Self::Plain,
            (false, false) => Self::Color,
        }
    }

    /// The line for an event, without its end; none for what is no news to a person.
    pub(in crate::cli) fn line(self, data: &str) -> Option<String> {
        let envelope: Option<Map<String, Value>> = serde_json::from_str(data).ok();
        let text = |name: &str| envelope.as_ref()?.get(name)?.as_str();
        let event_type = text("type").unwrap_or("?");
        if self == Self::Json {
            return (event_type != "keepalive").then(|| data.replace('\n', " "));
        }
        let Some(event) = &envelope else {
            return Some(crop(data, 200));
        };
        if ["keepalive", "connected"].contains(&event_type) {
            return None;
        }
        let time = clock(event.get("timestamp").and_then(Value::as_i64).unwrap_or_default());
        let channel = text("channel").unwrap_or("-");
        let mut fields = event.get("data").map(|data| fields(event_type, data)).unwrap_or_default();
        if let Some(bytes) = event.get("oversize").and_then(Value::as_u64) {
            let _ = write!(fields, "oversize={bytes}");
        }
        let (event_type, channel) = (clean(event_type), clean(channel));
        if self == Self::Plain {
            return Some(format!("{time}  {event_type:<22} {channel:<13} {fields}").trim_end().to_owned());
        }
        let color = if text("channel").is_none() { ATTENTION } else { color_of(&channel) };
        Some(format!(
            "\x1b[2m{time}\x1b[0m  \x1b[1;{color}m{event_type:<22}\x1b[0m \x1b[{color}m{channel:<13}\x1b[0m {fields}"
        ))
    }
}

fn color_of(channel: &str) -> u8 {
    let hash = channel.bytes().fold(7usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    COLORS.get(hash % COLORS.len()).copied().unwrap_or(36)
}

/// The time of day in UTC.
fn clock(millis: i64) -> String {
    let of_day = millis.rem_euclid(86_400_000);
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `name=value` of the scalars that are there; an object inside shows its own.
fn fields(event_type: &str, data: &Value) -> String {
    let mut shown = Vec::new();
    match data {
        Value::Object(members) => collect(event_type, members, &mut shown, 0),
        other => shown.push(value(other)),
    }
    let more = shown.len().saturating_sub(MAX_FIELDS);
    shown.truncate(MAX_FIELDS);
    if more > 0 {
        shown.push(format!("+{more}"));
    }
    shown.join(" ")
}

fn collect(event_type: &str, members: &Map<String, Value>, shown: &mut Vec<String>, depth: u8) {
    for (name, member) in members {
        match member {
            Value::Null => {}
            // Said by whom one follows, or by the line already.
            _ if name == "organizationId" => {}
            Value::String(action) if name == "action" && event_type.contains(action.as_str()) => {}
            Value::Object(inner) if depth == 0 => collect(event_type, inner, shown, 1),
            Value::Object(inner) => shown.push(format!("{}={{{}}}", clean(name), inner.len())),
            other => shown.push(format!("{}={}", clean(name), value(other))),
        }
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::String(text) if is_uuid(text) => text.chars().take(8).chain(['…']).collect(),
        Value::String(text) if text.is_empty() || text.contains(' ') => {
            format!("\"{}\"", crop(text, MAX_VALUE))
        }
        Value::String(text) => crop(text, MAX_VALUE),
        other => crop(&other.to_string(), MAX_VALUE),
    }
}

/// Nobody reads all 36 characters of one.
fn is_uuid(text: &str) -> bool {
    let shape = |(place, c): (usize, char)| {
        if matches!(place, 8 | 13 | 18 | 23) { c == '-' } else { c.is_ascii_hexdigit() }
    };
    text.len() == 36 && text.chars().enumerate().all(shape)
}

fn crop(text: &str, most: usize) -> String {
    let mut cropped = clean(&text.chars().take(most).collect::<String>());
    if text.chars().nth(most).is_some() {
        cropped.push('…');
    }
    cropped
}

/// Rows hold anything: what steers a terminal must not reach one.
fn clean(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { '·' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"id":"e.1.1","type":"device_status_changed","timestamp":1700000000123,"organizationId":"acme","channel":"devices","data":{"deviceId":"d1","deviceName":"North gate","status":"OFFLINE","location":null}}"#;

    #[test]
    fn an_event_is_one_line_of_time_type_channel_and_fields() {
        assert_eq!(
            Style::Plain.line(EVENT).unwrap(),
            "22:13:20.123  device_status_changed  devices       deviceId=d1 deviceName=\"North gate\" status=OFFLINE"
        );
        let colored = Style::Color.line(EVENT).unwrap();
        assert!(colored.contains("\x1b[1;") && colored.contains("device_status_changed"), "{colored:?}");
        assert_eq!(Style::Json.line(EVENT).unwrap(), EVENT);
    }

    #[test]
    fn what_is_no_news_makes_no_line() {
        for data in [r#"{"type":"keepalive","timestamp":1}"#, r#"{"type":"connected","timestamp":1}"#] {
            assert_eq!(Style::Plain.line(data), None);
        }
        assert!(
            Style::Plain
                .line(r#"{"type":"data.sync","timestamp":1,"data":{"reason":"truncated"}}"#)
                .is_some()
        );
    }

    #[test]
    fn a_row_can_not_steer_the_terminal() {
        let data = "{\"type\":\"x\\u001b[2J\",\"channel\":\"custom\",\"timestamp\":1,\"data\":{\"a\\u001b]0;t\\u0007\":\"b\\nc\\u202e\"}}";
        let line = Style::Plain.line(data).unwrap();
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
        assert!(!Style::Plain.line("not json \u{1b}[2J").unwrap().contains('\u{1b}'));
    }

    #[test]
    fn long_values_and_many_fields_are_cut() {
        let members: Vec<String> = (0..12).map(|i| format!("\"f{i}\":\"{}\"", "x".repeat(50))).collect();
        let data = format!(
            r#"{{"type":"t","channel":"c","timestamp":0,"data":{{"inner":{{{}}}}}}}"#,
            members.join(",")
        );
        let line = Style::Plain.line(&data).unwrap();
        assert!(line.ends_with(" +4"), "{line}");
        assert!(line.contains(&format!("f0={}… f1", "x".repeat(36))), "{line}");
    }

    #[test]
    fn what_a_person_need_not_read_is_left_out() {
        let data = r#"{"type":"issue:updated","channel":"issues","timestamp":0,"data":{"action":"updated","issue":{"id":"4973266f-61bf-4643-9020-5a56cbc48a17","organizationId":"acme","status":"open","resolvedAt":null}}}"#;
        assert_eq!(
            Style::Plain.line(data).unwrap(),
            "00:00:00.000  issue:updated          issues        id=4973266f… status=open"
        );
    }

    #[test]
    fn an_action_is_told_where_the_type_does_not_tell_it() {
        let line = |event_type: &str, action: &str| {
            let data = format!(
                r#"{{"type":"{event_type}","channel":"c","timestamp":0,"data":{{"action":"{action}"}}}}"#
            );
            Style::Plain.line(&data).unwrap()
        };
        assert!(line("property.update", "deleted").ends_with(" action=deleted"));
        assert!(line("user.activity", "login").ends_with(" action=login"));
        assert!(!line("issue:created", "created").contains("action"));
    }

    #[test]
    fn color_needs_a_terminal_and_no_objection() {
        assert_eq!(Style::of(false, true, None), Style::Color);
        assert_eq!(Style::of(false, true, Some(OsStr::new(""))), Style::Color);
        assert_eq!(Style::of(false, true, Some(OsStr::new("1"))), Style::Plain);
        assert_eq!(Style::of(false, false, None), Style::Plain);
        assert_eq!(Style::of(true, true, None), Style::Json);
    }
}
