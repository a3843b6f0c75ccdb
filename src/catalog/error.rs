//! What is wrong with a catalog, and where: every mistake at once, each with its file and line.

use std::fmt;
use std::sync::Arc;

use crate::postgres::schema::TableName;

/// A line of a catalog file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    /// From 1; 0 is the file as a whole.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// One mistake: `file:line: what is wrong; what would be right`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct CatalogError {
    pub place: Place,
    pub message: String,
    /// The column that would have to be there for it to be none.
    pub missing: Option<MissingColumn>,
}

/// A column that a catalog names and a table does not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingColumn {
    pub table: TableName,
    pub column: String,
}

/// All mistakes of a catalog, in the order of its files and lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogErrors(Vec<CatalogError>);

impl CatalogErrors {
    pub fn iter(&self) -> impl Iterator<Item = &CatalogError> {
        self.0.iter()
    }
}

impl std::error::Error for CatalogErrors {}

impl fmt::Display for CatalogErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// Mistakes as they are found.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<CatalogError>);

impl Findings {
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.add_about(place, message, None);
    }

    pub(super) fn add_about(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        missing: Option<MissingColumn>,
    ) {
        let error = CatalogError { place: place.clone(), message: message.into(), missing };
        if !self.0.contains(&error) {
            self.0.push(error);
        }
    }

    /// `found` when nothing was found wrong.
    pub(super) fn unless_any<T>(mut self, found: T) -> Result<T, CatalogErrors> {
        if self.0.is_empty() {
            return Ok(found);
        }
        self.0
            .sort_by(|a, b| (&a.place.file, a.place.line).cmp(&(&b.place.file, b.place.line)));
        Err(CatalogErrors(self.0))
    }
}
