//! What a preset must be beyond its types.

use std::time::Duration;

use super::{NAMES, is_name};
use crate::config::{Live, Preset};

/// Paths that are the worker's own.
const RESERVED: [&str; 9] = [
    "/",
    "/health",
    "/healthz",
    "/readyz",
    "/metrics",
    "/api/realtime/stream",
    "/api/realtime/events",
    "/api/realtime/tickets",
    "/api/realtime/stats",
];

/// The shortest interval at which a query may be asked: more often is what events are for.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Arguments of a query, at most.
const MAX_ARGUMENTS: usize = 32;

/// What is wrong with it.
pub(in crate::config) fn check(preset: &Preset) -> Vec<String> {
    let mut wrong = Vec::new();
    let path = &preset.path;
    let plain = |b: u8| b.is_ascii_graphic() && !b"{}*?#%\"\\<>^`|".contains(&b);
    if !path.starts_with('/')
        || path.contains("//")
        || !path.bytes().all(plain)
        || (path.len() > 1 && path.ends_with('/'))
    {
        wrong.push(format!("a preset's path must be one such as \"/api/events\"; {path:?} is not"));
    }
    if RESERVED.contains(&path.as_str()) {
        wrong.push(format!("{path} is a path of the worker's own: a preset must have another"));
    }
    if preset.channels.is_empty() {
        wrong.push(format!("the preset {path} must have channels: without any it would show nothing"));
    }
    let tags = preset.parameters.values();
    for name in preset.channels.iter().chain(tags).filter(|name| !is_name(name)) {
        wrong.push(format!("channels and tags of the preset {path} must be {NAMES}; {name:?} is not"));
    }
    if let Some(live) = &preset.live {
        check_live(preset, live, &mut wrong);
    }
    wrong
}

fn check_live(preset: &Preset, live: &Live, wrong: &mut Vec<String>) {
    let path = &preset.path;
    if live.sql.as_os_str().is_empty() {
        wrong.push(format!("live.sql of the preset {path} must be a file with a query"));
    }
    for argument in live.arguments.iter().filter(|argument| !is_name(argument)) {
        wrong.push(format!("live.arguments of the preset {path} must be tags: {NAMES}; {argument:?} is not"));
    }
    let repeated = live
        .arguments
        .iter()
        .enumerate()
        .any(|(n, name)| live.arguments.iter().take(n).any(|other| other == name));
    if repeated || live.arguments.len() > MAX_ARGUMENTS {
        wrong.push(format!(
            "live.arguments of the preset {path} must be at most {MAX_ARGUMENTS} tags, each once"
        ));
    }
    // Its streams would hear of fewer changes than there are.
    for (parameter, tag) in preset.parameters.iter().filter(|(_, tag)| !live.arguments.contains(*tag)) {
        wrong.push(format!(
            "the parameter {parameter} of the preset {path} must name one of live.arguments; the query does not know {tag:?}"
        ));
    }
    if live.min_interval < MIN_INTERVAL {
        wrong.push(format!("live.min_interval of the preset {path} must be at least \"100ms\""));
    }
    if live.interval < live.min_interval {
        wrong.push(format!("live.interval of the preset {path} must be at least live.min_interval"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Keepalive;

    #[test]
    fn a_preset_has_a_path_of_its_own_and_channels() {
        let preset = |path: &str| Preset {
            path: path.to_owned(),
            channels: vec!["issues".to_owned()],
            parameters: [("priorities".to_owned(), "priority".to_owned())].into(),
            keepalive: Keepalive::Comment,
            live: None,
        };
        assert_eq!(check(&preset("/api/realtime/issues/stream")), Vec::<String>::new());
        for wrong in ["api", "/a?b", "/a/{id}", "/a/", "//a", "/healthz", "/", "/a b"] {
            assert!(!check(&preset(wrong)).is_empty(), "{wrong}");
        }
        assert!(!check(&Preset { channels: Vec::new(), ..preset("/a") }).is_empty());
        assert!(!check(&Preset { channels: vec!["a b".to_owned()], ..preset("/a") }).is_empty());
    }

    #[test]
    fn a_live_preset_says_what_its_query_is_told() {
        let check = |live: &str| {
            let text = format!(
                "path = \"/live\"\nchannels = [\"heatmap\"]\nparameters = {{ buildings = \"buildingId\" }}\n[live]\n{live}"
            );
            super::check(&toml::from_str(&text).unwrap()).join("\n")
        };
        assert_eq!(check("sql = \"a.sql\"\narguments = [\"buildingId\", \"category\"]"), "");
        for (live, told) in [
            ("sql = \"\"\narguments = [\"buildingId\"]", "live.sql of the preset /live must be a file"),
            ("sql = \"a\"", "the parameter buildings of the preset /live must name one of live.arguments"),
            ("sql = \"a\"\narguments = [\"buildingId\", \"a b\"]", "must be tags: names of 1 to 100"),
            ("sql = \"a\"\narguments = [\"buildingId\", \"buildingId\"]", "at most 32 tags, each once"),
            (
                "sql = \"a\"\narguments = [\"buildingId\"]\ninterval = \"4s\"",
                "live.interval of the preset /live must be at least live.min_interval",
            ),
            (
                "sql = \"a\"\narguments = [\"buildingId\"]\nmin_interval = \"99ms\"",
                "live.min_interval of the preset /live must be at least \"100ms\"",
            ),
        ] {
            assert!(check(live).contains(told), "{}", check(live));
        }
    }
}
