use super::*;

fn principal(user: &str) -> Principal {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Principal {
        subject: user.into(),
        expires_at: clock.as_secs() + 3600,
        scopes: vec!["walcast:stats".into()],
        default_organization: Some("b".into()),
        organizations: [("a".into(), Some("admin".into())), ("b".into(), None)].into(),
        bound_to: None,
        session: None,
    }
}

fn tickets() -> Tickets {
    Tickets::new().unwrap()
}

#[test]
fn a_ticket_stands_for_its_issuer_and_no_more() {
    let tickets = tickets();
    let issuer = principal("u");
    let ticket = tickets.mint(&issuer, None).unwrap();
    assert_eq!(ticket.expires_in, 30);
    assert_eq!(tickets.read(&ticket.text).unwrap().0, issuer);

    let bound = tickets.mint(&issuer, Some("a")).unwrap();
    let (bound, _) = tickets.read(&bound.text).unwrap();
    assert_eq!((bound.default_organization.as_deref(), bound.expires_at), (Some("a"), issuer.expires_at));
    assert_eq!(bound.organizations, [("a".into(), Some("admin".into()))].into());
    assert!(bound.may_ask_for("a") && !bound.may_ask_for("b"));
}

#[test]
fn a_ticket_lets_one_in() {
    let tickets = tickets();
    let text = tickets.mint(&principal("u"), None).unwrap().text;
    let (_, first) = tickets.read(&text).unwrap();
    let (_, second) = tickets.read(&text).unwrap();
    tickets.redeem(first).unwrap();
    assert_eq!(tickets.redeem(second), Err(TokenError::Used));
    assert_eq!(tickets.read(&text).unwrap_err(), TokenError::Used);
    // Another of the same user is another.
    let (_, other) = tickets.read(&tickets.mint(&principal("u"), None).unwrap().text).unwrap();
    tickets.redeem(other).unwrap();
}

#[test]
fn of_all_who_come_at_once_one_gets_through() {
    let tickets = tickets();
    let text = tickets.mint(&principal("u"), None).unwrap().text;
    let through = std::thread::scope(|scope| {
        let one = || tickets.read(&text).and_then(|(_, claim)| tickets.redeem(claim)).is_ok();
        let all: Vec<_> = (0..16).map(|_| scope.spawn(one)).collect();
        all.into_iter().filter(|_| true).map(|thread| usize::from(thread.join().unwrap())).sum::<usize>()
    });
    assert_eq!(through, 1);
}

#[test]
fn a_ticket_waits_half_a_minute_and_never_beyond_its_issuer() {
    let tickets = tickets();
    let (now, clock) = (Instant::now(), SystemTime::now());
    let ticket = tickets.mint_at(&principal("u"), None, now, clock).unwrap();
    let at = |millis| (now + Duration::from_millis(millis), clock);
    let read = |(now, clock): (Instant, SystemTime)| tickets.read_at(&ticket.text, now, clock);
    let (_, claim) = read(at(29_900)).unwrap();
    assert_eq!(read(at(30_001)).unwrap_err(), TokenError::Expired);
    // Read in time, and redeemed too late.
    assert_eq!(tickets.redeem_at(claim, at(30_001).0), Err(TokenError::Expired));
    // The issuer's end is one of the clock.
    assert_eq!(read((now, clock + Duration::from_secs(3601))).unwrap_err(), TokenError::Expired);
    let mut short = principal("v");
    short.expires_at -= 3600 - 5;
    assert!(tickets.mint_at(&short, None, now, clock).unwrap().expires_in <= 5);
}

#[test]
fn another_process_accepts_none_and_nothing_of_one_can_be_changed() {
    let (tickets, other) = (tickets(), tickets());
    let text = tickets.mint(&principal("u"), None).unwrap().text;
    assert_eq!(other.read(&text).unwrap_err(), TokenError::Signature);
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'B' { b'C' } else { b'B' };
        assert!(tickets.read(std::str::from_utf8(&changed).unwrap()).is_err(), "{at}");
    }
    for garbage in ["", ".", "a", "a.b", &format!("{text}."), &format!("{text}A"), &"x".repeat(10_000)] {
        assert!(tickets.read(garbage).is_err(), "{garbage}");
    }
}

#[test]
fn what_was_used_is_remembered_until_it_would_have_run_out() {
    let tickets = tickets();
    let (start, clock) = (Instant::now(), SystemTime::now());
    for minute in 0..5u64 {
        let now = start + Duration::from_secs(60 * minute);
        for user in 0..100 {
            let text = tickets.mint_at(&principal(&user.to_string()), None, now, clock).unwrap().text;
            let (_, claim) = tickets.read_at(&text, now, clock).unwrap();
            tickets.redeem_at(claim, now).unwrap();
        }
        let used = tickets.used();
        assert_eq!((used.numbers.len(), used.until.len()), (100, 100));
    }
}

#[test]
fn so_many_that_one_could_not_be_remembered_are_put_off_and_none_is_let_in_twice() {
    let tickets = tickets();
    let now = Instant::now();
    let claim = |number| Claim { number, until: 30_000 };
    for number in 0..MAX_USED as u128 {
        tickets.redeem_at(claim(number), now).unwrap();
    }
    let one_more = claim(u128::MAX);
    assert_eq!(tickets.redeem_at(one_more, now), Err(TokenError::Unavailable("tickets")));
    let later = now + Duration::from_secs(31);
    tickets.redeem_at(Claim { until: 60_000, ..one_more }, later).unwrap();
}

#[test]
fn a_user_mints_so_many_and_others_are_not_held_up() {
    let tickets = tickets();
    let (start, clock) = (Instant::now(), SystemTime::now());
    let mint =
        |user: &str, at| tickets.mint_at(&principal(user), None, start + Duration::from_millis(at), clock);
    let minted = (0..100).filter(|_| mint("u", 0).is_ok()).count();
    assert_eq!(minted, 60);
    assert_eq!(mint("u", 400).unwrap_err(), MintError::TooMany);
    assert!(mint("v", 400).is_ok());
    assert!(mint("u", 600).is_ok());
    assert_eq!(mint("u", 600).unwrap_err(), MintError::TooMany);
    assert_eq!((0..100).filter(|_| mint("u", 60_000).is_ok()).count(), 60);
}

#[test]
fn what_does_not_fit_into_a_url_is_not_minted() {
    let tickets = tickets();
    let mut issuer = principal("u");
    issuer.organizations = (0..1000).map(|n| (format!("organization-{n}").into(), None)).collect();
    assert_eq!(tickets.mint(&issuer, None).unwrap_err(), MintError::TooLarge);
    assert!(tickets.mint(&issuer, Some("organization-7")).is_ok());
}
