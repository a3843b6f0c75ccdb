//! The new rows of a transaction by which others of it are told more: collected before anything is mapped, because
//! the last one may come after the change that asks for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::bound::BoundTarget;
use super::row::{Known, Row};

/// What one transaction's related rows may take. A transaction has more only where it writes hundreds of thousands
/// of rows with different keys; then none is known, and that is said.
const MAX_BYTES: usize = 64 << 20;
/// A row's share of the map.
const ROW_OVERHEAD_BYTES: usize = 96;

#[derive(Debug, Default)]
pub(super) struct Related {
    /// By target, then by organization and key.
    targets: Vec<HashMap<Box<[u8]>, Collected>>,
    bytes: usize,
    too_many: bool,
    key: Vec<u8>,
}

/// The columns that somebody takes of a row.
#[derive(Debug)]
pub(super) struct Collected(Box<[Held]>);

#[derive(Debug)]
enum Held {
    Null,
    Text(Box<[u8]>),
    Unchanged,
    Oversize { length: u32, digest: u64 },
}

impl Collected {
    pub(super) fn get(&self, column: usize) -> Known<'_> {
        match self.0.get(column) {
            None | Some(Held::Null) => Known::Null,
            Some(Held::Text(text)) => Known::Text(text),
            Some(Held::Unchanged) => Known::Unchanged,
            Some(Held::Oversize { length, digest }) => Known::Oversize { length: *length, digest: *digest },
        }
    }

    fn bytes(&self) -> usize {
        let held = |held: &Held| {
            if let Held::Text(text) = held { text.len() } else { 0 }
        };
        self.0.iter().map(|value| size_of::<Held>() + held(value)).sum()
    }
}

/// What is known of a related row.
#[derive(Debug)]
pub(super) enum Found<'a> {
    None,
    Row(&'a Collected),
    /// There were too many to keep.
    Unknown,
}

impl Related {
    pub(super) fn clear(&mut self, targets: usize) {
        self.targets.truncate(targets);
        self.targets.iter_mut().for_each(HashMap::clear);
        self.targets.resize_with(targets, HashMap::new);
        self.bytes = 0;
        self.too_many = false;
    }

    pub(super) fn collect(&mut self, target: &BoundTarget, row: &Row<'_>) {
        let text = |column: Option<usize>| match row.current(column?) {
            Known::Text(text) => Some(text),
            _ => None,
        };
        let Some(key) = text(target.key) else { return };
        let organization = match target.organization {
            None => None,
            Some(column) => match text(column) {
                None => return,
                organization => organization,
            },
        };
        if self.too_many {
            return;
        }
        write_key(&mut self.key, organization, key);
        let Some(rows) = self.targets.get_mut(target.target) else {
            return;
        };
        let held = |column: &Option<usize>| match column.map(|column| row.current(column)) {
            Some(Known::Text(text)) => Held::Text(text.into()),
            Some(Known::Unchanged) => Held::Unchanged,
            Some(Known::Oversize { length, digest }) => Held::Oversize { length, digest },
            _ => Held::Null,
        };
        match rows.entry(self.key.as_slice().into()) {
            Entry::Occupied(_) if target.first => {}
            Entry::Occupied(mut known) => {
                let collected = Collected(target.columns.iter().map(held).collect());
                self.bytes += collected.bytes();
                self.bytes = self.bytes.saturating_sub(known.insert(collected).bytes());
            }
            Entry::Vacant(place) => {
                let collected = Collected(target.columns.iter().map(held).collect());
                self.bytes += collected.bytes() + self.key.len() + ROW_OVERHEAD_BYTES;
                place.insert(collected);
            }
        }
        if self.bytes > MAX_BYTES {
            self.too_many = true;
            self.targets.iter_mut().for_each(|rows| *rows = HashMap::new());
        }
    }

    /// The row of a target by its key, among those of the organization where the target has one.
    pub(super) fn find(&self, target: usize, organization: Option<&[u8]>, key: &[u8]) -> Found<'_> {
        if self.too_many {
            return Found::Unknown;
        }
        let Some(rows) = self.targets.get(target).filter(|rows| !rows.is_empty()) else {
            return Found::None;
        };
        let mut whole = Vec::with_capacity(key.len() + organization.map_or(0, <[u8]>::len) + 8);
        write_key(&mut whole, organization, key);
        rows.get(whole.as_slice()).map_or(Found::None, Found::Row)
    }

    pub(super) const fn too_many(&self) -> bool {
        self.too_many
    }
}

/// The organization's length first: no two pairs run into one.
fn write_key(out: &mut Vec<u8>, organization: Option<&[u8]>, key: &[u8]) {
    out.clear();
    let organization = organization.unwrap_or_default();
    out.extend_from_slice(&organization.len().to_le_bytes());
    out.extend_from_slice(organization);
    out.extend_from_slice(key);
}
