//! File descriptors: every socket is one, and a process that has none left serves nobody.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::lobby;

/// What is kept for files, sessions with the database, and listeners.
const OWN: usize = 128;

/// Connections that are no stream, unless that is more than a quarter.
const FEWEST_GUESTS: usize = 256;

/// How descriptors are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Connections that are no stream.
    pub(super) guests: usize,
    pub(super) streams: u32,
}

/// Takes as many descriptors as the process may have, and shares them out.
pub(super) fn share_out(streams: u32) -> Shares {
    let shares = shared(raised(), streams);
    if streams != 0 && shares.streams < streams {
        tracing::warn!(
            limit = streams,
            possible = shares.streams,
            "limits.streams is more than the process may open files for (ulimit -n): the smaller number holds"
        );
    }
    shares
}

/// The limit of open files, raised to what it may be. None: there is none, or it can't be told.
fn raised() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if limit.current == limit.maximum || setrlimit(Resource::Nofile, most).is_err() {
        limit.current
    } else {
        limit.maximum
    };
    now.and_then(|now| usize::try_from(now).ok())
}

fn shared(descriptors: Option<usize>, streams: u32) -> Shares {
    let Some(descriptors) = descriptors else {
        return Shares { guests: lobby::MOST, streams };
    };
    let sockets = descriptors.saturating_sub(OWN).max(8);
    let guests = lobby::MOST.min((sockets / 16).max(FEWEST_GUESTS.min(sockets / 4)));
    let possible = u32::try_from(sockets - guests).unwrap_or(u32::MAX);
    Shares { guests, streams: if streams == 0 { possible } else { streams.min(possible) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_leave_descriptors_for_who_comes_next() {
        assert_eq!(shared(None, 0), Shares { guests: 4096, streams: 0 });
        assert_eq!(shared(Some(1 << 20), 100_000), Shares { guests: 4096, streams: 100_000 });
        assert_eq!(shared(Some(20_000), 100_000), Shares { guests: 1242, streams: 18_630 });
        assert_eq!(shared(Some(1024), 0), Shares { guests: 224, streams: 672 });
        assert_eq!(shared(Some(10), 5), Shares { guests: 2, streams: 5 });
    }
}
