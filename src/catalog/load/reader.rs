//! Typed access to a document: what is not as expected becomes a finding.

use crate::catalog::document::{Entry, Node, Value};
use crate::catalog::error::{Findings, Place};
use crate::catalog::spelling::{is_name, suggestion};

#[derive(Default)]
pub(super) struct Reader {
    pub(super) findings: Findings,
}

impl Reader {
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.findings.add(place, message);
    }

    fn mismatch(&mut self, node: &Node, what: &str, wanted: &str) {
        self.add(
            &node.place,
            format!("{what} is {}; write {wanted}", node.value.kind()),
        );
    }

    pub(super) fn check_keys(&mut self, entries: &[Entry], known: &[&str], what: &str) {
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let hint = suggestion(&entry.key, known.iter().copied());
                self.add(
                    &entry.place,
                    format!("unknown key {:?} in {what}; {hint}", entry.key),
                );
            }
        }
    }

    pub(super) fn table<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
        if let Value::Table(entries) = &node.value {
            return Some(entries);
        }
        self.mismatch(node, what, "a table");
        None
    }

    pub(super) fn array<'n>(&mut self, node: &'n Node, what: &str, wanted: &str) -> Option<&'n [Node]> {
        if let Value::Array(items) = &node.value {
            return Some(items);
        }
        self.mismatch(node, what, wanted);
        None
    }

    /// A string that is not empty.
    pub(super) fn text(&mut self, node: &Node, what: &str, wanted: &str) -> Option<String> {
        match &node.value {
            Value::String(text) if !text.is_empty() => return Some(text.clone()),
            Value::String(_) => self.add(&node.place, format!("{what} is empty; write {wanted}")),
            _ => self.mismatch(node, what, &format!("{wanted}, as a string")),
        }
        None
    }

    pub(super) fn required_text(
        &mut self,
        entries: &[Entry],
        place: &Place,
        key: &str,
        what: &str,
        wanted: &str,
    ) -> Option<super::Located<String>> {
        let Some(entry) = entries.iter().find(|entry| entry.key == key) else {
            self.add(
                place,
                format!("{what} has no {key}; write {key} = \"…\", {wanted}"),
            );
            return None;
        };
        let value = self.text(&entry.node, &format!("{what}: {key}"), wanted)?;
        Some(super::Located {
            value,
            place: entry.place.clone(),
        })
    }

    /// A list of strings that is not empty, each with its place.
    pub(super) fn texts(&mut self, node: &Node, what: &str, wanted: &str) -> Vec<(String, Place)> {
        let Some(items) = self.array(node, what, &format!("a list of {wanted}")) else {
            return Vec::new();
        };
        if items.is_empty() {
            self.add(
                &node.place,
                format!("{what} is empty; list {wanted}, or leave it out"),
            );
        }
        items
            .iter()
            .filter_map(|item| Some((self.text(item, what, wanted)?, item.place.clone())))
            .collect()
    }

    /// A channel.
    pub(super) fn name(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what, "a name")?;
        if is_name(&text) {
            return Some(text);
        }
        self.add(
            &node.place,
            format!("{what} {text:?} is no name; names match [A-Za-z0-9._:-]{{1,100}}"),
        );
        None
    }
}

/// A wrong value as a message shows it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        other => other.kind().to_owned(),
    }
}
