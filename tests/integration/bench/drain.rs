//! Readers that take streams as fast as they come and look at nothing, each in a thread of its own: in the test's
//! runtime they would delay what the test measures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::app::{Member, TestApp};

/// Reads until dropped.
pub struct Drains {
    stop: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Drains {
    /// So many streams of the member; each begins anew after `bytes`.
    pub fn start(address: SocketAddr, member: &Member, parameters: &str, streams: usize, bytes: u64) -> Self {
        let (stop, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
            TestApp::target(member, parameters),
            member.token
        );
        let threads = (0..streams).map(|_| {
            let (stop, read, request) = (Arc::clone(&stop), Arc::clone(&read), request.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    drain(address, &request, bytes, &stop, &read);
                }
            })
        });
        let threads = threads.collect();
        Self { stop, read, threads }
    }

    /// Bytes that all of them have read.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// Reads one stream, until it has ended or has given so many bytes.
fn drain(address: SocketAddr, request: &str, bytes: u64, stop: &AtomicBool, read: &AtomicU64) {
    let mut socket = TcpStream::connect(address).expect("the worker listens");
    // So that a silent stream does not hide that it is time to stop.
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
    socket.write_all(request.as_bytes()).expect("the request is taken");
    let mut buffer = vec![0; 1 << 18];
    let mut own = 0;
    while own < bytes && !stop.load(Ordering::Relaxed) {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(some) => {
                own += some as u64;
                read.fetch_add(some as u64, Ordering::Relaxed);
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

impl Drop for Drains {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
