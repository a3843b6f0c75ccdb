//! One event of a table: what makes it, who may see it, what it says.

use crate::catalog::declaration::{EventDeclaration, Literal, Located, OnlyDeclaration};
use crate::catalog::document::{Entry, Node, Value};
use crate::catalog::spelling::{WORKER_TYPES, is_name, suggestion};
use crate::source::Operation;

use super::reader::Reader;
use super::{Defaults, data, read_tags};

const EVENT_KEYS: [&str; 7] = ["type", "on", "channel", "tags", "when", "only", "data"];

pub(super) fn read_event(reader: &mut Reader, node: &Node, defaults: &Defaults) -> Option<EventDeclaration> {
    let entries = reader.table(node, "an event")?;
    let place = entries
        .first()
        .map_or_else(|| node.place.clone(), |entry| entry.place.clone());
    reader.check_keys(entries, &EVENT_KEYS, "an event");
    let event_type = reader.required_text(entries, &place, "type", "an event", "its type")?;
    let what = format!("event {:?}", event_type.value);
    if !is_name(&event_type.value) {
        reader.add(
            &event_type.place,
            format!("{what} is no name; names match [A-Za-z0-9._:-]{{1,100}}"),
        );
    }
    if WORKER_TYPES.contains(&event_type.value.as_str()) {
        reader.add(
            &event_type.place,
            format!("{what} is the worker's own type; choose another name"),
        );
    }
    let mut event = EventDeclaration {
        event_type: event_type.value,
        place,
        on: Vec::new(),
        channel: String::new(),
        tags: defaults.tags.clone(),
        changed: Vec::new(),
        became: Vec::new(),
        expression: None,
        only: None,
        data: Vec::new(),
    };
    let mut channel = defaults.channel.clone();
    for Entry { key, node, .. } in entries {
        match key.as_str() {
            "on" => event.on = read_operations(reader, node, &what),
            "channel" => channel = reader.name(node, "channel").or(channel),
            "tags" => event.tags = read_tags(reader, node),
            "when" => read_when(reader, node, &mut event),
            "only" => event.only = read_only(reader, node, &what),
            "data" => event.data = data::read_fields(reader, node, "data"),
            _ => {}
        }
    }
    if !entries.iter().any(|entry| entry.key == "on") {
        let message = format!("{what} has no on; list which of \"insert\", \"update\", \"delete\" make it");
        reader.add(&event.place, message);
    }
    if channel.is_none() && !entries.iter().any(|entry| entry.key == "channel") {
        reader.add(
            &event.place,
            format!("{what} has no channel; give it one, or give the table one"),
        );
    }
    event.channel = channel.unwrap_or_default();
    if event.on.contains(&Operation::Delete) && !(event.changed.is_empty() && event.became.is_empty()) {
        let message = format!(
            "{what} can't change by a delete; leave \"delete\" out of on, or make it an event of its own"
        );
        reader.add(&event.place, message);
    }
    Some(event)
}

fn read_operations(reader: &mut Reader, node: &Node, what: &str) -> Vec<Operation> {
    let names = [
        ("insert", Operation::Insert),
        ("update", Operation::Update),
        ("delete", Operation::Delete),
    ];
    let mut operations = Vec::new();
    for (text, place) in reader.texts(
        node,
        &format!("{what}: on"),
        "\"insert\", \"update\" or \"delete\"",
    ) {
        match names.iter().find(|(name, _)| *name == text) {
            Some((_, operation)) if !operations.contains(operation) => operations.push(*operation),
            Some(_) => reader.add(&place, format!("{what}: on says {text:?} twice; once is enough")),
            None => {
                let hint = suggestion(&text, names.map(|(name, _)| name));
                reader.add(&place, format!("{what}: on has no {text:?}; {hint}"));
            }
        }
    }
    operations
}

fn read_when(reader: &mut Reader, node: &Node, event: &mut EventDeclaration) {
    let entries = reader.table(node, "when").unwrap_or_default();
    reader.check_keys(entries, &["changed", "became", "expr"], "when");
    for Entry { key, place, node } in entries {
        match key.as_str() {
            "changed" => {
                let columns = reader.texts(node, "when.changed", "columns");
                event
                    .changed
                    .extend(columns.into_iter().map(|(value, place)| Located { value, place }));
            }
            "became" => {
                for Entry { key, place, node } in reader.table(node, "when.became").unwrap_or_default() {
                    let literal = match &node.value {
                        Value::String(text) => Literal::Text(text.clone()),
                        Value::Integer(number) => Literal::Integer(*number),
                        Value::Boolean(value) => Literal::Boolean(*value),
                        other => {
                            let kind = other.kind();
                            let message = format!(
                                "when.became.{key} is {kind}; write a string, an integer or a boolean, or use when.expr"
                            );
                            reader.add(place, message);
                            continue;
                        }
                    };
                    event.became.push((
                        Located {
                            value: key.clone(),
                            place: place.clone(),
                        },
                        literal,
                    ));
                }
            }
            "expr" => {
                event.expression = reader
                    .text(node, "when.expr", "an expression")
                    .map(|value| Located {
                        value,
                        place: place.clone(),
                    });
            }
            _ => {}
        }
    }
}

fn read_only(reader: &mut Reader, node: &Node, what: &str) -> Option<OnlyDeclaration> {
    let entries = reader.table(node, "only")?;
    reader.check_keys(entries, &["roles", "user"], "only");
    let mut only = OnlyDeclaration {
        roles: Vec::new(),
        user: None,
    };
    for Entry { key, place, node } in entries {
        match key.as_str() {
            "roles" => {
                only.roles = reader
                    .texts(node, "only.roles", "roles")
                    .into_iter()
                    .map(|(role, _)| role)
                    .collect();
            }
            "user" => {
                only.user = reader
                    .text(node, "only.user", "a column that holds a user's id")
                    .map(|value| Located {
                        value,
                        place: place.clone(),
                    });
            }
            _ => {}
        }
    }
    if entries.is_empty() {
        reader.add(
            &node.place,
            format!("{what}: only admits nobody; name roles, or user, or leave it out"),
        );
    }
    Some(only)
}
