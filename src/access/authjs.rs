//! Session cookies of Auth.js and NextAuth.js: JSON Web Encryption (RFC 7516) with a key derived from the
//! application's secret.
//!
//! | | next-auth 4 | next-auth 5, @auth/core |
//! | --- | --- | --- |
//! | cookie | `next-auth.session-token` | `authjs.session-token` |
//! | `alg`, `enc` | `dir`, `A256GCM` | `dir`, `A256CBC-HS512` (older ones `A256GCM`) |
//! | key | HKDF-SHA256 of the secret, no salt | HKDF-SHA256 of the secret, the cookie's name as salt |
//! | its info | `NextAuth.js Generated Encryption Key` | `Auth.js Generated Encryption Key (<cookie's name>)` |
//!
//! Over https the names begin with `__Secure-`. Source: `next-auth/jwt` 4.24 and `@auth/core/jwt` 0.41; what those
//! packages made is in `authjs/vectors.json`. Whoever can encrypt such a cookie has the secret, so that what is inside
//! is believed as a signed token is. The header's `kid` only says which secret fits; each is tried instead.

use aws_lc_rs::cipher::{self, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{aead, hkdf, hmac};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::authenticator::TokenError;
use super::jws::{MAX_TOKEN, decode, object};
use crate::config::{self, Secret};

/// Bytes of a GCM nonce and tag (RFC 7518 section 5.3).
const GCM_NONCE: usize = 12;
const GCM_TAG: usize = 16;

/// Bytes of a CBC initialization vector, and of the half of the HMAC that is its tag (RFC 7518 section 5.2.5).
const CBC_VECTOR: usize = 16;
const CBC_TAG: usize = 32;

/// Reads such cookies.
pub(super) struct AuthJs {
    /// By the number of the cookie's name, then by secret, the newest first.
    keys: Vec<Vec<Keys>>,
}

/// The keys derived from one secret for one name.
struct Keys {
    gcm: [u8; 32],
    /// Where the version encrypts so: half of it signs, half of it encrypts.
    cbc: Option<[u8; 64]>,
}

/// What the header may say; a name that stands in it twice is an error.
#[derive(Deserialize)]
struct Header {
    alg: String,
    enc: String,
    crit: Option<IgnoredAny>,
    zip: Option<IgnoredAny>,
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl AuthJs {
    /// With the names of the cookies that it reads.
    pub(super) fn new(configured: &config::AuthJs) -> (Self, Vec<String>) {
        let default =
            if configured.version == 4 { "next-auth.session-token" } else { "authjs.session-token" };
        // A cookie with the prefix was set over https: it goes before one that could have been planted.
        let names = match &configured.cookie {
            Some(name) => vec![name.clone()],
            None => vec![format!("__Secure-{default}"), default.to_owned()],
        };
        let secrets = || configured.secret.iter().chain(&configured.old_secrets);
        let keys =
            |name: &String| secrets().map(|secret| Keys::derive(configured.version, secret, name)).collect();
        (Self { keys: names.iter().map(keys).collect() }, names)
    }

    /// The claims inside, which nobody has judged yet.
    pub(super) fn open(&self, cookie: &str, name: usize) -> Result<Vec<u8>, TokenError> {
        if cookie.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let mut parts = cookie.split('.');
        let mut part = || parts.next().ok_or(TokenError::Malformed);
        let (header, wrapped, vector, ciphertext, tag) = (part()?, part()?, part()?, part()?, part()?);
        // With `dir` there is no wrapped key (RFC 7518 section 4.5).
        if parts.next().is_some() || !wrapped.is_empty() {
            return Err(TokenError::Malformed);
        }
        let bound = header.as_bytes();
        let header: Header = object(&decode(header)?)?;
        if header.alg != "dir" || header.crit.is_some() || header.zip.is_some() {
            return Err(TokenError::Algorithm);
        }
        let (vector, ciphertext, tag) = (decode(vector)?, decode(ciphertext)?, decode(tag)?);
        let sealed = Sealed { bound, vector: &vector, ciphertext: &ciphertext, tag: &tag };
        let mut outcome = Err(TokenError::Algorithm);
        for keys in self.keys.get(name).into_iter().flatten() {
            let opened = match (header.enc.as_str(), &keys.cbc) {
                ("A256GCM", _) => sealed.open_gcm(&keys.gcm),
                ("A256CBC-HS512", Some(key)) => sealed.open_cbc(key),
                _ => return outcome,
            };
            match opened {
                Some(claims) => return Ok(claims),
                None => outcome = Err(TokenError::Signature),
            }
        }
        outcome
    }
}

impl Keys {
    fn derive(version: u8, secret: &Secret, name: &str) -> Self {
        let (salt, info) = if version == 4 {
            ("", "NextAuth.js Generated Encryption Key".to_owned())
        } else {
            (name, format!("Auth.js Generated Encryption Key ({name})"))
        };
        let pseudorandom =
            hkdf::Salt::new(hkdf::HKDF_SHA256, salt.as_bytes()).extract(secret.expose().as_bytes());
        let fill = |key: &mut [u8]| {
            let info = [info.as_bytes()];
            let filled = pseudorandom.expand(&info, Length(key.len())).and_then(|okm| okm.fill(key));
            // Only more than 255 blocks are too many (RFC 5869 section 2.3).
            debug_assert!(filled.is_ok());
        };
        let mut gcm = [0; 32];
        fill(&mut gcm);
        let cbc = (version != 4).then(|| {
            let mut key = [0; 64];
            fill(&mut key);
            key
        });
        Self { gcm, cbc }
    }
}

/// What is encrypted, and what it is bound to.
struct Sealed<'a> {
    bound: &'a [u8],
    vector: &'a [u8],
    ciphertext: &'a [u8],
    tag: &'a [u8],
}

impl Sealed<'_> {
    fn open_gcm(&self, key: &[u8; 32]) -> Option<Vec<u8>> {
        let nonce: [u8; GCM_NONCE] = self.vector.try_into().ok()?;
        if self.tag.len() != GCM_TAG {
            return None;
        }
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, key).ok()?);
        let mut text = [self.ciphertext, self.tag].concat();
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let length = key.open_in_place(nonce, aead::Aad::from(self.bound), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    /// RFC 7518 section 5.2.2.2: the tag first, and in constant time.
    fn open_cbc(&self, key: &[u8; 64]) -> Option<Vec<u8>> {
        let (signing, encrypting) = key.split_at_checked(32)?;
        let vector: [u8; CBC_VECTOR] = self.vector.try_into().ok()?;
        let bits = u64::try_from(self.bound.len()).ok()?.checked_mul(8)?.to_be_bytes();
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA512, signing));
        for part in [self.bound, &vector, self.ciphertext, &bits] {
            context.update(part);
        }
        let tag = context.sign();
        verify_slices_are_equal(tag.as_ref().get(..CBC_TAG)?, self.tag).ok()?;
        let key =
            PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&cipher::AES_256, encrypting).ok()?)
                .ok()?;
        let mut text = self.ciphertext.to_vec();
        let context = DecryptionContext::Iv128(FixedLength::from(vector));
        let length = key.decrypt(&mut text, context).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

#[cfg(test)]
mod tests;
