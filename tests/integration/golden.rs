//! Every event type of the reference domain: SQL in, exact envelope out.

use std::ops::RangeInclusive;

use walcast::catalog::EventId;

use crate::bench::app::TestApp;
use crate::bench::sse::Frame;

/// SQL of one transaction, and what it makes: (type, channel, data), in order.
struct Case {
    name: &'static str,
    sql: &'static str,
    events: &'static [(&'static str, &'static str, &'static str)],
}

/// Timestamps that the cases write.
macro_rules! at {
    () => {
        "'2026-01-02 03:04:05.678+00'"
    };
}

/// Rows that the cases refer to, written before the stream opens.
const FIXTURE: &str = "
    insert into users (id, email, name) values ('u2', 'u2@example.com', 'Two');
    insert into campuses (id, organization_id, name) values ('c1', 'o1', 'North');
    insert into buildings (id, organization_id, campus_id, name) values ('b1', 'o1', 'c1', 'Hall');
    insert into lots (id, organization_id, name, total_slots, occupied, created_at, updated_at)
      values ('l1', 'o1', 'Deck', 100, 40, now(), '2026-01-02 03:04:05.678+00'),
             ('l2', 'o1', 'Yard', 10, 1, now(), '2026-01-02 03:04:05.678+00');
    insert into devices (id, organization_id, building_id, name, model, status)
      values ('d1', 'o1', 'b1', 'Lobby sensor', 'TH-2', 'ONLINE');
";

const CASES: &[Case] = &[
    Case {
        name: "property created",
        sql: concat!(
            "insert into properties (id, organization_id, title, address, city, status, price, bedrooms, area_m2,
               owner_id, metadata, created_at, updated_at)
             values ('p1', 'o1', 'Loft \"A\"', '1 High St', null, 'draft', 250000.50, 3, 81.5, 'u1',
               '{\"k\": [1, null]}', ",
            at!(),
            ", ",
            at!(),
            ")"
        ),
        events: &[(
            "property.update",
            "property",
            r#"{"action":"created","id":"p1","property":{"id":"p1","organizationId":"o1","title":"Loft \"A\"","address":"1 High St","city":null,"status":"draft","price":250000.50,"bedrooms":3,"areaM2":81.5,"ownerId":"u1","metadata":{"k": [1, null]},"createdAt":"2026-01-02T03:04:05.678+00:00","updatedAt":"2026-01-02T03:04:05.678+00:00"}}"#,
        )],
    },
    Case {
        name: "property updated",
        sql: "update properties set status = 'listed', price = 240000 where id = 'p1'",
        events: &[(
            "property.update",
            "property",
            r#"{"action":"updated","id":"p1","property":{"id":"p1","organizationId":"o1","title":"Loft \"A\"","address":"1 High St","city":null,"status":"listed","price":240000.00,"bedrooms":3,"areaM2":81.5,"ownerId":"u1","metadata":{"k": [1, null]},"createdAt":"2026-01-02T03:04:05.678+00:00","updatedAt":"2026-01-02T03:04:05.678+00:00"},"changed":["status","price"],"previous":{"status":"draft","price":250000.50}}"#,
        )],
    },
    Case {
        name: "property deleted",
        sql: "delete from properties where id = 'p1'",
        events: &[(
            "property.update",
            "property",
            r#"{"action":"deleted","id":"p1","property":{"id":"p1","organizationId":"o1","title":"Loft \"A\"","address":"1 High St","city":null,"status":"listed","price":240000.00,"bedrooms":3,"areaM2":81.5,"ownerId":"u1","metadata":{"k": [1, null]},"createdAt":"2026-01-02T03:04:05.678+00:00","updatedAt":"2026-01-02T03:04:05.678+00:00"}}"#,
        )],
    },
    Case {
        name: "activity created",
        sql: concat!(
            "insert into activities (id, organization_id, property_id, category, subcategory, location, status,
               reporter, assigned_to, updated_at)
             values ('a1', 'o1', null, 'plumbing', 'leak', 'Floor 2', 'open', 'u1', null, ",
            at!(),
            ")"
        ),
        events: &[(
            "activity_created",
            "activities",
            r#"{"id":"a1","category":"plumbing","subcategory":"leak","location":"Floor 2","status":"open","reporter":"u1","assignedTo":null,"timestamp":"2026-01-02T03:04:05.678+00:00"}"#,
        )],
    },
    Case {
        name: "activity status changed, with two updates written in the same transaction",
        sql: "update activities set status = 'in_progress' where id = 'a1';
              insert into activity_updates (id, organization_id, activity_id, notes, author_id, update_type)
                values ('au1', 'o1', 'a1', 'first', 'u1', 'note'), ('au2', 'o1', 'a1', 'second', 'u2', 'status')",
        events: &[(
            "activity_updated",
            "activities",
            r#"{"id":"a1","category":"plumbing","subcategory":"leak","location":"Floor 2","status":"in_progress","reporter":"u1","assignedTo":null,"timestamp":"2026-01-02T03:04:05.678+00:00","updateType":"status","latestUpdate":{"notes":"second","authorId":"u2","updateType":"status"}}"#,
        )],
    },
    Case {
        name: "activity assigned",
        sql: "update activities set assigned_to = 'u2' where id = 'a1'",
        events: &[
            (
                "activity_updated",
                "activities",
                r#"{"id":"a1","category":"plumbing","subcategory":"leak","location":"Floor 2","status":"in_progress","reporter":"u1","assignedTo":"u2","timestamp":"2026-01-02T03:04:05.678+00:00","updateType":"assignment","latestUpdate":null}"#,
            ),
            (
                "assignment_changed",
                "activities",
                r#"{"id":"a1","category":"plumbing","subcategory":"leak","location":"Floor 2","status":"in_progress","reporter":"u1","assignedTo":"u2","timestamp":"2026-01-02T03:04:05.678+00:00","oldAssigneeId":null,"newAssigneeId":"u2"}"#,
            ),
        ],
    },
    Case {
        name: "activity moved, generally",
        sql: "update activities set location = 'Floor 3' where id = 'a1'",
        events: &[(
            "activity_updated",
            "activities",
            r#"{"id":"a1","category":"plumbing","subcategory":"leak","location":"Floor 3","status":"in_progress","reporter":"u1","assignedTo":"u2","timestamp":"2026-01-02T03:04:05.678+00:00","updateType":"general","latestUpdate":null}"#,
        )],
    },
    Case {
        name: "activity deleted",
        sql: "delete from activities where id = 'a1'",
        events: &[("activity_deleted", "activities", r#"{"id":"a1"}"#)],
    },
    Case {
        name: "device added",
        sql: "insert into devices (id, organization_id, building_id, name, model, status)
              values ('d2', 'o1', null, 'Roof sensor', 'TH-2', 'OFFLINE')",
        events: &[("new_device", "devices", r#"{"deviceId":"d2","deviceName":"Roof sensor","status":"OFFLINE"}"#)],
    },
    Case {
        name: "device status changed; a change of anything else is no event",
        sql: "update devices set last_event_at = now() where id = 'd2';
              update devices set status = 'ONLINE' where id = 'd2'",
        events: &[(
            "device_status_changed",
            "devices",
            r#"{"deviceId":"d2","deviceName":"Roof sensor","status":"ONLINE"}"#,
        )],
    },
    Case {
        name: "device removed",
        sql: "delete from devices where id = 'd2'",
        events: &[("device_removed", "devices", r#"{"deviceId":"d2","deviceName":"Roof sensor"}"#)],
    },
    Case {
        name: "telemetry carries the device's present name",
        sql: "insert into device_telemetry (organization_id, device_id, event_type, temperature, humidity, battery)
              values ('o1', 'd1', 'reading', 21.5, 40, 97)",
        events: &[(
            "new_telemetry",
            "telemetry",
            r#"{"deviceId":"d1","deviceName":"Lobby sensor","eventType":"reading","temperature":21.5,"humidity":40,"battery":97}"#,
        )],
    },
    Case {
        name: "telemetry after a rename in the same transaction",
        sql: "update devices set name = 'Door sensor' where id = 'd1';
              insert into device_telemetry (organization_id, device_id, event_type) values ('o1', 'd1', 'boot');
              update devices set name = 'Lobby sensor' where id = 'd1'",
        events: &[(
            "new_telemetry",
            "telemetry",
            r#"{"deviceId":"d1","deviceName":"Door sensor","eventType":"boot","temperature":null,"humidity":null,"battery":null}"#,
        )],
    },
    Case {
        name: "lot added",
        sql: concat!(
            "insert into lots (id, organization_id, name, total_slots, occupied, updated_at)
             values ('l3', 'o1', 'Empty', 0, 0, ",
            at!(),
            ")"
        ),
        events: &[(
            "capacity_update",
            "lots",
            r#"{"parkingLotId":"l3","totalSlots":0,"occupied":0,"empty":0,"occupancyRate":0,"timestamp":"2026-01-02T03:04:05.678+00:00"}"#,
        )],
    },
    Case {
        name: "lot occupied by a vehicle: one event, with the gate's part",
        sql: "insert into gate_events (id, organization_id, lot_id, event, plate_number, duration)
                values ('g1', 'o1', 'l1', 'vehicle_entry', 'AB 123', null);
              update lots set occupied = 41 where id = 'l1'",
        events: &[(
            "capacity_update",
            "lots",
            r#"{"parkingLotId":"l1","totalSlots":100,"occupied":41,"empty":59,"occupancyRate":0.41,"timestamp":"2026-01-02T03:04:05.678+00:00","event":"vehicle_entry","plateNumber":"AB 123"}"#,
        )],
    },
    Case {
        name: "gate event alone: numbers from the lot as it is",
        sql: "insert into gate_events (id, organization_id, lot_id, event, plate_number, duration)
              values ('g2', 'o1', 'l1', 'vehicle_exit', 'AB 123', 90)",
        events: &[(
            "capacity_update",
            "lots",
            r#"{"parkingLotId":"l1","totalSlots":100,"occupied":41,"empty":59,"occupancyRate":0.41,"timestamp":"2026-01-02T03:04:05.678+00:00","event":"vehicle_exit","plateNumber":"AB 123","duration":90}"#,
        )],
    },
    Case {
        name: "gate event beside a change of another lot",
        sql: "insert into gate_events (id, organization_id, lot_id, event, plate_number)
                values ('g3', 'o1', 'l1', 'vehicle_exit', 'CD 4');
              update lots set occupied = 5 where id = 'l2'",
        events: &[
            (
                "capacity_update",
                "lots",
                r#"{"parkingLotId":"l1","totalSlots":100,"occupied":41,"empty":59,"occupancyRate":0.41,"timestamp":"2026-01-02T03:04:05.678+00:00","event":"vehicle_exit","plateNumber":"CD 4"}"#,
            ),
            (
                "capacity_update",
                "lots",
                r#"{"parkingLotId":"l2","totalSlots":10,"occupied":5,"empty":5,"occupancyRate":0.5,"timestamp":"2026-01-02T03:04:05.678+00:00"}"#,
            ),
        ],
    },
    Case {
        name: "lot renamed: no event",
        sql: "update lots set name = 'Deck 1' where id = 'l1'",
        events: &[],
    },
    Case {
        name: "alert raised, acknowledged, reworded",
        sql: concat!(
            "insert into lot_alerts (id, organization_id, lot_id, contractor_id, type, severity, message, status,
               created_at)
             values ('al1', 'o1', 'l1', null, 'capacity_breach', 'high', 'Full', 'active', ",
            at!(),
            ");
             update lot_alerts set status = 'acknowledged' where id = 'al1';
             update lot_alerts set message = 'Still full' where id = 'al1'"
        ),
        events: &[
            (
                "alert",
                "alerts",
                r#"{"_id":"al1","type":"capacity_breach","severity":"high","parkingLotId":"l1","contractorId":null,"message":"Full","status":"active","createdAt":"2026-01-02T03:04:05.678+00:00"}"#,
            ),
            (
                "alert",
                "alerts",
                r#"{"_id":"al1","type":"capacity_breach","severity":"high","parkingLotId":"l1","contractorId":null,"message":"Full","status":"acknowledged","createdAt":"2026-01-02T03:04:05.678+00:00"}"#,
            ),
        ],
    },
    Case {
        name: "violation",
        sql: concat!(
            "insert into violations (id, organization_id, contractor_id, lot_id, violation_type, allocated_capacity,
               actual_occupancy, excess_vehicles, duration, penalty, status, occurred_at)
             values ('v1', 'o1', 'co1', 'l1', 'overparking', 10, 12, 2, 3600, 150.00, 'pending', ",
            at!(),
            ")"
        ),
        events: &[(
            "violation",
            "violations",
            r#"{"_id":"v1","contractorId":"co1","parkingLotId":"l1","violationType":"overparking","timestamp":"2026-01-02T03:04:05.678+00:00","details":{"allocatedCapacity":10,"actualOccupancy":12,"excessVehicles":2,"duration":3600},"penalty":150.00,"status":"pending"}"#,
        )],
    },
    Case {
        name: "issue created",
        sql: concat!(
            "insert into issues (id, organization_id, campus_id, building_id, category, priority, status, title,
               description, reporter_id, assigned_to, latitude, longitude, resolved_at, created_at, updated_at)
             values ('i1', 'o1', 'c1', 'b1', 'electrical', 'high', 'open', 'Lamp', 'Dark', 'u1', null, 48.1, 11.5,
               null, ",
            at!(),
            ", ",
            at!(),
            ")"
        ),
        events: &[
            (
                "issue:created",
                "issues",
                r#"{"action":"created","issue":{"id":"i1","organizationId":"o1","campusId":"c1","buildingId":"b1","category":"electrical","priority":"high","status":"open","title":"Lamp","description":"Dark","reporterId":"u1","assignedTo":null,"latitude":48.1,"longitude":11.5,"resolvedAt":null,"createdAt":"2026-01-02T03:04:05.678+00:00","updatedAt":"2026-01-02T03:04:05.678+00:00"}}"#,
            ),
            ("heatmap:updated", "heatmap", r#"{"campusId":"c1","buildingId":"b1","category":"electrical"}"#),
        ],
    },
    Case {
        name: "issue resolved and assigned at once: three events in order, and the heatmap's",
        sql: concat!("update issues set status = 'resolved', assigned_to = 'u2', resolved_at = ", at!(), " where id = 'i1'"),
        events: &[
            (
                "issue:updated",
                "issues",
                r#"{"action":"updated","issue":{"id":"i1","organizationId":"o1","campusId":"c1","buildingId":"b1","category":"electrical","priority":"high","status":"resolved","title":"Lamp","description":"Dark","reporterId":"u1","assignedTo":"u2","latitude":48.1,"longitude":11.5,"resolvedAt":"2026-01-02T03:04:05.678+00:00","createdAt":"2026-01-02T03:04:05.678+00:00","updatedAt":"2026-01-02T03:04:05.678+00:00"}}"#,
            ),
            (
                "issue:resolved",
                "issues",
                r#"{"action":"resolved","issue":{"id":"i1","organizationId":"o1","campusId":"c1","buildingId":"b1","category":"electrical","priority":"high","status":"resolved","title":"Lamp","description":"Dark","reporterId":"u1","assignedTo":"u2","latitude":48.1,"longitude":11.5,"resolvedAt":"2026-01-02T03:04:05.678+00:00","createdAt":"2026-01-02T03:04:05.678+00:00","updatedAt":"2026-01-02T03:04:05.678+00:00"}}"#,
            ),
            (
                "issue:assigned",
                "issues",
                r#"{"action":"assigned","issue":{"id":"i1","organizationId":"o1","campusId":"c1","buildingId":"b1","category":"electrical","priority":"high","status":"resolved","title":"Lamp","description":"Dark","reporterId":"u1","assignedTo":"u2","latitude":48.1,"longitude":11.5,"resolvedAt":"2026-01-02T03:04:05.678+00:00","createdAt":"2026-01-02T03:04:05.678+00:00","updatedAt":"2026-01-02T03:04:05.678+00:00"}}"#,
            ),
            ("heatmap:updated", "heatmap", r#"{"campusId":"c1","buildingId":"b1","category":"electrical"}"#),
        ],
    },
    Case {
        name: "issue deleted",
        sql: "delete from issues where id = 'i1'",
        events: &[
            (
                "issue:deleted",
                "issues",
                r#"{"action":"deleted","issue":{"id":"i1","organizationId":"o1","campusId":"c1","buildingId":"b1","category":"electrical","priority":"high","status":"resolved","title":"Lamp","description":"Dark","reporterId":"u1","assignedTo":"u2","latitude":48.1,"longitude":11.5,"resolvedAt":"2026-01-02T03:04:05.678+00:00","createdAt":"2026-01-02T03:04:05.678+00:00","updatedAt":"2026-01-02T03:04:05.678+00:00"}}"#,
            ),
            ("heatmap:updated", "heatmap", r#"{"campusId":"c1","buildingId":"b1","category":"electrical"}"#),
        ],
    },
    Case {
        name: "member joins and leaves",
        sql: "insert into memberships (organization_id, user_id, role) values ('o1', 'u2', 'employee');
              delete from memberships where organization_id = 'o1' and user_id = 'u2'",
        events: &[
            ("member.join", "members", r#"{"userId":"u2","role":"employee"}"#),
            ("member.leave", "members", r#"{"userId":"u2","role":"employee"}"#),
        ],
    },
    Case {
        name: "organization changes",
        sql: "update organizations set plan = 'pro', name = 'One Ltd' where id = 'o1'",
        events: &[(
            "organization.change",
            "organization",
            r#"{"id":"o1","name":"One Ltd","plan":"pro","changed":["name","plan"]}"#,
        )],
    },
    Case {
        name: "notifications go to their user alone",
        sql: concat!(
            "insert into notifications (id, organization_id, user_id, title, body, created_at)
             values ('n0', 'o1', 'u2', 'Not yours', '', ",
            at!(),
            "), ('n1', 'o1', 'u1', 'Hello', 'World', ",
            at!(),
            ")"
        ),
        events: &[(
            "notification.new",
            "notifications",
            r#"{"id":"n1","title":"Hello","body":"World","createdAt":"2026-01-02T03:04:05.678+00:00"}"#,
        )],
    },
    Case {
        name: "user activity",
        sql: concat!(
            "insert into user_activity (id, organization_id, user_id, action, detail, created_at)
             values ('ua1', 'o1', 'u2', 'login', '{\"ip\": \"::1\"}', ",
            at!(),
            ")"
        ),
        events: &[(
            "user.activity",
            "activity-log",
            r#"{"userId":"u2","action":"login","detail":{"ip": "::1"},"createdAt":"2026-01-02T03:04:05.678+00:00"}"#,
        )],
    },
    Case {
        name: "emitted by the application, with the default channel and with its own",
        sql: "select walcast.emit('o1', 'invoice.paid', '{\"amount\": 12.50, \"lines\": [\"a\\nb\"]}');
              select walcast.emit('o1', 'note', '\"x\"', 'issues')",
        events: &[
            ("invoice.paid", "custom", r#"{"lines": ["a\nb"], "amount": 12.50}"#),
            ("note", "issues", r#""x""#),
        ],
    },
];

#[tokio::test]
pub async fn every_event_type_has_its_exact_envelope() {
    let app = TestApp::start().await;
    let member = app.member("o1", "u1", "admin").await;
    app.sql(FIXTURE).await;
    let mut stream = app.open(&member, "").await;
    for case in CASES {
        let committed = app.transaction(case.sql).await;
        app.sql("select walcast.emit('o1', 'case.done', 'null')").await;
        let events = stream.events_until(|event| event.event_type().as_deref() == Some("case.done")).await;
        let (_, events) = events.split_last().expect("the last one");
        assert_eq!(events.len(), case.events.len(), "{}: {events:#?}", case.name);
        for (event, (event_type, channel, data)) in events.iter().zip(case.events) {
            assert_eq!(
                event.raw,
                envelope(event, &committed, event_type, "o1", channel, data),
                "{}",
                case.name
            );
        }
    }
}

#[tokio::test]
pub async fn a_system_alert_reaches_every_organization_in_one_frame() {
    let app = TestApp::start().await;
    let one = app.member("o1", "u1", "admin").await;
    let two = app.member("o2", "u2", "member").await;
    let mut streams = [app.open(&one, "").await, app.open(&two, "").await];
    let committed = app
        .transaction(concat!(
            "insert into system_alerts (id, severity, message, created_at) values ('s1', 'high', 'Soon', ",
            at!(),
            ")"
        ))
        .await;
    let data =
        r#"{"id":"s1","severity":"high","message":"Soon","createdAt":"2026-01-02T03:04:05.678+00:00"}"#;
    for stream in &mut streams {
        let event = stream.event().await;
        assert_eq!(event.raw, envelope(&event, &committed, "system.alert", "*", "system", data));
    }
}

/// The whole frame as it has to be. Its id and its time are the event's own, after a look at them.
fn envelope(
    event: &Frame,
    committed: &RangeInclusive<i64>,
    event_type: &str,
    organization: &str,
    channel: &str,
    data: &str,
) -> String {
    let id = event.id.as_deref().expect("an id");
    let parsed: EventId = id.parse().expect("an event id");
    assert!(parsed.ordinal > 0, "{id}");
    let timestamp = event.json()["timestamp"].as_i64().expect("an integer");
    assert!(committed.contains(&timestamp), "{timestamp} in {committed:?}");
    format!(
        "id: {id}\ndata: {{\"id\":\"{id}\",\"type\":\"{event_type}\",\"timestamp\":{timestamp},\
         \"organizationId\":\"{organization}\",\"channel\":\"{channel}\",\"data\":{data}}}\n\n"
    )
}
