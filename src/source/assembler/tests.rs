use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::postgres::PgTimestamp;
use crate::postgres::pgoutput::{
    Cell, EmittedMessage, OldTuple, Relation, RelationColumn, ReplicaIdentity, Tuple, decode,
};
use crate::postgres::schema::TableName;
use crate::source::{Operation, RowChange};

fn relation(id: u32, columns: usize) -> Relation {
    let column = |place| RelationColumn {
        name: format!("c{place}"),
        type_oid: 25,
        type_modifier: -1,
        is_key: place == 0,
    };
    Relation {
        id: RelationId(id),
        namespace: "public".to_owned(),
        name: format!("t{id}"),
        identity: ReplicaIdentity::Default,
        columns: (0..columns).map(column).collect(),
    }
}

fn tuple(text: &str) -> Tuple {
    Tuple::new([Cell::Text(text.as_bytes()), Cell::Null, Cell::Unchanged]).unwrap()
}

fn begin(lsn: u64) -> LogicalMessage {
    LogicalMessage::Begin(Begin {
        final_lsn: Lsn::new(lsn),
        commit_time: PgTimestamp::from_micros(1),
        xid: 7,
    })
}

fn commit(lsn: u64) -> LogicalMessage {
    LogicalMessage::Commit(Commit {
        commit_lsn: Lsn::new(lsn),
        end_lsn: Lsn::new(lsn + 8),
        commit_time: PgTimestamp::from_micros(2),
    })
}

fn insert(id: u32, text: &str) -> LogicalMessage {
    LogicalMessage::Insert { relation: RelationId(id), new: tuple(text) }
}

fn emitted(transactional: bool, prefix: &str) -> LogicalMessage {
    LogicalMessage::Message(EmittedMessage {
        transactional,
        lsn: Lsn::new(3),
        prefix: prefix.to_owned(),
        content: Bytes::from_static(b"{}"),
    })
}

fn push(assembler: &mut Assembler, message: &LogicalMessage) -> Result<Option<Transaction>, AssembleError> {
    let mut raw = BytesMut::new();
    message.encode(&mut raw);
    let raw = raw.freeze();
    assembler.push(&raw, decode(raw.clone()).unwrap())
}

fn run(limit_bytes: u64, messages: &[LogicalMessage]) -> Vec<Transaction> {
    let mut assembler = Assembler::new(limit_bytes);
    messages.iter().filter_map(|message| push(&mut assembler, message).unwrap()).collect()
}

fn changes(transaction: &Transaction) -> Vec<Change> {
    read(&transaction.changes)
}

fn read(changes: &Changes) -> Vec<Change> {
    let mut reader = changes.reader().unwrap();
    let mut changes = Vec::new();
    while let Some(change) = reader.next().unwrap() {
        changes.push(change.clone());
    }
    changes
}

fn violation(messages: &[LogicalMessage]) -> Violation {
    let mut assembler = Assembler::new(1 << 20);
    let (last, before) = messages.split_last().unwrap();
    for message in before {
        push(&mut assembler, message).unwrap();
    }
    match push(&mut assembler, last) {
        Err(AssembleError::Violation(violation)) => violation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transaction_is_handed_on_at_its_commit() {
    let table = LogicalMessage::Relation(relation(1, 3));
    let mut assembler = Assembler::new(1 << 20);
    for message in [begin(100), table, insert(1, "a")] {
        assert!(push(&mut assembler, &message).unwrap().is_none());
        assert!(assembler.is_open());
    }
    let transaction = push(&mut assembler, &commit(100)).unwrap().unwrap();
    assert!(!assembler.is_open());
    assert_eq!(
        (transaction.commit_lsn, transaction.end_lsn, transaction.xid, transaction.commit_time),
        (Lsn::new(100), Lsn::new(108), 7, PgTimestamp::from_micros(2))
    );
    let expected = RowChange {
        relation: Arc::new(relation(1, 3)),
        operation: Operation::Insert,
        old: None,
        new: Some(tuple("a")),
    };
    assert_eq!(changes(&transaction), [Change::Row(expected)]);
}

#[test]
fn each_change_has_its_relation_as_it_was_in_memory_and_spooled() {
    let messages = [
        LogicalMessage::Relation(relation(1, 3)),
        begin(1),
        insert(1, "a"),
        insert(1, "b"),
        LogicalMessage::Relation(relation(1, 4)),
        insert(1, "c"),
        LogicalMessage::Relation(relation(2, 5)),
        insert(2, "d"),
        insert(1, "e"),
        commit(1),
        begin(2),
        insert(1, "f"),
        commit(2),
    ];
    for limit_bytes in [0, 300, 1 << 20] {
        let transactions = run(limit_bytes, &messages);
        assert_eq!(matches!(transactions[0].changes, Changes::Spooled(_)), limit_bytes < 1 << 20);
        let widths = |transaction| {
            let width = |change: &Change| match change {
                Change::Row(row) => row.relation.columns.len(),
                other => panic!("{other:?}"),
            };
            changes(transaction).iter().map(width).collect::<Vec<_>>()
        };
        assert_eq!(widths(&transactions[0]), [3, 3, 4, 5, 4]);
        assert_eq!(widths(&transactions[1]), [4]);
    }
}

#[test]
fn a_re_read_gives_the_very_relation_that_was_bound() {
    let messages =
        [begin(1), LogicalMessage::Relation(relation(1, 3)), insert(1, "a"), insert(1, "b"), commit(1)];
    let transactions = run(0, &messages);
    let relations = |transaction| {
        let relation = |change: Change| match change {
            Change::Row(row) => row.relation,
            other => panic!("{other:?}"),
        };
        changes(transaction).into_iter().map(relation).collect::<Vec<_>>()
    };
    let (first, second) = (relations(&transactions[0]), relations(&transactions[0]));
    assert!(first.iter().zip(&second).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert!(Arc::ptr_eq(&first[0], &first[1]));
}

#[test]
fn messages_that_are_not_ours_leave_no_trace() {
    let messages = [
        emitted(false, "walcast"),
        begin(1),
        emitted(true, "other"),
        emitted(true, "walcast"),
        emitted(false, "walcast"),
        emitted(true, "walcast.barrier"),
        commit(1),
    ];
    for limit_bytes in [0, 1 << 20] {
        let transactions = run(limit_bytes, &messages);
        assert_eq!(transactions[0].changes.len(), 1);
        assert!(
            matches!(&changes(&transactions[0])[..], [Change::Emit(message)] if message.prefix == "walcast")
        );
    }
}

#[test]
fn a_foreign_message_does_not_count_towards_the_limit() {
    let mut big = emitted(true, "other");
    if let LogicalMessage::Message(message) = &mut big {
        message.content = Bytes::from(vec![b'x'; 10_000]);
    }
    let transactions = run(5000, &[begin(1), big, emitted(true, "walcast"), commit(1)]);
    assert!(matches!(transactions[0].changes, Changes::Memory(_)));
}

#[test]
fn what_no_server_sends_is_an_error() {
    assert_eq!(violation(&[begin(1), begin(2)]), Violation::NestedBegin);
    assert_eq!(violation(&[commit(1)]), Violation::Outside("commit"));
    assert_eq!(
        violation(&[LogicalMessage::Relation(relation(1, 3)), insert(1, "a")]),
        Violation::Outside("change")
    );
    assert_eq!(violation(&[begin(1), insert(9, "a")]), Violation::UnknownRelation(RelationId(9)));
    let (announced, committed) = (Lsn::new(1), Lsn::new(2));
    assert_eq!(violation(&[begin(1), commit(2)]), Violation::CommitMismatch { announced, committed });
}

#[test]
fn a_spool_that_was_cut_off_is_an_error_and_no_shorter_transaction() {
    let mut messages = vec![begin(1), LogicalMessage::Relation(relation(1, 3))];
    messages.extend((0..100).map(|row| insert(1, &format!("row {row}"))));
    messages.push(commit(1));
    let mut transactions = run(0, &messages);
    let Changes::Spooled(spool) = &mut transactions[0].changes else { panic!("it is above the limit") };
    spool.cut_off(spool.file_bytes() - 3);
    let mut reader = transactions[0].reader().unwrap();
    let error = loop {
        match reader.next() {
            Ok(change) => assert!(change.is_some(), "the end came without an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// One step of a generated stream.
#[derive(Clone, Debug)]
enum Step {
    Define { id: u32, columns: usize },
    Change { id: u32, kind: u8, text: String },
    Emit { transactional: bool, own: bool },
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..3u32, 1..5usize).prop_map(|(id, columns)| Step::Define { id, columns }),
        6 => (0..3u32, 0..4u8, "[a-z]{0,300}").prop_map(|(id, kind, text)| Step::Change { id, kind, text }),
        1 => any::<(bool, bool)>().prop_map(|(transactional, own)| Step::Emit { transactional, own }),
        1 => Just(Step::Commit),
    ]
}

fn stream(steps: Vec<Step>) -> Vec<LogicalMessage> {
    let mut messages: Vec<_> = (0..3).map(|id| LogicalMessage::Relation(relation(id, 3))).collect();
    let mut lsn = 100;
    messages.push(begin(lsn));
    for step in steps {
        let message = match step {
            Step::Define { id, columns } => LogicalMessage::Relation(relation(id, columns)),
            Step::Change { id, kind, text } => {
                let (relation, new, old) = (RelationId(id), tuple(&text), OldTuple::Full(tuple("old")));
                match kind {
                    0 => LogicalMessage::Insert { relation, new },
                    1 => LogicalMessage::Update { relation, old: Some(old), new },
                    2 => LogicalMessage::Delete { relation, old: OldTuple::Key(new) },
                    _ => LogicalMessage::Truncate {
                        relations: vec![relation, RelationId(0)],
                        cascade: false,
                        restart_identity: true,
                    },
                }
            }
            Step::Emit { transactional, own } => {
                emitted(transactional, if own { "walcast" } else { "other" })
            }
            Step::Commit => {
                messages.push(commit(lsn));
                lsn += 100;
                begin(lsn)
            }
        };
        messages.push(message);
    }
    messages.push(commit(lsn));
    messages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn spooled_and_in_memory_the_changes_are_the_same(
        steps in prop::collection::vec(step(), 0..200), limit_bytes in 0..20_000u64,
    ) {
        let messages = stream(steps);
        let (memory, spooled) = (run(u64::MAX, &messages), run(limit_bytes, &messages));
        prop_assert_eq!(memory.len(), spooled.len());
        for (memory, spooled) in memory.iter().zip(&spooled) {
            let expected = changes(memory);
            prop_assert_eq!(&changes(spooled), &expected);
            prop_assert_eq!(&changes(spooled), &expected);
            prop_assert_eq!(spooled.changes.len(), expected.len() as u64);
            prop_assert_eq!((memory.commit_lsn, memory.end_lsn), (spooled.commit_lsn, spooled.end_lsn));
        }
    }

    #[test]
    fn in_parts_the_changes_are_the_same_and_none_comes_before_it_may(
        steps in prop::collection::vec(step(), 0..200), limit_bytes in 0..20_000u64, twice in 0..6000u64,
    ) {
        let messages = stream(steps);
        let whole = vec![TableName { schema: "public".to_owned(), name: "t0".to_owned() }];
        let mut assembler = Assembler::new(limit_bytes).in_parts(Some(Parts::new(whole, twice)));
        let mut expected = run(u64::MAX, &messages).into_iter();
        let mut before = Vec::new();
        for message in &messages {
            if let Some(transaction) = push(&mut assembler, message).unwrap() {
                let expected = expected.next().unwrap();
                prop_assert_eq!(transaction.begun, !before.is_empty());
                before.append(&mut changes(&transaction));
                prop_assert_eq!(std::mem::take(&mut before), changes(&expected));
                prop_assert_eq!(transaction.end_lsn, expected.end_lsn);
            }
            if let Some(part) = assembler.take_part() {
                prop_assert_eq!(part.first, before.is_empty());
                prop_assert!(matches!(part.changes, Changes::Memory(_)) && !part.changes.is_empty());
                before.append(&mut read(&part.changes));
                let of_whole = |change: &Change| match change {
                    Change::Row(row) => row.relation.name == "t0",
                    Change::Truncate(relations) => relations.iter().any(|relation| relation.name == "t0"),
                    _ => false,
                };
                prop_assert!(!before.iter().any(of_whole));
            }
        }
        prop_assert!(expected.next().is_none());
    }

    #[test]
    fn no_order_of_messages_makes_it_panic(
        steps in prop::collection::vec(step(), 0..60), order in any::<u64>(), limit_bytes in 0..2000u64,
    ) {
        let mut messages = stream(steps);
        fastrand::Rng::with_seed(order).shuffle(&mut messages);
        let mut assembler = Assembler::new(limit_bytes);
        let mut committed = 0;
        for message in &messages {
            if let Ok(Some(transaction)) = push(&mut assembler, message) {
                committed += 1;
                prop_assert_eq!(changes(&transaction).len() as u64, transaction.changes.len());
            }
        }
        prop_assert!(committed <= messages.len());
    }
}
