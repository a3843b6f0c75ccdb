//! A hash that is the same in every process and on every machine: what an epoch is made of.
//!
//! It covers what a catalog says and in which order, not how it is written: comments, spaces and the division into
//! files are no part of it. Every part is preceded by its length, so that no two catalogs run into one.

use sha2::{Digest, Sha256};

use crate::postgres::schema::TableName;
use crate::source::Operation;

use super::declaration::{
    EventDeclaration, FieldDeclaration, Form, Image, JoinDeclaration, JoinKind, Literal, Ownership,
    TableDeclaration,
};

/// Of the declared tables, in whatever order, and the names of those published.
pub(super) fn fingerprint(tables: &[TableDeclaration], published: &[TableName]) -> u64 {
    let mut hash = Hash(Sha256::new());
    let mut tables: Vec<_> = tables.iter().collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    hash.list(&tables, |hash, table| table.feed(hash));
    let mut published: Vec<_> = published.iter().collect();
    published.sort();
    hash.list(&published, |hash, name| name.feed(hash));
    let digest = hash.0.finalize();
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

struct Hash(Sha256);

impl Hash {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn list<T>(&mut self, items: &[T], feed: impl Fn(&mut Self, &T)) {
        self.number(items.len() as u64);
        for item in items {
            feed(self, item);
        }
    }

    fn option<T>(&mut self, value: Option<&T>, feed: impl Fn(&mut Self, &T)) {
        self.number(u64::from(value.is_some()));
        if let Some(value) = value {
            feed(self, value);
        }
    }
}

/// The parts of a catalog. Each writes all of its fields but places, in a fixed order.
trait Feed {
    fn feed(&self, hash: &mut Hash);
}

impl Feed for TableName {
    fn feed(&self, hash: &mut Hash) {
        hash.text(&self.schema);
        hash.text(&self.name);
    }
}

impl Feed for TableDeclaration {
    fn feed(&self, hash: &mut Hash) {
        let Self {
            name,
            place: _,
            organization,
            joins,
            events,
        } = self;
        name.feed(hash);
        hash.option(organization.as_ref(), |hash, ownership| match &ownership.value {
            Ownership::Every => hash.number(0),
            Ownership::Column(column) => hash.text(column),
        });
        hash.list(joins, |hash, join| join.feed(hash));
        hash.list(events, |hash, event| event.feed(hash));
    }
}

impl Feed for JoinDeclaration {
    fn feed(&self, hash: &mut Hash) {
        let Self {
            name,
            place: _,
            kind,
            table,
            key,
            of,
        } = self;
        hash.text(name);
        hash.number(match kind {
            JoinKind::Lookup => 0,
            JoinKind::RelatedFirst => 1,
            JoinKind::RelatedLast => 2,
        });
        table.value.feed(hash);
        hash.text(&key.value);
        hash.text(&of.value);
    }
}

impl Feed for EventDeclaration {
    fn feed(&self, hash: &mut Hash) {
        let Self {
            event_type,
            place: _,
            on,
            channel,
            tags,
            changed,
            became,
            expression,
            only,
            data,
        } = self;
        hash.text(event_type);
        for operation in [Operation::Insert, Operation::Update, Operation::Delete] {
            hash.number(u64::from(on.contains(&operation)));
        }
        hash.text(channel);
        hash.list(tags, |hash, tag| {
            hash.text(&tag.name);
            hash.text(&tag.column.value);
        });
        hash.list(changed, |hash, column| hash.text(&column.value));
        hash.list(became, |hash, (column, literal)| {
            hash.text(&column.value);
            match literal {
                Literal::Text(text) => {
                    hash.number(0);
                    hash.text(text);
                }
                Literal::Integer(number) => {
                    hash.number(1);
                    hash.text(&number.to_string());
                }
                Literal::Boolean(value) => hash.number(2 + u64::from(*value)),
            }
        });
        hash.option(expression.as_ref(), |hash, expression| {
            hash.text(&expression.value);
        });
        hash.option(only.as_ref(), |hash, only| {
            hash.list(&only.roles, |hash, role| hash.text(role));
            hash.option(only.user.as_ref(), |hash, user| hash.text(&user.value));
        });
        hash.list(data, |hash, field| field.feed(hash));
    }
}

impl Feed for FieldDeclaration {
    fn feed(&self, hash: &mut Hash) {
        let Self {
            name,
            place: _,
            omit_null,
            form,
        } = self;
        hash.text(name);
        hash.number(u64::from(*omit_null));
        match form {
            Form::Column(column) => {
                hash.number(0);
                hash.text(column);
            }
            Form::Expression(source) => {
                hash.number(1);
                hash.text(source);
            }
            Form::JoinColumn { join, column } => {
                hash.number(2);
                hash.text(join);
                hash.text(column);
            }
            Form::JoinObject { join, fields } => {
                hash.number(3);
                hash.text(join);
                hash.list(fields, |hash, field| field.feed(hash));
            }
            Form::Row(Image::New) => hash.number(4),
            Form::Row(Image::Old) => hash.number(5),
            Form::Changed => hash.number(6),
            Form::Previous => hash.number(7),
            Form::Value(json) => {
                hash.number(8);
                hash.text(json);
            }
            Form::Object(fields) => {
                hash.number(9);
                hash.list(fields, |hash, field| field.feed(hash));
            }
        }
    }
}
