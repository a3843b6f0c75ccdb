//! Which history the ids of this worker belong to.

use sha2::{Digest, Sha256};

use crate::catalog::Epoch;
use crate::source::Identity;

/// The same for every worker that reads the same database by the same kind of source with the same catalog, and for
/// no other. Fields are separated by a byte that none of them holds, so that no two lists read alike.
#[must_use]
pub(super) fn epoch(identity: &Identity, source: &str, catalog_fingerprint: u64) -> Epoch {
    let fields = [
        identity.system_identifier.clone(),
        identity.timeline.to_string(),
        identity.database_oid.to_string(),
        identity.publication.clone(),
        source.to_owned(),
        catalog_fingerprint.to_string(),
    ];
    let digest = Sha256::digest(fields.join("\0"));
    let hash = digest.first_chunk().copied().unwrap_or_default();
    Epoch::new(u64::from_be_bytes(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            system_identifier: "7301234567890123456".to_owned(),
            timeline: 1,
            database_oid: 16_384,
            database: "app".to_owned(),
            publication: "p".to_owned(),
        }
    }

    #[test]
    fn an_epoch_is_the_same_in_every_process() {
        assert_eq!(epoch(&identity(), "wal", 7).to_string(), "e6b9a14ee6d2d43c");
    }

    #[test]
    fn another_server_timeline_database_publication_source_or_catalog_is_another_epoch() {
        let base = epoch(&identity(), "wal", 7);
        let others = [
            epoch(&Identity { system_identifier: "1".to_owned(), ..identity() }, "wal", 7),
            epoch(&Identity { timeline: 2, ..identity() }, "wal", 7),
            epoch(&Identity { database_oid: 5, ..identity() }, "wal", 7),
            epoch(&Identity { publication: "q".to_owned(), ..identity() }, "wal", 7),
            epoch(&identity(), "outbox", 7),
            epoch(&identity(), "wal", 8),
        ];
        assert!(others.iter().all(|other| *other != base));
    }
}
