//! What it asserts: `walcast::fuzzing::key_sets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::key_sets(data));
