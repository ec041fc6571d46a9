//! What the participants will say, known beforehand: a refusal is a function of the transaction's id and the step, so
//! that the check can tell which transactions had to turn back. Technical failures are a function of the attempt too.

/// Steps of a definition: name, participant, and whether it may refuse.
pub type Steps = &'static [Step];

/// A step as the definitions of this crate have it.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// Who does it.
    pub participant: &'static str,
    /// Which field of the input is its amount; none: 1.
    pub amount: Option<&'static str>,
    /// Of a hundred transactions so many are refused by it.
    pub refused_percent: u64,
}

const fn step(
    name: &'static str,
    participant: &'static str,
    amount: Option<&'static str>,
    refused_percent: u64,
) -> Step {
    Step { name, participant, amount, refused_percent }
}

const UNITS: Option<&str> = Some("units");
const CENTS: Option<&str> = Some("cents");

/// The definitions, with their text and their steps.
pub const DEFINITIONS: [(&str, &str, Steps); 3] = [
    (
        "order",
        include_str!("../definitions/order.yaml"),
        &[
            step("reserve", "stock", UNITS, 2),
            step("charge", "till", CENTS, 5),
            step("book", "stock", UNITS, 4),
            step("notify", "till", None, 0),
        ],
    ),
    (
        "transfer",
        include_str!("../definitions/transfer.yaml"),
        &[step("debit", "bank-a", CENTS, 4), step("credit", "bank-b", CENTS, 8)],
    ),
    (
        "trip",
        include_str!("../definitions/trip.yaml"),
        &[
            step("seat", "stock", UNITS, 3),
            step("room", "till", CENTS, 4),
            step("car", "bank-b", UNITS, 4),
            step("meal", "stock", None, 3),
            step("voucher", "till", None, 0),
        ],
    ),
];

/// The participants, each with two instances on one file.
pub const PARTICIPANTS: [&str; 4] = ["stock", "till", "bank-a", "bank-b"];

/// The steps of a definition, `name` or `name@version`.
pub fn steps_of(definition: &str) -> Steps {
    let name = definition.split('@').next().unwrap_or_default();
    DEFINITIONS.iter().find(|(known, ..)| *known == name).map_or(&[], |(.., steps)| steps)
}

/// Whether the business says no.
pub fn is_refused(subject: &str, step: &str) -> bool {
    let steps = DEFINITIONS.iter().flat_map(|(.., steps)| *steps);
    let percent = steps.filter(|known| known.name == step).map(|known| known.refused_percent).max();
    die(&[subject, step]) % 100 < percent.unwrap_or(0)
}

/// What leaves an account counts against it: money that goes from one bank to the other sums up to nothing.
pub fn signed(step: &str, amount: i64) -> i64 {
    if step == "debit" { -amount } else { amount }
}

/// A number that follows from these words: FNV-1a, mixed once more so that near words fall far apart.
pub fn die(words: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in words.iter().flat_map(|word| word.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_refused_as_the_table_says() {
        for (percent, step) in [(5, "charge"), (8, "credit"), (0, "notify")] {
            let refused = (0..10_000).filter(|n| is_refused(&format!("o-{n}"), step)).count();
            let expected = percent * 100;
            assert!(refused.abs_diff(expected) <= expected / 4, "{step}: {refused} of 10,000");
        }
    }
}
