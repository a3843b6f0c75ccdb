//! What happens to properties and lots, to what is done there, and to what is wrong there.

use serde_json::{Value, json};

use super::{Author, Deed, Expected, KEPT, PRIORITY, lot};

impl Author<'_> {
    pub(super) fn property(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
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

    pub(super) fn activity(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
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

    pub(super) fn device(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
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
    pub(super) fn lot(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
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

    pub(super) fn alert(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
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

    pub(super) fn violation(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
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
}
