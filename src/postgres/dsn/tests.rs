use super::*;

fn dsn(text: &str) -> Dsn {
    Dsn::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn tcp(host: &str, port: u16) -> Host {
    Host::Tcp { host: host.to_owned(), port }
}

fn unix(dir: &str, port: u16) -> Host {
    Host::Unix { dir: dir.into(), port }
}

fn password(dsn: &Dsn) -> Option<&str> {
    dsn.password.as_ref().map(Secret::expose)
}

#[test]
fn whole_url_sets_every_part() {
    let parsed = dsn("postgresql://ada:secret@db.example:6543/shop?sslmode=verify-full&sslrootcert=/ca.pem\
                      &sslcert=/c.crt&sslkey=/c.key&channel_binding=require&connect_timeout=3&application_name=a%20b\
                      &options=-c%20x%3D1&passfile=/p");
    let expected = Dsn {
        user: "ada".to_owned(),
        password: Some(Secret::new("secret".to_owned())),
        passfile: Some("/p".into()),
        hosts: vec![tcp("db.example", 6543)],
        database: "shop".to_owned(),
        ssl: Ssl {
            mode: SslMode::VerifyFull,
            root_cert: Some(RootCert::File("/ca.pem".into())),
            client: Some(ClientCertificate { certificate: "/c.crt".into(), key: "/c.key".into() }),
            channel_binding: ChannelBinding::Require,
        },
        connect_timeout: Some(Duration::from_secs(3)),
        application_name: "a b".to_owned(),
        options: Some("-c x=1".to_owned()),
    };
    assert_eq!(parsed, expected);
}

#[test]
fn absent_parts_have_libpqs_defaults() {
    let parsed = dsn("postgres://ada@db");
    assert_eq!((parsed.database.as_str(), &parsed.hosts[..]), ("ada", &[tcp("db", 5432)][..]));
    assert_eq!((parsed.ssl, parsed.options), (Ssl::default(), None));
    assert_eq!(
        (parsed.application_name.as_str(), parsed.connect_timeout),
        ("walcast", Some(DEFAULT_CONNECT_TIMEOUT))
    );
    let own = whoami::username().unwrap();
    let bare = dsn("postgres://");
    assert_eq!((&bare.user, &bare.database), (&own, &own));
    assert!(matches!(bare.hosts[..], [Host::Unix { port: 5432, .. }]));
    assert_eq!(dsn("postgres://a@h?connect_timeout=0").connect_timeout, None);
}

#[test]
fn percent_encoding_is_undone_in_every_part() {
    let parsed =
        dsn("postgres://a%40b:p%3Aa%2Fs%3Fs%25%20%C3%BC@h%2Dost:54%33%32/d%2Fb?application%5Fname=x%26y");
    assert_eq!((parsed.user.as_str(), password(&parsed)), ("a@b", Some("p:a/s?s% ü")));
    assert_eq!((&parsed.hosts[..], parsed.database.as_str()), (&[tcp("h-ost", 5432)][..], "d/b"));
    assert_eq!(parsed.application_name, "x&y");
    assert_eq!(password(&dsn("postgres://a:b+c@h")), Some("b+c"), "a plus is a plus");
    assert_eq!(password(&dsn("postgres://a:b@c@h")), Some("b@c"), "the last @ ends the password");
    assert_eq!(password(&dsn("postgres://a:b:c@h")), Some("b:c"));
}

#[test]
fn hosts_come_in_every_form() {
    for (text, hosts) in [
        ("postgres://a@[::1]", vec![tcp("::1", 5432)]),
        ("postgres://a@[::1]:6000/d", vec![tcp("::1", 6000)]),
        ("postgres://a@[fe80::1%25eth0]/d", vec![tcp("fe80::1%eth0", 5432)]),
        ("postgres://a@h:/d", vec![tcp("h", 5432)]),
        ("postgres://a@h1:1,h2,[::1]:3/d", vec![tcp("h1", 1), tcp("h2", 5432), tcp("::1", 3)]),
        ("postgres://a@%2Frun%2Fpg/d", vec![unix("/run/pg", 5432)]),
        ("postgres://a@%2Frun%2Fpg:6000/d", vec![unix("/run/pg", 6000)]),
        ("postgres://a@/d?host=/run/pg&port=6000", vec![unix("/run/pg", 6000)]),
        ("postgres:///d?user=a&host=h1,h2&port=1,2", vec![tcp("h1", 1), tcp("h2", 2)]),
        ("postgres:///d?user=a&host=h1,h2&port=7", vec![tcp("h1", 7), tcp("h2", 7)]),
        ("postgres://a@ignored/d?host=h", vec![tcp("h", 5432)]),
    ] {
        assert_eq!(dsn(text).hosts, hosts, "{text}");
    }
}

#[test]
fn keyword_value_pairs_say_the_same() {
    let url = dsn("postgres://ada:it's%20%5C@/shop?host=/run/pg&port=6000&sslmode=disable");
    assert_eq!(
        dsn(r"host=/run/pg port = 6000 user=ada password='it\'s \\' dbname=shop sslmode='disable'"),
        url
    );
    assert_eq!(dsn("user=a password='' dbname=d").password, None);
}

#[test]
fn system_authorities_demand_verify_full() {
    let parsed = dsn("postgres://a@h?sslrootcert=system");
    assert_eq!((parsed.ssl.mode, parsed.ssl.root_cert), (SslMode::VerifyFull, Some(RootCert::System)));
    let error = Dsn::parse("postgres://a@h?sslrootcert=system&sslmode=require").unwrap_err();
    assert_eq!(error, DsnError::WeakMode { mode: "require" });
}

#[test]
fn mistakes_are_named() {
    for (text, expected) in [
        ("mysql://a@h", "a database URL starts with postgres:// or postgresql://"),
        ("ada", "keyword=value pairs: a name has no \"=\" behind it (or use a postgres:// URL)"),
        ("user='ada", "keyword=value pairs: a quoted value has no closing \"'\""),
        (
            "postgres://a:b%4@h",
            "the password: \"%\" must be followed by two hexadecimal digits (a literal \"%\" is %25)",
        ),
        (
            "postgres://a%zz@h",
            "the user: \"%\" must be followed by two hexadecimal digits (a literal \"%\" is %25)",
        ),
        (
            "postgres://a@h/%ff",
            "the database is not UTF-8 text without zero bytes once its percent-encoding is undone",
        ),
        (
            "postgres://a@h/%00",
            "the database is not UTF-8 text without zero bytes once its percent-encoding is undone",
        ),
        ("postgres://a@[::1/d", "an IPv6 host is written in brackets, as in [::1]:5432"),
        ("postgres://a@[::1]x/d", "an IPv6 host is written in brackets, as in [::1]:5432"),
        ("postgres://a@h?sslmode", "a parameter after \"?\" is not written as name=value"),
        (
            "postgres://a@h?sslmode=yes",
            "sslmode=\"yes\" is not disable, prefer, require, verify-ca or verify-full",
        ),
        ("postgres://a@h?channel_binding=no", "channel_binding=\"no\" is not disable, prefer or require"),
        (
            "postgres://a@h?connect_timeout=-1",
            "connect_timeout=\"-1\" is not a whole number of seconds (0 waits for ever)",
        ),
        ("postgres://a@h?sslcert=/c", "sslcert and sslkey are given together or not at all"),
        (
            "postgres:///d?user=a&host=h1,h2&port=1,2,3",
            "2 hosts but 3 ports: give one port, or one for each host",
        ),
        (
            "postgres://a@h?schema=public",
            "unknown connection parameter schema; known are host, port, user, password, passfile, dbname, sslmode, \
             sslrootcert, sslcert, sslkey, channel_binding, connect_timeout, application_name, options",
        ),
    ] {
        assert_eq!(Dsn::parse(text).unwrap_err().to_string(), expected, "{text}");
    }
    for port in ["0", "65536", "-1", "x", "1x"] {
        let error = Dsn::parse(&format!("postgres://a@h,i:{port}/d")).unwrap_err();
        assert_eq!(error, DsnError::Port { position: 2 }, "{port}");
    }
}

#[test]
fn no_part_of_a_password_is_ever_printed() {
    // Each of these passwords needs an escape and has none, so its parts are taken for something else.
    for text in [
        "postgres://ada:hunter/2secret@h/d",
        "postgres://ada:hunter?2secret=1@h/d",
        "postgres://ada:12?2secret=1&hunter@h/d",
        "postgres://ada:hunter#2secret%@h/d",
        "postgres://ada:[hunter2secret@h/d%",
        "postgres://ada@h:hunter2secret",
        // Pairs, of which one before the password is left without a value: the password is none of it.
        "host=h connect_timeout= password=hunter2secret",
        "user=ada host= password=hunter2secret",
        "host=h user=ada dbname=\n password = hunter2secret",
        "host=h sslmode= password=hunter2secret dbname=d",
    ] {
        let shown = match Dsn::parse(text) {
            Ok(parsed) => format!("{parsed} {parsed:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains("hunter") && !shown.contains("2secret"), "{text}: {shown}");
    }
    let parsed = dsn("postgres://ada:hunter2@h/d");
    assert!(!format!("{parsed} {parsed:?}").contains("hunter2"));
}

#[test]
fn printed_url_reads_back() {
    for text in [
        "postgres://a%40b@h1:1,[::1]:3/d%2Fb?sslmode=verify-ca",
        "postgres://a@%2Frun%2Fpg/d",
        "postgres://a@[fe80::1%25eth0]/d",
    ] {
        let parsed = dsn(text);
        assert_eq!(dsn(&parsed.to_string()), parsed, "{text}");
    }
}

#[test]
fn another_database_keeps_the_rest() {
    let parsed = dsn("postgres://a:p@h/d?options=-cx");
    assert_eq!(Dsn { database: "d".to_owned(), ..parsed.with_database("other") }, parsed);
    assert_eq!(parsed.with_database("other").database, "other");
}

#[test]
fn sqlx_gets_the_same_connection() {
    let parsed = dsn("postgres://ada:p@h1:1,h2:2/shop?sslmode=require&application_name=x");
    let options = parsed.sqlx_options(&parsed.hosts[1]).unwrap();
    assert_eq!((options.get_host(), options.get_port(), options.get_username()), ("h2", 2, "ada"));
    assert_eq!((options.get_database(), options.get_application_name()), (Some("shop"), Some("x")));
    assert!(matches!(options.get_ssl_mode(), ::sqlx::postgres::PgSslMode::Require));
    let strict = dsn("postgres://ada@h?channel_binding=require");
    assert_eq!(strict.sqlx_options(&strict.hosts[0]).err(), Some(NoChannelBinding));
}
