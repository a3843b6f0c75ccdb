//! What writers do, and what must come of it: SQL beside the events that REFERENCE.md promises for it.
//!
//! Nothing here knows the catalog: each deed states its events by hand. A marker that no other deed writes makes each
//! event recognizable wherever it turns up.

mod people;
mod places;

use serde_json::{Value, json};
use walcast::source::Kind;

/// Organizations of the run.
pub const ORGANIZATIONS: [&str; 4] = ["north", "east", "south", "west"];

/// An event that a transaction must make.
#[derive(Clone, Debug)]
pub struct Expected {
    /// `*` for every organization.
    pub organization: &'static str,
    pub channel: &'static str,
    pub event_type: &'static str,
    /// What [`key`] makes of its frame.
    pub key: String,
    /// Each tag with every value that it matches by: the old one of an update, too.
    pub tags: Vec<(&'static str, Vec<String>)>,
    /// Only for one of the roles, or the user.
    pub only: Option<&'static [&'static str]>,
    /// Fields of `data` that are known beforehand.
    pub data: Value,
}

/// What one writer's rows are, as far as what it committed goes.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    properties: Vec<(String, String, &'static str)>,
    activities: Vec<(String, String, &'static str, &'static str)>,
    devices: Vec<(String, String, &'static str)>,
    issues: Vec<Issue>,
    alerts: Vec<(String, &'static str, &'static str)>,
    violations: Vec<(String, &'static str)>,
    members: Vec<String>,
}

#[derive(Clone, Debug)]
struct Issue {
    organization: &'static str,
    id: String,
    title: String,
    status: &'static str,
    priority: &'static str,
    category: String,
}

impl Expected {
    /// A `data.sync` in its own place of the history: not to be filtered but by channel.
    pub fn sync(reason: &str, channel: &'static str) -> Self {
        Self {
            organization: "*",
            channel,
            event_type: SYNC,
            key: format!("{SYNC} {reason}"),
            tags: Vec::new(),
            only: None,
            data: json!({}),
        }
    }

    pub fn is_sync(&self) -> bool {
        self.event_type == SYNC
    }
}

/// The type of what tells that something can't be shown.
pub const SYNC: &str = "data.sync";

/// Statements and their events, in the order in which they happen.
#[derive(Debug, Default)]
pub struct Deed {
    pub sql: String,
    pub events: Vec<Expected>,
}

/// Rows kept of a kind before the oldest goes.
const KEPT: usize = 8;

const ISSUE_STATUS: [&str; 4] = ["open", "in_progress", "resolved", "closed"];
const PRIORITY: [&str; 4] = ["low", "medium", "high", "critical"];

/// What is recognized of a frame's body; none of what no deed makes.
pub fn key(event_type: &str, data: &Value) -> Option<String> {
    let text =
        |pointer: &str| data.pointer(pointer).map(|value| value.to_string().trim_matches('"').to_owned());
    let parts: &[&str] = match event_type {
        "property.update" => &["/action", "/id", "/property/title"],
        "activity_created" | "activity_updated" | "assignment_changed" => &["/id", "/location"],
        "activity_deleted" => &["/id"],
        "new_device" | "device_status_changed" | "device_removed" => &["/deviceId", "/deviceName"],
        "new_telemetry" => &["/eventType"],
        "capacity_update" if data.get("plateNumber").is_some() => &["/plateNumber"],
        "capacity_update" => &["/parkingLotId", "/totalSlots"],
        "alert" => &["/_id", "/message"],
        "violation" => &["/_id", "/details/excessVehicles"],
        "heatmap:updated" => &["/category"],
        "member.join" | "member.leave" => &["/userId"],
        "organization.change" => &["/plan"],
        "notification.new" => &["/id"],
        "user.activity" => &["/action"],
        "system.alert" => &["/message"],
        "torture" => &["/marker"],
        issue if issue.starts_with("issue:") => &["/issue/id", "/issue/title"],
        _ => return None,
    };
    let parts: Option<Vec<String>> = parts.iter().map(|part| text(part)).collect();
    Some(format!("{event_type} {}", parts?.join(" ")))
}

/// One writer's transaction in the making.
pub struct Author<'a> {
    pub rng: &'a mut fastrand::Rng,
    pub rows: &'a mut Rows,
    pub writer: usize,
    /// The transaction's number in the run: what its markers begin with.
    pub number: u64,
    /// Deeds so far.
    pub count: u32,
    /// What may be touched once in a transaction is crossed out here, rolled back or not.
    pub touched: Vec<String>,
}

impl Author<'_> {
    /// Any deed.
    pub fn any(&mut self) -> Deed {
        self.count += 1;
        let organization = self.rng.choice(ORGANIZATIONS).unwrap_or("north");
        let marker = format!("t{}-{}", self.number, self.count);
        let mut deed = Deed::default();
        match self.rng.u32(0..13) {
            0 => self.property(&mut deed, organization, &marker),
            1 => self.activity(&mut deed, organization, &marker),
            2 => self.device(&mut deed, organization, &marker),
            3 => deed = telemetry(organization, &marker),
            4 | 5 => self.lot(&mut deed, organization, &marker),
            6 => self.alert(&mut deed, organization, &marker),
            7 => self.violation(&mut deed, organization, &marker),
            8 | 9 => self.issue(&mut deed, organization, &marker),
            10 => self.people(&mut deed, organization, &marker),
            11 => self.organization(&mut deed, organization, &marker),
            _ => deed = emit(organization, &marker),
        }
        deed
    }

    /// What takes a table as a whole, and so has a transaction of its own: it would wait for writers that wait for it.
    pub fn of_a_table(&mut self, source: Kind) -> Deed {
        // Of the outbox old rows are whole, whatever is logged.
        let kinds = if source == Kind::Wal { 3 } else { 2 };
        match self.rng.u8(..kinds) {
            0 => Deed {
                sql: "truncate device_telemetry;".to_owned(),
                events: vec![Expected::sync("truncated", "telemetry")],
            },
            1 => Deed {
                sql: "truncate notifications;".to_owned(),
                events: vec![Expected::sync("truncated", "notifications")],
            },
            // What is deleted while only the key is logged is of no organization that anybody could know.
            _ if self.rows.properties.is_empty() => Deed::default(),
            _ => {
                let (id, ..) = self.rows.properties.remove(0);
                Deed {
                    sql: format!(
                        "alter table properties replica identity default; delete from properties where id = '{id}';
                         alter table properties replica identity full;"
                    ),
                    events: vec![Expected::sync("unroutable", "property")],
                }
            }
        }
    }

    /// Whether this is the first time in the transaction.
    fn touch(&mut self, what: &str) -> bool {
        let first = !self.touched.iter().any(|touched| touched == what);
        if first {
            self.touched.push(what.to_owned());
        }
        first
    }
}

pub fn telemetry(organization: &'static str, marker: &str) -> Deed {
    let device = format!("fixed-{organization}");
    let sql = format!(
        "insert into device_telemetry (organization_id, device_id, event_type, temperature, battery)
         values ('{organization}', '{device}', '{marker}', 21.5, 99);"
    );
    let event = Expected {
        organization,
        channel: "telemetry",
        event_type: "new_telemetry",
        key: format!("new_telemetry {marker}"),
        tags: vec![("deviceId", vec![device.clone()])],
        only: None,
        data: json!({ "deviceId": device, "deviceName": "Fixed", "temperature": 21.5, "battery": 99 }),
    };
    Deed { sql, events: vec![event] }
}

pub fn emit(organization: &'static str, marker: &str) -> Deed {
    emit_long(organization, marker, 0)
}

/// An event of so many bytes.
pub fn emit_long(organization: &'static str, marker: &str, bytes: usize) -> Deed {
    let sql = format!(
        "select walcast.emit('{organization}', 'torture',
           jsonb_build_object('marker', '{marker}', 'pad', repeat('x', {bytes})));"
    );
    let event = Expected {
        organization,
        channel: "custom",
        event_type: "torture",
        key: format!("torture {marker}"),
        tags: Vec::new(),
        only: None,
        data: json!({ "marker": marker }),
    };
    Deed { sql, events: vec![event] }
}

/// The lot of an organization that only this writer changes.
pub fn lot(organization: &str, writer: usize) -> String {
    format!("lot-{organization}-{writer}")
}
