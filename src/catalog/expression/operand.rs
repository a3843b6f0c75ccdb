//! Slots to CEL values, each when the interpreter comes by it.

use std::collections::HashMap;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelTimestamp,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use chrono::{DateTime, FixedOffset, NaiveDate};

use super::references::Slot;
use super::scope::{Cell, Kind, Rows, Scope};
use super::{EvalError, MAX_OPERAND};
use crate::source::Operation;

pub(super) struct Resolver<'a> {
    slots: &'a [Slot],
    scope: &'a Scope,
    rows: &'a dyn Rows,
}

impl<'a> Resolver<'a> {
    pub(super) const fn new(slots: &'a [Slot], scope: &'a Scope, rows: &'a dyn Rows) -> Self {
        Self { slots, scope, rows }
    }

    fn slot(&self, name: &str) -> Option<Slot> {
        let mut index = 0;
        for byte in name.bytes() {
            index = index * 10 + usize::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?);
        }
        self.slots.get(index).copied()
    }

    /// Why `name` has no value.
    pub(super) fn explain(&self, name: &str) -> EvalError {
        let Some(Slot::Column { row, column }) = self.slot(name) else {
            return EvalError::Types(format!("there is no {name}"));
        };
        let row_name = self.scope.row_name(row);
        if !self.rows.has_row(row) {
            return EvalError::NoRow(row_name.to_owned());
        }
        let full_name = format!("{row_name}.{}", self.scope.column_name(row, column));
        match self.rows.cell(row, column) {
            Cell::Unavailable => EvalError::Unavailable(full_name),
            Cell::TooLarge => EvalError::OperandTooLarge(full_name),
            Cell::Text(text) if text.len() > MAX_OPERAND => EvalError::OperandTooLarge(full_name),
            Cell::Null | Cell::Text(_) => EvalError::Unreadable(full_name),
        }
    }

    fn column(&self, row: usize, column: usize) -> Option<CowVal<'_, '_>> {
        if !self.rows.has_row(row) {
            return None;
        }
        match self.rows.cell(row, column) {
            Cell::Unavailable | Cell::TooLarge => None,
            Cell::Null => Some(CowVal::Borrowed(&CelNull)),
            Cell::Text(text) => read(self.scope.kind(row, column)?, text),
        }
    }

    /// The names of the changed columns.
    fn changed(&self) -> CelList<'_> {
        let names = self.scope.column_names(Scope::NEW).enumerate();
        let changed = names.filter(|&(column, _)| self.rows.changed(column));
        let boxed = |name| -> Box<dyn Val + '_> { Box::new(CelString::from(name)) };
        CelList::from(changed.map(|(_, name)| boxed(name)).collect::<Vec<_>>())
    }
}

impl VariableResolver for Resolver<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let truth = |value: bool| Some(CowVal::owned(CelBool::from(value)));
        match self.slot(variable)? {
            Slot::Column { row, column } => self.column(row, column),
            Slot::HasColumn { row, column } => truth(
                self.rows.has_row(row)
                    && matches!(self.rows.cell(row, column), Cell::Text(_) | Cell::TooLarge),
            ),
            Slot::HasRow { row } => truth(self.rows.has_row(row)),
            Slot::NoRow { row } => truth(!self.rows.has_row(row)),
            Slot::IsChanged { column } => truth(self.rows.changed(column)),
            Slot::Changed => Some(CowVal::owned(self.changed())),
            Slot::Operation => Some(CowVal::owned(CelString::from(match self.rows.operation() {
                Operation::Insert => "insert",
                Operation::Update => "update",
                Operation::Delete => "delete",
            }))),
        }
    }
}

/// None when `text` is not what the type writes, or too long.
fn read(kind: Kind, text: &[u8]) -> Option<CowVal<'_, '_>> {
    if text.len() > MAX_OPERAND {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    Some(match kind {
        Kind::Int => CowVal::owned(CelInt::from(text.parse::<i64>().ok()?)),
        Kind::Double => CowVal::owned(CelDouble::from(text.parse::<f64>().ok()?)),
        Kind::Bool => CowVal::owned(CelBool::from(match text {
            "t" => true,
            "f" => false,
            _ => return None,
        })),
        Kind::Timestamp => match read_timestamp(text) {
            Some(timestamp) => CowVal::owned(CelTimestamp::from(timestamp)),
            None => CowVal::owned(CelString::from(text)),
        },
        Kind::Json => CowVal::Owned(json(serde_json::from_str(text).ok()?)),
        Kind::String => CowVal::owned(CelString::from(text)),
    })
}

/// `2024-02-29 12:00:00[.123456][+00[:00]]`. None for an infinity, and what CEL's years 1 to 9999 don't reach.
fn read_timestamp(text: &str) -> Option<DateTime<FixedOffset>> {
    let (date, time) = text.split_once(' ')?;
    let (date, time) = (date.as_bytes(), time.as_bytes());
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_u32, |sum, byte| {
            Some(sum * 10 + u32::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?))
        })
    };
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = date else {
        return None;
    };
    let [h1, h2, b':', i1, i2, b':', s1, s2, rest @ ..] = time else {
        return None;
    };
    let (fraction, offset): (&[u8], &[u8]) = match rest {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            rest.split_at_checked(digits)?
        }
        _ => (&[], rest),
    };
    let scale = 10_u32.checked_pow(u32::try_from(6_usize.checked_sub(fraction.len())?).ok()?)?;
    let micros = number(fraction)?.checked_mul(scale)?;
    let offset_seconds = match offset {
        [] => 0,
        [sign @ (b'+' | b'-'), h1, h2, rest @ ..] => {
            let minutes = match rest {
                [] => 0,
                [b':', m1, m2] => number(&[*m1, *m2])?,
                _ => return None,
            };
            let seconds = i32::try_from(number(&[*h1, *h2])? * 3600 + minutes * 60).ok()?;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let year = i32::try_from(number(&[*y1, *y2, *y3, *y4])?).ok()?;
    NaiveDate::from_ymd_opt(year, number(&[*m1, *m2])?, number(&[*d1, *d2])?)?
        .and_hms_micro_opt(number(&[*h1, *h2])?, number(&[*i1, *i2])?, number(&[*s1, *s2])?, micros)?
        .and_local_timezone(FixedOffset::east_opt(offset_seconds)?)
        .single()
}

fn json(value: serde_json::Value) -> Box<dyn Val> {
    match value {
        serde_json::Value::Null => Box::new(CelNull),
        serde_json::Value::Bool(value) => Box::new(CelBool::from(value)),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => Box::new(CelInt::from(whole)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        serde_json::Value::String(text) => Box::new(CelString::from(text)),
        serde_json::Value::Array(items) => {
            Box::new(CelList::from(items.into_iter().map(json).collect::<Vec<_>>()))
        }
        serde_json::Value::Object(entries) => {
            let entries = entries.into_iter().map(|(key, value)| (CelMapKey::from(key), json(value)));
            Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()))
        }
    }
}
