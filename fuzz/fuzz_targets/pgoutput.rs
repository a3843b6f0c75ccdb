//! What it asserts: `walcast::fuzzing::pgoutput`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walcast::fuzzing::pgoutput(data));
