//! `walcast tail`: follows an organization's events in a terminal, over HTTP as any client does.

mod follow;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod render;
mod sse;

use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::builder::NonEmptyStringValueParser;

use super::exit::Usage;
use super::settings::{Settings, jwt_secret, pair, start_logging, variable};
use crate::config::Secret;

pub(super) use follow::{Credential, Follow, Signer};
pub(super) use render::Style;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The worker; by default where http.listen says
    #[arg(long)]
    url: Option<String>,
    /// Whose events; left out, the token's own organization
    #[arg(long, value_name = "ID")]
    organization: Option<String>,
    /// Who asks, also WALCAST_TOKEN; without, one is signed for --sub with access.jwt_secret
    #[arg(long, conflicts_with = "sub")]
    token: Option<Secret>,
    /// The user to sign a token for
    #[arg(long, visible_alias = "user", value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    sub: Option<String>,
    /// The user's role, where no memberships table says it
    #[arg(long, requires_all = ["sub", "organization"])]
    role: Option<String>,
    /// Only these channels, comma-separated
    #[arg(long)]
    channel: Option<String>,
    /// Only these types, comma-separated
    #[arg(long)]
    types: Option<String>,
    /// Only events with this tag, such as deviceId=a,b; may be given again
    #[arg(long = "tag", value_name = "NAME=VALUES", value_parser = pair)]
    tags: Vec<(String, String)>,
    /// Where to start: an event id, a duration such as 5m, or earliest
    #[arg(long)]
    since: Option<String>,
    /// Each event as it came, one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) async fn execute(settings: &Settings, args: Args) -> anyhow::Result<()> {
    start_logging("warn")?;
    let config = settings.load(false)?;
    let given = || Some(variable("WALCAST_TOKEN")?.into_string().ok()?.into());
    let token = if args.sub.is_some() { None } else { args.token.or_else(given) };
    let credential = match (token, args.sub) {
        (Some(token), _) => Credential::Given(token),
        (None, Some(user)) => Credential::Signed(Box::new(Signer {
            secret: jwt_secret(&config)?.clone(),
            user,
            organization: args.organization.clone(),
            role: args.role,
            access: config.access.clone(),
        })),
        (None, None) => {
            let text =
                "who asks? Give --token (or WALCAST_TOKEN), or --sub to sign one with access.jwt_secret";
            return Err(Usage(text.to_owned()).into());
        }
    };
    let mut parameters = Vec::new();
    let named = [("organizationId", args.organization), ("channel", args.channel), ("types", args.types)];
    parameters.extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    parameters.extend(args.tags);
    Follow {
        base: args.url.unwrap_or_else(|| local_url(config.http.listen)),
        credential,
        parameters,
        since: args.since,
        style: Style::of(args.json, io::stdout().is_terminal(), std::env::var_os("NO_COLOR").as_deref()),
        quiet: false,
    }
    .run(&mut io::stdout())
    .await
}

/// How this machine reaches what listens there: an unspecified address is every one, so the loopback.
pub(super) fn local_url(listen: SocketAddr) -> String {
    let address = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(address, listen.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_reached_by_the_loopback() {
        let url = |listen: &str| local_url(listen.parse().unwrap());
        assert_eq!(url("0.0.0.0:8080"), "http://127.0.0.1:8080");
        assert_eq!(url("[::]:80"), "http://[::1]:80");
        assert_eq!(url("10.1.2.3:80"), "http://10.1.2.3:80");
    }
}
