//! Kafka transactions in the command topic: nobody writes there in one, and whoever reads must not care.

use crate::bench::Bench;
use crate::branch::{Branch, Effects};
use crate::checks::answers::fence;
use crate::desk::{Ending, Sending};
use crate::error::Stop;

pub(super) fn aborted(bench: &Bench<'_>) -> Result<(), Stop> {
    let operation = bench.forward().first();
    let mut branch = bench.branch("kafka/aborted");
    branch.mark()?;
    branch.say(format!("{operation} in a Kafka transaction that is aborted"));
    let sending = branch.sending(branch.record(operation, 1));
    send(bench, vec![sending], Ending::Abort, "aborted")?;
    fence(bench, &branch)?;
    if let Some(answered) = branch.replies(operation).first() {
        return Err(branch.broken("no answer", &answered.told()));
    }
    branch.expect(bench.forward(), Effects::None)
}

pub(super) fn committed(bench: &Bench<'_>) -> Result<(), Stop> {
    let operation = bench.forward().first();
    let mut branches: Vec<Branch<'_, '_>> = (0..2).map(|_| bench.branch("kafka/committed")).collect();
    for branch in &mut branches {
        branch.say(format!("{operation} in a Kafka transaction that is committed"));
    }
    let sendings = branches.iter().map(|branch| branch.sending(branch.record(operation, 1))).collect();
    send(bench, sendings, Ending::Commit, "committed")?;
    for branch in &mut branches {
        let answered = branch.hear(operation)?;
        branch.is_ok(operation, &answered)?;
        branch.ask(bench.forward().undo())?;
        fence(bench, branch)?;
    }
    Ok(())
}

fn send(bench: &Bench<'_>, sendings: Vec<Sending>, ending: Ending, name: &str) -> Result<(), Stop> {
    let id = format!("{}-kit-{name}", bench.settings.prefix);
    let sent = bench.desk.send_in_a_kafka_transaction(sendings, ending, &id);
    sent.map_err(|cause| {
        Stop::Skipped(format!("the kit may not, or cannot, write in a Kafka transaction: {cause}"))
    })
}
