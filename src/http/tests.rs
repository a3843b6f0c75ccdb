//! The server as a client meets it: over TCP, its answers asserted whole.

mod bench;
mod client;
mod expiry;
mod lifecycle;
mod probes;
mod refusals;
mod streams;
mod tickets;
