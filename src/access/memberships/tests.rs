use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;

use super::*;
use crate::access::{Authenticator, NewToken};
use crate::config::{Access, Organizations, Secret};
use crate::postgres::pgoutput::{
    Cell, OldTuple, Relation, RelationColumn, RelationId, ReplicaIdentity, Tuple,
};
use crate::source::{Operation, RowChange};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn principal(user: &str, organizations: &[&str]) -> Principal {
    let secret = Some(Secret::new(SECRET.to_owned()));
    let token = NewToken {
        sub: user.to_owned(),
        exp: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 60,
        organizations: organizations.iter().map(|&id| (id.to_owned(), "claimed".to_owned())).collect(),
        ..NewToken::default()
    };
    let text = token.sign(secret.as_ref().unwrap()).unwrap();
    let authenticator = Authenticator::new(&Access { jwt_secret: secret, ..Access::default() }).unwrap();
    authenticator.authenticate(&text).now_or_never().unwrap().unwrap()
}

fn configured() -> Access {
    Access {
        memberships: Some(config::Memberships {
            table: "members".to_owned(),
            organization: "org".to_owned(),
            user: "person".to_owned(),
            role: Some("role".to_owned()),
        }),
        organizations: Some(Organizations {
            table: "orgs".to_owned(),
            id: "id".to_owned(),
            name: "title".to_owned(),
        }),
        ..Access::default()
    }
}

/// Specs as another reader of the same tables would have left them.
fn specs() -> Vec<MirrorSpec> {
    let orgs = TableName::parse("orgs");
    let mut specs = vec![MirrorSpec {
        table: orgs,
        columns: vec!["plan".to_owned(), "id".to_owned()],
        indexes: vec![vec!["plan".to_owned()]],
    }];
    Memberships::require(&configured(), &mut specs);
    specs
}

fn relation(id: u32, name: &str, columns: &[&str]) -> Arc<Relation> {
    let column = |name: &&str| RelationColumn {
        name: (*name).to_owned(),
        type_oid: 25,
        type_modifier: -1,
        is_key: false,
    };
    Arc::new(Relation {
        id: RelationId(id),
        namespace: "public".to_owned(),
        name: name.to_owned(),
        identity: ReplicaIdentity::Full,
        columns: columns.iter().map(column).collect(),
    })
}

fn tuple(cells: &[&str]) -> Tuple {
    Tuple::new(cells.iter().map(|cell| Cell::Text(cell.as_bytes()))).unwrap()
}

struct Tables {
    mirror: Arc<Mirror>,
    members: Arc<Relation>,
    orgs: Arc<Relation>,
}

impl Tables {
    fn new() -> Self {
        Self {
            mirror: Arc::new(Mirror::new(specs(), 1 << 20)),
            members: relation(1, "members", &["role", "person", "org"]),
            orgs: relation(2, "orgs", &["title", "id", "plan"]),
        }
    }

    fn change(
        &self,
        relation: &Arc<Relation>,
        operation: Operation,
        old: Option<&[&str]>,
        new: Option<&[&str]>,
    ) {
        let change = RowChange {
            relation: Arc::clone(relation),
            operation,
            old: old.map(|cells| OldTuple::Full(tuple(cells))),
            new: new.map(tuple),
        };
        self.mirror.apply(1, &change).unwrap();
    }

    fn view(&self) -> Memberships {
        Memberships::new(&configured(), &specs(), &self.mirror).unwrap()
    }
}

#[test]
fn a_membership_is_what_the_mirror_holds_now() {
    let tables = Tables::new();
    let view = tables.view();
    let user = principal("u", &["claimed-only"]);
    let member = |role: &str| Some(Membership { role: Some(role.into()) });
    assert_eq!(view.role_of("a", &user), None);
    tables.change(&tables.members, Operation::Insert, None, Some(&["admin", "u", "a"]));
    assert_eq!(view.role_of("a", &user), member("admin"));
    assert_eq!(view.organizations_of(&user), ["a".into()]);
    assert_eq!(view.role_of("b", &user), None);
    assert_eq!(view.role_of("a", &principal("v", &["a"])), None);
    // Where there is a table, what the token claims counts for nothing.
    assert_eq!(view.role_of("claimed-only", &user), None);
    let (before, after) = (["admin", "u", "a"], ["member", "u", "a"]);
    tables.change(&tables.members, Operation::Update, Some(&before), Some(&after));
    assert_eq!(view.role_of("a", &user), member("member"));
    tables.change(&tables.members, Operation::Delete, Some(&after), None);
    assert_eq!(view.role_of("a", &user), None);
    assert!(view.organizations_of(&user).is_empty());
}

#[test]
fn nobody_is_a_member_of_every_organization() {
    let tables = Tables::new();
    let user = principal("u", &["*", "a"]);
    tables.change(&tables.members, Operation::Insert, None, Some(&["admin", "u", "*"]));
    assert_eq!(tables.view().role_of("*", &user), None);
    assert!(tables.view().organizations_of(&user).is_empty());

    let claimed = Memberships::new(&Access::default(), &[], &tables.mirror).unwrap();
    assert_eq!(claimed.role_of("*", &user), None);
    assert_eq!(claimed.organizations_of(&user), ["a".into()]);
    assert_eq!(claimed.role_of("a", &user), Some(Membership { role: Some("claimed".into()) }));
    assert_eq!(claimed.organization_name("a"), None);
}

#[test]
fn what_access_needs_leaves_the_places_of_others_alone() {
    let specs = specs();
    assert_eq!(specs[0].columns, ["plan", "id", "title"]);
    assert_eq!(specs[0].indexes, [vec!["plan".to_owned()], vec!["id".to_owned()]]);
    assert_eq!(specs[1].table, TableName::parse("members"));
    let mut again = specs.clone();
    Memberships::require(&configured(), &mut again);
    assert_eq!(again, specs);
    let lacking = Memberships::new(&configured(), &specs[1..], &Tables::new().mirror).unwrap_err();
    assert_eq!(lacking.to_string(), "the mirror has no orgs as access needs it");

    let tables = Tables::new();
    tables.change(&tables.orgs, Operation::Insert, None, Some(&["The A", "a", "free"]));
    assert_eq!(tables.view().organization_name("a").as_deref(), Some("The A"));
    assert_eq!(tables.view().organization_name("free"), None);
}
