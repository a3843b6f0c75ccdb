//! What it asserts: `walcast::fuzzing::authentication`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::authentication(data));
