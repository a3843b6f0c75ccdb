//! Every target over what fuzzing found and over its seeds, as they are and bent.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::{TARGETS, Target};

/// Bent inputs of each target; `WALCAST_FUZZ_RUNS` asks for more.
const RUNS: usize = 400;

/// Bytes beyond which a bent input does not grow.
const MAX_BYTES: usize = 8 << 10;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// The files of a target's folder, in the order of their names.
fn files(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder(kind).join(target)) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Runs a target, and says with which input it failed.
fn hold(target: Target, name: &str, input: &[u8], of: &Path) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("{name} does not hold for \"{}\" ({})", input.escape_ascii(), of.display());
    }
}

#[test]
fn what_fuzzing_found_stays_mended() {
    for (name, target) in TARGETS {
        for (path, input) in files("regressions", name) {
            hold(target, name, &input, &path);
        }
    }
}

#[test]
fn every_target_holds_for_its_seeds() {
    for (name, target) in TARGETS {
        let seeds = files("seeds", name);
        assert!(seeds.len() >= 2, "{name} has seeds");
        hold(target, name, b"", Path::new("nothing"));
        for (path, input) in seeds {
            hold(target, name, &input, &path);
        }
    }
}

#[test]
fn every_target_holds_for_bent_seeds() {
    let runs = std::env::var("WALCAST_FUZZ_RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
    for (name, target) in TARGETS {
        let seeds: Vec<_> = ["seeds", "regressions"].into_iter().flat_map(|kind| files(kind, name)).collect();
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..runs {
            let (path, seed) = &seeds[rng.usize(..seeds.len())];
            let mut input = seed.clone();
            for _ in 0..rng.usize(1..6) {
                bend(&mut input, &seeds[rng.usize(..seeds.len())].1, &mut rng);
            }
            hold(target, name, &input, path);
        }
    }
}

/// One mistake, or a piece of another seed.
fn bend(input: &mut Vec<u8>, other: &[u8], rng: &mut fastrand::Rng) {
    let at = rng.usize(..=input.len());
    let piece = |of: &[u8], rng: &mut fastrand::Rng| {
        let start = rng.usize(..=of.len());
        of[start..start + rng.usize(..=(of.len() - start).min(64))].to_vec()
    };
    match rng.u8(..7) {
        0 => input.truncate(at),
        1 => {
            let piece = piece(other, rng);
            input.splice(at..at, piece);
        }
        2 => {
            let piece = piece(input, rng);
            input.splice(at..at, piece);
        }
        3 => input.insert(at, *rng.choice(b"\0\x01\x1e\x1f\n\r\"'\\:,.{}[]%&=#@/ \x7f\xff").unwrap()),
        4 => {
            input.drain(at..(at + rng.usize(..32)).min(input.len()));
        }
        kind => {
            if let Some(byte) = input.get_mut(at) {
                *byte = if kind == 5 { *byte ^ (1 << rng.u8(..8)) } else { rng.u8(..) };
            }
        }
    }
    input.truncate(MAX_BYTES);
}

#[test]
fn every_target_can_be_fuzzed() {
    let named: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(named.len(), TARGETS.len());
    let manifest: toml::Table = fs::read_to_string(folder("Cargo.toml")).unwrap().parse().unwrap();
    let built = manifest["bin"].as_array().unwrap().iter();
    let built: BTreeSet<_> = built.map(|bin| bin["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(built, named, "fuzz/Cargo.toml");
    for name in &named {
        let file = fs::read_to_string(folder("fuzz_targets").join(name).with_extension("rs")).unwrap();
        assert!(file.contains(&format!("walcast::fuzzing::{name}(data)")), "{name}: {file}");
    }
    for kind in ["seeds", "regressions"] {
        for entry in fs::read_dir(folder(kind)).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(named.contains(&name), "fuzz/{kind}/{name} is of no target");
        }
    }
}
