//! A row's text output, `record_out`'s: its values apart.
//!
//! `(1,"a ""quoted"" b",)`: a quote and a backslash are doubled inside quotes, nothing at all is null, `""` is the
//! empty string. (PostgreSQL documentation, "Composite Type Input and Output Syntax")

use std::borrow::Cow;

use memchr::memchr2;

/// Reads value by value. Whoever reads knows how many there are: `()` is a row of none, and one of one null.
#[derive(Clone, Debug)]
pub struct RecordReader<'a> {
    rest: &'a [u8],
    first: bool,
}

/// The text is no row, or one of other columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text is not that of such a row")]
pub struct NotSuchARow;

impl<'a> RecordReader<'a> {
    /// # Errors
    /// The text does not begin as a row.
    pub fn new(text: &'a [u8]) -> Result<Self, NotSuchARow> {
        let rest = text.strip_prefix(b"(").ok_or(NotSuchARow)?;
        Ok(Self { rest, first: true })
    }

    /// The next value; none for null.
    ///
    /// # Errors
    /// There is no further one.
    pub fn value(&mut self) -> Result<Option<Cow<'a, [u8]>>, NotSuchARow> {
        if !std::mem::take(&mut self.first) {
            self.rest = self.rest.strip_prefix(b",").ok_or(NotSuchARow)?;
        }
        let (value, rest) = match self.rest {
            [b',' | b')', ..] => return Ok(None),
            [b'"', tail @ ..] => unquote(tail).ok_or(NotSuchARow)?,
            text => {
                let end = memchr2(b',', b')', text).ok_or(NotSuchARow)?;
                let (value, rest) = text.split_at_checked(end).ok_or(NotSuchARow)?;
                (Cow::Borrowed(value), rest)
            }
        };
        self.rest = rest;
        Ok(Some(value))
    }

    /// After the last value.
    ///
    /// # Errors
    /// There are more.
    pub fn end(self) -> Result<(), NotSuchARow> {
        if self.rest == b")" { Ok(()) } else { Err(NotSuchARow) }
    }
}

/// The value in front of the closing quote, and what follows that.
fn unquote(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut value = Cow::Borrowed(&[][..]);
    let mut rest = text;
    loop {
        let (plain, next) = rest.split_at_checked(memchr2(b'"', b'\\', rest)?)?;
        match &mut value {
            Cow::Borrowed(b"") => value = Cow::Borrowed(plain),
            value => value.to_mut().extend_from_slice(plain),
        }
        match next {
            [b'"', b'"', tail @ ..] => {
                value.to_mut().push(b'"');
                rest = tail;
            }
            [b'"', tail @ ..] => return Some((value, tail)),
            [b'\\', byte, tail @ ..] => {
                value.to_mut().push(*byte);
                rest = tail;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, columns: usize) -> Result<Vec<Option<String>>, NotSuchARow> {
        let mut reader = RecordReader::new(text.as_bytes())?;
        let mut values = Vec::new();
        for _ in 0..columns {
            values.push(reader.value()?.map(|value| String::from_utf8_lossy(&value).into_owned()));
        }
        reader.end().map(|()| values)
    }

    #[test]
    fn values_come_out_as_their_types_wrote_them() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("()", 0), Ok(vec![]));
        assert_eq!(read("()", 1), Ok(vec![None]));
        assert_eq!(read("(,)", 2), Ok(vec![None, None]));
        assert_eq!(
            read(r#"(1,"a ""q"" \\ b",,"",x y)"#, 5),
            Ok(vec![some("1"), some(r#"a "q" \ b"#), None, some(""), some("x y")])
        );
        assert_eq!(read("(\"(1,\"\"a b\"\")\",2)", 2), Ok(vec![some("(1,\"a b\")"), some("2")]));
    }

    #[test]
    fn a_row_of_other_columns_is_refused() {
        for (text, columns) in [("", 0), ("(1", 1), ("(1)", 2), ("(1,2)", 1), ("(\"1)", 1), ("1)", 1)] {
            assert_eq!(read(text, columns), Err(NotSuchARow), "{text}");
        }
    }
}
