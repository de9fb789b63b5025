//! Every Rust snippet of the guide and of the README compiles, once the manifest says
//! `balter = { package = "balter-uring", … }`.
//!
//! They are taken from the pages themselves and checked in a package of their own, since a package
//! cannot depend on another under two names. A fence of ```` ```rust ```` holds items, one of
//! ```` ```rust,body ```` what stands in an async `main`; with `tokio` or `rt` after a comma it needs
//! the feature of that name. What a snippet leaves out stands before it, in a comment that the page does not
//! show: it begins with a line `<!-- rust` and ends with a line `-->`.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Features that a snippet may need, and whether these tests have them.
const FEATURES: [(&str, bool); 2] =
    [("rt", cfg!(feature = "rt")), ("tokio", cfg!(feature = "tokio"))];

/// A fenced block of a page.
#[derive(Debug, PartialEq)]
struct Snippet {
    /// Of the fence, from 1.
    line: usize,
    /// What stands after the opening fence.
    info: String,
    /// What the page does not show.
    hidden: String,
    code: String,
}

impl Snippet {
    fn is_rust(&self) -> bool {
        self.info.split(',').next() == Some("rust")
    }

    fn has(&self, mark: &str) -> bool {
        self.info.split(',').skip(1).any(|word| word == mark)
    }

    /// A program of it.
    fn program(&self) -> String {
        let Self { hidden, code, .. } = self;
        let mut text = "#![allow(dead_code, unused_imports)]\n".to_owned();
        if !format!("{hidden}{code}").contains("use balter::prelude::*;") {
            text += "use balter::prelude::*;\n";
        }
        text += hidden;
        if self.has("body") {
            text += "#[tokio::main]\nasync fn main() -> Result<(), Box<dyn std::error::Error>> {\n";
            text += code;
            text += "Ok(())\n}\n";
        } else {
            text += code;
            if !code.contains("fn main()") {
                text += "fn main() {}\n";
            }
        }
        text
    }
}

fn snippets(page: &str) -> Vec<Snippet> {
    let mut snippets = Vec::new();
    let mut hidden = String::new();
    let mut lines = page.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let until = |end: &str, lines: &mut dyn Iterator<Item = (usize, &str)>| {
            let lines = lines.map(|(_, line)| line).take_while(|line| *line != end);
            lines.fold(String::new(), |text, line| text + line + "\n")
        };
        if line == "<!-- rust" {
            hidden = until("-->", &mut lines);
        } else if let Some(info) = line.strip_prefix("```") {
            let code = until("```", &mut lines);
            let hidden = std::mem::take(&mut hidden);
            snippets.push(Snippet { line: index + 1, info: info.to_owned(), hidden, code });
        }
    }
    snippets
}

#[test]
fn the_snippets_of_the_guide_and_the_readme_compile_with_the_dependency_renamed() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guide");
    let sources = package.join("src");
    // Those of an earlier run, of other lines.
    let _ = fs::remove_dir_all(&sources);
    fs::create_dir_all(&sources).expect("the target directory is ours");

    let mut names = Vec::new();
    for (page, fewest) in [("docs/guide.md", 18), ("README.md", 1)] {
        let text = fs::read_to_string(workspace.join(page)).expect("the page is there");
        let mut snippets = snippets(&text);
        snippets.retain(Snippet::is_rust);
        assert!(snippets.len() >= fewest, "{page} has {} snippets", snippets.len());
        for snippet in &snippets {
            for mark in snippet.info.split(',').skip(1) {
                assert!(
                    ["body", "rt", "tokio"].contains(&mark),
                    "{page}, {}: `{mark}`",
                    snippet.line
                );
            }
            let is_missing = |(feature, is_on): &(&str, bool)| snippet.has(feature) && !is_on;
            if FEATURES.iter().any(is_missing) {
                continue;
            }
            // The compiler's messages name the place by it.
            let stem = page.rsplit('/').next().and_then(|name| name.split('.').next());
            let name = format!("{}_line_{}", stem.unwrap_or(page).to_lowercase(), snippet.line);
            let file = sources.join(format!("{name}.rs"));
            fs::write(file, snippet.program()).expect("it is ours");
            names.push(name);
        }
    }
    fs::write(package.join("Cargo.toml"), manifest(workspace, &names)).expect("it is ours");
    // The versions that are there already: nothing is to be downloaded.
    fs::copy(workspace.join("Cargo.lock"), package.join("Cargo.lock")).expect("it is ours");

    let output = Command::new(env!("CARGO"))
        // As tests, so that a snippet that is one is not left out.
        .args(["check", "--offline", "--quiet", "--tests"])
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", package.join("target"))
        // The test's own would ask for features of the compiler, or hide warnings.
        .env("RUSTFLAGS", "-D warnings")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo runs this test, so it is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn snippets_are_found_with_what_the_page_hides() {
    let page = "\
text
<!-- rust
fn hidden() {}
-->
```rust,body
hidden();
```
<!-- a remark -->
```toml
name = 1
```
```rust
fn shown() {}
```
";
    let found = snippets(page);
    let lines: Vec<_> = found.iter().map(|found| (found.line, found.info.as_str())).collect();
    assert_eq!(lines, [(5, "rust,body"), (9, "toml"), (12, "rust")]);
    let programs: Vec<_> = found.iter().filter(|found| found.is_rust()).collect();
    assert_eq!(programs[0].hidden, "fn hidden() {}\n");
    assert!(programs[0].program().contains("{\nhidden();\nOk(())\n}\n"));
    assert_eq!(programs[1].hidden, "");
    assert!(programs[1].program().ends_with("fn shown() {}\nfn main() {}\n"));
}

/// Links between and within the pages lead to files that are there, and to headings in them.
#[test]
fn links_of_the_pages_lead_somewhere() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for page in ["README.md", "docs/guide.md", "docs/migration.md"] {
        let page = workspace.join(page);
        let text = fs::read_to_string(&page).expect("the page is there");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let file = match file {
                "" => page.clone(),
                file => page.with_file_name(file),
            };
            assert!(file.exists(), "{}: {link}", page.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(file).expect("it is there");
                let headings = headings(&text);
                assert!(headings.iter().any(|other| other == heading), "{link}: {headings:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "the guide alone has a table of contents");
}

fn headings(page: &str) -> Vec<String> {
    let mut fenced = false;
    let mut headings = Vec::new();
    for line in page.lines() {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            headings.push(anchor(line.trim_start_matches('#').trim()));
        }
    }
    headings
}

/// As GitHub makes it of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn manifest(workspace: &Path, names: &[String]) -> String {
    let on = FEATURES.iter().filter(|(_, is_on)| *is_on).map(|(feature, _)| *feature);
    let features: Vec<_> = on.collect();
    let client = match cfg!(feature = "tokio") {
        true => "reqwest = { version = \"0.12\", default-features = false, features = [\"json\"] }",
        false => "",
    };
    let mut text = format!(
        r#"[package]
name = "guide"
version = "0.0.0"
edition = "2024"
publish = false
autobins = false

[dependencies]
balter = {{ package = "balter-uring", path = {:?}, features = {features:?} }}
metrics-exporter-prometheus = {{ version = "0.18", default-features = false, features = ["http-listener"] }}
tokio = {{ version = "1", features = ["macros", "rt-multi-thread", "time"] }}
{client}

# Not a member of the workspace that it may lie in.
[workspace]
"#,
        workspace.join("balter-uring"),
    );
    for name in names {
        write!(text, "\n[[bin]]\nname = \"{name}\"\npath = \"src/{name}.rs\"\n")
            .expect("a string grows");
    }
    text
}
