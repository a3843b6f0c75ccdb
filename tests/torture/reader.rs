//! Readers: streams that come, go, stall and resume, and write down all they see.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::deed::{Expected, key};

/// A place in the history: commit position and ordinal.
pub type Place = (u64, u32);

/// What a stream asks for.
#[derive(Clone, Debug)]
pub struct Spec {
    pub organization: &'static str,
    pub user: &'static str,
    pub path: &'static str,
    /// After `organizationId=…`.
    pub query: String,
    /// None: every channel.
    pub channels: Option<Vec<&'static str>>,
    pub types: Option<Vec<&'static str>>,
    pub tag: Option<(&'static str, Vec<&'static str>)>,
    pub token: String,
}

impl Spec {
    /// Whether the stream asks for the event, whatever the role of its user.
    pub fn selects(&self, event: &Expected) -> bool {
        let one_of =
            |names: &Option<Vec<&str>>, name: &str| names.as_ref().is_none_or(|names| names.contains(&name));
        let tagged = self.tag.as_ref().is_none_or(|(tag, wanted)| {
            let values = event.tags.iter().filter(|(name, _)| name == tag).flat_map(|(_, values)| values);
            values.into_iter().any(|value| wanted.contains(&value.as_str()))
        });
        (event.organization == self.organization || event.organization == "*")
            && one_of(&self.channels, event.channel)
            && (event.is_sync() || (one_of(&self.types, event.event_type) && tagged))
    }

    /// Whether its user with this role is to see the event.
    pub fn admits(&self, event: &Expected, role: Option<&str>) -> bool {
        event
            .only
            .is_none_or(|only| only.contains(&self.user) || role.is_some_and(|role| only.contains(&role)))
    }
}

/// Microseconds since 1970, by the clock that the server has too.
pub type Micros = i64;

pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}

/// One thing that a stream saw.
#[derive(Debug)]
pub enum Seen {
    Connected {
        asked: Option<Place>,
        at: Place,
        resumed: bool,
        time: Micros,
    },
    /// A keepalive's: all before it was written or filtered.
    Position(Place),
    Event {
        id: String,
        place: Place,
        organization: String,
        key: Option<String>,
        frame: u64,
        data: Value,
    },
    Sync {
        reason: String,
        place: Place,
        time: Micros,
    },
    /// The stream ended: its user is no member any more.
    Revoked {
        time: Micros,
    },
    /// Another answer than a stream.
    Refused {
        head: String,
        asked: Micros,
        time: Micros,
    },
}

/// Before each piece that a slow stream takes.
const SLOW: Duration = Duration::from_millis(300);
const PIECE: usize = 16 << 10;

/// So many half seconds without anything end a stream that has all.
const QUIET: u32 = 3;

/// Where a stream's history ends; known when nobody writes any more.
pub type Finish = watch::Receiver<Option<Place>>;

pub struct Reader {
    pub spec: Spec,
    pub address: SocketAddr,
    pub rng: fastrand::Rng,
    pub log: Vec<Seen>,
    pub opened: u64,
    pub resumes: u64,
    pub stalls: u64,
    /// True while what stands still is to be left behind.
    pressure: watch::Receiver<bool>,
    last: Option<String>,
    reached: Option<Place>,
    done: bool,
}

impl Reader {
    pub fn new(spec: Spec, address: SocketAddr, rng: fastrand::Rng, pressure: watch::Receiver<bool>) -> Self {
        Self {
            spec,
            address,
            rng,
            log: Vec::new(),
            opened: 0,
            resumes: 0,
            stalls: 0,
            pressure,
            last: None,
            reached: None,
            done: false,
        }
    }

    /// Until it has seen the end of its history, or for `patience` after that was told.
    pub async fn run(mut self, mut finish: Finish, patience: Duration) -> Self {
        let mut deadline = None;
        loop {
            if finish.borrow_and_update().is_some() {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
                if self.done || Instant::now() > deadline {
                    return self;
                }
            }
            let _ = self.stream(&mut finish).await;
            sleep(Duration::from_millis(self.rng.u64(50..600))).await;
        }
    }

    /// One connection, to whatever end it comes.
    async fn stream(&mut self, finish: &mut Finish) -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        let small = self.rng.bool();
        if small {
            // Stalls soon, as a slow network does.
            socket.set_recv_buffer_size(8 << 10)?;
        }
        let mut socket = socket.connect(self.address).await?;
        let (asked, asked_at) = (self.last.clone(), now());
        let id = asked.as_ref().map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let Spec { path, organization, query, token, .. } = &self.spec;
        let request = format!(
            "GET {path}?organizationId={organization}{query} HTTP/1.1\r\nHost: torture\r\nAccept: text/event-stream\r\n\
             Authorization: Bearer {token}\r\n{id}\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut buffer = Vec::new();
        let head = block(&mut socket, &mut buffer, b"\r\n\r\n", Duration::ZERO).await?;
        if !head.starts_with("HTTP/1.1 200 ") {
            self.log.push(Seen::Refused { head, asked: asked_at, time: now() });
            return Ok(());
        }
        let mut leaves = Instant::now() + Duration::from_millis(self.rng.u64(200..9000));
        let mut asked = Some(asked.as_deref().and_then(place));
        let mut quiet = 0;
        let mut slow = false;
        loop {
            let finishing = finish.borrow().is_some();
            if !finishing && Instant::now() > leaves {
                return Ok(());
            }
            // It has the last commit; what else that holds, or comes by mistake, comes at once.
            if finishing && self.reached >= *finish.borrow() && quiet >= QUIET {
                self.done = true;
                return Ok(());
            }
            if self.pressure.has_changed().unwrap_or(false) {
                slow = *self.pressure.borrow_and_update() && !finishing && (small || self.rng.bool());
                self.stalls += u64::from(slow);
            }
            // Who was left behind is told when it goes on.
            if slow {
                leaves = leaves.max(Instant::now() + Duration::from_secs(5));
            }
            if !finishing && self.rng.u16(..600) == 0 {
                self.stalls += 1;
                let long = if self.rng.u8(..4) == 0 { 20_000 } else { 4000 };
                let stall = Duration::from_millis(self.rng.u64(500..long));
                // The end of the run ends it.
                let _ = timeout(stall, finish.wait_for(Option::is_some)).await;
            }
            // It takes a little now and then, so that its socket is not given up.
            let pause = if slow { SLOW } else { Duration::ZERO };
            let next = block(&mut socket, &mut buffer, b"\n\n", pause);
            match timeout(Duration::from_millis(500), next).await {
                Ok(frame) => {
                    quiet = 0;
                    self.take(&frame?, &mut asked);
                }
                Err(_) => quiet += 1,
            }
        }
    }

    fn take(&mut self, frame: &str, asked: &mut Option<Option<Place>>) {
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
        let id = field("id: ").map(str::to_owned);
        let place = id.as_deref().and_then(place);
        // As browsers do: whatever carries it.
        if let (Some(id), Some(at)) = (&id, place) {
            self.last = Some(id.clone());
            self.reached = self.reached.max(Some(at));
        }
        let Some(json) = field("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok()) else {
            self.log.extend(place.map(Seen::Position));
            return;
        };
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        match (text("type").as_str(), id, place) {
            ("connected", _, Some(at)) => {
                let asked = asked.take().flatten();
                let resumed = json["resumed"] == true;
                self.opened += 1;
                self.resumes += u64::from(resumed);
                self.log.push(Seen::Connected { asked, at, resumed, time: now() });
            }
            ("data.sync", _, Some(place)) => {
                let reason = json["data"]["reason"].as_str().unwrap_or_default().to_owned();
                self.log.push(Seen::Sync { reason, place, time: now() });
            }
            ("access.revoked", ..) => self.log.push(Seen::Revoked { time: now() }),
            ("keepalive" | "heartbeat" | "ping", _, Some(place)) => self.log.push(Seen::Position(place)),
            ("keepalive" | "heartbeat" | "ping" | "stale" | "fresh" | "presence_updated", ..) => {}
            (event_type, id, place) => self.log.push(Seen::Event {
                id: id.unwrap_or_default(),
                place: place.unwrap_or_default(),
                organization: text("organizationId"),
                key: key(event_type, &json["data"]),
                frame: hash(frame),
                data: without_pad(json),
            }),
        }
    }
}

/// `<epoch>.<commit position>.<ordinal>`.
pub fn place(id: &str) -> Option<Place> {
    let mut parts = id.split('.').skip(1);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What is judged of an event's data, without what only makes it long.
fn without_pad(mut frame: Value) -> Value {
    let mut data = frame["data"].take();
    if let Some(fields) = data.as_object_mut() {
        fields.remove("pad");
    }
    data
}

/// Of a long one its beginning and its length tell enough.
fn hash(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (text.len(), text.get(..16 << 10).unwrap_or(text)).hash(&mut hasher);
    hasher.finish()
}

/// What comes up to `end`; what follows stays in the buffer. Cancel-safe.
async fn block(
    socket: &mut TcpStream,
    buffer: &mut Vec<u8>,
    end: &[u8],
    pause: Duration,
) -> std::io::Result<String> {
    loop {
        if let Some(at) = memchr::memmem::find(buffer, end) {
            let rest = buffer.split_off(at + end.len());
            let block = std::mem::replace(buffer, rest);
            return String::from_utf8(block).map_err(std::io::Error::other);
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
        // A slow stream takes enough of it for the sender to see it.
        buffer.reserve(PIECE);
        if socket.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
