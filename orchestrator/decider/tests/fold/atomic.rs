//! Two-phase and three-phase commit: votes, one decision, and its acknowledgement by all.

use crate::harness::{Case, check};

#[test]
fn groups_commit_or_abort_as_told() {
    CASES.iter().for_each(check);
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "all vote yes: one decision, and commit to all",
        given: "pay two-phase branches=x+y; ship retriable",
        when: "
            start
            pay/x ok
            pay/y ok
            pay/x ok
            pay/y ok
            ship ok
        ",
        then: r#"
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 P11 P11 T1]
              -> pay/x commit 1
              -> pay/y commit 1
            pay/x ok  [P13]
            pay/y ok  [P13 S1]
              -> ship execute 1
            ship ok  [S4 T5]
              = t at 6 committed {"steps":{}}
        "#,
    },
    Case {
        name: "the first to refuse aborts the other, which has not voted",
        given: "pay two-phase branches=x+y",
        when: "
            start
            pay/x refused no money
            pay/y:prepare ok
            pay/y:abort ok
        ",
        then: "
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x refused no money  [P6 P10 P12 T4]
              -> pay/y abort 1
            pay/y:prepare ok  [P22]
            pay/y:abort ok  [P14 T6]
              = t at 3 aborted: pay/x: no money
        ",
    },
    Case {
        name: "the last to refuse aborts the others, which have voted",
        given: "pay two-phase branches=x+y+z",
        when: "
            start
            pay/x ok
            pay/y ok
            pay/z refused no money
            pay/x ok
            pay/x ok
            pay/y ok
        ",
        then: "
            start  [P1 P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
              -> pay/z prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4]
            pay/z refused no money  [P6 P12 P12 T4]
              -> pay/x abort 1
              -> pay/y abort 1
            pay/x ok  [P14]
            pay/x ok  [P22]
            pay/y ok  [P14 T6]
              = t at 6 aborted: pay/z: no money
        ",
    },
    Case {
        name: "silence: the deadline aborts, and a late yes hastens the abort that is pausing",
        given: "deadline=1m; pay two-phase branches=x+y timeout=2m backoff=10s",
        when: "
            start
            pay/x ok
            pay/x pending
            +1m
            pay/y pending
            pay/y:abort pending
            pay/y lost
            pay/y:prepare ok
            pay/x ok
            pay/y:prepare ok
            pay/y ok
            pay/y:prepare ok
        ",
        then: "
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/x pending  [P22]
            timer deadline  [P10 P12 P12 T2]
              -> pay/x abort 1
              -> pay/y abort 1
            pay/y pending  [P17]
            pay/y:abort pending  [P17]
            pay/y lost  [P16]
            pay/y:prepare ok  [P19]
              -> pay/y abort 2
            pay/x ok  [P14]
            pay/y:prepare ok  [P22]
            pay/y ok  [P14 T6]
              = t at 9 aborted: deadline
            pay/y:prepare ok  [P22]
        ",
    },
    Case {
        name: "a vote that never comes is unknown, and answered with abort",
        given: "pay two-phase branches=x+y attempts=2 timeout=1s",
        when: "
            start
            pay/y ok
            pay/x error down
            ring
            pay/x error down
            pay/x ok
            pay/y ok
        ",
        then: "
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/y ok  [P4]
            pay/x error down  [P8]
            timer pay/x  [P18]
              -> pay/x prepare 2
            pay/x error down  [P9 P12 P12 T4]
              -> pay/x abort 1
              -> pay/y abort 1
            pay/x ok  [P14]
            pay/y ok  [P14 T6]
              = t at 7 aborted: pay/x: no answer after 2 attempts, last: down
        ",
    },
    Case {
        name: "votes are a set: the same one twice is one",
        given: "pay two-phase branches=x+y+z",
        when: "
            start
            pay/x ok
            pay/x ok
            pay/x@1 ok
            pay/y ok
            pay/y ok
            pay/z ok
        ",
        then: "
            start  [P1 P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
              -> pay/z prepare 1
            pay/x ok  [P4]
            pay/x ok  [P22]
            pay/x@1 ok  [P22]
            pay/y ok  [P4]
            pay/y ok  [P22]
            pay/z ok  [P4 P11 P11 P11 T1]
              -> pay/x commit 1
              -> pay/y commit 1
              -> pay/z commit 1
        ",
    },
    Case {
        name: "commit is asked without end, and what refuses it is stuck until it is not",
        given: "deadline=1h; pay two-phase branches=x+y attempts=1 timeout=10m",
        when: "
            start
            pay/x ok
            pay/y ok
            pay/x error down
            ring
            pay/x error down
            ring
            pay/x ok
            pay/y refused not-prepared
            pay/y refused not-prepared
            cancel too late
            retry mended
            pay/y ok
        ",
        then: r#"
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 P11 P11 T1]
              -> pay/x commit 1
              -> pay/y commit 1
            pay/x error down  [P16]
            timer pay/x  [P18]
              -> pay/x commit 2
            pay/x error down  [P16]
            timer pay/x  [P18]
              -> pay/x commit 3
            pay/x ok  [P13]
            pay/y refused not-prepared  [P15 T7]
              = t at 9 stuck: pay/y: commit not-prepared
            pay/y refused not-prepared  [P22]
            cancel too late
              ! it has been decided to commit
            retry mended  [P20]
              -> pay/y commit 2
            pay/y ok  [P13 T5]
              = t at 11 committed {"steps":{}}
        "#,
    },
    Case {
        name: "abort as well",
        given: "deadline=1h; pay two-phase branches=x+y attempts=1 timeout=10m",
        when: "
            start
            pay/x ok
            pay/y refused
            pay/x error down
            ring
            pay/x expired
            retry mended
            pay/x ok
        ",
        then: "
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y refused  [P6 P12 T4]
              -> pay/x abort 1
            pay/x error down  [P16]
            timer pay/x  [P18]
              -> pay/x abort 2
            pay/x expired  [P15 T7]
              = t at 6 stuck: pay/x: abort expired
            retry mended  [P20]
              -> pay/x abort 3
            pay/x ok  [P14 T6]
              = t at 8 aborted: pay/y: refused
        ",
    },
    Case {
        name: "a person answers for a branch of a group that is stuck",
        given: "deadline=1h; pay two-phase branches=x+y attempts=1 timeout=10m",
        when: "
            start
            pay/x ok
            pay/y refused
            pay/x expired
            resolve pay ok which of them
            resolve pay/x ok rolled back by hand
        ",
        then: "
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y refused  [P6 P12 T4]
              -> pay/x abort 1
            pay/x expired  [P15 T7]
              = t at 4 stuck: pay/x: abort expired
            resolve pay ok which of them
              ! there is no such step or branch; of several branches one is to be named
            resolve pay/x ok rolled back by hand  [P14 T6]
              = t at 5 aborted: pay/y: refused
        ",
    },
    Case {
        name: "cancel aborts before the votes are complete, and comes too late after",
        given: "pay two-phase branches=x+y",
        when: "
            start a
            pay/x ok
            cancel changed my mind
            pay/x ok
            pay/y ok
            start b
            pay/x ok
            pay/y ok
            cancel changed my mind
        ",
        then: "
            start a  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            cancel changed my mind  [P10 P12 P12 T2]
              -> pay/x abort 1
              -> pay/y abort 1
            pay/x ok  [P14]
            pay/y ok  [P14 T6]
              = a at 5 aborted: cancelled: changed my mind
            start b  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 P11 P11 T1]
              -> pay/x commit 1
              -> pay/y commit 1
            cancel changed my mind
              ! it has been decided to commit
        ",
    },
    Case {
        name: "expired is no vote",
        given: "pay two-phase branches=x+y",
        when: "
            start
            pay/x ok
            pay/y expired
            pay/x ok
            pay/y ok
        ",
        then: "
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y expired  [P7 P12 P12 T4]
              -> pay/x abort 1
              -> pay/y abort 1
            pay/x ok  [P14]
            pay/y ok  [P14 T6]
              = t at 5 aborted: pay/y: expired
        ",
    },
    Case {
        name: "a vote whose result does not fit is taken back",
        given: "pay two-phase branches=x+y",
        when: r#"
            settings {"transaction_bytes_max":2000}
            start
            pay/x ok *3000
            pay/x ok
            pay/y ok
        "#,
        then: r#"
            settings {"transaction_bytes_max":2000}
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok *3000  [P5 P10 P12 P12 T4]
              -> pay/x abort 1
              -> pay/y abort 1
            pay/x ok  [P14]
            pay/y ok  [P14 T6]
              = t at 4 aborted: pay/x: the result does not fit in the transaction
        "#,
    },
    Case {
        name: "a branch that cannot be asked is a no; the one asked before it is aborted",
        given: r#"a; pay two-phase branches=x+y commit=at-end input={"n":"${steps.a.n}"}; more reserved"#,
        when: "
            start
            a ok
            pay/x ok
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 P1 P2 P10 P3 P12 T4]
              -> pay/x prepare 1
              -> pay/x abort 1
            pay/x ok  [P14 S15]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 4 compensated: pay/y: ${steps.a.n} does not exist
        ",
    },
    Case {
        name: "branches that can be undone commit in their place, and are undone",
        given: "a; pay two-phase undone branches=x+y; b",
        when: r#"
            start
            a ok
            pay/x ok {"r":1}
            pay/y ok
            pay/x ok
            pay/y ok
            b refused
            pay/x ok
            pay/y ok
            a ok
        "#,
        then: r#"
            start  [S1]
              -> a execute 1
            a ok  [S4 P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok {"r":1}  [P4]
            pay/y ok  [P4 P11 P11]
              -> pay/x commit 1 {"input":{},"result":{"r":1}}
              -> pay/y commit 1
            pay/x ok  [P13]
            pay/y ok  [P13 S1]
              -> b execute 1
            b refused  [S7 P21 P21 T4]
              -> pay/x compensate 1 {"input":{},"result":{"r":1}}
              -> pay/y compensate 1
            pay/x ok  [S16]
            pay/y ok  [S16 S15]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 10 compensated: b: refused
        "#,
    },
    Case {
        name: "what has begun to commit goes on when the transaction turns back, and is undone then",
        given: "deadline=1m; pay two-phase undone branches=x+y timeout=5m; b attempts=1",
        when: "
            start
            pay/x ok
            pay/y ok
            pay/x ok
            +1m
            pay/y ok
            pay/x refused
            pay/y ok
            retry again
            pay/x ok
        ",
        then: "
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 P11 P11]
              -> pay/x commit 1
              -> pay/y commit 1
            pay/x ok  [P13]
            timer deadline  [S3 P21 T2]
              -> pay/x compensate 1
            pay/y ok  [P13 P21]
              -> pay/y compensate 1
            pay/x refused  [S17 T7]
              = t at 7 stuck: pay/x: compensate refused
            pay/y ok  [S16]
            retry again  [S20]
              -> pay/x compensate 2
            pay/x ok  [S16 T6]
              = t at 10 compensated: deadline
        ",
    },
    Case {
        name: "three-phase: precommit is acknowledged by all before commit",
        given: "pay three-phase branches=x+y; ship retriable",
        when: r#"
            start
            pay/x ok {"r":1}
            pay/y ok {"r":2}
            pay/x ok
            pay/x ok
            pay/y ok
            pay/y ok
            pay/x ok
            ship ok
        "#,
        then: r#"
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok {"r":1}  [P4]
            pay/y ok {"r":2}  [P4 H1 H1 T1]
              -> pay/x precommit 1 {"input":{},"result":{"r":1}}
              -> pay/y precommit 1 {"input":{},"result":{"r":2}}
            pay/x ok  [H2]
            pay/x ok  [P22]
            pay/y ok  [H2 H5 H5]
              -> pay/x commit 1 {"input":{},"result":{"r":1}}
              -> pay/y commit 1 {"input":{},"result":{"r":2}}
            pay/y ok  [P13]
            pay/x ok  [P13 S1]
              -> ship execute 1
            ship ok  [S4 T5]
              = t at 8 committed {"steps":{"pay":{"x":{"r":1},"y":{"r":2}}}}
        "#,
    },
    Case {
        name: "three-phase: a refusal aborts, as does the deadline",
        given: "deadline=1m; pay three-phase branches=x+y timeout=5m",
        when: "
            start a
            pay/x ok
            pay/y refused
            pay/x ok
            start b
            pay/x ok
            +1m
            pay/x ok
            pay/y ok
        ",
        then: "
            start a  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y refused  [P6 P12 T4]
              -> pay/x abort 1
            pay/x ok  [P14 T6]
              = a at 4 aborted: pay/y: refused
            start b  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            timer deadline  [P10 P12 P12 T2]
              -> pay/x abort 1
              -> pay/y abort 1
            pay/x ok  [P14]
            pay/y ok  [P14 T6]
              = b at 5 aborted: deadline
        ",
    },
    Case {
        name: "three-phase: after the first precommit there is no way back",
        given: "deadline=1m; pay three-phase branches=x+y timeout=10m attempts=1",
        when: "
            start
            pay/x ok
            pay/y ok
            cancel changed my mind
            pay/x error down
            ring
            pay/x pending
            +2m
            pay/x ok
            pay/y refused not-prepared
            retry mended
            pay/y ok
            pay/y ok
            pay/x ok
        ",
        then: r#"
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 H1 H1 T1]
              -> pay/x precommit 1
              -> pay/y precommit 1
            cancel changed my mind
              ! it has been decided to commit
            pay/x error down  [H4]
            timer pay/x  [P18]
              -> pay/x precommit 2
            pay/x pending  [P17]
            pay/x ok  [H2]
            pay/y refused not-prepared  [H3 T7]
              = t at 8 stuck: pay/y: precommit not-prepared
            retry mended  [P20]
              -> pay/y precommit 2
            pay/y ok  [H2 H5 H5]
              -> pay/x commit 1
              -> pay/y commit 1
            pay/y ok  [P13]
            pay/x ok  [P13 T5]
              = t at 12 committed {"steps":{}}
        "#,
    },
    Case {
        name: "three-phase branches that can be undone: the deadline finds them precommitted",
        given: "deadline=1m; pay three-phase undone branches=x+y timeout=5m; b",
        when: "
            start
            pay/x ok
            pay/y ok
            pay/x ok
            +1m
            pay/y ok
            pay/x ok
            pay/y ok
            pay/x ok
            pay/y ok
        ",
        then: "
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 H1 H1]
              -> pay/x precommit 1
              -> pay/y precommit 1
            pay/x ok  [H2]
            timer deadline  [S3 T2]
            pay/y ok  [H2 H5 H5]
              -> pay/x commit 1
              -> pay/y commit 1
            pay/x ok  [P13 P21]
              -> pay/x compensate 1
            pay/y ok  [P13 P21]
              -> pay/y compensate 1
            pay/x ok  [S16]
            pay/y ok  [S16 T6]
              = t at 10 compensated: deadline
        ",
    },
];
