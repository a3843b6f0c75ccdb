//! What a change means: rows in, events out.
//!
//! ```text
//! *.toml ─ load ─► Catalog ─ compile(Schema) ─► Compiled ─► Mapper ─ map_change(Change, Mirror) ─► Event …
//! ```
//!
//! No IO but the reading of its files, and no clock: a catalog is compiled once against the live schema, and from
//! then on the same transaction makes the same events, byte for byte, on every node and after every restart. (A
//! lookup is the one exception: on replay it may be newer, which is why no condition may use one.)

mod compile;
mod declaration;
mod document;
mod error;
pub mod event;
pub mod expression;
mod fingerprint;
#[cfg(any(test, fuzzing))]
mod fixture;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod load;
mod mapper;
mod rule;
mod spelling;
pub mod value;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::postgres::schema::{Column, Schema, TableName};

pub use compile::{Compiled, Identity, IdentityNeed};
pub use error::{CatalogError, CatalogErrors, MissingColumn, Place};
pub use event::{Audience, Epoch, Event, EventId, Kind, OrganizationId, SyncReason, Tags};
pub use mapper::{Counters, Mapper, Problem, ProblemKind};
pub use spelling::{WORKER_TYPES, camel_case, is_name};
pub use value::{Encoder, encode_string};

/// The reference domain's files.
const REFERENCE: [(&str, &str); 6] = [
    ("activities.toml", include_str!("../catalog/reference/activities.toml")),
    ("devices.toml", include_str!("../catalog/reference/devices.toml")),
    ("issues.toml", include_str!("../catalog/reference/issues.toml")),
    ("organizations.toml", include_str!("../catalog/reference/organizations.toml")),
    ("parking.toml", include_str!("../catalog/reference/parking.toml")),
    ("properties.toml", include_str!("../catalog/reference/properties.toml")),
];

/// The rules as they were written: well-formed, not yet compared with a database.
#[derive(Clone, Debug)]
pub struct Catalog {
    tables: Vec<declaration::TableDeclaration>,
}

impl Catalog {
    /// From a TOML file, or from every `*.toml` of a folder.
    ///
    /// # Errors
    /// Everything that is wrong with the files, each with its line.
    pub fn load(path: &Path) -> Result<Self, CatalogErrors> {
        Self::from_files(&load::read_files(path)?)
    }

    /// From files already read: their names, and what they hold.
    ///
    /// # Errors
    /// As [`Catalog::load`].
    pub fn from_files(files: &[(Arc<str>, String)]) -> Result<Self, CatalogErrors> {
        Ok(Self { tables: load::read_tables(files)? })
    }

    /// The catalog of the reference domain.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the files are part of the binary, and a test loads them")]
    pub fn reference() -> Self {
        let files: Vec<_> = REFERENCE
            .iter()
            .map(|(name, text)| (format!("catalog/reference/{name}").into(), (*text).to_owned()))
            .collect();
        Self::from_files(&files).expect("the reference catalog is well-formed")
    }

    /// The channels of its events.
    #[must_use]
    pub fn channels(&self) -> BTreeSet<&str> {
        self.events().map(|event| event.channel.as_str()).collect()
    }

    /// The names that [`Tags`] refers to by number.
    #[must_use]
    pub fn tag_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for tag in self.events().flat_map(|event| &event.tags) {
            if !names.contains(&tag.name.as_str()) {
                names.push(&tag.name);
            }
        }
        names
    }

    fn events(&self) -> impl Iterator<Item = &declaration::EventDeclaration> {
        self.tables.iter().flat_map(|table| &table.events)
    }

    /// The tables that it names, whether or not they exist.
    pub fn tables(&self) -> impl Iterator<Item = &TableName> {
        self.tables.iter().map(|table| &table.name)
    }

    /// Resolves every name in the live schema.
    ///
    /// # Errors
    /// Everything that does not fit the database, each with its file and line.
    pub fn compile(&self, schema: &Schema) -> Result<Compiled, CatalogErrors> {
        compile::compile(&self.tables, self.tag_names(), schema)
    }

    /// As [`Catalog::compile`], for a worker whose database may have moved on since `setup`: a column that is not
    /// there counts as one that was there, so that the events that need it carry null and all others go on. What is
    /// missing is returned, to be told.
    ///
    /// # Errors
    /// Whatever else does not fit.
    pub fn compile_lenient(&self, schema: &Schema) -> Result<(Compiled, Vec<CatalogError>), CatalogErrors> {
        let mut missing = Vec::new();
        let mut completed = Cow::Borrowed(schema);
        loop {
            let errors = match self.compile(&completed) {
                Ok(compiled) => return Ok((compiled, missing)),
                Err(errors) => errors,
            };
            // Each round adds a column that was not there, and a catalog names finitely many.
            if errors.iter().any(|error| error.missing.is_none()) {
                return Err(errors);
            }
            for error in errors.iter() {
                let Some(column) = &error.missing else { continue };
                let Some(table) = completed.to_mut().tables.get_mut(&column.table) else { continue };
                if table.column(&column.column).is_none() {
                    table.columns.push(Column {
                        name: column.column.clone(),
                        type_oid: compile::GONE,
                        type_modifier: -1,
                        not_null: false,
                        generated: false,
                    });
                }
                missing.push(error.clone());
            }
        }
    }
}
