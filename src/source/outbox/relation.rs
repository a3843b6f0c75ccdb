//! Tables as `walcast.outbox_relations` describes them, and rows of them as tuples of the log.

use std::sync::Arc;

use serde::Deserialize;

use crate::postgres::pgoutput::{
    Cell, LongMessages, Relation, RelationColumn, RelationId, ReplicaIdentity, Tuple,
};
use crate::postgres::record::{NotSuchARow, RecordReader};

/// A table as it was when rows were written to it.
#[derive(Debug)]
pub(super) struct Definition {
    /// Of a partition: its root, under whose name changes are published.
    pub(super) relation: Arc<Relation>,
    /// How many values a row's text has, generated columns included.
    values: usize,
    /// For each column of the relation, the place of its value in the text.
    places: Vec<usize>,
}

#[derive(Deserialize)]
struct Described {
    oid: u32,
    schema: String,
    name: String,
    #[serde(default)]
    columns: Option<Vec<DescribedColumn>>,
}

#[derive(Deserialize)]
struct DescribedColumn {
    name: String,
    type_oid: u32,
    type_modifier: i32,
    generated: bool,
    /// In the root; none for what the root does not have, which no partition can.
    place: Option<i16>,
}

impl Definition {
    /// From the JSON that `walcast.outbox_relation` writes.
    pub(super) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        let described: Described = serde_json::from_str(json)?;
        let columns = described.columns.unwrap_or_default();
        let values = columns.len();
        // Generated columns are not in the WAL either.
        let mut columns: Vec<_> =
            columns.into_iter().enumerate().filter(|(_, column)| !column.generated).collect();
        columns.sort_by_key(|(_, column)| column.place);
        let places = columns.iter().map(|(place, _)| *place).collect();
        let columns = columns.into_iter().map(|(_, column)| RelationColumn {
            name: column.name,
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
            // As with replica identity full: the old row is always known, and whole.
            is_key: true,
        });
        let relation = Relation {
            id: RelationId(described.oid),
            namespace: described.schema,
            name: described.name,
            identity: ReplicaIdentity::Full,
            columns: columns.collect(),
        };
        Ok(Self { relation: Arc::new(relation), values, places })
    }

    /// A record's text as a tuple of the relation, without the values that are not kept: those that are omitted in
    /// the outbox, and those beyond `limit`. `kept` counts over both tuples of an update.
    pub(super) fn tuple(
        &self,
        text: &str,
        omitted: &[Omitted],
        limit: LongMessages,
        kept: &mut usize,
    ) -> Result<Tuple, NotSuchARow> {
        let mut reader = RecordReader::new(text.as_bytes())?;
        let values = (0..self.values).map(|_| reader.value()).collect::<Result<Vec<_>, _>>()?;
        reader.end()?;
        let cell = |place: &usize| match values.get(*place) {
            Some(Some(value)) if limit.keeps(value.len(), kept) => Cell::Text(value),
            Some(Some(value)) => Cell::oversize(value),
            Some(None) | None => {
                omitted.iter().find(|omitted| omitted.0 == *place).map_or(Cell::Null, Omitted::cell)
            }
        };
        Tuple::new(self.places.iter().map(cell)).map_err(|_| NotSuchARow)
    }
}

/// A value too long for the outbox: its place in the row's text, its length, and the digest of it in hexadecimal.
#[derive(Debug, Deserialize)]
pub(super) struct Omitted(usize, u64, String);

impl Omitted {
    /// Of both rows of a change, as `walcast.outbox` has them.
    pub(super) fn parse(json: Option<&str>) -> Result<[Vec<Self>; 2], serde_json::Error> {
        let Some(json) = json else { return Ok([Vec::new(), Vec::new()]) };
        let [old, new]: [Option<Vec<Self>>; 2] = serde_json::from_str(json)?;
        Ok([old.unwrap_or_default(), new.unwrap_or_default()])
    }

    fn cell(&self) -> Cell<'static> {
        Cell::Oversize {
            length: u32::try_from(self.1).unwrap_or(u32::MAX),
            digest: u64::from_str_radix(&self.2, 16).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: LongMessages = LongMessages { prefix: "", max_bytes: 10_000 };

    fn read(definition: &Definition, text: &str) -> Result<Tuple, NotSuchARow> {
        definition.tuple(text, &[], LIMIT, &mut 0)
    }

    #[test]
    fn a_partitions_row_reads_as_its_roots_without_generated_columns() {
        let json = r#"{"oid": 7, "schema": "public", "name": "bays", "columns": [
            {"name": "b", "type_oid": 25, "type_modifier": -1, "generated": false, "place": 3},
            {"name": "sum", "type_oid": 23, "type_modifier": -1, "generated": true, "place": 2},
            {"name": "a", "type_oid": 23, "type_modifier": -1, "generated": false, "place": 1}]}"#;
        let definition = Definition::parse(json).unwrap();
        let names: Vec<_> = definition.relation.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let tuple = read(&definition, "(\"x y\",5,1)").unwrap();
        assert_eq!(tuple.cells().collect::<Vec<_>>(), [Cell::Text(b"1"), Cell::Text(b"x y")]);
        assert_eq!(read(&definition, "(1,2)"), Err(NotSuchARow));
    }

    #[test]
    fn values_that_are_not_kept_are_told_by_length_and_digest() {
        let json = r#"{"oid": 7, "schema": "public", "name": "bays", "columns": [
            {"name": "a", "type_oid": 25, "type_modifier": -1, "generated": false, "place": 1},
            {"name": "b", "type_oid": 25, "type_modifier": -1, "generated": false, "place": 2},
            {"name": "c", "type_oid": 25, "type_modifier": -1, "generated": false, "place": 3}]}"#;
        let definition = Definition::parse(json).unwrap();
        let [old, new] = Omitted::parse(Some(r#"[null, [[2, 1073741824, "00000000000000ff"]]]"#)).unwrap();
        assert!(old.is_empty());
        let long = "x".repeat(9000);
        let mut kept = 0;
        let tuple = definition.tuple(&format!("({long},{long},)"), &new, LIMIT, &mut kept).unwrap();
        let cells: Vec<_> = tuple.cells().collect();
        let far = Cell::Oversize { length: 1 << 30, digest: 255 };
        assert_eq!(cells, [Cell::Text(long.as_bytes()), Cell::oversize(long.as_bytes()), far]);
        assert_eq!(kept, 9000);
        assert!(Omitted::parse(Some("[]")).is_err());
    }

    #[test]
    fn a_table_without_columns_has_rows_too() {
        let json = r#"{"oid": 7, "schema": "s", "name": "none", "columns": null}"#;
        assert_eq!(read(&Definition::parse(json).unwrap(), "()").unwrap().len(), 0);
    }
}
