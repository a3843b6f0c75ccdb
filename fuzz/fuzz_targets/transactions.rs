//! What it asserts: `walcast::fuzzing::transactions`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::transactions(data));
