//! Branches in doubt, in every store: who they are, and what a verdict or the end of their time does.

use sagamore_participant::barrier::Branch;
use sagamore_participant::doubt::{Settled, decide_alone, settle};
use sagamore_participant::heuristic::{ByHand, Said, Standing, settle_by_hand};
use sagamore_participant::store::{LocalTransaction, Store};
use sagamore_participant::{Operation, Participant};
use sagamore_schemas::wire::{Decided, HeuristicWish};

use crate::ask::{Ask, ask_all, text, try_all};
use crate::bed::{Bed, Obedient};

pub(crate) fn branch(subject: &str) -> Branch {
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

fn by(actor: &str) -> ByHand {
    let time = sagamore_schemas::ids::Time::from_epoch_ms(7_000);
    ByHand { actor: actor.into(), reason: "a \"queue\" of 3 h, é".into(), time }
}

/// What an operator says.
pub(crate) fn by_hand<P: Participant>(
    participant: &P,
    store: &P::Store,
    wish: HeuristicWish,
    operation: &str,
) -> String {
    let operation = Operation::ALL.into_iter().find(|known| known.as_str() == operation).unwrap();
    let actor = if wish == HeuristicWish::Decided { "anna" } else { "bert" };
    let mut session = store.session().unwrap();
    let mut tx = store.begin(&mut session).unwrap();
    let said = Said { wish, by: by(actor) };
    let settled = settle_by_hand(participant, &mut tx, &branch("t"), operation, &said).unwrap();
    tx.commit().unwrap();
    told(settled)
}

fn told(settled: Settled) -> String {
    match settled {
        Settled::Told(answered) => format!("told {}", text(&answered)),
        Settled::Undecided => "undecided".into(),
        Settled::Forgotten => "forgotten".into(),
        Settled::NotInDoubt => "not in doubt".into(),
        Settled::Contradicted(refusal) => format!("has {}", refusal.as_str()),
        Settled::Repaired => "repaired".into(),
        Settled::NotMixed => "not mixed".into(),
    }
}

/// What is kept of the only decision by hand, as a process sees it that opens the store anew.
pub(crate) fn kept<B: Bed>(bed: &B) -> String {
    let store = bed.open();
    let mut session = store.session().unwrap();
    let all = store.heuristics(&mut session, None, 9).unwrap();
    let [(of, kept)] = all.as_slice() else { return format!("{} kept", all.len()) };
    assert_eq!(of, &branch("t"));
    assert!(store.heuristics(&mut session, Some(of), 9).unwrap().is_empty());
    assert_eq!(kept.decided, by("anna"));
    assert_eq!(kept.repaired, (kept.standing == Standing::Repaired).then(|| by("bert")));
    format!("{} by hand, {}", kept.operation, kept.standing.as_str())
}

/// `when`: commands on one branch, `verdict <decision>`, `alone`, `hand <operation>` and `repair <operation>`, each in a local
/// transaction of its own; and `kept`.
fn check<B: Bed>(when: &[&str], then: &str) {
    let (bed, participant) = (B::default(), Obedient::<B>::new());
    let store = bed.open();
    let mut session = store.session().unwrap();
    let mut said = Vec::new();
    for one in when {
        if *one == "kept" {
            said.push(kept(&bed));
            continue;
        }
        let (verb, what) = one.split_once(' ').unwrap_or((one, ""));
        if !["verdict", "alone", "hand", "repair"].contains(&verb) {
            let answers = try_all(&participant, &store, &mut session, &[Ask::new("t", one)]).unwrap();
            said.push(text(&answers[0]));
            continue;
        }
        if let "hand" | "repair" = verb {
            let wish = if verb == "hand" { HeuristicWish::Decided } else { HeuristicWish::Repaired };
            said.push(by_hand(&participant, &store, wish, what));
            continue;
        }
        let mut tx = store.begin(&mut session).unwrap();
        said.push(match verb {
            "verdict" => {
                let decision = Decided::ALL.into_iter().find(|known| known.as_str() == what).unwrap();
                told(settle(&participant, &mut tx, &branch("t"), decision).unwrap())
            }
            _ => match decide_alone(&participant, &mut tx, &branch("t")).unwrap() {
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

pub(crate) fn what_is_decided_by_hand_is_done_once_and_agreed_with<B: Bed>() {
    check::<B>(
        &["prepare", "hand commit", "kept", "hand commit", "commit", "kept", "commit", "verdict commit"],
        "ok, told ok, commit by hand, open, not in doubt, ok, commit by hand, agreed, ok, not in doubt, 11",
    );
    check::<B>(
        &["prepare", "hand abort", "prepare", "verdict abort", "kept", "abort"],
        "ok, told ok, ok, not in doubt, abort by hand, agreed, ok, 0",
    );
    check::<B>(
        &["prepare", "precommit", "hand commit", "precommit", "commit", "compensate", "kept"],
        "ok, ok, told ok, ok, ok, ok, commit by hand, agreed, 10",
    );
    // What fails is neither done nor kept; and it may be said again.
    check::<B>(
        &["prepare=slip", "hand commit", "commit", "kept", "hand abort"],
        "ok, told error told to, ok, 0 kept, has committed, 11",
    );
    check::<B>(
        &["hand commit", "prepare=refused", "hand abort", "kept"],
        "not in doubt, refused told-to, not in doubt, 0 kept, 0",
    );
    check::<B>(
        &["prepare", "commit", "hand abort", "hand commit", "kept"],
        "ok, ok, has committed, not in doubt, 0 kept, 11",
    );
}

pub(crate) fn what_is_decided_by_hand_and_contradicted_is_mixed<B: Bed>() {
    check::<B>(
        &["prepare", "hand abort", "commit", "kept", "commit", "abort", "kept"],
        "ok, told ok, refused heuristic-mixed, abort by hand, mixed, refused heuristic-mixed, ok, abort by hand, mixed, 0",
    );
    check::<B>(
        &["prepare", "hand commit", "abort", "verdict abort", "kept"],
        "ok, told ok, refused heuristic-mixed, has heuristic-mixed, commit by hand, mixed, 11",
    );
    check::<B>(
        &["prepare", "hand abort", "verdict commit", "kept", "commit"],
        "ok, told ok, has heuristic-mixed, abort by hand, mixed, refused heuristic-mixed, 0",
    );
    check::<B>(
        &["prepare", "hand abort", "precommit", "kept"],
        "ok, told ok, refused heuristic-mixed, abort by hand, mixed, 0",
    );
    // Two operators: the first one's counts, and nothing is mixed by that.
    check::<B>(
        &["prepare", "hand abort", "hand commit", "repair commit", "kept", "abort"],
        "ok, told ok, has heuristic-mixed, not mixed, abort by hand, open, ok, 0",
    );
}

pub(crate) fn what_is_mixed_is_repaired_by_hand_alone<B: Bed>() {
    check::<B>(
        &[
            "prepare",
            "hand abort",
            "commit",
            "repair abort",
            "repair commit",
            "kept",
            "commit",
            "repair commit",
            "kept",
        ],
        "ok, told ok, refused heuristic-mixed, not mixed, repaired, abort by hand, repaired, ok, not mixed, \
         abort by hand, repaired, 0",
    );
    check::<B>(
        &["prepare", "hand commit", "abort", "repair abort", "abort", "kept"],
        "ok, told ok, refused heuristic-mixed, repaired, ok, commit by hand, repaired, 11",
    );
    check::<B>(
        &["prepare", "precommit", "hand abort", "commit", "repair commit", "precommit", "commit"],
        "ok, ok, told ok, refused heuristic-mixed, repaired, ok, ok, 0",
    );
    check::<B>(
        &["repair commit", "prepare", "repair abort", "commit", "kept"],
        "not mixed, ok, not mixed, ok, 0 kept, 11",
    );
}
