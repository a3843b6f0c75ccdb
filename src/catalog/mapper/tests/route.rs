use super::*;

const SCHEMA: &str = "
    bays: *id text, organization_id text, status text, owner_id text, campus_id text
    notices: *id text, message text
    silent: *id text, organization_id text
";

const CATALOG: &str = r#"
[tables.bays]
organization = "organization_id"
channel = "bays"
tags = { status = "status", campusId = "campus_id" }

[[tables.bays.events]]
type = "bay_created"
on = ["insert"]
data = { id = "id" }

[[tables.bays.events]]
type = "bay_updated"
on = ["update"]
data = { id = "id" }

[[tables.bays.events]]
type = "bay_resolved"
on = ["update"]
channel = "resolved"
when.became = { status = "resolved" }

[[tables.bays.events]]
type = "bay_moved"
on = ["insert", "update"]
tags = { campusId = "campus_id" }
when.changed = ["campus_id", "owner_id"]
when.expr = "new.status != 'hidden'"

[[tables.bays.events]]
type = "bay_deleted"
on = ["delete"]
data = { id = "id" }

[tables.notices]
organization = "*"
channel = "notices"
[[tables.notices.events]]
type = "notice"
on = ["insert", "delete"]
data = { id = "id" }
"#;

fn bench() -> Bench {
    Bench::new(SCHEMA, CATALOG)
}

fn outlines(seen: &[Seen]) -> Vec<(u32, &str, &str)> {
    seen.iter().map(Seen::outline).collect()
}

#[test]
fn ordinals_count_what_could_have_fired() {
    let mut bench = bench();
    let seen = bench.map(vec![
        bench.insert("bays", "b1|o1|open|u1|c1"),
        bench.insert("silent", "s1|o1"),
        bench.update("bays", "b1|o1|open|u1|c1", "b1|o1|resolved|u1|c1"),
        bench.insert("notices", "n1|hello"),
        bench.delete("bays", "b1|o1|resolved|u1|c1"),
        bench.delete("notices", "n1|hello"),
    ]);
    assert_eq!(
        outlines(&seen),
        [
            (2, "o1", "bay_created"),
            (8, "o1", "bay_moved"),
            (14, "o1", "bay_updated"),
            (16, "o1", "bay_resolved"),
            (22, "*", "notice"),
            (31, "o1", "bay_deleted"),
            (33, "*", "notice"),
        ]
    );
    assert_eq!(
        seen[4].json(),
        concat!(
            r#"{"id":"00000000000000e1.4096.22","type":"notice","timestamp":1700000000123,"organizationId":"*","#,
            r#""channel":"notices","data":{"id":"n1"}}"#
        )
    );
}

#[test]
fn the_same_transaction_gives_the_same_bytes_again() {
    let mut bench = bench();
    let changes = vec![
        bench.insert("bays", "b1|o1|open|u1|c1"),
        bench.update("bays", "b1|o1|open|u1|c1", "b1|o2|resolved|u1|c2"),
    ];
    let first = bench.map(changes.clone());
    assert!(first.len() > 3);
    assert_eq!(bench.map(changes), first);
}

#[test]
fn a_row_that_changes_organization_is_deleted_in_the_old_and_inserted_in_the_new() {
    let mut bench = bench();
    let seen = bench.map(vec![bench.update("bays", "b1|o1|open|u1|c1", "b1|o2|open|u1|c2")]);
    assert_eq!(
        outlines(&seen),
        [
            (2, "o2", "bay_created"),
            (8, "o2", "bay_moved"),
            (9, "o1", "bay_deleted")
        ]
    );
    assert_eq!(seen[0].tags(), [("status", "open"), ("campusId", "c2")]);
    assert_eq!(seen[2].tags(), [("status", "open"), ("campusId", "c1")]);
}

#[test]
fn an_update_is_tagged_by_its_old_and_its_new_values() {
    let mut bench = bench();
    let seen = bench.map(vec![bench.update(
        "bays",
        "b1|o1|open|u1|∅",
        "b1|o1|closed|u1|c2",
    )]);
    assert_eq!(
        outlines(&seen),
        [(4, "o1", "bay_updated"), (8, "o1", "bay_moved")]
    );
    assert_eq!(
        seen[0].tags(),
        [("status", "closed"), ("status", "open"), ("campusId", "c2")]
    );
    assert_eq!(seen[1].tags(), [("campusId", "c2")]);
}

#[test]
fn conditions_must_all_hold() {
    let mut bench = bench();
    let mut types = |old: &str, new: &str| {
        let seen = bench.map(vec![bench.update("bays", old, new)]);
        seen.iter()
            .map(|seen| seen.event_type().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(types("b|o|open|u1|c1", "b|o|open|u1|c1"), ["bay_updated"]);
    assert_eq!(
        types("b|o|open|u1|c1", "b|o|open|u2|c1"),
        ["bay_updated", "bay_moved"]
    );
    assert_eq!(types("b|o|open|u1|c1", "b|o|hidden|u2|c1"), ["bay_updated"]);
    assert_eq!(
        types("b|o|open|u1|c1", "b|o|resolved|u1|c1"),
        ["bay_updated", "bay_resolved"]
    );
    assert_eq!(
        types("b|o|resolved|u1|c1", "b|o|resolved|∅|c1"),
        ["bay_updated", "bay_moved"]
    );
    assert_eq!(types("b|o|resolved|u1|c1", "b|o|∅|u1|c1"), ["bay_updated"]);
}

#[test]
fn a_row_of_no_organization_makes_no_event() {
    let mut bench = bench();
    for nobody in ["∅", "*", ""] {
        let row = format!("b1|{nobody}|open|u1|c1");
        assert_eq!(
            bench.map(vec![bench.insert("bays", &row), bench.delete("bays", &row)]),
            []
        );
    }
    assert_eq!(bench.problems(), [(ProblemKind::NoOrganization, 6)]);
    let seen = bench.map(vec![
        bench.update("bays", "b1|∅|open|u1|c1", "b1|o1|open|u1|c1"),
        bench.update("bays", "b1|o1|open|u1|c1", "b1|*|open|u1|c1"),
    ]);
    assert_eq!(
        outlines(&seen),
        [
            (2, "o1", "bay_created"),
            (8, "o1", "bay_moved"),
            (19, "o1", "bay_deleted")
        ]
    );
}

#[test]
fn a_delete_that_cannot_be_routed_is_a_sync_for_everybody_who_listens() {
    let mut bench = Bench::with(SCHEMA, CATALOG, ReplicaIdentity::Default, 1 << 20);
    let changes = vec![
        bench.insert("bays", "b1|o1|open|u1|c1"),
        fixture::delete_by_key(bench.relation("bays"), "b1|∅|∅|∅|∅"),
        bench.insert("bays", "b2|o1|hidden|u1|c1"),
    ];
    let seen = bench.map(changes);
    assert_eq!(
        outlines(&seen),
        [
            (2, "o1", "bay_created"),
            (8, "o1", "bay_moved"),
            (11, "*", "unroutable"),
            (22, "o1", "bay_created")
        ]
    );
    let channels = vec!["bays".to_owned(), "resolved".to_owned()];
    assert_eq!(
        seen[2].what,
        What::Sync {
            reason: SyncReason::Unroutable,
            channels
        }
    );
    assert_eq!(bench.problems(), [(ProblemKind::ReplicaIdentity, 1)]);
    let problem = bench.mapper.problems().next().expect("a problem");
    assert_eq!(
        problem.sql.as_deref(),
        Some(r#"ALTER TABLE "public"."bays" REPLICA IDENTITY FULL;"#)
    );
}

#[test]
fn a_condition_that_the_log_cannot_decide_is_a_sync_in_place_of_its_event() {
    let mut bench = Bench::with(SCHEMA, CATALOG, ReplicaIdentity::Default, 1 << 20);
    let change = fixture::update_by_key(bench.relation("bays"), None, "b1|o1|resolved|u1|c1");
    let seen = bench.map(vec![change]);
    assert_eq!(
        outlines(&seen),
        [
            (4, "o1", "bay_updated"),
            (6, "o1", "unroutable"),
            (8, "o1", "unroutable")
        ]
    );
    assert_eq!(seen[0].tags(), [("status", "resolved"), ("campusId", "c1")]);
    let channels = vec!["resolved".to_owned()];
    assert_eq!(
        seen[1].what,
        What::Sync {
            reason: SyncReason::Unroutable,
            channels
        }
    );
    let change = fixture::update_by_key(bench.relation("bays"), None, "b1|o1|hidden|u1|c1");
    let seen = bench.map(vec![change]);
    assert_eq!(
        outlines(&seen),
        [(4, "o1", "bay_updated")],
        "what certainly fails is no sync"
    );
    assert_eq!(
        bench.problems(),
        [(ProblemKind::ReplicaIdentity, bench.mapper.counters().unlogged)]
    );
}

#[test]
fn the_primary_key_alone_decides_what_is_asked_of_it() {
    let schema = "bays: *organization_id text, *id text, status text";
    let catalog = r#"
        [tables.bays]
        organization = "organization_id"
        channel = "bays"
        tags = { bayId = "id" }
        [[tables.bays.events]]
        type = "bay"
        on = ["insert", "update", "delete"]
        data = { id = "id", op = { expr = "op" }, old = { expr = "op == 'update' ? old.id : ''" } }
    "#;
    let mut bench = Bench::with(schema, catalog, ReplicaIdentity::Default, 1 << 20);
    assert_eq!(
        bench.mapper.compiled().identity_needs()[0].identity,
        crate::catalog::Identity::Default
    );
    let bays = Arc::clone(bench.relation("bays"));
    let seen = bench.map(vec![
        fixture::update_by_key(&bays, None, "o1|b1|x"),
        fixture::update_by_key(&bays, Some("o1|b1|∅"), "o1|b2|x"),
        fixture::update_by_key(&bays, Some("o1|b2|∅"), "o2|b2|x"),
        fixture::delete_by_key(&bays, "o2|b2|∅"),
    ]);
    let data: Vec<_> = seen
        .iter()
        .map(|seen| {
            (
                seen.organization.as_str(),
                seen.json().split_once("\"data\":").expect("data").1,
            )
        })
        .collect();
    assert_eq!(
        data,
        [
            ("o1", r#"{"id":"b1","op":"update","old":"b1"}}"#),
            ("o1", r#"{"id":"b2","op":"update","old":"b1"}}"#),
            ("o1", r#"{"id":"b2","op":"delete","old":""}}"#),
            ("o2", r#"{"id":"b2","op":"insert","old":""}}"#),
            ("o2", r#"{"id":"b2","op":"delete","old":""}}"#),
        ]
    );
    assert_eq!(seen[1].tags(), [("bayId", "b2"), ("bayId", "b1")]);
    assert_eq!(bench.problems(), []);
}

#[test]
fn a_truncated_table_is_a_sync_on_its_channels() {
    let mut bench = bench();
    let relations = ["bays", "silent", "notices"].map(|table| Arc::clone(bench.relation(table)));
    let seen = bench.map(vec![
        Change::Truncate(relations.to_vec()),
        bench.insert("notices", "n1|hello"),
    ]);
    assert_eq!(
        outlines(&seen),
        [(1, "*", "truncated"), (2, "*", "truncated"), (4, "*", "notice")]
    );
    let channels = vec!["bays".to_owned(), "resolved".to_owned()];
    assert_eq!(
        seen[0].what,
        What::Sync {
            reason: SyncReason::Truncated,
            channels
        }
    );
}

#[test]
fn only_decides_who_sees_an_event() {
    let catalog = r#"
        [tables.bays]
        organization = "organization_id"
        channel = "bays"
        [[tables.bays.events]]
        type = "for_roles"
        on = ["insert"]
        only = { roles = ["admin", "manager"] }
        [[tables.bays.events]]
        type = "for_user"
        on = ["insert"]
        only = { user = "owner_id" }
        [[tables.bays.events]]
        type = "for_both"
        on = ["insert"]
        only = { roles = ["admin"], user = "owner_id" }
    "#;
    let mut bench = Bench::new(SCHEMA, catalog);
    let audience = |roles: &[&str], user: Option<&str>| {
        Some(Arc::new(Audience {
            roles: roles.iter().map(|role| (*role).into()).collect(),
            user: user.map(Into::into),
        }))
    };
    let seen = bench.map(vec![
        bench.insert("bays", "b1|o1|open|u1|c1"),
        bench.insert("bays", "b2|o1|open|∅|c1"),
    ]);
    let audiences: Vec<_> = seen
        .iter()
        .map(|seen| (seen.ordinal, seen.audience.clone()))
        .collect();
    assert_eq!(
        audiences,
        [
            (2, audience(&["admin", "manager"], None)),
            (4, audience(&[], Some("u1"))),
            (6, audience(&["admin"], Some("u1"))),
            (8, audience(&["admin", "manager"], None)),
            (12, audience(&["admin"], None)),
        ]
    );
}
