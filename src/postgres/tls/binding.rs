//! `tls-server-end-point` (RFC 5929, section 4): a hash of the server's certificate, by the hash of its signature.

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5912;

const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// `None` where the signature algorithm names no hash (Ed25519, RSA-PSS): then there is no binding to use.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let signature = Certificate::from_der(certificate).ok()?.signature_algorithm.oid;
    Some(digest(hash_of(signature)?, certificate).as_ref().to_vec())
}

/// MD5 and SHA-1 are replaced by SHA-256, as the RFC demands.
fn hash_of(signature: ObjectIdentifier) -> Option<&'static Algorithm> {
    Some(match signature {
        rfc5912::MD_5_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | ECDSA_WITH_SHA_1
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => &SHA256,
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => &SHA384,
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => &SHA512,
        _ => return None,
    })
}
