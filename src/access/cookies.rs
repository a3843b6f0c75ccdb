//! Cookies of a request: one by its name, or one that was cut into chunks (`name.0`, `name.1`, …) as Auth.js cuts what
//! is too long for one.
//!
//! A name that stands there twice is no cookie: the second may have been planted by another host of the domain. So is a
//! whole one beside chunks, or a chunk too few.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::COOKIE;

/// More chunks than a request's head has room for.
const MAX_CHUNKS: usize = 16;

/// Present, and not one that can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The value of the cookie `name`, if there is one.
pub(super) fn whole<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Unreadable> {
    let mut values = pairs(headers).filter(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => text(value).map(Some),
        (Some(_), Some(_)) => Err(Unreadable),
    }
}

/// As [`whole`], or joined from its chunks.
pub(super) fn joined<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<Cow<'a, str>>, Unreadable> {
    let mut chunks: [Option<&'a str>; MAX_CHUNKS] = [None; MAX_CHUNKS];
    let mut found = 0;
    for (known, value) in pairs(headers) {
        let Some(number) = known.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"."))
        else {
            continue;
        };
        // Another cookie may begin with this one's name: only numbers are chunks.
        if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
            continue;
        }
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse::<usize>().ok());
        let place = number.and_then(|number| chunks.get_mut(number)).ok_or(Unreadable)?;
        if place.replace(text(value)?).is_some() {
            return Err(Unreadable);
        }
        found += 1;
    }
    let whole = whole(headers, name)?;
    if found == 0 {
        return Ok(whole.map(Cow::Borrowed));
    }
    let in_order: Vec<&str> = chunks.iter().map_while(|chunk| *chunk).collect();
    if whole.is_some() || in_order.len() != found {
        return Err(Unreadable);
    }
    Ok(Some(Cow::Owned(in_order.concat())))
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    pairs.filter_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        let (name, value) = pair.split_at_checked(at)?;
        Some((name.trim_ascii(), value.get(1..)?.trim_ascii()))
    })
}

fn text(value: &[u8]) -> Result<&str, Unreadable> {
    std::str::from_utf8(value).map(|text| text.trim_matches('"')).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookies: &[&str]) -> HeaderMap {
        cookies.iter().map(|cookie| (COOKIE, cookie.parse().unwrap())).collect()
    }

    #[test]
    fn a_cookie_is_known_by_its_whole_name() {
        let one = headers(&["x=1; session=\"c\" ; sessionx=2;xsession=3"]);
        assert_eq!(whole(&one, "session"), Ok(Some("c")));
        assert_eq!(whole(&one, "sess"), Ok(None));
        assert_eq!(whole(&HeaderMap::new(), "session"), Ok(None));
        for twice in [&headers(&["session=a; session=b"]), &headers(&["session=a", "session=a"])] {
            assert_eq!(whole(twice, "session"), Err(Unreadable));
        }
    }

    #[test]
    fn chunks_are_joined_in_the_order_of_their_numbers_or_not_at_all() {
        let join = |cookies: &str| joined(&headers(&[cookies]), "s").map(|found| found.map(Cow::into_owned));
        assert_eq!(join("s.1=b; s.0=a; s.2=c; t.0=x"), Ok(Some("abc".to_owned())));
        assert_eq!(join("s=a"), Ok(Some("a".to_owned())));
        assert_eq!(join("s.x=a; s.=b; s.0x=c"), Ok(None));
        let eleven = (0..11).rev().map(|n| format!("s.{n}={}", char::from(b'a' + n))).collect::<Vec<_>>();
        assert_eq!(join(&eleven.join("; ")), Ok(Some("abcdefghijk".to_owned())));
        for broken in
            ["s.1=b", "s.0=a; s.2=c", "s=a; s.0=a", "s.0=a; s.0=b", "s.0=a; s.16=b", "s.0=a; s.00=b"]
        {
            assert_eq!(join(broken), Err(Unreadable), "{broken}");
        }
    }
}
