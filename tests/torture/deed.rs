//! What writers do, and what must come of it: SQL beside the events that REFERENCE.md promises for it.
//!
//! Nothing here knows the catalog: each deed states its events by hand. A marker that no other deed writes makes each
//! event recognizable wherever it turns up.

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

    fn property(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
        let mut event = |owner: &'static str, action: &str, id: &str, title: &str, data: Value| {
            deed.events.push(Expected {
                organization: owner,
                channel: "property",
                event_type: "property.update",
                key: format!("property.update {action} {id} {title}"),
                tags: vec![("propertyId", vec![id.to_owned()])],
                only: None,
                data,
            });
        };
        if self.rows.properties.len() > KEPT {
            let (id, title, owner) = self.rows.properties.remove(0);
            event(owner, "deleted", &id, &title, json!({ "action": "deleted", "id": id }));
            deed.sql = format!("delete from properties where id = '{id}';");
        } else if self.rng.bool() && !self.rows.properties.is_empty() {
            let at = self.rng.usize(..self.rows.properties.len());
            let (id, title, owner) = self.rows.properties[at].clone();
            // A key that is changed names the new row.
            let renamed = if self.rng.u8(..4) == 0 { format!("p{marker}") } else { id.clone() };
            let mut changed = vec!["title"];
            let mut previous = json!({ "title": title });
            if renamed != id {
                changed.insert(0, "id");
                previous["id"] = json!(id);
            }
            let data =
                json!({ "action": "updated", "id": renamed, "changed": changed, "previous": previous });
            event(owner, "updated", &renamed, marker, data);
            if let Some(event) = deed.events.last_mut().filter(|_| renamed != id) {
                event.tags = vec![("propertyId", vec![renamed.clone(), id.clone()])];
            }
            deed.sql =
                format!("update properties set id = '{renamed}', title = '{marker}' where id = '{id}';");
            self.rows.properties[at] = (renamed, marker.to_owned(), owner);
        } else {
            let id = format!("p{marker}");
            event(organization, "created", &id, marker, json!({ "action": "created", "id": id }));
            deed.sql = format!(
                "insert into properties (id, organization_id, title, status, price, metadata) values
                 ('{id}', '{organization}', '{marker}', 'draft', 12.50, jsonb_build_object('pad', repeat('x', {})));",
                self.rng.usize(..6000)
            );
            self.rows.properties.push((id, marker.to_owned(), organization));
        }
    }

    fn activity(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
        let mut event =
            |owner: &'static str, event_type: &'static str, key: String, assigned: Vec<&str>, data| {
                let assigned = assigned.into_iter().map(str::to_owned).collect();
                deed.events.push(Expected {
                    organization: owner,
                    channel: "activities",
                    event_type,
                    key,
                    tags: vec![("assignedTo", assigned), ("status", vec!["open".to_owned()])],
                    only: None,
                    data,
                });
            };
        if self.rows.activities.len() > KEPT {
            let (id, _, owner, assigned) = self.rows.activities.remove(0);
            event(
                owner,
                "activity_deleted",
                format!("activity_deleted {id}"),
                vec![assigned],
                json!({ "id": id }),
            );
            deed.sql = format!("delete from activities where id = '{id}';");
        } else if self.rng.bool() && !self.rows.activities.is_empty() {
            let at = self.rng.usize(..self.rows.activities.len());
            let (id, _, owner, old) = self.rows.activities[at].clone();
            let new = self.rng.choice(["ann", "ben"]).unwrap_or("ann");
            // A note counts for the whole transaction, so for one change in it.
            let note =
                self.rng.bool() && self.touch(&format!("note {id}")) && self.touch(&format!("activity {id}"));
            if !note && !self.touch(&format!("activity {id}")) {
                return;
            }
            let latest = note.then(|| json!({ "notes": marker, "authorId": null, "updateType": "note" }));
            let kind = if old == new { "general" } else { "assignment" };
            let data = json!({ "id": id, "assignedTo": new, "updateType": kind, "latestUpdate": latest });
            event(owner, "activity_updated", format!("activity_updated {id} {marker}"), vec![old, new], data);
            if old != new {
                let data = json!({ "oldAssigneeId": old, "newAssigneeId": new });
                event(
                    owner,
                    "assignment_changed",
                    format!("assignment_changed {id} {marker}"),
                    vec![old, new],
                    data,
                );
            }
            if note {
                deed.sql = format!(
                    "insert into activity_updates (organization_id, activity_id, notes, update_type)
                     values ('{owner}', '{id}', '{marker}', 'note');"
                );
            }
            deed.sql += &format!(
                "update activities set location = '{marker}', assigned_to = '{new}' where id = '{id}';"
            );
            self.rows.activities[at] = (id, marker.to_owned(), owner, new);
        } else {
            let id = format!("a{marker}");
            let key = format!("activity_created {id} {marker}");
            event(
                organization,
                "activity_created",
                key,
                vec!["ann"],
                json!({ "id": id, "assignedTo": "ann" }),
            );
            deed.sql = format!(
                "insert into activities (id, organization_id, location, status, assigned_to)
                 values ('{id}', '{organization}', '{marker}', 'open', 'ann');"
            );
            self.touch(&format!("activity {id}"));
            self.rows.activities.push((id, marker.to_owned(), organization, "ann"));
        }
    }

    fn device(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
        let mut event = |owner: &'static str, event_type: &'static str, id: &str, name: &str| {
            deed.events.push(Expected {
                organization: owner,
                channel: "devices",
                event_type,
                key: format!("{event_type} {id} {name}"),
                tags: vec![("deviceId", vec![id.to_owned()])],
                only: None,
                data: json!({ "deviceId": id, "deviceName": name }),
            });
        };
        if self.rows.devices.len() > KEPT {
            let (id, name, owner) = self.rows.devices.remove(0);
            event(owner, "device_removed", &id, &name);
            deed.sql = format!("delete from devices where id = '{id}';");
        } else if self.rng.bool() && !self.rows.devices.is_empty() {
            let at = self.rng.usize(..self.rows.devices.len());
            let (id, _, owner) = self.rows.devices[at].clone();
            event(owner, "device_status_changed", &id, marker);
            deed.sql = format!(
                "update devices set name = '{marker}',
                 status = case status when 'ONLINE' then 'OFFLINE' else 'ONLINE' end where id = '{id}';"
            );
            self.rows.devices[at].1 = marker.to_owned();
        } else {
            let id = format!("d{marker}");
            event(organization, "new_device", &id, marker);
            deed.sql = format!(
                "insert into devices (id, organization_id, name, status)
                 values ('{id}', '{organization}', '{marker}', 'ONLINE');"
            );
            self.rows.devices.push((id, marker.to_owned(), organization));
        }
    }

    /// A change of a lot, a gate event, or both: one event in any case.
    fn lot(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
        let id = lot(organization, self.writer);
        if !self.touch(&id) {
            return;
        }
        let (gate, lot) =
            self.rng.choice([(true, false), (false, true), (true, true)]).unwrap_or((true, true));
        // Unlike any other of this lot.
        let total = 1000 + self.number;
        let mut data = json!({ "parkingLotId": id });
        if gate {
            data["event"] = json!("vehicle_entry");
            data["plateNumber"] = json!(marker);
            deed.sql = format!(
                "insert into gate_events (organization_id, lot_id, event, plate_number)
                 values ('{organization}', '{id}', 'vehicle_entry', '{marker}');"
            );
        }
        if lot {
            data["totalSlots"] = json!(total);
            data["occupied"] = json!(7);
            data["empty"] = json!(total - 7);
            deed.sql += &format!("update lots set total_slots = {total}, occupied = 7 where id = '{id}';");
        }
        let key = if gate { marker.to_owned() } else { format!("{id} {total}") };
        deed.events.push(Expected {
            organization,
            channel: "lots",
            event_type: "capacity_update",
            key: format!("capacity_update {key}"),
            tags: vec![("parkingLotId", vec![id])],
            only: None,
            data,
        });
    }

    fn alert(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
        let old = self.rows.alerts.len() > KEPT;
        let (id, owner, severity) = if old {
            self.rows.alerts.remove(0)
        } else {
            (format!("l{marker}"), organization, self.rng.choice(PRIORITY).unwrap_or("low"))
        };
        let status = if old { "resolved" } else { "active" };
        deed.sql = if old {
            format!("update lot_alerts set status = 'resolved', message = '{marker}' where id = '{id}';")
        } else {
            format!(
                "insert into lot_alerts (id, organization_id, type, severity, message, status)
                 values ('{id}', '{owner}', 'camera_offline', '{severity}', '{marker}', 'active');"
            )
        };
        deed.events.push(Expected {
            organization: owner,
            channel: "alerts",
            event_type: "alert",
            key: format!("alert {id} {marker}"),
            tags: vec![("severity", vec![severity.to_owned()])],
            only: None,
            data: json!({ "severity": severity, "status": status }),
        });
        if !old {
            self.rows.alerts.push((id, owner, severity));
        }
    }

    fn violation(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
        let old = self.rows.violations.len() > KEPT;
        let (id, owner) =
            if old { self.rows.violations.remove(0) } else { (format!("v{marker}"), organization) };
        let excess = self.number;
        let (sql, status) = if old {
            let set = format!("status = 'resolved', excess_vehicles = {excess}");
            (format!("update violations set {set} where id = '{id}';"), "resolved")
        } else {
            let row = format!("'{id}', '{owner}', 'overparking', {excess}, 99.90, 'pending'");
            let columns = "id, organization_id, violation_type, excess_vehicles, penalty, status";
            (format!("insert into violations ({columns}) values ({row});"), "pending")
        };
        deed.sql = sql;
        deed.events.push(Expected {
            organization: owner,
            channel: "violations",
            event_type: "violation",
            key: format!("violation {id} {excess}"),
            tags: Vec::new(),
            only: None,
            data: json!({ "status": status }),
        });
        if !old {
            self.rows.violations.push((id, owner));
        }
    }

    fn issue(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
        let events = &mut deed.events;
        let mut event = |issue: &Issue, names: &[&'static str], statuses: &[&str]| {
            let tags = |categories: Vec<String>| {
                let statuses = statuses.iter().map(|status| (*status).to_owned()).collect();
                vec![
                    ("status", statuses),
                    ("priority", vec![issue.priority.to_owned()]),
                    ("category", categories),
                ]
            };
            for name in names {
                let heatmap = *name == "heatmap:updated";
                let key =
                    if heatmap { issue.category.clone() } else { format!("{} {}", issue.id, issue.title) };
                let mut tags = tags(vec![issue.category.clone()]);
                tags.retain(|(tag, _)| !heatmap || *tag == "category");
                events.push(Expected {
                    organization: issue.organization,
                    channel: if heatmap { "heatmap" } else { "issues" },
                    event_type: name,
                    key: format!("{name} {key}"),
                    tags,
                    only: None,
                    data: if heatmap {
                        json!({})
                    } else {
                        json!({ "action": name.trim_start_matches("issue:") })
                    },
                });
            }
        };
        if self.rows.issues.len() > KEPT {
            let issue = self.rows.issues.remove(0);
            event(&issue, &["issue:deleted", "heatmap:updated"], &[issue.status]);
            deed.sql = format!("delete from issues where id = '{}';", issue.id);
        } else if self.rng.bool() && !self.rows.issues.is_empty() {
            let at = self.rng.usize(..self.rows.issues.len());
            let old = self.rows.issues[at].clone();
            let status = self.rng.choice(ISSUE_STATUS).unwrap_or("open");
            let assigned = self.rng.bool();
            let new = Issue { title: marker.to_owned(), category: marker.to_owned(), status, ..old.clone() };
            let mut names = vec!["issue:updated"];
            if status == "resolved" && old.status != "resolved" {
                names.push("issue:resolved");
            }
            if assigned {
                names.push("issue:assigned");
            }
            names.push("heatmap:updated");
            event(&new, &names, &[old.status, status]);
            let assign = if assigned { format!(", assigned_to = '{marker}'") } else { String::new() };
            deed.sql = format!(
                "update issues set title = '{marker}', category = '{marker}', status = '{status}'{assign}
                 where id = '{}';",
                old.id
            );
            self.rows.issues[at] = new;
        } else {
            let issue = Issue {
                organization,
                id: format!("i{marker}"),
                title: marker.to_owned(),
                status: "open",
                priority: self.rng.choice(PRIORITY).unwrap_or("low"),
                category: marker.to_owned(),
            };
            event(&issue, &["issue:created", "heatmap:updated"], &["open"]);
            deed.sql = format!(
                "insert into issues (id, organization_id, category, priority, status, title)
                 values ('{}', '{organization}', '{marker}', '{}', 'open', '{marker}');",
                issue.id, issue.priority
            );
            self.rows.issues.push(issue);
        }
    }

    /// Members that come and go, what is told to one user, and what only some roles see.
    fn people(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
        let mut event = |organization, channel, event_type, key: String, only, data| {
            let tags = Vec::new();
            deed.events.push(Expected { organization, channel, event_type, key, tags, only, data });
        };
        match self.rng.u32(..4) {
            0 => {
                let users: &'static [&'static str] = &["ann"];
                let key = format!("notification.new n{marker}");
                event(
                    organization,
                    "notifications",
                    "notification.new",
                    key,
                    Some(users),
                    json!({ "title": "T" }),
                );
                deed.sql = format!(
                    "insert into notifications (id, organization_id, user_id, title)
                     values ('n{marker}', '{organization}', 'ann', 'T');"
                );
            }
            1 => {
                let roles: &'static [&'static str] = &["admin", "manager"];
                let key = format!("user.activity {marker}");
                event(
                    organization,
                    "activity-log",
                    "user.activity",
                    key,
                    Some(roles),
                    json!({ "userId": "ben" }),
                );
                deed.sql = format!(
                    "insert into user_activity (organization_id, user_id, action)
                     values ('{organization}', 'ben', '{marker}');"
                );
            }
            2 if self.rows.members.len() > KEPT => {
                let user = self.rows.members.remove(0);
                event("north", "members", "member.leave", format!("member.leave {user}"), None, json!({}));
                deed.sql = format!(
                    "delete from memberships where organization_id = 'north' and user_id = '{user}';"
                );
            }
            2 => {
                let user = format!("u{marker}");
                let key = format!("member.join {user}");
                event("north", "members", "member.join", key, None, json!({ "role": "member" }));
                deed.sql = format!(
                    "insert into users (id, name) values ('{user}', 'U');
                     insert into memberships (organization_id, user_id, role) values ('north', '{user}', 'member');"
                );
                self.rows.members.push(user);
            }
            _ => {
                let key = format!("system.alert {marker}");
                event("*", "system", "system.alert", key, None, json!({ "severity": "low" }));
                deed.sql =
                    format!("insert into system_alerts (severity, message) values ('low', '{marker}');");
            }
        }
    }

    /// One a transaction: two writers that wait for each other's organization would be a deadlock.
    fn organization(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
        if !self.touch("organization") {
            return;
        }
        deed.sql = format!("update organizations set plan = '{marker}' where id = '{organization}';");
        deed.events.push(Expected {
            organization,
            channel: "organization",
            event_type: "organization.change",
            key: format!("organization.change {marker}"),
            tags: Vec::new(),
            only: None,
            data: json!({ "id": organization, "changed": ["plan"] }),
        });
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
