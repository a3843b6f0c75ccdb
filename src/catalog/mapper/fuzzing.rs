//! What a fuzzer is given of this module: the content of an emitted message, signed as `walcast.emit` signs it.

use sha2::{Digest, Sha256};

use super::emit::Verifier;
use crate::catalog::Catalog;
use crate::config::Secret;
use crate::postgres::schema::Schema;

/// Reads `content` as it is, and behind a signature that is right.
///
/// # Panics
/// When a message is accepted that breaks a rule.
pub fn read_emitted(content: &[u8]) {
    const XID: u32 = 7;
    let schema = Schema::default();
    let Ok(compiled) = Catalog::from_files(&[]).and_then(|catalog| catalog.compile(&schema)) else { return };
    let verifier = Verifier::new(Some(&Secret::new("0a0b".to_owned())));
    assert!(verifier.read(XID, content, &compiled).is_err(), "nobody can guess the secret");
    let secret = [0x0a, 0x0b];
    let inner = Sha256::digest([&secret[..], XID.to_string().as_bytes(), b":", content].concat());
    let signature = Sha256::digest([&secret[..], &inner].concat());
    let mut signed = Vec::with_capacity(content.len() + 65);
    for byte in signature {
        signed.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    signed.push(b' ');
    signed.extend_from_slice(content);
    if let Ok(emitted) = verifier.read(XID, &signed, &compiled) {
        assert!(!emitted.organization.is_empty() && emitted.organization != "*");
        assert!(crate::catalog::is_name(&emitted.event_type) && crate::catalog::is_name(&emitted.channel));
    }
}
