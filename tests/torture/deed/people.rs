//! What people report, who they are, and what they are told.

use serde_json::json;

use super::{Author, Deed, Expected, ISSUE_STATUS, Issue, KEPT, PRIORITY};

impl Author<'_> {
    pub(super) fn issue(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
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
    pub(super) fn people(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
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
    pub(super) fn organization(&mut self, deed: &mut Deed, organization: &'static str, marker: &str) {
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
