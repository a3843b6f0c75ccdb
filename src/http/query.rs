//! The query of a request: `application/x-www-form-urlencoded` pairs, some single, some lists.

use percent_encoding::percent_decode_str;

use super::refusal::Refusal;

#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn read(query: Option<&str>) -> Result<Self, Refusal> {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| Refusal::bad_request("a parameter's name is not UTF-8"))?;
            match decode(value) {
                Some(value) => Ok((name, value)),
                None => Err(Refusal::bad_request(format!("{name}: not UTF-8"))),
            }
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The value of a parameter that may be given once.
    pub(super) fn scalar(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Refusal::bad_request(format!("{name}: given more than once"))),
        }
    }

    /// The items of a comma-separated list; a repeated one goes on. Empty items are none, as front ends send them for
    /// a filter that is not set.
    pub(super) fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.values(name).flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_comes_out_as_it_went_in(pairs in prop::collection::vec(("[a-z]{1,3}", ".*"), 0..6)) {
            let encoded: Vec<_> = pairs
                .iter()
                .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
                .collect();
            prop_assert_eq!(Query::read(Some(&encoded.join("&"))).unwrap().0, pairs);
        }

        #[test]
        fn no_text_is_too_odd_to_read(text in ".*") {
            if let Ok(query) = Query::read(Some(&text)) {
                for name in query.names() {
                    let _ = query.scalar(name);
                    prop_assert!(query.list(name).all(|item| !item.is_empty() && !item.contains(',')));
                }
            }
        }
    }

    #[test]
    fn pairs_are_decoded_as_browsers_encode_them() {
        let query = Query::read(Some("a=1%2C2&b+c=%C3%A4+%2B&&d&a=,3,")).unwrap();
        assert_eq!(query.list("a").collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(query.scalar("b c").unwrap(), Some("ä +"));
        assert_eq!(query.scalar("d").unwrap(), Some(""));
        assert_eq!(query.scalar("e").unwrap(), None);
        assert_eq!(query.names().collect::<Vec<_>>(), ["a", "b c", "d", "a"]);
    }

    #[test]
    fn a_scalar_given_twice_and_what_is_no_text_are_refused() {
        let query = Query::read(Some("since=5m&since=5m")).unwrap();
        assert_eq!(query.scalar("since").unwrap_err().message(), "since: given more than once");
        assert_eq!(Query::read(Some("x=%ff")).unwrap_err().message(), "x: not UTF-8");
        assert_eq!(Query::read(Some("%ff=x")).unwrap_err().message(), "a parameter's name is not UTF-8");
    }
}
