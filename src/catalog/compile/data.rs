//! The forms of `data`, resolved.

use crate::catalog::declaration::{self, FieldDeclaration, Image};
use crate::catalog::error::Place;
use crate::catalog::rule::{Field, Form, JoinField, Operations};
use crate::catalog::spelling::suggestion;

use super::Compiler;
use super::table::{Draft, key};

impl<'a> Compiler<'a> {
    pub(super) fn fields(
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
