//! What it asserts: `walcast::fuzzing::ids`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::ids(data));
