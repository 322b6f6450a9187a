//! The files of the page, as they stand in `src/admin/ui/`, in the binary: plain modules that no build step has made, and
//! one library with its licence beside it.
//!
//! What a browser reads of them is 120 KiB at most; it gets that packed, a third of the size. Each is packed when it is
//! first asked for, and kept so.

use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// The files of these names.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../ui/", $name)))),*]
    };
}

/// All of them.
const FILES: &[(&str, &str)] = files![
    "index.html",
    "style.css",
    "icon.svg",
    "main.js",
    "api.js",
    "backends.js",
    "chart.js",
    "client.js",
    "clients.js",
    "dom.js",
    "explain.js",
    "forms.js",
    "live.js",
    "overview.js",
    "vendor/uPlot.iife.min.js",
    "vendor/LICENSE",
    "vendor/README",
];

/// A file, ready to be sent.
#[derive(Debug)]
pub(in crate::admin) struct UiFile {
    /// Its name below `/ui/`.
    pub(in crate::admin) name: &'static str,
    /// What is in it.
    pub(in crate::admin) text: &'static str,
    made: OnceLock<(String, Bytes)>,
}

impl UiFile {
    /// Its tag, which tells it from what it was in another version, without quotes; and what is in it, packed.
    pub(in crate::admin) fn packed(&self) -> &(String, Bytes) {
        self.made.get_or_init(|| {
            let digest = Sha256::digest(self.text.as_bytes());
            let tag = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
            let mut packer = GzEncoder::new(Vec::new(), Compression::best());
            // Writing to memory does not fail.
            let packed = packer.write_all(self.text.as_bytes()).and_then(|()| packer.finish());
            (tag, packed.unwrap_or_default().into())
        })
    }
}

/// All files of the page.
#[derive(Debug)]
pub(in crate::admin) struct UiFiles(Vec<UiFile>);

impl Default for UiFiles {
    fn default() -> Self {
        UiFiles(FILES.iter().map(|(name, text)| UiFile { name, text, made: OnceLock::new() }).collect())
    }
}

impl UiFiles {
    /// The file of this name.
    pub(in crate::admin) fn get(&self, name: &str) -> Option<&UiFile> {
        self.0.iter().find(|file| file.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_is_asked_for_is_there_and_all_of_it_is_small() {
        let files = UiFiles::default();
        // What a browser reads, before it is packed.
        let read = files.0.iter().filter(|file| !["vendor/LICENSE", "vendor/README"].contains(&file.name));
        let size: usize = read.map(|file| file.text.len()).sum();
        assert!(size <= 120 << 10, "{size} bytes");
        for UiFile { name, text, .. } in files.0.iter().filter(|file| !file.name.starts_with("vendor/")) {
            for (quote, start) in [('"', "\"/ui/"), ('"', "from \"./"), ('\'', "'/ui/")] {
                for asked in text.split(start).skip(1).filter_map(|rest| rest.split(quote).next()) {
                    assert!(files.get(asked).is_some(), "{name} asks for {asked}");
                }
            }
            // What comes from outside is put in as text.
            for danger in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"] {
                assert!(!text.contains(danger), "{name} has {danger}");
            }
        }
        let page = files.get("index.html").unwrap().text;
        assert!(!page.contains("<style") && !page.contains("style=") && !page.contains("onload="), "{page}");
        assert_eq!(page.matches("<script").count(), page.matches("></script>").count());
        assert_eq!(page.matches("<script").count(), page.matches(" src=\"/ui/").count());
    }

    #[test]
    fn what_is_vendored_is_what_was_published() {
        let files = UiFiles::default();
        let readme = files.get("vendor/README").unwrap().text;
        for UiFile { name, text, .. } in files.0.iter().filter(|file| file.name.starts_with("vendor/uPlot")) {
            let sum: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
            let line = format!("{sum}  {}", name.trim_start_matches("vendor/"));
            assert!(readme.lines().any(|known| known == line), "{line}");
        }
    }
}
