//! Branches in doubt, in every store: who they are, and what a verdict or the end of their time does.

use sagamore_participant::barrier::Branch;
use sagamore_participant::doubt::{Settled, decide_alone, settle};
use sagamore_participant::store::{LocalTransaction, Store};
use sagamore_schemas::wire::Decided;

use crate::ask::{Ask, ask_all, text, try_all};
use crate::bed::{Bed, Obedient};

fn branch(subject: &str) -> Branch {
    Branch {
        instance: uuid::Uuid::nil(),
        subject: subject.parse().unwrap(),
        birth: "0-7".parse().unwrap(),
        step: "s".into(),
        branch: "b".into(),
    }
}

/// Subjects, in portions of two, as a process sees them that opens the store anew.
fn in_doubt<B: Bed>(bed: &B) -> Vec<String> {
    let store = bed.open();
    let mut session = store.session().unwrap();
    let (mut subjects, mut after) = (Vec::new(), None);
    loop {
        let portion = store.in_doubt(&mut session, after.as_ref(), 2).unwrap();
        assert!(portion.len() <= 2);
        let Some(last) = portion.last() else { break };
        after = Some(last.branch.clone());
        for one in portion {
            let prepare = one.vote.prepare().unwrap();
            assert_eq!((prepare.replyto.as_ref(), prepare.replytoken), ("sagamore.inbox/0", None));
            assert_eq!(&prepare.address.subject, &one.branch.subject);
            subjects.push(one.branch.subject.to_string());
        }
    }
    subjects.sort();
    subjects
}

pub(crate) fn who_is_in_doubt_is_known_until_he_is_told<B: Bed>() {
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let store = bed.open();
    let ask = |text: &str| -> Vec<Ask> {
        text.split_whitespace()
            .map(|one| one.split_once(':').unwrap())
            .map(|(subject, operation)| Ask::new(subject, operation))
            .collect()
    };
    let first =
        ask("a:prepare b:prepare b:precommit c:prepare d:prepare=refused e:abort f:prepare=fault g:execute");
    ask_all(&participant, &store, &first);
    assert_eq!(in_doubt(&bed), ["a", "b", "c"]);
    ask_all(&participant, &store, &ask("a:commit=fault b:abort=panic e:prepare a:prepare"));
    assert_eq!(in_doubt(&bed), ["a", "b", "c"], "what failed has told nothing");
    let mut session = store.session().unwrap();
    {
        let mut tx = store.begin(&mut session).unwrap();
        let again = ask("c:abort");
        sagamore_participant::perform::perform(&participant, &mut tx, &again[0].command()).unwrap();
        assert_eq!(tx.vote(&branch("c").key()).unwrap(), None);
    }
    assert_eq!(in_doubt(&bed), ["a", "b", "c"], "what was not committed has not happened");
    ask_all(&participant, &store, &ask("a:commit b:abort h:prepare h:commit i:prepare"));
    assert_eq!(in_doubt(&bed), ["c", "i"]);
}

/// `when`: commands on one branch, and `verdict <decision>` or `alone`, each in a local transaction of its own.
fn check<B: Bed>(when: &[&str], then: &str) {
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let store = bed.open();
    let mut session = store.session().unwrap();
    let mut said = Vec::new();
    for one in when {
        let decision = one.strip_prefix("verdict ");
        if decision.is_none() && *one != "alone" {
            let answers = try_all(&participant, &store, &mut session, &[Ask::new("t", one)]).unwrap();
            said.push(text(&answers[0]));
            continue;
        }
        let mut tx = store.begin(&mut session).unwrap();
        said.push(match decision {
            Some(decision) => {
                let decision = Decided::ALL.into_iter().find(|known| known.as_str() == decision).unwrap();
                match settle(&participant, &mut tx, &branch("t"), decision).unwrap() {
                    Settled::Told(answered) => format!("told {}", text(&answered)),
                    Settled::Undecided => "undecided".into(),
                    Settled::Forgotten => "forgotten".into(),
                    Settled::NotInDoubt => "not in doubt".into(),
                    Settled::Contradicted(refusal) => format!("has {}", refusal.as_str()),
                }
            }
            None => match decide_alone(&participant, &mut tx, &branch("t")).unwrap() {
                Some((operation, answered)) => format!("{operation} {}", text(&answered)),
                None => "nothing".into(),
            },
        });
        tx.commit().unwrap();
    }
    said.push(bed.net("t").to_string());
    assert_eq!(said.join(", "), then, "{when:?}");
}

pub(crate) fn a_verdict_is_the_command_of_that_name<B: Bed>() {
    check::<B>(
        &["prepare", "verdict commit", "verdict commit", "commit", "commit"],
        "ok, told ok, not in doubt, ok, ok, 11",
    );
    check::<B>(
        &["prepare", "verdict abort", "verdict abort", "abort", "prepare"],
        "ok, told ok, not in doubt, ok, ok, 0",
    );
    check::<B>(
        &["prepare", "precommit", "verdict commit", "precommit", "commit"],
        "ok, ok, told ok, ok, ok, 11",
    );
    check::<B>(
        &["prepare", "verdict commit", "precommit", "commit", "compensate"],
        "ok, told ok, ok, ok, ok, 10",
    );
    check::<B>(
        &["prepare", "verdict undecided", "verdict forgotten", "commit"],
        "ok, undecided, forgotten, ok, 11",
    );
    check::<B>(&["prepare", "verdict forgotten", "verdict abort"], "ok, forgotten, told ok, 0");
    // It carries input and result, as the command does; what fails is not stored.
    check::<B>(&["prepare=slip", "verdict commit", "commit"], "ok, told error told to, ok, 11");
}

pub(crate) fn a_verdict_about_nothing_in_doubt_does_nothing<B: Bed>() {
    let seen = i32::from(!B::HOLDS_VOTES);
    check::<B>(
        &["verdict commit", "verdict abort", "verdict forgotten", "prepare"],
        &format!("not in doubt, not in doubt, not in doubt, ok, {seen}"),
    );
    check::<B>(
        &["prepare=refused", "verdict commit", "verdict abort"],
        "refused told-to, not in doubt, not in doubt, 0",
    );
    check::<B>(&["abort", "verdict commit", "prepare"], "ok, not in doubt, refused cancelled, 0");
    check::<B>(
        &["prepare", "commit", "verdict abort", "verdict forgotten"],
        "ok, ok, has committed, not in doubt, 11",
    );
    check::<B>(&["prepare", "abort", "verdict commit"], "ok, ok, has aborted, 0");
    check::<B>(&["execute", "verdict commit", "verdict abort"], "ok, not in doubt, not in doubt, 1");
}

pub(crate) fn whose_time_is_up_decides_by_what_he_knows<B: Bed>() {
    check::<B>(&["prepare", "alone", "alone", "abort"], "ok, abort ok, nothing, ok, 0");
    check::<B>(&["prepare", "precommit", "alone", "alone", "commit"], "ok, ok, commit ok, nothing, ok, 11");
    check::<B>(
        &["prepare", "alone", "precommit", "commit"],
        "ok, abort ok, refused aborted, refused aborted, 0",
    );
    check::<B>(&["prepare", "precommit", "alone", "abort"], "ok, ok, commit ok, refused committed, 11");
    check::<B>(&["prepare", "alone", "verdict commit"], "ok, abort ok, has aborted, 0");
    check::<B>(&["alone", "prepare=refused", "alone"], "nothing, refused told-to, nothing, 0");
}
