//! Whatever happens to rows, an organization's events hold nothing of another's.

use proptest::prelude::*;

use super::*;

const SCHEMA: &str = "
    bays: *id text, organization_id text, note text, site_id text
    sites: *id text, organization_id text, note text
";

const CATALOG: &str = r#"
[tables.bays]
organization = "organization_id"
channel = "bays"
tags = { note = "note" }
lookup.site = { table = "sites", key = "id", of = "site_id" }
related.first = { table = "sites", key = "id", of = "site_id", take = "first" }
related.last = { table = "sites", key = "id", of = "site_id", take = "last" }
[[tables.bays.events]]
type = "bay"
on = ["insert", "update", "delete"]
[tables.bays.events.data]
new = { row = "new" }
old = { row = "old" }
previous = { previous = true }
computed = { expr = "op == 'update' ? old.note + new.note : new.note" }
site = { from = "site", column = "note" }
joined = { expr = "(first == null ? '' : first.note) + (last == null ? '' : last.note)" }
last = { from = "last", fields = { note = "note" } }
[[tables.bays.events]]
type = "bay_changed"
on = ["insert", "update"]
when.changed = ["note"]

[tables.sites]
organization = "organization_id"
"#;

const ORGANIZATIONS: [&str; 4] = ["o1", "o2", "∅", "*"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert,
    Update,
    Delete,
    Site,
}

fn step() -> impl Strategy<Value = (Step, usize, usize)> {
    let kind = prop_oneof![Just(Step::Insert), Just(Step::Update), Just(Step::Delete), Just(Step::Site)];
    (kind, 0..ORGANIZATIONS.len(), 0..ORGANIZATIONS.len())
}

proptest! {
    #[test]
    fn no_organization_sees_anything_of_another(steps in proptest::collection::vec(step(), 1..20)) {
        let mut bench = Bench::new(SCHEMA, CATALOG);
        let mut changes = Vec::new();
        let mut expected = 0;
        for (step, from, to) in steps {
            let row = |organization: usize| {
                let name = ORGANIZATIONS[organization];
                format!("b|{name}|of-{organization};|s")
            };
            match step {
                Step::Insert => changes.push(bench.insert("bays", &row(to))),
                Step::Update => changes.push(bench.update("bays", &row(from), &row(to))),
                Step::Delete => changes.push(bench.delete("bays", &row(from))),
                Step::Site => {
                    let site = format!("s|{}|of-{to};", ORGANIZATIONS[to]);
                    changes.push(bench.insert("sites", &site));
                }
            }
            // Only o1 and o2 can be told anything.
            let told = |organization: usize| usize::from(organization < 2);
            expected += match step {
                Step::Insert => 2 * told(to),
                Step::Update if from == to => told(to),
                Step::Update => told(from) + 2 * told(to),
                Step::Delete => told(from),
                Step::Site => 0,
            };
        }
        let seen = bench.map(changes);
        prop_assert_eq!(seen.len(), expected);
        for pair in seen.windows(2) {
            prop_assert!(pair[0].ordinal < pair[1].ordinal);
        }
        for event in &seen {
            let own = ORGANIZATIONS.iter().position(|known| *known == event.organization);
            let own = own.filter(|own| *own < 2).expect("o1 or o2");
            for other in (0..ORGANIZATIONS.len()).filter(|other| *other != own) {
                let foreign = format!("of-{other};");
                prop_assert!(!event.json().contains(&foreign), "{}", event.json());
                let tagged = event.tags.iter().any(|(_, value)| value.contains(&foreign));
                prop_assert!(!tagged);
            }
        }
    }
}
