//! The crate as the checks see it: its files, what each defines, and every path that each names.
//!
//! The sources are parsed, not matched: comments and strings are no imports, `use crate::{a, b::c}` is two, and what
//! stands in a macro's brackets or in an attribute counts as far as it looks like a path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, Token, UseTree, Visibility};

/// A module or something in one, from the crate's root on.
pub(crate) type ModulePath = Vec<String>;

/// One file.
pub(crate) struct SourceFile {
    /// Its module: `["upstream", "selector"]`, `["main"]`, or nothing for `lib.rs`.
    pub(crate) module: ModulePath,
    /// Whether it is compiled for tests only.
    pub(crate) test: bool,
    pub(crate) lines: usize,
    /// Its doc has a line that begins with [`REASON`].
    pub(crate) excused: bool,
    pub(crate) functions: Vec<Function>,
    /// The types it defines, without those of its tests.
    pub(crate) types: Vec<String>,
    pub(crate) mentions: Vec<Mention>,
    /// `static` items: where, their names and their types, as far as they have one.
    pub(crate) statics: Vec<(usize, String, String)>,
    /// The text of its doc.
    pub(crate) doc: String,
}

/// How the doc of a long function or file begins the line that says why.
pub(crate) const REASON: &str = "Long because ";

/// A function outside of tests.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) lines: usize,
    /// Its doc has a line that begins with [`REASON`].
    pub(crate) excused: bool,
}

/// A path that a file names.
#[derive(Clone)]
pub(crate) struct Mention {
    pub(crate) line: usize,
    /// The module it stands in.
    pub(crate) at: ModulePath,
    pub(crate) path: ModulePath,
    pub(crate) test: bool,
    /// It is passed on by `pub use`.
    pub(crate) passed_on: bool,
}

/// A module's names.
#[derive(Default)]
pub(crate) struct Scope {
    /// Where its names are defined.
    pub(crate) file: usize,
    pub(crate) defined: BTreeSet<String>,
    /// What it calls by a name that is another's, and whether it passes the name on.
    pub(crate) imported: BTreeMap<String, (ModulePath, bool)>,
    /// The modules that all names of are passed on.
    pub(crate) passed_on: Vec<ModulePath>,
}

/// All files.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) files: Vec<SourceFile>,
    pub(crate) scopes: BTreeMap<ModulePath, Scope>,
}

impl Sources {
    /// The sources of this package.
    pub(crate) fn read() -> Sources {
        let (mut texts, mut waiting) =
            (Vec::new(), vec![(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), String::new())]);
        while let Some((directory, prefix)) = waiting.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
                if path.is_dir() {
                    waiting.push((path, name + "/"));
                } else if let Some(name) = name.strip_suffix(".rs") {
                    texts.push((name.to_owned(), std::fs::read_to_string(&path).unwrap()));
                }
            }
        }
        texts.sort();
        Sources::of(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    /// These texts, each with its path below `src` without the `.rs`.
    pub(crate) fn of<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Sources {
        let mut sources = Sources::default();
        sources.scope(&[], 0);
        let mut for_tests = Vec::new();
        for (name, text) in texts {
            let module: ModulePath = name.split('/').map(str::to_owned).collect();
            let module = match module.split_last() {
                Some((last, inside)) if last == "mod" || last == "lib" => inside.to_vec(),
                _ => module,
            };
            let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let at = sources.files.len();
            sources.files.push(SourceFile {
                test: false,
                lines: text.lines().count(),
                excused: is_excused(&syntax.attrs),
                doc: doc(&syntax.attrs),
                module: module.clone(),
                functions: Vec::new(),
                types: Vec::new(),
                mentions: Vec::new(),
                statics: Vec::new(),
            });
            sources.scope(&module, at).file = at;
            let reader =
                &mut Reader { sources: &mut sources, for_tests: &mut for_tests, file: at, at: module, test: false };
            reader.visit_file(&syntax);
        }
        for file in &mut sources.files {
            file.test = for_tests.iter().any(|module| file.module.starts_with(module));
        }
        sources
    }

    fn scope(&mut self, module: &[String], file: usize) -> &mut Scope {
        self.scopes.entry(module.to_vec()).or_insert_with(|| Scope { file, ..Scope::default() })
    }
}

struct Reader<'s> {
    sources: &'s mut Sources,
    /// The modules that are compiled for tests only.
    for_tests: &'s mut Vec<ModulePath>,
    file: usize,
    at: ModulePath,
    test: bool,
}

impl Reader<'_> {
    fn file(&mut self) -> &mut SourceFile {
        &mut self.sources.files[self.file]
    }

    fn here(&mut self) -> &mut Scope {
        self.sources.scope(&self.at, self.file)
    }

    fn mention(&mut self, path: ModulePath, line: usize, passed_on: bool) {
        let (at, test) = (self.at.clone(), self.test);
        self.file().mentions.push(Mention { line, at, path, test, passed_on });
    }

    fn import(&mut self, tree: &UseTree, path: &mut ModulePath, passed_on: bool) {
        let (name, called, span) = match tree {
            UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                self.import(&inner.tree, path, passed_on);
                path.pop();
                return;
            }
            UseTree::Group(group) => return group.items.iter().for_each(|item| self.import(item, path, passed_on)),
            UseTree::Glob(glob) => {
                if passed_on && !self.test {
                    let path = path.clone();
                    self.here().passed_on.push(path);
                }
                ("*".to_owned(), None, glob.star_token.span)
            }
            UseTree::Name(name) => (name.ident.to_string(), Some(&name.ident), name.ident.span()),
            UseTree::Rename(name) => (name.ident.to_string(), Some(&name.rename), name.ident.span()),
        };
        let mut whole = path.clone();
        if name != "self" || path.is_empty() {
            whole.push(name);
        }
        if let Some(called) = called {
            let called = if called == "self" { whole.last().unwrap().clone() } else { called.to_string() };
            self.here().imported.insert(called, (whole.clone(), passed_on));
        }
        self.mention(whole, span.start().line, passed_on);
    }

    /// What looks like a path among tokens that nobody has parsed.
    fn scan(&mut self, tokens: TokenStream) {
        let (mut path, mut colons, mut after_dot, mut line) = (Vec::new(), 0, false, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.scanned(&mut path, line);
                    }
                    line = ident.span().start().line;
                    if colons == 2 && path.is_empty() || after_dot {
                        // The rest of a path that begins with something else.
                    } else {
                        path.push(ident.to_string());
                    }
                    (colons, after_dot) = (0, false);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.scanned(&mut path, line);
                    (colons, after_dot) = (0, matches!(&other, TokenTree::Punct(punct) if punct.as_char() == '.'));
                    match other {
                        TokenTree::Group(group) => self.scan(group.stream()),
                        // `#[serde(with = "a::b")]`
                        TokenTree::Literal(literal) => {
                            let text = literal.to_string();
                            let text = text.trim_matches('"');
                            if text.chars().all(|char| char.is_alphanumeric() || matches!(char, '_' | ':')) {
                                let mut path = text.split("::").map(str::to_owned).collect();
                                self.scanned(&mut path, literal.span().start().line);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        self.scanned(&mut path, line);
    }

    fn scanned(&mut self, path: &mut ModulePath, line: usize) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.mention(path, line, false);
        }
    }

    fn function(&mut self, attributes: &[Attribute], name: &syn::Ident, span: (usize, usize)) {
        if !self.test {
            let (name, excused) = (format!("{}::{name}", self.at.join("::")), is_excused(attributes));
            self.file().functions.push(Function { name, lines: span.1 + 1 - span.0, excused });
        }
    }

    fn defines(&mut self, item: &Item) {
        let (name, is_type) = match item {
            Item::Struct(item) => (&item.ident, true),
            Item::Enum(item) => (&item.ident, true),
            Item::Union(item) => (&item.ident, true),
            Item::Trait(item) => (&item.ident, true),
            Item::TraitAlias(item) => (&item.ident, true),
            Item::Type(item) => (&item.ident, true),
            Item::Fn(item) => (&item.sig.ident, false),
            Item::Const(item) => (&item.ident, false),
            Item::Static(item) => (&item.ident, false),
            Item::Macro(syn::ItemMacro { ident: Some(ident), .. }) => (ident, false),
            _ => return,
        };
        let name = name.to_string();
        if is_type && !self.test {
            self.file().types.push(name.clone());
        }
        self.here().defined.insert(name);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let test = self.test;
        self.test |= is_for_tests(attributes(item));
        self.defines(item);
        visit::visit_item(self, item);
        self.test = test;
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.at.push(item.ident.to_string());
        if self.test {
            self.for_tests.push(self.at.clone());
        }
        if item.content.is_some() {
            self.here();
        }
        visit::visit_item_mod(self, item);
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, &mut Vec::new(), !matches!(item.vis, Visibility::Inherited));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        let of = match &*item.ty {
            syn::Type::Path(of) => of.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        let found = (item.static_token.span.start().line, item.ident.to_string(), of.unwrap_or_default());
        self.file().statics.push(found);
        visit::visit_item_static(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let end = item.block.brace_token.span.close().start().line;
        self.function(&item.attrs, &item.sig.ident, (item.sig.fn_token.span.start().line, end));
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let test = self.test;
        self.test |= is_for_tests(&item.attrs);
        let end = item.block.brace_token.span.close().start().line;
        self.function(&item.attrs, &item.sig.ident, (item.sig.fn_token.span.start().line, end));
        visit::visit_impl_item_fn(self, item);
        self.test = test;
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: ModulePath = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.mention(segments, path.segments[0].ident.span().start().line, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        if item.path.is_ident("thread_local") {
            let line = item.path.segments[0].ident.span().start().line;
            self.file().statics.push((line, "thread_local".to_owned(), String::new()));
        }
        self.scan(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.scan(list.tokens.clone());
        }
    }

    /// `pub(in crate::admin)` uses nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`, also with more conditions.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    let condition = |attribute: &Attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => list.parse_args::<Meta>().ok(),
        _ => None,
    };
    attributes.iter().filter_map(condition).any(|condition| match &condition {
        Meta::List(all) if all.path.is_ident("all") => all
            .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .is_ok_and(|parts| parts.iter().any(|part| part.path().is_ident("test"))),
        condition => condition.path().is_ident("test"),
    })
}

fn doc(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes {
        if let Meta::NameValue(pair) = &attribute.meta
            && pair.path.is_ident("doc")
            && let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(line), .. }) = &pair.value
        {
            text.push_str(&line.value());
            text.push('\n');
        }
    }
    text
}

fn is_excused(attributes: &[Attribute]) -> bool {
    doc(attributes).lines().any(|line| line.trim_start().starts_with(REASON))
}
