//! What the documents say of settings, metrics, frames and files is so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: it stops where it can't read what it judges"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use walcast::catalog::{Catalog, SyncReason};
use walcast::config::{Config, KEYS, Layers};
use walcast::source::slot_name;
use walcast::telemetry::metrics::LiveRun;
use walcast::telemetry::{Metrics, Readiness};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a document")
}

/// The cells of a table's rows, of the table whose first heading this is.
fn table(text: &str, first_heading: &str) -> Vec<Vec<String>> {
    let heading = format!("| {first_heading} |");
    let rows: Vec<_> = text
        .lines()
        .skip_while(|line| !line.starts_with(&heading))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect())
        .collect();
    assert!(!rows.is_empty(), "no table {first_heading}");
    rows
}

/// The contents of fenced blocks of this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("\n```{language}\n");
    let ends = |block: &str| block.split_once("\n```").expect("an end of the block").0.to_owned();
    text.split(&fence).skip(1).map(ends).collect()
}

/// What the configuration is with one setting written out.
fn with(name: &str, value: &str) -> String {
    let flags = vec![(name.to_owned(), value.to_owned())];
    format!("{:?}", Layers { flags, ..Layers::default() }.load().unwrap())
}

#[test]
fn the_readme_lists_every_setting_with_its_variable_and_its_default() {
    let rows = table(&read("README.md"), "key");
    let (presets, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row[0] == "[[presets]]");
    assert_eq!(presets[0][1], "file only");
    let named: Vec<_> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let known: Vec<_> = KEYS.iter().map(|key| (key.name.to_owned(), key.variable())).collect();
    assert_eq!(named, known, "all of them, in the order of the sections");

    let config = Config::default();
    let defaults = format!("{config:?}");
    for row in &rows {
        let (name, default) = (row[0].as_str(), row[2].as_str());
        let (section, field) = name.rsplit_once('.').expect("a section");
        match default {
            "none" => {
                let section = section.rsplit('.').next().expect("a name");
                let none = [field, section].map(|name| format!("{name}: None"));
                assert!(none.iter().any(|none| defaults.contains(none)), "{name} has a default");
            }
            "walcast_<database>" => assert_eq!(slot_name(&config.source, "app"), "walcast_app"),
            "[]" => assert_eq!(with(name, ""), defaults, "{name}"),
            written => assert_eq!(with(name, written), defaults, "{name}"),
        }
    }
}

#[test]
fn metrics_that_the_readme_names_are_served() {
    let readme = read("README.md");
    let paragraph = readme.split("**Metrics.**").nth(1).and_then(|rest| rest.split("\n\n").next());
    let named: Vec<_> =
        paragraph.expect("its paragraph").split('`').filter(|word| word.starts_with("walcast_")).collect();
    assert!(named.len() > 3, "{named:?}");
    let metrics = Metrics::new(&Readiness::new());
    // What has labels shows once it has counted.
    metrics.synced("truncated");
    metrics.ran_live(LiveRun::answered);
    let served = metrics.encode();
    for name in named {
        let family = name.strip_suffix("_total").unwrap_or(name);
        assert!(served.contains(&format!("# TYPE {family} ")), "{name}");
    }
}

#[test]
fn the_readme_explains_every_reason_of_a_sync() {
    let told: BTreeSet<_> =
        table(&read("README.md"), "reason of `data.sync`").into_iter().map(|row| row[0].clone()).collect();
    let all = SyncReason::ALL.map(|reason| reason.as_str().to_owned());
    assert_eq!(told, BTreeSet::from(all));
}

#[test]
fn the_catalogs_in_the_readme_load() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("catalog.toml");
    let catalogs: Vec<_> =
        blocks(&read("README.md"), "toml").into_iter().filter(|text| text.contains("[tables.")).collect();
    assert_eq!(catalogs.len(), 2);
    for text in catalogs {
        fs::write(&file, &text).unwrap();
        if let Err(errors) = Catalog::load(&file) {
            panic!("{errors}\n{text}");
        }
    }
}

#[test]
fn files_that_documents_link_to_exist() {
    let mut documents: Vec<_> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(String::from).into();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs =
        fs::read_dir(root.join("docs")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    documents.extend(docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    let mut links = 0;
    for document in documents {
        let text = read(&document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
            links += 1;
            let folder = root.join(&document).parent().expect("a folder").to_owned();
            assert!(folder.join(target).exists(), "{document} links to {target}");
        }
    }
    assert!(links > 0);
}

/// All of the sources, tests included.
fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_threat_names_tests_that_exist() {
    let mut all = String::new();
    for folder in ["src", "tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut all);
    }
    let threats = table(&read("docs/security.md"), "threat");
    assert!(threats.len() > 20);
    for row in threats {
        let [threat, _, tests] = &row[..] else { panic!("{row:?}") };
        for test in tests.split(", ") {
            assert!(all.contains(&format!("fn {test}()")), "{threat}: there is no test {test}");
        }
    }
}

#[test]
fn the_architecture_is_read_in_one_sitting() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= 200, "{lines} lines");
}
