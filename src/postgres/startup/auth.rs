//! Trust, clear text, MD5 and SCRAM-SHA-256, with channel binding where TLS gives one.
//!
//! Source: PostgreSQL documentation, "SASL Authentication" and "Message Formats", AuthenticationRequest.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::frontend;

use crate::config::Secret;
use crate::postgres::dsn::{ChannelBinding, Dsn, Host};
use crate::postgres::error::{AuthenticationError, ConnectFailure};
use crate::postgres::wire::{Frame, Wire, cstr};

/// The kinds of AuthenticationRequest.
mod request {
    pub(super) const OK: u32 = 0;
    pub(super) const KERBEROS: u32 = 2;
    pub(super) const CLEARTEXT: u32 = 3;
    pub(super) const MD5: u32 = 5;
    pub(super) const GSS: u32 = 7;
    pub(super) const SSPI: u32 = 9;
    pub(super) const SASL: u32 = 10;
    pub(super) const SASL_CONTINUE: u32 = 11;
    pub(super) const SASL_FINAL: u32 = 12;
}

/// Answers until the server is content; gives its AuthenticationOk.
pub(super) async fn authenticate(
    wire: &mut Wire,
    dsn: &Dsn,
    host: &Host,
    binding: Option<Vec<u8>>,
) -> Result<Frame, ConnectFailure> {
    let first = next(wire).await?;
    let (kind, data) = split(&first)?;
    let is_bound = kind == request::SASL;
    if dsn.ssl.channel_binding == ChannelBinding::Require && !is_bound {
        return Err(
            AuthenticationError::ChannelBinding("the server asks for an authentication without it").into()
        );
    }
    let password = || dsn.password_for(host).ok_or(AuthenticationError::NoPassword);
    match kind {
        request::OK => return Ok(first),
        request::CLEARTEXT => {
            frontend::password_message(password()?.expose().as_bytes(), wire.output())?;
        }
        request::MD5 => {
            let salt = *data.first_chunk::<4>().ok_or_else(|| malformed(&first))?;
            let hash = md5_hash(dsn.user.as_bytes(), password()?.expose().as_bytes(), salt);
            frontend::password_message(hash.as_bytes(), wire.output())?;
        }
        request::SASL => scram(wire, &first, &password()?, dsn.ssl.channel_binding, binding).await?,
        other => return Err(AuthenticationError::UnknownMethod(name(other)).into()),
    }
    let last = next(wire).await?;
    match split(&last)? {
        (request::OK, _) => Ok(last),
        _ => Err(unexpected(&last, "AuthenticationOk")),
    }
}

async fn scram(
    wire: &mut Wire,
    offer: &Frame,
    password: &Secret,
    choice: ChannelBinding,
    binding: Option<Vec<u8>>,
) -> Result<(), ConnectFailure> {
    let (_, mechanisms) = split(offer)?;
    let (plus, plain) = offered(mechanisms).ok_or_else(|| malformed(offer))?;
    let binding = binding.filter(|_| choice != ChannelBinding::Disable);
    let (mechanism, binding) = match binding {
        Some(hash) if plus => (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash)),
        _ if choice == ChannelBinding::Require => {
            let reason = if plus {
                "there is no TLS to bind to, or its certificate has no binding"
            } else {
                "the server does not offer it"
            };
            return Err(AuthenticationError::ChannelBinding(reason).into());
        }
        // Says that we could have: a server that offered it knows then that somebody took the offer away.
        Some(_) if plain => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
        None if plain => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        _ => return Err(AuthenticationError::UnknownMethod("SASL without SCRAM-SHA-256".to_owned()).into()),
    };
    let broken = |error: std::io::Error| AuthenticationError::Scram(error.to_string());

    let mut exchange = ScramSha256::new(password.expose().as_bytes(), binding);
    frontend::sasl_initial_response(mechanism, exchange.message(), wire.output())?;
    let challenge = expect(wire, request::SASL_CONTINUE, "AuthenticationSASLContinue").await?;
    exchange.update(split(&challenge)?.1).map_err(broken)?;
    frontend::sasl_response(exchange.message(), wire.output())?;
    let verdict = expect(wire, request::SASL_FINAL, "AuthenticationSASLFinal").await?;
    exchange.finish(split(&verdict)?.1).map_err(broken)?;
    Ok(())
}

/// Whether SCRAM is among the mechanisms with and without channel binding.
fn offered(mut names: &[u8]) -> Option<(bool, bool)> {
    let (mut plus, mut plain) = (false, false);
    loop {
        let (name, rest) = cstr(names)?;
        match name {
            b"" => return Some((plus, plain)),
            name if name == sasl::SCRAM_SHA_256_PLUS.as_bytes() => plus = true,
            name if name == sasl::SCRAM_SHA_256.as_bytes() => plain = true,
            _ => {}
        }
        names = rest;
    }
}

async fn expect(wire: &mut Wire, kind: u32, name: &'static str) -> Result<Frame, ConnectFailure> {
    let frame = next(wire).await?;
    if split(&frame)?.0 == kind { Ok(frame) } else { Err(unexpected(&frame, name)) }
}

/// The next AuthenticationRequest.
async fn next(wire: &mut Wire) -> Result<Frame, ConnectFailure> {
    loop {
        let frame = wire.frame().await?;
        match frame.tag {
            b'R' => return Ok(frame),
            b'N' => frame.log_notice(),
            b'E' => return Err(frame.server_error().into()),
            _ => return Err(unexpected(&frame, "an authentication request")),
        }
    }
}

fn split(frame: &Frame) -> Result<(u32, &[u8]), ConnectFailure> {
    let (kind, data) = frame.body().split_first_chunk::<4>().ok_or_else(|| malformed(frame))?;
    Ok((u32::from_be_bytes(*kind), data))
}

fn malformed(frame: &Frame) -> ConnectFailure {
    ConnectFailure::Stream(frame.malformed().into())
}

fn unexpected(frame: &Frame, expected: &'static str) -> ConnectFailure {
    ConnectFailure::Stream(frame.unexpected(expected).into())
}

fn name(kind: u32) -> String {
    match kind {
        request::KERBEROS => "Kerberos V5".to_owned(),
        request::GSS => "GSSAPI".to_owned(),
        request::SSPI => "SSPI".to_owned(),
        other => format!("number {other}"),
    }
}

#[cfg(test)]
mod tests;
