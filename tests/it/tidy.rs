//! Holds the floor plan of `lib.rs` as data and fails on whatever breaks it.
//!
//! A module may use only what stands on rows below its own: not its neighbours, not rows above, not the crate root. Inside
//! a module, files may use each other as long as no circle closes. `super::` and globs hide where a name comes from, so
//! there are none. Sources are parsed with `syn`; paths inside macros are found among their tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, UseTree};

/// The rows, the highest first. Modules on one row do not know each other.
const ROWS: &[&[&str]] = &[
    &["cli"],
    &["demo"],
    &["app"],
    &["config"],
    &["server"],
    &["bundle"],
    &["library"],
    &["prefetch", "scrub"],
    &["refresh"],
    &["publish"],
    &["fetch"],
    &["cache"],
    &["store", "database", "upstream", "tls", "passing"],
    &["clock", "disk", "metrics"],
    &["render", "retention"],
    &["catalog", "ledger", "revalidation", "selection", "health"],
    &["simplestreams", "manifest", "inventory", "api"],
    &["image", "signature", "seal"],
    &["digest", "http"],
];

/// `std::fs` and other names that only one module may touch.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("std::fs", &["disk"]),
    ("tokio::fs", &[]),
    ("reqwest::Client", &["upstream", "demo"]),
    ("SystemTime::now", &["clock"]),
    ("Timestamp::now", &["clock"]),
];

/// A file of the library: its module path and its text.
#[derive(Debug)]
struct Source {
    module: Vec<String>,
    text: String,
}

#[derive(Default)]
struct Paths {
    /// Every path that begins with `crate`, without that word.
    ours: Vec<Vec<String>>,
    /// Every other path, joined with `::`.
    others: Vec<String>,
    /// What is forbidden wherever it stands.
    bad: Vec<String>,
}

impl Paths {
    fn of(text: &str) -> Self {
        let file = syn::parse_file(text).expect("a source file parses");
        let mut paths = Self::default();
        paths.visit_file(&file);
        paths
    }

    fn add(&mut self, path: &[String]) {
        if path.iter().any(|part| part == "super") {
            self.bad.push(format!("super:: in {}", path.join("::")));
        } else if path.first().is_some_and(|first| first == "crate") {
            self.ours.push(path[1..].to_vec());
        } else if path.len() > 1 {
            self.others.push(path.join("::"));
        }
    }

    fn add_tree(&mut self, above: &[String], tree: &UseTree) {
        let with = |name: String| above.iter().cloned().chain([name]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.add_tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Name(name) => self.add(&with(name.ident.to_string())),
            UseTree::Rename(name) => self.add(&with(name.ident.to_string())),
            UseTree::Glob(_) => self.bad.push(format!("a glob: {}::*", above.join("::"))),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(above, tree)),
        }
    }

    /// Finds `a :: b :: c` among the tokens of a macro.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if path.is_empty() || colons == 2 => {
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() && colons < 2 => colons += 1,
                other => {
                    self.add(&std::mem::take(&mut path));
                    colons = 0;
                    match other {
                        TokenTree::Ident(ident) => path.push(ident.to_string()),
                        TokenTree::Group(group) => self.add_tokens(group.stream()),
                        _ => {}
                    }
                }
            }
        }
        self.add(&path);
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !matches!(item.vis, syn::Visibility::Inherited) {
            self.bad.push("a re-export".to_owned());
        }
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(&path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.add_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }
}

/// All that is wrong with a library, one line each.
fn complaints(rows: &[&[&str]], sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let modules: BTreeSet<String> = sources.iter().map(|source| source.module.join("::")).collect();
    for source in sources {
        let name = source.module.join("::");
        let paths = Paths::of(&source.text);
        complaints.extend(paths.bad.iter().map(|bad| format!("{name}: {bad}")));
        complaints.extend(trespasses(&source.module, &paths));
        for path in &paths.ours {
            complaints.extend(check(rows, &source.module, path));
            uses.entry(name.clone()).or_default().extend(target(&modules, path).filter(|target| *target != name));
        }
    }
    complaints.extend(circle(&uses).map(|circle| format!("a circle: {}", circle.join(" -> "))));
    complaints
}

/// Checks one path against the rows.
fn check(rows: &[&[&str]], module: &[String], path: &[String]) -> Option<String> {
    let row = |name: &str| rows.iter().position(|row| row.contains(&name));
    let (own, other) = (module.first()?, path.first().map_or("", String::as_str));
    let line = format!("{} uses crate::{}", module.join("::"), path.join("::"));
    match (row(own), row(other)) {
        _ if own == other => None,
        (None, _) => Some(format!("{own} is not in the picture")),
        (_, None) => Some(format!("{line}: that is the crate root")),
        (Some(own), Some(other)) if own == other => Some(format!("{line}: that is a neighbour")),
        (Some(own), Some(other)) if own > other => Some(format!("{line}: that is above")),
        _ => None,
    }
}

fn trespasses(module: &[String], paths: &Paths) -> Vec<String> {
    let trespasses = ONLY_IN.iter().filter(|(_, allowed)| !module.first().is_some_and(|own| allowed.contains(&own.as_str())));
    let found = trespasses.flat_map(|(name, _)| {
        let is_it = move |path: &&String| path.starts_with(name) && path[name.len()..].chars().next().is_none_or(|next| next == ':');
        paths.others.iter().filter(is_it).map(|path| format!("{} touches {path}", module.join("::")))
    });
    found.collect()
}

/// The longest module that a path begins with.
fn target(modules: &BTreeSet<String>, path: &[String]) -> impl Iterator<Item = String> {
    let prefixes = (1..=path.len()).rev().map(|len| path[..len].join("::"));
    prefixes.into_iter().find(|prefix| modules.contains(prefix)).into_iter()
}

/// Some circle among the uses, if there is one.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk<'a>(
        at: &'a str,
        uses: &'a BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|step| *step == at) {
            return Some(way[start..].iter().chain([&at]).map(ToString::to_string).collect());
        }
        if !done.insert(at) {
            return None;
        }
        way.push(at);
        let found = uses.get(at).into_iter().flatten().find_map(|next| walk(next, uses, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    uses.keys().find_map(|start| walk(start, uses, &mut Vec::new(), &mut done))
}

fn library() -> Vec<Source> {
    fn read(folder: &Path, module: &[String], sources: &mut Vec<Source>) {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let below: Vec<String> = module.iter().cloned().chain([name.clone()]).collect();
            if path.is_dir() {
                read(&path, &below, sources);
            } else if module.is_empty() && matches!(name.as_str(), "lib" | "main") {
                // The root declares modules and holds the architecture; `main` is another crate.
            } else {
                sources.push(Source { module: below, text: std::fs::read_to_string(&path).unwrap() });
            }
        }
    }
    let mut sources = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &[], &mut sources);
    sources
}

#[test]
fn the_library_keeps_to_its_floors() {
    let complaints = complaints(ROWS, &library());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_module_is_in_the_picture_and_the_picture_shows_no_other() {
    let shown: BTreeSet<String> = ROWS.iter().flat_map(|row| row.iter()).map(ToString::to_string).collect();
    let built: BTreeSet<String> = library().into_iter().map(|source| source.module[0].clone()).collect();
    assert_eq!(shown, built);
}

#[test]
fn the_crate_root_holds_no_code() {
    let root = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let others =
        syn::parse_file(&root).unwrap().items.into_iter().filter(|item| !matches!(item, Item::Mod(module) if module.content.is_none()));
    assert_eq!(others.count(), 0);
}

#[test]
fn no_file_is_called_mod() {
    assert!(library().iter().all(|source| source.module.last().is_none_or(|name| name != "mod")));
}

/// The picture that people read is the one that is enforced.
#[test]
fn the_picture_in_the_documentation_is_this_one() {
    let root = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let picture =
        root.split("```text").find(|block| block.contains("assembly")).unwrap_or_default().split("```").next().unwrap_or_default();
    let words = |line: &str| -> Vec<String> {
        let names = line.trim_start_matches("//!").split(|c: char| !c.is_ascii_lowercase()).filter(|word| !word.is_empty());
        names.filter(|word| ROWS.iter().any(|row| row.contains(word))).map(ToOwned::to_owned).collect()
    };
    let drawn: Vec<Vec<String>> = picture.lines().map(words).filter(|row| !row.is_empty()).collect();
    let held: Vec<Vec<String>> = ROWS.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
    assert_eq!(drawn, held);
}

mod bad_examples {
    use crate::tidy::{Source, complaints};

    const ROWS: &[&[&str]] = &[&["high"], &["low", "beside"]];

    fn found(module: &str, text: &str) -> Vec<String> {
        complaints(ROWS, &[Source { module: module.split("::").map(ToOwned::to_owned).collect(), text: text.to_owned() }])
    }

    #[test]
    fn looking_down_is_fine() {
        assert_eq!(found("high", "use crate::low::Thing; fn f() { crate::beside::g(); std::mem::swap(a, b); }"), [""; 0]);
        assert_eq!(found("low::inner", "use crate::low::other::Thing;"), [""; 0]);
    }

    #[test]
    fn everything_else_is_found_wherever_it_stands() {
        for (module, text, expected) in [
            ("low", "use crate::high::Thing;", "above"),
            ("low", "use crate::{high::{Thing, Other}};", "above"),
            ("low", "fn f() -> crate::high::Thing { todo!() }", "above"),
            ("low", "fn f() { assert_eq!(1, crate::high::g(2)); }", "above"),
            ("low", "fn f() { vec![vec![crate::high::G]]; }", "above"),
            ("low", "impl crate::high::Trait for X {}", "above"),
            ("low", "use crate::beside::Thing;", "neighbour"),
            ("low", "mod tests { use super::Thing; }", "super"),
            ("low", "fn f() { super::g(); }", "super"),
            ("low", "fn f() { println!(\"{}\", super::g()); }", "super"),
            ("high", "use crate::low::*;", "glob"),
            ("high", "use crate::Thing;", "crate root"),
            ("high", "pub use crate::low::Thing;", "re-export"),
            ("high", "use std::fs;", "touches std::fs"),
            ("high", "fn f() { std::fs::read(p); }", "touches std::fs::read"),
            ("elsewhere", "use crate::low::Thing;", "not in the picture"),
        ] {
            let found = found(module, text);
            assert!(found.iter().any(|line| line.contains(expected)), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_circle_inside_a_module_is_found() {
        let source =
            |module: &str, text: &str| Source { module: module.split("::").map(ToOwned::to_owned).collect(), text: text.to_owned() };
        let files = [
            source("low", "use crate::low::one::A;"),
            source("low::one", "use crate::low::two::B;"),
            source("low::two", "fn f() { crate::low::one::g(); }"),
        ];
        assert_eq!(complaints(ROWS, &files), ["a circle: low::one -> low::two -> low::one"]);
        let parent = [source("low", "use crate::low::one::A; pub struct B;"), source("low::one", "use crate::low::B;")];
        assert_eq!(complaints(ROWS, &parent), ["a circle: low -> low::one -> low"]);
    }
}
