//! What the fuzzers assert of transactions: how messages become them, and how they are read from a file.

#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops where a promise is broken")]

use std::io::Write;

use bytes::Bytes;

use super::assembler::Assembler;
use super::{Change, Transaction};
use crate::postgres::pgoutput;

pub use super::spool::fuzzing::spools;

/// Any messages, each with two bytes of its length in front. The transactions are the same wherever their changes were
/// kept: in memory, in a file, or partly in each; they read the same twice; and what no server sends is an error.
pub fn transactions(data: &[u8]) {
    let mut messages = Vec::new();
    let mut rest = data;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (message, after) = after.split_at(usize::from(u16::from_be_bytes(*length)).min(after.len()));
        messages.push(Bytes::copy_from_slice(message));
        rest = after;
    }
    let kept = assemble(&messages, u64::MAX);
    for limit in [0, 300] {
        assert_eq!(assemble(&messages, limit), kept, "a limit of {limit} bytes");
    }
}

/// What came of a server's messages, up to the first error.
#[derive(Debug, PartialEq)]
enum Outcome {
    Transaction { positions: [u64; 2], xid: u32, changes: Vec<Change> },
    Error(String),
}

fn assemble(messages: &[Bytes], limit_bytes: u64) -> Vec<Outcome> {
    let mut assembler = Assembler::new(limit_bytes);
    let mut outcomes = Vec::new();
    for raw in messages {
        let assembled = match pgoutput::decode(raw.clone()) {
            Ok(message) => assembler.push(raw, message).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match assembled {
            Ok(None) => {}
            Ok(Some(transaction)) => {
                assert!(!assembler.is_open());
                let changes = changes(&transaction);
                assert_eq!(self::changes(&transaction), changes, "read again");
                assert_eq!(transaction.changes.len(), changes.len() as u64);
                let positions = [transaction.commit_lsn.as_u64(), transaction.end_lsn.as_u64()];
                outcomes.push(Outcome::Transaction { positions, xid: transaction.xid, changes });
            }
            Err(error) => {
                outcomes.push(Outcome::Error(error));
                break;
            }
        }
    }
    outcomes
}

fn changes(transaction: &Transaction) -> Vec<Change> {
    let mut reader = transaction.reader().expect("its file opens");
    let mut changes = Vec::new();
    while let Some(change) = reader.next().expect("what was written reads") {
        changes.push(change.clone());
    }
    changes
}

/// A file of these bytes.
pub(super) fn file_of(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("room on the disk");
    file
}
