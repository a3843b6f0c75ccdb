//! When streams end by their token, and how a new one moves that.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::bench::{Bench, frame, now, sign, token};
use super::client::{Client, timeless};
use crate::catalog::OrganizationId;
use crate::http::Vocabulary;
use crate::http::delivery::{self, Admitted};
use crate::http::endpoint::Endpoint;
use crate::http::expiry::{Expiry, renew};
use crate::http::keepalive::Keepalive;
use crate::http::registry::Entry;
use crate::hub::{Filter, Start, StreamHandle, Subscription};
use crate::live::Live;
use crate::postgres::Lsn;

const EXPIRED: &str = "data: {\"type\":\"token.expired\",\"timestamp\":0,\"data\":{}}\n\n";

/// A stream of user u in organization a, with what only the server holds of it.
struct Open {
    client: Client,
    handle: StreamHandle,
    expiry: Arc<Expiry>,
    serving: JoinHandle<()>,
}

async fn open(bench: &Bench, expires_at: u64, start: Start) -> Open {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(Client::connect(address), listener.accept());
    let socket: TcpStream = accepted.unwrap().0;
    let organization = OrganizationId::new("a");
    let subscription = Subscription {
        organization: organization.clone(),
        user: "u".to_owned(),
        role: None,
        filter: Filter::default(),
        start,
    };
    let stream = bench.hub.open(subscription).await;
    let handle = stream.handle();
    let expiry = Expiry::new(expires_at);
    let id = bench.state.registry.new_id();
    let endpoint = Endpoint::all(&Vocabulary::default(), &[], &Live::new([]).0, &[]).unwrap().remove(0);
    let present = bench.state.services.presence.enter(&handle);
    let entry =
        Entry { handle: handle.clone(), endpoint, expiry: Arc::clone(&expiry), present, _watching: None };
    let admitted = Admitted {
        first: Vec::new(),
        registered: bench.state.registry.register(id, entry),
        stream,
        expiry: Arc::clone(&expiry),
        keepalive: Arc::new(Keepalive::Comment),
        permit: bench.state.limits.admit(IpAddr::from([127, 0, 0, 1])).unwrap(),
        view: None,
    };
    let serving = tokio::spawn(delivery::run(Arc::clone(&bench.state), socket, admitted));
    Open { client, handle, expiry, serving }
}

fn in_seconds(seconds: u64) -> u64 {
    now().as_secs() + seconds
}

/// Returns once the wall clock shows this second.
async fn second(at: u64) {
    while now() < Duration::from_secs(at) {
        sleep(Duration::from_secs(at).saturating_sub(now())).await;
    }
}

#[tokio::test]
async fn a_stream_that_always_has_something_to_send_ends_in_the_second_of_its_token() {
    // Once more where the machine was held up, and it may have ended before it had its first event.
    let (expires_at, streams, writer) = loop {
        let bench = Arc::new(Bench::new().await);
        for lsn in 0..2000 {
            bench.publish("a", 110 + lsn, "lots", &[]);
        }
        let expires_at = in_seconds(2);
        let mut replaying = open(&bench, expires_at, Start::Earliest).await;
        let mut live = open(&bench, expires_at, Start::Now(Lsn::new(3000))).await;
        let writer = tokio::spawn(async move {
            for lsn in 3000.. {
                bench.publish("a", lsn, "lots", &[]);
                sleep(Duration::from_millis(1)).await;
            }
        });
        let firsts = [replaying.client.frame().await, live.client.frame().await];
        if firsts.iter().all(|first| timeless(first) != EXPIRED) {
            assert_eq!(firsts, [frame(110, ""), frame(3000, "")]);
            break (expires_at, [replaying, live], writer);
        }
        writer.abort();
        assert!(now() >= Duration::from_secs(expires_at), "ended early");
    };
    for mut stream in streams {
        let rest = stream.client.rest().await;
        assert!(now() >= Duration::from_secs(expires_at), "ended early");
        assert!(timeless(&rest).ends_with(EXPIRED), "{rest}");
        // What the frame says is when it was made: in that very second, unless the machine was held up.
        let said = rest.rsplit_once("\"timestamp\":").unwrap().1.split(',').next().unwrap();
        let late = said.parse::<u64>().unwrap().checked_sub(expires_at * 1000);
        assert!(late.is_some_and(|millis| millis < 3000), "{late:?}");
    }
    writer.abort();
}

#[tokio::test]
async fn a_stream_whose_client_takes_nothing_ends_with_its_token_too() {
    let bench = Bench::new().await;
    let expires_at = in_seconds(2);
    let stuck = open(&bench, expires_at, Start::Now(Lsn::new(100))).await;
    for lsn in 0..400 {
        bench.publish_sized("a", 110 + lsn, "lots", &[], 64 << 10);
    }
    stuck.serving.await.unwrap();
    assert!(now() >= Duration::from_secs(expires_at), "ended early");
    assert!(bench.metrics.encode().contains("walcast_stream_ends_total{reason=\"expired\"} 1\n"));
}

#[tokio::test]
async fn a_new_token_moves_the_end_of_streams_that_wait_and_of_streams_that_are_stuck() {
    // More than sockets hold, less than the journal does.
    let size = 64 << 10;
    let (bench, expires_at, mut waiting, mut stuck, until_then) = loop {
        let bench = Bench::new().await;
        let expires_at = in_seconds(2);
        let waiting = open(&bench, expires_at, Start::Now(Lsn::new(100))).await;
        let stuck = open(&bench, expires_at, Start::Now(Lsn::new(100))).await;
        let until_then = open(&bench, expires_at, Start::Now(Lsn::new(100))).await;
        for lsn in 0..200 {
            bench.publish_sized("a", 110 + lsn, "lots", &[], size);
        }
        for stream in [&waiting, &stuck] {
            renew(&bench.state, &token("u"), &stream.handle, &stream.expiry).await.unwrap();
        }
        // Or the machine was held up, and they may have ended before.
        if now() < Duration::from_secs(expires_at) {
            break (bench, expires_at, waiting, stuck, until_then);
        }
    };
    until_then.serving.await.unwrap();
    second(expires_at + 1).await;
    for stream in [&mut waiting, &mut stuck] {
        for lsn in 0..200 {
            assert_eq!(stream.client.frame().await, frame(110 + lsn, &"x".repeat(size)));
        }
    }
    // One that ends sooner counts as well.
    while let Err(refusal) =
        renew(&bench.state, &sign("u", 1, &["a"], ""), &waiting.handle, &waiting.expiry).await
    {
        assert_eq!(refusal.status().as_u16(), 401, "its second was over on the way");
    }
    assert_eq!(timeless(&waiting.client.rest().await), EXPIRED);
    bench.publish("a", 999, "lots", &[]);
    assert_eq!(stuck.client.frame().await, frame(999, ""));
}

#[tokio::test]
async fn a_token_that_would_not_open_the_stream_does_not_renew_it() {
    let bench = Bench::new().await;
    let mut stream = open(&bench, in_seconds(2), Start::Now(Lsn::new(100))).await;
    for (why, token, status) in [
        ("another user's", token("v"), 403),
        ("of another organization", sign("u", 3600, &["b"], ""), 403),
        ("expired", sign("u", 0, &["a"], ""), 401),
        ("forged", format!("{}A", token("u")), 401),
        ("none", String::new(), 401),
    ] {
        let refusal = renew(&bench.state, &token, &stream.handle, &stream.expiry).await.unwrap_err();
        assert_eq!(refusal.status().as_u16(), status, "{why}");
    }
    assert_eq!(timeless(&stream.client.rest().await), EXPIRED);
    // Where tokens say who has which role, the new one says it.
    let stream = open(&bench, in_seconds(60), Start::Now(Lsn::new(100))).await;
    renew(&bench.state, &token("u"), &stream.handle, &stream.expiry).await.unwrap();
    assert_eq!(stream.handle.role().as_deref(), Some("manager"));
}
