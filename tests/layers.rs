//! What `src/lib.rs` says of the layers holds: each module uses only those above it in that list.
//!
//! Read from the source text, comments and literals aside, so that a `use` and a path in the middle of a function
//! count alike. Links in documentation don't: they may point anywhere.

#![allow(clippy::expect_used, clippy::panic, reason = "a test: it stops where it can't read what it judges")]

#[path = "layers/code.rs"]
mod code;

use std::fs;
use std::path::{Path, PathBuf};

use code::{References, code_of};

/// One file of `src`.
struct File {
    /// From the repository's root: `src/hub/stream.rs`.
    path: String,
    /// `hub`; `lib` and `main` for the crate's roots.
    layer: String,
    /// How many modules deep: 1 for `src/hub.rs`.
    depth: usize,
    text: String,
    /// The text without comments and literals.
    code: String,
}

impl File {
    /// Unit tests in a file of their own.
    fn is_tests(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The code that ships: what stands above the unit tests, which are last in a file.
    fn shipped(&self) -> &str {
        if self.is_tests() { "" } else { code::above_tests(&self.code) }
    }

    fn is_under(&self, module: &str) -> bool {
        self.path == format!("src/{module}.rs") || self.path.starts_with(&format!("src/{module}/"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> Vec<File> {
    let mut paths = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src is readable") {
            let path: PathBuf = entry.expect("src is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let files: Vec<File> = paths.iter().map(|path| read(path)).collect();
    assert!(files.len() > 20, "src has its modules: {}", files.len());
    files
}

fn read(path: &Path) -> File {
    let text = fs::read_to_string(path).expect("a source file is UTF-8");
    let inside = path.strip_prefix(root().join("src")).expect("a file of src").with_extension("");
    let layer = inside.iter().next().expect("a name").to_string_lossy().into_owned();
    let code = code_of(&text);
    File {
        path: path.strip_prefix(root()).expect("a file of ours").to_string_lossy().replace('\\', "/"),
        layer,
        depth: inside.iter().count(),
        text,
        code,
    }
}

/// The layers in the order of the table in `lib.rs`.
fn layers() -> Vec<String> {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    rows.filter_map(|row| row.split_once('`')).map(|(name, _)| name.to_owned()).collect()
}

/// Fails with every finding at once.
fn expect_none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// Where the shipped code of `files` says one of `words`.
fn mentions<'a>(files: impl Iterator<Item = &'a File>, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in file.shipped().lines().enumerate() {
            for word in words.iter().filter(|word| code::says(line, word)) {
                found.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    found
}

#[test]
fn the_list_in_lib_names_exactly_the_modules() {
    let files = files();
    let mut of_files: Vec<&str> = files.iter().map(|file| file.layer.as_str()).collect();
    of_files.retain(|name| *name != "lib" && *name != "main");
    of_files.sort_unstable();
    of_files.dedup();
    let mut listed = layers();
    listed.sort_unstable();
    assert_eq!(listed, of_files);
}

#[test]
fn each_module_uses_only_those_above_it() {
    let layers = layers();
    let rank = |name: &str| layers.iter().position(|layer| layer == name);
    let mut upward = Vec::new();
    for file in files().iter().filter(|file| file.layer != "lib" && file.layer != "main") {
        let own = rank(&file.layer);
        for reference in References::of(&file.code, file.depth) {
            let of = reference.module.as_str();
            if rank(of) > own {
                upward.push(format!("{}:{}: {} uses {of}", file.path, reference.line, file.layer));
            }
        }
    }
    expect_none("a module uses one below it in src/lib.rs", upward);
}

#[test]
fn journal_and_hub_know_neither_postgres_nor_http_nor_tokens() {
    let mut found = Vec::new();
    let files = files();
    let seam = || files.iter().filter(|file| file.is_under("journal") || file.is_under("hub"));
    for file in seam() {
        for reference in References::of(&file.code, file.depth) {
            let module = reference.module.as_str();
            let position = module == "postgres" && reference.rest.starts_with("::Lsn");
            if ["postgres", "source", "mirror", "access", "http"].contains(&module) && !position {
                found.push(format!("{}:{}: {module}{}", file.path, reference.line, reference.rest));
            }
        }
    }
    let crates = ["tokio_postgres", "postgres_protocol", "sqlx", "axum", "hyper", "jsonwebtoken"];
    found.extend(mentions(seam(), &crates));
    expect_none("a position is all of Postgres that a journal knows", found);
}

#[test]
fn source_knows_no_organization() {
    let files = files();
    let upstream = files.iter().filter(|file| file.is_under("source") || file.is_under("postgres"));
    expect_none(
        "what a row means is the catalog's",
        mentions(upstream, &["OrganizationId", "organization_id"]),
    );
}

#[test]
fn catalog_does_no_io_and_reads_no_clock() {
    let files = files();
    let catalog = || files.iter().filter(|file| file.is_under("catalog"));
    let mut found = mentions(catalog(), &["tokio", "tokio_postgres", "sqlx", "SystemTime", "Instant"]);
    // The files of a catalog are read in one place, before anything runs.
    found.extend(mentions(catalog().filter(|file| file.path != "src/catalog/load.rs"), &["fs"]));
    expect_none("the same change makes the same event wherever and whenever it is mapped", found);
}

#[test]
fn decoders_do_no_io() {
    let files = files();
    let decoders = files.iter().filter(|file| file.is_under("postgres/pgoutput"));
    expect_none("pgoutput is bytes in, messages out", mentions(decoders, &["tokio", "io", "net", "fs"]));
}

#[test]
fn only_http_names_status_codes() {
    let files = files();
    // The command `tail` is a client: it reads what a server's http said.
    let others = files.iter().filter(|file| file.layer != "http" && file.layer != "cli");
    expect_none("what a refusal is called on the wire is http's", mentions(others, &["StatusCode"]));
}

/// A task that nobody holds outlives what it was for. Free to spawn are `app`, which ends what it starts, `cli`, whose
/// commands are processes, `postgres`, whose connections end with their client, and `http`, with a task a connection.
#[test]
fn only_the_edges_spawn_tasks() {
    let files = files();
    let edges = ["app", "cli", "postgres", "http", "main"];
    let inner = files.iter().filter(|file| !edges.contains(&file.layer.as_str()));
    let words = ["tokio::spawn", "task::spawn", "thread::spawn", "spawn_local"];
    expect_none("what lives long is spawned in app", mentions(inner, &words));
}

#[test]
fn every_module_begins_with_what_it_owns() {
    let modules = files().into_iter().filter(|file| file.layer != "main" && !file.is_tests());
    let bare = modules.filter(|file| !file.text.starts_with("//! ")).map(|file| file.path).collect();
    expect_none("a file begins with its module's documentation", bare);
}

#[test]
fn no_file_is_over_500_lines() {
    let long = files().into_iter().filter(|file| file.text.lines().count() > 500);
    let long = long.map(|file| format!("{}: {}", file.path, file.text.lines().count())).collect();
    expect_none("split it: foo.rs beside foo/", long);
}

#[test]
fn every_module_is_a_noun_of_the_domain() {
    let vague = ["utils", "util", "common", "types", "helpers", "misc"];
    // Here the noun is PostgreSQL's: pg_type.
    let named = files().into_iter().filter(|file| file.path != "src/postgres/schema/types.rs");
    let found = named.filter(|file| {
        let name = Path::new(&file.path).with_extension("");
        name.iter().any(|part| vague.iter().any(|word| part == *word))
    });
    expect_none("name what it owns", found.map(|file| file.path).collect());
}
