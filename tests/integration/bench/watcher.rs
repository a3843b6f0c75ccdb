//! Clients that people use, watching streams: what each of them saw, in order.
//!
//! Node's and the browser's reconnect by themselves. curl does not; a loop around it says where it stopped, as a script
//! would.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::page::Page;
use super::programs;

/// What may be seen before a test looks at it.
pub const AHEAD: usize = 10_000;

/// A browser on a machine that does other things takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A stream to watch.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub name: String,
    pub url: String,
    /// The browser's cookies go with it.
    pub with_credentials: bool,
    /// What others than a browser send along.
    pub headers: serde_json::Map<String, Value>,
}

/// One thing that a client saw.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    pub stream: String,
    pub saw: Saw,
    pub id: Option<String>,
    pub data: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Saw {
    Open,
    Message,
    /// The connection is lost, and the client tries again.
    Error,
    /// The client has given up.
    Closed,
}

/// A running client.
pub struct Watcher {
    seen: Receiver<Seen>,
    /// What ends with it.
    _children: Vec<Child>,
    tasks: Vec<JoinHandle<()>>,
    _page: Option<(Page, tempfile::TempDir)>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Seen {
    #[track_caller]
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_default();
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl Watcher {
    /// `clients/watch.mjs` with one of its clients.
    pub async fn node(node: &Path, client: &str, targets: &[Target]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/watch.mjs");
        let mut command = programs::command(node);
        command.arg(script).arg(client).env("NODE_TLS_REJECT_UNAUTHORIZED", "0");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("node starts");
        let mut input = child.stdin.take().expect("its input");
        input.write_all(&serde_json::to_vec(targets).expect("targets")).await.expect("it reads");
        drop(input);
        let (sender, seen) = mpsc::channel(AHEAD);
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let read = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let seen = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
                let _ = sender.send(seen).await;
            }
        });
        Self { seen, _children: vec![child], tasks: vec![read], _page: None }
    }

    /// curl, again and again.
    pub fn curl(curl: &Path, targets: &[Target]) -> Self {
        let (sender, seen) = mpsc::channel(AHEAD);
        let tasks = targets
            .iter()
            .cloned()
            .map(|target| tokio::spawn(fetch(curl.to_owned(), target, sender.clone())));
        Self { tasks: tasks.collect(), seen, _children: Vec::new(), _page: None }
    }

    /// A page in Chromium.
    pub fn chromium(chromium: &Path, page: Page, targets: &[Target]) -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        let seen = page.show(targets.to_vec());
        let mut command = programs::command(chromium);
        command.args([
            "--headless=new",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
        ]);
        // Containers have little shared memory, and root has no sandbox.
        command.args(["--disable-dev-shm-usage", "--no-sandbox", "--ignore-certificate-errors"]);
        command.args(["--disable-component-update", "--disable-default-apps", "--disable-extensions"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg(format!("{}/", page.origin));
        let child = command.spawn().expect("chromium starts");
        Self { seen, _children: vec![child], tasks: Vec::new(), _page: Some((page, profile)) }
    }

    /// The next thing that the client saw.
    pub async fn next(&mut self) -> Seen {
        let seen = timeout(PATIENCE, self.seen.recv()).await;
        seen.unwrap_or_else(|_| panic!("nothing seen within {PATIENCE:?}")).expect("the client lives")
    }
}

/// Milliseconds between two tries of curl.
const CURL_RETRY: Duration = Duration::from_millis(500);

async fn fetch(curl: std::path::PathBuf, target: Target, sender: Sender<Seen>) {
    let tell = |saw, id: Option<&str>, data: Option<&str>| {
        let (id, data) = (id.map(str::to_owned), data.map(str::to_owned));
        let seen = Seen { stream: target.name.clone(), saw, id, data };
        sender.try_send(seen).expect("what curl sees is looked at");
    };
    let mut id = String::new();
    loop {
        let mut command = programs::command(&curl);
        command.args([
            "--silent",
            "--no-buffer",
            "--fail",
            "--insecure",
            "--header",
            "Accept: text/event-stream",
        ]);
        for (name, value) in &target.headers {
            command.args(["--header", &format!("{name}: {}", value.as_str().unwrap_or_default())]);
        }
        if !id.is_empty() {
            command.args(["--header", &format!("Last-Event-ID: {id}")]);
        }
        let mut child = command.arg(&target.url).stdout(Stdio::piped()).spawn().expect("curl starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut data = None;
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(text) = line.strip_prefix("data: ") {
                data = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("id: ") {
                text.clone_into(&mut id);
            } else if line.is_empty()
                && let Some(data) = data.take()
            {
                tell(Saw::Message, Some(&id), Some(&data));
            }
        }
        let status = child.wait().await.expect("curl ends");
        // 22: an answer that is an error, which no script should repeat.
        tell(if status.code() == Some(22) { Saw::Closed } else { Saw::Error }, None, None);
        sleep(CURL_RETRY).await;
    }
}
