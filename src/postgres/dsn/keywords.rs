//! `host=… dbname=…`: pairs parted by white space; values in single quotes may hold some; `\` escapes.

use std::iter::Peekable;
use std::str::Chars;

use super::DsnError;
use super::settings::{Parameter, Settings};

pub(super) fn parse(text: &str) -> Result<Settings, DsnError> {
    let mut settings = Settings::default();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Ok(settings);
        }
        let name = name(&mut rest)?;
        let value = value(&mut rest)?;
        if value.contains('\0') {
            return Err(DsnError::Text { part: "a value" });
        }
        // A name is what stands before "=": nothing of a value, unless its quotes are missing.
        let parameter = Parameter::named(&name).ok_or(DsnError::UnknownParameter { name: Some(name) })?;
        settings.set(parameter, value);
    }
}

fn name(rest: &mut Peekable<Chars<'_>>) -> Result<String, DsnError> {
    let mut name = String::new();
    while let Some(c) = rest.next_if(|c| *c != '=' && !c.is_ascii_whitespace()) {
        name.push(c);
    }
    while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
    match rest.next() {
        Some('=') => Ok(name),
        _ => Err(DsnError::KeywordSyntax {
            problem: "a name has no \"=\" behind it (or use a postgres:// URL)",
        }),
    }
}

fn value(rest: &mut Peekable<Chars<'_>>) -> Result<String, DsnError> {
    let mut apart = false;
    while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {
        apart = true;
    }
    let quoted = rest.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        match rest.next() {
            Some('\\') => value.extend(rest.next()),
            Some('\'') if quoted => return Ok(value),
            None if quoted => {
                return Err(DsnError::KeywordSyntax { problem: "a quoted value has no closing \"'\"" });
            }
            Some(c) if quoted || !c.is_ascii_whitespace() => value.push(c),
            Some(_) | None if apart && !quoted && is_pair(&value) => {
                return Err(DsnError::KeywordSyntax {
                    problem: "a name has nothing behind its \"=\" (an empty value is '')",
                });
            }
            Some(_) | None => return Ok(value),
        }
    }
}

/// The next pair, in the place of a value that was left out: libpq takes it for that value, and so a password for a name
/// of something that is shown.
fn is_pair(value: &str) -> bool {
    value.split_once('=').is_some_and(|(name, _)| Parameter::named(name).is_some())
}
