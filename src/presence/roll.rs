//! Who is online in a room as JSON text, written once for many readers.
//!
//! A crowd that connects reads the roll once each, and each changes it. So the text is shared, and who came since it
//! was written is added by each reader, until they are an eighth of it: then it is written anew. What a reader holds
//! of its own is at most that eighth.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

/// Written anew when the added are more than this part of the written.
const SHARE: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Roll {
    /// `["a","b"`: open at its end. None: it names somebody who is gone.
    written: Option<(Bytes, usize)>,
    added: Vec<Arc<str>>,
}

impl Roll {
    /// Somebody who is not in it has come.
    pub(super) fn add(&mut self, name: &Arc<str>) {
        if self.written.is_some() {
            self.added.push(name.clone());
        }
    }

    /// Somebody has gone.
    pub(super) fn remove(&mut self) {
        *self = Self::default();
    }

    /// A JSON array of strings in two pieces; `online` are all who are in it.
    pub(super) fn read<'a>(&mut self, online: impl Iterator<Item = &'a Arc<str>>) -> [Bytes; 2] {
        let whole = self.written.take().filter(|(_, names)| self.added.len() * SHARE <= *names);
        let (written, names) = whole.unwrap_or_else(|| {
            self.added.clear();
            let mut text = BytesMut::from(&b"["[..]);
            let mut names = 0;
            for name in online {
                push(&mut text, name, names == 0);
                names += 1;
            }
            (text.freeze(), names)
        });
        let mut rest = BytesMut::new();
        for (n, name) in self.added.iter().enumerate() {
            push(&mut rest, name, names + n == 0);
        }
        rest.put_u8(b']');
        self.written = Some((written.clone(), names));
        [written, rest.freeze()]
    }
}

fn push(text: &mut BytesMut, name: &str, is_first: bool) {
    if !is_first {
        text.put_u8(b',');
    }
    // A string is always JSON, and this memory takes every write.
    let _ = serde_json::to_writer(text.writer(), name);
}
