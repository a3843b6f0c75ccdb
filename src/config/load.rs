//! The layers put together: every value checked where it was written, all mistakes told at once.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Value;

use super::check::{check, check_preset};
use super::error::{ConfigError, ConfigErrors, Origin};
use super::keys::Key;
use super::layer::Layer;
use super::live::Live;
use super::{Config, Preset};

/// The settings of the reference domain: its presets and who is a member of what.
const REFERENCE: &str = include_str!("../../walcast.reference.toml");

/// What a configuration is read from, the lowest first.
#[derive(Clone, Debug, Default)]
pub struct Layers<'a> {
    /// The reference domain's settings below everything else.
    pub reference: bool,
    pub file: Option<&'a Path>,
    pub variables: Vec<(String, String)>,
    /// Pairs of a setting's name and its value.
    pub flags: Vec<(String, String)>,
}

impl Config {
    /// Reads `file`, over it the environment's `WALCAST_*` variables, over them `flags`.
    ///
    /// # Errors
    /// Every mistake found, in the order of the layers.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Self, ConfigErrors> {
        Layers { reference: false, file, variables: env.collect(), flags: flags.to_vec() }.load()
    }

    /// The settings of the reference domain alone: its presets and access.
    #[must_use]
    #[allow(clippy::expect_used, reason = "the text is part of the binary, and a test loads it")]
    pub fn reference() -> Self {
        Layers { reference: true, ..Layers::default() }.load().expect("walcast.reference.toml is right")
    }
}

impl Layers<'_> {
    /// # Errors
    /// Every mistake found.
    pub fn load(self) -> Result<Config, ConfigErrors> {
        let mut all = Layer::default();
        if self.reference {
            let mut reference = Layer::from_toml(REFERENCE, &|line| Origin::Reference { line });
            reference.presets.iter_mut().filter_map(|(preset, _)| preset.live.as_mut()).for_each(Live::embed);
            all.cover(reference);
        }
        if let Some(path) = self.file {
            let origin = |line| Origin::File { path: path.to_owned(), line };
            match std::fs::read_to_string(path) {
                Ok(text) => all.cover(Layer::from_toml(&text, &origin)),
                Err(error) => all.errors.push(ConfigError::new(origin(0), format!("can't be read: {error}"))),
            }
        }
        all.cover(Layer::from_variables(self.variables.into_iter()));
        all.cover(Layer::from_flags(&self.flags));
        build(all)
    }
}

pub(super) fn build(layer: Layer) -> Result<Config, ConfigErrors> {
    let Layer { values, presets, mut errors } = layer;
    let mut document = toml::Table::new();
    for (name, (value, origin)) in &values {
        let mut alone = toml::Table::new();
        insert(&mut alone, name, value.clone());
        if Config::deserialize(Value::Table(alone)).is_ok() {
            insert(&mut document, name, value.clone());
        } else {
            errors.push(ConfigError::new(origin.clone(), refusal(name, value)));
        }
    }
    for (preset, origin) in &presets {
        errors.extend(check_preset(preset).into_iter().map(|text| ConfigError::new(origin.clone(), text)));
    }
    let mut config = Config::deserialize(Value::Table(document))
        .map_err(|error| ConfigError::new(Origin::Default, error.message()))?;
    for (name, text) in check(&config) {
        errors.push(ConfigError::new(origin_of(name, &values), text));
    }
    config.presets = presets.into_iter().map(|(preset, _): (Preset, Origin)| preset).collect();
    errors.sort_by(|a, b| a.origin.cmp(&b.origin));
    if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
}

/// Where the setting was written; for one left out of a section, where its section was.
fn origin_of(name: &str, values: &BTreeMap<&'static str, (Value, Origin)>) -> Origin {
    let section = name.rsplit_once('.').map_or(name, |(section, _)| section);
    let sibling = || values.iter().find(|(key, _)| key.rsplit_once('.').is_some_and(|(s, _)| s == section));
    values
        .get(name)
        .or_else(|| sibling().map(|(_, entry)| entry))
        .map_or(Origin::Default, |(_, origin)| origin.clone())
}

fn refusal(name: &str, value: &Value) -> String {
    let Some(key) = Key::find(name) else {
        return format!("{name} is wrong");
    };
    if key.secret {
        return format!("{name} must be {}", key.expects);
    }
    format!("{name} must be {}, not {value}", key.expects)
}

/// Sets a dotted name, making its tables.
fn insert(table: &mut toml::Table, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            table.insert(name.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(toml::Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
