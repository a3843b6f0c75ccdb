use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

const SET: &str = include_str!("../authenticator/fixtures/jwks.json");

/// What the endpoint does with a request.
#[derive(Clone, Debug)]
enum Act {
    /// Status, further headers, body.
    Answer(u16, &'static str, String),
    /// Takes the request and says nothing.
    Hang,
    /// Sends a head and then bytes, a few at a time and for ever.
    Trickle,
    /// Closes at once.
    Drop,
}

fn set() -> Act {
    Act::Answer(200, "", SET.to_owned())
}

/// The set with its RSA key under another id.
fn renamed(id: &str) -> String {
    SET.replace("\"kid\":\"rsa\"", &format!("\"kid\":\"{id}\""))
}

/// An endpoint that does what it is told, the last for ever, and keeps the requests' heads.
struct Endpoint {
    url: String,
    requests: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
    acts: Arc<Mutex<VecDeque<Act>>>,
    _serving: JoinSet<()>,
}

impl Endpoint {
    async fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys?secret=hidden", listener.local_addr().unwrap());
        let acts = Arc::new(Mutex::new(acts.into_iter().collect::<VecDeque<_>>()));
        let (requests, heads) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let mut serving = JoinSet::new();
        let shared = (Arc::clone(&acts), Arc::clone(&requests), Arc::clone(&heads));
        serving.spawn(async move {
            let (acts, requests, heads): (_, _, Arc<Mutex<Vec<String>>>) = shared;
            let mut open = JoinSet::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let act = {
                    let mut acts = acts.lock().unwrap();
                    if acts.len() > 1 { acts.pop_front() } else { acts.front().cloned() }
                };
                requests.fetch_add(1, Ordering::SeqCst);
                let heads = Arc::clone(&heads);
                open.spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") && socket.read_buf(&mut head).await.is_ok_and(|n| n > 0) {}
                    heads.lock().unwrap().push(String::from_utf8(head).unwrap());
                    match act.unwrap() {
                        Act::Answer(status, headers, body) => {
                            let length = body.len();
                            let head = format!(
                                "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
                            );
                            let _ = socket.write_all((head + &body).as_bytes()).await;
                        }
                        Act::Hang => std::future::pending().await,
                        Act::Trickle => {
                            let _ = socket.write_all(b"HTTP/1.1 200 X\r\n\r\n").await;
                            while socket.write_all(&[b' '; 4096]).await.is_ok() {}
                        }
                        Act::Drop => {}
                    }
                });
            }
        });
        Self { url, requests, heads, acts, _serving: serving }
    }

    fn next(&self, act: Act) {
        *self.acts.lock().unwrap() = [act].into();
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Bounds that a test does not wait for, unless it says so.
fn patient() -> Pace {
    let hour = Duration::from_secs(3600);
    Pace {
        asked: hour,
        least: hour,
        most: 2 * hour,
        usual: hour,
        failing: (hour, hour),
        stale: hour,
        patience: Duration::from_secs(20),
    }
}

struct Kept {
    jwks: Arc<Jwks>,
    readiness: Readiness,
    _keeping: JoinSet<()>,
}

fn keep(place: &str, pace: Pace) -> Kept {
    let jwks = Jwks::with(place, pace).unwrap();
    let readiness = Readiness::new();
    let mut keeping = JoinSet::new();
    keeping.spawn(Arc::clone(&jwks).keep(readiness.clone()));
    Kept { jwks, readiness, _keeping: keeping }
}

impl Kept {
    async fn find(&self, id: &str) -> Result<usize, TokenError> {
        self.jwks.find(Algorithm::RS256, Some(id)).await.map(|keys| keys.len())
    }

    /// Returns once so many fetches have ended.
    async fn attempts(&self, count: u64) {
        let mut known = self.jwks.known.subscribe();
        let waited = known.wait_for(|known| known.attempts >= count);
        let _ = timeout(Duration::from_secs(20), waited).await.expect("a fetch").unwrap();
    }

    fn reasons(&self) -> Vec<String> {
        self.readiness.snapshot().reasons().map(|(key, reason)| format!("{key}: {}", reason.text)).collect()
    }

    /// Returns once readiness says something, or nothing any more.
    async fn told(&self, something: bool) -> Vec<String> {
        let waited = timeout(Duration::from_secs(20), async {
            while self.reasons().is_empty() == something {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("readiness");
        self.reasons()
    }
}

const AWAY: Result<usize, TokenError> = Err(TokenError::Unavailable("keys"));

#[tokio::test]
async fn keys_are_chosen_by_id_and_algorithm() {
    let endpoint = Endpoint::new([set()]).await;
    let kept = keep(&endpoint.url, patient());
    let count = async |algorithm, id| kept.jwks.find(algorithm, id).await.map(|keys| keys.len());
    assert_eq!(count(Algorithm::RS256, Some("rsa")).await, Ok(1));
    assert_eq!(count(Algorithm::RS256, None).await, Ok(1));
    assert_eq!(count(Algorithm::ES256, Some("p256")).await, Ok(1));
    assert_eq!(count(Algorithm::ES256, Some("rsa")).await, Ok(0));
    assert_eq!(count(Algorithm::HS256, Some("rsa")).await, Ok(0));
    assert_eq!(endpoint.requests(), 1);
    assert!(kept.told(false).await.is_empty());
    let head = endpoint.heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(
        head.starts_with("get /keys?secret=hidden http/1.1\r\n") && !head.contains("if-none-match"),
        "{head}"
    );
}

#[tokio::test]
async fn a_thousand_requests_with_unknown_ids_cost_one_fetch() {
    let endpoint = Endpoint::new([set()]).await;
    let kept = keep(&endpoint.url, Pace { asked: Duration::ZERO, ..patient() });
    kept.attempts(1).await;
    endpoint.next(Act::Answer(200, "", renamed("new")));
    // The second fetch is asked for; who comes while it is under way waits for it.
    kept.jwks.known.send_modify(|known| known.tried_at = None);
    let mut all = JoinSet::new();
    for number in 0..1000 {
        let jwks = Arc::clone(&kept.jwks);
        let id = if number % 2 == 0 { "new".to_owned() } else { format!("made up {number}") };
        all.spawn(
            async move { (number, jwks.find(Algorithm::RS256, Some(&id)).await.map(|keys| keys.len())) },
        );
    }
    while let Some(found) = all.join_next().await {
        let (number, found) = found.unwrap();
        assert_eq!(found, Ok(usize::from(number % 2 == 0)), "{number}");
    }
    // One to begin with, one that was asked for, and one for who asked while that was under way.
    assert!(endpoint.requests() <= 3, "{}", endpoint.requests());
}

#[tokio::test]
async fn ids_that_are_made_up_cost_one_fetch_in_a_while() {
    let endpoint = Endpoint::new([set()]).await;
    let kept = keep(&endpoint.url, patient());
    assert_eq!(kept.find("rsa").await, Ok(1));
    for number in 0..1000 {
        assert_eq!(kept.find(&format!("made up {number}")).await, Ok(0));
    }
    assert_eq!(endpoint.requests(), 1);
}

#[tokio::test]
async fn a_rotated_key_is_found_and_the_old_one_is_gone() {
    let endpoint = Endpoint::new([set()]).await;
    let kept = keep(&endpoint.url, Pace { asked: Duration::ZERO, ..patient() });
    assert_eq!(kept.find("rsa").await, Ok(1));
    endpoint.next(Act::Answer(200, "", renamed("next")));
    assert_eq!(kept.find("next").await, Ok(1));
    endpoint.next(Act::Answer(200, "", r#"{"keys":[]}"#.to_owned()));
    assert_eq!(kept.find("rsa").await, Ok(0));
    assert_eq!(kept.find("next").await, Ok(0), "a set without keys takes all of them away");
    assert!(kept.told(true).await[0].starts_with("jwks: the key set of access.jwks_url holds no key"));
}

#[tokio::test]
async fn a_document_is_asked_for_again_by_its_tag_when_it_has_grown_old() {
    let tagged = Act::Answer(200, "etag: \"one\"\r\ncache-control: max-age=0\r\n", SET.to_owned());
    let endpoint = Endpoint::new([tagged, Act::Answer(304, "", String::new())]).await;
    let soon = Duration::from_millis(5);
    let kept = keep(&endpoint.url, Pace { least: soon, ..patient() });
    kept.attempts(2).await;
    assert_eq!(kept.find("rsa").await, Ok(1));
    let heads = endpoint.heads.lock().unwrap().join("");
    assert!(heads.contains("if-none-match: \"one\"\r\n"), "{heads}");
    assert!(kept.told(false).await.is_empty());
}

#[tokio::test]
async fn an_endpoint_that_fails_is_told_and_the_keys_at_hand_go_on_for_a_while() {
    let soon = Duration::from_millis(5);
    let failing = [
        ("status 500", Act::Answer(500, "", SET.to_owned())),
        ("status 302", Act::Answer(302, "location: http://127.0.0.1:1/\r\n", String::new())),
        ("status 304", Act::Answer(304, "", String::new())),
        ("not a JSON Web Key Set", Act::Answer(200, "", "<html>".to_owned())),
        ("not a JSON Web Key Set", Act::Answer(200, "", String::new())),
        ("larger than 256 KiB", Act::Answer(200, "", format!("{SET}{}", " ".repeat(256 << 10)))),
        ("larger than 256 KiB", Act::Trickle),
        ("", Act::Drop),
    ];
    for (why, act) in failing {
        let endpoint = Endpoint::new([set(), act]).await;
        let pace = Pace { least: soon, most: soon, failing: (soon, soon), ..patient() };
        let kept = keep(&endpoint.url, pace);
        kept.attempts(1).await;
        let told = kept.told(true).await.join("");
        assert!(told.contains(why) && told.contains("those at hand are used"), "{told}");
        assert!(!told.contains("hidden"), "{told}");
        assert_eq!(kept.find("rsa").await, Ok(1), "{why}");
        assert_eq!(kept.find("unknown").await, AWAY, "{why}: nobody can know");
        endpoint.next(set());
        kept.told(false).await;
    }
}

#[tokio::test]
async fn keys_that_were_not_confirmed_for_too_long_judge_nobody() {
    let soon = Duration::from_millis(5);
    let endpoint = Endpoint::new([set(), Act::Drop]).await;
    let pace = Pace { least: soon, most: soon, failing: (soon, soon), stale: Duration::ZERO, ..patient() };
    let kept = keep(&endpoint.url, pace);
    let told = kept.told(true).await.join("");
    assert!(told.contains("too old to judge by"), "{told}");
    assert_eq!(kept.find("rsa").await, AWAY);
}

#[tokio::test]
async fn who_waits_for_an_endpoint_that_hangs_is_put_off_after_a_moment() {
    let endpoint = Endpoint::new([Act::Hang]).await;
    let kept = keep(&endpoint.url, Pace { patience: Duration::from_millis(50), ..patient() });
    assert_eq!(kept.find("rsa").await, AWAY);
    let dead = keep("http://127.0.0.1:1/keys", patient());
    assert_eq!(dead.find("rsa").await, AWAY);
    let told = dead.told(true).await.join("");
    assert!(told.contains("tokens that need them can't be judged"), "{told}");
}

#[tokio::test]
async fn a_file_is_read_again_when_a_key_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, SET).unwrap();
    let kept = keep(path.to_str().unwrap(), Pace { asked: Duration::ZERO, ..patient() });
    assert_eq!(kept.find("rsa").await, Ok(1));
    std::fs::write(&path, renamed("next")).unwrap();
    assert_eq!(kept.find("next").await, Ok(1));
}
