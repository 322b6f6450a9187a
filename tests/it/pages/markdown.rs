//! As much of Markdown as the pages use.

/// One page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    /// Where it is, from the root of the repository.
    pub(super) path: &'static str,
    pub(super) text: &'static str,
}

/// What stands between one heading of the second level and the next.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) heading: String,
    pub(super) blocks: Vec<Block>,
}

/// What stands between two fences.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// What stands behind the first fence: `sh`, `yaml`.
    pub(super) language: String,
    /// The last line of text before it.
    pub(super) before: String,
    pub(super) lines: Vec<String>,
}

impl Page {
    /// Its sections, with what stands before the first one as the first one.
    pub(super) fn sections(&self) -> Vec<Section> {
        let mut sections = vec![Section { heading: self.path.to_owned(), blocks: Vec::new() }];
        let (mut open, mut before) = (None::<(Block, usize)>, "");
        for line in self.text.lines() {
            let indent = line.len() - line.trim_start().len();
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(language)) => {
                    let (language, before) = (language.to_owned(), before.to_owned());
                    open = Some((Block { language, before, lines: Vec::new() }, indent));
                }
                (Some(_), Some(_)) => {
                    let (block, _) = open.take().unwrap();
                    sections.last_mut().unwrap().blocks.push(block);
                }
                (Some((block, indent)), None) => block.lines.push(line.get(*indent..).unwrap_or("").to_owned()),
                (None, None) => {
                    if let Some(heading) = line.strip_prefix("## ") {
                        sections.push(Section { heading: heading.to_owned(), blocks: Vec::new() });
                    }
                    before = if line.is_empty() { before } else { line };
                }
            }
        }
        assert!(open.is_none(), "{}: a fence is open at the end", self.path);
        sections
    }

    /// Its lines with their numbers, but for those between fences.
    pub(super) fn prose(&self) -> impl Iterator<Item = (usize, &'static str)> {
        let mut fenced = false;
        self.text.lines().enumerate().filter_map(move |(index, line)| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            (!fenced && !fence).then_some((index + 1, line))
        })
    }

    /// What links to its headings have behind their `#`.
    pub(super) fn anchors(&self) -> Vec<String> {
        let mut anchors = Vec::<String>::new();
        for (_, line) in self.prose() {
            let heading = line.trim_start_matches('#');
            if heading.len() == line.len() || !heading.starts_with(' ') {
                continue;
            }
            let anchor = anchor(heading.trim());
            let again = anchors.iter().filter(|one| **one == anchor).count();
            anchors.push(if again == 0 { anchor } else { format!("{anchor}-{again}") });
        }
        anchors
    }

    /// Where its links lead, with the line of each.
    pub(super) fn links(&self) -> Vec<(usize, &'static str)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            let mut rest = line;
            while let Some((_, after)) = rest.split_once("](") {
                let (target, after) = after.split_once(')').unwrap_or_else(|| panic!("{}:{number}: {line}", self.path));
                links.push((number, target));
                rest = after;
            }
        }
        links
    }

    /// What stands between backticks outside fences, with the line of each.
    pub(super) fn code(&self) -> Vec<(usize, &'static str)> {
        let spans = |(number, line): (usize, &'static str)| {
            line.split('`').skip(1).step_by(2).map(move |span| (number, span)).collect::<Vec<_>>()
        };
        self.prose().flat_map(spans).collect()
    }

    /// The cells of the rows of its tables, without the heads and the lines below them.
    pub(super) fn rows(&self) -> Vec<Vec<&'static str>> {
        let (mut rows, mut within) = (Vec::new(), false);
        for (_, line) in self.prose() {
            let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix("|")) else {
                within &= line.starts_with("|---");
                continue;
            };
            if within {
                rows.push(cells.split(" | ").map(str::trim).collect());
            }
            within = true;
        }
        rows
    }
}

/// As GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn a_page_is_read_as_it_is_written() {
    let page = Page {
        path: "a.md",
        text: "# A\n\nSave:\n\n```yaml\na: 1\n```\n\n## At 3 a.m. \n\n- x `y` [z](b.md#c):\n\n  ```sh\n  $ ls\n   a\n  ```\n\
               ## At 3 a.m.\n\n| k | v |\n|---|---|\n| `a` | b |\n| c | |\n\n| n | m |\n|---|---|\n| d | e |\n",
    };
    let sections = page.sections();
    let headings: Vec<_> = sections.iter().map(|section| &*section.heading).collect();
    assert_eq!(headings, ["a.md", "At 3 a.m. ", "At 3 a.m."]);
    let block = |language: &str, before: &str, lines: &[&str]| Block {
        language: language.to_owned(),
        before: before.to_owned(),
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(sections[0].blocks, [block("yaml", "Save:", &["a: 1"])]);
    assert_eq!(sections[1].blocks, [block("sh", "- x `y` [z](b.md#c):", &["$ ls", " a"])]);
    assert_eq!(page.anchors(), ["a", "at-3-am", "at-3-am-1"]);
    assert_eq!(page.links(), [(11, "b.md#c")]);
    assert_eq!(page.code(), [(11, "y"), (21, "a")]);
    assert_eq!(page.rows(), [vec!["`a`", "b"], vec!["c", ""], vec!["d", "e"]]);
}
