//! What it asserts: `walcast::fuzzing::tokens`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::tokens(data));
