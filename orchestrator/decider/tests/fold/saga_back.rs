//! The saga on its way back: refusals, silence, deadline, cancel.

use crate::harness::{Case, check};

#[test]
fn sagas_go_back_as_told() {
    CASES.iter().for_each(check);
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "the first step is refused: aborted, nothing was done",
        given: "a; b; c pivot",
        when: "
            start
            a refused sold out
            a refused sold out
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a refused sold out  [S7 S3 S3 T4 T6]
              = t at 2 aborted: a: sold out
            a refused sold out  [S21]
            a ok  [S21]
        ",
    },
    Case {
        name: "a later step is refused: what is done is undone, last first",
        given: r#"a input={"n":"${input.n}"}; b; c"#,
        when: r#"
            start {"n":1}
            a ok {"r":1}
            b ok {"r":2}
            c refused no money
            b ok
            c ok
            b:compensate ok
            b ok
            a:execute ok
            a ok
        "#,
        then: r#"
            start {"n":1}  [S1]
              -> a execute 1 {"n":1}
            a ok {"r":1}  [S4 S1]
              -> b execute 1 {"n":1}
            b ok {"r":2}  [S4 S1]
              -> c execute 1 {"n":1}
            c refused no money  [S7 S15 T4]
              -> b compensate 1 {"input":{"n":1},"result":{"r":2}}
            b ok  [S16 S15]
              -> a compensate 1 {"input":{"n":1},"result":{"r":1}}
            c ok  [S21]
            b:compensate ok  [S21]
            b ok  [S21]
            a:execute ok  [S21]
            a ok  [S16 T6]
              = t at 6 compensated: c: no money
        "#,
    },
    Case {
        name: "the pivot is refused: everything turns back",
        given: "a; b; c pivot; d retriable",
        when: "
            start
            a ok
            b ok
            c refused
            b ok
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b ok  [S4 S1]
              -> c execute 1
            c refused  [S7 S3 S15 T4]
              -> b compensate 1
            b ok  [S16 S15]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 6 compensated: c: refused
        ",
    },
    Case {
        name: "branches go back in parallel, each after what came after it",
        given: "a after=; b after=a; c after=a; d after=b+c; e after=",
        when: "
            start
            e ok
            a ok
            b ok
            c ok
            d refused
            c ok
            e ok
            b ok
            a ok
        ",
        then: "
            start  [S1 S1]
              -> a execute 1
              -> e execute 1
            e ok  [S4]
            a ok  [S4 S1 S1]
              -> b execute 1
              -> c execute 1
            b ok  [S4]
            c ok  [S4 S1]
              -> d execute 1
            d refused  [S7 S15 S15 S15 T4]
              -> e compensate 1
              -> c compensate 1
              -> b compensate 1
            c ok  [S16]
            e ok  [S16]
            b ok  [S16 S15]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 10 compensated: d: refused
        ",
    },
    Case {
        name: "a step that never answers is undone like one that was done",
        given: "a attempts=2 timeout=5s; b",
        when: "
            start
            +5s
            ring
            +5s
            a:execute@1 error late
            a:execute ok
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            timer a  [S10]
            timer a  [S13]
              -> a execute 2
            timer a  [S11 S3 S15 T4]
              -> a compensate 1
            a:execute@1 error late  [S21]
            a:execute ok  [S21]
            a ok  [S16 T6]
              = t at 5 compensated: a: no answer after 2 attempts, last: timeout
        ",
    },
    Case {
        name: "errors to the last attempt: unknown, and undone",
        given: "a; b attempts=1",
        when: "
            start
            a ok
            b error down
            b ok
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b error down  [S11 S15 T4]
              -> b compensate 1
            b ok  [S16 S15]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 5 compensated: b: no answer after 1 attempts, last: down
        ",
    },
    Case {
        name: "undeliverable to the last attempt: unknown, and undone",
        given: "a attempts=1",
        when: "
            start
            a lost
            a lost
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a lost  [S11 S15 T4]
              -> a compensate 1
            a lost  [S19 T7]
              = t at 3 stuck: a: compensate no such topic
            a ok  [S16 T6]
              = t at 4 compensated: a: no answer after 1 attempts, last: no such topic
        ",
    },
    Case {
        name: "a step that is expired is unknown, and undone",
        given: "a; b",
        when: "
            start
            a ok
            b expired
            b ok
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b expired  [S8 S15 T4]
              -> b compensate 1
            b ok  [S16 S15]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 5 compensated: b: expired
        ",
    },
    Case {
        name: "late answers to what is being undone change nothing",
        given: "a after=; b after=a; c after=a; d after=c",
        when: "
            start
            a ok
            c ok
            b refused
            c:execute ok
            d:execute error late
            d ok
            c ok
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1 S1]
              -> b execute 1
              -> c execute 1
            c ok  [S4 S1]
              -> d execute 1
            b refused  [S7 S14 S15 T4]
              -> d compensate 1
            c:execute ok  [S21]
            d:execute error late  [S21]
            d ok  [S16 S15]
              -> c compensate 1
            c ok  [S16 S15]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 7 compensated: b: refused
        ",
    },
    Case {
        name: "an answer that comes after the cancel is too late: what was asked is undone",
        given: "deadline=10s; a after=; b after=a attempts=1",
        when: r#"
            start
            cancel by the customer
            a:execute ok {"late":1}
            a ok
        "#,
        then: r#"
            start  [S1]
              -> a execute 1
            cancel by the customer  [S14 S3 S15 T2]
              -> a compensate 1
            a:execute ok {"late":1}  [S21]
            a ok  [S16 T6]
              = t at 3 compensated: cancelled: by the customer
        "#,
    },
    Case {
        name: "what is unknown has nothing after it, and is undone at once",
        given: "a after= attempts=1; b after=; c after=b attempts=1; d after=b; e after=c+d",
        when: "
            start
            b ok
            c ok
            d expired
            a:execute refused late
            a:execute ok
            d ok
            c ok
            b ok
            a ok
        ",
        then: "
            start  [S1 S1]
              -> a execute 1
              -> b execute 1
            b ok  [S4 S1 S1]
              -> c execute 1
              -> d execute 1
            c ok  [S4]
            d expired  [S8 S14 S3 S15 S15 S15 T4]
              -> d compensate 1
              -> c compensate 1
              -> a compensate 1
            a:execute refused late  [S21]
            a:execute ok  [S21]
            d ok  [S16]
            c ok  [S16 S15]
              -> b compensate 1
            b ok  [S16]
            a ok  [S16 T6]
              = t at 8 compensated: d: expired
        ",
    },
    Case {
        name: "the deadline turns back, whatever is going on",
        given: "deadline=10s; a; b after=a; c after=a; d pivot after=b+c",
        when: "
            start
            a ok
            b ok
            c error
            +10s
            c ok
            c ok
            b ok
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1 S1]
              -> b execute 1
              -> c execute 1
            b ok  [S4]
            c error  [S10]
            timer c  [S13]
              -> c execute 2
            timer deadline  [S14 S3 S15 S15 T2]
              -> c compensate 1
              -> b compensate 1
            c ok  [S16]
            c ok  [S21]
            b ok  [S16 S15]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 9 compensated: deadline
        ",
    },
    Case {
        name: "cancel in each phase",
        given: "a; b pivot; c retriable",
        when: "
            start one
            cancel early
            cancel again
            a ok
            start two
            a ok
            cancel the pivot is asked
            b ok
            cancel committing
            c ok
            cancel ended
            start three
            a ok
            b refused
            cancel going back
        ",
        then: r#"
            start one  [S1]
              -> a execute 1
            cancel early  [S14 S3 S3 S15 T2]
              -> a compensate 1
            cancel again
              ! it is being rolled back already
            a ok  [S16 T6]
              = one at 3 compensated: cancelled: early
            start two  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            cancel the pivot is asked  [T3]
              ! the pivot has been asked: no way back is left
            b ok  [S4 S1 T1]
              -> c execute 1
            cancel committing
              ! it has been decided to commit
            c ok  [S4 T5]
              = two at 4 committed {"steps":{}}
            cancel ended
              ! it has ended: committed
            start three  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b refused  [S7 S3 S15 T4]
              -> a compensate 1
            cancel going back
              ! it is being rolled back already
        "#,
    },
    Case {
        name: "a result that does not fit turns back",
        given: "a; b",
        when: r#"
            settings {"transaction_bytes_max":1024}
            start
            a ok {"r":1}
            b ok *1100
            b:execute ok {"fits":1}
            b ok
            a ok
        "#,
        then: r#"
            settings {"transaction_bytes_max":1024}
            start  [S1]
              -> a execute 1
            a ok {"r":1}  [S4 S1]
              -> b execute 1
            b ok *1100  [S5 S15 T4]
              -> b compensate 1
            b:execute ok {"fits":1}  [S21]
            b ok  [S16 S15]
              -> a compensate 1 {"input":{},"result":{"r":1}}
            a ok  [S16 T6]
              = t at 5 compensated: b: the result does not fit in the transaction
        "#,
    },
    Case {
        name: "an input that cannot be mapped refuses the step",
        given: r#"a; b input={"x":"${steps.a.x}"}; c pivot"#,
        when: r#"
            start
            a ok {"y":1}
            a ok
        "#,
        then: r#"
            start  [S1]
              -> a execute 1
            a ok {"y":1}  [S4 S2 S3 S15 T4]
              -> a compensate 1 {"input":{},"result":{"y":1}}
            a ok  [S16 T6]
              = t at 3 compensated: b: ${steps.a.x} does not exist
        "#,
    },
    Case {
        name: "an input that cannot be mapped turns back what was asked in the same breath",
        given: r#"a; b after=a; c after=a input={"x":"${steps.a.x}"}"#,
        when: r#"
            start
            a ok {"y":1}
            b ok
            a ok
        "#,
        then: r#"
            start  [S1]
              -> a execute 1
            a ok {"y":1}  [S4 S1 S2 S14 S15 T4]
              -> b execute 1
              -> b compensate 1
            b ok  [S16 S15]
              -> a compensate 1 {"input":{},"result":{"y":1}}
            a ok  [S16 T6]
              = t at 4 compensated: c: ${steps.a.x} does not exist
        "#,
    },
    Case {
        name: "a step out of attempts turns back all others",
        given: "a after= attempts=1 timeout=5s; b after= timeout=20s; c after=a+b",
        when: "
            start
            +5s
            b:execute refused no
            a ok
            b ok
        ",
        then: "
            start  [S1 S1]
              -> a execute 1
              -> b execute 1
            timer a  [S11 S14 S3 S15 S15 T4]
              -> b compensate 1
              -> a compensate 1
            b:execute refused no  [S21]
            a ok  [S16]
            b ok  [S16 T6]
              = t at 4 compensated: a: no answer after 1 attempts, last: timeout
        ",
    },
];
