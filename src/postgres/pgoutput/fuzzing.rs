//! What the fuzzers assert of the decoder and of the reader of long messages.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use bytes::{Bytes, BytesMut};

use super::{CellSpan, Condenser, LogicalMessage, LongMessages, OldTuple, Problem, Tuple, decode};

/// Any bytes as a logical message. What is accepted reads back the same once written. Read as it arrives, it comes out
/// the same however it is cut, and as it is where there is room; what is left out makes it shorter, never unreadable.
pub fn pgoutput(data: &[u8]) {
    let whole = decode(Bytes::copy_from_slice(data));
    if let Ok(message) = &whole {
        for tuple in tuples(message) {
            let mut scratch: Vec<CellSpan> = Vec::new();
            let row = tuple.read(&mut scratch);
            assert_eq!(row.len(), tuple.len());
            assert!(tuple.cells().enumerate().all(|(index, cell)| row.cell(index) == Some(cell)));
        }
        let mut again = BytesMut::new();
        message.encode(&mut again);
        assert_eq!(decode(again.freeze()).as_ref(), Ok(message));
    }

    let piece = 1 + data.len() % 13;
    for max_bytes in [data.len(), 64] {
        let keep = LongMessages { prefix: "walcast", max_bytes };
        let condensed = condense(data, data.len().max(1), keep);
        assert_eq!(condense(data, piece, keep), condensed);
        match (&whole, condensed) {
            (_, Ok(None)) => assert_eq!(data.first(), Some(&b'M')),
            (Ok(message), Ok(Some(kept))) => {
                assert!(kept.len() <= data.len());
                if max_bytes == data.len() {
                    assert_eq!(kept, data);
                }
                let kept = decode(kept).expect("what is left of a message is one");
                let cells = |message| tuples(message).iter().map(|tuple| tuple.len()).collect::<Vec<_>>();
                assert_eq!(cells(&kept), cells(message));
            }
            (Ok(_), Err(problem)) => panic!("{problem:?} in a message that is right"),
            (Err(_), _) => {}
        }
    }
}

fn condense(data: &[u8], piece: usize, keep: LongMessages) -> Result<Option<Bytes>, Problem> {
    let mut condenser = Condenser::new(data.len(), keep);
    let mut input = BytesMut::new();
    for piece in data.chunks(piece) {
        input.extend_from_slice(piece);
        condenser.push(&mut input)?;
    }
    assert!(condenser.is_complete() && input.is_empty(), "{} bytes were not taken", input.len());
    Ok(condenser.finish())
}

fn tuples(message: &LogicalMessage) -> Vec<&Tuple> {
    match message {
        LogicalMessage::Insert { new, .. } => vec![new],
        LogicalMessage::Update { old, new, .. } => {
            old.iter().map(OldTuple::tuple).chain(std::iter::once(new)).collect()
        }
        LogicalMessage::Delete { old, .. } => vec![old.tuple()],
        _ => Vec::new(),
    }
}
