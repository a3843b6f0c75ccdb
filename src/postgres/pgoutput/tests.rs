use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn encoded(message: &LogicalMessage) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    out.freeze()
}

fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn::new)
}

fn time() -> impl Strategy<Value = PgTimestamp> {
    any::<i64>().prop_map(PgTimestamp::from_micros)
}

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn namespace() -> impl Strategy<Value = String> {
    prop_oneof![Just("pg_catalog".to_owned()), "[^\0]{1,12}"]
}

#[derive(Clone, Debug)]
enum OwnedCell {
    Null,
    Unchanged,
    Text(Vec<u8>),
}

impl OwnedCell {
    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Unchanged => Cell::Unchanged,
            Self::Text(text) => Cell::Text(text),
        }
    }
}

fn cells() -> impl Strategy<Value = Vec<OwnedCell>> {
    let cell = prop_oneof![
        Just(OwnedCell::Null),
        Just(OwnedCell::Unchanged),
        vec(any::<u8>(), 0..20).prop_map(OwnedCell::Text)
    ];
    vec(cell, 0..12)
}

fn tuple() -> impl Strategy<Value = Tuple> {
    cells().prop_map(|cells| Tuple::new(cells.iter().map(OwnedCell::cell)).unwrap())
}

fn old_tuple() -> impl Strategy<Value = OldTuple> {
    prop_oneof![tuple().prop_map(OldTuple::Key), tuple().prop_map(OldTuple::Full)]
}

fn relation() -> impl Strategy<Value = Relation> {
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index)
    ];
    let column = (text(), any::<u32>(), any::<i32>(), any::<bool>()).prop_map(
        |(name, type_oid, type_modifier, is_key)| RelationColumn { name, type_oid, type_modifier, is_key },
    );
    (any::<u32>(), namespace(), text(), identity, vec(column, 0..8)).prop_map(
        |(id, namespace, name, identity, columns)| Relation {
            id: RelationId(id),
            namespace,
            name,
            identity,
            columns,
        },
    )
}

fn message() -> impl Strategy<Value = LogicalMessage> {
    let id = || any::<u32>().prop_map(RelationId);
    prop_oneof![
        (lsn(), time(), any::<u32>()).prop_map(|(final_lsn, commit_time, xid)| LogicalMessage::Begin(
            Begin { final_lsn, commit_time, xid }
        )),
        (lsn(), lsn(), time()).prop_map(|(commit_lsn, end_lsn, commit_time)| LogicalMessage::Commit(
            Commit { commit_lsn, end_lsn, commit_time }
        )),
        (lsn(), text()).prop_map(|(commit_lsn, name)| LogicalMessage::Origin(Origin { commit_lsn, name })),
        relation().prop_map(LogicalMessage::Relation),
        (any::<u32>(), namespace(), text()).prop_map(|(oid, namespace, name)| LogicalMessage::Type(Type {
            oid,
            namespace,
            name
        })),
        (id(), tuple()).prop_map(|(relation, new)| LogicalMessage::Insert { relation, new }),
        (id(), proptest::option::of(old_tuple()), tuple())
            .prop_map(|(relation, old, new)| LogicalMessage::Update { relation, old, new }),
        (id(), old_tuple()).prop_map(|(relation, old)| LogicalMessage::Delete { relation, old }),
        (vec(id(), 0..6), any::<bool>(), any::<bool>()).prop_map(|(relations, cascade, restart_identity)| {
            LogicalMessage::Truncate { relations, cascade, restart_identity }
        }),
        (any::<bool>(), lsn(), text(), vec(any::<u8>(), 0..40)).prop_map(
            |(transactional, lsn, prefix, content)| {
                LogicalMessage::Message(EmittedMessage {
                    transactional,
                    lsn,
                    prefix,
                    content: content.into(),
                })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn every_message_reads_back_as_it_was_written(message in message()) {
        prop_assert_eq!(decode(encoded(&message)), Ok(message));
    }

    #[test]
    fn every_truncation_is_an_error_inside_the_message(message in message()) {
        let whole = encoded(&message);
        for end in 0..whole.len() {
            let error = decode(whole.slice(..end)).expect_err("a truncated message");
            prop_assert!(error.offset <= end, "{error} after {end} bytes");
        }
    }

    #[test]
    fn every_extension_is_an_error(message in message(), more in vec(any::<u8>(), 1..9)) {
        let whole = encoded(&message);
        let error = decode([&whole[..], &more].concat().into()).expect_err("trailing bytes");
        prop_assert_eq!(error.problem, Problem::Trailing(more.len()));
        prop_assert_eq!(error.offset, whole.len());
    }

    #[test]
    fn a_damaged_byte_never_panics_and_what_it_yields_reads_back(
        message in message(),
        at in any::<proptest::sample::Index>(),
        byte: u8,
    ) {
        let mut bytes = encoded(&message).to_vec();
        *at.get_mut(&mut bytes) = byte;
        if let Ok(other) = decode(bytes.into()) {
            prop_assert_eq!(decode(encoded(&other)), Ok(other));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _: Result<LogicalMessage, DecodeError> = decode(bytes.into());
    }

    #[test]
    fn columns_are_found_by_number(cells in cells()) {
        let tuple = Tuple::new(cells.iter().map(OwnedCell::cell)).unwrap();
        let mut scratch = vec![CellSpan::Null; 3];
        let row = tuple.read(&mut scratch);
        prop_assert_eq!((row.len(), tuple.len()), (cells.len(), cells.len()));
        for (index, expected) in cells.iter().enumerate() {
            prop_assert_eq!(row.cell(index), Some(expected.cell()));
        }
        prop_assert_eq!(row.cell(cells.len()), None);
        prop_assert!(tuple.cells().eq(cells.iter().map(OwnedCell::cell)));
    }
}

#[test]
fn errors_name_message_place_and_problem() {
    let mut insert = encoded(&LogicalMessage::Insert {
        relation: RelationId(1),
        new: Tuple::new([Cell::Text(b"abc")]).unwrap(),
    })
    .to_vec();
    for (at, byte, expected) in [
        (5, b'X', "pgoutput message Insert, byte 5: a new tuple's mark can't be 88"),
        (6, 0xFF, "pgoutput message Insert, byte 6: a count of columns can't be -255"),
        (8, b'b', "pgoutput message Insert, byte 8: a column's kind can't be 98"),
        (9, 0x80, "pgoutput message Insert, byte 9: a value's length can't be -2147483645"),
        (12, 9, "pgoutput message Insert, byte 13: the message ends where 6 more bytes are due"),
        (12, 2, "pgoutput message Insert, byte 15: 1 bytes too many"),
        (0, b'z', "pgoutput message 0x7A, byte 0: no such kind of message in protocol 1"),
    ] {
        let before = std::mem::replace(&mut insert[at], byte);
        assert_eq!(decode(insert.clone().into()).unwrap_err().to_string(), expected);
        insert[at] = before;
    }
    let empty = decode(Bytes::new()).unwrap_err().to_string();
    assert_eq!(empty, "pgoutput message, byte 0: the message ends where 1 more bytes are due");
}

#[test]
fn tuples_share_the_bytes_that_came_in() {
    let bytes = encoded(&LogicalMessage::Insert {
        relation: RelationId(1),
        new: Tuple::new([Cell::Text(b"shared")]).unwrap(),
    });
    let range = bytes.as_ptr_range();
    let Ok(LogicalMessage::Insert { new, .. }) = decode(bytes) else { panic!("an insert") };
    let Some(Cell::Text(text)) = new.cells().next() else { panic!("a text") };
    assert!(range.contains(&text.as_ptr()));
}

#[test]
fn impossible_counts_reserve_no_memory() {
    let truncate = [&b"T"[..], &i32::MAX.to_be_bytes(), &[0], &[0; 8]].concat();
    let error = decode(truncate.into()).unwrap_err();
    assert!(matches!(error.problem, Problem::Truncated { .. }), "{error}");
}

#[test]
fn too_many_columns_are_refused() {
    assert!(Tuple::new(std::iter::repeat_n(Cell::Null, 32_767)).is_ok());
    assert_eq!(Tuple::new(std::iter::repeat_n(Cell::Null, 32_768)), Err(TupleTooLarge));
}
