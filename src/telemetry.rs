//! What the worker says about itself: readiness, metrics, logs.
//!
//! Everything here is written by the modules below and read by `http` and `app`. It knows what may be said (the
//! names, the states), never why.

mod freshness;
pub mod logging;
pub mod metrics;
mod process;
mod readiness;

pub use freshness::{Age, Freshness};
pub use metrics::Metrics;
pub use readiness::{Phase, Readiness, Reason, Snapshot, State};
