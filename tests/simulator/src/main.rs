//! `cargo sim`: more seeds than the ordinary test has, one seed again, or one planted defect.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use sagamore_simulator::defects;
use sagamore_simulator::faults::Fault;
use sagamore_simulator::report;
use sagamore_simulator::run;
use sagamore_simulator::world::Plan;

/// Runs Sagamore's owners and participants on a modelled Kafka, seed by seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000, conflicts_with = "seed")]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// Only this seed, with everything that happens.
    #[arg(long)]
    seed: Option<u64>,
    /// Transactions in each run.
    #[arg(long, default_value_t = 10)]
    transactions: usize,
    /// Orders to leave out, by number.
    #[arg(long, value_delimiter = ',')]
    without_orders: Vec<usize>,
    /// Kinds of faults to leave out.
    #[arg(long, value_delimiter = ',')]
    without_faults: Vec<String>,
    /// A defect to plant, `all` of them in turn, or `list`.
    #[arg(long)]
    defect: Option<String>,
    /// Threads; each run stays in one.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(2, usize::from))]
    threads: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.defect.as_deref() == Some("list") {
        println!("{}", report::defects());
        return ExitCode::SUCCESS;
    }
    if let (Some(name), None) = (&arguments.defect, arguments.seed) {
        return hunt(&arguments, name);
    }
    match arguments.seed {
        Some(seed) => one(&arguments, seed),
        None => many(&arguments),
    }
}

fn one(arguments: &Arguments, seed: u64) -> ExitCode {
    let mut without_faults = Vec::new();
    for word in &arguments.without_faults {
        let Some(fault) = Fault::ALL.iter().find(|fault| fault.word() == word) else {
            let words: Vec<&str> = Fault::ALL.iter().map(|fault| fault.word()).collect();
            eprintln!("no kind of fault is called {word}; there are: {}", words.join(", "));
            return ExitCode::from(2);
        };
        without_faults.push(*fault);
    }
    let defect = match arguments.defect.as_deref().map(|name| (name, defects::named(name))) {
        Some((name, None)) => {
            eprintln!("no defect is called {name}: --defect list shows them");
            return ExitCode::from(2);
        }
        Some((_, defect)) => defect,
        None => None,
    };
    let plan = Plan {
        seed,
        transactions: arguments.transactions,
        without_orders: arguments.without_orders.clone(),
        without_faults,
    };
    run::quietly();
    let (told, story) = run::run_with(&plan, defect, Some(Vec::new()));
    for line in story {
        println!("{line}");
    }
    println!("{}", report::one(&told));
    match told.violation {
        Some(violation) => {
            println!("{}", report::violation(&plan, arguments.defect.as_deref(), &violation));
            ExitCode::from(10)
        }
        None => ExitCode::SUCCESS,
    }
}

fn hunt(arguments: &Arguments, name: &str) -> ExitCode {
    let wanted: Vec<_> = defects::ALL.iter().filter(|(known, ..)| name == "all" || *known == name).collect();
    if wanted.is_empty() {
        eprintln!("no defect is called {name}: --defect list shows them");
        return ExitCode::from(2);
    }
    let mut all_found = true;
    for (name, defect, text, _) in wanted {
        let found = run::hunt(*defect, arguments.seeds, arguments.transactions);
        all_found &= found.is_some();
        println!("{}", report::hunted(name, text, found.as_ref()));
    }
    if all_found { ExitCode::SUCCESS } else { ExitCode::from(10) }
}

fn many(arguments: &Arguments) -> ExitCode {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(arguments.seeds), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    let begun = Instant::now();
    let progress = || bar.inc(1);
    let summary =
        run::many(arguments.from, arguments.seeds, arguments.transactions, arguments.threads, &progress);
    bar.finish_and_clear();
    println!("{}", report::many(&summary, begun.elapsed()));
    for (plan, violation) in summary.failures.iter().skip(1) {
        println!("{}", report::violation(plan, None, violation));
    }
    for (plan, violation) in summary.failures.iter().take(1) {
        let smallest = run::shrink(plan, None, violation);
        println!("{}", report::violation(&smallest, None, violation));
    }
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(10) }
}
