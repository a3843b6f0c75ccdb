//! CEL expressions of a catalog: checked against the columns there are when it is compiled, cheap to run per change.
//!
//! ```text
//! source ─► parse ─► check: names become slots ─► Expression
//!                                                    │ evaluate
//!                    Rows (one change) ─► only the slots that it comes by ─► Value ─► JSON
//! ```
//!
//! Variables are rows (`new`, `old`, lookups and related rows by name), `changed` (names of columns) and `op`
//! (`insert`, `update`, `delete`). A row is no value: an expression names a column of it (`new.occupied`,
//! `new["Odd name"]`), asks for one (`has(old.occupied)`: there is the row, and the column is not null), or compares
//! the row itself with null (`lot == null`: there is no such row). So every column is known before anything runs,
//! and a column is only read when the evaluation comes by it.
//!
//! | column | in CEL |
//! | --- | --- |
//! | int2, int4, int8 | int |
//! | float4, float8, numeric | double |
//! | bool | bool |
//! | timestamp (as UTC), timestamptz | timestamp; what is beyond the years 1 to 9999 is a string |
//! | json, jsonb | the value: a number is an int where it is whole and fits, else a double |
//! | everything else | string, as the database writes it |
//!
//! There is no fuel: what an evaluation costs is bounded by what can be written. No macro loops, source, nesting,
//! operands and results are capped.

mod check;
mod double;
mod operand;
mod references;
mod result;
mod scope;

use std::sync::{Arc, LazyLock};

use cel::context::VariableResolver;
use cel::parser::PrattParser;
use cel::{Context, Env, ExecutionError};

pub use references::{Changed, References};
pub use result::Value;
pub use scope::{Cell, Rows, Scope};

use operand::Resolver;
use references::Slot;

/// Bytes of source.
pub const MAX_SOURCE: usize = 4 * 1024;
/// Expressions in one another; the interpreter recurses.
const MAX_NESTING: usize = 64;
/// Bytes of one column's text that an expression takes.
pub const MAX_OPERAND: usize = 256 * 1024;
/// Bytes of a result's JSON.
pub const MAX_RESULT: usize = 64 * 1024;

static ENV: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

/// A checked expression. Evaluating it needs rows laid out as in the scope that it was compiled in.
#[derive(Debug)]
pub struct Expression {
    /// Its free identifiers are indexes into `slots`, in decimal: no identifier that can be written starts with one.
    root: cel::parser::Expression,
    slots: Box<[Slot]>,
    references: References,
    /// Names for errors.
    scope: Scope,
}

/// Why a source is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// Byte of the source that it is about.
    pub offset: usize,
    pub message: String,
    /// The row, by its place in the scope, and the column that it does not have.
    pub missing: Option<(usize, String)>,
}

/// Why an evaluation has no result. Holds names and types, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    #[error("there is no {0} row")]
    NoRow(String),
    #[error("{0} is not in the log of this change")]
    Unavailable(String),
    #[error("{0} can't be read as its type")]
    Unreadable(String),
    #[error("{0} is longer than {MAX_OPERAND} bytes")]
    OperandTooLarge(String),
    #[error("the result is longer than {MAX_RESULT} bytes of JSON")]
    ResultTooLarge,
    #[error("a {0} has no JSON form: convert it")]
    NoJson(String),
    #[error("arithmetic overflow")]
    Overflow,
    #[error("division by zero")]
    DivisionByZero,
    #[error("no such key")]
    NoSuchKey,
    #[error("index out of bounds")]
    OutOfBounds,
    #[error("{0} failed")]
    Function(String),
    #[error("{0}")]
    Types(String),
}

impl Expression {
    /// # Errors
    /// When `source` is too long, not CEL, loops, or names what `scope` does not have.
    pub fn compile(source: &str, scope: &Scope) -> Result<Self, ExpressionError> {
        if source.len() > MAX_SOURCE {
            let message =
                format!("an expression is at most {MAX_SOURCE} bytes long, this has {}", source.len());
            return Err(ExpressionError { offset: MAX_SOURCE, message, missing: None });
        }
        let mut root = PrattParser::new()
            .max_recursion_depth(u16::try_from(MAX_NESTING).unwrap_or(u16::MAX))
            .parse(source)
            .map_err(|errors| check::syntax_error(source, &errors))?;
        let (slots, references) = check::check(source, &mut root, scope)?;
        Ok(Self { root, slots, references, scope: scope.clone() })
    }

    /// What it may read.
    #[must_use]
    pub const fn references(&self) -> &References {
        &self.references
    }

    /// Whether it can be seen to be no condition: neither true nor false, whatever the row is.
    #[must_use]
    pub fn is_never_bool(&self) -> bool {
        check::is_never_bool(&self.root.expr, &self.slots, &self.scope)
    }

    /// # Errors
    /// When an operation fails, a row that it reads a column of is not there, or a cap is passed.
    pub fn evaluate(&self, rows: &dyn Rows) -> Result<Value, EvalError> {
        let resolver = Resolver::new(&self.slots, &self.scope, rows);
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(&resolver as &dyn VariableResolver);
        match cel::Value::resolve_val(&self.root, &context) {
            Ok(value) => Value::of(value.as_ref()),
            Err(error) => Err(explain(&error, &resolver)),
        }
    }
}

/// The interpreter's error without the values that it quotes.
fn explain(error: &ExecutionError, resolver: &Resolver<'_>) -> EvalError {
    match error {
        ExecutionError::UndeclaredReference(name) => resolver.explain(name),
        ExecutionError::Overflow(..) => EvalError::Overflow,
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => EvalError::DivisionByZero,
        ExecutionError::NoSuchKey(_) => EvalError::NoSuchKey,
        ExecutionError::IndexOutOfBounds(_) => EvalError::OutOfBounds,
        ExecutionError::FunctionError { function, .. } => EvalError::Function(function.clone()),
        ExecutionError::NoSuchOverload(overload) => EvalError::Types(overload.to_string()),
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            let (left, right) = (left.type_of(), right.type_of());
            EvalError::Types(format!("no {operator} of {left} and {right}"))
        }
        _ => EvalError::Types("values of these types don't go together".to_owned()),
    }
}

#[cfg(test)]
mod tests;
