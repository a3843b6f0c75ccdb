//! `walcast migrate`: walcast's own schema, and the reference domain's tables where they are asked for.
//!
//! Two sets of migrations, each with bookkeeping of its own in schema `walcast`: an application that brings its own
//! sqlx migrations is not disturbed, and either set grows without minding the other.

use std::io::Write;

use anyhow::{Context, anyhow};
use sqlx::migrate::{Migrate, Migrator};
use sqlx::{ConnectOptions, PgConnection};

use super::settings::{Settings, database, start_logging};
use crate::postgres::Dsn;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The reference domain's tables too
    #[arg(long)]
    reference: bool,
}

/// A set of migrations and the table that says which of it are done.
struct Set {
    migrator: Migrator,
    table: &'static str,
}

impl Set {
    fn own() -> Self {
        Self { migrator: sqlx::migrate!("migrations/walcast"), table: "walcast.migrations" }
    }

    fn reference() -> Self {
        Self { migrator: sqlx::migrate!("migrations/reference"), table: "walcast.reference_migrations" }
    }

    /// Runs what is not done yet and returns its names.
    async fn run(mut self, connection: &mut PgConnection) -> anyhow::Result<Vec<String>> {
        self.migrator.dangerous_set_table_name(self.table);
        let before = match table_exists(connection, self.table).await? {
            true => connection.list_applied_migrations(self.table).await?.len(),
            false => 0,
        };
        self.migrator.run_direct(None, connection, false).await?;
        let pending = self.migrator.iter().skip(before);
        Ok(pending.map(|migration| format!("{:04} {}", migration.version, migration.description)).collect())
    }
}

async fn table_exists(connection: &mut PgConnection, table: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("select to_regclass($1) is not null").bind(table).fetch_one(connection).await
}

/// Brings the database up to this version and returns the names of the migrations that it took.
///
/// # Errors
/// No connection, or what a migration met; each migration is a transaction, so that those before it stay.
pub async fn run(dsn: &Dsn, reference: bool) -> anyhow::Result<Vec<String>> {
    let mut connection = connect(dsn).await?;
    // Only where it is missing: `if not exists` asks for CREATE on the database all the same.
    let missing: bool =
        sqlx::query_scalar("select to_regnamespace('walcast') is null").fetch_one(&mut connection).await?;
    if missing {
        sqlx::query("create schema walcast")
            .execute(&mut connection)
            .await
            .context("create schema walcast")?;
    }
    let mut done = Set::own().run(&mut connection).await.context("walcast's own schema")?;
    if reference {
        done.extend(Set::reference().run(&mut connection).await.context("the reference domain")?);
    }
    Ok(done)
}

/// The first host that accepts.
async fn connect(dsn: &Dsn) -> anyhow::Result<PgConnection> {
    let mut failure = anyhow!("no host");
    for host in &dsn.hosts {
        let options = dsn.sqlx_options(host)?;
        let connecting = options.connect();
        let connected = match dsn.connect_timeout {
            Some(limit) => match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => {
                    failure = anyhow!("{host} did not answer within {} s", limit.as_secs());
                    continue;
                }
            },
            None => connecting.await,
        };
        match connected {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = told(error).context(host.to_string()),
        }
    }
    Err(failure.context("can't connect to the database"))
}

/// In the words of the server or the system: sqlx adds a line of the server's source, and says the cause twice.
fn told(error: sqlx::Error) -> anyhow::Error {
    match error {
        sqlx::Error::Database(error) => {
            anyhow!("{} (SQLSTATE {})", error.message(), error.code().unwrap_or_default())
        }
        sqlx::Error::Io(error) => anyhow!("{error}"),
        sqlx::Error::Tls(error) => anyhow!("{error}"),
        other => other.into(),
    }
}

pub(super) async fn execute(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    start_logging("warn")?;
    let config = settings.load(args.reference)?;
    let dsn = database(&config)?;
    let done = run(&dsn, args.reference).await?;
    let mut out = std::io::stdout();
    for name in &done {
        writeln!(out, "applied {name}")?;
    }
    if done.is_empty() {
        writeln!(out, "nothing to apply")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::cluster::{Cluster, ClusterOptions};

    #[tokio::test]
    async fn both_sets_run_once_each_and_over_a_unix_socket_too() {
        let cluster =
            Cluster::start(ClusterOptions { durable: false, ..ClusterOptions::default() }).await.unwrap();
        let dsn = Dsn::parse(&cluster.dsn("postgres")).unwrap();
        let own = run(&dsn, false).await.unwrap();
        assert_eq!(own.first().map(String::as_str), Some("0001 schema"));
        assert!(own.iter().all(|name| name.starts_with("00")), "{own:?}");
        let socket = Dsn::parse(&cluster.socket_dsn("postgres")).unwrap();
        assert!(matches!(socket.hosts[0], crate::postgres::dsn::Host::Unix { .. }));
        assert_eq!(run(&socket, true).await.unwrap(), ["1001 tables"]);
        assert_eq!(run(&dsn, true).await.unwrap(), Vec::<String>::new());

        let mut connection = connect(&dsn).await.unwrap();
        assert!(table_exists(&mut connection, "public.organizations").await.unwrap());
        assert!(!table_exists(&mut connection, "public._sqlx_migrations").await.unwrap());
    }
}
