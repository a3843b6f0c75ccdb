//! What of a transaction does not fit in memory: an unlinked temporary file.

use std::io;
use std::marker::PhantomData;

use super::Change;

/// A transaction's changes, partly in a file.
#[derive(Debug)]
pub enum Spool {}

impl Spool {
    pub(super) fn reader(&self) -> io::Result<SpoolReader<'_>> {
        match *self {}
    }

    pub(super) fn len(&self) -> u64 {
        match *self {}
    }
}

#[derive(Debug)]
pub(super) struct SpoolReader<'a>(std::convert::Infallible, PhantomData<&'a Spool>);

impl SpoolReader<'_> {
    pub(super) fn next(&mut self) -> io::Result<Option<&Change>> {
        match self.0 {}
    }
}
