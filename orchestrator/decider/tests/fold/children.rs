//! Children: a step starts another definition, on the way forward, back, and where the two shards miss each other.

use std::collections::BTreeMap;

use sagamore_decider::definition::build::{definition, step};
use sagamore_decider::definition::check::{NESTING_MAX, Problem, children};
use sagamore_decider::definition::plan::Plan;
use sagamore_decider::transaction::DefinitionId;

use crate::harness::{Case, check};

#[test]
fn a_child_is_a_step() {
    CASES.iter().for_each(check);
}

/// Problems of a definition with so many generations below it.
fn problems_of(generations: u32) -> Vec<Problem> {
    let mut known: BTreeMap<DefinitionId, Plan> = BTreeMap::new();
    let mut problems = Vec::new();
    for version in 1..=generations + 1 {
        let link = step("s");
        let link = match version {
            1 => link.participant("p"),
            _ => link.child(&format!("d@{}", version - 1)).pivot(),
        };
        let (_, plan) = definition("d", version).step(link).build().unwrap();
        problems = children(&plan, |id| known.get(id));
        known.insert(DefinitionId { name: plan.name.clone(), version }, plan);
    }
    problems
}

#[test]
fn so_many_generations_may_be_below_a_definition() {
    assert_eq!(problems_of(NESTING_MAX - 1), []);
    assert_eq!(problems_of(NESTING_MAX), []);
    let problems = problems_of(NESTING_MAX + 1);
    assert_eq!(
        problems[0].to_string(),
        "steps: more than 16 definitions begin each other in a row, down to d@1 (too-deep); do in one definition \
         what several only pass on"
    );
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "the child's outcome is the result of the step",
        given: "name=refund; pay",
        when: r#"
            define a; back child=refund@1 pivot input={"n":"${input.n}"}; book retriable input={"r":"${steps.back.steps.pay}"}
            start {"n":7}
            a ok
            post begin back#1
            post begin back#1
            post back execute 1 pending
            on back#1
            pay ok {"receipt":1}
            post back execute 1 ok
            post back execute 1 ok
            post forget back#1
            post forget back#1
            post begin back#1
            on t
            book ok
        "#,
        then: r#"
            define a; back child=refund@1 pivot input={"n":"${input.n}"}; book retriable input={"r":"${steps.back.steps.pay}"}
            start {"n":7}  [S1]
              -> a execute 1 {"n":7}
            a ok  [S4 C1]
              ~> begin back#1 refund@1 {"n":7}
            post begin back#1  [S1]
              -> pay execute 1 {"n":7}
            post begin back#1
              ~> back execute 1 pending
            post back execute 1 pending  [C7]
            pay ok {"receipt":1}  [S4 T1 T5]
              = back#1 at 2 committed {"steps":{"pay":{"receipt":1}}}
              ~> back execute 1 ok {"steps":{"pay":{"receipt":1}}}
            post back execute 1 ok  [C3 S1 T1]
              ~> forget back#1
              -> book execute 1 {"r":{"receipt":1}}
            post back execute 1 ok  [C20]
            post forget back#1
            post forget back#1
            post begin back#1
            book ok  [S4 T5]
              = t at 5 committed {"steps":{"back":{"steps":{"pay":{"receipt":1}}}}}
        "#,
    },
    Case {
        name: "refused by a child: its parent turns back",
        given: "name=refund; pay; give pivot",
        when: "
            define a; back child=refund@1 pivot
            start
            a ok
            post begin back#1
            on back#1
            pay ok
            give refused sold out
            pay ok
            post back execute 1 refused
            post forget back#1
            on t
            a ok
        ",
        then: "
            define a; back child=refund@1 pivot
            start  [S1]
              -> a execute 1
            a ok  [S4 C1]
              ~> begin back#1 refund@1
            post begin back#1  [S1]
              -> pay execute 1
            pay ok  [S4 S1]
              -> give execute 1
            give refused sold out  [S7 S15 T4]
              -> pay compensate 1
            pay ok  [S16 T6]
              = back#1 at 4 compensated: give: sold out
              ~> back execute 1 refused: back#1 compensated: give: sold out
            post back execute 1 refused  [C6 S15 T4]
              ~> forget back#1
              -> a compensate 1
            post forget back#1
            a ok  [S16 T6]
              = t at 4 compensated: back: back#1 compensated: give: sold out
        ",
    },
    Case {
        name: "a person answers for what undoes a child",
        given: "name=recharge; take",
        when: "
            define name=refund; undo=recharge@1; pay
            define back child=refund@1; b
            start
            post begin back#1
            on back#1
            pay ok
            post back execute 1 ok
            post forget back#1
            on t
            b refused no
            post begin back#2
            on back#2
            take refused gone
            post back compensate 1 refused
            on t
            resolve back ok taken by hand
        ",
        then: r#"
            define name=refund; undo=recharge@1; pay
            define back child=refund@1; b
            start  [C1]
              ~> begin back#1 refund@1
            post begin back#1  [S1]
              -> pay execute 1
            pay ok  [S4 T1 T5]
              = back#1 at 2 committed {"steps":{}}
              ~> back execute 1 ok {"steps":{}}
            post back execute 1 ok  [C3 S1]
              ~> forget back#1
              -> b execute 1
            post forget back#1
            b refused no  [S7 C15 T4]
              ~> begin back#2 recharge@1 {"input":{},"result":{"steps":{}}}
            post begin back#2  [S1]
              -> take execute 1 {"input":{},"result":{"steps":{}}}
            take refused gone  [S7 T4 T6]
              = back#2 at 2 aborted: take: gone
              ~> back compensate 1 refused: back#2 aborted: take: gone
            post back compensate 1 refused  [C17 T7]
              ~> forget back#2
              = t at 4 stuck: back: compensate back#2 aborted: take: gone
            resolve back ok taken by hand  [C19 T6]
              = t at 5 compensated: b: no
        "#,
    },
    Case {
        name: "a committed child is undone by what it names",
        given: "name=recharge; take",
        when: r#"
            define name=refund; undo=recharge@1; pay
            define back child=refund@1 input={"n":"${input.n}"}; b
            start {"n":7}
            post begin back#1
            on back#1
            pay ok {"receipt":1}
            post back execute 1 ok
            post forget back#1
            on t
            b refused no
            post begin back#2
            on back#2
            take refused gone
            post back compensate 1 refused
            post forget back#2
            on t
            retry now
            post begin back#3 2
            post back compensate 1 refused
            on back#3
            take ok
            post back compensate 2 ok
            post forget back#3 2
        "#,
        then: r#"
            define name=refund; undo=recharge@1; pay
            define back child=refund@1 input={"n":"${input.n}"}; b
            start {"n":7}  [C1]
              ~> begin back#1 refund@1 {"n":7}
            post begin back#1  [S1]
              -> pay execute 1 {"n":7}
            pay ok {"receipt":1}  [S4 T1 T5]
              = back#1 at 2 committed {"steps":{"pay":{"receipt":1}}}
              ~> back execute 1 ok {"steps":{"pay":{"receipt":1}}}
            post back execute 1 ok  [C3 S1]
              ~> forget back#1
              -> b execute 1 {"n":7}
            post forget back#1
            b refused no  [S7 C15 T4]
              ~> begin back#2 recharge@1 {"input":{"n":7},"result":{"steps":{"pay":{"receipt":1}}}}
            post begin back#2  [S1]
              -> take execute 1 {"input":{"n":7},"result":{"steps":{"pay":{"receipt":1}}}}
            take refused gone  [S7 T4 T6]
              = back#2 at 2 aborted: take: gone
              ~> back compensate 1 refused: back#2 aborted: take: gone
            post back compensate 1 refused  [C17 T7]
              ~> forget back#2
              = t at 4 stuck: back: compensate back#2 aborted: take: gone
            post forget back#2
            retry now  [C18]
              ~> begin back#3 2 recharge@1 {"input":{"n":7},"result":{"steps":{"pay":{"receipt":1}}}}
            post begin back#3 2  [S1]
              -> take execute 1 {"input":{"n":7},"result":{"steps":{"pay":{"receipt":1}}}}
            post back compensate 1 refused  [C20]
            take ok  [S4 T1 T5]
              = back#3 at 2 committed {"steps":{}}
              ~> back compensate 2 ok {"steps":{}}
            post back compensate 2 ok  [C16 T6]
              ~> forget back#3 2
              = t at 6 compensated: b: no
            post forget back#3 2
        "#,
    },
    Case {
        name: "called off: before it begins, while it runs, after it has committed",
        given: "name=recharge; take",
        when: "
            define name=refund; undo=recharge@1; pay; give
            define deadline=1m; back child=refund@1
            start x
            cancel no more
            post call-off back#1
            post back abort 1 ok
            post begin back#1
            post call-off back#1
            start y
            post begin back#2
            on back#2
            pay ok
            on y
            cancel no more
            post call-off back#2
            post back abort 1 pending
            on back#2
            give:execute ok
            give ok
            pay ok
            post call-off back#2
            post back execute 1 refused
            post forget back#2
            start z
            post begin back#3
            on back#3
            pay ok
            give ok
            on z
            cancel no more
            post call-off back#3
            post back execute 1 ok
            post forget back#3
            post begin back#4
            on back#4
            take ok
            post back compensate 1 ok
        ",
        then: r#"
            define name=refund; undo=recharge@1; pay; give
            define deadline=1m; back child=refund@1
            start x  [C1]
              ~> begin back#1 refund@1
            cancel no more  [C10 C11 T2]
              ~> call-off back#1
            post call-off back#1
              ~> back abort 1 ok
            post back abort 1 ok  [C12 T6]
              = x at 3 aborted: cancelled: no more
            post begin back#1
            post call-off back#1
              ~> back abort 1 ok
            start y  [C1]
              ~> begin back#2 refund@1
            post begin back#2  [S1]
              -> pay execute 1
            pay ok  [S4 S1]
              -> give execute 1
            cancel no more  [C10 C11 T2]
              ~> call-off back#2
            post call-off back#2  [S14 S15 T2]
              -> give compensate 1
              ~> back abort 1 pending
            post back abort 1 pending  [C7]
            give:execute ok  [S21]
            give ok  [S16 S15]
              -> pay compensate 1
            pay ok  [S16 T6]
              = back#2 at 5 compensated: cancelled: its parent turned back
              ~> back execute 1 refused: back#2 compensated: cancelled: its parent turned back
            post call-off back#2
              ~> back execute 1 refused: back#2 compensated: cancelled: its parent turned back
            post back execute 1 refused  [C13 T6]
              ~> forget back#2
              = y at 4 compensated: cancelled: no more
            post forget back#2
            start z  [C1]
              ~> begin back#3 refund@1
            post begin back#3  [S1]
              -> pay execute 1
            pay ok  [S4 S1]
              -> give execute 1
            give ok  [S4 T1 T5]
              = back#3 at 3 committed {"steps":{}}
              ~> back execute 1 ok {"steps":{}}
            cancel no more  [C10 C11 T2]
              ~> call-off back#3
            post call-off back#3
              ~> back execute 1 ok {"steps":{}}
            post back execute 1 ok  [C14 C15]
              ~> forget back#3
              ~> begin back#4 recharge@1 {"input":{},"result":{"steps":{}}}
            post forget back#3
            post begin back#4  [S1]
              -> take execute 1 {"input":{},"result":{"steps":{}}}
            take ok  [S4 T1 T5]
              = back#4 at 2 committed {"steps":{}}
              ~> back compensate 1 ok {"steps":{}}
            post back compensate 1 ok  [C16 T6]
              ~> forget back#4
              = z at 4 compensated: cancelled: no more
        "#,
    },
    Case {
        name: "a child of a step that is retriable is begun anew when somebody says so",
        given: "name=refund; pay",
        when: "
            define a; back child=refund@1 retriable
            start
            a ok
            post begin back#1
            on back#1
            pay refused closed
            post back execute 1 refused
            on t
            retry open again
            post begin back#2 2
            post back execute 1 refused
            on back#2
            pay ok
            post back execute 2 ok
        ",
        then: r#"
            define a; back child=refund@1 retriable
            start  [S1]
              -> a execute 1
            a ok  [S4 C1 T1]
              ~> begin back#1 refund@1
            post begin back#1  [S1]
              -> pay execute 1
            pay refused closed  [S7 T4 T6]
              = back#1 at 2 aborted: pay: closed
              ~> back execute 1 refused: back#1 aborted: pay: closed
            post back execute 1 refused  [C5 T7]
              ~> forget back#1
              = t at 3 stuck: back: execute back#1 aborted: pay: closed
            retry open again  [C18]
              ~> begin back#2 2 refund@1
            post begin back#2 2  [S1]
              -> pay execute 1
            post back execute 1 refused  [C20]
            pay ok  [S4 T1 T5]
              = back#2 at 2 committed {"steps":{}}
              ~> back execute 2 ok {"steps":{}}
            post back execute 2 ok  [C3 T5]
              ~> forget back#2 2
              = t at 5 committed {"steps":{"back":{"steps":{}}}}
        "#,
    },
    Case {
        name: "a home that is away is asked again, and so is one that has no room or does not know the definition",
        given: "name=refund; pay",
        when: r#"
            define deadline=10m; back child=refund@1 pivot timeout=5s
            start
            +6s
            post begin back#1 2
            post begin back#1
            post back execute 1 pending
            post begin back#1 2
            post back execute 2 pending
            settings {"dedupe_window":"1s"}
            start u
            +3s
            post begin back#2
            post back execute 1 error
            ring
            settings {"open_max":1}
            post begin back#2 2
            post back execute 2 error
            settings {"open_max":100}
            ring
            post begin back#2 3
        "#,
        then: r#"
            define deadline=10m; back child=refund@1 pivot timeout=5s
            start  [C1]
              ~> begin back#1 refund@1
            timer back/refund  [C8]
            timer back/refund  [C9]
              ~> begin back#1 2 refund@1
            post begin back#1 2  [S1]
              -> pay execute 1
            post begin back#1
              ~> back execute 1 pending
            post back execute 1 pending  [C20]
            post begin back#1 2
              ~> back execute 2 pending
            post back execute 2 pending  [C7]
            settings {"dedupe_window":"1s"}
            start u  [C1]
              ~> begin back#2 refund@1
            post begin back#2
              ~> back execute 1 error: too-old: first issued before 2026-01-01T00:00:08.000Z: it may have run, and be forgotten
            post back execute 1 error  [C8]
            timer back/refund  [C9]
              ~> begin back#2 2 refund@1
            settings {"open_max":1}
            post begin back#2 2
              ~> back execute 2 error: overloaded: this shard holds as many transactions as it may: try again later
            post back execute 2 error  [C8]
            settings {"open_max":100}
            timer back/refund  [C9]
              ~> begin back#2 3 refund@1
            post begin back#2 3  [S1]
              -> pay execute 1
        "#,
    },
    Case {
        name: "what a child cannot begin with is a refusal, and stays one",
        given: "name=refund; pay input={\"amount\":\"${input.amount}\"}",
        when: "
            define a; back child=refund@1 pivot
            start
            a ok
            post begin back#1
            post begin back#1
            post back execute 1 refused
            post forget back#1
            on t
            a ok
        ",
        then: "
            define a; back child=refund@1 pivot
            start  [S1]
              -> a execute 1
            a ok  [S4 C1]
              ~> begin back#1 refund@1
            post begin back#1
              ~> back execute 1 refused: missing-input: refund@1 needs ${input.amount}
            post begin back#1
            post back execute 1 refused  [C6 S15 T4]
              ~> forget back#1
              -> a compensate 1
            post forget back#1
            a ok  [S16 T6]
              = t at 4 compensated: back: missing-input: refund@1 needs ${input.amount}
        ",
    },
    Case {
        name: "a result that does not fit",
        given: "name=recharge; take",
        when: r#"
            settings {"transaction_bytes_max":1024}
            define name=refund; undo=recharge@1; pay
            define back child=refund@1; b
            start
            post begin back#1
            on back#1
            pay ok *1015
            post back execute 1 ok
        "#,
        then: r#"
            settings {"transaction_bytes_max":1024}
            define name=refund; undo=recharge@1; pay
            define back child=refund@1; b
            start  [C1]
              ~> begin back#1 refund@1
            post begin back#1  [S1]
              -> pay execute 1
            pay ok *1015  [S4 T1 T5]
              = back#1 at 2 committed 1033 bytes
              ~> back execute 1 ok 1033 bytes
            post back execute 1 ok  [C4 S3 C15 T4]
              ~> forget back#1
              ~> begin back#2 recharge@1 {"input":{}}
        "#,
    },
    Case {
        name: "a result that leaves no room for what undoes it, and an input that is too large",
        given: "name=recharge; take",
        when: r#"
            settings {"transaction_bytes_max":1024}
            define name=refund; undo=recharge@1; pay
            define back child=refund@1; b
            start
            post begin back#1
            on back#1
            pay ok *600
            post back execute 1 ok
            post begin back#2
            define version=2; a; back child=refund@1 input={"a":"${steps.a}"}
            start u {} t@2
            a ok *600
        "#,
        then: r#"
            settings {"transaction_bytes_max":1024}
            define name=refund; undo=recharge@1; pay
            define back child=refund@1; b
            start  [C1]
              ~> begin back#1 refund@1
            post begin back#1  [S1]
              -> pay execute 1
            pay ok *600  [S4 T1 T5]
              = back#1 at 2 committed 618 bytes
              ~> back execute 1 ok 618 bytes
            post back execute 1 ok  [C4 S3 C15 T4]
              ~> forget back#1
              ~> begin back#2 recharge@1 {"input":{}}
            post begin back#2  [S1]
              -> take execute 1
            define version=2; a; back child=refund@1 input={"a":"${steps.a}"}
            start u {} t@2  [S1]
              -> a execute 1
            a ok *600  [S4 C2 S15 T4]
              -> a compensate 1 622 bytes
        "#,
    },
    Case {
        name: "each generation has room that the one above it cannot take",
        given: "name=leaf; pay",
        when: r#"
            settings {"open_max":1}
            define name=middle; down child=leaf@1 pivot
            define back child=middle@1 pivot
            start
            start other
            post begin back#1
            post begin down#1
            on down#1
            pay ok
            post down execute 1 ok
            post forget down#1
            post back execute 1 ok
        "#,
        then: r#"
            settings {"open_max":1}
            define name=middle; down child=leaf@1 pivot
            define back child=middle@1 pivot
            start  [C1]
              ~> begin back#1 middle@1
            start other
              = other refused: overloaded: this shard holds as many transactions as it may: try again later
            post begin back#1  [C1]
              ~> begin down#1 leaf@1
            post begin down#1  [S1]
              -> pay execute 1
            pay ok  [S4 T1 T5]
              = down#1 at 2 committed {"steps":{}}
              ~> down execute 1 ok {"steps":{}}
            post down execute 1 ok  [C3 T1 T5]
              ~> forget down#1
              = back#1 at 2 committed {"steps":{"down":{"steps":{}}}}
              ~> back execute 1 ok {"steps":{"down":{"steps":{}}}}
            post forget down#1
            post back execute 1 ok  [C3 T1 T5]
              ~> forget back#1
              = t at 2 committed {"steps":{"back":{"steps":{"down":{"steps":{}}}}}}
        "#,
    },
    Case {
        name: "what a definition names has to be there, and to have a way back",
        given: "name=refund; pay input={\"amount\":\"${input.amount}\"}",
        when: r#"
            define back child=refund@2
            define back child=refund@1
            define back child=t@1 pivot
            define back child=refund@1 pivot input={"total":1}
            define name=refund; version=2; undo=recharge@1; pay
        "#,
        then: r#"
            define back child=refund@2
              x t@1: steps[0].definition: there is no refund@2 (unknown-definition); apply it first: a definition names what stands before it
            define back child=refund@1
              x t@1: steps[0].definition: refund@1 cannot be undone, and `back` may have to be (no-way-back); give refund a version with `compensated_by`, or make the step the pivot or retriable
            define back child=t@1 pivot
              x t@1: steps[0].definition: t@1 names itself (cycle); name another one: what a definition names is applied before it
            define back child=refund@1 pivot input={"total":1}
              x t@1: steps[0].input: refund@1 reads ${input.amount}, which is not in the input of `back` (missing-input); add it to the input
            define name=refund; version=2; undo=recharge@1; pay
              x refund@2: compensated_by: there is no recharge@1 (unknown-definition); apply it first: a definition names what stands before it
        "#,
    },
    Case {
        name: "no child of what is not wanted, cannot be mapped, or is never reached",
        given: "name=refund; pay",
        when: r#"
            define name=t; a; back child=refund@1 pivot when=input.n>1
            start x {"n":1}
            a ok
            define version=2; a; back child=refund@1 pivot input="${steps.a.m}"
            start y {} t@2
            a ok
            a ok
            start z {} t@2
            a refused no
        "#,
        then: r#"
            define name=t; a; back child=refund@1 pivot when=input.n>1
            start x {"n":1}  [S1]
              -> a execute 1 {"n":1}
            a ok  [S4 C2 T1 T5]
              = x at 2 committed {"steps":{}}
            define version=2; a; back child=refund@1 pivot input="${steps.a.m}"
            start y {} t@2  [S1]
              -> a execute 1
            a ok  [S4 C2 S15 T4]
              -> a compensate 1
            a ok  [S16 T6]
              = y at 3 compensated: back: ${steps.a.m} does not exist
            start z {} t@2  [S1]
              -> a execute 1
            a refused no  [S7 C2 T4 T6]
              = z at 2 aborted: a: no
        "#,
    },
    Case {
        name: "an id that is taken is no child",
        given: "name=refund; pay",
        when: r#"
            define deadline=1m; back child=refund@1 pivot
            start x
            start back#1 {} refund
            post begin back#1
            post back execute 1 refused
            post forget back#1
            define version=2; deadline=1m; b retriable; back child=refund@1 pivot after=
            start y {} t@2
            start back#2 {"mine":1} refund
            on back#2
            pay ok {"other":1}
            post begin back#2
        "#,
        then: r#"
            define deadline=1m; back child=refund@1 pivot
            start x  [C1]
              ~> begin back#1 refund@1
            start back#1 {} refund  [S1]
              -> pay execute 1
            post begin back#1
              ~> back execute 1 refused: conflict: the child's id is taken by another transaction
            post back execute 1 refused  [C6 T4 T6]
              ~> forget back#1
              = x at 2 aborted: back: conflict: the child's id is taken by another transaction
            post forget back#1
            define version=2; deadline=1m; b retriable; back child=refund@1 pivot after=
            start y {} t@2  [C1]
              ~> begin back#2 refund@1
            start back#2 {"mine":1} refund  [S1]
              -> pay execute 1 {"mine":1}
            pay ok {"other":1}  [S4 T1 T5]
              = back#2 at 2 committed {"steps":{"pay":{"other":1}}}
            post begin back#2
              ~> back execute 1 refused: conflict: the child's id is taken by another transaction
        "#,
    },
];
