//! Rust source as the layer tests read it: without comments and literals, and the paths in it.

/// `text` with comments and the contents of literals blanked. Lines keep their numbers.
pub(crate) fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = length_of_noise(rest, code.chars().next_back());
        let (piece, after) = rest.split_at(skipped.unwrap_or(next.len_utf8()));
        if skipped.is_some() {
            code.extend(piece.chars().map(|c| if c == '\n' { c } else { ' ' }));
        } else {
            code.push_str(piece);
        }
        rest = after;
    }
    code
}

/// Bytes of the comment or literal that `rest` begins with. `before` tells a raw string from a name ending in r.
fn length_of_noise(rest: &str, before: Option<char>) -> Option<usize> {
    let through = |from: usize, end: &str| match rest.get(from..).and_then(|tail| tail.find(end)) {
        Some(at) => from + at + end.len(),
        None => rest.len(),
    };
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(through(2, "*/"));
    }
    if rest.starts_with('"') {
        return Some(length_of_string(rest));
    }
    if rest.starts_with('r') && !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        let hashes = rest.bytes().skip(1).take_while(|b| *b == b'#').count();
        if rest.as_bytes().get(1 + hashes) == Some(&b'"') {
            return Some(through(2 + hashes, &format!("\"{}", "#".repeat(hashes))));
        }
    }
    // A character, not a lifetime: one character or an escape, then a quote.
    let inner = rest.strip_prefix('\'')?;
    if inner.starts_with('\\') {
        return Some(through(3, "'"));
    }
    let c = inner.chars().next()?;
    inner.get(c.len_utf8()..)?.starts_with('\'').then(|| c.len_utf8() + 2)
}

fn length_of_string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The part of `code` above its module of unit tests; all of it where that is in another file.
pub(crate) fn above_tests(code: &str) -> &str {
    const MARK: &str = "#[cfg(test)]\nmod ";
    let starts = code.match_indices(MARK).find(|(at, _)| {
        let name = code.get(at + MARK.len()..).unwrap_or_default().trim_start_matches(in_name);
        name.trim_start().starts_with('{')
    });
    starts.and_then(|(at, _)| code.get(..at)).unwrap_or(code)
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `line` says `word` as a name or path of its own.
pub(crate) fn says(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|head| head.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|tail| tail.chars().next());
        !before.is_some_and(in_name) && !after.is_some_and(in_name)
    })
}

/// A path from the crate's root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) line: usize,
    /// The module at the root.
    pub(crate) module: String,
    /// What follows it, up to the end of the path: `::Lsn`, `::{Lsn, Secret}`.
    pub(crate) rest: String,
}

pub(crate) struct References;

impl References {
    /// Every `crate::` path of `code`, grouped ones apart, and those `super::` paths that leave a module `depth` deep.
    pub(crate) fn of(code: &str, depth: usize) -> Vec<Reference> {
        let mut found = Vec::new();
        for (at, _) in code.match_indices("crate::") {
            let before = code.get(..at).and_then(|head| head.chars().next_back());
            if !before.is_some_and(in_name) {
                Self::collect(code, at + "crate::".len(), &mut found);
            }
        }
        for (at, _) in code.match_indices(&"super::".repeat(depth)) {
            Self::collect(code, at + "super::".len() * depth, &mut found);
        }
        found
    }

    fn collect(code: &str, at: usize, found: &mut Vec<Reference>) {
        let Some((head, tail)) = code.split_at_checked(at) else {
            return;
        };
        let line = head.matches('\n').count() + 1;
        for path in branches(tail) {
            let name = path.chars().take_while(|c| in_name(*c)).count();
            let (module, rest) = path.split_at_checked(name).unwrap_or((path, ""));
            if !module.is_empty() {
                let rest = branches_end(rest).trim_end().to_owned();
                found.push(Reference { line, module: module.to_owned(), rest });
            }
        }
    }
}

/// The paths that `tail` begins with: one, or each of a group in braces.
fn branches(tail: &str) -> Vec<&str> {
    let Some(group) = tail.strip_prefix('{') else {
        return vec![tail];
    };
    let (mut branches, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        let ends = match c {
            '{' => {
                depth += 1;
                false
            }
            '}' if depth > 0 => {
                depth -= 1;
                false
            }
            '}' => true,
            ',' => depth == 0,
            _ => false,
        };
        if ends {
            branches.push(group.get(start..at).unwrap_or_default().trim());
            start = at + 1;
            if c == '}' {
                break;
            }
        }
    }
    branches
}

/// The part of `rest` that still belongs to a path.
fn branches_end(rest: &str) -> &str {
    let mut depth = 0_usize;
    let end = rest.char_indices().find(|(_, c)| match c {
        '{' => {
            depth += 1;
            false
        }
        '}' if depth > 0 => {
            depth -= 1;
            false
        }
        c => depth == 0 && !in_name(*c) && *c != ':',
    });
    rest.get(..end.map_or(rest.len(), |(at, _)| at)).unwrap_or(rest)
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a // crate::x\nb(\"crate::\\\"x\", r#\"\"crate\"#, '\"', 'c') /* crate::\n */ &'a c";
    let code = code_of(text);
    assert_eq!(code.lines().count(), 3);
    assert_eq!(code.split_whitespace().collect::<String>(), "ab(,,,)&'ac");
}

#[test]
fn each_path_of_a_group_is_found() {
    let modules = |code: &str, depth| {
        let found = References::of(code, depth);
        found.into_iter().map(|r| format!("{}:{}{}", r.line, r.module, r.rest)).collect::<Vec<_>>()
    };
    assert_eq!(modules("use crate::hub::Stream;\n", 1), ["1:hub::Stream"]);
    let group = "use crate::{\n  hub::{Stream, Hub},\n  postgres::Lsn, config};\nfn f() { crate::http::g() }";
    assert_eq!(modules(group, 2), ["1:hub::{Stream, Hub}", "1:postgres::Lsn", "1:config", "4:http::g"]);
    assert_eq!(modules("use super::a;\nuse super::super::b::c;", 2), ["2:b::c"]);
}

#[test]
fn a_word_is_not_part_of_another() {
    assert!(says("x = tokio::spawn(f)", "tokio::spawn"));
    assert!(!says("x = my_tokio::spawner", "tokio::spawn"));
}

#[test]
fn tests_in_the_file_are_cut_and_tests_beside_it_are_not_its_end() {
    assert_eq!(
        above_tests("a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod more {\nc"),
        "a\n#[cfg(test)]\nmod tests;\nb\n"
    );
}
