//! What it asserts: `walcast::fuzzing::changes`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::changes(data));
