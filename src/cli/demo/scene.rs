//! How a deed is written: one transaction of SQL each, as the back office behind it would.
//!
//! Rows that a deed changes are picked by a hash of their id and a random salt, so that the writer needs to know
//! nothing of what it wrote before, and goes on after a restart.

use fastrand::Rng;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Transaction};

use super::deed::{Activities, Deed, Devices, Issues, Lots, People, Properties};

pub(super) const ORGANIZATIONS: [&str; 2] = ["acme", "globex"];

const MEMBERS: [[&str; 3]; 2] = [["ada", "bert", "cleo"], ["dora", "emil", "fay"]];
const PRIORITIES: [&str; 4] = ["low", "medium", "high", "critical"];
const NOTES: [&str; 5] =
    ["Called, nobody home", "Parts ordered", "Photos attached", "Waiting for access", "Done, please check"];
const TROUBLES: [(&str, &str); 6] = [
    ("plumbing", "Tap drips in the kitchen"),
    ("electrical", "Lights flicker on the stairs"),
    ("heating", "Radiator stays cold"),
    ("access", "Key card refused at the gate"),
    ("cleaning", "Spill in front of the lift"),
    ("safety", "Fire door does not close"),
];
const ALERTS: [(&str, &str); 3] = [
    ("capacity_warning", "Nine in ten slots are taken"),
    ("camera_offline", "The camera at the gate does not answer"),
    ("violation_detected", "A vehicle stands in a reserved slot"),
];

type Values<'v> = [&'v (dyn ToSql + Sync)];

/// One organization, a transaction, and chance.
pub(super) struct Scene<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) rng: &'a mut Rng,
    /// An index into [`ORGANIZATIONS`].
    pub(super) organization: usize,
}

impl Scene<'_> {
    pub(super) async fn play(&mut self, deed: Deed) -> Result<(), Error> {
        match deed {
            Deed::Devices(deed) => self.devices(deed).await,
            Deed::Lots(deed) => self.lots(deed).await,
            Deed::Activities(deed) => self.activities(deed).await,
            Deed::Issues(deed) => self.issues(deed).await,
            Deed::Properties(deed) => self.properties(deed).await,
            Deed::People(deed) => self.people(deed).await,
        }
    }

    fn organization(&self) -> &'static str {
        ORGANIZATIONS.get(self.organization).copied().unwrap_or("acme")
    }

    fn one_of<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        self.rng.choice(choices).copied().unwrap_or_default()
    }

    fn member(&mut self) -> &'static str {
        let [acme, globex] = MEMBERS;
        self.one_of(if self.organization == 0 { &acme } else { &globex })
    }

    /// One of the world's own things: `acme-lot-2`.
    fn thing(&mut self, kind: &str, of: u32) -> String {
        format!("{}-{kind}-{}", self.organization(), self.rng.u32(1..=of))
    }

    async fn write(&self, sql: &str, values: &Values<'_>) -> Result<(), Error> {
        self.transaction.execute(sql, values).await.map(drop)
    }

    /// The id of a row of the organization that `which` allows.
    async fn some(&mut self, table: &str, which: &str) -> Result<Option<String>, Error> {
        let salt = self.rng.u64(..).to_string();
        let sql = format!(
            "select id from public.{table} where organization_id = $1 and {which} order by md5(id || $2) limit 1"
        );
        let row = self.transaction.query_opt(&sql, &[&self.organization(), &salt]).await?;
        row.map(|row| row.try_get(0)).transpose()
    }

    /// Changes such a row, if there is one. In `assignments`, `$1` is its id and the value is `$2`.
    async fn set(
        &mut self,
        table: &str,
        which: &str,
        assignments: &str,
        value: Option<&(dyn ToSql + Sync)>,
    ) -> Result<(), Error> {
        let Some(id) = self.some(table, which).await? else {
            return Ok(());
        };
        let sql = format!("update public.{table} set {assignments}, updated_at = now() where id = $1");
        let values: Vec<&(dyn ToSql + Sync)> =
            [&id as &(dyn ToSql + Sync)].into_iter().chain(value).collect();
        self.write(&sql, &values).await
    }

    async fn delete(&mut self, table: &str, which: &str) -> Result<(), Error> {
        let Some(id) = self.some(table, which).await? else {
            return Ok(());
        };
        self.write(&format!("delete from public.{table} where id = $1"), &[&id]).await
    }

    async fn devices(&mut self, deed: Devices) -> Result<(), Error> {
        let (organization, device) = (self.organization(), self.thing("device", 8));
        match deed {
            Devices::Measures => {
                let event = self.one_of(&["reading", "reading", "reading", "motion", "door"]);
                let temperature = f64::from(self.rng.i32(150..270)) / 10.0;
                let humidity = f64::from(self.rng.i32(300..650)) / 10.0;
                let battery = self.rng.i32(20..=100);
                let sql = "insert into public.device_telemetry \
                           (organization_id, device_id, event_type, temperature, humidity, battery, received_at) \
                           values ($1, $2, $3, $4, $5, $6, now())";
                self.write(sql, &[&organization, &device, &event, &temperature, &humidity, &battery]).await
            }
            Devices::Flips => {
                let sql = "update public.devices \
                           set status = case status when 'ONLINE' then 'OFFLINE' else 'ONLINE' end, \
                           last_event_at = now(), updated_at = now() where id = $1";
                self.write(sql, &[&device]).await
            }
            Devices::Comes => {
                let (name, building) =
                    (format!("Meter {}", self.rng.u32(100..1000)), self.thing("building", 4));
                let sql = "insert into public.devices (organization_id, building_id, name, model, status) \
                           values ($1, $2, $3, 'EM-7', 'ONLINE')";
                self.write(sql, &[&organization, &building, &name]).await
            }
            Devices::Goes => self.delete("devices", "model = 'EM-7'").await,
        }
    }

    async fn lots(&mut self, deed: Lots) -> Result<(), Error> {
        let (organization, lot) = (self.organization(), self.thing("lot", 3));
        let closed = self.one_of(&["acknowledged", "resolved"]);
        match deed {
            Lots::CarPasses => {
                let step = self.car(&lot).await?;
                let sql = "update public.lots set occupied = least(greatest(occupied + $2, 0), total_slots), \
                           updated_at = now() where id = $1";
                self.write(sql, &[&lot, &step]).await
            }
            Lots::CarIsSeen => self.car(&lot).await.map(drop),
            Lots::AlertRises => {
                let ((kind, message), severity) = (self.one_of(&ALERTS), self.one_of(&PRIORITIES));
                let sql = "insert into public.lot_alerts \
                           (organization_id, lot_id, contractor_id, type, severity, message, status) \
                           values ($1, $2, 'valet-co', $3, $4, $5, 'active')";
                self.write(sql, &[&organization, &lot, &kind, &severity, &message]).await
            }
            Lots::AlertCloses => {
                self.set("lot_alerts", "status = 'active'", "status = $2", Some(&closed)).await
            }
            Lots::ViolationRises => {
                let (allocated, excess) = (self.rng.i32(10..30), self.rng.i32(1..6));
                let (actual, duration) = (allocated + excess, self.rng.i32(600..7200));
                let sql = "insert into public.violations (organization_id, contractor_id, lot_id, violation_type, \
                           allocated_capacity, actual_occupancy, excess_vehicles, duration, penalty, status, \
                           occurred_at) values ($1, 'valet-co', $2, 'overparking', $3, $4, $5, $6, 24.50 * $5::int, \
                           'pending', now())";
                self.write(sql, &[&organization, &lot, &allocated, &actual, &excess, &duration]).await
            }
            Lots::ViolationCloses => {
                self.set("violations", "status = 'pending'", "status = $2", Some(&closed)).await
            }
        }
    }

    /// A car at the lot's gate; by how much it changes what the lot holds.
    async fn car(&mut self, lot: &str) -> Result<i32, Error> {
        let plate: String = (0..3).map(|_| self.rng.uppercase()).collect();
        let plate = format!("{plate} {}", self.rng.u32(1000..10_000));
        let enters = self.rng.bool();
        let event = if enters { "vehicle_entry" } else { "vehicle_exit" };
        let duration = (!enters).then(|| self.rng.i32(300..14_400));
        let sql = "insert into public.gate_events (organization_id, lot_id, event, plate_number, duration, occurred_at) \
                   values ($1, $2, $3, $4, $5, now())";
        self.write(sql, &[&self.organization(), &lot, &event, &plate, &duration]).await?;
        Ok(if enters { 1 } else { -1 })
    }

    async fn activities(&mut self, deed: Activities) -> Result<(), Error> {
        let (organization, member) = (self.organization(), self.member());
        match deed {
            Activities::Opens => {
                let (property, (category, what)) = (self.thing("property", 6), self.one_of(&TROUBLES));
                let location = format!("Floor {}", self.rng.u32(0..5));
                let sql = "insert into public.activities \
                           (organization_id, property_id, category, subcategory, location, status, reporter) \
                           values ($1, $2, $3, $4, $5, 'open', $6)";
                self.write(sql, &[&organization, &property, &category, &what, &location, &member]).await
            }
            // The note and what it changed are one transaction: the event carries both.
            Activities::Moves => {
                let unresolved = "status in ('open', 'in_progress')";
                let Some(id) = self.some("activities", unresolved).await? else {
                    return Ok(());
                };
                let notes = self.one_of(&NOTES);
                let note = "insert into public.activity_updates \
                            (organization_id, activity_id, notes, author_id, update_type) \
                            values ($1, $2, $3, $4, 'status')";
                self.write(note, &[&organization, &id, &notes, &member]).await?;
                let moves = "update public.activities \
                             set status = case status when 'open' then 'in_progress' else 'resolved' end, \
                             updated_at = now() where id = $1";
                self.write(moves, &[&id]).await
            }
            Activities::IsAssigned => {
                self.set("activities", "status = 'open'", "assigned_to = $2", Some(&member)).await
            }
            Activities::Goes => self.delete("activities", "status = 'resolved'").await,
        }
    }

    async fn issues(&mut self, deed: Issues) -> Result<(), Error> {
        let (organization, member, priority) = (self.organization(), self.member(), self.one_of(&PRIORITIES));
        let unresolved = "status in ('open', 'in_progress')";
        match deed {
            Issues::Opens => {
                let ((category, title), building) = (self.one_of(&TROUBLES), self.thing("building", 4));
                let campus = format!("{organization}-campus");
                let latitude = 60.39 + f64::from(self.rng.i32(0..1000)) / 100_000.0;
                let sql = "insert into public.issues (organization_id, campus_id, building_id, category, priority, \
                           status, title, description, reporter_id, latitude, longitude) \
                           values ($1, $2, $3, $4, $5, 'open', $6, 'Reported in the app', $7, $8, 5.32)";
                let place: [&(dyn ToSql + Sync); 3] = [&organization, &campus, &building];
                let what: [&(dyn ToSql + Sync); 5] = [&category, &priority, &title, &member, &latitude];
                self.write(sql, &[&place[..], &what[..]].concat()).await
            }
            Issues::IsAssigned => {
                let assignments = "assigned_to = $2, status = 'in_progress'";
                self.set("issues", unresolved, assignments, Some(&member)).await
            }
            Issues::IsRaised => self.set("issues", unresolved, "priority = $2", Some(&priority)).await,
            Issues::IsResolved => {
                self.set("issues", unresolved, "status = 'resolved', resolved_at = now()", None).await
            }
            Issues::Goes => self.delete("issues", "status = 'resolved'").await,
        }
    }

    async fn properties(&mut self, deed: Properties) -> Result<(), Error> {
        let ours = "metadata ? 'tags'";
        match deed {
            Properties::IsRepriced => {
                let percent = self.rng.i32(95..=106);
                let assignments = "price = greatest(round(price * $2::int / 100, 2), 50000)";
                self.set("properties", ours, assignments, Some(&percent)).await
            }
            Properties::Moves => {
                let status = self.one_of(&["listed", "under_offer", "rented", "withdrawn"]);
                self.set("properties", ours, "status = $2", Some(&status)).await
            }
            Properties::Comes => {
                let sql = "insert into public.properties (organization_id, title, city, status, price, bedrooms) \
                           values ($1, 'Flat for the season', 'Bergen', 'draft', 95000, 2)";
                self.write(sql, &[&self.organization()]).await
            }
            Properties::Goes => self.delete("properties", "not metadata ? 'tags'").await,
        }
    }

    async fn people(&mut self, deed: People) -> Result<(), Error> {
        let (organization, member) = (self.organization(), self.member());
        match deed {
            People::IsNotified => {
                let title =
                    self.one_of(&["An issue is yours now", "A viewing was booked", "A lot is nearly full"]);
                let sql = "insert into public.notifications (organization_id, user_id, title, body) \
                           values ($1, $2, $3, 'Open the app for details')";
                self.write(sql, &[&organization, &member, &title]).await
            }
            People::Acts => {
                let action =
                    self.one_of(&["signed_in", "exported_report", "changed_filter", "viewed_property"]);
                let sql = "insert into public.user_activity (organization_id, user_id, action, detail) \
                           values ($1, $2, $3, jsonb_build_object('client', 'web'))";
                self.write(sql, &[&organization, &member, &action]).await
            }
            People::JoinsOrLeaves => {
                let leaves = "delete from public.memberships where organization_id = $1 and user_id = 'gus'";
                if self.transaction.execute(leaves, &[&organization]).await? > 0 {
                    return Ok(());
                }
                let joins = "insert into public.memberships values ($1, 'gus', 'member')";
                self.write(joins, &[&organization]).await
            }
            People::ChangesPlan => {
                let plan = self.one_of(&["team", "business", "enterprise"]);
                let sql = "update public.organizations set plan = $2, updated_at = now() where id = $1";
                self.write(sql, &[&organization, &plan]).await
            }
            People::HearsOfMaintenance => {
                let message =
                    self.one_of(&["Maintenance tonight at 02:00 UTC", "Mail is slow at the moment"]);
                let sql = "insert into public.system_alerts (severity, message) values ('low', $1)";
                self.write(sql, &[&message]).await
            }
            People::EmitsProgress => {
                let percent = self.rng.i32(0..=100);
                let sql =
                    "select walcast.emit($1, 'report.progress', jsonb_build_object('percent', $2::int))";
                self.write(sql, &[&organization, &percent]).await
            }
        }
    }
}
