//! What a word was meant to be that nobody knows: a key of the configuration, a value of a few, a field of the admin
//! API.

/// The one of `known` that `name` was most likely meant to be, if it is like any.
pub(crate) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    let name = name.to_ascii_lowercase();
    let alike = known.map(|known| (strsim::jaro_winkler(&name, known), known)).filter(|(alike, _)| *alike > ALIKE);
    alike.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_like_another_one_or_like_none() {
        let known = || ["listeners", "limits", "token_file", "capacity"].into_iter();
        for (name, meant) in [
            ("listner", Some("listeners")),
            ("LIMITS", Some("limits")),
            ("token", Some("token_file")),
            ("capcity", Some("capacity")),
            ("clients", None),
            ("", None),
        ] {
            assert_eq!(closest(name, known()), meant, "{name}");
        }
    }
}
