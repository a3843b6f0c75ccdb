//! The paths at which streams are opened: the native one, and the presets of the configuration.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::keepalive::Keepalive;
use crate::config::{self, Channels, Preset};
use crate::live::{Live, Query};

/// The native path.
pub const NATIVE: &str = "/api/realtime/stream";

/// Channels that exist on every configuration beside the catalog's.
const BUILT_IN: [&str; 2] = ["custom", "presence"];

/// Parameters that mean the same on every path.
pub(super) const RESERVED: [&str; 9] = [
    "organizationId",
    "channel",
    "types",
    "token",
    "ticket",
    "lastEventId",
    "since",
    "keepalive",
    "interval",
];

/// What the running catalog offers to filter by.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    pub channels: BTreeSet<Arc<str>>,
    /// By the index that the hub's filters name them with.
    pub tags: Vec<Arc<str>>,
}

impl Vocabulary {
    /// The catalog's channels and tag names, the built-in channels and `channels.extra`.
    pub fn new<'a>(
        channels: impl IntoIterator<Item = &'a str>,
        tags: impl IntoIterator<Item = &'a str>,
        extra: &'a Channels,
    ) -> Self {
        let extra = extra.extra.iter().map(String::as_str);
        let channels = channels.into_iter().chain(BUILT_IN).chain(extra).map(Arc::from).collect();
        Self { channels, tags: tags.into_iter().map(Arc::from).collect() }
    }

    fn tag(&self, name: &str) -> Option<u16> {
        self.tags.iter().position(|tag| **tag == *name).and_then(|at| u16::try_from(at).ok())
    }
}

/// A path and what it means.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) path: String,
    pub(super) native: bool,
    /// What may be asked for: every known channel, or the preset's.
    pub(super) channels: BTreeSet<Arc<str>>,
    /// Query names, each with its tag.
    pub(super) tags: Vec<(Box<str>, u16)>,
    pub(super) keepalive: Arc<Keepalive>,
    /// Its streams show what a query answers; events on its channels tell that it may have changed.
    pub(super) live: Option<Showing>,
}

/// What the streams of a live preset show.
#[derive(Debug)]
pub(super) struct Showing {
    pub(super) query: Arc<Query>,
    /// The tags whose values the query is told, in its order.
    pub(super) arguments: Arc<[u16]>,
    /// By which a client says how often.
    pub(super) parameter: Option<Box<str>>,
    pub(super) interval: Duration,
    pub(super) min_interval: Duration,
}

/// A preset that can't be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPreset {
    #[error("preset {0:?}: a path begins with / and consists of letters, digits and ._~-/")]
    Path(String),
    #[error("preset {0}: the path is taken")]
    Taken(String),
    #[error("preset {path}: there is no channel {channel:?}; known are {known}")]
    Channel { path: String, channel: String, known: String },
    #[error("preset {path}: parameter {parameter:?} names the tag {tag:?}; known are {known}")]
    Tag { path: String, parameter: String, tag: String, known: String },
    #[error("preset {path}: live.arguments names the tag {tag:?}; known are {known}")]
    Argument { path: String, tag: String, known: String },
    #[error("preset {0}: its query was not read")]
    Query(String),
    #[error("preset {path}: the parameter {parameter:?} has a meaning of its own")]
    Reserved { path: String, parameter: String },
    #[error("the tag {0:?} can't be a parameter: it has a meaning of its own")]
    ReservedTag(Arc<str>),
}

impl Endpoint {
    /// The native path and the presets. `taken` are paths of something else.
    pub(super) fn all(
        vocabulary: &Vocabulary,
        presets: &[Preset],
        live: &Live,
        taken: &[&str],
    ) -> Result<Vec<Arc<Self>>, InvalidPreset> {
        if let Some(tag) = vocabulary.tags.iter().find(|tag| RESERVED.contains(&&***tag)) {
            return Err(InvalidPreset::ReservedTag(Arc::clone(tag)));
        }
        let mut endpoints = vec![Self::native(vocabulary)];
        for preset in presets {
            let endpoint = Self::preset(vocabulary, preset, live)?;
            let used = endpoints.iter().any(|other| other.path == endpoint.path);
            if used || taken.contains(&&*endpoint.path) {
                return Err(InvalidPreset::Taken(endpoint.path));
            }
            endpoints.push(endpoint);
        }
        Ok(endpoints.into_iter().map(Arc::new).collect())
    }

    fn native(vocabulary: &Vocabulary) -> Self {
        Self {
            path: NATIVE.to_owned(),
            native: true,
            channels: vocabulary.channels.clone(),
            tags: own_names(vocabulary),
            keepalive: Arc::new(Keepalive::Comment),
            live: None,
        }
    }

    fn preset(vocabulary: &Vocabulary, preset: &Preset, live: &Live) -> Result<Self, InvalidPreset> {
        let path = preset.path.clone();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._~-/".contains(&b);
        if !path.starts_with('/') || !path.bytes().all(plain) {
            return Err(InvalidPreset::Path(path));
        }
        let channels = preset.channels.iter().map(|channel| match vocabulary.channels.get(&**channel) {
            Some(known) => Ok(Arc::clone(known)),
            None => Err(InvalidPreset::Channel {
                path: path.clone(),
                channel: channel.clone(),
                known: joined(&vocabulary.channels),
            }),
        });
        let channels = channels.collect::<Result<_, _>>()?;
        let mut tags = own_names(vocabulary);
        for (parameter, tag) in &preset.parameters {
            if RESERVED.contains(&&**parameter) {
                return Err(InvalidPreset::Reserved { path, parameter: parameter.clone() });
            }
            let Some(tag) = vocabulary.tag(tag) else {
                let (parameter, tag, known) = (parameter.clone(), tag.clone(), joined(&vocabulary.tags));
                return Err(InvalidPreset::Tag { path, parameter, tag, known });
            };
            // The preset's meaning of a name goes before the tag that happens to have it.
            tags.retain(|(name, _)| **name != **parameter);
            tags.push((parameter.as_str().into(), tag));
        }
        let live = match &preset.live {
            Some(configured) => Some(Showing::new(vocabulary, &path, configured, live, &mut tags)?),
            None => None,
        };
        let keepalive = Arc::new(Keepalive::new(&preset.keepalive));
        Ok(Self { path, native: false, channels, tags, keepalive, live })
    }
}

impl Showing {
    /// Leaves of `tags` what the query knows: by another the stream would hear of less than changes its answer.
    fn new(
        vocabulary: &Vocabulary,
        path: &str,
        configured: &config::Live,
        live: &Live,
        tags: &mut Vec<(Box<str>, u16)>,
    ) -> Result<Self, InvalidPreset> {
        let arguments = configured.arguments.iter().map(|tag| {
            let unknown = || InvalidPreset::Argument {
                path: path.to_owned(),
                tag: tag.clone(),
                known: joined(&vocabulary.tags),
            };
            vocabulary.tag(tag).ok_or_else(unknown)
        });
        let arguments: Arc<[u16]> = arguments.collect::<Result<_, _>>()?;
        tags.retain(|(_, tag)| arguments.contains(tag));
        if let Some(parameter) = &configured.parameter
            && (RESERVED.contains(&&**parameter) || tags.iter().any(|(name, _)| **name == **parameter))
        {
            return Err(InvalidPreset::Reserved { path: path.to_owned(), parameter: parameter.clone() });
        }
        let query = live.query(path).ok_or_else(|| InvalidPreset::Query(path.to_owned()))?;
        Ok(Self {
            query: Arc::clone(query),
            arguments,
            parameter: configured.parameter.as_deref().map(Box::from),
            interval: configured.interval,
            min_interval: configured.min_interval,
        })
    }
}

fn own_names(vocabulary: &Vocabulary) -> Vec<(Box<str>, u16)> {
    vocabulary.tags.iter().zip(0u16..).map(|(tag, at)| (Box::from(&**tag), at)).collect()
}

/// `a, b, c`, as messages list what is allowed.
pub(super) fn joined<'a, T: AsRef<str> + 'a>(items: impl IntoIterator<Item = &'a T>) -> String {
    items.into_iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presets(toml: &str) -> Result<Vec<Arc<Endpoint>>, String> {
        #[derive(serde::Deserialize)]
        struct Holder {
            presets: Vec<Preset>,
        }
        let holder: Holder = toml::from_str(toml).expect("presets");
        let extra = Channels { extra: vec!["chat".to_owned()] };
        let vocabulary = Vocabulary::new(["issues", "lots"], ["priority", "status"], &extra);
        let queries = holder.presets.iter().filter_map(|preset| Query::load(preset, 1 << 20));
        let (live, _) = Live::new(queries.map(|query| query.expect("a query")));
        Endpoint::all(&vocabulary, &holder.presets, &live, &["/metrics"]).map_err(|e| e.to_string())
    }

    #[test]
    fn a_preset_knows_its_parameters_and_the_tags_own_names() {
        let all = presets(
            r#"presets = [{ path = "/a/b", channels = ["issues", "chat"], parameters = { statuses = "status" } }]"#,
        )
        .unwrap();
        assert_eq!(all[0].path, NATIVE);
        assert_eq!(joined(&all[0].channels), "chat, custom, issues, lots, presence");
        assert_eq!(joined(&all[1].channels), "chat, issues");
        let tags: Vec<_> = all[1].tags.iter().map(|(name, tag)| (&**name, *tag)).collect();
        assert_eq!(tags, [("priority", 0), ("status", 1), ("statuses", 1)]);
    }

    fn live(rest: &str) -> Result<Vec<Arc<Endpoint>>, String> {
        presets(&format!(
            r#"presets = [{{ path = "/l", channels = ["issues"], parameters = {{ statuses = "status" }}, live = {{ sql = "sql/live/heatmap.sql", {rest} }} }}]"#
        ))
    }

    #[test]
    fn a_live_preset_knows_what_its_query_is_told_and_no_other_tag() {
        let all = live(r#"arguments = ["status"], parameter = "every""#).unwrap();
        let names: Vec<_> = all[1].tags.iter().map(|(name, tag)| (&**name, *tag)).collect();
        assert_eq!(names, [("status", 1), ("statuses", 1)]);
        let showing = all[1].live.as_ref().unwrap();
        assert_eq!((&*showing.arguments, showing.parameter.as_deref()), (&[1][..], Some("every")));
        assert_eq!((showing.interval.as_secs(), showing.min_interval.as_secs()), (30, 5));
        for (rest, told) in [
            (
                r#"arguments = ["building"]"#,
                "live.arguments names the tag \"building\"; known are priority, status",
            ),
            (
                r#"arguments = ["status"], parameter = "since""#,
                "the parameter \"since\" has a meaning of its own",
            ),
            (r#"arguments = ["status"], parameter = "statuses""#, "the parameter \"statuses\" has a meaning"),
        ] {
            let error = live(rest).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_preset_that_can_not_be_served_says_what_would_be_right() {
        for (toml, error) in [
            (r#"{ path = "a", channels = [] }"#, "preset \"a\": a path begins with /"),
            (r#"{ path = "/{a}", channels = [] }"#, "preset \"/{a}\": a path begins with /"),
            (r#"{ path = "/metrics", channels = [] }"#, "preset /metrics: the path is taken"),
            (
                r#"{ path = "/api/realtime/stream", channels = [] }"#,
                "preset /api/realtime/stream: the path is taken",
            ),
            (
                r#"{ path = "/a", channels = ["x"] }"#,
                "preset /a: there is no channel \"x\"; known are chat, custom, issues, lots, presence",
            ),
            (
                r#"{ path = "/a", channels = [], parameters = { p = "x" } }"#,
                "preset /a: parameter \"p\" names the tag \"x\"; known are priority, status",
            ),
            (
                r#"{ path = "/a", channels = [], parameters = { token = "status" } }"#,
                "preset /a: the parameter \"token\" has a meaning of its own",
            ),
        ] {
            let got = presets(&format!("presets = [{toml}]")).unwrap_err();
            assert!(got.starts_with(error), "{got}");
        }
    }
}
