//! One table's events.

use std::sync::Arc;

use bytes::BytesMut;

use crate::catalog::declaration::{
    self, EventDeclaration, FieldDeclaration, Image, JoinKind, Literal, Located, Ownership, TableDeclaration,
};
use crate::catalog::error::{MissingColumn, Place};
use crate::catalog::event::Audience;
use crate::catalog::expression::{Changed, Expression, Scope};
use crate::catalog::rule::{
    Computed, Condition, Envelope, Field, Form, JoinField, Only, Operations, Rule, TableRules,
};
use crate::catalog::spelling::suggestion;
use crate::catalog::value::encode_string;
use crate::postgres::schema::{Column, Table};

use super::identity::Need;
use super::join::JoinDraft;
use super::{Compiler, intern, streamed};

/// A table while it is compiled.
pub(super) struct Draft<'a> {
    pub(super) table: &'a Table,
    pub(super) columns: Vec<String>,
    pub(super) every_organization: bool,
    pub(super) organization_column: Option<String>,
    pub(super) joins: Vec<JoinDraft<'a>>,
    /// Rows `new`, `old`, then the joins, each with the columns that the stream carries.
    scope: Scope,
    pub(super) need: Need,
}

/// The place of the first join in an expression's scope.
pub(in crate::catalog) const FIRST_JOIN: usize = Scope::OLD + 1;

impl Draft<'_> {
    pub(super) fn slot(&mut self, column: &str) -> usize {
        intern(&mut self.columns, column)
    }

    fn need(&mut self, column: &str) {
        self.need.columns.insert(column.to_owned());
    }
}

impl<'a> Compiler<'a> {
    pub(super) fn table(&mut self, declared: &TableDeclaration) -> Option<(TableRules, Need)> {
        let name = Located {
            value: declared.name.clone(),
            place: declared.place.clone(),
        };
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
            Some(Located {
                value: Ownership::Column(column),
                place,
            }) => {
                self.find_column(table, column, place)?;
                draft.organization_column = Some(column.clone());
                draft.need(column);
                Some(draft.slot(column))
            }
            Some(Located {
                value: Ownership::Every,
                ..
            }) => {
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
            draft
                .scope
                .add_row(&self.schema.types, &join.join.name, typed(join.target));
            draft.joins.push(join);
        }
        // What follows would only complain that a join that is there is not.
        complete.then_some(())?;
        let rules: Vec<Rule> = declared
            .events
            .iter()
            .filter_map(|event| self.rule(&mut draft, event))
            .collect();
        let mut channels: Vec<Arc<str>> = rules.iter().map(|rule| Arc::clone(&rule.channel)).collect();
        channels.sort();
        channels.dedup();
        let places =
            |table: &Table, find: &dyn Fn(&str) -> Option<usize>| streamed(table).map(find).collect();
        let slots = places(table, &|name| {
            draft.columns.iter().position(|column| column == name)
        });
        for join in &mut draft.joins {
            let taken = &join.join.columns;
            join.join.scope = places(join.target, &|name| {
                taken.iter().position(|column| column.name == name)
            });
        }
        let rules = TableRules {
            name: declared.name.clone(),
            scope: slots,
            generated: table
                .columns
                .iter()
                .filter(|c| c.generated)
                .map(|c| c.name.clone())
                .collect(),
            columns: draft.columns,
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
            let keys: Vec<_> = draft
                .joins
                .iter()
                .filter_map(|join| draft.columns.get(join.join.of).cloned())
                .collect();
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
            if self
                .find_column(draft.table, &column.value, &column.place)
                .is_some()
            {
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
        if kind == wanted {
            return Some(text.into_bytes().into());
        }
        self.findings.add(
            place,
            format!("when.became.{} is of another type; write {wanted}", column.name),
        );
        None
    }

    fn fields(
        &mut self,
        draft: &mut Draft<'a>,
        declared: &[FieldDeclaration],
        operations: Operations,
        prefix: &str,
    ) -> Vec<Field> {
        declared
            .iter()
            .filter_map(|field| {
                let path = format!("{prefix}{}", field.name);
                let form = self.form(draft, field, operations, &path)?;
                Some(Field {
                    key: key(&field.name),
                    path: path.into(),
                    omit_null: field.omit_null,
                    form,
                })
            })
            .collect()
    }

    fn form(
        &mut self,
        draft: &mut Draft<'a>,
        field: &FieldDeclaration,
        operations: Operations,
        path: &str,
    ) -> Option<Form> {
        Some(match &field.form {
            declaration::Form::Column(name) => {
                let column = self.find_column(draft.table, name, &field.place)?;
                if operations.delete {
                    draft.need(&column.name);
                }
                Form::Column(draft.slot(&column.name))
            }
            declaration::Form::Expression(source) => {
                Form::Expression(self.expression(draft, source, &field.place, operations, false)?)
            }
            declaration::Form::JoinColumn { join, column } => {
                let join = self.find_join(draft, join, &field.place)?;
                Form::JoinColumn(join, self.take(draft, join, column, &field.place)?)
            }
            declaration::Form::JoinObject { join, fields } => {
                let join = self.find_join(draft, join, &field.place)?;
                let fields = fields.iter().filter_map(|field| {
                    let declaration::Form::Column(name) = &field.form else {
                        return None;
                    };
                    let column = self.take(draft, join, name, &field.place)?;
                    Some(JoinField {
                        name: field.name.as_str().into(),
                        key: key(&field.name),
                        column,
                        omit_null: field.omit_null,
                    })
                });
                Form::JoinObject(join, fields.collect())
            }
            declaration::Form::Row(image) => {
                draft.need.every |= operations.delete || (operations.update && *image == Image::Old);
                Form::Row(*image)
            }
            declaration::Form::Changed => {
                draft.need.every |= operations.update;
                Form::Changed
            }
            declaration::Form::Previous => {
                draft.need.every |= operations.update;
                Form::Previous
            }
            declaration::Form::Value(json) => Form::Value(json.as_bytes().into()),
            declaration::Form::Object(fields) => {
                Form::Object(self.fields(draft, fields, operations, &format!("{path}.")))
            }
        })
    }

    fn expression(
        &mut self,
        draft: &mut Draft<'a>,
        source: &str,
        place: &Place,
        operations: Operations,
        condition: bool,
    ) -> Option<Box<Computed>> {
        let expression = match Expression::compile(source, &draft.scope) {
            Ok(expression) => expression,
            Err(error) => {
                let missing = error.missing.as_ref().and_then(|(row, column)| {
                    let table = match row.checked_sub(FIRST_JOIN) {
                        None => draft.table,
                        Some(join) => draft.joins.get(join)?.target,
                    };
                    Some(MissingColumn { table: table.name.clone(), column: column.clone() })
                });
                self.findings.add_about(place, format!("in {source:?}: {error}"), missing);
                return None;
            }
        };
        let references = expression.references();
        let columns: Vec<&'a Column> = draft
            .table
            .columns
            .iter()
            .filter(|column| !column.generated)
            .collect();
        let named = |row: usize| {
            references
                .columns(row)
                .filter_map(|place| columns.get(place).copied())
        };
        for column in named(Scope::NEW).chain(named(Scope::OLD)) {
            draft.slot(&column.name);
        }
        if operations.update || operations.delete {
            named(Scope::OLD).for_each(|column| draft.need(&column.name));
        }
        if operations.delete {
            named(Scope::NEW).for_each(|column| draft.need(&column.name));
        }
        match references.changed() {
            Changed::Nothing => {}
            Changed::Columns(places) => {
                for column in places.iter().filter_map(|place| columns.get(*place)) {
                    draft.slot(&column.name);
                    if operations.update {
                        draft.need(&column.name);
                    }
                }
            }
            Changed::All => {
                for column in &columns {
                    draft.slot(&column.name);
                }
                draft.need.every |= operations.update;
            }
        }
        for (index, join) in draft.joins.iter_mut().enumerate() {
            let row = FIRST_JOIN + index;
            if condition && join.kind == JoinKind::Lookup && references.uses_row(row) {
                let message = format!(
                    "when.expr reads lookup.{}, which may be newer when the change is read again; \
                     use the row's own columns, or a related row",
                    join.join.name
                );
                self.findings.add(place, message);
            }
            let target: Vec<&'a Column> = join
                .target
                .columns
                .iter()
                .filter(|column| !column.generated)
                .collect();
            for column in references.columns(row).filter_map(|place| target.get(place)) {
                self.join_column(join, column);
            }
        }
        Some(Box::new(Computed {
            expression,
            source: source.to_owned(),
        }))
    }

    fn find_join(&mut self, draft: &Draft<'a>, name: &str, place: &Place) -> Option<usize> {
        let found = draft.joins.iter().position(|join| join.join.name == name);
        if found.is_none() {
            let hint = suggestion(name, draft.joins.iter().map(|join| join.join.name.as_str()));
            let table = &draft.table.name;
            self.findings.add(
                place,
                format!("table {table} has no lookup or related row {name:?}; {hint}"),
            );
        }
        found
    }

    fn take(&mut self, draft: &mut Draft<'a>, join: usize, column: &str, place: &Place) -> Option<usize> {
        let join = draft.joins.get_mut(join)?;
        let column = self.find_column(join.target, column, place)?;
        Some(self.join_column(join, column))
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
