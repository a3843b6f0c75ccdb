//! Names: which are allowed, which are taken, and which was probably meant.

/// Types that only the worker itself may send.
pub const WORKER_TYPES: [&str; 11] = [
    "connected",
    "keepalive",
    "heartbeat",
    "ping",
    "data.sync",
    "stale",
    "fresh",
    "token.expired",
    "access.revoked",
    "stream.evicted",
    "presence_updated",
];

/// Query parameters of a stream: a tag of that name could never be filtered on.
pub(super) const STREAM_PARAMETERS: [&str; 12] = [
    "organizationId",
    "channel",
    "types",
    "since",
    "lastEventId",
    "token",
    "ticket",
    "keepalive",
    "interval",
    "presence",
    "connectionId",
    "clientId",
];

/// Event types, channels and tag names match `[A-Za-z0-9._:-]{1,100}`; none of it needs escaping in JSON or a URL.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

/// `created_at` as `createdAt`: what stands after an underscore between letters is capitalized; leading and trailing
/// underscores stay.
#[must_use]
pub fn camel_case(column: &str) -> String {
    let body = column.trim_start_matches('_');
    let tail = body.len() - body.trim_end_matches('_').len();
    let (leading, rest) = column.split_at(column.len() - body.len());
    let (middle, trailing) = rest.split_at(rest.len() - tail);
    let mut name = String::with_capacity(column.len());
    name.push_str(leading);
    for (index, word) in middle.split('_').filter(|word| !word.is_empty()).enumerate() {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if index > 0 => name.extend(first.to_uppercase()),
            Some(first) => name.push(first),
            None => {}
        }
        name.push_str(letters.as_str());
    }
    name.push_str(trailing);
    name
}

/// The end of a message about a name that is not known: the closest one that is, or all of them when they are few.
pub(super) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    const LISTED: usize = 12;
    let known: Vec<&str> = known.into_iter().collect();
    let within = (name.chars().count() / 3).max(1);
    let closest = known.iter().map(|candidate| (distance(name, candidate), *candidate)).min();
    match closest {
        None => "there is none".to_owned(),
        Some((far, candidate)) if far <= within => format!("did you mean {candidate:?}?"),
        Some(_) if known.len() <= LISTED => {
            let listed: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
            format!("known: {}", listed.join(", "))
        }
        Some((_, candidate)) => format!("the closest known name is {candidate:?}"),
    }
}

/// Edits (insert, delete, replace a letter) from `a` to `b`, case aside.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, left) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(before);
        for (above, right) in row.iter().skip(1).zip(&b) {
            let edited = (diagonal + usize::from(left != *right)).min(above + 1).min(before + 1);
            diagonal = *above;
            before = edited;
            next.push(edited);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn column_names_turn_to_camel_case() {
        for (column, name) in [
            ("area_m2", "areaM2"),
            ("created_at", "createdAt"),
            ("id", "id"),
            ("_id", "_id"),
            ("__internal_id", "__internalId"),
            ("a__b", "aB"),
            ("trailing_", "trailing_"),
            ("___", "___"),
            ("", ""),
            ("alreadyCamel", "alreadyCamel"),
            ("größe_über", "größeÜber"),
        ] {
            assert_eq!(camel_case(column), name);
        }
    }

    #[test]
    fn the_closest_name_is_suggested() {
        assert_eq!(suggestion("organisation", ["organization", "channel"]), "did you mean \"organization\"?");
        assert_eq!(suggestion("Channel", ["organization", "channel"]), "did you mean \"channel\"?");
        assert_eq!(suggestion("zzz", ["organization", "channel"]), "known: \"organization\", \"channel\"");
        assert_eq!(suggestion("zzz", []), "there is none");
    }

    #[test]
    fn names_are_what_needs_no_escaping() {
        assert!(is_name("issue:created") && is_name("a") && is_name(&"x".repeat(100)));
        assert!(
            !is_name("")
                && !is_name("a b")
                && !is_name("ä")
                && !is_name(&"x".repeat(101))
                && !is_name("a\"b")
        );
    }

    proptest! {
        #[test]
        fn camel_case_is_stable_and_keeps_letters(column in "[a-z_0-9]{0,40}") {
            let name = camel_case(&column);
            let letters = |text: &str| text.chars().filter(|c| *c != '_').collect::<String>().to_lowercase();
            prop_assert_eq!(letters(&name), letters(&column));
            prop_assert_eq!(camel_case(&name), name);
        }

        #[test]
        fn distance_is_a_metric(a in "[a-c]{0,8}", b in "[a-c]{0,8}") {
            prop_assert_eq!(distance(&a, &a), 0);
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert!(distance(&a, &b) <= a.len().max(b.len()));
        }
    }
}
