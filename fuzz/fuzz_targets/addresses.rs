//! What it asserts: `walcast::fuzzing::addresses`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::addresses(data));
