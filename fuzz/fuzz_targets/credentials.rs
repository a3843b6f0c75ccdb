//! What it asserts: `walcast::fuzzing::credentials`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::credentials(data));
