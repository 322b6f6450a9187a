//! What files of tokens become, and what is said of wrong ones.

use super::*;

fn secret_of(letter: char) -> String {
    letter.to_string().repeat(16)
}

#[test]
fn each_line_is_a_token_with_or_without_a_name() {
    let (a, b, c) = (secret_of('a'), secret_of('#'), secret_of('c'));
    let text =
        format!("\u{feff}# who may what\r\n\r\n  {a}  \r\nci.deploy_1-x\t{b}\nviewer\tgrafana {c}\n   # the end");
    let tokens = parse(&text).unwrap();
    let read: Vec<_> = tokens.iter().map(|token| (&*token.name, &*token.secret, token.viewer)).collect();
    assert_eq!(read, [("admin", &*a, false), ("ci.deploy_1-x", &*b, false), ("grafana", &*c, true)]);
    assert!(parse(&"x".repeat(4096)).is_ok());
}

#[test]
fn a_wrong_line_is_told_with_its_number_and_without_its_words() {
    let a = secret_of('a');
    let allowed = "a token must be 16 to 4096 visible ASCII characters";
    let forms = "must be TOKEN, NAME TOKEN or viewer NAME TOKEN";
    let good = "`openssl rand -hex 32` makes a good one";
    for (text, said) in [
        (
            "\n# none\n".to_owned(),
            "the file holds no token, must have one a line: TOKEN, NAME TOKEN or viewer NAME TOKEN".to_owned(),
        ),
        ("\nhunter2".to_owned(), format!("line 2: {allowed}, not 7 ({good})")),
        ("x".repeat(4097), format!("line 1: {allowed}, not 4097 ({good})")),
        (format!("ops {a}é"), format!("line 1: {allowed}, and this one has others")),
        (format!("ops is {a}"), "line 1: must be TOKEN, NAME TOKEN or viewer NAME TOKEN, not 3 words".to_owned()),
        (format!("viewer {a}"), format!("line 1: {forms}; `viewer` alone is no name")),
        (format!("viewer viewer {a}"), format!("line 1: {forms}; `viewer` alone is no name")),
        (format!("viewer is {a} x"), format!("line 1: {forms}, not 4 words")),
        (
            format!("viewer ops {a}\nops {}", secret_of('b')),
            "line 2: must have a name of its own, but has that of line 1".to_owned(),
        ),
        (
            format!("hunter/2 {a}"),
            "line 1: the name must be a name of 1 to 64 characters of A-Z, a-z, 0-9, . _ and -".to_owned(),
        ),
        (
            format!("ops {a}\n\nops {}", secret_of('b')),
            "line 3: must have a name of its own, but has that of line 1".to_owned(),
        ),
        (format!("ops {a}\ndev {a}"), "line 2: must have a token of its own, but has that of line 1".to_owned()),
    ] {
        let problems = parse(&text).unwrap_err();
        assert_eq!(problems, [said], "{text:?}");
    }
}

#[test]
fn messages_name_the_file_and_are_not_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    let at = file.display();
    assert_eq!(read(&file).unwrap_err(), [format!("{at}: there is no such file")]);
    assert_eq!(read(directory.path()).unwrap_err().len(), 1);
    std::fs::write(&file, "short\n".repeat(500)).unwrap();
    let problems = read(&file).unwrap_err();
    assert_eq!(problems.len(), TOLD + 1);
    assert_eq!(problems[TOLD], format!("{at}: and 490 more like these"));
    std::fs::write(&file, [0xff; 64]).unwrap();
    assert_eq!(read(&file).unwrap_err(), [format!("{at}: the file is not text in UTF-8")]);
    std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
    assert_eq!(read(&file).unwrap_err(), [format!("{at}: the file is larger than 1 MiB")]);
}
