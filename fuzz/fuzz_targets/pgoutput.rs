//! Any bytes as a logical message: decoding never panics, and what it accepts reads back the same once written.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run pgoutput`

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use walcast::postgres::pgoutput::{CellSpan, LogicalMessage, OldTuple, Tuple, decode};

fuzz_target!(|data: &[u8]| {
    let Ok(message) = decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    for tuple in tuples(&message) {
        let mut scratch: Vec<CellSpan> = Vec::new();
        let row = tuple.read(&mut scratch);
        assert_eq!(row.len(), tuple.len());
        assert!(
            tuple
                .cells()
                .enumerate()
                .all(|(index, cell)| row.cell(index) == Some(cell))
        );
    }
    let mut again = BytesMut::new();
    message.encode(&mut again);
    assert_eq!(decode(again.freeze()), Ok(message));
});

fn tuples(message: &LogicalMessage) -> Vec<&Tuple> {
    match message {
        LogicalMessage::Insert { new, .. } => vec![new],
        LogicalMessage::Update { old, new, .. } => old.iter().map(OldTuple::tuple).chain([new]).collect(),
        LogicalMessage::Delete { old, .. } => vec![old.tuple()],
        _ => Vec::new(),
    }
}
