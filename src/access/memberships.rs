//! Who is a member of what: a view over the mirror, or the token's own word where no table is configured.
//!
//! What the mirror says is as of the newest transaction that the stream has processed; a membership is never cached
//! here. Nobody is a member of `*`, whatever a row or a token says: its journal is everybody's already.

use std::sync::Arc;

use super::Principal;
use crate::catalog::OrganizationId;
use crate::config;
use crate::mirror::{Applied, Mirror, MirrorRow, MirrorSpec, MirrorTableId};
use crate::postgres::pgoutput::Relation;
use crate::postgres::schema::TableName;

/// A principal's place in an organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub role: Option<Arc<str>>,
}

/// Answers for one configuration.
#[derive(Debug)]
pub struct Memberships {
    members: Option<Members>,
    names: Option<Names>,
}

/// The memberships table; columns and indexes by their place in its spec.
#[derive(Debug)]
struct Members {
    mirror: Arc<Mirror>,
    table: MirrorTableId,
    organization: usize,
    user: usize,
    role: Option<usize>,
    /// By (organization, user).
    by_both: usize,
    /// By (user).
    by_user: usize,
}

/// The table that names organizations.
#[derive(Debug)]
struct Names {
    mirror: Arc<Mirror>,
    table: MirrorTableId,
    name: usize,
    by_id: usize,
}

/// `specs` lacks what [`Memberships::require`] would have added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mirror has no {0} as access needs it")]
pub struct NotMirrored(TableName);

impl Memberships {
    /// Adds to a mirror's specs what access reads. What is there keeps its place.
    pub fn require(access: &config::Access, specs: &mut Vec<MirrorSpec>) {
        if let Some(m) = &access.memberships {
            let columns = [Some(&m.organization), Some(&m.user), m.role.as_ref()];
            let indexes = [vec![m.organization.clone(), m.user.clone()], vec![m.user.clone()]];
            require(specs, &m.table, columns.into_iter().flatten(), &indexes);
        }
        if let Some(o) = &access.organizations {
            require(specs, &o.table, [&o.id, &o.name], &[vec![o.id.clone()]]);
        }
    }

    /// A view over `mirror`, which was made from `specs`.
    ///
    /// # Errors
    /// When `specs` did not go through [`Memberships::require`].
    pub fn new(
        access: &config::Access,
        specs: &[MirrorSpec],
        mirror: &Arc<Mirror>,
    ) -> Result<Self, NotMirrored> {
        let place = |table: &str| Place::find(specs, table);
        let members = access.memberships.as_ref().map(|m| {
            let place = place(&m.table)?;
            Ok(Members {
                mirror: Arc::clone(mirror),
                table: place.table,
                organization: place.column(&m.organization)?,
                user: place.column(&m.user)?,
                role: m.role.as_ref().map(|role| place.column(role)).transpose()?,
                by_both: place.index(&[&m.organization, &m.user])?,
                by_user: place.index(&[&m.user])?,
            })
        });
        let names = access.organizations.as_ref().map(|o| {
            let place = place(&o.table)?;
            Ok(Names {
                mirror: Arc::clone(mirror),
                table: place.table,
                name: place.column(&o.name)?,
                by_id: place.index(&[&o.id])?,
            })
        });
        Ok(Self { members: members.transpose()?, names: names.transpose()? })
    }

    /// A table says who is a member of what, not the token.
    #[must_use]
    pub const fn are_mirrored(&self) -> bool {
        self.members.is_some()
    }

    /// The principal's place in the organization, or none.
    #[must_use]
    pub fn role_of(&self, organization: &str, principal: &Principal) -> Option<Membership> {
        if organization == OrganizationId::EVERY || !principal.may_ask_for(organization) {
            return None;
        }
        let Some(members) = &self.members else {
            let role = principal.organizations.get(organization)?.clone();
            return Some(Membership { role });
        };
        members.place_of(organization, &principal.subject)
    }

    /// What the table says of a user by now: their place in the organization, or none. `None` where tokens say it.
    #[must_use]
    pub fn standing_of(&self, organization: &str, user: &str) -> Option<Option<Membership>> {
        let members = self.members.as_ref()?;
        Some(members.place_of(organization, user))
    }

    /// Whose place a change of the mirror may have changed, as (organization, user); nobody's, when it is not of the
    /// memberships table.
    pub fn concerned<'a>(&'a self, applied: &'a Applied) -> impl Iterator<Item = (&'a str, &'a str)> {
        let members = self.members.as_ref().filter(|members| members.table == applied.table);
        let rows = [&applied.before, &applied.after].into_iter().flatten();
        rows.filter_map(move |row| members?.pair(row))
    }

    /// Whether these relations are, or include, the memberships table.
    pub fn is_among(&self, relations: &[Arc<Relation>]) -> bool {
        let is_table = |members: &Members, relation: &Arc<Relation>| {
            members.mirror.find_relation(relation) == Some(members.table)
        };
        self.members.as_ref().is_some_and(|members| relations.iter().any(|r| is_table(members, r)))
    }

    /// The organizations that the principal is a member of, in no order.
    #[must_use]
    pub fn organizations_of(&self, principal: &Principal) -> Vec<Arc<str>> {
        let asks = |id: &Arc<str>| &**id != OrganizationId::EVERY && principal.may_ask_for(id);
        let Some(members) = &self.members else {
            return principal.organizations.keys().filter(|id| asks(id)).cloned().collect();
        };
        let rows = members.mirror.lookup_all(members.table, members.by_user, &[principal.subject.as_bytes()]);
        let ids = rows.iter().filter_map(|row| std::str::from_utf8(row.cell(members.organization)?).ok());
        ids.map(Arc::from).filter(asks).collect()
    }

    /// The organization's name, where a table of them is configured. Only for who is a member.
    #[must_use]
    pub fn organization_name(&self, organization: &str) -> Option<String> {
        let names = self.names.as_ref()?;
        let row = names.mirror.lookup(names.table, names.by_id, &[organization.as_bytes()])?;
        row.cell(names.name).map(|name| String::from_utf8_lossy(name).into_owned())
    }
}

impl Members {
    /// None for a row that is nobody's membership, or of a text that no claim can have.
    fn pair<'a>(&self, row: &'a MirrorRow) -> Option<(&'a str, &'a str)> {
        let text = |column| std::str::from_utf8(row.cell(column)?).ok();
        Some((text(self.organization)?, text(self.user)?))
    }

    fn place_of(&self, organization: &str, user: &str) -> Option<Membership> {
        let key = [organization.as_bytes(), user.as_bytes()];
        let row = self.mirror.lookup(self.table, self.by_both, &key)?;
        let role = self.role.and_then(|column| row.cell(column));
        // A role that is not text is none: it admits to nothing that names a role.
        Some(Membership { role: role.and_then(|role| std::str::from_utf8(role).ok()).map(Arc::from) })
    }
}

fn require<'a>(
    specs: &mut Vec<MirrorSpec>,
    table: &str,
    columns: impl IntoIterator<Item = &'a String>,
    indexes: &[Vec<String>],
) {
    let table = TableName::parse(table);
    let known = specs.iter().position(|spec| spec.table == table).unwrap_or_else(|| {
        specs.push(MirrorSpec { table, columns: Vec::new(), indexes: Vec::new() });
        specs.len() - 1
    });
    let Some(spec) = specs.get_mut(known) else { return };
    for column in columns {
        if !spec.columns.contains(column) {
            spec.columns.push(column.clone());
        }
    }
    for index in indexes {
        if !spec.indexes.contains(index) {
            spec.indexes.push(index.clone());
        }
    }
}

/// A spec and where it stands.
struct Place<'a> {
    table: MirrorTableId,
    spec: &'a MirrorSpec,
}

impl<'a> Place<'a> {
    fn find(specs: &'a [MirrorSpec], table: &str) -> Result<Self, NotMirrored> {
        let table = TableName::parse(table);
        let found = specs.iter().enumerate().find(|(_, spec)| spec.table == table);
        let (at, spec) = found.ok_or(NotMirrored(table))?;
        Ok(Self { table: MirrorTableId(at), spec })
    }

    fn column(&self, name: &str) -> Result<usize, NotMirrored> {
        self.spec.columns.iter().position(|column| column == name).ok_or_else(|| self.lacking())
    }

    fn index(&self, columns: &[&String]) -> Result<usize, NotMirrored> {
        let same = |index: &Vec<String>| index.iter().eq(columns.iter().copied());
        self.spec.indexes.iter().position(same).ok_or_else(|| self.lacking())
    }

    fn lacking(&self) -> NotMirrored {
        NotMirrored(self.spec.table.clone())
    }
}

#[cfg(test)]
mod tests;
