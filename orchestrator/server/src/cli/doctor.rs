//! `sagamore doctor`: what a cluster lacks for which promise, and what to do about it.

use clap::Args;
use sagamore_kafka::doctor::{self, Ailment, Broker, Facts, Probed};
use serde::Serialize;

use super::exit::{Exit, Outcome};
use super::kafka::KafkaArgs;
use super::output::{self, Printer};
use super::topics::{is_refused, severity_word};

/// The promises of the README, in short.
const PROMISES: [&str; 5] = [
    "an accepted transaction ends, or is stuck with a reason",
    "each effect happens once at most",
    "what was acknowledged stays",
    "killed processes, zombies and duplicates break nothing",
    "settings that would break them are refused",
];

/// What is looked at.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Tolerate what only a development server runs on, such as a single broker; what does not hold so is told all the same.
    #[arg(long)]
    development: bool,
}

/// The report.
#[derive(Debug, Serialize)]
struct Report<'f> {
    fit: bool,
    promises: Vec<Verdict>,
    brokers: &'f [Broker],
    probe: Option<&'f Probed>,
    findings: &'f [Ailment],
}

#[derive(Debug, Serialize)]
struct Verdict {
    promise: u8,
    says: &'static str,
    kept: bool,
}

/// Looks, tries, and tells.
pub fn run(args: &DoctorArgs, printer: Printer) -> Outcome {
    let site = args.kafka.site()?;
    let facts = doctor::examine(&site.settings, &site.prefix)?;
    let findings = doctor::judge(&facts);
    let report = report(&facts, &findings, args.development);
    printer.one(&report, || table(&report))?;
    Ok(if report.fit { Exit::Done } else { Exit::CheckNegative })
}

fn report<'f>(facts: &'f Facts, findings: &'f [Ailment], development: bool) -> Report<'f> {
    let broken = |number: u8| {
        findings.iter().any(|ailment| {
            // A development server runs without some of them; they are not kept for that.
            is_refused(ailment.finding.severity, false) && ailment.promises.contains(&number)
        })
    };
    let promises = (1..).zip(PROMISES);
    let promises = promises.map(|(promise, says)| Verdict { promise, says, kept: !broken(promise) });
    Report {
        fit: !findings.iter().any(|ailment| is_refused(ailment.finding.severity, development)),
        promises: promises.collect(),
        brokers: &facts.brokers,
        probe: facts.probe.as_ref().and_then(|probe| probe.as_ref().ok()),
        findings,
    }
}

fn table(report: &Report<'_>) -> String {
    let mut parts = Vec::new();
    let clock = |id: i32| report.probe.and_then(|probe| probe.clocks.get(&id));
    let brokers = report.brokers.iter().map(|broker| {
        let clock = clock(broker.id).map_or_else(
            || "not probed".to_owned(),
            |clock| format!("{:+} ms, give or take {}", clock.ahead_ms, clock.uncertain_ms),
        );
        [broker.id.to_string(), broker.address.clone(), clock]
    });
    parts.push(output::table(["broker", "at", "clock beside this one"], brokers));
    if let Some(probe) = report.probe {
        let transactions = match &probe.transactions.failed {
            Some(failed) => failed.clone(),
            None if probe.transactions.shows_committed_only && probe.transactions.fences => {
                "commit, abort, fencing as they must be".to_owned()
            }
            None => "NOT as they must be".to_owned(),
        };
        let latency =
            |latency: doctor::Latency| format!("p50 {:.1} ms, p99 {:.1} ms", latency.p50_ms, latency.p99_ms);
        let requests: Vec<_> =
            probe.requests.iter().map(|(name, newest)| format!("{name} {newest}")).collect();
        let rows = [
            ["written by all copies in sync".to_owned(), latency(probe.produce)],
            ["seen by a reader after that".to_owned(), latency(probe.fetch)],
            ["Kafka transactions".to_owned(), transactions],
            ["newest versions of requests".to_owned(), requests.join(", ")],
        ];
        parts.push(output::table(["probe", "seen"], rows));
    }
    if !report.findings.is_empty() {
        let rows = report.findings.iter().map(|Ailment { promises, finding }| {
            let promises: Vec<_> = promises.iter().map(ToString::to_string).collect();
            let what = format!(
                "{} {}={} (wanted: {})",
                finding.topic, finding.setting, finding.value, finding.wanted
            );
            let severity = severity_word(finding.severity).to_owned();
            [promises.join(","), severity, what, finding.reason.clone(), finding.remedy.clone()]
        });
        parts.push(output::table(["promise", "severity", "what", "why", "remedy"], rows));
    }
    let promises = report.promises.iter().map(|verdict| {
        let kept = if verdict.kept { "can be kept" } else { "CANNOT be kept" };
        [verdict.promise.to_string(), verdict.says.to_owned(), kept.to_owned()]
    });
    parts.push(output::table(["promise", "which says", "here"], promises));
    parts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_broker_is_fit_for_development_only() {
        let facts = Facts { brokers: vec![Broker::default()], is_applied: true, ..Facts::default() };
        let findings = doctor::judge(&facts);
        let kept = |development| {
            let report = report(&facts, &findings, development);
            (report.fit, report.promises.iter().map(|promise| promise.kept).collect::<Vec<_>>())
        };
        assert_eq!(kept(false), (false, vec![true, true, false, true, true]));
        assert_eq!(kept(true), (true, vec![true, true, false, true, true]), "tolerated, and told");
    }
}
