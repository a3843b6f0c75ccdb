//! A JSON object of a request, taken apart: so that a mistake can be told by its name.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::body::mistake;
use super::refusal::Refusal;

/// The members in their order, each once, their values not yet read: nothing is built that is not wanted, however deep
/// it is.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// `what` is what the object is called in a message.
    pub(super) fn read(what: &str, text: &'a [u8]) -> Result<Self, Refusal> {
        let members: Self = serde_json::from_slice(text).map_err(|error| {
            Refusal::bad_request(format!("{what}: a JSON object is needed: {}", mistake(&error)))
        })?;
        let mut names: Vec<&str> = members.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair.first() == pair.last()).and_then(<[_]>::first) {
            Some(name) => Err(Refusal::bad_request(format!("{what}: {name} is given more than once"))),
            None => Ok(members),
        }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (String, &'a RawValue)> {
        self.0.into_iter()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let members =
            Members::read("the body", text.as_bytes()).map_err(|error| error.message().to_owned())?;
        Ok(members.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect())
    }

    #[test]
    fn an_object_is_taken_apart_without_looking_at_its_values() {
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        let text = format!("{{ \"b\" : {deep}, \"a\\u0062\": 1.0}}");
        assert_eq!(read(&text).unwrap(), [("b".to_owned(), deep), ("ab".to_owned(), "1.0".to_owned())]);
        assert_eq!(read("{}").unwrap(), []);
    }

    #[test]
    fn what_is_no_object_and_what_is_said_twice_is_refused() {
        for text in ["", "[]", "1", "{\"a\":1", "{\"a\":1}x", "{a:1}", "null", "{\"a\":}"] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("the body: a JSON object is needed"), "{text}: {error}");
        }
        assert_eq!(
            read("{\"a\":1,\"b\":2,\"\\u0061\":3}").unwrap_err(),
            "the body: a is given more than once"
        );
    }
}
