//! What is wrong with a connection text. It is never quoted where a part of a password could be in it.

use super::settings::Parameter;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    #[error("a database URL starts with postgres:// or postgresql://")]
    Scheme,
    #[error("{part}: \"%\" must be followed by two hexadecimal digits (a literal \"%\" is %25)")]
    PercentEncoding { part: &'static str },
    #[error("{part} is not UTF-8 text without zero bytes once its percent-encoding is undone")]
    Text { part: &'static str },
    #[error("an IPv6 host is written in brackets, as in [::1]:5432")]
    Brackets,
    #[error(
        "the port of host {position} is not a number from 1 to 65535 (if a user or password comes before it: \
         each of : / ? # [ ] @ % in them must be percent-encoded)"
    )]
    Port { position: usize },
    #[error("{hosts} hosts but {ports} ports: give one port, or one for each host")]
    PortCount { hosts: usize, ports: usize },
    #[error("a parameter after \"?\" is not written as name=value")]
    ParameterSyntax,
    #[error("keyword=value pairs: {problem}")]
    KeywordSyntax { problem: &'static str },
    #[error("unknown connection parameter {}; known are {}", .name.as_deref().unwrap_or("name"), Parameter::names())]
    UnknownParameter {
        /// Withheld where it may be a part of a password with an unescaped `?` or `&`.
        name: Option<String>,
    },
    #[error("{parameter}={value:?} is not {allowed}")]
    Value { parameter: &'static str, value: String, allowed: &'static str },
    #[error("sslcert and sslkey are given together or not at all")]
    ClientCertificate,
    #[error(
        "sslmode={mode} is too weak for sslrootcert=system: every site in the world would pass; use verify-full"
    )]
    WeakMode { mode: &'static str },
    #[error("the URL names no user, and the operating system's user has no name")]
    User,
}
