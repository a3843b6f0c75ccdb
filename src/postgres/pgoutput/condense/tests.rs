use proptest::prelude::*;

use super::*;
use crate::postgres::Lsn;
use crate::postgres::pgoutput::{Cell, EmittedMessage, LogicalMessage, OldTuple, RelationId, Tuple, decode};

const KEEP: LongMessages = LongMessages { prefix: "walcast", max_bytes: 100_000 };

/// Condensed, the bytes coming in pieces of these sizes, over and over; another message follows on the wire.
fn condense(message: &[u8], pieces: &[usize]) -> Result<Option<Bytes>, Problem> {
    let mut condenser = Condenser::new(message.len(), KEEP);
    let mut wire = message.iter().chain(b"next").copied().collect::<BytesMut>();
    let mut input = BytesMut::new();
    for piece in pieces.iter().cycle() {
        input.unsplit(wire.split_to((*piece).clamp(1, wire.len().max(1)).min(wire.len())));
        condenser.push(&mut input)?;
        if condenser.is_complete() {
            input.unsplit(wire);
            assert_eq!(input, b"next"[..], "what follows is left alone");
            return Ok(condenser.finish());
        }
        assert!(input.len() < 32, "all but the beginning of a field is taken");
    }
    unreachable!()
}

fn encoded(message: &LogicalMessage) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    out.freeze()
}

fn condensed(message: &LogicalMessage, pieces: &[usize]) -> LogicalMessage {
    decode(condense(&encoded(message), pieces).unwrap().unwrap()).unwrap()
}

fn tuple(values: &[Option<Vec<u8>>]) -> Tuple {
    Tuple::new(values.iter().map(|value| value.as_ref().map_or(Cell::Null, |text| Cell::Text(text)))).unwrap()
}

/// The same by the rule alone: what is small stays, and of the rest what fits, in order.
fn expected(values: &[Option<Vec<u8>>], kept: &mut usize) -> Tuple {
    let digest = |text: &[u8]| {
        let digest = aws_lc_rs::digest::digest(&SHA256, text);
        u64::from_be_bytes(*digest.as_ref().first_chunk().unwrap())
    };
    let cells = values.iter().map(|value| match value {
        None => Cell::Null,
        Some(text) if text.len() <= SMALL_BYTES => Cell::Text(text),
        Some(text) if *kept + text.len() <= KEEP.max_bytes => {
            *kept += text.len();
            Cell::Text(text)
        }
        Some(text) => Cell::Oversize { length: u32::try_from(text.len()).unwrap(), digest: digest(text) },
    });
    Tuple::new(cells).unwrap()
}

fn values() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    let length = prop_oneof![0..10usize, SMALL_BYTES - 1..SMALL_BYTES + 2, 40_000..120_000usize];
    let value = prop::option::of((any::<u8>(), length).prop_map(|(byte, length)| vec![byte; length]));
    prop::collection::vec(value, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_keep_what_fits_however_they_are_cut(
        old in values(), new in values(), full in any::<bool>(),
        pieces in prop::collection::vec(prop_oneof![1..9usize, 500..70_000usize], 1..6),
    ) {
        // Nothing but tiny pieces would take for ever.
        let pieces: Vec<_> = pieces.into_iter().chain([30_000]).collect();
        let relation = RelationId(7);
        let wrap = |tuple| if full { OldTuple::Full(tuple) } else { OldTuple::Key(tuple) };
        let insert = LogicalMessage::Insert { relation, new: tuple(&new) };
        let by_rule = LogicalMessage::Insert { relation, new: expected(&new, &mut 0) };
        prop_assert_eq!(condensed(&insert, &pieces), by_rule);
        let delete = LogicalMessage::Delete { relation, old: wrap(tuple(&old)) };
        let by_rule = LogicalMessage::Delete { relation, old: wrap(expected(&old, &mut 0)) };
        prop_assert_eq!(condensed(&delete, &pieces), by_rule);
        let update = LogicalMessage::Update { relation, old: Some(wrap(tuple(&old))), new: tuple(&new) };
        let mut kept = 0;
        let (old, new) = (expected(&old, &mut kept), expected(&new, &mut kept));
        let by_rule = LogicalMessage::Update { relation, old: Some(wrap(old)), new };
        prop_assert_eq!(condensed(&update, &pieces), by_rule);
    }

    #[test]
    fn any_bytes_are_condensed_alike_however_they_are_cut(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"IUDMtnuoNKO\0".to_vec())], 1..200),
        pieces in prop::collection::vec(1..50usize, 1..6),
    ) {
        let whole = condense(&bytes, &[bytes.len() + 4]);
        let cut = condense(&bytes, &pieces);
        prop_assert_eq!(whole.is_err(), cut.is_err());
        prop_assert_eq!(whole.ok(), cut.ok());
    }
}

fn emitted(prefix: &str, content: usize) -> LogicalMessage {
    LogicalMessage::Message(EmittedMessage {
        transactional: true,
        lsn: Lsn::new(3),
        prefix: prefix.to_owned(),
        content: vec![b'x'; content].into(),
    })
}

#[test]
fn of_a_strangers_message_nothing_is_kept() {
    for prefix in ["stranger", "walcas", "walcast2", "", &"p".repeat(300_000)] {
        assert_eq!(condense(&encoded(&emitted(prefix, 300_000)), &[1000]), Ok(None), "{prefix:.10}");
    }
}

#[test]
fn an_emitted_message_is_kept_whole_or_reads_as_empty() {
    let whole = emitted("walcast", KEEP.max_bytes);
    assert_eq!(condensed(&whole, &[1000]), whole);
    assert_eq!(condensed(&emitted("walcast", KEEP.max_bytes + 1), &[1000]), emitted("walcast", 0));
}

#[test]
fn what_has_no_values_to_leave_out_is_refused_when_it_is_too_long() {
    let truncate = |relations| {
        encoded(&LogicalMessage::Truncate {
            relations: vec![RelationId(1); relations],
            cascade: false,
            restart_identity: false,
        })
    };
    assert_eq!(condense(&truncate(1000), &[999]), Ok(Some(truncate(1000))));
    assert!(condense(&truncate(100_000), &[999]).is_err());
}
