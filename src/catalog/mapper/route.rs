//! Whose a change is: the isolation of organizations begins here.

use crate::catalog::event::OrganizationId;
use crate::catalog::rule::TableRules;
use crate::source::Operation;

use super::bound::Bound;
use super::row::{Known, Row};
use super::trouble::Trouble;

/// Who is told of a change of a row, and what it is to them.
pub(super) struct Halves<'a> {
    /// The old half: a delete, or a row that went to another organization.
    pub(super) old: Option<(Row<'a>, &'a str)>,
    /// The new half.
    pub(super) new: Option<(Row<'a>, &'a str)>,
}

/// Whose change it is. None when the log does not tell.
///
/// An old organization that is not logged is taken for the new one, and is a problem: the identity was lowered, and
/// a `data.sync` to everybody for each update of a table would be worse than what it tells.
pub(super) fn route<'a>(
    rules: &TableRules,
    bound: &Bound,
    row: Row<'a>,
    trouble: &mut Trouble,
) -> Option<Halves<'a>> {
    let is_delete = row.operation() == Operation::Delete;
    let whole = |organization| {
        let half = Some((row, organization));
        if is_delete { Halves { old: half, new: None } } else { Halves { old: None, new: half } }
    };
    let Some(slot) = rules.organization else {
        return Some(whole(OrganizationId::EVERY));
    };
    let column = bound.position(slot)?;
    // Some(None) is nobody's: null, or a claim to be every organization, which all of them would see.
    let read = |known: Known<'a>| match known {
        Known::Text(text) => {
            Some(std::str::from_utf8(text).ok().filter(|id| !matches!(*id, OrganizationId::EVERY | "")))
        }
        // No organization's id is so long.
        Known::Null | Known::Oversize { .. } => Some(None),
        Known::Unchanged | Known::Unlogged => None,
    };
    let Some(current) = read(row.current(column)) else {
        trouble.unlogged_of(rules, &bound.relation);
        return None;
    };
    if current.is_none() && rules.fires_on(row.operation()) {
        trouble.no_organization(rules, bound.relation.id.0);
    }
    let old = if row.operation() == Operation::Update {
        read(row.old(column)).unwrap_or_else(|| {
            trouble.unlogged_of(rules, &bound.relation);
            current
        })
    } else {
        current
    };
    Some(if old == current {
        current.map_or(Halves { old: None, new: None }, whole)
    } else {
        Halves {
            old: old.map(|organization| (row.left(), organization)),
            new: current.map(|organization| (row.arrived(), organization)),
        }
    })
}
