//! What it asserts: `walcast::fuzzing::values`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::values(data));
