use futures_util::FutureExt;

use super::*;

fn address(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([10, 0, 0, last]))
}

fn sent_away(guest: &Guest) -> bool {
    guest.sent_away().now_or_never().is_some()
}

#[test]
fn who_has_waited_longest_makes_room_and_who_is_busy_does_not() {
    let lobby = Lobby::sized(3, 3, Duration::ZERO);
    let guests: Vec<_> = (1..=3).map(|n| lobby.enter(address(n)).unwrap()).collect();
    guests[0].busy();
    let fourth = lobby.enter(address(4)).unwrap();
    let left: Vec<_> = guests.iter().map(sent_away).collect();
    assert_eq!(left, [false, true, false]);
    // Back from its request it is the last in the row.
    guests[0].waits();
    let fifth = lobby.enter(address(5)).unwrap();
    let sixth = lobby.enter(address(6)).unwrap();
    assert_eq!((sent_away(&guests[2]), sent_away(&fourth), sent_away(&guests[0])), (true, true, false));
    [&guests[0], &fifth, &sixth].into_iter().for_each(Guest::busy);
    assert_eq!(lobby.enter(address(7)).unwrap_err(), Full::Lobby(None), "everybody is busy");
    drop(fifth);
    assert!(lobby.enter(address(7)).is_ok());
}

#[test]
fn a_full_address_makes_room_among_its_own() {
    let lobby = Lobby::sized(10, 2, Duration::ZERO);
    let other = lobby.enter(address(1)).unwrap();
    let first = lobby.enter(address(2)).unwrap();
    let second = lobby.enter(address(2)).unwrap();
    let third = lobby.enter(address(2)).unwrap();
    assert_eq!((sent_away(&other), sent_away(&first), sent_away(&second)), (false, true, false));
    [&second, &third].into_iter().for_each(Guest::busy);
    assert_eq!(lobby.enter(address(2)).unwrap_err(), Full::Address);
    let proxied: Vec<_> = (0..7).map(|_| lobby.enter(None).unwrap()).collect();
    assert!(!sent_away(&other), "three of two addresses and seven of none are ten");
    drop((other, first, second, third, proxied));
    let state = lobby.state();
    assert_eq!((state.open, state.waiting.len(), state.addresses.len()), (0, 0, 0));
}

#[test]
fn where_addresses_say_nothing_everybody_has_their_moment() {
    let lobby = Lobby::new(2, false);
    let guests = [lobby.enter(address(1)).unwrap(), lobby.enter(address(1)).unwrap()];
    assert!(matches!(lobby.enter(address(1)), Err(Full::Lobby(Some(_)))));
    assert!(guests.iter().all(|guest| !sent_away(guest)));
}

#[tokio::test]
async fn a_full_lobby_lets_nobody_in_until_somebody_left_or_had_their_moment() {
    let moment = Duration::from_millis(50);
    let lobby = Lobby::sized(1, 1, moment);
    let began = Instant::now();
    let first = lobby.admit(address(1)).await.unwrap();
    let second = lobby.admit(address(2)).await.unwrap();
    assert!(began.elapsed() >= moment && sent_away(&first));
    second.busy();
    assert!(lobby.admit(address(2)).now_or_never().is_some_and(|refused| refused.is_none()));
    let third = lobby.admit(address(3));
    tokio::pin!(third);
    assert!(tokio::time::timeout(2 * moment, &mut third).await.is_err(), "everybody is busy");
    drop(second);
    assert!(third.await.is_some());
}

#[tokio::test]
async fn who_finds_no_desk_goes_on_without_one_after_a_moment() {
    let lobby = Lobby::new(DESKS + 3, false);
    let guests: Vec<_> = (0..DESKS + 3).map(|_| lobby.enter(None).unwrap()).collect();
    for guest in &guests[..DESKS] {
        assert!(guest.take_desk().now_or_never().is_some(), "a desk is free");
    }
    let began = Instant::now();
    guests[DESKS].take_desk().await;
    assert!(began.elapsed() >= AT_A_DESK);
    // Without one there is none to leave.
    guests[DESKS].leave_desk();
    {
        let next = guests[DESKS + 1].take_desk();
        tokio::pin!(next);
        assert!(next.as_mut().now_or_never().is_none());
        guests[0].busy();
        guests[0].waits();
        next.await;
    }
    assert!(guests[DESKS + 1].desk().is_some(), "it has the one that was left");
    drop(guests);
    assert_eq!(lobby.desks.available_permits(), DESKS);
}

#[test]
fn who_is_sent_away_frees_one_place_and_not_two() {
    let lobby = Lobby::sized(1, 1, Duration::ZERO);
    let first = lobby.enter(address(1)).unwrap();
    let second = lobby.enter(address(1)).unwrap();
    // Its request came too late.
    first.busy();
    first.waits();
    drop(first);
    assert_eq!(lobby.state().open, 1);
    drop(second);
    assert_eq!(lobby.state().open, 0);
}
