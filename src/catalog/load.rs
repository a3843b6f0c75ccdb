//! TOML files to declarations: the shape of a catalog, without a database.
//!
//! All mistakes are collected, so that one run names all of them. What only the live schema can tell (whether a table
//! or a column exists) is `compile`'s.

mod data;
mod event;
mod reader;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::postgres::schema::TableName;

use super::declaration::{JoinDeclaration, JoinKind, Located, Ownership, TableDeclaration, TagDeclaration};
use super::document::{self, Entry, Node, Value};
use super::error::{CatalogErrors, Findings, Place};
use super::spelling::{STREAM_PARAMETERS, is_name, suggestion};
use reader::Reader;

const TABLE_KEYS: [&str; 6] = ["organization", "channel", "tags", "related", "lookup", "events"];
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
        table.events.extend(event::read_event(reader, node, &defaults));
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

#[cfg(test)]
mod tests;
