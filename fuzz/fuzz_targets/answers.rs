//! What it asserts: `walcast::fuzzing::answers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::answers(data));
