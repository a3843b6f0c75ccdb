//! nginx with nchan, as Debian has it: published to over HTTP, one message a request.

use std::path::Path;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{Kind, Peer, free_port, listening, program};
use crate::crowd::localhost;
use crate::process::Process;

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// As many as there are threads in the others.
const WORKERS: usize = 2;

pub(super) fn is_here() -> bool {
    (program("nginx").is_some() || Path::new("/usr/sbin/nginx").exists()) && Path::new(MODULE).exists()
}

pub(super) async fn start() -> anyhow::Result<Peer> {
    let folder = tempfile::tempdir()?;
    let port = free_port();
    let at = folder.path().display();
    let configuration = format!(
        "load_module {MODULE};
         user root;
         daemon off;
         worker_processes {WORKERS};
         worker_rlimit_nofile 20000;
         pid {at}/pid;
         error_log {at}/error.log;
         events {{ worker_connections 19000; }}
         http {{
           access_log off;
           client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
           uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
           keepalive_requests 10000000; keepalive_timeout 1h;
           nchan_shared_memory_size 512M;
           server {{
             listen 127.0.0.1:{port} backlog=4096;
             location /events {{
               nchan_subscriber eventsource; nchan_channel_id bench; nchan_subscriber_first_message newest;
             }}
             location /publish {{
               nchan_publisher; nchan_channel_id bench;
               nchan_message_buffer_length 100000; nchan_message_timeout 10m;
             }}
           }}
         }}"
    );
    let path = folder.path().join("nginx.conf");
    std::fs::write(&path, configuration)?;
    let program = program("nginx").unwrap_or_else(|| "/usr/sbin/nginx".into());
    let mut process = Process::start(Command::new(program).arg("-c").arg(&path))?;
    let publisher = listening(localhost(port)).await.with_context(|| {
        let log = std::fs::read_to_string(folder.path().join("error.log")).unwrap_or_default();
        format!("nginx: {log}")
    })?;
    publisher.set_nodelay(true)?;
    process.adopt(WORKERS).await?;
    Ok(Peer {
        kind: Kind::Nchan,
        process,
        address: localhost(port),
        publisher: Some(publisher),
        last: 0,
        _folder: Some(folder),
    })
}

/// Returns when nginx has answered.
pub(super) async fn publish(publisher: &mut TcpStream, payload: &str) -> anyhow::Result<()> {
    let request = format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{payload}",
        payload.len()
    );
    publisher.write_all(request.as_bytes()).await?;
    let mut answer = [0; 4096];
    // Small enough to come whole: a head of some lines and a sentence.
    let read = publisher.read(&mut answer).await?;
    ensure!(answer[..read].starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&answer[..read]));
    Ok(())
}
