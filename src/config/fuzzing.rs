//! What holds for any text of a configuration; see `proxy::fuzzing`, which is the same for what comes over connections.

use serde_yaml::Value;

use super::load::load_text;
use super::{Config, Overrides, Problems};

fn load(text: &str) -> Result<Config, Problems> {
    load_text("fuzz.yaml", text, &Overrides::default(), &|name| (name == "SET").then(|| "1".into()))
}

/// A configuration: the same text means the same, a wrong one is told in whole lines, and a right one is right as JSON,
/// too.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    // Files that the text names are the machine's, and may be anything.
    if ["cert", "key", "_file", "ca"].iter().any(|key| text.contains(key)) {
        return;
    }
    // What YAML 1.1 takes for the end of a line; a number of lines is one more, and the end of the text may be one
    // more.
    const BREAKS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    match load(text) {
        Err(problems) => {
            let lines = text.replace("\r\n", "\n").matches(BREAKS).count() + 2;
            assert_eq!(Err(&problems), load(text).as_ref().map(drop));
            assert!(problems.iter().count() > 0);
            for problem in problems.iter() {
                assert!(!problem.path.is_empty() && !problem.message.is_empty(), "{problem:?}");
                assert!(!problem.to_string().contains(['\n', '\r', '\0', '\u{1b}']), "{problem:?}");
                assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem:?}");
            }
        }
        Ok(config) => {
            let value: Value = serde_yaml::from_str(text.trim_start_matches('\u{feff}')).expect("it was read");
            // Tags and numbers that are none have no place in JSON.
            let Ok(json) = serde_json::to_string(&value) else { return };
            let again = load(&json).unwrap_or_else(|problems| panic!("{problems}\n{json}"));
            assert_eq!(format!("{again:?}"), format!("{config:?}"), "{json}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_fuzzing_has_kept_holds() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/configuration");
        let files: Vec<_> = std::fs::read_dir(dir).unwrap().collect();
        assert!(files.len() >= 20, "{}", files.len());
        for file in files {
            configuration(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}
