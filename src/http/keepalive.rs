//! What a quiet stream sends, so that proxies and clients see that it lives.

use serde_json::{Map, Value};

use super::clock::{iso8601, now_millis};
use crate::catalog::EventId;
use crate::config;

/// A string of a keepalive's frame that stands for the time, in milliseconds since 1970.
const MILLIS: &str = "$timestamp";

/// As [`MILLIS`], as ISO 8601 text.
const ISO: &str = "$iso8601";

/// The form of a path's keepalive.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Keepalive {
    /// `: keepalive`, which clients don't see.
    Comment,
    Frame(Template),
}

/// A frame's JSON, cut where the time goes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Millis,
    Iso,
}

impl Keepalive {
    /// A frame begins with its `type`; where it names no place for the time, `timestamp` comes last.
    pub(super) fn new(configured: &config::Keepalive) -> Self {
        let config::Keepalive::Frame(table) = configured else {
            return Self::Comment;
        };
        let mut frame = Map::new();
        if let Ok(Value::Object(mut fields)) = serde_json::to_value(table) {
            frame.extend(fields.shift_remove("type").map(|name| ("type".to_owned(), name)));
            frame.extend(fields);
        }
        Self::Frame(Template::new(frame))
    }

    /// `{"type":"keepalive","timestamp":…}`.
    pub(super) fn native() -> Self {
        let mut frame = Map::new();
        frame.insert("type".to_owned(), Value::String("keepalive".to_owned()));
        Self::Frame(Template::new(frame))
    }

    /// The block to write. `carry` asks for one that moves the client's last event id: a comment then becomes the
    /// native frame, since only a block with data moves it everywhere.
    pub(super) fn encode(&self, cursor: EventId, carry: bool) -> Vec<u8> {
        match self {
            Self::Comment if carry => Self::native().encode(cursor, carry),
            Self::Comment => b": keepalive\n\n".to_vec(),
            Self::Frame(template) => {
                format!("id: {cursor}\ndata: {}\n\n", template.render(now_millis())).into_bytes()
            }
        }
    }
}

impl Template {
    fn new(mut frame: Map<String, Value>) -> Self {
        let quoted = |name: &str| format!("\"{name}\"");
        let text = Value::Object(frame.clone()).to_string();
        if !text.contains(&quoted(MILLIS)) && !text.contains(&quoted(ISO)) {
            frame.insert("timestamp".to_owned(), Value::String(MILLIS.to_owned()));
        }
        let text = Value::Object(frame).to_string();
        let mut pieces = Vec::new();
        for (n, part) in text.split(&quoted(MILLIS)).enumerate() {
            if n > 0 {
                pieces.push(Piece::Millis);
            }
            for (n, part) in part.split(&quoted(ISO)).enumerate() {
                if n > 0 {
                    pieces.push(Piece::Iso);
                }
                pieces.push(Piece::Text(part.to_owned()));
            }
        }
        Self(pieces)
    }

    fn render(&self, millis: u64) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Millis => text.push_str(itoa::Buffer::new().format(millis)),
                Piece::Iso => {
                    text.push('"');
                    text.push_str(&iso8601(millis));
                    text.push('"');
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Epoch;
    use crate::postgres::Lsn;

    fn rendered(toml: &str) -> String {
        #[derive(serde::Deserialize)]
        struct Holder {
            keepalive: config::Keepalive,
        }
        let holder: Holder = toml::from_str(toml).expect("toml");
        match Keepalive::new(&holder.keepalive) {
            Keepalive::Comment => ": keepalive".to_owned(),
            Keepalive::Frame(template) => template.render(1_795_253_400_001),
        }
    }

    #[test]
    fn every_form_of_the_reference_presets_can_be_written() {
        for (toml, text) in [
            (r#"keepalive = "comment""#, ": keepalive"),
            (
                r#"keepalive = { type = "keepalive" }"#,
                r#"{"type":"keepalive","timestamp":1795253400001}"#,
            ),
            (
                r#"keepalive = { type = "heartbeat", data = {} }"#,
                r#"{"type":"heartbeat","data":{},"timestamp":1795253400001}"#,
            ),
            (
                r#"keepalive = { type = "ping", data = { timestamp = "$iso8601" } }"#,
                r#"{"type":"ping","data":{"timestamp":"2026-11-21T09:30:00.001Z"}}"#,
            ),
            (
                r#"keepalive = { at = "$timestamp", type = "x" }"#,
                r#"{"type":"x","at":1795253400001}"#,
            ),
        ] {
            assert_eq!(rendered(toml), text);
        }
    }

    #[test]
    fn a_comment_becomes_a_frame_when_it_has_to_carry_the_id() {
        let id = EventId::position(Epoch::new(1), Lsn::new(9));
        assert_eq!(Keepalive::Comment.encode(id, false), b": keepalive\n\n");
        let frame = String::from_utf8(Keepalive::Comment.encode(id, true)).expect("text");
        assert!(
            frame.starts_with("id: 0000000000000001.9.0\ndata: {\"type\":\"keepalive\",\"timestamp\":1"),
            "{frame}"
        );
        assert!(frame.ends_with("}\n\n"));
    }
}
