//! Pages of clients, and of those that a search finds.

use super::*;

#[test]
fn pages_follow_each_other() {
    over_each(|store| {
        for name in ["b", "a", "B", "a-1", "c@x", "Z"] {
            create(store, name, Profile { note: format!("note of {name}"), ..profile(1, 1.0) }).unwrap();
        }
        let page = |after: &str, limit, search: &str| {
            let after = (!after.is_empty()).then(|| client_id(after));
            let page = store.page(&PageQuery { after, limit, search: search.to_owned() }).unwrap();
            (page.items.iter().map(|record| record.id.to_string()).collect::<Vec<_>>(), page.more, page.total)
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(page("", 4, ""), (names(&["B", "Z", "a", "a-1"]), true, 6));
        assert_eq!(page("a-1", 2, ""), (names(&["b", "c@x"]), false, 6));
        assert_eq!(page("a-0", 1, ""), (names(&["a-1"]), true, 6));
        assert_eq!(page("c@x", 9, ""), (names(&[]), false, 6));
        assert_eq!(page("", 9, "b"), (names(&["B", "b"]), false, 2));
        assert_eq!(page("B", 1, "NOTE OF A"), (names(&["a"]), true, 2));
        assert_eq!(page("a", 1, "note of a"), (names(&["a-1"]), false, 2));
        assert_eq!(["100%_", "a_1", "a%1", "\\"].map(|wild| page("", 9, wild).2), [0; 4]);
        store.change(set("Z", Profile { note: "Ä%_\\\0End".to_owned(), ..profile(1, 1.0) })).wait_blocking().unwrap();
        assert_eq!(["Ä%", "%_\\", "\0e", "END", "ä", "note of z"].map(|text| page("", 9, text).2), [1, 1, 1, 1, 0, 0]);
        store.change(delete("a")).wait_blocking().unwrap();
        assert_eq!(page("", 9, "note of a"), (names(&["a-1"]), false, 1));
        assert_eq!(page("Z", 9, "").2, 5);
    });
}
