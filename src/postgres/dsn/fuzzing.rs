//! What the fuzzers assert of connection texts.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use super::{Dsn, Host};

const PASSWORD: &str = "the-password-of-the-fuzzer";

/// Any text as a database's URL or as keyword=value pairs. What was read prints as a URL that reads the same, and no
/// text made of it holds its password. Nor does an error about it, wherever around the password the mistake is.
pub fn dsns(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(dsn) = Dsn::parse(text) {
        prints_as_it_was(&dsn);
    }
    let (before, after) = text.split_once('\n').unwrap_or(("", text));
    let userless = !before.contains([':', '/', '?', '#', '@']);
    let unquoted = !before.contains(['\'', '\\']);
    let url = format!("postgres://{before}:{PASSWORD}{after}");
    let pairs = format!("{before} password={PASSWORD}{after}");
    for (text, applies) in [(url, userless), (pairs, unquoted && !text.contains("://"))] {
        if !applies || after.contains(PASSWORD) || before.contains(PASSWORD) {
            continue;
        }
        match Dsn::parse(&text) {
            Err(error) => assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}"),
            Ok(dsn) => prints_as_it_was(&dsn),
        }
    }
}

fn prints_as_it_was(dsn: &Dsn) {
    let shown = dsn.to_string();
    let again = Dsn::parse(&shown).expect("what is printed is a URL");
    assert_eq!((&again.user, &again.database), (&dsn.user, &dsn.database), "{shown}");
    assert_eq!(again.ssl.mode, dsn.ssl.mode, "{shown}");
    assert_eq!(again.hosts, dsn.hosts, "{shown}");
    assert!(!dsn.hosts.is_empty());
    assert!(
        dsn.hosts.iter().all(|host| host.port() > 0 && host != &Host::Tcp { host: String::new(), port: 0 })
    );
    if dsn.password.as_ref().is_some_and(|password| password.expose() == PASSWORD) {
        assert!(!format!("{dsn} {dsn:?}").contains(PASSWORD));
    }
}
