//! Declarations to rules: every name of a catalog looked up in the live schema.
//!
//! As in loading, all mistakes are collected. What comes out can be run without asking whether a table, a column or
//! a join exists; only a later change of the schema can take one away, and the mapper reports that.

mod data;
mod expression;
mod identity;
mod join;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::mirror::MirrorSpec;
use crate::postgres::pgoutput::Relation;
use crate::postgres::schema::{Column, Schema, Table, TableName};

use super::declaration::{Located, Ownership, TableDeclaration};
use super::error::{CatalogErrors, Findings, MissingColumn};
use super::fingerprint::fingerprint;
use super::rule::{Join, JoinSource, TableRules, Target};
use super::spelling::suggestion;

pub use identity::{Identity, IdentityNeed};
pub(super) use table::{FIRST_JOIN, key};

/// The type of a column that is not there, where that is let pass: it fits whatever is asked of it, and it is null.
/// PostgreSQL's `InvalidOid`.
pub(super) const GONE: u32 = 0;

/// A catalog that fits a database.
#[derive(Debug)]
pub struct Compiled {
    pub(super) tables: Vec<TableRules>,
    /// Of `tables`, those with rules.
    pub(super) by_name: HashMap<TableName, usize>,
    pub(super) targets: Vec<Target>,
    pub(super) inherited: HashMap<Arc<str>, Inherited>,
    mirror_specs: Vec<MirrorSpec>,
    identity_needs: Vec<IdentityNeed>,
    published: Vec<TableName>,
    channels: BTreeSet<String>,
    tag_names: Vec<String>,
    event_types: BTreeSet<String>,
    fingerprint: u64,
}

/// What an emitted event of a catalogued type takes from the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inherited {
    One {
        channel: Arc<str>,
        roles: Vec<Arc<str>>,
        needs_user: bool,
    },
    /// Its rules disagree: nobody can say which one an emitted event is of.
    Ambiguous,
}

impl Compiled {
    /// The channels of its events.
    #[must_use]
    pub const fn channels(&self) -> &BTreeSet<String> {
        &self.channels
    }

    /// The names that [`super::Tags`] refers to by number.
    #[must_use]
    pub fn tag_names(&self) -> &[String] {
        &self.tag_names
    }

    #[must_use]
    pub const fn event_types(&self) -> &BTreeSet<String> {
        &self.event_types
    }

    /// What the mirror has to hold for lookups. Positions of columns and indexes are part of the compiled rules: a spec
    /// may be extended, at the ends of both.
    #[must_use]
    pub fn mirror_specs(&self) -> &[MirrorSpec] {
        &self.mirror_specs
    }

    /// One for each published table.
    #[must_use]
    pub fn identity_needs(&self) -> &[IdentityNeed] {
        &self.identity_needs
    }

    /// What the publication has to contain: tables with events, and those that lookups and related rows are of.
    #[must_use]
    pub fn published_tables(&self) -> &[TableName] {
        &self.published
    }

    /// Tables whose events may need rows that come later in the same transaction.
    pub fn tables_with_related(&self) -> impl Iterator<Item = &TableName> {
        let asks = |rules: &&TableRules| {
            rules.joins.iter().any(|j| matches!(j.source, JoinSource::Transaction { .. }))
        };
        self.tables.iter().filter(asks).map(|rules| &rules.name)
    }

    /// Whether values of the relation can get into events.
    pub(super) fn uses(&self, relation: &Relation) -> bool {
        self.published.iter().any(|name| name.name == relation.name && name.schema == relation.namespace)
    }

    /// The table that a join's rows are of.
    pub(super) fn join_table<'a>(&'a self, join: &'a Join) -> Option<&'a TableName> {
        match &join.source {
            JoinSource::Mirror { table, .. } => Some(table),
            JoinSource::Transaction { target } => self.targets.get(*target).map(|target| &target.table),
            JoinSource::Gone => None,
        }
    }

    /// The catalog's part of an epoch: the same in every process for the same catalog.
    #[must_use]
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// `tag_names` are all that the declarations have: rules name them by number.
pub(super) fn compile(
    declared: &[TableDeclaration],
    tag_names: Vec<&str>,
    schema: &Schema,
) -> Result<Compiled, CatalogErrors> {
    let mut compiler = Compiler {
        schema,
        ownerships: declared
            .iter()
            .map(|table| (&table.name, table.organization.as_ref().map(|located| &located.value)))
            .collect(),
        findings: Findings::default(),
        targets: Vec::new(),
        mirrors: BTreeMap::new(),
        tag_names: tag_names.into_iter().map(str::to_owned).collect(),
    };
    let mut tables = Vec::new();
    let mut needs = BTreeMap::new();
    for declaration in declared {
        if let Some((rules, need)) = compiler.table(declaration) {
            if !rules.rules.is_empty() {
                needs.insert(rules.name.clone(), need);
            }
            tables.push(rules);
        }
    }
    tables.retain(|table| !table.rules.is_empty());

    for target in &compiler.targets {
        needs.entry(target.table.clone()).or_default();
    }
    for name in compiler.mirrors.keys() {
        needs.entry(name.clone()).or_default().mirrored = true;
    }
    let published: Vec<TableName> = needs.keys().cloned().collect();
    let identity_needs =
        needs.into_iter().filter_map(|(name, need)| Some(need.decide(schema.tables.get(&name)?))).collect();
    let rules = || tables.iter().flat_map(|table| &table.rules);
    let compiled = Compiled {
        by_name: tables.iter().enumerate().map(|(index, table)| (table.name.clone(), index)).collect(),
        inherited: inherited(&tables),
        channels: rules().map(|rule| rule.channel.to_string()).collect(),
        event_types: rules().map(|rule| rule.event_type.to_string()).collect(),
        fingerprint: fingerprint(declared, &published),
        mirror_specs: compiler
            .mirrors
            .into_iter()
            .map(|(table, draft)| MirrorSpec { table, columns: draft.columns, indexes: draft.indexes })
            .collect(),
        targets: compiler.targets,
        tag_names: compiler.tag_names,
        identity_needs,
        published,
        tables,
    };
    compiler.findings.unless_any(compiled)
}

fn inherited(tables: &[TableRules]) -> HashMap<Arc<str>, Inherited> {
    let mut types: HashMap<Arc<str>, Inherited> = HashMap::new();
    for rule in tables.iter().flat_map(|table| &table.rules) {
        let one = Inherited::One {
            channel: Arc::clone(&rule.channel),
            roles: rule.only.as_ref().map(|only| only.roles.roles.clone()).unwrap_or_default(),
            needs_user: rule.only.as_ref().is_some_and(|only| only.user.is_some()),
        };
        types
            .entry(Arc::clone(&rule.event_type))
            .and_modify(|known| {
                if *known != one {
                    *known = Inherited::Ambiguous;
                }
            })
            .or_insert(one);
    }
    types
}

/// What is being put together over all tables.
struct Compiler<'a> {
    schema: &'a Schema,
    /// The declared tables; None where a table says nothing of its organization.
    ownerships: HashMap<&'a TableName, Option<&'a Ownership>>,
    findings: Findings,
    targets: Vec<Target>,
    mirrors: BTreeMap<TableName, MirrorDraft>,
    tag_names: Vec<String>,
}

#[derive(Default)]
struct MirrorDraft {
    columns: Vec<String>,
    indexes: Vec<Vec<String>>,
}

impl<'a> Compiler<'a> {
    /// The table of that name, if its changes can be followed.
    fn find_table(&mut self, name: &Located<TableName>) -> Option<&'a Table> {
        let Located { value: name, place } = name;
        let Some(table) = self.schema.tables.get(name) else {
            let mut known: Vec<String> = self.schema.tables.keys().map(ToString::to_string).collect();
            known.sort();
            let hint = if known.is_empty() {
                "it has none yet, migrate it first; `walcast migrate --reference` makes the reference domain's".into()
            } else if known.contains(&name.to_string()) {
                "what stands before the first dot is its schema, whose own name can't have one".into()
            } else {
                suggestion(&name.to_string(), known.iter().map(String::as_str))
            };
            self.findings.add(place, format!("there is no table {name} in the database; {hint}"));
            return None;
        };
        if let Some(root) = &table.root {
            let message =
                format!("{name} is a partition, its changes are published as those of {root}; name {root}");
            self.findings.add(place, message);
            return None;
        }
        if !table.logged {
            let message =
                format!("{name} is unlogged, its changes are not in the WAL; alter table {name} set logged");
            self.findings.add(place, message);
            return None;
        }
        Some(table)
    }

    /// The column of that name, if it is in the stream.
    fn find_column(
        &mut self,
        table: &'a Table,
        name: &str,
        place: &super::error::Place,
    ) -> Option<&'a Column> {
        let Some(column) = table.column(name) else {
            let hint = suggestion(name, streamed(table));
            let missing = MissingColumn { table: table.name.clone(), column: name.to_owned() };
            let message = format!("table {} has no column {name:?}; {hint}", table.name);
            self.findings.add_about(place, message, Some(missing));
            return None;
        };
        if column.generated {
            let message = format!(
                "{}.{name} is a generated column and not in the WAL; compute it in an expr from the others",
                table.name
            );
            self.findings.add(place, message);
            return None;
        }
        Some(column)
    }

    fn tag(&self, name: &str) -> Option<u16> {
        let index = self.tag_names.iter().position(|known| known == name)?;
        u16::try_from(index).ok()
    }
}

/// The columns that the stream carries.
fn streamed(table: &Table) -> impl Iterator<Item = &str> {
    table.columns.iter().filter(|column| !column.generated).map(|column| column.name.as_str())
}

/// Where `name` is in `names`; added at the end when it is not.
fn intern(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

#[cfg(test)]
mod tests;
