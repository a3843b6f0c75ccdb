//! Who is online, as streams are told it.

use std::time::Duration;

use super::bench::{Bench, frame, sign, token};
use super::client::Client;
use super::control::ask;
use crate::catalog::OrganizationId;

/// The frame about a user.
fn update(user: &str, is_online: bool) -> String {
    format!(
        "data: {{\"type\":\"presence_updated\",\"timestamp\":0,\"organizationId\":\"a\",\"channel\":\"presence\",\
         \"data\":{{\"userId\":\"{user}\",\"isOnline\":{is_online}}}}}\n\n"
    )
}

async fn bench(grace: Duration) -> Bench {
    Bench::with(|config| config.presence.grace = grace).await
}

async fn open(bench: &Bench, user: &str, query: &str) -> (Client, String) {
    let path = format!("/api/realtime/stream?organizationId=a&token={}{query}", token(user));
    let mut client = bench.open(&path, &[]).await;
    let connected = client.connected().await;
    (client, connected)
}

/// What the first frame says of who is online, at its top; it says the same in `data`.
fn online(connected: &str) -> Option<Vec<String>> {
    let json: serde_json::Value = serde_json::from_str(connected.rsplit("data: ").next().unwrap()).unwrap();
    assert_eq!(json.get("online"), json["data"].get("online"), "{connected}");
    let fields: Vec<&String> = json["data"].as_object().unwrap().keys().collect();
    json.get("online").map(|names| {
        assert_eq!(*fields.last().unwrap(), "online");
        let mut names: Vec<String> = serde_json::from_value(names.clone()).unwrap();
        names.sort_unstable();
        names
    })
}

#[tokio::test]
async fn a_users_first_stream_and_the_end_of_the_last_are_told_to_the_others() {
    let bench = bench(Duration::ZERO).await;
    let (mut ann, connected) = open(&bench, "ann", "&channel=presence").await;
    assert_eq!(online(&connected).unwrap(), ["ann"]);
    let (first, connected) = open(&bench, "bob", "").await;
    assert_eq!(online(&connected), None, "it was not asked for");
    assert_eq!(ann.frame().await, update("bob", true));
    let (second, connected) = open(&bench, "bob", "&channel=lots,presence").await;
    assert_eq!(online(&connected).unwrap(), ["ann", "bob"]);
    drop(first);
    // Of another organization: another crowd.
    let stranger = sign("eve", 60, &["b"], "");
    let path = format!("/api/realtime/stream?organizationId=b&channel=presence&token={stranger}");
    let mut eve = bench.open(&path, &[]).await;
    assert_eq!(online(&eve.connected().await).unwrap(), ["eve"]);
    drop(second);
    assert_eq!(ann.frame().await, update("bob", false), "nothing of the second stream, nor of eve");
}

#[tokio::test]
async fn only_who_listens_for_presence_is_told_and_data_goes_on() {
    let bench = bench(Duration::ZERO).await;
    let (mut all, _) = open(&bench, "ann", "").await;
    let (mut lots, _) = open(&bench, "ann", "&channel=lots").await;
    let (mut types, _) = open(&bench, "ann", "&types=changed").await;
    let (mut tagged, _) = open(&bench, "ann", "&status=open").await;
    let (mut chosen, _) = open(&bench, "ann", "&types=presence_updated").await;
    let (_bob, _) = open(&bench, "bob", "&channel=lots").await;
    assert_eq!(all.frame().await, update("bob", true));
    assert_eq!(chosen.frame().await, update("bob", true));
    bench.publish("a", 110, "lots", &[(1, "open")]);
    for client in [&mut all, &mut lots, &mut types, &mut tagged] {
        assert_eq!(client.frame().await, frame(110, ""));
    }
}

#[tokio::test]
async fn a_reconnect_within_the_grace_is_not_told() {
    let bench = bench(Duration::from_secs(600)).await;
    let (mut ann, _) = open(&bench, "ann", "&channel=presence").await;
    let (bob, _) = open(&bench, "bob", "").await;
    assert_eq!(ann.frame().await, update("bob", true));
    drop(bob);
    let organization = OrganizationId::new("a");
    while bench.hub.streams_of_user(&organization, "bob") > 0 {
        tokio::task::yield_now().await;
    }
    let (late, connected) = open(&bench, "eve", "&channel=presence").await;
    assert_eq!(online(&connected).unwrap(), ["ann", "bob", "eve"], "bob may come back");
    assert_eq!(ann.frame().await, update("eve", true));
    let (_bob, _) = open(&bench, "bob", "").await;
    // Whoever is no member any more is gone at once, grace or none.
    bench.state.services.presence.dismiss(&organization, &"bob".into());
    assert_eq!(ann.frame().await, update("bob", false), "and nothing between");
    drop(late);
}

#[tokio::test]
async fn a_worker_that_stops_does_not_send_everybody_home() {
    let bench = Bench::with(|config| {
        config.presence.grace = Duration::ZERO;
        config.http.drain = Duration::from_secs(2);
    })
    .await;
    let (mut ann, _) = open(&bench, "ann", "&channel=presence").await;
    let mut others = Vec::new();
    for number in 0..8 {
        others.push(open(&bench, &format!("u{number}"), "").await.0);
        assert_eq!(ann.frame().await, update(&format!("u{number}"), true));
    }
    let running = bench.shut_down();
    let (rest, _) = tokio::join!(ann.rest(), running);
    assert!(!rest.contains("presence_updated"), "{rest}");
}

#[tokio::test]
async fn a_filter_that_takes_presence_in_is_told_from_then_on() {
    let bench = bench(Duration::ZERO).await;
    let (mut ann, connected) = open(&bench, "ann", "&channel=lots").await;
    let id = connected.split("\"connectionId\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let stream = bench.state.registry.find(id).unwrap();
    let (mut witness, _) = open(&bench, "wit", "&channel=presence").await;
    let (_bob, _) = open(&bench, "bob", "").await;
    assert_eq!(witness.frame().await, update("bob", true));
    stream.handle.set_filter(crate::hub::Filter::default());
    let (_eve, _) = open(&bench, "eve", "").await;
    assert_eq!(ann.frame().await, update("eve", true));
}

#[tokio::test]
async fn a_change_that_names_presence_is_answered_with_who_is_online() {
    let bench = bench(Duration::ZERO).await;
    let (mut ann, connected) = open(&bench, "ann", "&channel=lots").await;
    let id = connected.split("\"connectionId\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let (mut witness, _) = open(&bench, "wit", "&channel=presence").await;
    let (_bob, _) = open(&bench, "bob", "").await;
    assert_eq!(witness.frame().await, update("bob", true));
    let put = async |body: &str| {
        let path = format!("/api/realtime/stream/{id}");
        let (status, standing) = ask(&bench, "PUT", &path, &token("ann"), body).await;
        assert_eq!(status, "HTTP/1.1 200 OK", "{standing}");
        let standing: serde_json::Value = serde_json::from_str(&standing).unwrap();
        standing.get("online").map(|names| {
            let mut names: Vec<String> = serde_json::from_value(names.clone()).unwrap();
            names.sort_unstable();
            names
        })
    };
    assert_eq!(put(r#"{"types":["changed"]}"#).await, None, "all channels, and none by name");
    assert_eq!(put(r#"{"channels":["lots","issues"]}"#).await, None);
    assert_eq!(put(r#"{"channels":["lots","presence"]}"#).await.unwrap(), ["ann", "bob", "wit"]);
    let (eve, _) = open(&bench, "eve", "").await;
    assert_eq!(ann.frame().await, update("eve", true), "what changes after it comes on the stream");
    drop(eve);
    assert_eq!(ann.frame().await, update("eve", false));
    // A token alone leaves the filter, by which the answer goes.
    let renewal = format!("{{\"token\":\"{}\"}}", token("ann"));
    assert_eq!(put(&renewal).await.unwrap(), ["ann", "bob", "wit"]);
    assert_eq!(put(r#"{"channels":["lots"]}"#).await, None);
}
