//! Logging: text on a terminal, one JSON object a line elsewhere; to stderr, so that stdout belongs to the commands.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// The variable whose value selects what is logged, in `tracing_subscriber`'s syntax: `debug`, `walcast::source=trace`.
pub const VARIABLE: &str = "WALCAST_LOG";

/// What is logged when the variable is not set.
pub const DEFAULT: &str = "warn,walcast=info";

#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("{VARIABLE} is not a filter such as \"info\" or \"warn,walcast::source=debug\": {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the process, once; `filter` is the variable's value.
///
/// # Errors
/// When the filter can't be read, or on a second call.
pub fn init(filter: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let set = if io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    set.map_err(|_| LoggingError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_says_what_a_good_one_looks_like() {
        let error = init("walcast=loud").unwrap_err().to_string();
        assert!(error.starts_with("WALCAST_LOG is not a filter such as \"info\""), "{error}");
    }
}
