//! What it asserts: `walcast::fuzzing::event_streams`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::event_streams(data));
