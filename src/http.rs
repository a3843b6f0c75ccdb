//! Paths, parameters, status codes, and the bytes on a socket.
//!
//! ```text
//! listener ─► connection ─► router ─┬─► probes, console
//!                                   └─► admission ─► (the connection becomes) delivery ─► sink ─► socket
//! ```
//!
//! Only this module knows status codes. A request is refused in one place (`refusal`), a stream is opened in one
//! (`admission`) and written by one (`delivery`); what a stream shows is the hub's to say.

mod address;
mod admission;
mod body;
mod clock;
mod connection;
mod console;
mod control;
mod cors;
mod delivery;
mod descriptors;
mod emit;
mod endpoint;
mod expiry;
mod frames;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keepalive;
mod limits;
mod live;
mod lobby;
mod members;
mod parameters;
mod places;
mod probes;
mod query;
mod recheck;
mod refusal;
mod registry;
mod router;
mod server;
mod sink;
mod state;
mod stats;
mod stream_head;
mod tickets;
mod view;

pub use address::InvalidNetwork;
pub use endpoint::{InvalidPreset, NATIVE, Vocabulary};
pub use server::{Server, ServerError};
pub use state::{Services, Visibility};

#[cfg(test)]
mod tests;
