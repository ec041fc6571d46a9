//! What the demo found out, and whether it is good.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use sagamore_examples::{Books, Kind};
use sagamore_schemas::ids::TransactionId;
use sagamore_schemas::wire::OutcomeKind;
use serde::Serialize;

use super::drive::Driven;
use super::orders::Order;
use super::pipeline::Done;
use super::timeline::Timeline;

/// Everything that is told at the end.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where Kafka was.
    pub kafka: String,
    /// What the names of the topics begin with.
    pub prefix: String,
    /// How many orders.
    pub orders: usize,
    /// How they ended, and why.
    pub outcomes: Vec<Share>,
    /// Orders that did not end, stuck and refused ones included.
    pub unended: usize,
    /// Outcomes told more than once, and dropped by their ids.
    pub outcomes_repeated: u64,
    /// Final outcomes that were followed by a different one. Any is a defect.
    pub contradictions: u64,
    /// First start to last outcome, in seconds.
    pub seconds: f64,
    /// Orders in a second.
    pub per_second: f64,
    /// Half of the orders had their outcome within so many milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 had.
    pub p99_ms: f64,
    /// What became of the shards in the middle.
    pub crash: Option<Crash>,
    /// The books, one participant a row.
    pub books: Vec<Balance>,
    /// Whether everything is as it must be.
    pub good: bool,
    /// One order that was undone.
    pub timeline: Option<Timeline>,
}

/// Orders that ended alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// How; none is an order of which nothing was heard.
    pub outcome: Option<OutcomeKind>,
    /// Why: step and kind of reason.
    pub reason: String,
    /// How many.
    pub orders: usize,
}

/// A crash of all shards under load.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Crash {
    /// Orders that had ended.
    pub ended: usize,
    /// Orders in flight.
    pub in_flight: usize,
    /// Shards dropped.
    pub shards: usize,
    /// Until the last of them ran again, in milliseconds.
    pub takeover_ms: f64,
}

/// The books of a participant, beside what the outcomes say.
#[derive(Debug, Clone, Serialize)]
pub struct Balance {
    /// The participant's own.
    #[serde(flatten)]
    pub books: Books,
    /// What committed orders took, counted from orders and outcomes.
    pub committed: u64,
    /// Commands that came again and were answered from memory.
    pub repeated: u64,
    /// Whether they balance, no effect happened twice, and what is taken belongs to committed orders, to the last one.
    pub balanced: bool,
}

/// Where it ran and what happened, for [`Report::new`].
#[derive(Debug)]
pub struct Account<'a> {
    /// Where Kafka was.
    pub kafka: String,
    /// What the names of the topics begin with.
    pub prefix: String,
    /// The orders.
    pub orders: &'a [Order],
    /// What came of them.
    pub driven: &'a Driven,
    /// What the examples did.
    pub done: Vec<Done>,
    /// The crash, if there was one.
    pub crash: Option<Crash>,
    /// One order that was undone.
    pub timeline: Option<Timeline>,
}

impl Report {
    /// Counts, compares, judges.
    pub fn new(account: Account<'_>) -> Self {
        let Account { kafka, prefix, orders, driven, done, crash, timeline } = account;
        let committed = Committed::of(orders, driven);
        let books: Vec<_> = done.into_iter().map(|done| Balance::new(done, &committed)).collect();
        let is_ended = |outcome| {
            matches!(outcome, OutcomeKind::Committed | OutcomeKind::Compensated | OutcomeKind::Aborted)
        };
        let ended = driven.endings.iter().flatten().filter(|ending| is_ended(ending.outcome)).count();
        let unended = orders.len() - ended;
        let good = unended == 0 && driven.contradictions == 0 && books.iter().all(|balance| balance.balanced);
        let mut latencies: Vec<_> = driven.endings.iter().flatten().map(|ending| ending.latency).collect();
        latencies.sort_unstable();
        let seconds = driven.took.as_secs_f64();
        Self {
            kafka,
            prefix,
            orders: orders.len(),
            outcomes: shares(driven),
            unended,
            outcomes_repeated: driven.repeats,
            contradictions: driven.contradictions,
            seconds: rounded(seconds),
            per_second: rounded(f64::from(u32::try_from(ended).unwrap_or(u32::MAX)) / seconds.max(0.001)),
            p50_ms: millis(percentile(&latencies, 50)),
            p99_ms: millis(percentile(&latencies, 99)),
            crash,
            books,
            good,
            timeline,
        }
    }

    /// Orders that ended for business reasons, in percent.
    pub fn undone_percent(&self) -> f64 {
        let undone =
            |share: &&Share| matches!(share.outcome, Some(OutcomeKind::Compensated | OutcomeKind::Aborted));
        let undone: usize = self.outcomes.iter().filter(undone).map(|share| share.orders).sum();
        percent(undone, self.orders)
    }

    /// For people.
    pub fn text(&self) -> String {
        let Self { orders, seconds, per_second, p50_ms, p99_ms, .. } = self;
        let mut parts = vec![
            format!("{orders} orders in {seconds} s: {per_second}/s, p50 {p50_ms} ms, p99 {p99_ms} ms"),
            self.outcome_table(),
        ];
        if let Some(Crash { ended, in_flight, shards, takeover_ms }) = self.crash {
            parts.push(format!(
                "crash: after {ended} orders, with {in_flight} in flight, all {shards} shards were dropped; taken over \
                 again in {takeover_ms} ms ({} outcomes were told again, and dropped by id)",
                self.outcomes_repeated
            ));
        }
        if let Some(timeline) = &self.timeline {
            let title = format!("one order that was undone, as the topics of {} tell it", self.prefix);
            parts.push(format!("{title}\n{}", timeline.tree()));
        }
        parts.push(self.books_table());
        parts.push(self.verdict());
        parts.join("\n\n")
    }

    fn outcome_table(&self) -> String {
        let mut table = new_table(["outcome", "reason", "orders", "%"]);
        for Share { outcome, reason, orders } in &self.outcomes {
            let outcome = outcome.map_or("nothing heard", |outcome| outcome.as_str());
            let percent = format!("{:.1}", percent(*orders, self.orders));
            table.add_row([outcome.to_owned(), reason.clone(), grouped(*orders as u64), percent]);
        }
        drawn(table, 2)
    }

    /// before + delivered = after + gone + held, in each row.
    fn books_table(&self) -> String {
        let head = [
            "books",
            "before",
            "+ delivered",
            "= after",
            "+ gone",
            "+ held",
            "effects",
            "undone",
            "twice",
            "balance",
        ];
        let mut table = new_table(head);
        for Balance { books, committed, balanced, .. } in &self.books {
            let unaccounted = i128::from(books.standing) - i128::from(*committed);
            table.add_row([
                format!("{}, {}", books.participant, books.unit),
                grouped(books.opening),
                grouped(books.added),
                grouped(books.closing),
                grouped(*committed),
                unaccounted.to_string(),
                grouped(books.effects),
                grouped(books.undone),
                grouped(books.duplicates),
                if *balanced { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        let legend = "gone: with committed orders, by the outcomes; held: taken by an example for no committed order; \
                      twice: effects applied or undone again";
        format!("{}\n{legend}", drawn(table, 1))
    }

    fn verdict(&self) -> String {
        if self.good {
            return "Every order ended, and the books balance: not one off, every effect exactly once."
                .to_owned();
        }
        let mut faults = Vec::new();
        if self.unended > 0 {
            faults.push(format!("{} orders did not end", self.unended));
        }
        if self.contradictions > 0 {
            faults.push(format!("{} told outcomes changed", self.contradictions));
        }
        let unbalanced = self.books.iter().filter(|balance| !balance.balanced);
        faults.extend(
            unbalanced.map(|balance| format!("the books of {} do not balance", balance.books.participant)),
        );
        format!("NOT GOOD: {}.", faults.join("; "))
    }
}

impl Balance {
    fn new(Done { books, counters }: Done, committed: &Committed) -> Self {
        let committed = match Kind::OF_AN_ORDER.into_iter().find(|kind| kind.as_str() == books.participant) {
            Some(Kind::Inventory) => committed.units,
            Some(Kind::Payment) => committed.cents,
            Some(Kind::Shipping) => committed.parcels,
            Some(Kind::Bank | Kind::Replica) | None => {
                unreachable!("no order has books of {}", books.participant)
            }
        };
        let balanced = books.balance() && books.unwatched == 0 && books.standing == committed;
        Self { books, committed, repeated: counters.repeated, balanced }
    }
}

/// What committed orders took.
struct Committed {
    units: u64,
    cents: u64,
    parcels: u64,
}

impl Committed {
    fn of(orders: &[Order], driven: &Driven) -> Self {
        let mut sums = Self { units: 0, cents: 0, parcels: 0 };
        for (order, ending) in orders.iter().zip(&driven.endings) {
            if ending.as_ref().is_some_and(|ending| ending.outcome == OutcomeKind::Committed) {
                sums.units += order.units;
                sums.cents += order.total_cents;
                sums.parcels += 1;
            }
        }
        sums
    }
}

/// The order whose story is told: one with as much to undo as possible.
pub fn most_undone<'a>(orders: &'a [Order], driven: &Driven) -> Option<&'a TransactionId> {
    let rank = |outcome: OutcomeKind, reason: &str| match outcome {
        OutcomeKind::Stuck => 4,
        OutcomeKind::Compensated if reason.starts_with("ship:") => 3,
        OutcomeKind::Compensated => 2,
        OutcomeKind::Aborted => 1,
        OutcomeKind::Committed | OutcomeKind::Refused => 0,
    };
    // The last of its rank: by then everything has warmed up.
    let ranked = orders.iter().zip(&driven.endings).filter_map(|(order, ending)| {
        let ending = ending.as_ref()?;
        let rank = rank(ending.outcome, ending.reason.as_deref().unwrap_or_default());
        (rank > 0).then_some((rank, &order.id))
    });
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, id)| id)
}

fn shares(driven: &Driven) -> Vec<Share> {
    let mut counts: BTreeMap<(Option<OutcomeKind>, String), usize> = BTreeMap::new();
    for ending in &driven.endings {
        let key = match ending {
            Some(ending) => (Some(ending.outcome), ending.reason.as_deref().map(kind_of).unwrap_or_default()),
            None => (None, String::new()),
        };
        *counts.entry(key).or_default() += 1;
    }
    counts.into_iter().map(|((outcome, reason), orders)| Share { outcome, reason, orders }).collect()
}

/// `charge: credit-limit` of `charge: credit-limit: customer QUICK`.
fn kind_of(reason: &str) -> String {
    reason.split(": ").take(2).collect::<Vec<_>>().join(": ")
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

/// In milliseconds, to the tenth.
pub fn millis(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1_000.0)
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn percent(part: usize, whole: usize) -> f64 {
    let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    100.0 * float(part) / float(whole.max(1))
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn new_table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(head);
    table
}

/// Columns from `numbers` on are numbers.
fn drawn(mut table: Table, numbers: usize) -> String {
    table.column_iter_mut().skip(numbers).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_reasons() {
        assert_eq!(
            ["1", "1,234", "12,345,678"],
            [1, 1_234, 12_345_678].map(grouped).each_ref().map(String::as_str)
        );
        assert_eq!(kind_of("charge: credit-limit: customer A"), "charge: credit-limit");
        assert_eq!(kind_of("deadline"), "deadline");
        let sorted: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!((percentile(&sorted, 50), percentile(&sorted, 99)), (sorted[99], sorted[197]));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
