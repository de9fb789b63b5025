//! What Balter's guide shows a user doing works here, in the guide's order, once the manifest says
//! `balter = { package = "balter-uring", … }`.
//!
//! The snippets stand in `tests/ui/guide`, and in `tests/ui/guide_tokio` those that need the feature
//! `tokio`, completed where the guide elides. They are checked in a
//! package of their own, since a package cannot depend on another under two names.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn the_guides_snippets_compile_with_the_dependency_renamed() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut snippets = snippets(&workspace.join("tests/ui/guide"));
    assert!(snippets.len() >= 8, "{snippets:?}");
    if cfg!(feature = "tokio") {
        let more = self::snippets(&workspace.join("tests/ui/guide_tokio"));
        assert!(!more.is_empty(), "those of the feature are missing");
        snippets.extend(more);
    }

    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guide");
    fs::create_dir_all(&package).expect("the target directory is ours");
    fs::write(package.join("Cargo.toml"), manifest(workspace, &snippets)).expect("it is ours");
    // The versions that are there already: nothing is to be downloaded.
    fs::copy(workspace.join("Cargo.lock"), package.join("Cargo.lock")).expect("it is ours");

    let output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet", "--bins"])
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", package.join("target"))
        // The test's own would ask for features of the compiler, or hide warnings.
        .env("RUSTFLAGS", "-D warnings")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo runs this test, so it is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn snippets(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the snippets are there");
    let files = entries.map(|entry| entry.expect("it can be read").path());
    let mut files: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|end| end == "rs")).collect();
    files.sort();
    files
}

fn manifest(workspace: &Path, snippets: &[PathBuf]) -> String {
    let (feature, client) = match cfg!(feature = "tokio") {
        true => (
            ", features = [\"tokio\"]",
            "reqwest = { version = \"0.12\", default-features = false, features = [\"json\"] }",
        ),
        false => ("", ""),
    };
    let mut text = format!(
        r#"[package]
name = "guide"
version = "0.0.0"
edition = "2024"
publish = false

[dependencies]
balter = {{ package = "balter-uring", path = {:?}{} }}
tokio = {{ version = "1", features = ["macros", "rt-multi-thread", "time"] }}
{}

# Not a member of the workspace that it may lie in.
[workspace]
"#,
        workspace.join("balter-uring"),
        feature,
        client,
    );
    for snippet in snippets {
        let name = snippet.file_stem().expect("a file has a name").to_string_lossy();
        write!(text, "\n[[bin]]\nname = \"{name}\"\npath = {snippet:?}\n").expect("a string grows");
    }
    text
}
