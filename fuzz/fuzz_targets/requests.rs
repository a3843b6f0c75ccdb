//! What it asserts: `walcast::fuzzing::requests`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::requests(data));
