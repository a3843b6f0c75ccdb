//! What it asserts: `walcast::fuzzing::passfiles`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::passfiles(data));
