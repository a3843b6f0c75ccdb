//! What it asserts: `walcast::fuzzing::catalogs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::catalogs(data));
