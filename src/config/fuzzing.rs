//! What the fuzzers assert of configurations.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use std::time::Duration;

use super::error::Origin;
use super::keys::KEYS;
use super::layer::Layer;
use super::load::build;
use super::{Config, parse_duration};

const SECRET: &str = "the-secret-of-the-fuzzer";

/// The first byte names a setting; up to the next line break any text as its value, after it any text as walcast.toml.
/// Every mistake names its place; no secret stands in one, whatever else is wrong beside it.
pub fn settings(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let (value, file) = rest.split_once('\n').unwrap_or((rest, ""));
    let Some(key) = KEYS.get(usize::from(*which) % KEYS.len()) else { return };
    let _ = load(file, vec![]);
    let _ = load(file, vec![(key.name.to_owned(), value.to_owned())]);

    // A secret in its own setting, whatever stands around it.
    let guarded = |key: &str| format!("{file}\n[{}]\n{} = \"{SECRET}", section(key), name(key));
    if !rest.contains(SECRET) {
        for secret in KEYS.iter().filter(|key| key.secret) {
            let value = value.replace(['"', '\\'], "");
            for text in
                [format!("{}{value}\"", guarded(secret.name)), format!("{}{value}", guarded(secret.name))]
            {
                let told = load(&text, vec![]).err().unwrap_or_default();
                assert!(!told.contains(SECRET), "{told}");
            }
            let told = load(file, vec![(secret.name.to_owned(), format!("{value}{SECRET}"))]);
            assert!(!told.err().unwrap_or_default().contains(SECRET));
        }
    }

    if let Some(duration) = parse_duration(value) {
        assert!(duration <= Duration::MAX && value.starts_with(|c: char| c.is_ascii_digit()), "{value:?}");
    }
}

fn section(key: &str) -> &str {
    key.rsplit_once('.').map_or("", |(section, _)| section)
}

fn name(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, name)| name)
}

/// What is wrong with it.
fn load(file: &str, flags: Vec<(String, String)>) -> Result<Config, String> {
    let origin = |line| Origin::File { path: "walcast.toml".into(), line };
    let mut layer = Layer::from_toml(file, &origin);
    layer.cover(Layer::from_flags(&flags));
    let lines = file.lines().count();
    build(layer).map_err(|errors| {
        assert!(!errors.0.is_empty());
        for error in &errors.0 {
            assert!(!error.text.is_empty());
            if let Origin::File { line, .. } = &error.origin {
                assert!(*line <= lines.max(1) + 1, "{error}: the file has {lines} lines");
            }
        }
        errors.to_string()
    })
}
