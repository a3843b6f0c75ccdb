//! What a change means: rows in, events out.
//!
//! No IO and no clock: a catalog is compiled once against the live schema, and from then on the same transaction
//! makes the same events, byte for byte, on every node and after every restart.

pub mod event;
pub mod value;

pub use event::{Audience, Epoch, Event, EventId, Kind, OrganizationId, SyncReason, Tags};
pub use value::{Encoder, encode_string};
