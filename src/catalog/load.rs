//! TOML files to declarations: the shape of a catalog, without a database.
//!
//! All mistakes are collected, so that one run names all of them. What only the live schema can tell (whether a table
//! or a column exists) is `compile`'s.

mod data;
mod reader;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::postgres::schema::TableName;
use crate::source::Operation;

use super::declaration::{
    EventDeclaration, JoinDeclaration, JoinKind, Literal, Located, OnlyDeclaration, Ownership,
    TableDeclaration, TagDeclaration,
};
use super::document::{self, Entry, Node, Value};
use super::error::{CatalogErrors, Findings, Place};
use super::spelling::{STREAM_PARAMETERS, WORKER_TYPES, is_name, suggestion};
use reader::Reader;

const TABLE_KEYS: [&str; 6] = ["organization", "channel", "tags", "related", "lookup", "events"];
const EVENT_KEYS: [&str; 7] = ["type", "on", "channel", "tags", "when", "only", "data"];
/// Names that expressions give a meaning of their own.
const RESERVED_ROWS: [&str; 8] = ["new", "old", "changed", "op", "true", "false", "null", "in"];

/// The files of a catalog: the file itself, or every `*.toml` of the folder, by name.
pub(super) fn read_files(path: &Path) -> Result<Vec<(Arc<str>, String)>, CatalogErrors> {
    let mut findings = Findings::default();
    let mut fail = |path: &Path, error: &std::io::Error| {
        let place = Place {
            file: path.display().to_string().into(),
            line: 0,
        };
        findings.add(
            &place,
            format!("can't be read ({error}); catalog.path names a TOML file or a folder of them"),
        );
    };
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        paths.clear();
        match std::fs::read_dir(path) {
            Ok(entries) => paths.extend(entries.flatten().map(|entry| entry.path())),
            Err(error) => fail(path, &error),
        }
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
    }
    let mut files = Vec::new();
    for path in paths {
        match std::fs::read_to_string(&path) {
            Ok(text) => files.push((path.display().to_string().into(), text)),
            Err(error) => fail(&path, &error),
        }
    }
    if files.is_empty() {
        let place = Place {
            file: path.display().to_string().into(),
            line: 0,
        };
        findings.add(&place, "holds no catalog; put at least one .toml file there");
    }
    findings.unless_any(files)
}

/// The declarations of all files together.
pub(super) fn read_tables(files: &[(Arc<str>, String)]) -> Result<Vec<TableDeclaration>, CatalogErrors> {
    let mut reader = Reader::default();
    let mut tables: Vec<TableDeclaration> = Vec::new();
    let mut places: HashMap<TableName, Place> = HashMap::new();
    for (file, text) in files {
        for entry in document::parse(file, text, &mut reader.findings) {
            if entry.key != "tables" {
                let hint = suggestion(&entry.key, ["tables"]);
                reader.add(&entry.place, format!("unknown key {:?}; {hint}", entry.key));
                continue;
            }
            let Some(entries) = reader.table(&entry.node, "tables") else {
                continue;
            };
            for entry in entries {
                let name = TableName::parse(&entry.key);
                if let Some(first) = places.get(&name) {
                    let message = format!("table {name} is at {first} already; keep all of it in one place");
                    reader.add(&entry.place, message);
                    continue;
                }
                places.insert(name.clone(), entry.place.clone());
                tables.extend(read_table(&mut reader, name, entry));
            }
        }
    }
    reader.findings.unless_any(tables)
}

fn read_table(reader: &mut Reader, name: TableName, entry: &Entry) -> Option<TableDeclaration> {
    let entries = reader.table(&entry.node, &format!("table {name}"))?;
    reader.check_keys(entries, &TABLE_KEYS, &format!("[tables.{name}]"));
    let mut table = TableDeclaration {
        name,
        place: entry.place.clone(),
        organization: None,
        joins: Vec::new(),
        events: Vec::new(),
    };
    let mut defaults = Defaults::default();
    let mut events = None;
    for Entry { key, place, node } in entries {
        match key.as_str() {
            "organization" => {
                table.organization = reader
                    .text(node, "organization", "a column, or \"*\"")
                    .map(|text| Located {
                        value: if text == "*" {
                            Ownership::Every
                        } else {
                            Ownership::Column(text)
                        },
                        place: place.clone(),
                    });
            }
            "channel" => defaults.channel = reader.name(node, "channel"),
            "tags" => defaults.tags = read_tags(reader, node),
            "related" => read_joins(reader, node, true, &mut table.joins),
            "lookup" => read_joins(reader, node, false, &mut table.joins),
            "events" => events = reader.array(node, "events", "[[…events]] tables"),
            _ => {}
        }
    }
    for node in events.unwrap_or_default() {
        table.events.extend(read_event(reader, node, &defaults));
    }
    if table.organization.is_none()
        && !table.events.is_empty()
        && !entries.iter().any(|entry| entry.key == "organization")
    {
        let message = format!(
            "table {} has no organization; name the column that holds a row's, or \"*\" for every organization",
            table.name
        );
        reader.add(&table.place, message);
    }
    Some(table)
}

/// What a table says for all of its events.
#[derive(Default)]
struct Defaults {
    channel: Option<String>,
    tags: Vec<TagDeclaration>,
}

fn read_tags(reader: &mut Reader, node: &Node) -> Vec<TagDeclaration> {
    let mut tags = Vec::new();
    for Entry { key, place, node } in reader.table(node, "tags").unwrap_or_default() {
        if !is_name(key) {
            reader.add(
                place,
                format!("tag {key:?} is no name; names match [A-Za-z0-9._:-]{{1,100}}"),
            );
        } else if STREAM_PARAMETERS.contains(&key.as_str()) {
            reader.add(
                place,
                format!("tag {key:?} is a stream's own parameter; choose another name"),
            );
        } else if let Some(column) = reader.text(node, &format!("tag {key:?}"), "a column") {
            tags.push(TagDeclaration {
                name: key.clone(),
                column: Located {
                    value: column,
                    place: place.clone(),
                },
            });
        }
    }
    tags
}

fn read_joins(reader: &mut Reader, node: &Node, related: bool, joins: &mut Vec<JoinDeclaration>) {
    let form = if related { "related" } else { "lookup" };
    for Entry {
        key: name,
        place,
        node,
    } in reader.table(node, form).unwrap_or_default()
    {
        let what = format!("{form}.{name}");
        let mut letters = name.chars();
        let identifier = letters
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !identifier {
            reader.add(
                place,
                format!("{what} can't be used in expressions; name it by letters, digits and _"),
            );
        }
        if RESERVED_ROWS.contains(&name.as_str()) {
            reader.add(
                place,
                format!("{what} has a name that expressions use already; choose another"),
            );
        }
        if joins.iter().any(|join| join.name == *name) {
            reader.add(
                place,
                format!("{what} is a name used twice in this table; choose another"),
            );
        }
        let Some(entries) = reader.table(node, &what) else {
            continue;
        };
        let keys: &[&str] = if related {
            &["table", "key", "of", "take"]
        } else {
            &["table", "key", "of"]
        };
        reader.check_keys(entries, keys, &what);
        let table = reader.required_text(entries, place, "table", &what, "the other table");
        let key = reader.required_text(entries, place, "key", &what, "a column of the other table");
        let of = reader.required_text(entries, place, "of", &what, "a column of this table");
        let kind = match entries.iter().find(|entry| entry.key == "take") {
            None if related => JoinKind::RelatedLast,
            None => JoinKind::Lookup,
            Some(take) => match &take.node.value {
                Value::String(text) if text == "first" => JoinKind::RelatedFirst,
                Value::String(text) if text == "last" => JoinKind::RelatedLast,
                other => {
                    let found = reader::shown(other);
                    reader.add(
                        &take.place,
                        format!("{what}.take is {found}; write \"first\" or \"last\""),
                    );
                    continue;
                }
            },
        };
        if let (Some(table), Some(key), Some(of)) = (table, key, of) {
            let table = Located {
                value: TableName::parse(&table.value),
                place: table.place,
            };
            joins.push(JoinDeclaration {
                name: name.clone(),
                place: place.clone(),
                kind,
                table,
                key,
                of,
            });
        }
    }
}

fn read_event(reader: &mut Reader, node: &Node, defaults: &Defaults) -> Option<EventDeclaration> {
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
                    .map(|(r, _)| r)
                    .collect()
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

#[cfg(test)]
mod tests;
