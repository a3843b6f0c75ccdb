//! What the fuzzers assert of a stream that is followed.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use super::sse::{Frame, Reader};

/// Any bytes as a server's event stream: the same frames however it is cut (the first byte says how), none longer than
/// what came.
pub fn event_streams(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let (whole, retry) = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, usize::from(*piece).max(1)), (whole.clone(), retry));
    // What is no UTF-8 is replaced: three bytes for one.
    let length = |frame: &Frame| frame.data.as_ref().map_or(0, String::len);
    assert!(whole.iter().map(length).sum::<usize>() <= 3 * bytes.len());
    assert!(whole.iter().all(|frame| !frame.last_id.contains(['\n', '\r', '\0'])));
}

fn read(bytes: &[u8], piece: usize) -> (Vec<Frame>, Option<u64>) {
    let mut reader = Reader::default();
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece) {
        frames.extend(reader.push(piece).expect("lines shorter than the bound"));
    }
    (frames, reader.retry_millis())
}
