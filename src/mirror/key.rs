//! Keys as bytes: what rows and indexes are found by.
//!
//! One value stands for itself; several are each preceded by their length, so that `("a", "bc")` and `("ab", "c")`
//! differ. A key's number of values is fixed by its index, so the two forms never meet.

use std::borrow::Cow;

/// None when a value is absent: as in SQL, null equals nothing and is in no index.
pub(super) fn encode_key<'a>(
    values: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
) -> Option<Cow<'a, [u8]>> {
    let mut values = values;
    if values.len() == 1 {
        return values.next().flatten().map(Cow::Borrowed);
    }
    let mut key = Vec::new();
    for value in values {
        let value = value?;
        key.extend_from_slice(&(value.len() as u64).to_le_bytes());
        key.extend_from_slice(value);
    }
    Some(Cow::Owned(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[Option<&str>]) -> Option<Vec<u8>> {
        encode_key(values.iter().map(|value| value.map(str::as_bytes))).map(Cow::into_owned)
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        assert_ne!(key(&[Some("a"), Some("bc")]), key(&[Some("ab"), Some("c")]));
        assert_eq!(key(&[Some("a")]), Some(b"a".to_vec()));
    }

    #[test]
    fn a_null_makes_no_key() {
        assert_eq!(key(&[None]), None);
        assert_eq!(key(&[Some("a"), None]), None);
    }
}
