//! One event of each type of the reference domain, whole.

use super::*;
use crate::catalog::Catalog;
use crate::catalog::fixture::reference::SCHEMA;

const AT: &str = "2024-01-02 03:04:05+00";

fn bench() -> Bench {
    let schema = fixture::schema(SCHEMA);
    let compiled = match Catalog::reference().compile(&schema) {
        Ok(compiled) => Arc::new(compiled),
        Err(errors) => panic!("{errors}"),
    };
    Bench {
        mirror: Mirror::new(compiled.mirror_specs().to_vec(), 1 << 20),
        mapper: Mapper::new(
            compiled,
            Arc::new(Types::builtin()),
            Epoch::new(0xe1),
            1 << 20,
            None,
        ),
        relations: fixture::relations(&schema, ReplicaIdentity::Full),
    }
}

/// `type@channel data` of each event.
fn lines(seen: &[Seen]) -> Vec<String> {
    seen.iter()
        .map(|seen| {
            let What::Frame { event_type, channel, .. } = &seen.what else { panic!("{seen:?}") };
            let json = seen.json();
            let (head, data) = json.split_once("\"data\":").expect("data");
            let organization = &seen.organization;
            assert_eq!(
                head,
                format!(
                    "{{\"id\":\"00000000000000e1.4096.{}\",\"type\":\"{event_type}\",\"timestamp\":1700000000123,\
                     \"organizationId\":\"{organization}\",\"channel\":\"{channel}\",",
                    seen.ordinal
                )
            );
            format!("{event_type}@{channel} {}", data.strip_suffix('}').expect("an object"))
        })
        .collect()
}

fn run(changes: impl Fn(&Bench) -> Vec<Change>) -> (Vec<String>, Vec<Seen>) {
    let mut bench = bench();
    let changes = changes(&bench);
    let seen = bench.map(changes);
    assert_eq!(bench.problems(), []);
    (lines(&seen), seen)
}

#[test]
fn properties() {
    let row = format!("p1|o1|Loft|∅|Bern|draft|100.00|3|81.5|u1|{{}}|{AT}|{AT}");
    let sold = format!("p1|o1|Loft|∅|Bern|sold|90.50|3|81.5|u1|{{}}|{AT}|{AT}");
    let json = |status: &str, price: &str| {
        format!(
            "{{\"id\":\"p1\",\"organizationId\":\"o1\",\"title\":\"Loft\",\"address\":null,\"city\":\"Bern\",\
             \"status\":\"{status}\",\"price\":{price},\"bedrooms\":3,\"areaM2\":81.5,\"ownerId\":\"u1\",\
             \"metadata\":{{}},\"createdAt\":\"2024-01-02T03:04:05+00:00\",\"updatedAt\":\"2024-01-02T03:04:05+00:00\"}}"
        )
    };
    let (lines, seen) = run(|bench| {
        vec![
            bench.insert("properties", &row),
            bench.update("properties", &row, &sold),
            bench.delete("properties", &sold),
        ]
    });
    assert_eq!(
        lines,
        [
            format!(
                "property.update@property {{\"action\":\"created\",\"id\":\"p1\",\"property\":{}}}",
                json("draft", "100.00")
            ),
            format!(
                "property.update@property {{\"action\":\"updated\",\"id\":\"p1\",\"property\":{},\
                 \"changed\":[\"status\",\"price\"],\"previous\":{{\"status\":\"draft\",\"price\":100.00}}}}",
                json("sold", "90.50")
            ),
            format!(
                "property.update@property {{\"action\":\"deleted\",\"id\":\"p1\",\"property\":{}}}",
                json("sold", "90.50")
            ),
        ]
    );
    assert_eq!(seen[0].tags(), [("propertyId", "p1")]);
}

#[test]
fn activities() {
    let row = |status: &str, assigned: &str| format!("a1|o1|∅|leak|∅|hall|{status}|u1|{assigned}|{AT}|{AT}");
    let common = |status: &str, assigned: &str| {
        format!(
            "\"id\":\"a1\",\"category\":\"leak\",\"subcategory\":null,\"location\":\"hall\",\"status\":\"{status}\",\
             \"reporter\":\"u1\",\"assignedTo\":{assigned},\"timestamp\":\"2024-01-02T03:04:05+00:00\""
        )
    };
    let (lines, seen) = run(|bench| {
        vec![
            bench.insert("activities", &row("open", "∅")),
            bench.update("activities", &row("open", "∅"), &row("open", "u2")),
            bench.insert("activity_updates", &format!("x1|o1|a1|on it|u2|note|{AT}")),
            bench.update("activities", &row("open", "u2"), &row("closed", "u2")),
            bench.update("activities", &row("closed", "u2"), &row("closed", "u2")),
            bench.delete("activities", &row("closed", "u2")),
        ]
    });
    let latest = "\"latestUpdate\":{\"notes\":\"on it\",\"authorId\":\"u2\",\"updateType\":\"note\"}";
    let updated = |status: &str, kind: &str| {
        let common = common(status, "\"u2\"");
        format!("activity_updated@activities {{{common},\"updateType\":\"{kind}\",{latest}}}")
    };
    assert_eq!(
        lines,
        [
            format!("activity_created@activities {{{}}}", common("open", "null")),
            updated("open", "assignment"),
            format!(
                "assignment_changed@activities {{{},\"oldAssigneeId\":null,\"newAssigneeId\":\"u2\"}}",
                common("open", "\"u2\"")
            ),
            updated("closed", "status"),
            updated("closed", "general"),
            "activity_deleted@activities {\"id\":\"a1\"}".to_owned(),
        ]
    );
    assert_eq!(seen[0].tags(), [("status", "open")]);
    assert_eq!(
        seen[3].tags(),
        [("assignedTo", "u2"), ("status", "closed"), ("status", "open")]
    );
}

#[test]
fn devices_and_telemetry() {
    let row = |status: &str| format!("d1|o1|∅|Door|m|{status}|∅|{AT}|{AT}");
    let (lines, seen) = run(|bench| {
        vec![
            bench.insert("devices", &row("ONLINE")),
            bench.insert("device_telemetry", &format!("7|o1|d1|ping|20.5|∅|90|{AT}|{AT}")),
            bench.update("devices", &row("ONLINE"), &row("OFFLINE")),
            bench.update("devices", &row("OFFLINE"), &row("OFFLINE")),
            bench.delete("devices", &row("OFFLINE")),
        ]
    });
    assert_eq!(
        lines,
        [
            r#"new_device@devices {"deviceId":"d1","deviceName":"Door","status":"ONLINE"}"#,
            r#"new_telemetry@telemetry {"deviceId":"d1","deviceName":"Door","eventType":"ping","temperature":20.5,"humidity":null,"battery":90}"#,
            r#"device_status_changed@devices {"deviceId":"d1","deviceName":"Door","status":"OFFLINE"}"#,
            r#"device_removed@devices {"deviceId":"d1","deviceName":"Door"}"#,
        ]
    );
    assert!(seen.iter().all(|seen| seen.tags() == [("deviceId", "d1")]));
}

#[test]
fn parking() {
    let lot = |total: u32, occupied: u32| format!("l1|o1|North|{total}|{occupied}|{AT}|{AT}");
    let gate = |id: &str, duration: &str| format!("{id}|o1|l1|vehicle_exit|B-1|{duration}|{AT}|{AT}");
    let (lines, seen) = run(|bench| vec![bench.insert("lots", &lot(0, 0))]);
    let numbers = |total: u32, occupied: u32, rate: &str| {
        format!(
            "\"parkingLotId\":\"l1\",\"totalSlots\":{total},\"occupied\":{occupied},\"empty\":{},\
             \"occupancyRate\":{rate},\"timestamp\":\"2024-01-02T03:04:05+00:00\"",
            total - occupied
        )
    };
    assert_eq!(
        lines,
        [format!("capacity_update@lots {{{}}}", numbers(0, 0, "0"))]
    );
    assert_eq!(seen[0].tags(), [("parkingLotId", "l1")]);

    let (lines, _) = run(|bench| {
        vec![
            bench.insert("gate_events", &gate("g1", "∅")),
            bench.update("lots", &lot(8, 3), &lot(8, 2)),
            bench.insert("gate_events", &gate("g2", "60")),
        ]
    });
    let exit = "\"event\":\"vehicle_exit\",\"plateNumber\":\"B-1\"";
    assert_eq!(
        lines,
        [format!(
            "capacity_update@lots {{{},{exit},\"duration\":60}}",
            numbers(8, 2, "0.25")
        )]
    );

    let mut bench = bench();
    bench.map(vec![bench.insert("lots", &lot(8, 8))]);
    let seen = bench.map(vec![bench.insert("gate_events", &gate("g3", "∅"))]);
    assert_eq!(
        super::reference::lines(&seen),
        [format!("capacity_update@lots {{{},{exit}}}", numbers(8, 8, "1"))]
    );
    assert_eq!(seen[0].tags(), [("parkingLotId", "l1")]);
    assert_eq!(bench.map(vec![bench.update("lots", &lot(8, 8), &lot(8, 8))]), []);
    assert_eq!(bench.problems(), []);
}

#[test]
fn alerts_and_violations() {
    let alert = |status: &str| format!("x1|o1|l1|∅|violation|high|full|{status}|{AT}|{AT}");
    let violation = |status: &str| format!("v1|o1|c1|l1|overparking|5|7|2|600|12.50|{status}|{AT}|{AT}|{AT}");
    let (lines, seen) = run(|bench| {
        vec![
            bench.insert("lot_alerts", &alert("active")),
            bench.update("lot_alerts", &alert("active"), &alert("active")),
            bench.update("lot_alerts", &alert("active"), &alert("resolved")),
            bench.insert("violations", &violation("pending")),
        ]
    });
    let alert = |status: &str| {
        format!(
            "alert@alerts {{\"_id\":\"x1\",\"type\":\"violation\",\"severity\":\"high\",\"parkingLotId\":\"l1\",\
             \"contractorId\":null,\"message\":\"full\",\"status\":\"{status}\",\
             \"createdAt\":\"2024-01-02T03:04:05+00:00\"}}"
        )
    };
    let violation = "violation@violations {\"_id\":\"v1\",\"contractorId\":\"c1\",\"parkingLotId\":\"l1\",\
                     \"violationType\":\"overparking\",\"timestamp\":\"2024-01-02T03:04:05+00:00\",\
                     \"details\":{\"allocatedCapacity\":5,\"actualOccupancy\":7,\"excessVehicles\":2,\"duration\":600},\
                     \"penalty\":12.50,\"status\":\"pending\"}";
    assert_eq!(lines, [alert("active"), alert("resolved"), violation.to_owned()]);
    assert_eq!(seen[0].tags(), [("parkingLotId", "l1"), ("severity", "high")]);
    assert_eq!(seen[2].tags(), [("parkingLotId", "l1")]);
}

#[test]
fn issues_come_in_the_order_of_the_contract() {
    let row = |status: &str, to: &str| format!("i1|o1|c1|∅|leak|high|{status}|Wet|∅|u1|{to}|∅|∅|∅|{AT}|{AT}");
    let mut bench = bench();
    let seen = bench.map(vec![
        bench.insert("issues", &row("open", "∅")),
        bench.update("issues", &row("open", "∅"), &row("resolved", "u2")),
        bench.delete("issues", &row("resolved", "u2")),
    ]);
    let types: Vec<_> = seen
        .iter()
        .map(|seen| (seen.ordinal, seen.event_type()))
        .collect();
    assert_eq!(
        types,
        [
            (2, "issue:created"),
            (12, "heatmap:updated"),
            (16, "issue:updated"),
            (18, "issue:resolved"),
            (22, "issue:assigned"),
            (24, "heatmap:updated"),
            (31, "issue:deleted"),
            (35, "heatmap:updated"),
        ]
    );
    let issue = |status: &str, to: &str| {
        format!(
            "{{\"id\":\"i1\",\"organizationId\":\"o1\",\"campusId\":\"c1\",\"buildingId\":null,\"category\":\"leak\",\
             \"priority\":\"high\",\"status\":\"{status}\",\"title\":\"Wet\",\"description\":null,\"reporterId\":\"u1\",\
             \"assignedTo\":{to},\"latitude\":null,\"longitude\":null,\"resolvedAt\":null,\
             \"createdAt\":\"2024-01-02T03:04:05+00:00\",\"updatedAt\":\"2024-01-02T03:04:05+00:00\"}}"
        )
    };
    let lines = lines(&seen);
    let of = |action: &str, status: &str, to: &str| {
        format!(
            "issue:{action}@issues {{\"action\":\"{action}\",\"issue\":{}}}",
            issue(status, to)
        )
    };
    assert_eq!(lines[0], of("created", "open", "null"));
    assert_eq!(lines[3], of("resolved", "resolved", "\"u2\""));
    assert_eq!(lines[4], of("assigned", "resolved", "\"u2\""));
    assert_eq!(lines[6], of("deleted", "resolved", "\"u2\""));
    assert_eq!(
        lines[7],
        r#"heatmap:updated@heatmap {"campusId":"c1","buildingId":null,"category":"leak"}"#
    );
    assert_eq!(
        seen[2].tags(),
        [
            ("campusId", "c1"),
            ("category", "leak"),
            ("priority", "high"),
            ("status", "resolved"),
            ("status", "open")
        ]
    );
    assert_eq!(seen[5].tags(), [("campusId", "c1"), ("category", "leak")]);
    assert_eq!(bench.problems(), []);
}

#[test]
fn people_and_organizations() {
    let organization = |plan: &str| format!("o1|Acme|{plan}|{{}}|{AT}|{AT}");
    let (lines, seen) = run(|bench| {
        vec![
            bench.insert("memberships", &format!("o1|u1|admin|{AT}")),
            bench.update(
                "memberships",
                &format!("o1|u1|admin|{AT}"),
                &format!("o1|u1|member|{AT}"),
            ),
            bench.delete("memberships", &format!("o1|u1|member|{AT}")),
            bench.update("organizations", &organization("free"), &organization("pro")),
            bench.insert("notifications", &format!("n1|o1|u1|Hi|∅|∅|{AT}")),
            bench.insert("user_activity", &format!("y1|o1|u1|login|{{\"ip\": 1}}|{AT}")),
            bench.insert("system_alerts", &format!("s1|low|soon|{AT}")),
        ]
    });
    assert_eq!(
        lines,
        [
            r#"member.join@members {"userId":"u1","role":"admin"}"#,
            r#"member.leave@members {"userId":"u1","role":"member"}"#,
            r#"organization.change@organization {"id":"o1","name":"Acme","plan":"pro","changed":["plan"]}"#,
            r#"notification.new@notifications {"id":"n1","title":"Hi","body":null,"createdAt":"2024-01-02T03:04:05+00:00"}"#,
            r#"user.activity@activity-log {"userId":"u1","action":"login","detail":{"ip": 1},"createdAt":"2024-01-02T03:04:05+00:00"}"#,
            r#"system.alert@system {"id":"s1","severity":"low","message":"soon","createdAt":"2024-01-02T03:04:05+00:00"}"#,
        ]
    );
    let admitted =
        |index: usize, user: &str, role| seen[index].audience.as_ref().is_none_or(|a| a.admits(user, role));
    assert!(admitted(3, "u1", None) && !admitted(3, "u2", Some("admin")));
    assert!(admitted(4, "u9", Some("manager")) && !admitted(4, "u1", Some("member")));
    assert_eq!(seen[5].organization, "*");
}
