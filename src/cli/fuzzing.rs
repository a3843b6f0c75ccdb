//! What the fuzzers assert of the reader of event streams: `walcast tail`.

pub use super::tail::fuzzing::event_streams;
