//! Every form of the catalog, from a row in a database to the envelope on the wire.

use serde_json::{Value, json};

use crate::bench::app::{Member, TestApp};
use crate::bench::sse::Stream;

const TABLES: &str = r#"
    create table bays (
        id text primary key, organization_id text, campus_id text, owner_id text, status text,
        occupied int, total_slots int, duration int, price numeric(12, 2), duration_note text);
    create table gate_events_ (id int primary key, organization_id text, bay_id text, plate_number text, notes text);
    create schema billing;
    create table billing."Invoice" ("Id" int primary key, "Org" text, "Total Sum" numeric, "paidAt" timestamptz);
"#;

/// The example of the design as it stands there, but for the name of the related table: the domain has one already.
const CATALOG: &str = r#"
[tables.bays]                            # or [tables."billing.Invoice"]: exact names, schema public by default
organization = "organization_id"         # a column; "*" is every organization
channel      = "bays"                    # default of its events; an event may name its own, and its own tags
tags         = { bayId = "id" }          # what streams filter on
related.gate = { table = "gate_events_", key = "bay_id", of = "id", take = "last" }  # same transaction; of: own column
lookup.site  = { table = "campuses", key = "id", of = "campus_id" }                  # from the mirror

[[tables.bays.events]]
type = "bay_changed"
on   = ["insert", "update"]              # and "delete"; an insert counts as a change of every column
when.changed = ["occupied", "total_slots"]     # also when.became = { status = "resolved" }, when.expr = "…"; all must hold
only = { roles = ["admin"], user = "owner_id" }      # who may see it: one of the roles, or the user in that column

[tables.bays.events.data]
bayId         = "id"                                                    # a column of the new row (delete: the old)
occupied      = "occupied"
empty         = { expr = "new.total_slots - new.occupied" }            # CEL over new, old, changed, op, lookups, related
plateNumber   = { from = "gate", column = "plate_number", omit = "null" }   # of a lookup or related row; left out if null
latestUpdate  = { from = "gate", fields = { notes = "notes" } }        # an object, or null when there is no such row
bay           = { row = "new" }                                         # every column, camelCase; "old" too
changed       = { changed = true }                                      # camelCase names; { previous = true }: their old values
kind          = { value = "bay" }
details       = { duration = "duration", inner = "price" }             # a nested object; { object = {…} } where it would read as a form

[[tables.bays.events]]
type = "bay_resolved"
on = ["update"]
channel = "resolved"
tags = { status = "status" }
when.became = { status = "resolved" }
when.expr = "new.occupied > 0"

[tables.bays.events.data]
id = "id"
site = { from = "site", column = "name" }
before = { row = "old" }
previous = { previous = true }
wasChanged = { expr = "'status' in changed" }
op = { expr = "op" }
text = { object = { column = "duration_note", value = { value = [1, { a = "b" }] } } }
siteName = { expr = "site == null ? 'nowhere' : site.name" }

[[tables.bays.events]]
type = "bay_gone"
on = ["delete"]
[tables.bays.events.data]
id = "id"
last = { row = "old" }

[tables."billing.Invoice"]
organization = "Org"
channel = "billing"
[[tables."billing.Invoice".events]]
type = "invoice"
on = ["insert", "update", "delete"]
data = { id = "Id", sum = "Total Sum", row = { row = "new" }, half = { expr = "new['Total Sum'] / 2.0" } }
"#;

async fn start() -> (TestApp, Member) {
    let app = TestApp::builder().before(TABLES).catalog(CATALOG).start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.member("o2", "u2", "admin").await;
    app.sql("insert into campuses (id, organization_id, name) values ('c1', 'o1', 'North'), ('c2', 'o2', 'Theirs')")
        .await;
    (app, member)
}

async fn data(stream: &mut Stream, event_type: &str) -> Value {
    let event = stream.event().await;
    assert_eq!(event.event_type().as_deref(), Some(event_type), "{}", event.raw);
    event.json()["data"].clone()
}

fn bay(changes: Value) -> Value {
    let mut bay = json!({
        "id": "b1", "organizationId": "o1", "campusId": "c1", "ownerId": "u3", "status": "open", "occupied": 3,
        "totalSlots": 10, "duration": null, "price": 12.50, "durationNote": null
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        bay[name] = value.clone();
    }
    bay
}

const INSERT: &str = "insert into bays values ('b1', 'o1', 'c1', 'u3', 'open', 3, 10, null, 12.50, null)";

#[tokio::test]
async fn the_example_of_the_design_says_what_it_says() {
    let (app, member) = start().await;
    let mut stream = app.open(&member, "").await;
    app.sql(INSERT).await;
    app.transaction(
        "insert into gate_events_ values (1, 'o1', 'b1', 'FIRST', 'a');
         update bays set occupied = 4 where id = 'b1';
         insert into gate_events_ values (2, 'o1', 'b1', 'LAST', null), (3, 'o2', 'b1', 'FOREIGN', 'x')",
    )
    .await;
    app.sql("update bays set status = 'resolved', campus_id = 'c2', duration_note = E'a\nb' where id = 'b1'")
        .await;
    app.sql("update bays set price = 1 where id = 'b1'").await;
    app.sql("delete from bays where id = 'b1'").await;

    let every = json!([
        "id",
        "organizationId",
        "campusId",
        "ownerId",
        "status",
        "occupied",
        "totalSlots",
        "duration",
        "price",
        "durationNote"
    ]);
    assert_eq!(
        data(&mut stream, "bay_changed").await,
        json!({
            "bayId": "b1", "occupied": 3, "empty": 7, "latestUpdate": null, "bay": bay(json!({})), "changed": every,
            "kind": "bay", "details": { "duration": null, "inner": 12.50 }
        })
    );
    assert_eq!(
        data(&mut stream, "bay_changed").await,
        json!({
            "bayId": "b1", "occupied": 4, "empty": 6, "plateNumber": "LAST", "latestUpdate": { "notes": null },
            "bay": bay(json!({ "occupied": 4 })), "changed": ["occupied"], "kind": "bay",
            "details": { "duration": null, "inner": 12.50 }
        })
    );
    assert_eq!(
        data(&mut stream, "bay_resolved").await,
        json!({
            "id": "b1", "site": null, "before": bay(json!({ "occupied": 4 })),
            "previous": { "campusId": "c1", "status": "open", "durationNote": null },
            "wasChanged": true, "op": "update", "text": { "column": "a\nb", "value": [1, { "a": "b" }] },
            "siteName": "nowhere"
        }),
        "another organization's campus is none"
    );
    let last = bay(json!({
        "occupied": 4, "status": "resolved", "campusId": "c2", "durationNote": "a\nb", "price": 1.00
    }));
    assert_eq!(data(&mut stream, "bay_gone").await, json!({ "id": "b1", "last": last }));
}

#[tokio::test]
async fn names_are_exact_and_an_event_has_its_own_channel_and_tags() {
    let (app, member) = start().await;
    let mut invoices = app.open(&member, "&channel=billing").await;
    let mut resolved = app.open(&member, "&channel=resolved&status=resolved").await;
    let mut others = app.open(&member, "&channel=resolved,custom&status=open").await;
    app.sql(INSERT).await;
    app.sql("update bays set status = 'resolved' where id = 'b1'").await;
    app.sql(r#"insert into billing."Invoice" values (7, 'o1', 5, '2026-01-02 03:04:05+01')"#).await;
    app.sql(r#"delete from billing."Invoice""#).await;
    app.sql("select walcast.emit('o1', 'last', '1', 'custom', '{\"status\":\"open\"}')").await;
    let row = json!({ "Id": 7, "Org": "o1", "Total Sum": 5, "paidAt": "2026-01-02T02:04:05+00:00" });
    let expected = json!({ "id": 7, "sum": 5, "row": row, "half": 2.5 });
    assert_eq!(data(&mut invoices, "invoice").await, expected);
    assert_eq!(data(&mut invoices, "invoice").await, expected, "of a delete, the row as it last was");
    assert_eq!(data(&mut resolved, "bay_resolved").await["site"], "North");
    // By its old tag too: the client sees the row leave its filter.
    assert_eq!(data(&mut others, "bay_resolved").await["id"], "b1");
    assert_eq!(data(&mut others, "last").await, json!(1));
}

#[tokio::test]
async fn who_is_named_in_only_sees_it_and_nobody_else() {
    let (app, admin) = start().await;
    let owner = app.member("o1", "u3", "member").await;
    let other = app.member("o1", "u4", "member").await;
    let (mut admin, mut owner, mut other) =
        (app.open(&admin, "").await, app.open(&owner, "").await, app.open(&other, "").await);
    app.sql(INSERT).await;
    app.sql("update bays set owner_id = 'u4', occupied = 5").await;
    app.sql("update bays set owner_id = null, occupied = 6").await;
    app.sql("delete from bays").await;
    let occupied = async |stream: &mut Stream| {
        let mut seen = Vec::new();
        for event in stream.events_until(|event| event.event_type().as_deref() == Some("bay_gone")).await {
            seen.extend(event.json()["data"]["occupied"].as_i64());
        }
        seen
    };
    assert_eq!(occupied(&mut admin).await, [3, 5, 6]);
    assert_eq!(occupied(&mut owner).await, [3]);
    assert_eq!(occupied(&mut other).await, [5]);
}

#[tokio::test]
async fn an_expression_that_fails_makes_its_field_null_and_degrades() {
    let catalog = r#"
[tables.bays]
organization = "organization_id"
channel = "bays"
[[tables.bays.events]]
type = "rate"
on = ["insert", "delete"]
data = { id = "id", rate = { expr = "new.occupied / new.total_slots" }, left = { expr = "new.duration == null ? 'none' : string(new.duration)" } }
[[tables.bays.events]]
type = "odd"
on = ["insert"]
when.expr = "100 / new.occupied > 1"
data = {}
"#;
    let app = TestApp::builder().before(TABLES).catalog(catalog).start().await;
    let member = app.member("o1", "u1", "admin").await;
    let mut stream = app.open(&member, "").await;
    app.sql("insert into bays (id, organization_id, occupied, total_slots) values ('b', 'o1', 3, 0)").await;
    assert_eq!(data(&mut stream, "rate").await, json!({ "id": "b", "rate": null, "left": "none" }));
    assert_eq!(data(&mut stream, "odd").await, json!({}));
    app.degraded("new.occupied / new.total_slots").await;
    assert!(app.get("/metrics").await.body.contains("walcast_expression_errors_total 1"));
}
