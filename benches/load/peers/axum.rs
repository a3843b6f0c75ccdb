//! What most would write in Rust: axum's `Sse` over a tokio broadcast channel.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::Event;
use axum::routing::get;
use futures_util::{Stream, stream};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::marker;

/// Events that a stream may lag behind before it loses some: more than any run sends at once.
const LAG: usize = 1 << 15;

/// Serves until stdin ends.
pub fn serve() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let sender = broadcast::Sender::new(LAG);
    let router = Router::new().route("/events", get(events)).with_state(sender.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (lines, mut said) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut all = std::io::stdin().lines().map_while(Result::ok);
        all.try_for_each(|line| lines.blocking_send(line))
    });
    let mut last = 0;
    while let Some(line) = said.recv().await {
        let words: Vec<_> = line.split(' ').collect();
        let (rate, count): (u32, u32) = match words[..] {
            ["pace", rate, count] => (rate.parse()?, count.parse()?),
            ["burst", count] => (0, count.parse()?),
            _ => anyhow::bail!("not understood: {line}"),
        };
        let begin = Instant::now();
        for number in 0..count {
            if rate > 0 {
                sleep_until(begin + Duration::from_secs(u64::from(number)) / rate).await;
            }
            last += 1;
            let nanos = marker::now_nanos();
            let event = Event::default().id(last.to_string()).data(marker::payload(last, nanos));
            let _ = sender.send(event);
        }
    }
    Ok(())
}

async fn events(
    State(sender): State<broadcast::Sender<Event>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::unfold(sender.subscribe(), |mut events| async move {
        // One that lagged ends: the client sees that it lost something.
        let event = events.recv().await.ok()?;
        Some((Ok(event), events))
    }))
}
