//! What rustls does not look at in a server's certificate, and libpq does.

use std::time::Duration;

use rustls::pki_types::{ServerName, UnixTime};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::{rfc4519::COMMON_NAME, rfc5280::ID_CE_SUBJECT_ALT_NAME};

/// Whether now lies in the certificate's period.
pub(super) fn is_current(certificate: &[u8], now: UnixTime) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return false;
    };
    let validity = &certificate.tbs_certificate.validity;
    let now = Duration::from_secs(now.as_secs());
    (validity.not_before.to_unix_duration()..=validity.not_after.to_unix_duration()).contains(&now)
}

/// Whether a certificate without alternative names was issued for the host by its common name: what `openssl req
/// -subj /CN=…` makes, as PostgreSQL's manual shows it. One with alternative names has to list the host there.
pub(super) fn common_name_is(certificate: &[u8], host: &ServerName<'_>) -> bool {
    let ServerName::DnsName(host) = host else {
        return false;
    };
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return false;
    };
    let certificate = certificate.tbs_certificate;
    let extensions = certificate.extensions.unwrap_or_default();
    if extensions.iter().any(|extension| extension.extn_id == ID_CE_SUBJECT_ALT_NAME) {
        return false;
    }
    let mut names = certificate.subject.0.iter().flat_map(|part| part.0.iter());
    // The type of the text does not matter: a host's name is ASCII in each of them.
    let common_name = names.find(|name| name.oid == COMMON_NAME).map(|name| name.value.value());
    common_name.is_some_and(|name| matches_host(name, host.as_ref().as_bytes()))
}

/// Equal, or a wildcard for exactly one label, as in `*.example.com`.
fn matches_host(pattern: &[u8], host: &[u8]) -> bool {
    if let Some(suffix) = pattern.strip_prefix(b"*") {
        let label = host.iter().position(|byte| *byte == b'.').unwrap_or(host.len());
        return label > 0
            && suffix.first() == Some(&b'.')
            && suffix.get(1..).is_some_and(|rest| rest.contains(&b'.'))
            && host.get(label..).is_some_and(|rest| rest.eq_ignore_ascii_case(suffix));
    }
    pattern.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::postgres::tls::binding;

    #[test]
    fn wildcard_stands_for_one_label() {
        for (pattern, host, expected) in [
            ("db.example.com", "DB.example.com", true),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.com", "example.com", false),
            ("*", "localhost", false),
            ("", "localhost", false),
        ] {
            assert_eq!(matches_host(pattern.as_bytes(), host.as_bytes()), expected, "{pattern} {host}");
        }
    }

    /// `openssl req -x509 -subj /CN=db.example.com`; valid on 2026-11-21 from 12:19:45 for a day.
    const COMMON_NAME_ONLY: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBhzCCAS2gAwIBAgIUZ8/PSY/YmudXKUeDQ5RORfpGppYwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOZGIuZXhhbXBsZS5jb20wHhcNMjYxMTIxMTIxOTQ1WhcNMjYx
MTIyMTIxOTQ1WjAZMRcwFQYDVQQDDA5kYi5leGFtcGxlLmNvbTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABBNWolAe3BlcSguNCdXvDmI83Ddze5XrLCnXx6l/XgR0
RHV9YwEatRtD6zOFxuphjXBMtrk7hJWpymFWVihXBwujUzBRMB0GA1UdDgQWBBQt
VtnEMZrgZ9xQLLz5z6RsVNAnQDAfBgNVHSMEGDAWgBQtVtnEMZrgZ9xQLLz5z6Rs
VNAnQDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIAL8opKyZLM2
TnDmczZ6Yya4IgPbu2eqkfdz99EZ7l0OAiEAxEd6pFYJGE/LvOlxmFlAQxUJVUW4
XnRS/+KGLfr3wXY=
-----END CERTIFICATE-----";

    /// The same name, an Ed25519 key, and the alternative name `x`.
    const ALTERNATIVE_NAME: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBVTCCAQegAwIBAgIUdJn7Ip2VeD7gRShK5TkTofu6g2EwBQYDK2VwMBkxFzAV
BgNVBAMMDmRiLmV4YW1wbGUuY29tMB4XDTI2MTEyMTEyMTk0NloXDTI2MTEyMjEy
MTk0NlowGTEXMBUGA1UEAwwOZGIuZXhhbXBsZS5jb20wKjAFBgMrZXADIQDACMU6
OHf/LOLjS97Vi4Vx4MFvqcRSIqtHm/8AKp2j5qNhMF8wHQYDVR0OBBYEFPtNI52/
IirY2VuDgkUyxnnvOeM/MB8GA1UdIwQYMBaAFPtNI52/IirY2VuDgkUyxnnvOeM/
MA8GA1UdEwEB/wQFMAMBAf8wDAYDVR0RBAUwA4IBeDAFBgMrZXADQQBvIURMLdl3
W8X2UpM9US+PkZuS3Fvhi/XQVvhkdgJ+gWFg3ftb26YZEhwH4dCcl37fOgk2P7N/
naXtG38kGhAF
-----END CERTIFICATE-----";

    fn der(pem: &[u8]) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem).unwrap()
    }

    #[test]
    fn common_name_counts_only_without_alternative_names() {
        let host = |name| ServerName::try_from(name).unwrap();
        assert!(common_name_is(&der(COMMON_NAME_ONLY), &host("db.example.com")));
        assert!(!common_name_is(&der(COMMON_NAME_ONLY), &host("example.com")));
        assert!(!common_name_is(&der(COMMON_NAME_ONLY), &host("127.0.0.1")));
        assert!(!common_name_is(&der(ALTERNATIVE_NAME), &host("db.example.com")));
    }

    #[test]
    fn period_has_a_start_and_an_end() {
        const START: u64 = 1_795_263_585;
        for (seconds, expected) in
            [(START - 1, false), (START, true), (START + 86_400, true), (START + 86_401, false)]
        {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            assert_eq!(is_current(&der(COMMON_NAME_ONLY), now), expected, "{seconds}");
        }
    }

    #[test]
    fn binding_is_the_certificates_hash_or_nothing() {
        let hash = binding::server_end_point(&der(COMMON_NAME_ONLY)).unwrap();
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "20d9c2e13cf852d719676b50e008a95212289cef8ab9d043f14f259c33613060");
        assert_eq!(binding::server_end_point(&der(ALTERNATIVE_NAME)), None, "Ed25519 names no hash");
    }

    #[test]
    fn bytes_that_are_no_certificate_prove_nothing() {
        let host = ServerName::try_from("localhost").unwrap();
        assert!(!common_name_is(b"\x30\x03garbage", &host));
        assert!(!is_current(b"\x30\x03garbage", UnixTime::now()));
    }
}
