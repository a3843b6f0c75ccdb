//! The known name that somebody probably meant.

/// The candidate with the fewest edits from `wanted`, if at least half of it is right. One whose last dotted part is
/// `wanted`'s counts as near: a key under the wrong section is the commonest slip.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let wanted_last = last(wanted);
    candidates
        .into_iter()
        .map(|candidate| {
            let whole = edits(wanted, candidate);
            let part = if last(candidate) == wanted_last { 1 } else { usize::MAX };
            (whole.min(part), candidate)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance * 2 <= candidate.chars().count())
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, one row at a time.
pub(super) fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, have) in from.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(left);
        for (want, above) in to.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(have != *want)).min(above + 1).min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, expected) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "", 3)] {
            assert_eq!(edits(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let known = ["http.listen", "http.keepalive", "access.jwt_secret"];
        assert_eq!(nearest("http.lissten", known), Some("http.listen"));
        assert_eq!(nearest("jwt_secret", known), Some("access.jwt_secret"));
        assert_eq!(nearest("zzzzzzzzz", known), None);
    }
}
