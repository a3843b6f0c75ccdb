//! What it asserts: `walcast::fuzzing::expressions`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::expressions(data));
