//! Tables as `walcast.outbox_relations` describes them, and rows of them as tuples of the log.

use std::sync::Arc;

use serde::Deserialize;

use crate::postgres::pgoutput::{Cell, Relation, RelationColumn, RelationId, ReplicaIdentity, Tuple};
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

    /// A record's text as a tuple of the relation.
    pub(super) fn tuple(&self, text: &str) -> Result<Tuple, NotSuchARow> {
        let mut reader = RecordReader::new(text.as_bytes())?;
        let values = (0..self.values).map(|_| reader.value()).collect::<Result<Vec<_>, _>>()?;
        reader.end()?;
        let cell = |place: &usize| match values.get(*place) {
            Some(Some(value)) => Cell::Text(value),
            Some(None) | None => Cell::Null,
        };
        Tuple::new(self.places.iter().map(cell)).map_err(|_| NotSuchARow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partitions_row_reads_as_its_roots_without_generated_columns() {
        let json = r#"{"oid": 7, "schema": "public", "name": "bays", "columns": [
            {"name": "b", "type_oid": 25, "type_modifier": -1, "generated": false, "place": 3},
            {"name": "sum", "type_oid": 23, "type_modifier": -1, "generated": true, "place": 2},
            {"name": "a", "type_oid": 23, "type_modifier": -1, "generated": false, "place": 1}]}"#;
        let definition = Definition::parse(json).unwrap();
        let names: Vec<_> = definition.relation.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let tuple = definition.tuple("(\"x y\",5,1)").unwrap();
        assert_eq!(tuple.cells().collect::<Vec<_>>(), [Cell::Text(b"1"), Cell::Text(b"x y")]);
        assert_eq!(definition.tuple("(1,2)"), Err(NotSuchARow));
    }

    #[test]
    fn a_table_without_columns_has_rows_too() {
        let json = r#"{"oid": 7, "schema": "s", "name": "none", "columns": null}"#;
        assert_eq!(Definition::parse(json).unwrap().tuple("()").unwrap().len(), 0);
    }
}
