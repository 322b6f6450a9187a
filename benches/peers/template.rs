//! Configurations with gaps.

/// `text` with each `{{name}}` replaced by the value of that name.
///
/// # Errors
///
/// When a gap has no value. A value without a gap is no error: configurations need different ones.
pub(crate) fn fill(text: &str, values: &[(&str, String)]) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or("a gap is not closed")?;
        filled.push_str(before);
        if name == "..." {
            filled.push_str("{{...}}");
        } else {
            let (_, value) =
                values.iter().find(|(key, _)| *key == name).ok_or_else(|| format!("no value for {name}"))?;
            filled.push_str(value);
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}
