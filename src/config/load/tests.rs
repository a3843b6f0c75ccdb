use std::io::Write;
use std::time::Duration;

use super::*;
use crate::config::{ByteSize, Keepalive, SourceKind, WhenFull};

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("walcast.toml");
    std::fs::File::create(&path).unwrap().write_all(file.as_bytes()).unwrap();
    let prefix = format!("{}/", folder.path().display());
    Config::load(Some(&path), pairs(env).into_iter(), &pairs(flags))
        .map_err(|errors| errors.to_string().lines().map(|line| line.replace(&prefix, "")).collect())
}

#[test]
fn flags_stand_over_variables_over_the_file_over_defaults() {
    let file = "[http]\nlisten = \"127.0.0.1:1\"\nkeepalive = \"10s\"\ndrain = \"1s\"\n";
    let env = [("WALCAST_HTTP_LISTEN", "127.0.0.1:2"), ("WALCAST_HTTP_KEEPALIVE", "20s")];
    let config = load(file, &env, &[("http.listen", "127.0.0.1:3")]).unwrap();
    assert_eq!(config.http.listen.port(), 3);
    assert_eq!(config.http.keepalive, Duration::from_secs(20));
    assert_eq!(config.http.drain, Duration::from_secs(1));
    assert_eq!(config.http.write_timeout, Duration::from_secs(30));
}

#[test]
fn database_url_stands_below_its_walcast_variable_and_above_the_file() {
    let file = "[database]\nurl = \"postgres://file\"";
    let url = |env: &[(&str, &str)]| load(file, env, &[]).unwrap().database.url.unwrap().expose().to_owned();
    assert_eq!(url(&[]), "postgres://file");
    assert_eq!(url(&[("DATABASE_URL", "postgres://plain")]), "postgres://plain");
    let both = [("WALCAST_DATABASE_URL", "postgres://own"), ("DATABASE_URL", "postgres://plain")];
    assert_eq!(url(&both), "postgres://own");
    let both = [("DATABASE_URL", "postgres://plain"), ("WALCAST_DATABASE_URL", "postgres://own")];
    assert_eq!(url(&both), "postgres://own");
}

#[test]
fn variables_reach_every_shape_of_setting() {
    let env = [
        ("WALCAST_SOURCE_KIND", "outbox"),
        ("WALCAST_REPLAY_MAX_MEMORY", "8MiB"),
        ("WALCAST_LIMITS_STREAMS", "5"),
        ("WALCAST_LIMITS_WHEN_FULL", "evict_oldest"),
        ("WALCAST_HTTP_ALLOWED_ORIGINS", "https://a.example, https://b.example"),
        ("WALCAST_ACCESS_MEMBERSHIPS_TABLE", "memberships"),
        ("WALCAST_ACCESS_MEMBERSHIPS_ORGANIZATION", "organization_id"),
        ("WALCAST_ACCESS_MEMBERSHIPS_USER", "user_id"),
        ("WALCAST_ACCESS_ISSUER", ""),
        ("WALCAST_LOG", "debug"),
        ("PATH", "/bin"),
    ];
    let config = load("", &env, &[]).unwrap();
    assert_eq!(config.source.kind, SourceKind::Outbox);
    assert_eq!(config.replay.max_memory, ByteSize(8 << 20));
    assert_eq!(config.limits.streams, 5);
    assert_eq!(config.limits.when_full, WhenFull::EvictOldest);
    assert_eq!(config.http.allowed_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.access.memberships.unwrap().user, "user_id");
    assert_eq!(config.access.issuer, None);
}

#[test]
fn unknown_names_are_told_with_their_place_and_the_nearest_known() {
    let file = "jwt_secret = \"x\"\n[http]\nlissten = \"127.0.0.1:1\"\n\n[nonsense]\na = 1\n[[presets]]\npth = \"/a\"\n";
    let errors = load(file, &[("WALCAST_HTTP_LISTN", "x")], &[("http.port", "1"), ("zzz.zzzzzzzzz", "1")]);
    assert_eq!(
        errors.unwrap_err(),
        [
            "walcast.toml:1: jwt_secret is not a setting; did you mean access.jwt_secret?",
            "walcast.toml:3: http.lissten is not a setting; did you mean http.listen?",
            "walcast.toml:5: nonsense is not a setting",
            "walcast.toml:8: a preset has no pth; did you mean path?",
            "WALCAST_HTTP_LISTN: not a variable of walcast; did you mean WALCAST_HTTP_LISTEN?",
            "flag http.port: http.port is not a setting; did you mean http.listen?",
            "flag zzz.zzzzzzzzz: zzz.zzzzzzzzz is not a setting",
        ]
    );
}

#[test]
fn wrong_values_say_what_would_be_right() {
    let file = "http = 3\n[source]\nkind = \"kafka\"\n[limits]\nstreams = -1\n[replay]\nmax_age = 600\n";
    let env = [("WALCAST_HTTP_LISTEN", "8080"), ("WALCAST_LIMITS_OPENS_PER_SECOND", "many")];
    assert_eq!(
        load(file, &env, &[("http.keepalive", "1ms")]).unwrap_err(),
        [
            "walcast.toml:1: http must be a section: [http]",
            "walcast.toml:3: source.kind must be \"auto\", \"wal\" or \"outbox\", not \"kafka\"",
            "walcast.toml:5: limits.streams must be a whole number, 0 for no limit, not -1",
            "walcast.toml:7: replay.max_age must be a duration such as \"30s\" or \"10m\", not 600",
            "WALCAST_HTTP_LISTEN: http.listen must be an address such as \"127.0.0.1:8080\", not \"8080\"",
            "WALCAST_LIMITS_OPENS_PER_SECOND: limits.opens_per_second must be a whole number, 0 for no limit, \
             not \"many\"",
            "flag http.keepalive: http.keepalive must be at least \"100ms\"",
        ]
    );
}

#[test]
fn mistakes_in_access_are_told_by_name_and_without_the_secret() {
    let told = |file: &str, env: &[(&str, &str)]| load(file, env, &[]).unwrap_err().join("\n");
    for (file, text) in [
        (
            "[access]\njwks_uri = \"x\"",
            "walcast.toml:2: access.jwks_uri is not a setting; did you mean access.jwks_url?",
        ),
        (
            "[access]\njwks_url = \"http://id.example.com/jwks\"",
            "walcast.toml:2: access.jwks_url must be an https URL",
        ),
        (
            "[access]\nalgorithms = [\"hs256\"]",
            "access.algorithms must be a list of HS256, RS256, ES256 and EdDSA, not",
        ),
        ("[access]\nleeway = \"1h\"", "walcast.toml:2: access.leeway must be at most \"5m\""),
        (
            "[access.authjs]\nsecrt = \"hidden\"",
            "access.authjs.secrt is not a setting; did you mean access.authjs.secret?",
        ),
        ("[access.authjs]\nversion = 5\nsecret = 7", "walcast.toml:3: access.authjs.secret must be a text"),
        (
            "[access.authjs]\nversion = 3\nsecret = \"hidden\"",
            "walcast.toml:2: access.authjs.version must be 4 (next-auth 4)",
        ),
        ("[access.authjs]\nversion = 5", "walcast.toml:2: access.authjs.secret must be the application's"),
        (
            "[access.authjs]\nversion = 5\nsecret = \"hidden\"\nold_secrets = \"hidden\"",
            "walcast.toml:4: access.authjs.old_secrets must be a list of texts",
        ),
        (
            "[access]\nsession_query = \"q.sql\"",
            "walcast.toml:2: access.session_query must be given with access.session_cookie",
        ),
    ] {
        let told = told(file, &[]);
        assert!(told.contains(text) && !told.contains("hidden"), "{told}");
    }
    let env = [
        ("WALCAST_ACCESS_AUTHJS_VERSION", "5"),
        ("WALCAST_ACCESS_AUTHJS_SECRET", "hidden"),
        ("WALCAST_ACCESS_AUTHJS_OLD_SECRETS", "hidden-1,hidden-2"),
        ("WALCAST_ACCESS_ALGORITHMS", "ES256,EdDSA"),
    ];
    let access = load("", &env, &[]).unwrap().access;
    assert_eq!(access.algorithms, [crate::config::Algorithm::ES256, crate::config::Algorithm::EdDSA]);
    assert_eq!(access.authjs.as_ref().unwrap().old_secrets.len(), 2);
    assert!(!format!("{access:?}").contains("hidden"));
    let both = [env[0], env[1], ("WALCAST_ACCESS_COOKIE", "jwt")];
    assert!(told("", &both).contains("access.authjs must be the only kind of cookie"), "{}", told("", &both));
}

#[test]
fn a_secret_never_prints() {
    const LOOSE: &str = "hunter2-hunter2";
    let files = [
        format!("[access]\njwt_secret = {LOOSE}\n"),
        format!("[access]\njwt_secret = \"{LOOSE}\n"),
        format!("[access]\njwt_secret = [\"{LOOSE}\"]\n"),
        format!("[access]\njwt_secret = \"{LOOSE}\" trailing\n"),
        format!("[access]\njwt_secret.a = \"{LOOSE}\"\n"),
        format!("[database]\nurl = \"mysql://root:{LOOSE}@h/d\"\n"),
        format!("[database]\nurl = postgres://root:{LOOSE}@h/d\n"),
    ];
    for file in files {
        let errors = load(&file, &[], &[]).unwrap_err();
        assert!(!errors.join("\n").contains("hunter2"), "{errors:?}");
        assert!(errors.iter().all(|error| error.starts_with("walcast.toml:2: ")), "{errors:?}");
    }
    let env = [("WALCAST_ACCESS_JWT_SECRET", LOOSE), ("DATABASE_URL", LOOSE)];
    let errors = load("", &env, &[]).unwrap_err().join("\n");
    assert!(errors.contains("DATABASE_URL: database.url must be"), "{errors}");
    assert!(!errors.contains("hunter2"), "{errors}");

    let config = load(&format!("[access]\njwt_secret = \"{LOOSE}{LOOSE}{LOOSE}\""), &[], &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_half_written_section_is_told_where_its_other_half_is() {
    let file = "[access.memberships]\ntable = \"memberships\"\nuser = \"user_id\"\n";
    assert_eq!(
        load(file, &[], &[]).unwrap_err(),
        ["walcast.toml:2: access.memberships.organization must be given with the others of its section"]
    );
}

#[test]
fn a_variable_that_no_setting_could_have_is_somebody_elses_unless_it_is_a_slip() {
    assert!(
        load("", &[("WALCAST_VERSION", "1.2"), ("WALCAST_BIN", "/bin/walcast"), ("WALCAST_URL", "x")], &[])
            .is_ok()
    );
    for (name, hint) in [
        ("WALCAST_LOGS", "; did you mean WALCAST_LOG?"),
        ("WALCAST_TOKN", "; did you mean WALCAST_TOKEN?"),
        ("WALCAST_HTTPLISTEN", "; did you mean WALCAST_HTTP_LISTEN?"),
        ("WALCAST_HTTP_ADDRESS", ""),
        ("WALCAST_NO_SUCH_KEY", ""),
    ] {
        let told = load("", &[(name, "x")], &[]).unwrap_err().join("\n");
        assert!(told.starts_with(&format!("{name}: not a variable of walcast{hint}")), "{told}");
    }
}

#[test]
fn what_kubernetes_sets_for_a_service_is_not_ours() {
    let env = [
        ("WALCAST_SERVICE_HOST", "10.0.0.1"),
        ("WALCAST_SERVICE_PORT_HTTP", "80"),
        ("WALCAST_PORT", "tcp://10.0.0.1:80"),
        ("WALCAST_PORT_80_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(load("", &env, &[]).is_ok());
    assert!(load("", &[("WALCAST_PORT_NAME", "1")], &[]).is_err());
}

#[test]
fn a_missing_file_is_an_error_and_no_file_is_not() {
    let errors =
        Config::load(Some(Path::new("/nonexistent/walcast.toml")), std::iter::empty(), &[]).unwrap_err();
    assert!(errors.to_string().starts_with("/nonexistent/walcast.toml: can't be read: "), "{errors}");
    assert!(Config::load(None, std::iter::empty(), &[]).is_ok());
}

#[test]
fn the_reference_layer_brings_presets_and_access() {
    let config = Config::reference();
    let path = |path: &str| config.presets.iter().find(|preset| preset.path == path);
    assert!(matches!(path("/api/realtime/issues/stream").unwrap().keepalive, Keepalive::Comment));
    assert!(matches!(path("/api/events").unwrap().keepalive, Keepalive::Frame(_)));
    assert_eq!(path("/api/realtime").unwrap().channels, ["devices", "telemetry", "custom"]);
    assert_eq!(config.access.memberships.unwrap().table, "memberships");
}

#[test]
fn a_preset_replaces_the_reference_one_of_its_path_and_leaves_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("walcast.toml");
    std::fs::write(&path, "[[presets]]\npath = \"/api/events\"\nchannels = [\"issues\"]\n").unwrap();
    let config = Layers { reference: true, file: Some(&path), ..Layers::default() }.load().unwrap();
    assert_eq!(config.presets.len(), Config::reference().presets.len());
    let preset = config.presets.iter().find(|preset| preset.path == "/api/events").unwrap();
    assert_eq!(preset.channels, ["issues"]);
}

#[test]
fn two_presets_of_one_path_are_an_error() {
    let preset = "[[presets]]\npath = \"/a\"\nchannels = [\"issues\"]\n";
    assert_eq!(
        load(&preset.repeat(2), &[], &[]).unwrap_err(),
        ["walcast.toml:4: there is a preset for /a already"]
    );
}
