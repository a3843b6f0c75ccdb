//! The forms of `data`.
//!
//! A string is a column. A table with one of the keys below is that form; any other table is a nested object, and
//! `{ object = {…} }` is a nested object whatever its keys are.

use crate::catalog::declaration::{FieldDeclaration, Form, Image};
use crate::catalog::document::{Entry, Node, Value};
use crate::catalog::spelling::suggestion;

use super::reader::{Reader, shown};

/// The key that makes a table a form, and the keys that may stand beside it.
const FORMS: [(&str, &[&str]); 8] = [
    ("column", &["omit"]),
    ("expr", &["omit"]),
    ("from", &["column", "fields", "omit"]),
    ("row", &[]),
    ("changed", &[]),
    ("previous", &[]),
    ("value", &[]),
    ("object", &[]),
];

pub(super) fn read_fields(reader: &mut Reader, node: &Node, what: &str) -> Vec<FieldDeclaration> {
    let entries = reader.table(node, what).unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| read_field(reader, entry, what))
        .collect()
}

fn read_field(reader: &mut Reader, entry: &Entry, parent: &str) -> Option<FieldDeclaration> {
    let what = format!("{parent}.{}", entry.key);
    let (form, omit_null) = match &entry.node.value {
        Value::String(column) if !column.is_empty() => (Form::Column(column.clone()), false),
        Value::Table(entries) => read_form(reader, entries, entry, &what)?,
        other => {
            let message = format!(
                "{what} is {}; write a column, or a form such as {{ expr = \"…\" }}",
                shown(other)
            );
            reader.add(&entry.place, message);
            return None;
        }
    };
    Some(FieldDeclaration {
        name: entry.key.clone(),
        place: entry.place.clone(),
        omit_null,
        form,
    })
}

fn read_form(reader: &mut Reader, entries: &[Entry], field: &Entry, what: &str) -> Option<(Form, bool)> {
    let find = |key: &str| entries.iter().find(|entry| entry.key == key);
    // `column` is a form of its own and a part of `from`, which is therefore asked first.
    let form = if find("from").is_some() {
        FORMS.iter().find(|(key, _)| *key == "from")
    } else {
        FORMS.iter().find(|(key, _)| find(key).is_some())
    };
    let Some((key, beside)) = form else {
        return Some((Form::Object(read_fields(reader, &field.node, what)), false));
    };
    let main = &find(key)?.node;
    for entry in entries {
        if entry.key != *key && !beside.contains(&entry.key.as_str()) {
            let hint = if beside.is_empty() {
                format!("{key:?} stands alone")
            } else {
                suggestion(&entry.key, beside.iter().copied())
            };
            let message = format!(
                "unknown key {:?} beside {key:?} in {what}; {hint} (a nested object with such a key is {{ object = {{ … }} }})",
                entry.key
            );
            reader.add(&entry.place, message);
        }
    }
    let omit_null = find("omit").is_some_and(|omit| match &omit.node.value {
        Value::String(text) if text == "null" => true,
        other => {
            reader.add(
                &omit.place,
                format!(
                    "{what}: omit is {}; write \"null\", or leave it out",
                    shown(other)
                ),
            );
            false
        }
    });
    let form = match *key {
        "column" => Form::Column(reader.text(main, what, "a column")?),
        "expr" => Form::Expression(reader.text(main, what, "an expression")?),
        "from" => read_join_form(reader, entries, main, field, what)?,
        "row" => match &main.value {
            Value::String(text) if text == "new" => Form::Row(Image::New),
            Value::String(text) if text == "old" => Form::Row(Image::Old),
            other => {
                reader.add(
                    &main.place,
                    format!("{what}: row is {}; write \"new\" or \"old\"", shown(other)),
                );
                return None;
            }
        },
        "changed" | "previous" => {
            if !matches!(main.value, Value::Boolean(true)) {
                let message = format!(
                    "{what}: {key} is {}; write true (a nested object with such a key is {{ object = {{ … }} }})",
                    shown(&main.value)
                );
                reader.add(&main.place, message);
                return None;
            }
            if *key == "changed" {
                Form::Changed
            } else {
                Form::Previous
            }
        }
        "value" => Form::Value(read_json(reader, main, what)?.to_string()),
        _ => Form::Object(read_fields(reader, main, what)),
    };
    Some((form, omit_null))
}

/// `{ from, column }` or `{ from, fields }`.
fn read_join_form(
    reader: &mut Reader,
    entries: &[Entry],
    from: &Node,
    field: &Entry,
    what: &str,
) -> Option<Form> {
    let join = reader.text(from, &format!("{what}: from"), "a lookup's or related row's name")?;
    let find = |key: &str| entries.iter().find(|entry| entry.key == key);
    match (find("column"), find("fields")) {
        (Some(column), None) => {
            let column = reader.text(&column.node, &format!("{what}: column"), "a column")?;
            Some(Form::JoinColumn { join, column })
        }
        (None, Some(fields)) => {
            let fields = read_fields(reader, &fields.node, what);
            for field in fields
                .iter()
                .filter(|field| !matches!(field.form, Form::Column(_)))
            {
                let message = format!(
                    "{what}.{} is no column; fields are columns of {join:?}",
                    field.name
                );
                reader.add(&field.place, message);
            }
            Some(Form::JoinObject { join, fields })
        }
        _ => {
            let message =
                format!("{what} takes from {join:?}; write either column = \"…\" or fields = {{ … }}");
            reader.add(&field.place, message);
            None
        }
    }
}

/// A literal, as JSON.
fn read_json(reader: &mut Reader, node: &Node, what: &str) -> Option<serde_json::Value> {
    use serde_json::Value as Json;
    Some(match &node.value {
        Value::String(text) | Value::Datetime(text) => Json::from(text.clone()),
        Value::Integer(number) => Json::from(*number),
        Value::Boolean(value) => Json::from(*value),
        Value::Float(number) => {
            let Some(number) = serde_json::Number::from_f64(*number) else {
                reader.add(
                    &node.place,
                    format!("{what}: JSON has no {number}; write a finite number or a string"),
                );
                return None;
            };
            Json::Number(number)
        }
        Value::Array(items) => Json::Array(
            items
                .iter()
                .filter_map(|item| read_json(reader, item, what))
                .collect(),
        ),
        Value::Table(entries) => Json::Object(
            entries
                .iter()
                .filter_map(|entry| Some((entry.key.clone(), read_json(reader, &entry.node, what)?)))
                .collect(),
        ),
    })
}
