//! Never a downgrade: whatever stands beside or behind it, a credential that is present and bad is 401.

use super::bench::{Bench, sign, token};

/// What stands in one of the places of a credential.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slot {
    Absent,
    Good,
    Forged,
    Expired,
    Empty,
}

const SLOTS: [Slot; 5] = [Slot::Absent, Slot::Good, Slot::Forged, Slot::Expired, Slot::Empty];

impl Slot {
    fn text(self, good: &str) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::Good => Some(good.to_owned()),
            Self::Forged => Some(format!("{}AAAA", &good[..good.len() - 4])),
            Self::Expired => Some(sign("u", 0, &["a"], "walcast:stats")),
            Self::Empty => Some(String::new()),
        }
    }
}

/// The expected status: the first that is present decides, and nobody is let in without one.
fn expected(slots: [Slot; 4]) -> u16 {
    let deciding = slots.into_iter().find(|slot| *slot != Slot::Absent);
    if deciding == Some(Slot::Good) { 200 } else { 401 }
}

async fn status(bench: &Bench, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
    let answer = bench.ask(method, path, headers).await;
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap()
}

#[tokio::test]
async fn a_bad_credential_is_refused_whatever_stands_beside_it() {
    let bench = Bench::new().await;
    let good = sign("u", 3600, &["a"], "walcast:stats");
    let principal = bench.state.services.authenticator.authenticate(&good).await.unwrap();
    let ticket = bench.state.services.authenticator.tickets().mint(&principal, None).unwrap().text;
    let mut asked = 0;
    for number in 0..SLOTS.len().pow(4) {
        let slots: [Slot; 4] = std::array::from_fn(|place| {
            let place = u32::try_from(place).unwrap();
            SLOTS[number / SLOTS.len().pow(place) % SLOTS.len()]
        });
        let [bearer, by_ticket, query, cookie] = slots;
        let mut parameters = "organizationId=a".to_owned();
        for (name, text) in [("ticket", by_ticket.text(&ticket)), ("token", query.text(&good))] {
            text.iter().for_each(|text| parameters.push_str(&format!("&{name}={text}")));
        }
        let bearer = bearer.text(&good).map(|text| format!("Bearer {text}"));
        let cookie = cookie.text(&good).map(|text| format!("session={text}"));
        let mut headers: Vec<(&str, &str)> = Vec::new();
        headers.extend(bearer.iter().map(|text| ("authorization", text.as_str())));
        headers.extend(cookie.iter().map(|text| ("cookie", text.as_str())));
        // The native path and a preset, by a look that opens nothing.
        for path in ["/api/realtime/stream", "/issues"] {
            let path = format!("{path}?{parameters}");
            assert_eq!(status(&bench, "HEAD", &path, &headers).await, expected(slots), "{path} {slots:?}");
        }
        // Where a ticket is for nothing, one that decides is as good as forged.
        let decides = slots[0] == Slot::Absent && by_ticket != Slot::Absent;
        let elsewhere = if decides { 401 } else { expected(slots) };
        let mint = format!("/api/realtime/tickets?{parameters}");
        let minted = status(&bench, "POST", &mint, &headers).await;
        assert!(minted == elsewhere || (minted == 429 && elsewhere == 200), "{mint} {slots:?}: {minted}");
        headers.push(("x-forwarded-for", "10.0.0.1"));
        let metrics = format!("/metrics?{parameters}");
        assert_eq!(status(&bench, "GET", &metrics, &headers).await, elsewhere, "{metrics} {slots:?}");
        asked += 1;
    }
    assert_eq!(asked, 625);
}

#[tokio::test]
async fn two_of_a_kind_are_refused_even_if_both_are_good() {
    let bench = Bench::new().await;
    let (good, path) = (token("u"), "/api/realtime/stream?organizationId=a");
    let bearer = format!("Bearer {good}");
    let twice = [("authorization", bearer.as_str()), ("authorization", &bearer)];
    assert_eq!(status(&bench, "HEAD", path, &twice).await, 401);
    assert_eq!(status(&bench, "HEAD", &format!("{path}&token={good}&token={good}"), &[]).await, 400);
    let cookies = format!("session={good}; session={good}");
    assert_eq!(status(&bench, "HEAD", path, &[("cookie", &cookies)]).await, 401);
}
