//! `walcast tail`: follows an organization's events in a terminal, over HTTP as any client does.

mod follow;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod render;
mod sse;

use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
    /// Whose events; left out, those of the organization that --token names (its claim organizationId)
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
    let organization = match (args.organization, &token) {
        (Some(organization), _) => organization,
        (None, Some(token)) => named_by(token).ok_or_else(|| no_organization("the token names none"))?,
        (None, None) => return Err(no_organization("--sub says only who asks")),
    };
    let credential = match (token, args.sub) {
        (Some(token), _) => Credential::Given(token),
        (None, Some(user)) => Credential::Signed(Box::new(Signer {
            secret: jwt_secret(&config)?.clone(),
            user,
            organization: Some(organization.clone()),
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
    let named = [("organizationId", Some(organization)), ("channel", args.channel), ("types", args.types)];
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

/// The claim `organizationId`, as it stands there: whether the token is good is for the worker to say.
fn named_by(token: &Secret) -> Option<String> {
    let claims = token.expose().split('.').nth(1)?;
    let claims: serde_json::Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?).ok()?;
    claims.get("organizationId")?.as_str().map(str::to_owned)
}

fn no_organization(why: &str) -> anyhow::Error {
    Usage(format!("whose events? Give --organization; {why}")).into()
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
    fn a_token_says_its_organization_and_what_is_none_says_nothing() {
        let token = |claims: &str| Secret::from(format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims)));
        let named = token(r#"{"sub":"u1","organizationId":"acme"}"#);
        assert_eq!(named_by(&named).as_deref(), Some("acme"));
        for none in [token(r#"{"sub":"u1"}"#), token(r#"{"organizationId":7}"#), token("[]")] {
            assert_eq!(named_by(&none), None);
        }
        for none in ["", "a", "a.b", "a.ä.c", "a..c"] {
            assert_eq!(named_by(&Secret::from(none.to_owned())), None);
        }
    }

    #[test]
    fn an_unspecified_address_is_reached_by_the_loopback() {
        let url = |listen: &str| local_url(listen.parse().unwrap());
        assert_eq!(url("0.0.0.0:8080"), "http://127.0.0.1:8080");
        assert_eq!(url("[::]:80"), "http://[::1]:80");
        assert_eq!(url("10.1.2.3:80"), "http://10.1.2.3:80");
    }
}
