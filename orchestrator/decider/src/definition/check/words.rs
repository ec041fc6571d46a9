//! What was probably meant.

use std::collections::BTreeMap;

use sagamore_schemas::ids::Name;

pub(super) fn unknown_step(name: &str, names: &BTreeMap<Name, usize>) -> (String, String) {
    const SHOWN: usize = 8;
    let known: Vec<&str> = names.keys().map(Name::as_str).take(SHOWN).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let help = match nearest(name, names.keys().map(Name::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the steps are {}{more}", known.join(", ")),
    };
    (format!("there is no step `{name}`"), help)
}

/// The known name that was probably meant: at most one typing error in three letters.
pub(in crate::definition) fn nearest<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(name, other);
    let bound = (name.chars().count() / 3).max(1);
    known
        .map(|other| (distance(other), other))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, other)| other)
}
