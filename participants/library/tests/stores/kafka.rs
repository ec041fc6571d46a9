//! What the Kafka-only store promises beyond the suite: a batch is done whole, wherever it was cut; one owner at a time; and
//! rows are where their keys say. On topics in memory: `runtime` has the same on a real Kafka.

use proptest::prelude::*;
use sagamore_participant::perform::{Work, perform};
use sagamore_participant::store::kafka::rehearsal::Topics;
use sagamore_participant::store::kafka::{Bounds, KafkaStore, LogFault, Session, Territory, Tx};
use sagamore_participant::store::{LocalTransaction, Store};
use sagamore_participant::{Command, Effect, Fault, Open, Participant, Payload};

use crate::ask::{Ask, ISSUED_MS, ask_all, text, try_all};
use crate::bed::Obedient;
use crate::beds::KafkaOnly;

fn store(topics: &Topics) -> KafkaStore {
    KafkaStore::new(topics.clone(), Bounds::default())
}

/// Counts what is in a jar, and tells of each change.
struct Jar;

impl Jar {
    fn change(tx: &mut Tx<'_>, command: &Command<'_>, change: i64) -> Result<(), Fault> {
        let net: i64 = tx.read("jar")?.unwrap_or_default();
        tx.write("jar", &(net + change))?;
        if net + change == 0 {
            tx.remove(b"jar")?;
        }
        tx.emit("changes", command.address.subject.as_str().as_bytes(), change.to_string().as_bytes())
    }
}

impl Participant for Jar {
    type Store = KafkaStore;

    fn execute(&self, tx: &mut Open<'_, Self>, command: &Command<'_>) -> Result<Effect, Fault> {
        Self::change(tx, command, 1)?;
        match command.data.json() {
            Some("\"refused\"") => Ok(Effect::refused("told-to")),
            Some("\"fault\"") => Err(Fault::new("told to")),
            _ => Effect::done(&"in"),
        }
    }

    fn compensate(&self, tx: &mut Open<'_, Self>, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        Self::change(tx, command, -1)
    }
}

/// One batch, as an owner does it: the answers become replies, and the position goes with them.
fn take(store: &KafkaStore, session: &mut Session, from: i64, asks: &[Ask]) -> Result<Vec<String>, LogFault> {
    let mut tx = store.begin(session).unwrap();
    let mut said = Vec::new();
    for ask in asks {
        let answered = perform(&Jar, &mut tx, &ask.command()).unwrap();
        tx.reply("sagamore.inbox/0", &ask.subject, text(&answered).into_bytes());
        said.push(text(&answered));
    }
    tx.taken_to(from + i64::try_from(asks.len()).unwrap());
    tx.write().map(|()| said)
}

/// Takes all commands, in batches of so many, and takes over again wherever it must; at each turn it is cut as told.
fn run(topics: &Topics, commands: &[Ask], batch: usize, cuts: &[usize]) -> usize {
    let (mut cuts, mut takeovers) = (cuts.iter(), 0);
    let store = store(topics);
    loop {
        takeovers += 1;
        // The takeover, which may have to write, can be cut as well.
        if let Some(cut) = cuts.next() {
            topics.cut_next(*cut);
        }
        let Ok(mut session) = store.take_over() else { continue };
        topics.uncut();
        loop {
            let from = session.position().unwrap_or(0);
            let taken = usize::try_from(from).unwrap();
            if taken == commands.len() {
                return takeovers;
            }
            if let Some(cut) = cuts.next() {
                topics.cut_next(*cut);
            }
            let end = commands.len().min(taken + batch);
            if take(&store, &mut session, from, &commands[taken..end]).is_err() {
                break;
            }
        }
    }
}

fn commands() -> Vec<Ask> {
    let texts = [
        "a execute",
        "b execute=refused",
        "c execute=fault",
        "a execute",
        "d compensate",
        "c execute",
        "a compensate",
        "d execute",
        "e execute",
        "e compensate",
        "f execute",
        "c compensate",
    ];
    texts
        .iter()
        .map(|text| text.split_once(' ').unwrap())
        .map(|(subject, operation)| Ask::new(subject, operation).watermark(ISSUED_MS - 1))
        .collect()
}

fn distinct(mut records: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    records.sort();
    records.dedup();
    records
}

proptest! {
    /// Whatever part of a Kafka transaction is committed, again and again, also of the one that completes it: in the end
    /// everything is as if nothing had ever been cut.
    #[test]
    fn a_batch_is_done_whole_wherever_it_was_cut(
        batch in 1..6_usize,
        cuts in prop::collection::vec(prop_oneof![3 => 0..24_usize, 1 => Just(usize::MAX)], 0..12),
    ) {
        let (smooth, cut) = (Topics::default(), Topics::default());
        run(&smooth, &commands(), batch, &[]);
        run(&cut, &commands(), batch, &cuts);
        prop_assert_eq!(cut.table(), smooth.table());
        prop_assert_eq!(smooth.table().remove(b"jar".as_slice()), Some(b"1".to_vec()));
        prop_assert_eq!(distinct(cut.records("changes")), distinct(smooth.records("changes")));
        // A reply may come twice, and one that was cut off leaves its command to be answered once more: never otherwise.
        let mut told = distinct(cut.records("replies"));
        told.retain(|reply| !distinct(smooth.records("replies")).contains(reply));
        prop_assert!(told.is_empty(), "{told:?}");
    }
}

#[test]
fn without_a_cut_nothing_is_twice() {
    let topics = Topics::default();
    assert_eq!(run(&topics, &commands(), 4, &[]), 1);
    let changes = topics.records("changes");
    assert_eq!(distinct(changes.clone()).len(), changes.len(), "{changes:?}");
    assert_eq!(topics.records("replies").len(), commands().len());
}

#[test]
fn only_what_a_part_has_told_of_itself_is_completed() {
    for cut in 0..4 {
        let topics = Topics::default();
        topics.cut_next(cut);
        let store = store(&topics);
        let mut session = store.take_over().unwrap();
        assert!(take(&store, &mut session, 0, &[Ask::new("a", "execute")]).is_err());
        let session = store.take_over().unwrap();
        let (row, position) = (session.get(b"jar").map(<[u8]>::to_vec), session.position());
        let expected = if cut == 0 { (None, None) } else { (Some(b"1".to_vec()), Some(1)) };
        assert_eq!((row, position), expected, "cut behind {cut}");
        assert_eq!(topics.records("changes").len(), usize::from(cut > 0), "cut behind {cut}");
    }
}

#[test]
fn who_was_taken_over_writes_nothing_more() {
    let (bed, participant) = (KafkaOnly::default(), Obedient::<KafkaOnly>::new());
    let store = store(&bed.0);
    let mut zombie = store.take_over().unwrap();
    let ask = [Ask::new("t", "execute")];
    let answered = |session: &mut Session| try_all(&participant, &store, session, &ask);
    let mut owner = store.take_over().unwrap();
    assert_eq!(answered(&mut owner).unwrap()[0].work, Work::Effect);
    assert!(answered(&mut zombie).is_err(), "what it did is not committed");
    assert!(answered(&mut zombie).is_err(), "and it does not go on with what it holds");
    assert_eq!(answered(&mut owner).unwrap()[0].work, Work::Repeated);
    assert_eq!(bed.0.table()[b"t".as_slice()], b"1");
}

#[test]
fn a_row_is_where_its_key_says_and_nowhere_else() {
    let territory = Territory { partition: 1, partitions: 3, reserved: "sagamore.".into() };
    let topics = Topics::of(territory);
    let store = store(&topics);
    let mut session = store.take_over().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    let business = tx.business();
    let here = |show: &str| sagamore_schemas::home::partition_of(show.as_bytes(), 3).0 == 1;
    let mine = (0..100).map(|n| format!("show-{n}")).find(|show| here(show)).unwrap();
    let other = (0..100).map(|n| format!("show-{n}")).find(|show| !here(show)).unwrap();
    business.write(&mine, &1).unwrap();
    business.write(&format!("{mine}/A1"), &2).unwrap();
    for wrong in
        [other.clone(), format!("{other}/A1"), String::new(), format!("/{mine}"), format!("\0{mine}")]
    {
        assert!(business.write(&wrong, &3).is_err(), "{wrong:?}");
        assert!(business.read::<i64>(&wrong).is_err(), "{wrong:?}: also who looks in vain would be misled");
        assert!(business.remove(wrong.as_bytes()).is_err(), "{wrong:?}");
    }
    tx.commit().unwrap();
    assert_eq!(topics.table().len(), 2);
}

#[test]
fn nothing_is_emitted_to_topics_of_ones_own() {
    let topics = Topics::default();
    let store = store(&topics);
    let mut session = store.take_over().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    let fault = tx.business().emit("sagamore.inbox", b"k", b"v").unwrap_err();
    assert!(fault.reason().contains("sagamore.inbox"), "{}", fault.reason());
    tx.business().emit("sagamorelike", b"k", b"v").unwrap();
}

#[test]
fn one_command_may_write_so_much() {
    use sagamore_participant::store::kafka::COMMAND_BYTES_MAX;
    let topics = Topics::default();
    let store = store(&topics);
    let mut session = store.take_over().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    let value = vec![b'x'; COMMAND_BYTES_MAX - 1];
    for _ in 0..2 {
        tx.savepoint().unwrap();
        tx.business().put(b"k", &value).unwrap();
        assert!(tx.business().emit("events", b"", b"x").is_err());
        tx.roll_back().unwrap();
    }
    tx.business().put(b"k", &value).unwrap();
    tx.commit().unwrap();
    assert_eq!(topics.table()[b"k".as_slice()].len(), COMMAND_BYTES_MAX - 1);
}

/// Many commands that each may, and together may not: the last line, behind a worker who writes much earlier.
#[test]
fn a_batch_that_is_too_large_is_refused() {
    use sagamore_participant::store::kafka::COMMAND_BYTES_MAX;
    let topics = Topics::default();
    let store = store(&topics);
    let value = vec![b'x'; COMMAND_BYTES_MAX - 10];
    for (commands, is_refused) in [(7, false), (8, true)] {
        let mut session = store.take_over().unwrap();
        let mut tx = store.begin(&mut session).unwrap();
        for command in 0..commands {
            tx.savepoint().unwrap();
            tx.business().put(format!("k{command}").as_bytes(), &value).unwrap();
        }
        let refused = matches!(tx.write(), Err(LogFault::Refused(reason)) if reason.contains("bytes"));
        assert_eq!(refused, is_refused, "{commands}");
    }
    assert_eq!(topics.table().len(), 7);
}

#[test]
fn the_table_is_full_and_says_so() {
    let topics = Topics::default();
    let store =
        |table_bytes_max| KafkaStore::new(topics.clone(), Bounds { table_bytes_max, ..Bounds::default() });
    let of = store(10);
    let mut session = of.take_over().unwrap();
    let mut tx = of.begin(&mut session).unwrap();
    let business = tx.business();
    business.put(b"a", b"1234").unwrap();
    business.put(b"b", b"1234").unwrap();
    let full = business.put(b"c", b"").unwrap_err();
    assert_eq!(full.reason(), "the table is full: 10 bytes in this partition");
    assert!(business.put(b"b", b"12345").is_err());
    business.put(b"b", b"123").unwrap();
    business.put(b"c", b"").unwrap();
    tx.commit().unwrap();
    // With a lower bound nothing is lost, and what becomes less is taken.
    let of = store(5);
    let mut session = of.take_over().unwrap();
    let mut tx = of.begin(&mut session).unwrap();
    let business = tx.business();
    assert_eq!(business.get(b"a").unwrap(), Some(b"1234".as_slice()));
    assert!(business.put(b"a", b"12345").is_err());
    business.put(b"a", b"123").unwrap();
    business.remove(b"b").unwrap();
    tx.commit().unwrap();
}

#[test]
fn so_many_branches_are_remembered_and_beyond_it_is_an_error() {
    let topics = Topics::default();
    let of = KafkaStore::new(topics.clone(), Bounds { branches_max: 2, ..Bounds::default() });
    let participant = Obedient::<KafkaOnly>::new();
    let asks = ["a", "b", "c"].map(|subject| Ask::new(subject, "execute"));
    let full = "error the memory of operations is full: 2 branches, none of them behind the watermark";
    assert_eq!(ask_all(&participant, &of, &asks), ["ok", "ok", full]);
    let later = Ask::new("d", "execute").issued(ISSUED_MS + 1).watermark(ISSUED_MS + 1);
    assert_eq!(ask_all(&participant, &of, &[later]), ["ok"]);
    assert_eq!(of.take_over().unwrap().branches(), 1);
    assert!(!topics.table().contains_key(b"c".as_slice()));
}

#[test]
fn what_others_have_written_is_not_passed_over() {
    let topics = Topics::default();
    topics.write_to_memory(b"{}", b"what is this");
    assert!(matches!(store(&topics).take_over(), Err(LogFault::Halted(text)) if text.contains("{}")));
}
