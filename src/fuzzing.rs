//! What the fuzzers run: every reader of bytes that somebody else wrote, each with what must hold whatever they are.
//!
//! ```text
//! fuzz/fuzz_targets/<name>.rs ─► fuzzing::<name>(bytes) ◄─ the tests below: seeds, regressions, mutations of both
//! ```
//!
//! A target is a function of any bytes; it panics where a promise is broken. Each lives beside the reader that it is
//! for. They are compiled for tests and under a fuzzer (`--cfg fuzzing`), never into the product. docs/fuzzing.md says
//! what each asserts, and how to run them.

pub use crate::access::fuzzing::{credentials, key_sets, tokens};
pub use crate::catalog::fuzzing::{catalogs, changes, emitted, expressions, ids, values};
pub use crate::cli::fuzzing::event_streams;
pub use crate::config::fuzzing::settings;
pub use crate::http::fuzzing::{addresses, emissions, requests};
pub use crate::postgres::fuzzing::{answers, authentication, dsns, frames, passfiles, pgoutput};
pub use crate::source::fuzzing::{spools, transactions};

/// A target: it must return, whatever the bytes are.
pub type Target = fn(&[u8]);

/// All of them, by the names that their files in `fuzz/` have.
pub const TARGETS: [(&str, Target); 22] = [
    ("addresses", addresses),
    ("answers", answers),
    ("authentication", authentication),
    ("catalogs", catalogs),
    ("changes", changes),
    ("credentials", credentials),
    ("dsns", dsns),
    ("emissions", emissions),
    ("emitted", emitted),
    ("event_streams", event_streams),
    ("expressions", expressions),
    ("frames", frames),
    ("ids", ids),
    ("key_sets", key_sets),
    ("passfiles", passfiles),
    ("pgoutput", pgoutput),
    ("requests", requests),
    ("settings", settings),
    ("spools", spools),
    ("tokens", tokens),
    ("transactions", transactions),
    ("values", values),
];

#[cfg(test)]
mod tests;
