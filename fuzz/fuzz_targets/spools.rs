//! What it asserts: `walcast::fuzzing::spools`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::spools(data));
