//! A TOML file as a tree that knows, for everything in it, the line it stands on and the order it was written in.

use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::error::{Findings, Place};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// `key = value`, or a header and what stands under it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Value {
    /// As a message names it: `a string`.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// The entries of a whole file; what is no TOML is among the findings.
pub(super) fn parse(file: &Arc<str>, text: &str, findings: &mut Findings) -> Vec<Entry> {
    let lines = Lines::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let place = lines.place(error.span().map_or(0, |span| span.start));
        let message = error.message().replace('\n', "; ");
        let line = text.lines().nth(place.line.saturating_sub(1) as usize).unwrap_or_default().trim();
        findings.add(&place, format!("this is not TOML: {message}, in {line:?}"));
    }
    lines.entries(table.get_ref(), findings)
}

/// Offsets to lines.
struct Lines<'a> {
    file: &'a Arc<str>,
    /// Where each line but the first starts.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(file: &'a Arc<str>, text: &str) -> Self {
        Self { file, starts: memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1).collect() }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset) + 1;
        Place { file: Arc::clone(self.file), line: u32::try_from(line).unwrap_or(u32::MAX) }
    }

    fn entries(&self, table: &DeTable<'_>, findings: &mut Findings) -> Vec<Entry> {
        let mut written: Vec<_> = table.iter().collect();
        written.sort_by_key(|(key, _)| key.span().start);
        written
            .into_iter()
            .filter_map(|(key, value)| {
                let place = self.place(key.span().start);
                let value = self.value(value.get_ref(), &place, findings)?;
                Some(Entry {
                    key: key.get_ref().to_string(),
                    place: place.clone(),
                    node: Node { place, value },
                })
            })
            .collect()
    }

    /// `place` is the key's: what a person looks for.
    fn value(&self, value: &DeValue<'_>, place: &Place, findings: &mut Findings) -> Option<Value> {
        Some(match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(date) => Value::Datetime(date.to_string()),
            DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    findings.add(place, format!("{digits} does not fit 64 bits; write a smaller number"));
                    return None;
                }
            },
            DeValue::Float(digits) => match digits.as_str().parse() {
                Ok(number) => Value::Float(number),
                Err(_) => {
                    findings.add(place, format!("{digits} is not a number; write one such as 1.5"));
                    return None;
                }
            },
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .filter_map(|item| {
                        let place = self.place(item.span().start);
                        let value = self.value(item.get_ref(), &place, findings)?;
                        Some(Node { place, value })
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.entries(table, findings)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Entry>, Result<(), String>) {
        let mut findings = Findings::default();
        let entries = parse(&"a.toml".into(), text, &mut findings);
        (entries, findings.unless_any(()).map_err(|errors| errors.to_string()))
    }

    #[test]
    fn entries_keep_the_order_and_the_lines_they_were_written_in() {
        let (entries, errors) =
            read("zeta = 1\nalpha = \"x\"\n\n[mid]\nb = [\n  true,\n  1.5,\n]\na.c = 1979-05-27\n");
        assert_eq!(errors, Ok(()));
        let seen: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.place.line)).collect();
        assert_eq!(seen, [("zeta", 1), ("alpha", 2), ("mid", 4)]);
        let Value::Table(inner) = &entries[2].node.value else { panic!("not a table") };
        assert_eq!(inner.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        let Value::Array(items) = &inner[0].node.value else { panic!("not an array") };
        assert_eq!(items.iter().map(|item| item.place.line).collect::<Vec<_>>(), [6, 7]);
    }

    #[test]
    fn what_is_no_toml_is_named_with_its_line() {
        let (_, errors) = read("a = 1\nb = = 2\n");
        let errors = errors.unwrap_err();
        assert!(errors.starts_with("a.toml:2: this is not TOML: "), "{errors}");
    }
}
