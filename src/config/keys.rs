//! Every setting by name: how it is written, and what a right value looks like.
//!
//! The sections' structs say what a value becomes; this table says how people give it. A test holds the two together.

/// How a setting is written in a variable or a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Text,
    Integer,
    /// Comma-separated.
    List,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in the file: `http.listen`.
    pub name: &'static str,
    pub shape: Shape,
    /// What a right value is, to follow "must be".
    pub expects: &'static str,
    /// Its value is never printed.
    pub secret: bool,
}

impl Key {
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// `WALCAST_HTTP_LISTEN` for `http.listen`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("WALCAST_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

const fn text(name: &'static str, expects: &'static str) -> Key {
    Key { name, shape: Shape::Text, expects, secret: false }
}

const fn secret(name: &'static str, expects: &'static str) -> Key {
    Key { name, shape: Shape::Text, expects, secret: true }
}

const fn secrets(name: &'static str, expects: &'static str) -> Key {
    Key { name, shape: Shape::List, expects, secret: true }
}

const fn count(name: &'static str) -> Key {
    Key { name, shape: Shape::Integer, expects: "a whole number, 0 for no limit", secret: false }
}

const fn list(name: &'static str, expects: &'static str) -> Key {
    Key { name, shape: Shape::List, expects, secret: false }
}

const DURATION: &str = "a duration such as \"30s\" or \"10m\"";
const SIZE: &str = "a size such as \"256MiB\"";
const ADDRESS: &str = "an address such as \"127.0.0.1:8080\"";
const TABLE: &str = "the name of a table";
const COLUMN: &str = "the name of a column";

/// All settings but `presets`, which only a file can hold.
pub const KEYS: &[Key] = &[
    secret("database.url", "a URL such as \"postgres://user@localhost:5432/app\""),
    text("source.kind", "\"auto\", \"wal\" or \"outbox\""),
    text("source.slot", "a slot's name: at most 63 of a-z, 0-9 and _"),
    text("source.publication", "a publication's name"),
    text("source.max_transaction", SIZE),
    text("source.max_row", SIZE),
    text("source.max_outbox", SIZE),
    text("replay.max_age", DURATION),
    text("replay.max_memory", SIZE),
    text("replay.max_wal", SIZE),
    text("journal.max_event", SIZE),
    text("mirror.max_memory", SIZE),
    text("catalog.path", "the path of a TOML file or of a folder of them"),
    list("channels.extra", "a list of channel names"),
    text("http.listen", ADDRESS),
    text("http.admin_listen", ADDRESS),
    text("http.keepalive", DURATION),
    text("http.write_timeout", DURATION),
    text("http.drain", DURATION),
    list("http.allowed_origins", "a list of origins such as \"https://app.example.com\""),
    list("http.trusted_proxies", "a list of addresses or networks such as \"10.0.0.0/8\""),
    secret("access.jwt_secret", "a text, best of 32 bytes or more"),
    list("access.jwt_public_keys", "a list of PEM files"),
    text("access.jwks_url", "an https URL, an http URL of this machine, or a file's path"),
    list("access.algorithms", "a list of HS256, RS256, ES256 and EdDSA"),
    text("access.issuer", "a text"),
    text("access.audience", "a text"),
    text("access.leeway", DURATION),
    text("access.cookie", "a cookie's name"),
    Key { name: "access.authjs.version", shape: Shape::Integer, expects: "4 or 5", secret: false },
    secret("access.authjs.secret", "a text: the application's AUTH_SECRET"),
    secrets("access.authjs.old_secrets", "a list of texts"),
    text("access.authjs.cookie", "a cookie's name"),
    text("access.session_query", "the path of a file with a query"),
    text("access.session_cookie", "a cookie's name"),
    text("access.session_recheck", DURATION),
    list("access.emitters", "a list of subjects"),
    text("access.memberships.table", TABLE),
    text("access.memberships.organization", COLUMN),
    text("access.memberships.user", COLUMN),
    text("access.memberships.role", COLUMN),
    text("access.organizations.table", TABLE),
    text("access.organizations.id", COLUMN),
    text("access.organizations.name", COLUMN),
    text("access.max_staleness", DURATION),
    count("limits.streams_per_user"),
    count("limits.streams_per_address"),
    count("limits.streams"),
    count("limits.opens_per_second"),
    count("limits.events_per_minute"),
    text("limits.when_full", "\"refuse\" or \"evict_oldest\""),
    text("canary.interval", DURATION),
    text("canary.stale_after", DURATION),
    text("presence.grace", DURATION),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Config;

    /// The fields of a struct, from what its deserializer says when it meets an unknown one.
    fn fields(section: &str) -> Vec<String> {
        let document = if section.is_empty() { "zz = 1".to_owned() } else { format!("[{section}]\nzz = 1") };
        let error = toml::from_str::<Config>(&document).unwrap_err();
        let expected = error.message().split_once("expected ").unwrap().1.to_owned();
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_field_of_every_section_is_a_key_and_every_key_is_a_field() {
        let mut found = BTreeSet::new();
        for section in fields("").into_iter().filter(|section| section != "presets") {
            for field in fields(&section) {
                let name = format!("{section}.{field}");
                if ["access.authjs", "access.memberships", "access.organizations"].contains(&name.as_str()) {
                    found.extend(fields(&name).into_iter().map(|field| format!("{name}.{field}")));
                } else {
                    found.insert(name);
                }
            }
        }
        let known: BTreeSet<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
        assert_eq!(found, known);
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let variables: BTreeSet<String> = KEYS.iter().map(Key::variable).collect();
        assert_eq!(variables.len(), KEYS.len());
        assert!(variables.contains("WALCAST_ACCESS_MEMBERSHIPS_TABLE"));
    }
}
