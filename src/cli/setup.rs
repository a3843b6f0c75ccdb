//! `walcast setup`: what the worker needs in the database, made where it is missing.
//!
//! ```text
//! catalog + schema ─► tables, old values needed ─┐
//! access ─► tables of the mirror ────────────────┴─► source::setup::Plan ─► SQL, printed or run
//!                                     grants ─► Permissions ────────────────►
//! ```

mod permissions;

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context;

use super::exit::Usage;
use super::settings::{Settings, database, start_logging};
use crate::access::Memberships;
use crate::catalog::{Catalog, Compiled, Identity};
use crate::config::Config;
use crate::postgres::schema::{Schema, TableName};
use crate::postgres::{Dsn, client};
use crate::source::setup::{self, IdentityNeed, Plan, Requirements};
use crate::source::{Kind, Prospects, slot_name};
use permissions::Permissions;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// For the reference domain: its catalog and memberships, below your own settings
    #[arg(long)]
    reference: bool,
    /// The role that the worker runs as, if it is another than the one that sets up
    #[arg(long)]
    role: Option<String>,
    /// A role that may call walcast.emit; may be given again
    #[arg(long, value_name = "ROLE")]
    emit_role: Vec<String>,
    /// Only print the SQL
    #[arg(long)]
    dry_run: bool,
}

/// Whom a set-up database lets do what.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// Runs the worker; none: whoever sets up.
    pub worker: Option<String>,
    /// May call `walcast.emit`.
    pub emitters: Vec<String>,
}

/// What is missing in a database.
struct Missing {
    source: Kind,
    /// It is that source.
    why: String,
    plan: Plan,
    permissions: Permissions,
}

/// Makes what is missing for this configuration, without grants to other roles. Of no configured catalog, for the
/// reference domain's.
///
/// # Errors
/// A catalog that does not fit, something that somebody else must mend first, or a statement that failed.
pub async fn apply(config: &Config, dsn: &Dsn) -> anyhow::Result<()> {
    let client = client::connect(dsn).await?;
    Missing::find(&client, config, dsn, &Roles::default()).await?.make(&client).await
}

impl Missing {
    async fn find(
        client: &client::Client,
        config: &Config,
        dsn: &Dsn,
        roles: &Roles,
    ) -> anyhow::Result<Self> {
        let schema = Schema::fetch(client).await?;
        let catalog = match &config.catalog.path {
            Some(path) => Catalog::load(path).context("catalog.path")?,
            None => Catalog::reference(),
        };
        let compiled = catalog.compile(&schema).context("the catalog does not fit the database")?;
        let prospects = Prospects::fetch(client, roles.worker.as_deref()).await?;
        let source = prospects.choose(config.source.kind);
        let why = prospects.why(config.source.kind);
        let requirements = Requirements {
            source,
            publication: config.source.publication.clone(),
            slot: slot_name(&config.source, &dsn.database),
            max_outbox: config.max_outbox(),
            tables: tables(config, &compiled, &schema)?,
            grant_to: roles.worker.clone(),
        };
        let permissions = Permissions::find(client, roles, source).await?;
        let plan = setup::plan(client, &requirements).await?;
        Ok(Self { source, why, plan, permissions })
    }

    async fn make(&self, client: &client::Client) -> anyhow::Result<()> {
        self.plan.run(client).await?;
        self.permissions.grant(client).await
    }
}

/// Every table to be published with the old values it must log: the catalog's, and those that access mirrors.
fn tables(
    config: &Config,
    compiled: &Compiled,
    schema: &Schema,
) -> anyhow::Result<Vec<(TableName, IdentityNeed)>> {
    let mut needs: BTreeMap<TableName, IdentityNeed> = BTreeMap::new();
    for need in compiled.identity_needs() {
        let identity = match need.identity {
            Identity::Default => IdentityNeed::Default,
            Identity::Full => IdentityNeed::Full,
        };
        needs.insert(need.table.clone(), identity);
    }
    let mut mirrored = compiled.mirror_specs().to_vec();
    Memberships::require(&config.access, &mut mirrored);
    for spec in mirrored {
        let Some(table) = schema.tables.get(&spec.table) else {
            let text = format!("access names a table {} that is not in the database", spec.table);
            return Err(Usage(text).into());
        };
        let known = |column: &&String| table.columns.iter().any(|known| known.name == **column);
        if let Some(column) = spec.columns.iter().find(|column| !known(column)) {
            return Err(
                Usage(format!("access names a column {column} that {} does not have", spec.table)).into()
            );
        }
        // The mirror knows a row by its key; a row without one it knows by all of it.
        let identity = if table.primary_key.is_empty() { IdentityNeed::Full } else { IdentityNeed::Default };
        needs.entry(spec.table).or_insert(identity);
    }
    Ok(needs.into_iter().collect())
}

pub(super) async fn execute(settings: &Settings, args: Args) -> anyhow::Result<()> {
    start_logging("warn")?;
    let config = settings.load(args.reference)?;
    let dsn = database(&config)?;
    if !args.reference && config.catalog.path.is_none() {
        let text =
            "no catalog: set catalog.path to your own, or say setup --reference for the reference domain's";
        return Err(Usage(text.to_owned()).into());
    }
    let roles = Roles { worker: args.role, emitters: args.emit_role };
    let client = client::connect(&dsn).await?;
    let missing = Missing::find(&client, &config, &dsn, &roles).await?;
    let mut out = std::io::stdout();
    write!(out, "{}{}", missing.plan, missing.permissions)?;
    writeln!(out, "-- The source is {}: {}.", missing.source, missing.why)?;
    if !args.dry_run {
        missing.make(&client).await?;
        if !missing.plan.is_empty() || !missing.permissions.is_empty() {
            writeln!(out, "-- Done.")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
