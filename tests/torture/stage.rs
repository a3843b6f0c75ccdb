//! The stage: a cluster of the run's own, the domain in it, its rows, what the judge needs, a proxy, the worker; and
//! what each reader asks for.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use walcast::cli::cluster::{Cluster, ClusterOptions};
use walcast::postgres::dsn::Dsn;
use walcast::source::Kind;

use super::WRITERS;
use super::check::Facts;
use super::deed::{self, ORGANIZATIONS};
use super::fault::Victims;
use super::order::Order;
use super::proxy::Proxy;
use super::reader::Spec;
use super::worker::{self, Program, ROLE, WITNESS};
use super::writer::{self, Ledger};

pub async fn prepare(program: Program, ledger: Arc<Ledger>) -> Victims {
    // The outbox is for servers whose log can't be decoded.
    let wal_level = if program.source == Kind::Wal { "logical" } else { "replica" };
    let settings = [
        ("max_connections", "100"),
        ("max_wal_size", "4GB"),
        ("fsync", "off"),
        ("wal_writer_delay", "10ms"),
        ("wal_level", wal_level),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let cluster =
        Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() }).await.expect("a cluster");
    let url = cluster.dsn("postgres");
    let dsn = Dsn::parse(&url).expect("its URL");
    walcast::cli::migrate::run(&dsn, true).await.expect("migrations");
    let session = writer::connect(&dsn).await;
    let replication = if program.source == Kind::Wal { "replication" } else { "noreplication" };
    session.batch_execute(&format!("create role {ROLE} login {replication}")).await.expect("a role");
    program.set_up(&url).await;
    let mut rows = format!(
        "insert into users (id, name) values ('ann', 'Ann'), ('ben', 'Ben'), ('{WITNESS}', 'Witness');"
    );
    for organization in ORGANIZATIONS {
        rows += &format!(
            "insert into organizations (id, name) values ('{organization}', '{organization}');
             insert into memberships (organization_id, user_id, role)
               values ('{organization}', 'ann', '{}'), ('{organization}', 'ben', '{}'),
                      ('{organization}', '{WITNESS}', 'admin');
             insert into devices (id, organization_id, name, status)
               values ('fixed-{organization}', '{organization}', 'Fixed', 'ONLINE');",
            Facts::first_role("ann"),
            Facts::first_role("ben"),
        );
        for writer in 0..WRITERS {
            let lot = deed::lot(organization, writer);
            rows += &format!(
                "insert into lots (id, organization_id, name, total_slots, occupied)
                 values ('{lot}', '{organization}', 'L', 1, 0);"
            );
        }
    }
    let order = Order::new(program.source);
    order.prepare(&dsn).await;
    session.batch_execute(&rows).await.expect("rows");
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], cluster.port()))).await;
    let address = worker::free_address().await;
    // Short, so that a network that swallows everything is noticed within the run.
    let at = |server| {
        format!("postgres://{ROLE}@{server}/postgres?sslmode=disable&options=-c%20wal_sender_timeout%3D3s")
    };
    let (proxied, direct) = (at(proxy.address), at(SocketAddr::from(([127, 0, 0, 1], cluster.port()))));
    let worker = program.spawn(&proxied, address);
    Victims {
        cluster,
        dsn,
        program,
        url,
        direct,
        proxy,
        proxied,
        address,
        worker,
        ledger,
        order,
        pressure: watch::Sender::new(false),
        resets: Vec::new(),
        floods: Vec::new(),
        lost: Vec::new(),
    }
}

/// What the reader of this number asks for.
pub fn spec(at: usize) -> Spec {
    let organization = ORGANIZATIONS[at % ORGANIZATIONS.len()];
    let user = if at.is_multiple_of(3) { "ann" } else { "ben" };
    let native = "/api/realtime/stream";
    let plain = Spec {
        organization,
        user,
        path: native,
        query: String::new(),
        channels: None,
        types: None,
        tag: None,
        token: worker::token(user),
    };
    match at / ORGANIZATIONS.len() {
        0 | 1 => plain,
        2 => {
            Spec { query: "&channel=lots,system".to_owned(), channels: Some(vec!["lots", "system"]), ..plain }
        }
        3 => Spec {
            query: "&types=issue:resolved,issue:deleted,torture".to_owned(),
            types: Some(vec!["issue:resolved", "issue:deleted", "torture"]),
            ..plain
        },
        4 => Spec { query: "&status=open".to_owned(), tag: Some(("status", vec!["open"])), ..plain },
        5 => Spec {
            path: "/api/realtime/issues/stream",
            query: "&priorities=high,critical".to_owned(),
            channels: Some(vec!["issues"]),
            tag: Some(("priority", vec!["high", "critical"])),
            ..plain
        },
        6 => Spec { path: "/api/realtime", channels: Some(vec!["devices", "telemetry", "custom"]), ..plain },
        _ => Spec {
            path: "/api/sse/dashboard",
            channels: Some(vec!["lots", "alerts", "violations", "custom"]),
            ..plain
        },
    }
}
