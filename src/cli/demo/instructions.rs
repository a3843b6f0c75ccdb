//! What the demo tells to try: every line works as it stands.

use std::io::{self, Write};
use std::path::Path;

pub(super) struct Instructions<'a> {
    /// `http://127.0.0.1:8080`.
    pub(super) base: &'a str,
    pub(super) token: &'a str,
    pub(super) organization: &'a str,
    /// The database's URL with its password, which is good for this private server only.
    pub(super) database: &'a str,
    /// How this program was called.
    pub(super) program: &'a str,
    /// The folder that stays.
    pub(super) data: Option<&'a Path>,
}

impl Instructions<'_> {
    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { base, token, organization, database, program, data } = self;
        let kept =
            data.map_or_else(|| "goes with it".to_owned(), |folder| format!("stays in {}", folder.display()));
        writeln!(
            out,
            "
Live events in a browser:
  {base}/#token={token}&organizationId={organization}

As any client gets them:
  curl -N -H 'Authorization: Bearer {token}' '{base}/api/realtime/stream?organizationId={organization}'

In another terminal, the last minute first:
  {program} tail --url {base} --organization {organization} --since 1m --token {token}

Change something yourself:
  psql '{database}' -c \"update lots set occupied = 0, updated_at = now() where id = '{organization}-lot-1'\"

The token alone, for a day:
  {token}

Ctrl-C ends all of it; the data {kept}. The events of {organization} now, times in UTC:
"
        )?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_carries_what_it_needs() {
        let mut out = Vec::new();
        let instructions = Instructions {
            base: "http://127.0.0.1:8080",
            token: "a.b.c",
            organization: "acme",
            database: "postgres://postgres:p@127.0.0.1:20000/walcast",
            program: "walcast",
            data: None,
        };
        instructions.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in [
            "  http://127.0.0.1:8080/#token=a.b.c&organizationId=acme",
            "  curl -N -H 'Authorization: Bearer a.b.c' 'http://127.0.0.1:8080/api/realtime/stream?organizationId=acme'",
            "  walcast tail --url http://127.0.0.1:8080 --organization acme --since 1m --token a.b.c",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
        assert!(
            text.contains("\n  psql 'postgres://postgres:p@127.0.0.1:20000/walcast' -c \"update lots set")
        );
    }
}
