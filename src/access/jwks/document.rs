//! A key set's document (RFC 7517), read as if an enemy had written it.
//!
//! What verifies nothing that we accept is passed over, so that a set may hold keys for others: of another kind, for
//! encryption, of another algorithm. A symmetric or a private key has no place in a public document, and is never used.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::access::keys::Key;
use crate::config::Algorithm;

/// Keys of a set that are looked at. Issuers publish two or three: the rest would only make a token without a key id
/// dear to refuse.
const MAX_KEYS: usize = 32;

/// Bytes of an RSA modulus: 8192 bits and a sign.
const MAX_MODULUS: usize = 1025;

/// What a document holds for us.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    pub(super) keys: Vec<Key>,
    /// Keys that can't be used here.
    pub(super) passed_over: usize,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    intended: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private part.
    d: Option<serde::de::IgnoredAny>,
}

impl KeySet {
    /// None when it is no key set at all.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        let document: Document<'_> = serde_json::from_slice(json).ok()?;
        let all = document.keys.len();
        let one = |raw: &&RawValue| serde_json::from_str::<Jwk>(raw.get()).ok()?.into_key();
        let keys: Vec<_> = document.keys.iter().take(MAX_KEYS).filter_map(one).collect();
        Some(Self { passed_over: all - keys.len(), keys })
    }
}

impl Jwk {
    fn into_key(self) -> Option<Key> {
        let signs = self.intended.as_deref().is_none_or(|intended| intended == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let (algorithm, name, bytes) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => (Algorithm::RS256, "RS256", rsa(&self.n?, &self.e?)?),
            ("EC", Some("P-256")) => (Algorithm::ES256, "ES256", point(&self.x?, &self.y?)?),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, "EdDSA", decode(&self.x?)?),
            _ => return None,
        };
        // RFC 9864 gives EdDSA over Ed25519 a name of its own.
        let fits = |alg: &str| alg == name || (algorithm == Algorithm::EdDSA && alg == "Ed25519");
        if !signs || self.d.is_some() || !self.alg.as_deref().is_none_or(fits) {
            return None;
        }
        Key::public(algorithm, self.kid.map(Box::from), &bytes)
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// An uncompressed point on P-256 (SEC 1, section 2.3.3).
fn point(x: &str, y: &str) -> Option<Vec<u8>> {
    let (x, y) = (decode(x)?, decode(y)?);
    (x.len() == 32 && y.len() == 32).then(|| [&[4], &x[..], &y[..]].concat())
}

/// `RSAPublicKey` in DER (RFC 8017 appendix A.1.1): a sequence of two integers.
fn rsa(n: &str, e: &str) -> Option<Vec<u8>> {
    let (n, e) = (decode(n)?, decode(e)?);
    if n.len() > MAX_MODULUS || e.len() > n.len() {
        return None;
    }
    let body = [integer(&n)?, integer(&e)?].concat();
    tagged(0x30, &body)
}

fn integer(big_endian: &[u8]) -> Option<Vec<u8>> {
    let zeroes = big_endian.iter().take_while(|digit| **digit == 0).count();
    let digits = big_endian.get(zeroes..)?;
    let first = *digits.first()?;
    // A high bit would make it negative.
    if first < 0x80 { tagged(2, digits) } else { tagged(2, &[&[0], digits].concat()) }
}

fn tagged(tag: u8, body: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(body.len()).ok()?.to_be_bytes();
    let head = match length {
        [0, short @ 0..0x80] => vec![tag, short],
        [0, long] => vec![tag, 0x81, long],
        [high, low] => vec![tag, 0x82, high, low],
    };
    Some([&head, body].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys made by `openssl`; the text of one can be changed at will.
    const SET: &str = include_str!("../authenticator/fixtures/jwks.json");

    fn algorithms(json: &str) -> Vec<(Algorithm, Option<String>)> {
        let set = KeySet::read(json.as_bytes()).unwrap();
        set.keys.iter().map(|key| (key.algorithm, key.id.as_deref().map(str::to_owned))).collect()
    }

    #[test]
    fn a_set_gives_the_keys_that_verify_what_is_accepted() {
        let id = |id: &str| Some(id.to_owned());
        assert_eq!(
            algorithms(SET),
            [
                (Algorithm::RS256, id("rsa")),
                (Algorithm::ES256, id("p256")),
                (Algorithm::EdDSA, id("ed25519"))
            ]
        );
    }

    #[test]
    fn what_is_for_others_is_passed_over_and_does_no_harm() {
        for (from, to) in [
            (r#""use":"sig""#, r#""use":"enc""#),
            (r#""key_ops":["verify"]"#, r#""key_ops":["encrypt"]"#),
            (r#""alg":"RS256""#, r#""alg":"RS512""#),
            (r#""alg":"RS256""#, r#""alg":"HS256""#),
            (r#""crv":"P-256""#, r#""crv":"P-384""#),
            (r#""crv":"Ed25519""#, r#""crv":"X25519""#),
            (r#""kty":"RSA""#, r#""kty":"oct","k":"AAAA""#),
            (r#""kty":"RSA""#, r#""kty":"RSA","kty":"RSA""#),
            (r#""kty":"EC""#, r#""kty":"EC","d":"AAAA""#),
            (r#""kid":"rsa""#, r#""kid":7"#),
            (r#""e":"AQAB""#, r#""e":"AQ""#),
            (r#""e":"AQAB""#, r#""e":"AQAC""#),
            (r#""e":"AQAB""#, r#""e":"""#),
            (r#""x":""#, r#""x":"AA"#),
        ] {
            assert!(SET.contains(from), "{from}");
            let set = KeySet::read(SET.replacen(from, to, 1).as_bytes()).unwrap();
            assert_eq!((set.keys.len(), set.passed_over), (2, 1), "{to}");
        }
    }

    #[test]
    fn a_point_that_is_not_on_the_curve_and_a_weak_modulus_are_no_keys() {
        let off = format!(
            r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}"}}]}}"#,
            URL_SAFE_NO_PAD.encode([1; 32])
        );
        assert_eq!(algorithms(&off), []);
        let weak = include_str!("../authenticator/fixtures/rsa1024.jwk.json");
        assert_eq!(algorithms(&format!(r#"{{"keys":[{weak}]}}"#)), []);
    }

    #[test]
    fn garbage_is_no_set_and_a_long_set_is_bounded() {
        for garbage in
            ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]"#, "<html>", r#"{"keys":[],"keys":[]}"#]
        {
            assert!(KeySet::read(garbage.as_bytes()).is_none(), "{garbage}");
        }
        let empty = KeySet::read(br#"{"keys":[]}"#).unwrap();
        assert_eq!((empty.keys.len(), empty.passed_over), (0, 0));
        let one = SET.trim().trim_start_matches(r#"{"keys":["#).trim_end_matches("]}");
        let many = format!(r#"{{"keys":[{}]}}"#, vec![one; 30].join(","));
        let set = KeySet::read(many.as_bytes()).unwrap();
        assert_eq!((set.keys.len(), set.passed_over), (32, 58));
    }
}
