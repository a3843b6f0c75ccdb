//! What it asserts: `walcast::fuzzing::emitted`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::emitted(data));
