//! The invariants of ARCHITECTURE.md that a program can check.

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found
}

/// A file's code before its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]").next().unwrap().to_owned()
}

/// Lines of code that hold one of the words, comments left out.
fn lines_with(path: &Path, words: &[&str]) -> Vec<String> {
    let code = code(path);
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let found = lines.filter(|line| words.iter().any(|word| line.contains(word)));
    found.map(|line| format!("{}: {}", path.display(), line.trim())).collect()
}

/// No code in the folder, one file excepted, holds any of the words.
fn check_absent(folder: &str, except: &str, words: &[&str]) {
    let except = root().join(except);
    let files = rust_files(folder).into_iter().filter(|path| *path != except);
    let found: Vec<String> = files.flat_map(|path| lines_with(&path, words)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_disk_persists_renames_locks_and_asks_for_space() {
    let words = [
        ".sync_all(",
        ".sync_data(",
        "fs::rename",
        ".persist_noclobber(",
        "try_lock_exclusive",
        "available_space",
        ".allocate(",
        ".set_permissions(",
    ];
    check_absent("src", "src/disk.rs", &words);
}

/// Elsewhere a link would be followed. The import reads folders that are no store.
#[test]
fn files_of_a_store_are_opened_by_disk() {
    let words = ["File::open(", "OpenOptions", "fs::read(", "fs::read_to_string(", "fs::write("];
    let folders = ["src/journal", "src/checkpoint", "src/index", "src/verify", "src/query"];
    let files = ["src/store.rs", "src/session.rs", "src/status.rs", "src/emergency.rs"];
    let files = files.iter().map(|file| root().join(file));
    let found: Vec<String> = folders
        .iter()
        .flat_map(|folder| rust_files(folder))
        .filter(|path| !path.ends_with("verify/tests.rs"))
        .chain(files)
        .flat_map(|path| lines_with(&path, &words))
        .filter(|line| !line.contains("/proc/sys/kernel/hostname"))
        .collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_journal_knows_neither_index_nor_session_nor_store() {
    let words = ["crate::index", "crate::session", "crate::store", "crate::query", "rusqlite"];
    check_absent("src/journal", "", &words);
}

#[test]
fn the_library_has_no_network_code() {
    check_absent("src", "", &["std::net", "TcpStream", "postgres::", "tokio", "reqwest"]);
}

#[test]
fn the_agent_writes_no_file_of_the_store() {
    let words = ["File::create", "OpenOptions", "fs::write", "fs::remove", "Store::open("];
    check_absent("sync/src", "sync/src/memory.rs", &words);
}

#[test]
fn no_file_is_too_long_to_read_at_once() {
    let fuzz = ["fuzz/src", "fuzz/fuzz_targets"];
    let folders = ["src", "sync/src", "bench/src", "faults/src", "tests"].into_iter().chain(fuzz);
    let files = folders.flat_map(rust_files);
    let long: Vec<PathBuf> = files.filter(|path| code(path).lines().count() > LINES_MAX).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn every_test_module_is_in_the_one_binary() {
    let main = fs::read_to_string(root().join("tests/main.rs")).unwrap();
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_module = path.is_dir() || path.extension().is_some_and(|ending| ending == "rs");
        if is_module && name != "main" && path.join("mod.rs").exists() | path.is_file() {
            assert!(main.contains(&format!("mod {name};")), "{name} is missing in tests/main.rs");
        }
    }
}
