//! What the fuzzers assert of key sets.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use super::document::KeySet;
use crate::access::jws::Jws;
use crate::config::Algorithm;

/// A token of each algorithm whose signature is nobody's.
const HEADERS: [&str; 3] = ["eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJFUzI1NiJ9", "eyJhbGciOiJFZERTQSJ9"];

/// Any bytes as a key set. Few keys come of it, none of them symmetric, and none verifies what nobody signed.
pub fn key_sets(data: &[u8]) {
    let Some(set) = KeySet::read(data) else { return };
    assert!(set.keys.len() <= 32, "{} keys", set.keys.len());
    for key in &set.keys {
        assert_ne!(key.algorithm, Algorithm::HS256);
        for header in HEADERS {
            let token = format!("{header}.e30.{}", "A".repeat(86));
            let token = Jws::parse(&token).ok().expect("a token's form");
            assert!(!key.verifies(token.message, &token.signature), "a signature that nobody made");
        }
    }
}
