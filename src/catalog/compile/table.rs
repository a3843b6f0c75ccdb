//! One table's events.

use std::sync::Arc;

use bytes::BytesMut;

use crate::catalog::declaration::{EventDeclaration, Literal, Located, Ownership, TableDeclaration};
use crate::catalog::error::Place;
use crate::catalog::event::Audience;
use crate::catalog::expression::Scope;
use crate::catalog::rule::{Condition, Envelope, Only, Operations, Rule, TableRules};
use crate::catalog::value::encode_string;
use crate::postgres::schema::{Column, Table, TableKind};

use super::identity::Need;
use super::join::JoinDraft;
use super::{Compiler, GONE, intern, streamed};

/// A table while it is compiled.
pub(super) struct Draft<'a> {
    pub(super) table: &'a Table,
    pub(super) columns: Vec<String>,
    pub(super) every_organization: bool,
    pub(super) organization_column: Option<String>,
    pub(super) joins: Vec<JoinDraft<'a>>,
    /// Rows `new`, `old`, then the joins, each with the columns that the stream carries.
    pub(super) scope: Scope,
    pub(super) need: Need,
}

/// The place of the first join in an expression's scope.
pub(in crate::catalog) const FIRST_JOIN: usize = Scope::OLD + 1;

impl Draft<'_> {
    pub(super) fn slot(&mut self, column: &str) -> usize {
        intern(&mut self.columns, column)
    }

    pub(super) fn need(&mut self, column: &str) {
        self.need.columns.insert(column.to_owned());
    }
}

impl<'a> Compiler<'a> {
    pub(super) fn table(&mut self, declared: &TableDeclaration) -> Option<(TableRules, Need)> {
        let name = Located { value: declared.name.clone(), place: declared.place.clone() };
        let table = self.find_table(&name)?;
        let mut draft = Draft {
            table,
            columns: Vec::new(),
            every_organization: false,
            organization_column: None,
            joins: Vec::new(),
            scope: Scope::new(&self.schema.types, typed(table)),
            need: Need::default(),
        };
        let organization = match &declared.organization {
            Some(Located { value: Ownership::Column(column), place }) => {
                self.find_column(table, column, place)?;
                draft.organization_column = Some(column.clone());
                draft.need(column);
                Some(draft.slot(column))
            }
            Some(Located { value: Ownership::Every, .. }) => {
                draft.every_organization = true;
                None
            }
            None => None,
        };
        let mut complete = true;
        for join in &declared.joins {
            let Some(join) = self.join(&mut draft, join) else {
                complete = false;
                continue;
            };
            draft.scope.add_row(&self.schema.types, &join.join.name, typed(join.target));
            draft.joins.push(join);
        }
        // What follows would only complain that a join that is there is not.
        complete.then_some(())?;
        let rules: Vec<Rule> =
            declared.events.iter().filter_map(|event| self.rule(&mut draft, event)).collect();
        let mut channels: Vec<Arc<str>> = rules.iter().map(|rule| Arc::clone(&rule.channel)).collect();
        channels.sort();
        channels.dedup();
        let places =
            |table: &Table, find: &dyn Fn(&str) -> Option<usize>| streamed(table).map(find).collect();
        let slots = places(table, &|name| draft.columns.iter().position(|column| column == name));
        for join in &mut draft.joins {
            let taken = &join.join.columns;
            join.join.scope =
                places(join.target, &|name| taken.iter().position(|column| column.name == name));
        }
        let rules = TableRules {
            name: declared.name.clone(),
            scope: slots,
            generated: table.columns.iter().filter(|c| c.generated).map(|c| c.name.clone()).collect(),
            columns: draft.columns,
            partitioned_by_key: (table.kind == TableKind::Partitioned && !table.primary_key.is_empty())
                .then(|| table.primary_key.clone()),
            organization,
            joins: draft.joins.into_iter().map(|draft| draft.join).collect(),
            rules,
            channels: channels.into(),
        };
        Some((rules, draft.need))
    }

    fn rule(&mut self, draft: &mut Draft<'a>, event: &EventDeclaration) -> Option<Rule> {
        let operations = Operations::of(&event.on);
        let mut tags = Vec::new();
        for tag in &event.tags {
            if let Some(column) = self.find_column(draft.table, &tag.column.value, &tag.column.place) {
                tags.extend(self.tag(&tag.name).map(|name| (name, draft.slot(&column.name))));
                if operations.update || operations.delete {
                    draft.need(&column.name);
                }
            }
        }
        let conditions = self.conditions(draft, event);
        let only = event.only.as_ref().map(|only| Only {
            roles: Arc::new(Audience {
                roles: only.roles.iter().map(|role| role.as_str().into()).collect(),
                user: None,
            }),
            user: only.user.as_ref().and_then(|user| {
                let column = self.find_column(draft.table, &user.value, &user.place)?;
                if operations.delete {
                    draft.need(&column.name);
                }
                Some(draft.slot(&column.name))
            }),
        });
        let data = self.fields(draft, &event.data, operations, "");
        if operations.delete {
            let keys: Vec<_> =
                draft.joins.iter().filter_map(|join| draft.columns.get(join.join.of).cloned()).collect();
            for key in keys {
                draft.need(&key);
            }
        }
        let channel: Arc<str> = event.channel.as_str().into();
        Some(Rule {
            operations,
            event_type: event.event_type.as_str().into(),
            envelope: Envelope::new(&event.event_type, &channel),
            channels: [Arc::clone(&channel)].into(),
            channel,
            tags,
            conditions,
            only,
            data,
        })
    }

    fn conditions(&mut self, draft: &mut Draft<'a>, event: &EventDeclaration) -> Vec<Condition> {
        let operations = Operations::of(&event.on);
        let mut conditions = Vec::new();
        let mut slots = Vec::new();
        for column in &event.changed {
            if self.find_column(draft.table, &column.value, &column.place).is_some() {
                slots.push(draft.slot(&column.value));
                if operations.update {
                    draft.need(&column.value);
                }
            }
        }
        if !slots.is_empty() {
            conditions.push(Condition::Changed(slots));
        }
        for (name, literal) in &event.became {
            let Some(column) = self.find_column(draft.table, &name.value, &name.place) else {
                continue;
            };
            if let Some(text) = self.literal(column, literal, &name.place) {
                if operations.update {
                    draft.need(&name.value);
                }
                conditions.push(Condition::Became(draft.slot(&name.value), text));
            }
        }
        if let Some(Located { value, place }) = &event.expression {
            let computed = self.expression(draft, value, place, operations, true);
            conditions.extend(computed.map(Condition::Expression));
        }
        conditions
    }

    /// A literal as the column's text output has it.
    fn literal(&mut self, column: &Column, literal: &Literal, place: &Place) -> Option<Box<[u8]>> {
        // bool; int8, int2, int4, oid
        let wanted = match self.schema.types.base(column.type_oid) {
            16 => "true or false",
            20 | 21 | 23 | 26 => "an integer",
            _ => "a string, as the column's text output shows it",
        };
        let (text, kind) = match literal {
            Literal::Boolean(value) => (if *value { "t" } else { "f" }.to_owned(), "true or false"),
            Literal::Integer(number) => (number.to_string(), "an integer"),
            Literal::Text(text) => (text.clone(), "a string, as the column's text output shows it"),
        };
        if kind == wanted || column.type_oid == GONE {
            return Some(text.into_bytes().into());
        }
        self.findings.add(place, format!("when.became.{} is of another type; write {wanted}", column.name));
        None
    }
}

/// The columns that the stream carries, with their types.
fn typed(table: &Table) -> impl Iterator<Item = (&str, u32)> {
    table
        .columns
        .iter()
        .filter(|column| !column.generated)
        .map(|column| (column.name.as_str(), column.type_oid))
}

/// `"name":`
pub(in crate::catalog) fn key(name: &str) -> Box<[u8]> {
    let mut key = BytesMut::with_capacity(name.len() + 3);
    encode_string(name.as_bytes(), &mut key);
    key.extend_from_slice(b":");
    key.as_ref().into()
}
