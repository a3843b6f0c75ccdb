//! The presets with the clients that front ends use: each gets every event once, and the live one's answers, whatever
//! happens to the worker.
//!
//! The story is the same for all of them. A worker is told to stop, and later killed; rows are written before, while
//! nobody runs, and after. A client may see that it lost its connection, and nothing else.

pub mod story;

use serde_json::json;

use crate::bench::app::token_with;
use crate::bench::page::Page;
use crate::bench::programs;
use crate::bench::watcher::Watcher;
use story::{Story, targets};

/// A stream of Node's and curl's sends its credential as a header.
fn bearer() -> serde_json::Map<String, serde_json::Value> {
    let authorization = format!("Bearer {}", token_with(story::USER, json!({})));
    json!({ "Authorization": authorization }).as_object().cloned().unwrap_or_default()
}

#[tokio::test]
async fn native_event_source_in_chromium_misses_nothing_over_restarts_without_a_proxy() {
    let Some(chromium) = programs::find("chromium") else {
        return programs::skipped("native EventSource without a proxy", "chromium is not installed");
    };
    let token = token_with(story::USER, json!({}));
    let page = Page::start(Some(&format!("session={token}; Path=/"))).await;
    let story = Story::begin(&page.origin).await;
    let base = format!("http://{}", story.worker);
    // Cookies for some and tokens in the query for others, as a browser has no other means. Six connections of a browser
    // to one host are all that HTTP/1.1 has.
    let mut targets = targets(&base, "");
    for (n, target) in targets.iter_mut().enumerate() {
        target.with_credentials = n % 2 == 0;
        if !target.with_credentials {
            target.url.push_str(&format!("&token={token}"));
        }
    }
    let watcher = Watcher::chromium(&chromium, page, &targets);
    story.tell(&programs::version(&chromium, "--version").await, watcher, &targets).await;
}

#[tokio::test]
async fn the_package_eventsource_misses_nothing_over_restarts() {
    node("eventsource").await;
}

#[tokio::test]
async fn the_package_eventsource_2_misses_nothing_over_restarts() {
    node("eventsource-2").await;
}

#[tokio::test]
async fn a_reader_over_fetch_misses_nothing_over_restarts() {
    node("fetch").await;
}

async fn node(client: &str) {
    let Some(node) = programs::find("node") else {
        return programs::skipped(client, "node is not installed");
    };
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/node_modules");
    if client != "fetch" && !std::path::Path::new(package).join(client).is_dir() {
        return programs::skipped(client, "its package is not installed: npm ci --prefix clients");
    }
    let story = Story::begin("http://unused.example").await;
    let mut targets = targets(&format!("http://{}", story.worker), "");
    for target in &mut targets {
        target.headers = bearer();
    }
    let watcher = Watcher::node(&node, client, &targets).await;
    let name = format!("{client}, node {}", programs::version(&node, "--version").await);
    story.tell(&name, watcher, &targets).await;
}

#[tokio::test]
async fn curl_goes_on_where_it_stopped() {
    let Some(curl) = programs::find("curl") else {
        return programs::skipped("curl", "it is not installed");
    };
    let story = Story::begin("http://unused.example").await;
    let mut targets = targets(&format!("http://{}", story.worker), "");
    for target in &mut targets {
        target.headers = bearer();
    }
    let watcher = Watcher::curl(&curl, &targets);
    story.tell(&programs::version(&curl, "--version").await, watcher, &targets).await;
}
