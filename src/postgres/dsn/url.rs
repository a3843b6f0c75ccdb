//! `postgres://[user[:password]@][host[:port],…][/database][?name=value&…]`, every part percent-encoded.

use percent_encoding::percent_decode_str;

use super::DsnError;
use super::settings::{Parameter, Settings};

pub(super) fn parse(text: &str) -> Result<Settings, DsnError> {
    let rest = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"))
        .ok_or(DsnError::Scheme)?;
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    // The last "@": one in the password is not an ambiguity, since no host has one.
    let (credentials, hosts) = authority.rsplit_once('@').map_or((None, authority), |(c, h)| (Some(c), h));

    let mut settings = Settings::default();
    if let Some(credentials) = credentials {
        let (user, password) = credentials.split_once(':').map_or((credentials, None), |(u, p)| (u, Some(p)));
        settings.set(Parameter::User, decode(user, "the user")?);
        if let Some(password) = password {
            settings.set(Parameter::Password, decode(password, "the password")?);
        }
    }
    authority_hosts(hosts, &mut settings)?;
    settings.set(Parameter::Database, decode(database, "the database")?);
    if let Some(query) = query {
        parameters(query, &mut settings)?;
    }
    Ok(settings)
}

/// Hosts and ports become two lists, as `host=` and `port=` have them.
fn authority_hosts(text: &str, settings: &mut Settings) -> Result<(), DsnError> {
    if text.is_empty() {
        return Ok(());
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for one in text.split(',') {
        let (host, port) = match one.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']').ok_or(DsnError::Brackets)?;
                let port =
                    if after.is_empty() { "" } else { after.strip_prefix(':').ok_or(DsnError::Brackets)? };
                (host, port)
            }
            None => one.split_once(':').unwrap_or((one, "")),
        };
        hosts.push(decode(host, "the host")?);
        ports.push(decode(port, "the port")?);
    }
    settings.set(Parameter::Host, hosts.join(","));
    if ports.iter().any(|port| !port.is_empty()) {
        settings.set(Parameter::Port, ports.join(","));
    }
    Ok(())
}

fn parameters(query: &str, settings: &mut Settings) -> Result<(), DsnError> {
    // With an "@" behind the "?", this may be the rest of a password with an unescaped "?".
    let quotable = !query.contains('@');
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(DsnError::ParameterSyntax)?;
        let name = decode(name, "a parameter's name")?;
        let value = decode(value, "a parameter's value")?;
        let parameter = Parameter::named(&name)
            .ok_or_else(|| DsnError::UnknownParameter { name: quotable.then_some(name) })?;
        settings.set(parameter, value);
    }
    Ok(())
}

/// Strict, where the crate's decoder lets a malformed escape pass as it stands.
fn decode(text: &str, part: &'static str) -> Result<String, DsnError> {
    let is_escape = |at: &str| {
        let mut bytes = at.bytes();
        let digit = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_hexdigit());
        digit(bytes.next()) && digit(bytes.next())
    };
    if !text.split('%').skip(1).all(is_escape) {
        return Err(DsnError::PercentEncoding { part });
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| DsnError::Text { part })?;
    if decoded.contains('\0') {
        return Err(DsnError::Text { part });
    }
    Ok(decoded.into_owned())
}
