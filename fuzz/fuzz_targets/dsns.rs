//! What it asserts: `walcast::fuzzing::dsns`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::dsns(data));
