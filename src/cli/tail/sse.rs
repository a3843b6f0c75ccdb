//! Reads `text/event-stream` (WHATWG HTML, 9.2.6 "Interpreting an event stream"), however it is cut into pieces.

/// What is longer than this is no event of ours: the reader gives up rather than hold it.
const MAX_EVENT_BYTES: usize = 64 << 20;

/// What a blank line dispatched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Frame {
    /// As far as the stream has said; empty: none.
    pub(in crate::cli) last_id: String,
    /// None: the block had no `data`, and only moved the id.
    pub(in crate::cli) data: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("an event of the stream is longer than 64 MiB")]
pub(in crate::cli) struct EventTooLong;

/// The state between two pieces.
#[derive(Debug, Default)]
pub(in crate::cli) struct Reader {
    line: Vec<u8>,
    /// A CR ended the last line: an LF right after it belongs to it.
    after_cr: bool,
    begun: bool,
    data: Option<String>,
    id: String,
    last_id: String,
    retry_millis: Option<u64>,
}

impl Reader {
    /// A stream that goes on after this id.
    pub(in crate::cli) fn after(last_id: &str) -> Self {
        Self { id: last_id.to_owned(), last_id: last_id.to_owned(), ..Self::default() }
    }

    /// The last `retry:` of the stream.
    pub(in crate::cli) const fn retry_millis(&self) -> Option<u64> {
        self.retry_millis
    }

    /// Takes a piece; gives what it completed.
    pub(in crate::cli) fn push(&mut self, piece: &[u8]) -> Result<Vec<Frame>, EventTooLong> {
        let mut frames = Vec::new();
        for byte in piece {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.after_cr = *byte == b'\r';
                    frames.extend(self.end_line());
                }
                _ => {
                    self.after_cr = false;
                    // However many lines it comes in.
                    if self.line.len() + self.data.as_ref().map_or(0, String::len) >= MAX_EVENT_BYTES {
                        return Err(EventTooLong);
                    }
                    self.line.push(*byte);
                }
            }
        }
        Ok(frames)
    }

    fn end_line(&mut self) -> Option<Frame> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = if self.begun { &line } else { line.strip_prefix('\u{feff}').unwrap_or(&line) };
        self.begun = true;
        if line.is_empty() {
            let moved = self.last_id != self.id;
            self.last_id.clone_from(&self.id);
            let data = self.data.take();
            return (moved || data.is_some()).then(|| Frame { last_id: self.last_id.clone(), data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry_millis = value.parse().ok().or(self.retry_millis);
            }
            // Comments have an empty field; `event` is never sent by walcast.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(last_id: &str, data: Option<&str>) -> Frame {
        Frame { last_id: last_id.to_owned(), data: data.map(str::to_owned) }
    }

    const STREAM: &str = "\u{feff}retry: 2000\nid: e.1.0\ndata: {\"a\":1}\n\n: comment\n\nid: e.2.1\r\ndata:x\r\ndata: y\r\n\r\n\
                          id: e.3.0\n\ndata\rid: a\0b\r\rdata: unfinished";

    fn expected() -> Vec<Frame> {
        vec![
            frame("e.1.0", Some("{\"a\":1}")),
            frame("e.2.1", Some("x\ny")),
            frame("e.3.0", None),
            frame("e.3.0", Some("")),
        ]
    }

    proptest! {
        #[test]
        fn a_stream_reads_the_same_however_it_is_cut(cuts in prop::collection::vec(0..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut reader = Reader::default();
            let mut frames = Vec::new();
            for pair in cuts.windows(2) {
                frames.extend(reader.push(&STREAM.as_bytes()[pair[0]..pair[1]]).unwrap());
            }
            prop_assert_eq!(frames, expected());
            prop_assert_eq!(reader.retry_millis(), Some(2000));
        }
    }

    #[test]
    fn an_event_without_an_end_is_given_up() {
        let mut reader = Reader::default();
        let line = [&b"data:"[..], &[b'x'; 1 << 20], b"\n"].concat();
        let pushes = (0..100).take_while(|_| reader.push(&line).is_ok()).count();
        assert_eq!(pushes, 63, "MiB that were kept");
    }

    #[test]
    fn a_stream_that_goes_on_keeps_its_id_until_it_says_another() {
        let mut reader = Reader::after("e.9.1");
        assert_eq!(reader.push(b"data: x\n\n").unwrap(), [frame("e.9.1", Some("x"))]);
        assert_eq!(reader.push(b"retry: soon\nretry:\n\n").unwrap(), []);
        assert_eq!(reader.retry_millis(), None);
    }
}
