//! Catalogs that are wrong, against a live schema: each mistake is named with its file, its line and what would be
//! right, before anything runs.

use walcast::catalog::Catalog;
use walcast::postgres::client;
use walcast::postgres::dsn::Dsn;
use walcast::postgres::schema::Schema;

use crate::bench::server;

const TABLES: &str = "
    create table bays (id text primary key, organization_id text, status text, occupied int, total_slots int,
        owner_id text, full_ bool, free int generated always as (total_slots - occupied) stored);
    create unlogged table scratch (id int primary key, organization_id text);
    create table readings (id int, day date, organization_id text, primary key (id, day)) partition by range (day);
    create table readings_1 partition of readings for values from ('2026-01-01') to ('2027-01-01');
    create view bay_view as select * from bays;
    create schema \"odd.name\"; create table \"odd.name\".sites (id int primary key);
    create table sites (id int primary key, organization_id text, name text)";

/// Of `bays`, with one event; what is given begins on line 7.
const EVENT: &str = "[tables.bays]\norganization = \"organization_id\"\nchannel = \"bays\"\n[[tables.bays.events]]\n\
                     type = \"t\"\non = [\"insert\", \"update\"]\n";

/// What stands in the file, the line of the mistake, and parts of what is said of it.
const MISTAKES: &[(&str, u32, &[&str])] = &[
    ("+data = { a = \"ocupied\" }", 7, &["no column \"ocupied\"", "did you mean \"occupied\"?"]),
    ("+data = { a = \"free\" }", 7, &["generated column", "expr"]),
    ("+data = { a = { expr = \"new.free\" } }", 7, &["free"]),
    ("+data = { a = { expr = \"new.ocupied\" } }", 7, &["ocupied", "did you mean \"occupied\"?"]),
    ("+data = { a = { expr = \"new.occupied +\" } }", 7, &["new.occupied +"]),
    ("+data = { a = { expr = \"nev.occupied\" } }", 7, &["nev"]),
    ("+data = { a = { expr = \"now()\" } }", 7, &["now"]),
    ("+data = { a = { from = \"gate\", column = \"x\" } }", 7, &["gate"]),
    ("+data = { a = { row = \"newest\" } }", 7, &["\"new\" or \"old\""]),
    ("+data = { a = 5 }", 7, &["is 5", "a column, or a form"]),
    ("+data = { a = \"\" }", 7, &["a column"]),
    ("+when.became = { occupied = \"five\" }", 7, &["occupied", "an integer"]),
    ("+when.became = { full_ = \"t\" }", 7, &["full_", "true or false"]),
    ("+when.changed = []", 7, &["changed"]),
    ("+when.changed = \"occupied\"", 7, &["changed", "list"]),
    ("+when.expr = \"new.occupied\"", 7, &["true or false"]),
    ("+only = { role = [\"admin\"] }", 7, &["\"role\"", "did you mean \"roles\"?"]),
    ("+only = { user = \"owner\" }", 7, &["\"owner\"", "owner_id"]),
    ("+tags = { \"bay id\" = \"id\" }", 7, &["bay id", "names match"]),
    ("+tags = { types = \"id\" }", 7, &["types", "another name"]),
    ("+channel = \"two words\"", 7, &["two words", "names match"]),
    ("+type = \"again\"", 7, &["duplicate key", "again"]),
    ("+data = { a = \"id\"", 7, &[]),
    ("+datta = { a = \"id\" }", 7, &["\"datta\"", "did you mean \"data\"?"]),
    ("[tables.bay]\norganization = \"*\"\n", 1, &["no table bay", "did you mean \"bays\"?"]),
    ("[tables.\"odd.name.sites\"]\norganization = \"*\"\n", 1, &["first dot", "schema"]),
    ("[tables.bay_view]\norganization = \"*\"\n", 1, &["no table bay_view"]),
    (
        "[tables.scratch]\norganization = \"organization_id\"\n",
        1,
        &["unlogged", "alter table scratch set logged"],
    ),
    ("[tables.readings_1]\norganization = \"organization_id\"\n", 1, &["partition", "name readings"]),
    (
        "[tables.bays]\nchannel = \"b\"\n[[tables.bays.events]]\ntype = \"t\"\non = [\"insert\"]\n",
        1,
        &["no organization", "\"*\""],
    ),
    (
        "[tables.bays]\norganization = \"org\"\nchannel = \"b\"\n[[tables.bays.events]]\ntype = \"t\"\non = [\"insert\"]\n",
        2,
        &["no column \"org\""],
    ),
    (
        "[tables.bays]\norganization = \"organization_id\"\nlookup.site = { table = \"sites\", key = \"id\", of = \"status\" }\n",
        3,
        &["status is text", "id is int4", "one type"],
    ),
    (
        "[tables.bays]\norganization = \"organization_id\"\nlookup.site = { table = \"sites\", key = \"id\" }\n",
        3,
        &["lookup.site has no of"],
    ),
    ("[tables.bays]\nevents = 3\n", 2, &["events"]),
    ("[tables]\nbays = 3\n", 2, &["bays"]),
];

#[tokio::test]
async fn every_mistake_names_its_file_its_line_and_what_would_be_right() {
    let dsn: Dsn = server::empty_database().await.parse().unwrap();
    let client = client::connect(&dsn).await.unwrap();
    client.batch_execute(TABLES).await.unwrap();
    let schema = Schema::fetch(&client).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut silent = Vec::new();
    for (text, line, parts) in MISTAKES {
        let text =
            text.strip_prefix('+').map_or_else(|| (*text).to_owned(), |event| format!("{EVENT}{event}\n"));
        let path = folder.path().join("bays.toml");
        std::fs::write(&path, &text).unwrap();
        let said = match Catalog::load(&path) {
            Ok(catalog) => catalog.compile(&schema).map(|_| ()).map_err(|errors| errors.to_string()),
            Err(errors) => Err(errors.to_string()),
        };
        let said = said.err().unwrap_or_default();
        let place = format!("{}:{line}: ", path.display());
        if !said.contains(&place) || !parts.iter().all(|part| said.contains(part)) {
            silent.push(format!("{text}\nsaid {said:?}, not at line {line} of {parts:?}\n"));
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
    server::clean_up(dsn);
}

#[tokio::test]
async fn the_worker_says_so_and_does_not_start() {
    let url = server::database().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    std::fs::write(&path, "[tables.lost]\norganization = \"organization_id\"\n").unwrap();
    for arguments in [&["run"][..], &["setup"], &["setup", "--dry-run"]] {
        let mut command = crate::bench::process::command(&url);
        command.args(arguments).env("WALCAST_CATALOG_PATH", &path);
        let ended = tokio::time::timeout(crate::bench::PATIENCE, command.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success(), "{arguments:?}: {said}");
        let wanted = format!(
            "{}:1: there is no table lost in the database; the closest known name is \"lots\"",
            path.display()
        );
        assert!(said.contains(&wanted), "{arguments:?}: {said}");
    }
    server::clean_up(url.parse().unwrap());
}
