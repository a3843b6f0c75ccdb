//! Clients that are gone and never said so: their places are free again after `http.keepalive` and `http.write_timeout`.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpSocket;

use crate::bench::app::{Member, TestApp};
use crate::bench::{PATIENCE, eventually, programs};

const KEEPALIVE: Duration = Duration::from_secs(1);
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// A machine of its own, as far as TCP knows: a network namespace behind a cable that can be pulled.
struct Laptop {
    name: String,
    /// The near end of the cable.
    host: String,
}

impl Laptop {
    /// Why there is none, where the test may not make one.
    fn new() -> Result<Self, String> {
        let number = std::process::id();
        let name = format!("walcast{number}");
        let net = format!("10.213.{}", number % 250);
        let (near, far) = (format!("wc{number}"), format!("wf{number}"));
        ip(&format!("netns add {name}"))?;
        let laptop = Self { name, host: format!("{net}.1") };
        let name = &laptop.name;
        for step in [
            format!("link add {near} type veth peer name {far} netns {name}"),
            format!("addr add {net}.1/30 dev {near}"),
            format!("link set {near} up"),
            format!("-n {name} addr add {net}.2/30 dev {far}"),
            format!("-n {name} link set {far} up"),
        ] {
            ip(&step)?;
        }
        Ok(laptop)
    }

    /// The cable: no packet passes any more, in either direction, and neither end is told.
    fn vanish(&self) {
        ip(&format!("-n {} link set wf{} down", self.name, std::process::id())).expect("the cable is pulled");
    }
}

impl Drop for Laptop {
    fn drop(&mut self) {
        // The cable goes with it.
        let _ = ip(&format!("netns del {}", self.name));
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let program = programs::find("ip").ok_or("the program ip is not installed")?;
    let output = Command::new(program).args(arguments.split(' ')).stdin(Stdio::null()).output();
    let Output { status, stderr, .. } = output.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&stderr);
    if status.success() { Ok(()) } else { Err(format!("ip {arguments}: {}", said.trim())) }
}

/// A worker that lets each user have one stream.
async fn narrow(host: Option<&str>) -> (TestApp, Member) {
    let app = TestApp::builder()
        .config(|config| {
            config.http.keepalive = KEEPALIVE;
            config.http.write_timeout = WRITE_TIMEOUT;
            config.limits.streams_per_user = 1;
            if let Some(host) = host {
                config.http.listen.set_ip(host.parse().expect("an address"));
            }
        })
        .start()
        .await;
    let member = app.member("o1", "u1", "admin").await;
    // The stream by which the membership was awaited has gone.
    eventually("the first place", || async {
        (app.connect(&member, "").await.head.status == 200).then_some(())
    })
    .await;
    eventually("nobody", || async { streams(&app).await.is_empty().then_some(()) }).await;
    (app, member)
}

/// What says that streams are open.
async fn streams(app: &TestApp) -> String {
    let metrics = app_metrics(app).await;
    let open = metrics.lines().find(|line| line.starts_with("walcast_streams ")).expect("the metric");
    if open == "walcast_streams 0" { String::new() } else { open.to_owned() }
}

async fn app_metrics(app: &TestApp) -> String {
    // From the host's own address, which is not loopback: with the scope.
    let operator = crate::bench::app::token_with("operator", serde_json::json!({ "scope": "walcast:stats" }));
    crate::bench::http::Request::get("/metrics").bearer(&operator).fetch(app.address).await.body
}

/// The member's only place is taken; how long until it is free.
async fn freed(app: &TestApp, member: &Member) -> Duration {
    let began = Instant::now();
    eventually("the place is free", || async {
        let stream = app.connect(member, "").await;
        (stream.head.status == 200).then_some(())
    })
    .await;
    let took = began.elapsed();
    let metrics = app_metrics(app).await;
    assert!(metrics.contains("walcast_stream_ends_total{reason=\"write_timeout\"} 1\n"), "{metrics}");
    took
}

#[tokio::test]
async fn a_client_that_vanishes_without_fin_or_reset_frees_its_place() {
    let Some(curl) = programs::find("curl") else {
        return programs::skipped("a client that vanishes", "curl is not installed");
    };
    let laptop = match Laptop::new() {
        Ok(laptop) => laptop,
        Err(why) => {
            return programs::skipped("a client that vanishes", &format!("no network namespace: {why}"));
        }
    };
    let (app, member) = narrow(Some(&laptop.host)).await;
    let mut command = programs::command(&programs::find("ip").expect("it was there"));
    command.args(["netns", "exec", &laptop.name]).arg(curl).args(["--silent", "--no-buffer", "--header"]);
    command.arg(format!("Authorization: Bearer {}", member.token));
    command.arg(format!("http://{}{}", app.address, TestApp::target(&member, "")));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("curl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let connected = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("\"connected\"") {
                return;
            }
        }
        panic!("curl saw no stream");
    };
    tokio::time::timeout(PATIENCE, connected).await.expect("a stream");
    assert_eq!(app.connect(&member, "").await.head.status, 429);

    laptop.vanish();
    let took = freed(&app, &member).await;
    assert!(child.try_wait().expect("its status").is_none(), "curl still believes in its stream");
    println!("freed after {took:?}");
    // TCP alone would try for a quarter of an hour.
    let stated = KEEPALIVE + WRITE_TIMEOUT;
    assert!(took >= WRITE_TIMEOUT && took < stated + Duration::from_secs(20), "{took:?}, stated {stated:?}");
}

#[tokio::test]
async fn a_client_that_stops_reading_frees_its_place() {
    let (app, member) = narrow(None).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stuck = socket.connect(app.address).await.expect("the worker listens");
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        TestApp::target(&member, ""),
        member.token
    );
    stuck.write_all(request.as_bytes()).await.expect("the request is taken");
    eventually("the stream is open", || async { (!streams(&app).await.is_empty()).then_some(()) }).await;
    assert_eq!(app.connect(&member, "").await.head.status, 429);
    // More than the kernel takes for it.
    app.sql("select walcast.emit('o1', 'much', to_jsonb(repeat('x', 500000))) from generate_series(1, 40)")
        .await;
    let took = freed(&app, &member).await;
    assert!(took < KEEPALIVE + WRITE_TIMEOUT + Duration::from_secs(20), "{took:?}");
    drop(stuck);
}
