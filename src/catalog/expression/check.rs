//! The check: whatever an expression names is there, and nothing in it loops. Names become slots on the way.

use std::fmt::Write as _;

use cel::ParseErrors;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};

use super::references::{References, Slot};
use super::scope::{Kind, Scope};
use super::{ExpressionError, MAX_NESTING};
use crate::catalog::spelling::suggestion;

/// Functions: name, and how many arguments, the receiver not counted.
const GLOBAL: &[(&str, usize)] = &[
    ("size", 1),
    ("int", 1),
    ("uint", 1),
    ("double", 1),
    ("bool", 1),
    ("string", 1),
    ("bytes", 1),
    ("timestamp", 1),
    ("duration", 1),
];
const MEMBER: &[(&str, std::ops::RangeInclusive<usize>)] = &[
    ("size", 0..=0),
    ("contains", 1..=1),
    ("startsWith", 1..=1),
    ("endsWith", 1..=1),
    // The argument is a time zone.
    ("getFullYear", 0..=1),
    ("getMonth", 0..=1),
    ("getDayOfYear", 0..=1),
    ("getDayOfMonth", 0..=1),
    ("getDate", 0..=1),
    ("getDayOfWeek", 0..=1),
    ("getHours", 0..=1),
    ("getMinutes", 0..=1),
    ("getSeconds", 0..=1),
    ("getMilliseconds", 0..=1),
];
const OPERATORS: &[&str] = &[
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::ADD,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

fn too_deep() -> String {
    format!("at most {MAX_NESTING} expressions may stand in one another")
}

/// The first of the parser's errors.
pub(super) fn syntax_error(source: &str, errors: &ParseErrors) -> ExpressionError {
    let Some(first) = errors.errors.first() else {
        return ExpressionError { offset: 0, message: "not an expression".to_owned(), missing: None };
    };
    let (line, column) = first.pos;
    let lines_before = usize::try_from(line - 1).unwrap_or(0);
    let before: usize = source.split_inclusive('\n').take(lines_before).map(str::len).sum();
    let offset = before + usize::try_from(column - 1).unwrap_or(0);
    let message = first.msg.trim_start_matches("Syntax error: ").to_owned();
    ExpressionError { offset: offset.min(source.len()), message, missing: None }
}

/// Checks `root` against `scope`, and replaces in it what a slot stands for by the slot's index.
pub(super) fn check(
    source: &str,
    root: &mut IdedExpr,
    scope: &Scope,
) -> Result<(Box<[Slot]>, References), ExpressionError> {
    let mut checker = Checker { source, scope, slots: Vec::new(), references: References::default() };
    checker.check(root, 0)?;
    Ok((checker.slots.into(), checker.references))
}

struct Checker<'a> {
    source: &'a str,
    scope: &'a Scope,
    slots: Vec<Slot>,
    references: References,
}

impl Checker<'_> {
    fn check(&mut self, node: &mut IdedExpr, depth: usize) -> Result<(), ExpressionError> {
        if depth >= MAX_NESTING {
            return Err(ExpressionError { offset: 0, message: too_deep(), missing: None });
        }
        if let Some(slot) = self.slot(&node.expr)? {
            self.references.add(slot);
            node.expr = Expr::Ident(self.index(slot).to_string());
            return Ok(());
        }
        let depth = depth + 1;
        match &mut node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => Err(self.misused(name)),
            Expr::Select(select) => self.check(&mut select.operand, depth),
            Expr::Call(call) => {
                self.check_function(call)?;
                call.target
                    .iter_mut()
                    .map(|target| &mut **target)
                    .chain(&mut call.args)
                    .try_for_each(|node| self.check(node, depth))
            }
            Expr::List(list) => list.elements.iter_mut().try_for_each(|node| self.check(node, depth)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.check(&mut entry.key, depth)?;
                    self.check(&mut entry.value, depth)
                }
                EntryExpr::StructField(field) => self.check(&mut field.value, depth),
            }),
            Expr::Comprehension(_) => Err(self.error(
                &["all", "exists", "exists_one", "existsOne", "map", "filter"],
                "all, exists, exists_one, map and filter are not available: an expression can't loop"
                    .to_owned(),
            )),
            Expr::Struct(message) => {
                let text = format!("there is no type {} to construct", message.type_name);
                Err(self.error(&[&message.type_name], text))
            }
            Expr::Unspecified => Err(self.error(&[], "an expression is empty".to_owned())),
        }
    }

    fn index(&mut self, slot: Slot) -> usize {
        self.slots.iter().position(|known| *known == slot).unwrap_or_else(|| {
            self.slots.push(slot);
            self.slots.len() - 1
        })
    }

    /// The slot that the whole of `expr` stands for.
    fn slot(&self, expr: &Expr) -> Result<Option<Slot>, ExpressionError> {
        match expr {
            Expr::Ident(name) if name == "op" => Ok(Some(Slot::Operation)),
            Expr::Ident(name) if name == "changed" => Ok(Some(Slot::Changed)),
            Expr::Select(SelectExpr { operand, field, test }) => {
                let Some(row) = self.row(operand) else {
                    return Ok(None);
                };
                let column = self.column(row, field)?;
                Ok(Some(if *test { Slot::HasColumn { row, column } } else { Slot::Column { row, column } }))
            }
            Expr::Call(CallExpr { func_name, target: None, args }) => {
                match (func_name.as_str(), args.as_slice()) {
                    (operators::INDEX, [row, index]) => {
                        let Some(row) = self.row(row) else { return Ok(None) };
                        let Expr::Literal(LiteralValue::String(name)) = &index.expr else {
                            let name = self.scope.row_name(row);
                            let text = format!("a column of {name} is named by a string: {name}[\"column\"]");
                            return Err(self.error(&[name], text));
                        };
                        let column = self.column(row, name.inner())?;
                        Ok(Some(Slot::Column { row, column }))
                    }
                    (operators::EQUALS, [left, right]) => {
                        Ok(self.row_and_null(left, right).map(|row| Slot::NoRow { row }))
                    }
                    (operators::NOT_EQUALS, [left, right]) => {
                        Ok(self.row_and_null(left, right).map(|row| Slot::HasRow { row }))
                    }
                    (operators::IN, [name, list]) => match (&name.expr, &list.expr) {
                        (Expr::Literal(LiteralValue::String(name)), Expr::Ident(list))
                            if list == "changed" =>
                        {
                            let column = self.column(Scope::NEW, name.inner())?;
                            Ok(Some(Slot::IsChanged { column }))
                        }
                        _ => Ok(None),
                    },
                    _ => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    fn row(&self, node: &IdedExpr) -> Option<usize> {
        match &node.expr {
            Expr::Ident(name) => self.scope.row(name),
            _ => None,
        }
    }

    /// The row of `row == null`, either way round.
    fn row_and_null(&self, left: &IdedExpr, right: &IdedExpr) -> Option<usize> {
        let is_null = |node: &IdedExpr| matches!(node.expr, Expr::Literal(LiteralValue::Null));
        self.row(left).filter(|_| is_null(right)).or_else(|| self.row(right).filter(|_| is_null(left)))
    }

    fn column(&self, row: usize, column: &str) -> Result<usize, ExpressionError> {
        self.scope.column(row, column).ok_or_else(|| {
            let name = self.scope.row_name(row);
            let hint = suggestion(column, self.scope.column_names(row));
            let text = format!("{name} has no column {column:?}; {hint}");
            ExpressionError {
                missing: Some((row, column.to_owned())),
                ..self.error(&[&format!("{name}.{column}"), column], text)
            }
        })
    }

    fn check_function(&self, call: &CallExpr) -> Result<(), ExpressionError> {
        let name = call.func_name.as_str();
        let known = match &call.target {
            None => OPERATORS.contains(&name) || GLOBAL.contains(&(name, call.args.len())),
            Some(_) => MEMBER.iter().any(|(known, count)| *known == name && count.contains(&call.args.len())),
        };
        if known {
            return Ok(());
        }
        let count = call.args.len();
        let mut text = match &call.target {
            None => format!("there is no function {name} of {count} arguments; "),
            Some(_) => format!("there is no method {name} of {count} arguments; "),
        };
        text += &match &call.target {
            None => one_of(GLOBAL.iter().map(|(name, _)| *name)),
            Some(_) => one_of(MEMBER.iter().map(|(name, _)| *name)),
        };
        Err(self.error(&[name], text))
    }

    /// About an identifier that is no slot.
    fn misused(&self, name: &str) -> ExpressionError {
        let text = match self.scope.row(name) {
            Some(_) => {
                format!("{name} is a row: name a column of it ({name}.column), or compare it with null")
            }
            None => {
                let hint = suggestion(name, self.scope.row_names().chain(["changed", "op"]));
                format!("there is no variable {name:?}; {hint}")
            }
        };
        self.error(&[name], text)
    }

    /// At the first of `words` that the source has.
    fn error(&self, words: &[&str], message: String) -> ExpressionError {
        let offset = words.iter().find_map(|word| find_word(self.source, word)).unwrap_or(0);
        ExpressionError { offset, message, missing: None }
    }
}

/// Whether a checked expression can be seen to be neither true nor false, whatever the row is.
pub(super) fn is_never_bool(root: &Expr, slots: &[Slot], scope: &Scope) -> bool {
    const NUMBERS: [&str; 6] = [
        operators::ADD,
        operators::SUBSTRACT,
        operators::MULTIPLY,
        operators::DIVIDE,
        operators::MODULO,
        operators::NEGATE,
    ];
    match root {
        Expr::Ident(index) => match index.parse().ok().and_then(|index: usize| slots.get(index)) {
            Some(Slot::Column { row, column }) => {
                !matches!(scope.kind(*row, *column), None | Some(Kind::Bool | Kind::Json))
            }
            Some(Slot::Changed | Slot::Operation) => true,
            _ => false,
        },
        Expr::Literal(literal) => !matches!(literal, LiteralValue::Boolean(_)),
        Expr::Call(call) => NUMBERS.contains(&call.func_name.as_str()),
        Expr::List(_) | Expr::Map(_) => true,
        _ => false,
    }
}

/// Where `word` stands on its own.
fn find_word(source: &str, word: &str) -> Option<usize> {
    let inside = |byte: Option<&u8>| byte.is_some_and(|&byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let bytes = source.as_bytes();
    source.match_indices(word).map(|(offset, _)| offset).find(|&offset| {
        let before = offset.checked_sub(1).and_then(|before| bytes.get(before));
        !inside(before) && !inside(bytes.get(offset + word.len()))
    })
}

fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::from("there is ");
    let mut first = true;
    for name in names {
        let _ = write!(text, "{}{name}", if first { "" } else { ", " });
        first = false;
    }
    if first { "there is none".to_owned() } else { text }
}
