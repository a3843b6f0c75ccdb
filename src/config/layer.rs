//! One layer of settings, each with its origin: read from a file's text, from variables, or from flags.
//!
//! A layer only knows names and shapes; whether a value is right is `load`'s to say. What `toml` itself says about a
//! file is passed on without the line that it would quote: that line may hold a secret.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::keys::{KEYS, Key, Shape};
use super::nearest::{edits, nearest};
use super::preset::Preset;

/// Variables that begin like settings and are none.
const OTHER_VARIABLES: [&str; 4] = ["WALCAST_CONFIG", "WALCAST_LOG", "WALCAST_PG_BIN", "WALCAST_TOKEN"];

/// Edits by which a name is still taken for another one mistyped.
const A_SLIP: usize = 2;

/// Settings by name. Later layers replace what earlier ones say.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) values: BTreeMap<&'static str, (Value, Origin)>,
    pub(super) presets: Vec<(Preset, Origin)>,
    pub(super) errors: Vec<ConfigError>,
}

impl Layer {
    /// Lays `over` on top. A preset replaces the one of its path; others stay.
    pub(super) fn cover(&mut self, over: Self) {
        self.values.extend(over.values);
        for (preset, origin) in over.presets {
            self.presets.retain(|(below, _)| below.path != preset.path);
            self.presets.push((preset, origin));
        }
        self.errors.extend(over.errors);
    }

    /// From the text of a file; `origin` makes the origin of a line.
    pub(super) fn from_toml(text: &str, origin: &dyn Fn(usize) -> Origin) -> Self {
        let mut layer = Self::default();
        let (spans, syntax) = DeTable::parse_recoverable(text);
        for error in &syntax {
            let line = line_of(text, error.span().map_or(0, |span| span.start));
            layer.errors.push(ConfigError::new(origin(line), error.message()));
        }
        if syntax.is_empty() {
            match toml::from_str::<toml::Table>(text) {
                Ok(values) => layer.walk("", &values, spans.get_ref(), text, origin),
                Err(error) => {
                    let line = line_of(text, error.span().map_or(0, |span| span.start));
                    layer.errors.push(ConfigError::new(origin(line), "a value that TOML can't hold"));
                }
            }
        }
        layer
    }

    fn walk(
        &mut self,
        prefix: &str,
        values: &toml::Table,
        spans: &DeTable<'_>,
        text: &str,
        origin: &dyn Fn(usize) -> Origin,
    ) {
        for (name, span) in spans {
            let Some(value) = values.get(name.get_ref().as_ref()) else {
                continue;
            };
            let here = origin(line_of(text, name.span().start));
            let full = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let is_section =
                KEYS.iter().any(|key| key.name.strip_prefix(&full).is_some_and(|rest| rest.starts_with('.')));
            if let Some(key) = Key::find(&full) {
                self.values.insert(key.name, (value.clone(), here));
            } else if full == "presets" {
                self.presets(value, span.get_ref(), text, origin, &here);
            } else if is_section {
                match (value, span.get_ref().as_table()) {
                    (Value::Table(values), Some(spans)) => self.walk(&full, values, spans, text, origin),
                    _ => self
                        .errors
                        .push(ConfigError::new(here, format!("{full} must be a section: [{full}]"))),
                }
            } else {
                self.errors.push(ConfigError::new(here, unknown(&full)));
            }
        }
    }

    fn presets(
        &mut self,
        value: &Value,
        spans: &DeValue<'_>,
        text: &str,
        origin: &dyn Fn(usize) -> Origin,
        here: &Origin,
    ) {
        let (Some(values), Some(spans)) = (value.as_array(), spans.as_array()) else {
            self.errors.push(ConfigError::new(here.clone(), "presets must be a list of tables: [[presets]]"));
            return;
        };
        for (value, span) in values.iter().zip(spans.iter()) {
            let here = origin(line_of(text, span.span().start));
            let mut known = true;
            for name in span.get_ref().as_table().into_iter().flat_map(|table| table.keys()) {
                if !Preset::FIELDS.contains(&name.get_ref().as_ref()) {
                    known = false;
                    let place = origin(line_of(text, name.span().start));
                    let hint = suggestion(nearest(name.get_ref(), Preset::FIELDS));
                    self.errors
                        .push(ConfigError::new(place, format!("a preset has no {}{hint}", name.get_ref())));
                }
            }
            if known {
                match Preset::deserialize(value.clone()) {
                    Ok(preset) if self.presets.iter().any(|(other, _)| other.path == preset.path) => {
                        let text = format!("there is a preset for {} already", preset.path);
                        self.errors.push(ConfigError::new(here, text));
                    }
                    Ok(preset) => self.presets.push((preset, here)),
                    Err(error) => {
                        self.errors.push(ConfigError::new(here, format!("preset: {}", error.message())));
                    }
                }
            }
        }
    }

    /// From the environment: `WALCAST_*`, and `DATABASE_URL` below them. An empty variable is none, so that
    /// `${UNSET:-}` in a compose file sets nothing.
    pub(super) fn from_variables(variables: impl Iterator<Item = (String, String)>) -> Self {
        let mut layer = Self::default();
        for (name, value) in variables.filter(|(_, value)| !value.is_empty()) {
            if name == "DATABASE_URL" {
                layer.values.entry("database.url").or_insert_with(|| (value.into(), Origin::Variable(name)));
            } else if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
                layer.written(key, &value, Origin::Variable(name));
            } else if name == "WALCAST_PRESETS" {
                layer.errors.push(ConfigError::new(
                    Origin::Variable(name),
                    "presets are written in a file: [[presets]]",
                ));
            } else if name.starts_with("WALCAST_")
                && !OTHER_VARIABLES.contains(&name.as_str())
                && !is_service_link(&name)
            {
                let variables: Vec<String> =
                    KEYS.iter().map(Key::variable).chain(OTHER_VARIABLES.map(str::to_owned)).collect();
                if has_no_section(&name) && !variables.iter().any(|known| edits(&name, known) <= A_SLIP) {
                    tracing::warn!(variable = name, "not a variable of walcast: passed over");
                    continue;
                }
                let hint = suggestion(nearest(&name, variables.iter().map(String::as_str)));
                layer.errors.push(ConfigError::new(
                    Origin::Variable(name),
                    format!("not a variable of walcast{hint}"),
                ));
            }
        }
        layer
    }

    /// From flags, in order: the last of a name counts.
    pub(super) fn from_flags(flags: &[(String, String)]) -> Self {
        let mut layer = Self::default();
        for (name, value) in flags {
            let origin = Origin::Flag(name.clone());
            match Key::find(name) {
                Some(key) => layer.written(key, value, origin),
                None => layer.errors.push(ConfigError::new(origin, unknown(name))),
            }
        }
        layer
    }

    fn written(&mut self, key: &'static Key, text: &str, origin: Origin) {
        let value = match key.shape {
            Shape::Text => text.into(),
            // What is no number stays text, for `load` to refuse.
            Shape::Integer => text.trim().parse::<i64>().map_or_else(|_| text.into(), Value::from),
            Shape::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(items.map(Value::from).collect())
            }
        };
        self.values.insert(key.name, (value, origin));
    }
}

/// No setting is called so: all have a section. Whoever packages or deploys walcast has variables of their own, such as
/// `WALCAST_VERSION`.
fn has_no_section(name: &str) -> bool {
    name.strip_prefix("WALCAST_").is_some_and(|rest| !rest.contains('_'))
}

/// Kubernetes sets these for a Service named `walcast`; they are nobody's settings.
fn is_service_link(name: &str) -> bool {
    name == "WALCAST_SERVICE_HOST"
        || name.starts_with("WALCAST_SERVICE_PORT")
        || name.strip_prefix("WALCAST_PORT").is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix('_')
                    .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        })
}

fn unknown(name: &str) -> String {
    let names = KEYS.iter().map(|key| key.name).chain(["presets"]);
    format!("{name} is not a setting{}", suggestion(nearest(name, names)))
}

fn suggestion(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// The line, from 1, that the byte is in.
fn line_of(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|b| *b == b'\n').count() + 1
}
