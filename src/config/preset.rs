//! Presets: paths that existing front ends already use.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};

use super::live::Live;

/// A path that an existing front end already uses.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    pub path: String,
    /// The most that a stream of this path sees; of a live one, what tells that its answer may have changed.
    pub channels: Vec<String>,
    /// Query name = tag, beside the tags' own names.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    #[serde(default)]
    pub keepalive: Keepalive,
    /// Its streams show what a query answers.
    #[serde(default)]
    pub live: Option<Live>,
}

impl Preset {
    pub(super) const FIELDS: [&'static str; 5] = ["path", "channels", "parameters", "keepalive", "live"];
}

/// What a quiet stream sends.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Keepalive {
    /// `"comment"`.
    #[default]
    Comment,
    /// A frame: `{ type = "heartbeat", data = {} }`.
    Frame(toml::Table),
}

impl<'de> Deserialize<'de> for Keepalive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(word) if word == "comment" => Ok(Self::Comment),
            toml::Value::Table(frame) if frame.get("type").is_some_and(toml::Value::is_str) => {
                Ok(Self::Frame(frame))
            }
            _ => Err(de::Error::custom(
                "keepalive must be \"comment\", or a frame such as { type = \"heartbeat\", data = {} }",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keepalive: &str) -> Result<Preset, toml::de::Error> {
        toml::from_str(&format!("path = \"/e\"\nchannels = [\"a\"]\nkeepalive = {keepalive}"))
    }

    #[test]
    fn a_keepalive_is_a_comment_or_a_typed_frame() {
        assert_eq!(read("\"comment\"").unwrap().keepalive, Keepalive::Comment);
        let Keepalive::Frame(frame) = read("{ type = \"ping\", data = {} }").unwrap().keepalive else {
            panic!("not a frame")
        };
        assert_eq!(frame["type"].as_str(), Some("ping"));
        for wrong in ["\"coment\"", "{ data = {} }", "30"] {
            assert!(read(wrong).unwrap_err().message().contains("keepalive must be \"comment\""), "{wrong}");
        }
    }
}
