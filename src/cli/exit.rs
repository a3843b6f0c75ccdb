//! Where errors become exit codes, and nowhere else.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::catalog::CatalogErrors;
use crate::config::ConfigErrors;

pub(super) const FAILURE: u8 = 1;
/// As clap's own: the command line, the configuration or the catalog must be changed.
pub(super) const USAGE: Code = Code(2);
/// The server knows who asks and says no.
const REFUSED: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(u8);

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        code.0.into()
    }
}

/// What was asked for can't be done as it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The server refuses: who asks must become somebody else.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// None: the reader of our output is gone, as `head` is after its lines; nobody is to be told.
fn code(error: &anyhow::Error) -> Option<Code> {
    for cause in error.chain() {
        if cause.is::<Usage>() || cause.is::<ConfigErrors>() || cause.is::<CatalogErrors>() {
            return Some(USAGE);
        }
        if cause.is::<Refused>() {
            return Some(Code(REFUSED));
        }
    }
    // Deeper in the chain it is a connection that broke: what was asked for was not done.
    let broken =
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    (!broken).then_some(Code(FAILURE))
}

/// Says what went wrong on stderr, and what a shell sees.
pub(super) fn report(done: anyhow::Result<()>) -> ExitCode {
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    let Some(code) = code(&error) else {
        return ExitCode::SUCCESS;
    };
    for line in format!("{error:#}").lines() {
        // Whoever read our errors may be gone.
        let _ = writeln!(io::stderr(), "walcast: {line}");
    }
    code.into()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::config::{ConfigError, Origin};

    #[test]
    fn each_kind_of_error_has_its_code() {
        let code = |error: anyhow::Error| code(&error).map(|code| code.0);
        assert_eq!(code(anyhow::anyhow!("any")), Some(1));
        assert_eq!(code(Usage("which?".to_owned()).into()), Some(2));
        let wrong = ConfigErrors(vec![ConfigError::new(Origin::Default, "x")]);
        assert_eq!(code(Err::<(), _>(wrong).context("outer").unwrap_err()), Some(2));
        assert_eq!(code(Refused("no".to_owned()).into()), Some(3));
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(code(broken().into()), None);
        assert_eq!(code(anyhow::Error::from(broken()).context("output")), None);
        assert_eq!(code(sqlx::Error::Io(broken()).into()), Some(1), "a database that is gone");
    }
}
