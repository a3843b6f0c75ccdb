//! What the section `access` must be beyond its types. No text repeats a secret.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::{Access, AuthJs, Memberships, Organizations, Secret};

/// Clocks that are further apart are to be set, not to be allowed for.
const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// Each stream costs a query as often.
const LEAST_RECHECK: Duration = Duration::from_secs(1);

/// Bytes of a cookie's name: it goes into the derivation of keys.
const MAX_COOKIE_NAME: usize = 100;

type Wrong = Vec<(&'static str, String)>;

pub(super) fn check(access: &Access) -> Wrong {
    let mut wrong = Wrong::new();
    let mut must = |holds: bool, name: &'static str, text: &str| {
        if !holds {
            wrong.push((name, format!("{name} must be {text}")));
        }
    };
    must(is_given(access.jwt_secret.as_ref()), "access.jwt_secret", SECRET);
    let jwks = access.jwks_url.as_ref().is_none_or(|text| is_key_source(text));
    must(
        jwks,
        "access.jwks_url",
        "an https URL without a user, such as \"https://id.example.com/.well-known/jwks.json\", an http URL of this \
         machine (http://127.0.0.1:8081/jwks), or the path of a file",
    );
    must(access.leeway <= MAX_LEEWAY, "access.leeway", "at most \"5m\": set the clocks instead");
    for (name, cookie) in
        [("access.cookie", &access.cookie), ("access.session_cookie", &access.session_cookie)]
    {
        must(cookie.as_ref().is_none_or(|name| is_cookie_name(name)), name, COOKIE);
    }
    must(
        access.session_query.is_none() || access.session_cookie.is_some(),
        "access.session_query",
        "given with access.session_cookie: the name of the cookie whose value is its $1",
    );
    must(
        access.session_cookie.is_none() || access.session_query.is_some(),
        "access.session_cookie",
        "given with access.session_query: a file such as sql/access/session.sql",
    );
    let recheck = access.session_recheck;
    must(
        recheck.is_zero() || recheck >= LEAST_RECHECK,
        "access.session_recheck",
        "\"1s\" or more, or \"0s\" for never",
    );
    // Of two kinds at once it would be open which one decides.
    for (name, other) in [
        ("access.authjs", access.cookie.is_some()),
        ("access.session_query", access.cookie.is_some() || access.authjs.is_some()),
    ] {
        let given =
            if name == "access.authjs" { access.authjs.is_some() } else { access.session_query.is_some() };
        must(
            !given || !other,
            name,
            "the only kind of cookie: of access.cookie, access.authjs and access.session_query one can be set",
        );
    }
    must(
        access.emitters.iter().all(|subject| !subject.is_empty()),
        "access.emitters",
        "a list of subjects, as the claim sub of services' tokens says them",
    );
    if let Some(authjs) = &access.authjs {
        check_authjs(authjs, &mut must);
    }
    if let Some(memberships) = &access.memberships {
        check_memberships(memberships, &mut must);
    }
    if let Some(organizations) = &access.organizations {
        check_organizations(organizations, &mut must);
    }
    wrong
}

const SECRET: &str = "a text such as what `openssl rand -hex 32` prints";
const COOKIE: &str = "a cookie's name: at most 100 letters, digits and -_.";
const TOGETHER: &str = "given with the others of its section";

fn check_authjs(authjs: &AuthJs, must: &mut impl FnMut(bool, &'static str, &str)) {
    must(
        matches!(authjs.version, 4 | 5),
        "access.authjs.version",
        "4 (next-auth 4) or 5 (next-auth 5, @auth/core)",
    );
    must(
        authjs.secret.is_some() && is_given(authjs.secret.as_ref()),
        "access.authjs.secret",
        "the application's AUTH_SECRET or NEXTAUTH_SECRET",
    );
    let old = authjs.old_secrets.iter().all(|secret| is_given(Some(secret)));
    must(old, "access.authjs.old_secrets", "a list of secrets that are not empty");
    must(authjs.cookie.as_ref().is_none_or(|name| is_cookie_name(name)), "access.authjs.cookie", COOKIE);
}

fn check_memberships(memberships: &Memberships, must: &mut impl FnMut(bool, &'static str, &str)) {
    must(!memberships.table.is_empty(), "access.memberships.table", TOGETHER);
    must(!memberships.organization.is_empty(), "access.memberships.organization", TOGETHER);
    must(!memberships.user.is_empty(), "access.memberships.user", TOGETHER);
}

fn check_organizations(organizations: &Organizations, must: &mut impl FnMut(bool, &'static str, &str)) {
    must(!organizations.table.is_empty(), "access.organizations.table", TOGETHER);
    must(!organizations.id.is_empty(), "access.organizations.id", TOGETHER);
    must(!organizations.name.is_empty(), "access.organizations.name", TOGETHER);
}

/// Not set, or something.
fn is_given(secret: Option<&Secret>) -> bool {
    secret.is_none_or(|secret| !secret.expose().is_empty())
}

/// A token of RFC 9110, 5.6.2, as far as cookies' names use it.
fn is_cookie_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=MAX_COOKIE_NAME).contains(&name.len()) && name.bytes().all(plain)
}

/// What is fetched without TLS could be anybody's, unless it does not leave the machine.
fn is_key_source(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once("://") else {
        return !text.is_empty();
    };
    let Ok(uri) = text.parse::<http::Uri>() else {
        return false;
    };
    let bare = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    bare && match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => uri.host().is_some_and(is_this_machine),
        _ => false,
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(access: &Access) -> Vec<&'static str> {
        check(access).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn keys_come_by_tls_or_from_this_machine() {
        for right in [
            "https://id.example.com/jwks",
            "HTTPS://id.example.com",
            "http://127.0.0.1:8081/jwks",
            "http://localhost/jwks",
            "http://[::1]:80/",
            "keys/jwks.json",
            "/etc/walcast/jwks.json",
        ] {
            assert!(is_key_source(right), "{right}");
        }
        for wrong in [
            "",
            "http://id.example.com/jwks",
            "http://127.0.0.1.example.com/",
            "http://localhost.example.com/",
            "https://user:secret@id.example.com/",
            "file:///etc/jwks.json",
            "ftp://127.0.0.1/",
            "https://",
        ] {
            assert!(!is_key_source(wrong), "{wrong}");
        }
    }

    #[test]
    fn one_kind_of_cookie_is_read_and_its_parts_are_given_together() {
        let authjs =
            AuthJs { version: 5, secret: Some("s".to_owned().into()), cookie: None, old_secrets: Vec::new() };
        let good = Access { authjs: Some(authjs.clone()), ..Access::default() };
        assert_eq!(named(&good), Vec::<&str>::new());
        assert_eq!(named(&Access { cookie: Some("c".to_owned()), ..good.clone() }), ["access.authjs"]);
        let both = Access {
            session_query: Some("q.sql".into()),
            session_cookie: Some("sid".to_owned()),
            ..good.clone()
        };
        assert_eq!(named(&both), ["access.session_query"]);
        assert_eq!(named(&Access { authjs: None, ..both.clone() }), Vec::<&str>::new());
        assert_eq!(
            named(&Access { authjs: None, session_cookie: None, ..both.clone() }),
            ["access.session_query"]
        );
        assert_eq!(named(&Access { authjs: None, session_query: None, ..both }), ["access.session_cookie"]);
        let wrong = AuthJs { version: 3, secret: None, cookie: Some("a b".to_owned()), ..authjs };
        assert_eq!(
            named(&Access { authjs: Some(wrong), ..good }),
            ["access.authjs.version", "access.authjs.secret", "access.authjs.cookie"]
        );
    }

    #[test]
    fn sessions_are_asked_about_at_most_each_second_and_emitters_have_names() {
        let recheck = |millis| Access { session_recheck: Duration::from_millis(millis), ..Access::default() };
        assert_eq!(named(&recheck(0)), Vec::<&str>::new());
        assert_eq!(named(&recheck(1000)), Vec::<&str>::new());
        assert_eq!(named(&recheck(999)), ["access.session_recheck"]);
        let emitters = |name: &str| Access { emitters: vec![name.to_owned()], ..Access::default() };
        assert_eq!(named(&emitters("importer")), Vec::<&str>::new());
        assert_eq!(named(&emitters("")), ["access.emitters"]);
    }

    #[test]
    fn no_answer_repeats_a_secret() {
        let authjs = AuthJs {
            version: 6,
            secret: Some("hidden".to_owned().into()),
            old_secrets: vec![String::new().into(), "hidden".to_owned().into()],
            cookie: None,
        };
        let access = Access { authjs: Some(authjs), ..Access::default() };
        let told = format!("{:?} {access:?}", check(&access));
        assert!(told.contains("access.authjs.old_secrets") && !told.contains("hidden"), "{told}");
    }
}
