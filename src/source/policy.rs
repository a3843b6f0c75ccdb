//! Which errors pass by themselves, which wait for somebody, and which end the process.

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Passes by itself: retry with backoff.
    Transient,
    /// Somebody has to do something: retry slowly, and readiness says what.
    Operator,
    /// Can't be right however often it is tried: exit with the reason.
    Fatal,
}
