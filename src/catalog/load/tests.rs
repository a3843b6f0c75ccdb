use crate::catalog::Catalog;
use crate::catalog::fixture::catalog;

/// What is wrong with a catalog, a line a mistake.
fn mistakes(text: &str) -> Vec<String> {
    match catalog(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// Of a catalog with one event of `bays`, whose lines from the 5th on are given.
fn event_mistakes(lines: &str) -> Vec<String> {
    mistakes(&format!(
        "[tables.bays]\norganization = \"*\"\nchannel = \"c\"\n[[tables.bays.events]]\n{lines}"
    ))
}

#[test]
fn every_form_of_the_contract_is_read() {
    let text = r#"
[tables.bays]
organization = "organization_id"
channel      = "bays"
tags         = { bayId = "id" }
related.gate = { table = "gate_events", key = "bay_id", of = "id", take = "last" }
lookup.site  = { table = "campuses", key = "id", of = "campus_id" }

[[tables.bays.events]]
type = "bay_changed"
on   = ["insert", "update"]
when.changed = ["occupied", "total_slots"]
when.became = { status = "resolved", full = true, level = 3 }
when.expr = "gate == null"
only = { roles = ["admin"], user = "owner_id" }

[tables.bays.events.data]
bayId         = "id"
note          = { column = "note", omit = "null" }
empty         = { expr = "new.total_slots - new.occupied" }
plateNumber   = { from = "gate", column = "plate_number", omit = "null" }
latestUpdate  = { from = "gate", fields = { notes = "notes" } }
bay           = { row = "new" }
before        = { row = "old" }
changed       = { changed = true }
previous      = { previous = true }
kind          = { value = "bay" }
details       = { duration = "duration", inner = "price", deeper = { a = "b" } }
forced        = { object = { changed = "changed_at" } }

[[tables.bays.events]]
type = "bay_gone"
on   = ["delete"]
channel = "own"
tags = {}

[tables."billing.Invoice"]
"#;
    let catalog = catalog(text).expect("all of it is right");
    let names: Vec<_> = catalog.tables().map(ToString::to_string).collect();
    assert_eq!(names, ["bays", "billing.Invoice"]);
    let bays = &catalog.tables[0];
    assert_eq!(
        bays.joins
            .iter()
            .map(|join| join.name.as_str())
            .collect::<Vec<_>>(),
        ["gate", "site"]
    );
    let [changed, gone] = &bays.events[..] else {
        panic!("two events")
    };
    assert_eq!(
        changed
            .data
            .iter()
            .map(|field| field.name.as_str())
            .collect::<Vec<_>>(),
        [
            "bayId",
            "note",
            "empty",
            "plateNumber",
            "latestUpdate",
            "bay",
            "before",
            "changed",
            "previous",
            "kind",
            "details",
            "forced"
        ]
    );
    assert_eq!(
        (changed.channel.as_str(), changed.tags.len(), changed.became.len()),
        ("bays", 1, 3)
    );
    assert_eq!((gone.channel.as_str(), gone.tags.len()), ("own", 0));
}

#[test]
fn the_reference_catalog_is_well_formed() {
    assert_eq!(Catalog::reference().tables().count(), 14);
}

#[test]
fn every_mistake_is_named_with_its_line() {
    let text = "[tabels.x]\n[tables.bays]\norganisation = \"id\"\nchannel = 7\n[[tables.bays.events]]\n\
                type = \"connected\"\non = [\"insert\", \"upsert\"]\ndata.id = 5\n";
    assert_eq!(
        mistakes(text),
        [
            "catalog.toml:1: unknown key \"tabels\"; did you mean \"tables\"?",
            "catalog.toml:2: table bays has no organization; name the column that holds a row's, or \"*\" for every organization",
            "catalog.toml:3: unknown key \"organisation\" in [tables.bays]; did you mean \"organization\"?",
            "catalog.toml:4: channel is an integer; write a name, as a string",
            "catalog.toml:6: event \"connected\" is the worker's own type; choose another name",
            "catalog.toml:6: event \"connected\" has no channel; give it one, or give the table one",
            "catalog.toml:7: event \"connected\": on has no \"upsert\"; did you mean \"insert\"?",
            "catalog.toml:8: data.id is 5; write a column, or a form such as { expr = \"…\" }",
        ]
    );
}

#[test]
fn an_event_says_what_makes_it_and_where_it_goes() {
    assert_eq!(
        event_mistakes("channel = \"x\""),
        ["catalog.toml:5: an event has no type; write type = \"…\", its type"]
    );
    assert_eq!(
        event_mistakes("type = \"a b\""),
        [
            "catalog.toml:5: event \"a b\" is no name; names match [A-Za-z0-9._:-]{1,100}",
            "catalog.toml:5: event \"a b\" has no on; list which of \"insert\", \"update\", \"delete\" make it",
        ]
    );
    assert_eq!(
        event_mistakes("type = \"t\"\non = []\nchannel = \"ä\""),
        [
            "catalog.toml:6: event \"t\": on is empty; list \"insert\", \"update\" or \"delete\", or leave it out",
            "catalog.toml:7: channel \"ä\" is no name; names match [A-Za-z0-9._:-]{1,100}",
        ]
    );
    assert_eq!(
        event_mistakes("type = \"t\"\non = [\"insert\", \"insert\"]"),
        ["catalog.toml:6: event \"t\": on says \"insert\" twice; once is enough"]
    );
}

#[test]
fn conditions_and_audiences_are_checked() {
    assert_eq!(
        event_mistakes("type = \"t\"\non = [\"delete\"]\nwhen.changed = [\"a\"]"),
        [
            "catalog.toml:5: event \"t\" can't change by a delete; leave \"delete\" out of on, or make it an event of its own"
        ]
    );
    assert_eq!(
        event_mistakes(
            "type = \"t\"\non = [\"insert\"]\nwhen.becomes = { a = \"b\" }\nwhen.became = { a = 1.5 }"
        ),
        [
            "catalog.toml:7: unknown key \"becomes\" in when; did you mean \"became\"?",
            "catalog.toml:8: when.became.a is a float; write a string, an integer or a boolean, or use when.expr",
        ]
    );
    assert_eq!(
        event_mistakes("type = \"t\"\non = [\"insert\"]\nonly = {}"),
        ["catalog.toml:7: event \"t\": only admits nobody; name roles, or user, or leave it out"]
    );
    assert_eq!(
        event_mistakes("type = \"t\"\non = [\"insert\"]\ntags = { channel = \"a\" }"),
        ["catalog.toml:7: tag \"channel\" is a stream's own parameter; choose another name"]
    );
}

#[test]
fn forms_are_checked() {
    let data = |form: &str| event_mistakes(&format!("type = \"t\"\non = [\"insert\"]\ndata.x = {form}"));
    assert_eq!(
        data("{ row = \"news\" }"),
        ["catalog.toml:7: data.x: row is \"news\"; write \"new\" or \"old\""]
    );
    assert_eq!(
        data("{ from = \"a\", to = \"b\" }"),
        [
            "catalog.toml:7: unknown key \"to\" beside \"from\" in data.x; known: \"column\", \"fields\", \"omit\" \
             (a nested object with such a key is { object = { … } })",
            "catalog.toml:7: data.x takes from \"a\"; write either column = \"…\" or fields = { … }",
        ]
    );
    assert_eq!(
        data("{ changed = \"at\" }"),
        [
            "catalog.toml:7: data.x: changed is \"at\"; write true (a nested object with such a key is { object = { … } })"
        ]
    );
    assert_eq!(
        data("{ column = \"a\", omit = \"empty\" }"),
        ["catalog.toml:7: data.x: omit is \"empty\"; write \"null\", or leave it out"]
    );
    assert_eq!(
        data("{ value = inf }"),
        ["catalog.toml:7: data.x: JSON has no inf; write a finite number or a string"]
    );
    assert_eq!(
        data("{ from = \"a\", fields = { b = { expr = \"1\" } } }"),
        ["catalog.toml:7: data.x.b is no column; fields are columns of \"a\""]
    );
    assert_eq!(
        data("{ row = \"new\", omit = \"null\" }"),
        [
            "catalog.toml:7: unknown key \"omit\" beside \"row\" in data.x; \"row\" stands alone \
             (a nested object with such a key is { object = { … } })"
        ]
    );
}

#[test]
fn joins_are_checked() {
    let join = |line: &str| mistakes(&format!("[tables.bays]\n{line}"));
    assert_eq!(
        join("related.new = { table = \"a\", key = \"b\", of = \"c\" }"),
        ["catalog.toml:2: related.new has a name that expressions use already; choose another"]
    );
    assert_eq!(
        join("lookup.a-b = { table = \"a\", key = \"b\" }"),
        [
            "catalog.toml:2: lookup.a-b can't be used in expressions; name it by letters, digits and _",
            "catalog.toml:2: lookup.a-b has no of; write of = \"…\", a column of this table",
        ]
    );
    assert_eq!(
        join("related.a = { table = \"a\", key = \"b\", of = \"c\", take = \"any\" }"),
        ["catalog.toml:2: related.a.take is \"any\"; write \"first\" or \"last\""]
    );
    assert_eq!(
        join(
            "lookup.a = { table = \"a\", key = \"b\", of = \"c\" }\nrelated.a = { table = \"a\", key = \"b\", of = \"c\" }"
        ),
        ["catalog.toml:3: related.a is a name used twice in this table; choose another"]
    );
}

#[test]
fn a_folder_is_all_of_its_files_and_a_table_is_in_one_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("b.toml", "# nothing\n[tables.bays]\n");
    write("a.toml", "[tables.\"public.bays\"]\n[tables.sites]\n");
    write("notes.txt", "no catalog");
    let errors = Catalog::load(folder.path()).expect_err("twice").to_string();
    let (a, b) = (folder.path().join("a.toml"), folder.path().join("b.toml"));
    assert_eq!(
        errors,
        format!(
            "{}:2: table bays is at {}:1 already; keep all of it in one place",
            b.display(),
            a.display()
        )
    );
    write("b.toml", "[tables.lots]\n");
    let catalog = Catalog::load(folder.path()).expect("a catalog");
    assert_eq!(
        catalog.tables().map(ToString::to_string).collect::<Vec<_>>(),
        ["bays", "sites", "lots"]
    );
    assert_eq!(Catalog::load(&b).expect("a file").tables().count(), 1);
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = Catalog::load(folder.path()).expect_err("empty").to_string();
    assert_eq!(
        empty,
        format!(
            "{}: holds no catalog; put at least one .toml file there",
            folder.path().display()
        )
    );
    let missing = folder.path().join("none.toml");
    let errors = Catalog::load(&missing).expect_err("missing").to_string();
    assert!(
        errors.starts_with(&format!("{}: can't be read (", missing.display())),
        "{errors}"
    );
}
