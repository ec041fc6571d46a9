//! Protocols in one transaction, which has one decision; steps that are skipped; branches in doubt.

use crate::harness::{Case, check};

#[test]
fn mixtures_have_one_decision() {
    CASES.iter().for_each(check);
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "reserved: held in its place, confirmed by the decision",
        given: "a; hold reserved; charge pivot; ship retriable",
        when: r#"
            start
            a ok
            hold ok {"seat":7}
            charge ok
            ship ok
            hold ok
        "#,
        then: r#"
            start  [S1]
              -> a execute 1
            a ok  [S4 P1]
              -> hold prepare 1
            hold ok {"seat":7}  [P4 S1]
              -> charge execute 1
            charge ok  [S4 P11 S1 T1]
              -> hold commit 1 {"input":{},"result":{"seat":7}}
              -> ship execute 1
            ship ok  [S4]
            hold ok  [P13 T5]
              = t at 6 committed {"steps":{"hold":{"seat":7}}}
        "#,
    },
    Case {
        name: "reserved: cancelled when the transaction turns back",
        given: "a; hold reserved; charge pivot",
        when: r#"
            start
            a ok
            hold ok {"seat":7}
            charge refused no money
            hold ok
            a ok
        "#,
        then: r#"
            start  [S1]
              -> a execute 1
            a ok  [S4 P1]
              -> hold prepare 1
            hold ok {"seat":7}  [P4 S1]
              -> charge execute 1
            charge refused no money  [S7 P12 T4]
              -> hold abort 1 {"input":{},"result":{"seat":7}}
            hold ok  [P14 S15]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 6 compensated: charge: no money
        "#,
    },
    Case {
        name: "reserved: refused, or silent",
        given: "deadline=1m; a; hold reserved timeout=5m; b",
        when: "
            start x
            a ok
            hold refused none left
            a ok
            start y
            a ok
            +1m
            hold:prepare ok
            hold ok
            a ok
        ",
        then: "
            start x  [S1]
              -> a execute 1
            a ok  [S4 P1]
              -> hold prepare 1
            hold refused none left  [P6 S3 S15 T4]
              -> a compensate 1
            a ok  [S16 T6]
              = x at 4 compensated: hold: none left
            start y  [S1]
              -> a execute 1
            a ok  [S4 P1]
              -> hold prepare 1
            timer deadline  [P10 S3 P12 T2]
              -> hold abort 1
            hold:prepare ok  [P22]
            hold ok  [P14 S15]
              -> a compensate 1
            a ok  [S16 T6]
              = y at 5 compensated: deadline
        ",
    },
    Case {
        name: "reserved alone: the decision falls when all have passed",
        given: "hold reserved after=; more reserved after=; ship retriable",
        when: "
            start
            more ok
            hold ok
            more ok
            hold ok
            ship ok
        ",
        then: r#"
            start  [P1 P1]
              -> hold prepare 1
              -> more prepare 1
            more ok  [P4]
            hold ok  [P4 P11 P11 T1]
              -> hold commit 1
              -> more commit 1
            more ok  [P13 S1]
              -> ship execute 1
            hold ok  [P13]
            ship ok  [S4 T5]
              = t at 6 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a group in the pivot's place: its votes are the decision for all",
        given: "a; hold reserved; pay two-phase branches=x+y; ship retriable",
        when: "
            start
            a ok
            hold ok
            pay/x ok
            pay/y ok
            pay/x ok
            hold ok
            pay/y ok
            ship ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            a ok  [S4 P1]
              -> hold prepare 1
            hold ok  [P4 P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 P11 P11 P11 T1]
              -> hold commit 1
              -> pay/x commit 1
              -> pay/y commit 1
            pay/x ok  [P13]
            hold ok  [P13]
            pay/y ok  [P13 S1]
              -> ship execute 1
            ship ok  [S4 T5]
              = t at 9 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a group in the pivot's place: its refusal undoes all, last first",
        given: "a; hold reserved; pay two-phase branches=x+y; ship retriable",
        when: "
            start
            a ok
            hold ok
            pay/x ok
            pay/y refused
            pay/x ok
            hold ok
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 P1]
              -> hold prepare 1
            hold ok  [P4 P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y refused  [P6 S3 P12 T4]
              -> pay/x abort 1
            pay/x ok  [P14 P12]
              -> hold abort 1
            hold ok  [P14 S15]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 8 compensated: pay/y: refused
        ",
    },
    Case {
        name: "a group at the end votes in its place and waits for the pivot",
        given: "pay two-phase branches=x+y commit=at-end; charge pivot; ship retriable after=pay",
        when: "
            start a
            pay/x ok
            pay/y ok
            charge ok
            pay/y ok
            pay/x ok
            ship ok
            start b
            pay/x ok
            pay/y ok
            charge refused
            pay/x ok
            pay/y ok
        ",
        then: r#"
            start a  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 S1]
              -> charge execute 1
            charge ok  [S4 P11 P11 T1]
              -> pay/x commit 1
              -> pay/y commit 1
            pay/y ok  [P13]
            pay/x ok  [P13 S1]
              -> ship execute 1
            ship ok  [S4 T5]
              = a at 7 committed {"steps":{}}
            start b  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 S1]
              -> charge execute 1
            charge refused  [S7 S3 P12 P12 T4]
              -> pay/x abort 1
              -> pay/y abort 1
            pay/x ok  [P14]
            pay/y ok  [P14 T6]
              = b at 6 aborted: charge: refused
        "#,
    },
    Case {
        name: "a three-phase group at the end does not hold up the others",
        given: "hold reserved; pay three-phase branches=x+y commit=at-end; ship retriable after=hold",
        when: "
            start
            hold ok
            pay/x ok
            pay/y ok
            hold ok
            pay/x ok
            ship ok
            pay/y ok
            pay/x ok
            pay/y ok
        ",
        then: r#"
            start  [P1]
              -> hold prepare 1
            hold ok  [P4 P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 P11 H1 H1 T1]
              -> hold commit 1
              -> pay/x precommit 1
              -> pay/y precommit 1
            hold ok  [P13 S1]
              -> ship execute 1
            pay/x ok  [H2]
            ship ok  [S4]
            pay/y ok  [H2 H5 H5]
              -> pay/x commit 1
              -> pay/y commit 1
            pay/x ok  [P13]
            pay/y ok  [P13 T5]
              = t at 10 committed {"steps":{}}
        "#,
    },
    Case {
        name: "the step after a group reads its branches' results",
        given: r#"pay two-phase branches=x+y; ship retriable input={"x":"${steps.pay.x.r}","y":"${steps.pay.y}"}"#,
        when: r#"
            start
            pay/x ok {"r":1}
            pay/y ok {"r":2}
            pay/x ok {"ignored":true}
            pay/y ok
            ship ok {"s":3}
        "#,
        then: r#"
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok {"r":1}  [P4]
            pay/y ok {"r":2}  [P4 P11 P11 T1]
              -> pay/x commit 1 {"input":{},"result":{"r":1}}
              -> pay/y commit 1 {"input":{},"result":{"r":2}}
            pay/x ok {"ignored":true}  [P13]
            pay/y ok  [P13 S1]
              -> ship execute 1 {"x":1,"y":{"r":2}}
            ship ok {"s":3}  [S4 T5]
              = t at 6 committed {"steps":{"pay":{"x":{"r":1},"y":{"r":2}},"ship":{"s":3}}}
        "#,
    },
    Case {
        name: "in doubt: undecided, then commit, until it has ended and is forgotten",
        given: "pay two-phase branches=x+y; ship retriable",
        when: "
            start
            inquire pay/x
            pay/x ok
            inquire pay/x
            pay/y ok
            inquire pay/x
            pay/x ok
            inquire pay/x
            pay/y ok
            inquire pay/y
            ship ok
            inquire pay/x@1
            inquire pay/x@0
            inquire pay/x@99
        ",
        then: r#"
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            inquire pay/x
              -> pay/x: undecided
            pay/x ok  [P4]
            inquire pay/x
              -> pay/x: undecided
            pay/y ok  [P4 P11 P11 T1]
              -> pay/x commit 1
              -> pay/y commit 1
            inquire pay/x
              -> pay/x: commit
            pay/x ok  [P13]
            inquire pay/x
              -> pay/x: commit
            pay/y ok  [P13 S1]
              -> ship execute 1
            inquire pay/y
              -> pay/y: commit
            ship ok  [S4 T5]
              = t at 6 committed {"steps":{}}
            inquire pay/x@1
              -> pay/x: commit
            inquire pay/x@0
              -> pay/x: forgotten
            inquire pay/x@99
              x an inquiry about something that was not born here
        "#,
    },
    Case {
        name: "in doubt: abort",
        given: "deadline=1m; hold reserved timeout=5m; pay two-phase branches=x+y timeout=5m",
        when: "
            start
            hold ok
            pay/x ok
            +1m
            inquire pay/x
            inquire pay/y
            inquire hold
            pay/x ok
            pay/y ok
            hold ok
            inquire hold@1
        ",
        then: "
            start  [P1]
              -> hold prepare 1
            hold ok  [P4 P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            timer deadline  [P10 P12 P12 T2]
              -> pay/x abort 1
              -> pay/y abort 1
            inquire pay/x
              -> pay/x: abort
            inquire pay/y
              -> pay/y: abort
            inquire hold
              -> hold/hold: abort
            pay/x ok  [P14]
            pay/y ok  [P14 P12]
              -> hold abort 1
            hold ok  [P14 T6]
              = t at 7 aborted: deadline
            inquire hold@1
              -> hold/hold: abort
        ",
    },
    Case {
        name: "in doubt: while precommit is under way nobody is told",
        given: "a; pay three-phase branches=x+y",
        when: "
            start
            inquire pay/x
            a ok
            pay/x ok
            pay/y ok
            inquire pay/x
            pay/x ok
            inquire pay/x
            pay/y ok
            inquire pay/x
            inquire a
            inquire pay/z
        ",
        then: "
            start  [S1]
              -> a execute 1
            inquire pay/x
              -> pay/x: undecided
            a ok  [S4 P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 H1 H1 T1]
              -> pay/x precommit 1
              -> pay/y precommit 1
            inquire pay/x
              -> pay/x: undecided
            pay/x ok  [H2]
            inquire pay/x
              -> pay/x: undecided
            pay/y ok  [H2 H5 H5]
              -> pay/x commit 1
              -> pay/y commit 1
            inquire pay/x
              -> pay/x: commit
            inquire a
              x an inquiry about a step that is executed: it is never in doubt
            inquire pay/z
              x an inquiry about a step or branch that does not exist
        ",
    },
    Case {
        name: "a step whose condition is false is skipped, and what waits for it goes on",
        given: "a; express retriable when=input.fast after=a; slow retriable when=!input.fast after=a; note retriable after=express+slow",
        when: r#"
            start {"fast":true}
            a ok
            express ok
            note ok
            start b {"fast":false}
            a ok
            slow ok
            note ok
        "#,
        then: r#"
            start {"fast":true}  [S1]
              -> a execute 1 {"fast":true}
            a ok  [S4 S1 S3 T1]
              -> express execute 1 {"fast":true}
            express ok  [S4 S1]
              -> note execute 1 {"fast":true}
            note ok  [S4 T5]
              = t at 4 committed {"steps":{}}
            start b {"fast":false}  [S1]
              -> a execute 1 {"fast":false}
            a ok  [S4 S3 S1 T1]
              -> slow execute 1 {"fast":false}
            slow ok  [S4 S1]
              -> note execute 1 {"fast":false}
            note ok  [S4 T5]
              = b at 4 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a condition reads results, and is asked when the step's turn has come",
        given: r#"a; b when=steps.a.n>2; c when=has(steps.b.n) input={"n":"${steps.b.n}"}"#,
        when: r#"
            start x
            a ok {"n":2}
            start y
            a ok {"n":3}
            b ok {"n":7}
            c ok
        "#,
        then: r#"
            start x  [S1]
              -> a execute 1
            a ok {"n":2}  [S4 S3 S3 T1 T5]
              = x at 2 committed {"steps":{"a":{"n":2}}}
            start y  [S1]
              -> a execute 1
            a ok {"n":3}  [S4 S1]
              -> b execute 1
            b ok {"n":7}  [S4 S1]
              -> c execute 1 {"n":7}
            c ok  [S4 T1 T5]
              = y at 4 committed {"steps":{"a":{"n":3},"b":{"n":7}}}
        "#,
    },
    Case {
        name: "everything is skipped: it commits; a skipped pivot is no point of no return",
        given: "a when=false; b pivot when=false; c retriable when=false",
        when: "
            start
        ",
        then: r#"
            start  [S3 S3 S3 T1 T5]
              = t at 1 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a skipped step is not undone",
        given: "a; hold reserved when=input.hold; pay two-phase branches=x+y undone when=input.pay; b",
        when: r#"
            start {"hold":false,"pay":false}
            a ok
            b refused
            a ok
        "#,
        then: r#"
            start {"hold":false,"pay":false}  [S1]
              -> a execute 1 {"hold":false,"pay":false}
            a ok  [S4 P3 P3 P3 S1]
              -> b execute 1 {"hold":false,"pay":false}
            b refused  [S7 S15 T4]
              -> a compensate 1 {"input":{"hold":false,"pay":false}}
            a ok  [S16 T6]
              = t at 4 compensated: b: refused
        "#,
    },
    Case {
        name: "a condition without an answer is a refusal of the step",
        given: "a; b when=input.n>2; c retriable when=steps.a.n>2",
        when: r#"
            start x
            a ok {"n":3}
            a ok
            start y {"n":3}
            a ok
            b ok
            retry no
            on y
        "#,
        then: r#"
            start x  [S1]
              -> a execute 1
            a ok {"n":3}  [S4 S2 S3 S15 T4]
              -> a compensate 1 {"input":{},"result":{"n":3}}
            a ok  [S16 T6]
              = x at 3 compensated: b: when: input.n does not exist
            start y {"n":3}  [S1]
              -> a execute 1 {"n":3}
            a ok  [S4 S1]
              -> b execute 1 {"n":3}
            b ok  [S4 S2 T1 T7]
              = y at 3 stuck: c: execute when: steps.a.n does not exist
            retry no  [S2 T7]
              = y at 4 stuck: c: execute when: steps.a.n does not exist
        "#,
    },
    Case {
        name: "a group in the pivot's place is skipped",
        given: "a; pay two-phase branches=x+y when=input.pay; ship retriable",
        when: r#"
            start {"pay":false}
            a ok
            ship ok
        "#,
        then: r#"
            start {"pay":false}  [S1]
              -> a execute 1 {"pay":false}
            a ok  [S4 P3 P3 S1 T1]
              -> ship execute 1 {"pay":false}
            ship ok  [S4 T5]
              = t at 3 committed {"steps":{}}
        "#,
    },
];
