//! Where a server's log left another timeline: what was written there up to that point is this server's past too.
//!
//! A promoted standby begins a timeline. Its history names each timeline that came before and where it was left; above
//! that point the old primary may have gone on alone, and what a reader saw of that never was.
//! (<https://www.postgresql.org/docs/current/protocol-replication.html>, `TIMELINE_HISTORY`)

use crate::postgres::Lsn;

/// Asks for a timeline's history: one row, `filename` and `content`.
pub(super) fn command(timeline: u32) -> String {
    format!("TIMELINE_HISTORY {timeline}")
}

/// Where `timeline` was left, by the content of a later one's history. None: it is no ancestor, or the text says
/// nothing that can be read.
pub(super) fn left_at(content: &str, timeline: u32) -> Option<Lsn> {
    content.lines().find_map(|line| {
        // `<timeline> <position> <reason>`, and comments from `#` on.
        let mut words = line.split_ascii_whitespace();
        let parent: u32 = words.next()?.parse().ok()?;
        let position = words.next()?.parse().ok()?;
        (parent == timeline).then_some(position)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ancestor_was_left_where_the_history_says() {
        let content = "1\t0/3000158\tno recovery target specified\n\n# by hand\n2\t1/A0\tafter LSN 1/A0\n";
        assert_eq!(left_at(content, 1), Some(Lsn::new(0x300_0158)));
        assert_eq!(left_at(content, 2), Some(Lsn::new(0x1_0000_00a0)));
        assert_eq!(left_at(content, 3), None);
        for unreadable in ["", "1", "1 x", "one 0/1", "#1 0/1"] {
            assert_eq!(left_at(unreadable, 1), None, "{unreadable}");
        }
    }
}
