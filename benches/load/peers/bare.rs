//! The limit: two threads that write prepared bytes to sockets, and nothing else. No subscription, no filter, no
//! timeout, no clean-up; a client that does not read stops everybody.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::marker;

/// Frames of one write, as fast as it goes.
const BATCH: u64 = 64;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

type Sockets = Arc<Mutex<Vec<TcpStream>>>;

/// Serves until stdin ends.
pub fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    let halves: [Sockets; 2] = Default::default();
    let accepted = halves.clone();
    std::thread::spawn(move || accept(&listener, &accepted));
    let writers: Vec<_> = halves
        .into_iter()
        .map(|sockets| {
            let (frames, incoming) = sync_channel(1 << 16);
            std::thread::spawn(move || write(&sockets, &incoming));
            frames
        })
        .collect();
    let mut last = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["pace", rate, count] => pace(&writers, &mut last, rate.parse()?, count.parse()?),
            ["burst", count] => burst(&writers, &mut last, count.parse()?),
            _ => anyhow::bail!("not understood: {line}"),
        }
    }
    Ok(())
}

fn accept(listener: &TcpListener, halves: &[Sockets; 2]) {
    for (number, socket) in listener.incoming().flatten().enumerate() {
        let mut socket = socket;
        let mut request = [0; 1024];
        if socket.read(&mut request).is_ok_and(|read| read > 0)
            && socket.set_nodelay(true).is_ok()
            && socket.write_all(HEAD).is_ok()
        {
            halves[number % 2].lock().expect("nobody panics").push(socket);
        }
    }
}

fn write(sockets: &Sockets, incoming: &Receiver<Arc<str>>) {
    for frames in incoming {
        sockets
            .lock()
            .expect("nobody panics")
            .retain_mut(|socket| socket.write_all(frames.as_bytes()).is_ok());
    }
}

fn pace(writers: &[SyncSender<Arc<str>>], last: &mut u64, rate: u32, count: u32) {
    let begin = Instant::now();
    // Nobody sends to it: it is waited on for as long as a sleep takes.
    let (_silent, clock) = sync_channel::<()>(0);
    for number in 0..count {
        let due = begin + Duration::from_secs(u64::from(number)) / rate;
        let _ = clock.recv_timeout(due.saturating_duration_since(Instant::now()));
        *last += 1;
        send(writers, &marker::frame(*last, marker::now_nanos()).into());
    }
}

fn burst(writers: &[SyncSender<Arc<str>>], last: &mut u64, count: u64) {
    let end = *last + count;
    while *last < end {
        let mut frames = String::new();
        for _ in 0..BATCH.min(end - *last) {
            *last += 1;
            frames.push_str(&marker::frame(*last, marker::now_nanos()));
        }
        send(writers, &frames.into());
    }
}

fn send(writers: &[SyncSender<Arc<str>>], frames: &Arc<str>) {
    for writer in writers {
        let _ = writer.send(frames.clone());
    }
}
