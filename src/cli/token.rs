//! `walcast token`: signs a token for development, as an application's own backend would.

use std::io::Write;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;

use super::settings::{Settings, jwt_secret};
use crate::access::NewToken;
use crate::config::parse_duration;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The user: the claim sub
    #[arg(long, visible_alias = "user", value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    sub: String,
    /// The organization taken when a request names none
    #[arg(long, value_name = "ID")]
    organization: Option<String>,
    /// The user's role there, where no memberships table says it
    #[arg(long, requires = "organization")]
    role: Option<String>,
    /// A scope, such as walcast:stats; may be given again
    #[arg(long)]
    scope: Vec<String>,
    /// For how long
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    expires: Duration,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "must be a duration such as 30s, 10m or 8h".to_owned())
}

pub(super) fn execute(settings: &Settings, args: Args) -> anyhow::Result<()> {
    let config = settings.load(false)?;
    let mut token = NewToken::new(&args.sub, args.expires, &config.access)
        .within(args.organization.as_deref(), args.role.as_deref());
    token.scope = args.scope.join(" ");
    writeln!(std::io::stdout(), "{}", token.sign(jwt_secret(&config)?)?)?;
    Ok(())
}
