use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::catalog::Catalog;
use crate::catalog::fixture::{self, reference};

const SCHEMA: &str = "
    bays: *id text, organization_id text, status text, count int, full bool, =free int, ref uuid, site_id text
    sites: *id text, organization_id text, name text, owner text, =loud text
    globals: *id text, name text
    heap: id text, organization_id text
";

const HEAD: &str = "[tables.bays]\norganization = \"organization_id\"\nchannel = \"bays\"\n";

fn mistakes(text: &str) -> Vec<String> {
    match fixture::compile(text, SCHEMA) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.lines().map(str::to_owned).collect(),
    }
}

/// Of one event of `bays`, whose lines from the 4th on are given.
fn event(lines: &str) -> Vec<String> {
    mistakes(&format!("{HEAD}[[tables.bays.events]]\ntype = \"t\"\n{lines}"))
}

fn compiled(text: &str) -> Compiled {
    fixture::compile(text, SCHEMA).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn tables_and_columns_have_to_be_there() {
    assert_eq!(
        mistakes("[tables.bay]\norganization = \"*\"\n[tables.\"x.Elsewhere\"]\n"),
        [
            "catalog.toml:1: there is no table bay in the database; did you mean \"bays\"?",
            "catalog.toml:3: there is no table x.Elsewhere in the database; known: \"bays\", \"globals\", \"heap\", \"sites\"",
        ]
    );
    assert_eq!(
        event(
            "on = [\"insert\", \"update\"]\ntags = { a = \"staus\" }\nonly = { user = \"owner\" }\nwhen.changed = [\"cont\"]\n\
             when.became = { ful = true }\nwhen.expr = \"new.ids == ''\"\n\
             data = { a = \"stat\", b = { from = \"site\", column = \"name\" }, c = { expr = \"new.nothing\" } }"
        )
        .len(),
        8
    );
    assert_eq!(
        event("on = [\"insert\"]\ndata = { a = \"staus\" }"),
        ["catalog.toml:7: table bays has no column \"staus\"; did you mean \"status\"?"]
    );
    let organization = "[tables.bays]\norganization = \"org_id\"\nchannel = \"c\"\n[[tables.bays.events]]\ntype = \"t\"\non = [\"insert\"]";
    assert!(mistakes(organization)[0].starts_with("catalog.toml:2: table bays has no column \"org_id\"; "));
}

#[test]
fn generated_columns_partitions_and_unlogged_tables_are_not_in_the_log() {
    assert_eq!(
        event("on = [\"insert\"]\ndata = { a = \"free\" }"),
        [
            "catalog.toml:7: bays.free is a generated column and not in the WAL; compute it in an expr from the others"
        ]
    );
    let mut schema = fixture::schema(SCHEMA);
    let bays = TableName::parse("bays");
    schema.tables.get_mut(&bays).expect("bays").logged = false;
    let catalog = fixture::catalog("[tables.bays]\norganization = \"*\"").expect("well-formed");
    assert_eq!(
        catalog.compile(&schema).expect_err("unlogged").to_string(),
        "catalog.toml:1: bays is unlogged, its changes are not in the WAL; alter table bays set logged"
    );
    schema.tables.get_mut(&bays).expect("bays").root = Some(TableName::parse("all_bays"));
    assert_eq!(
        catalog.compile(&schema).expect_err("a partition").to_string(),
        "catalog.toml:1: bays is a partition, its changes are published as those of all_bays; name all_bays"
    );
}

#[test]
fn literals_are_of_their_columns_type() {
    let became = |literal: &str| event(&format!("on = [\"update\"]\nwhen.became = {{ {literal} }}"));
    for right in ["full = true", "count = -3", "status = \"x\"", "ref = \"x\""] {
        assert_eq!(became(right), Vec::<String>::new(), "{right}");
    }
    assert_eq!(
        became("full = \"t\""),
        ["catalog.toml:7: when.became.full is of another type; write true or false"]
    );
    assert_eq!(
        became("count = \"3\""),
        ["catalog.toml:7: when.became.count is of another type; write an integer"]
    );
    assert_eq!(
        became("status = 3"),
        [
            "catalog.toml:7: when.became.status is of another type; write a string, as the column's text output shows it"
        ]
    );
}

#[test]
fn expressions_are_checked_and_conditions_read_no_lookup() {
    let with = |lines: &str| {
        mistakes(&format!(
            "{HEAD}lookup.site = {{ table = \"sites\", key = \"id\", of = \"site_id\" }}\n[[tables.bays.events]]\n\
             type = \"t\"\non = [\"insert\"]\n{lines}"
        ))
    };
    assert_eq!(
        with("when.expr = \"new.count > 3\"\ndata.x = { expr = \"site == null ? '' : site.name\" }"),
        Vec::<String>::new()
    );
    assert_eq!(
        with("when.expr = \"site.name == 'x'\""),
        [
            "catalog.toml:8: when.expr reads lookup.site, which may be newer when the change is read again; \
             use the row's own columns, or a related row"
        ]
    );
    for wrong in [
        "new.nothing",
        "nowhere.id",
        "1 +",
        "[1].all(x, x > 0)",
        "site.loud",
        "new.free",
    ] {
        let mistakes = with(&format!("data.x = {{ expr = \"{wrong}\" }}"));
        assert_eq!(mistakes.len(), 1, "{wrong}");
        assert!(
            mistakes[0].starts_with(&format!("catalog.toml:8: in \"{wrong}\": ")),
            "{mistakes:?}"
        );
    }
}

#[test]
fn joins_have_to_fit() {
    let join = |line: &str| {
        mistakes(&format!(
            "{HEAD}{line}\n[[tables.bays.events]]\ntype = \"t\"\non = [\"insert\"]"
        ))
    };
    assert_eq!(
        join("lookup.site = { table = \"sites\", key = \"id\", of = \"ref\" }"),
        [
            "catalog.toml:4: bays.ref is uuid and sites.id is text: they are compared as text; name columns of one type"
        ]
    );
    assert_eq!(
        join("related.site = { table = \"sites\", key = \"ids\", of = \"site_id\" }"),
        ["catalog.toml:4: table sites has no column \"ids\"; did you mean \"id\"?"]
    );
    assert_eq!(
        mistakes(
            "[tables.globals]\norganization = \"*\"\nchannel = \"c\"\n\
             lookup.site = { table = \"sites\", key = \"id\", of = \"id\" }\n[[tables.globals.events]]\ntype = \"t\"\n\
             on = [\"insert\"]\n[tables.sites]\norganization = \"organization_id\"\n"
        ),
        [
            "catalog.toml:4: rows of sites belong to an organization (organization_id), and events of globals go to \
             every organization; take nothing from there"
        ]
    );
    assert_eq!(
        event("on = [\"insert\"]\ndata.x = { from = \"site\", column = \"name\" }"),
        ["catalog.toml:7: table bays has no lookup or related row \"site\"; there is none"]
    );
}

#[test]
fn lookups_are_mirrored_with_what_is_read_of_them() {
    let compiled = compiled(
        "[tables.bays]\norganization = \"organization_id\"\nchannel = \"bays\"\n\
         lookup.site = { table = \"sites\", key = \"id\", of = \"site_id\" }\n\
         lookup.other = { table = \"sites\", key = \"owner\", of = \"status\" }\n\
         lookup.all = { table = \"globals\", key = \"id\", of = \"id\" }\n\
         related.heap = { table = \"heap\", key = \"id\", of = \"id\" }\n\
         [[tables.bays.events]]\ntype = \"t\"\non = [\"insert\"]\n\
         data = { a = { from = \"site\", column = \"name\" }, b = { expr = \"other == null ? '' : other.name + other.id\" }, \
         c = { from = \"all\", fields = { name = \"name\" } }, d = { expr = \"heap == null\" } }\n",
    );
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        compiled.mirror_specs(),
        [
            MirrorSpec {
                table: TableName::parse("globals"),
                columns: list(&["name"]),
                indexes: vec![list(&["id"])]
            },
            MirrorSpec {
                table: TableName::parse("sites"),
                columns: list(&["name", "id"]),
                indexes: vec![
                    list(&["id", "organization_id"]),
                    list(&["owner", "organization_id"])
                ]
            },
        ]
    );
    let published: Vec<_> = compiled
        .published_tables()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(published, ["bays", "globals", "heap", "sites"]);
}

/// Table, identity, needed columns, mirrored.
fn needs(compiled: &Compiled) -> Vec<(String, Identity, String, bool)> {
    let of = |need: &IdentityNeed| {
        (
            need.table.to_string(),
            need.identity,
            need.columns.join(" "),
            need.mirrored,
        )
    };
    compiled.identity_needs().iter().map(of).collect()
}

#[test]
fn what_old_values_rules_need_decides_the_replica_identity() {
    let every = "[tables.bays]\norganization = \"*\"\nchannel = \"c\"\ntags = { s = \"site_id\" }\n[[tables.bays.events]]\ntype = \"t\"\n";
    let need = |lines: &str| {
        let mut needs = needs(&compiled(&format!("{every}{lines}")));
        let (_, identity, columns, _) = needs.remove(0);
        (identity, columns)
    };
    let full = |columns: &str| (Identity::Full, columns.to_owned());
    let none = (Identity::Default, String::new());
    assert_eq!(
        need("on = [\"insert\"]\nwhen.changed = [\"status\"]\ndata = { a = { row = \"new\" } }"),
        none
    );
    assert_eq!(
        need("on = [\"update\"]\ntags = {}\ndata = { a = \"status\", b = { row = \"new\" } }"),
        none
    );
    assert_eq!(
        need("on = [\"update\"]\ntags = { b = \"id\" }"),
        (Identity::Default, "id".to_owned())
    );
    assert_eq!(need("on = [\"update\"]"), full("site_id"));
    assert_eq!(
        need("on = [\"delete\"]\ntags = {}\ndata = { a = \"id\" }"),
        (Identity::Default, "id".to_owned())
    );
    assert_eq!(
        need("on = [\"delete\"]\ntags = {}\ndata = { a = \"status\" }"),
        full("status")
    );
    assert_eq!(
        need("on = [\"delete\"]\ntags = {}\ndata = { a = { expr = \"new.count\" } }"),
        full("count")
    );
    assert_eq!(
        need("on = [\"delete\"]\ntags = {}\nonly = { user = \"status\" }"),
        full("status")
    );
    assert_eq!(
        need("on = [\"update\"]\ntags = {}\nwhen.changed = [\"count\"]"),
        full("count")
    );
    assert_eq!(
        need("on = [\"update\"]\ntags = {}\nwhen.became = { full = true }"),
        full("full")
    );
    assert_eq!(
        need("on = [\"update\"]\ntags = {}\ndata = { a = { expr = \"old.status\" } }"),
        full("status")
    );
    assert_eq!(
        need("on = [\"update\"]\ntags = {}\ndata = { a = { expr = \"'count' in changed\" } }"),
        full("count")
    );
    let all = full("id organization_id status count full ref site_id");
    assert_eq!(
        need("on = [\"update\"]\ntags = {}\ndata = { a = { expr = \"size(changed)\" } }"),
        all
    );
    assert_eq!(
        need("on = [\"update\"]\ntags = {}\ndata = { a = { changed = true } }"),
        all
    );
    assert_eq!(
        need("on = [\"update\"]\ntags = {}\ndata = { a = { previous = true } }"),
        all
    );
    assert_eq!(
        need("on = [\"update\"]\ntags = {}\ndata = { a = { row = \"old\" } }"),
        all
    );
    assert_eq!(
        need("on = [\"delete\"]\ntags = {}\ndata = { a = { row = \"new\" } }"),
        all
    );
}

#[test]
fn an_organization_column_is_needed_even_of_inserts_alone() {
    let compiled = compiled(&format!(
        "{HEAD}lookup.site = {{ table = \"sites\", key = \"id\", of = \"site_id\" }}\n\
         related.heap = {{ table = \"heap\", key = \"id\", of = \"id\" }}\n\
         [[tables.bays.events]]\ntype = \"t\"\non = [\"insert\"]\ndata.a = {{ from = \"site\", column = \"name\" }}"
    ));
    assert_eq!(
        needs(&compiled),
        [
            (
                "bays".to_owned(),
                Identity::Full,
                "organization_id".to_owned(),
                false
            ),
            // Without any identity the server would refuse updates of a published table.
            ("heap".to_owned(), Identity::Full, String::new(), false),
            ("sites".to_owned(), Identity::Default, "id".to_owned(), true),
        ]
    );
    let schema = fixture::schema(SCHEMA);
    let met = |table: &str, identity: crate::postgres::schema::ReplicaIdentity| {
        let name = TableName::parse(table);
        let mut table = schema.tables[&name].clone();
        table.replica_identity = identity;
        let need = compiled
            .identity_needs()
            .iter()
            .find(|need| need.table == name)
            .expect("a need");
        need.is_met_by(&table)
    };
    use crate::postgres::schema::ReplicaIdentity::{Default, Full, Nothing};
    assert_eq!(
        [Default, Full, Nothing].map(|identity| met("bays", identity)),
        [false, true, false]
    );
    assert_eq!(
        [Default, Full, Nothing].map(|identity| met("heap", identity)),
        [false, true, false]
    );
    assert_eq!(
        [Default, Full, Nothing].map(|identity| met("sites", identity)),
        [true, true, false]
    );
}

#[test]
fn the_reference_catalog_fits_the_reference_schema() {
    let schema = fixture::schema(reference::SCHEMA);
    let compiled = Catalog::reference()
        .compile(&schema)
        .unwrap_or_else(|errors| panic!("{errors}"));
    let channels: Vec<_> = compiled.channels().iter().map(String::as_str).collect();
    assert_eq!(
        channels,
        [
            "activities",
            "activity-log",
            "alerts",
            "devices",
            "heatmap",
            "issues",
            "lots",
            "members",
            "notifications",
            "organization",
            "property",
            "system",
            "telemetry",
            "violations"
        ]
    );
    assert_eq!(compiled.event_types().len(), 24);
    let mut tags = compiled.tag_names().to_vec();
    tags.sort();
    assert_eq!(
        tags,
        [
            "assignedTo",
            "buildingId",
            "campusId",
            "category",
            "deviceId",
            "parkingLotId",
            "priority",
            "propertyId",
            "severity",
            "status"
        ]
    );
    let published: Vec<_> = compiled
        .published_tables()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        published,
        [
            "activities",
            "activity_updates",
            "device_telemetry",
            "devices",
            "gate_events",
            "issues",
            "lot_alerts",
            "lots",
            "memberships",
            "notifications",
            "organizations",
            "properties",
            "system_alerts",
            "user_activity",
            "violations"
        ]
    );
    let defaults: Vec<_> = compiled
        .identity_needs()
        .iter()
        .filter(|need| need.identity == Identity::Default)
        .map(|need| need.table.to_string())
        .collect();
    assert_eq!(defaults, ["activity_updates", "system_alerts"]);
    let mirrored: Vec<_> = compiled
        .mirror_specs()
        .iter()
        .map(|spec| spec.table.to_string())
        .collect();
    assert_eq!(mirrored, ["devices", "lots"]);
}

#[test]
fn a_fingerprint_is_of_what_a_catalog_says_and_not_of_how() {
    let one = format!(
        "{HEAD}[[tables.bays.events]]\ntype = \"t\"\non = [\"insert\", \"update\"]\ndata = {{ a = \"id\", b = \"status\" }}\n"
    );
    let print = |text: &str| compiled(text).fingerprint();
    // Pinned: another value would end every client's history at an upgrade.
    assert_eq!(format!("{:016x}", print(&one)), "9712de6fa01591e7");
    let rewritten = format!(
        "# note\n\n{}\n[tables.globals]\n",
        one.replace("\"insert\", \"update\"", "\"update\",  \"insert\"")
    );
    let moved = format!("[tables.globals]\n{one}");
    assert_eq!(print(&rewritten), print(&moved));
    assert_ne!(print(&rewritten), print(&one));
    for (from, to) in [
        ("\"t\"", "\"u\""),
        ("channel = \"bays\"", "channel = \"bay\""),
        ("a = \"id\", b = \"status\"", "b = \"status\", a = \"id\""),
        ("a = \"id\"", "a = { column = \"id\", omit = \"null\" }"),
        ("a = \"id\"", "a = { value = \"id\" }"),
        ("a = \"id\"", "a = { expr = \"new.id\" }"),
        (", \"update\"", ""),
        ("organization_id", "site_id"),
    ] {
        assert!(one.contains(from));
        assert_ne!(print(&one.replace(from, to)), print(&one), "{from} to {to}");
    }
}

proptest! {
    #[test]
    fn a_fingerprint_tells_catalogs_apart_and_ignores_the_order_of_tables(
        events in proptest::collection::btree_map("bays|sites|globals|heap", ("[a-z]{1,8}", "[a-z]{1,8}"), 1..4),
        other in proptest::collection::btree_map("bays|sites|globals|heap", ("[a-z]{1,8}", "[a-z]{1,8}"), 1..4),
    ) {
        let text = |events: &BTreeMap<String, (String, String)>, reverse: bool| {
            let mut tables: Vec<String> = events.iter().map(|(table, (kind, channel))| format!(
                "[tables.{table}]\norganization = \"*\"\n[[tables.{table}.events]]\ntype = \"{kind}x\"\n\
                 channel = \"{channel}\"\non = [\"insert\"]\n"
            )).collect();
            if reverse { tables.reverse(); }
            tables.concat()
        };
        let print = compiled(&text(&events, false)).fingerprint();
        prop_assert_eq!(compiled(&text(&events, true)).fingerprint(), print);
        prop_assert_eq!(compiled(&text(&other, false)).fingerprint() == print, events == other);
    }
}
