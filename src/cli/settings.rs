//! What the command line says about the configuration, for every command alike.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ArgAction;

use super::exit::Usage;
use crate::config::{Config, ConfigErrors, Layers, Secret};
use crate::postgres::Dsn;

/// Read when it is there and no other is named.
const DEFAULT_FILE: &str = "walcast.toml";

#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Settings {
    /// The configuration file, also WALCAST_CONFIG; ./walcast.toml if it exists
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Any setting by its name, such as http.keepalive=10s; over variables and file
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", action = ArgAction::Append, value_parser = pair)]
    pub(super) set: Vec<(String, String)>,
    /// http.listen
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<String>,
    /// database.url; other users of this machine can read it here, so prefer DATABASE_URL
    #[arg(long, global = true, value_name = "URL")]
    pub(super) database_url: Option<Secret>,
    /// catalog.path
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) catalog: Option<String>,
}

/// `name=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

impl Settings {
    pub(super) fn load(&self, reference: bool) -> Result<Config, ConfigErrors> {
        let variables = std::env::vars_os();
        let readable =
            variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let default = Path::new(DEFAULT_FILE);
        let named = self.config.clone().or_else(|| variable("WALCAST_CONFIG").map(PathBuf::from));
        Layers {
            reference,
            file: named.as_deref().or_else(|| default.exists().then_some(default)),
            variables: readable.collect(),
            flags: self.flags(),
        }
        .load()
    }

    /// Named flags after `--set`, so that they win.
    pub(super) fn flags(&self) -> Vec<(String, String)> {
        let named = [
            ("http.listen", self.listen.clone()),
            ("database.url", self.database_url.as_ref().map(|url| url.expose().to_owned())),
            ("catalog.path", self.catalog.clone()),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        self.set.iter().cloned().chain(named).collect()
    }
}

/// A variable that says something: an empty one is none, as `${UNSET:-}` in a compose file gives it.
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The database, which most commands need.
pub(super) fn database(config: &Config) -> Result<Dsn, Usage> {
    let text = "no database is configured: set DATABASE_URL, or database.url in walcast.toml";
    let url = config.database.url.as_ref().ok_or_else(|| Usage(text.to_owned()))?;
    Dsn::parse(url.expose()).map_err(|error| Usage(format!("database.url: {error}")))
}

/// The key that development tokens are signed with.
pub(super) fn jwt_secret(config: &Config) -> Result<&Secret, Usage> {
    let text = "no key to sign with: set WALCAST_ACCESS_JWT_SECRET, or access.jwt_secret in walcast.toml";
    config.access.jwt_secret.as_ref().ok_or_else(|| Usage(text.to_owned()))
}

/// Sets up logging; `default` is the filter where WALCAST_LOG says nothing.
pub(super) fn start_logging(default: &str) -> anyhow::Result<()> {
    let filter = std::env::var(crate::telemetry::logging::VARIABLE).ok().filter(|filter| !filter.is_empty());
    crate::telemetry::logging::init(filter.as_deref().unwrap_or(default))
        .map_err(|error| Usage(error.to_string()))
        .context("logging")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_flag_wins_over_set() {
        let settings = Settings {
            set: vec![pair("http.listen=127.0.0.1:1").unwrap()],
            listen: Some("127.0.0.1:2".to_owned()),
            ..Settings::default()
        };
        let config = Layers { flags: settings.flags(), ..Layers::default() }.load().unwrap();
        assert_eq!(config.http.listen.port(), 2);
        assert!(pair("http.listen").is_err());
    }

    #[test]
    fn a_value_may_hold_an_equals_sign() {
        let url = "postgres://h/d?sslmode=disable";
        assert_eq!(pair(&format!("database.url={url}")).unwrap().1, url);
    }
}
