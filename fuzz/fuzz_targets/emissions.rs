//! What it asserts: `walcast::fuzzing::emissions`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::emissions(data));
