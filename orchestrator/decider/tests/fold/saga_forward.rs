//! The saga on its way to the decision and past it.

use crate::harness::{Case, check};

#[test]
fn sagas_go_forward_as_told() {
    CASES.iter().for_each(check);
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "one step after the other, each given what it asks for",
        given: r#"a input={"sku":"${input.sku}"}; b input={"r":"${steps.a.r}"} key=${input.sku}; c"#,
        when: r#"
            start {"sku":"A1"}
            a ok {"r":7}
            b ok
            c ok {"p":"x"}
        "#,
        then: r#"
            start {"sku":"A1"}  [S1]
              -> a execute 1 {"sku":"A1"}
            a ok {"r":7}  [S4 S1]
              -> b execute 1 key A1 {"r":7}
            b ok  [S4 S1]
              -> c execute 1 {"sku":"A1"}
            c ok {"p":"x"}  [S4 T1 T5]
              = t at 4 committed {"steps":{"a":{"r":7},"c":{"p":"x"}}}
        "#,
    },
    Case {
        name: "branches of the graph go on by themselves, and meet",
        given: "a after=; b after=; c after=a; d after=b+c",
        when: "
            start
            b ok
            a ok
            c ok
            d ok
        ",
        then: r#"
            start  [S1 S1]
              -> a execute 1
              -> b execute 1
            b ok  [S4]
            a ok  [S4 S1]
              -> c execute 1
            c ok  [S4 S1]
              -> d execute 1
            d ok  [S4 T1 T5]
              = t at 5 committed {"steps":{}}
        "#,
    },
    Case {
        name: "what is retriable waits for the decision, and is tried until it succeeds",
        given: "a; b pivot; c retriable; d retriable after=b",
        when: "
            start
            a ok
            b ok
            c error later
            d ok
            ring
            ring
            ring
            c@2 error stale
            c ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b ok  [S4 S1 S1 T1]
              -> c execute 1
              -> d execute 1
            c error later  [S10]
            d ok  [S4]
            timer c  [S13]
              -> c execute 2
            timer c  [S10]
            timer c  [S13]
              -> c execute 3
            c@2 error stale  [S21]
            c ok  [S4 T5]
              = t at 9 committed {"steps":{}}
        "#,
    },
    Case {
        name: "without a pivot the decision falls when all but the retriable is done",
        given: "a; b after=; c retriable after=a; d retriable after=",
        when: "
            start
            a ok
            b ok
            d ok
            c ok
        ",
        then: r#"
            start  [S1 S1]
              -> a execute 1
              -> b execute 1
            a ok  [S4]
            b ok  [S4 S1 S1 T1]
              -> c execute 1
              -> d execute 1
            d ok  [S4]
            c ok  [S4 T5]
              = t at 5 committed {"steps":{}}
        "#,
    },
    Case {
        name: "only retriable steps: decided at once",
        given: "a retriable; b retriable",
        when: "
            start
            cancel too late
            a ok
            b ok
        ",
        then: r#"
            start  [S1 T1]
              -> a execute 1
            cancel too late
              ! it has been decided to commit
            a ok  [S4 S1]
              -> b execute 1
            b ok  [S4 T5]
              = t at 3 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a silent step is asked again, and an answer to any attempt counts",
        given: "a attempts=3; b",
        when: "
            start
            +30s
            ring
            a@1 ok
            a@2 ok
            b ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            timer a  [S10]
            timer a  [S13]
              -> a execute 2
            a@1 ok  [S4 S1]
              -> b execute 1
            a@2 ok  [S21]
            b ok  [S4 T1 T5]
              = t at 5 committed {"steps":{}}
        "#,
    },
    Case {
        name: "an answer that comes between two attempts counts",
        given: "a attempts=2; b",
        when: "
            start
            a error
            a ok
            b ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            a error  [S10]
            a ok  [S4 S1]
              -> b execute 1
            b ok  [S4 T1 T5]
              = t at 4 committed {"steps":{}}
        "#,
    },
    Case {
        name: "an error counts once, and for the latest attempt only",
        given: "a attempts=3",
        when: "
            start
            a error disk full
            a@1 error disk full
            ring
            a@1 error disk full
            a ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            a error disk full  [S10]
            a@1 error disk full  [S21]
            timer a  [S13]
              -> a execute 2
            a@1 error disk full  [S21]
            a ok  [S4 T1 T5]
              = t at 4 committed {"steps":{}}
        "#,
    },
    Case {
        name: "pending starts the timeout anew, for the latest attempt only",
        given: "a timeout=10s attempts=2",
        when: "
            start
            +9s
            a pending
            +9s
            a pending
            +10s
            a pending
            ring
            a@1 pending
            a ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            a pending  [S12]
            a pending  [S12]
            timer a  [S10]
            a pending  [S21]
            timer a  [S13]
              -> a execute 2
            a@1 pending  [S21]
            a ok  [S4 T1 T5]
              = t at 6 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a command that cannot be delivered is like silence",
        given: "a attempts=2; b",
        when: "
            start
            a lost
            a lost
            ring
            a@1 lost
            a ok
            b ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            a lost  [S10]
            a lost  [S21]
            timer a  [S13]
              -> a execute 2
            a@1 lost  [S21]
            a ok  [S4 S1]
              -> b execute 1
            b ok  [S4 T1 T5]
              = t at 5 committed {"steps":{}}
        "#,
    },
    Case {
        name: "`retry` does not wait for the pause",
        given: "a attempts=3 backoff=30s max=30s",
        when: "
            start
            retry nothing to do
            a error
            retry hurry
            a ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            retry nothing to do
              ! nothing is stuck or pausing
            a error  [S10]
            retry hurry  [S13]
              -> a execute 2
            a ok  [S4 T1 T5]
              = t at 4 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a pivot is asked until it answers, and there is no way back meanwhile",
        given: "deadline=20s; a; b pivot timeout=5s backoff=1s; c retriable",
        when: "
            start
            a ok
            cancel changed my mind
            +5s
            ring
            b lost
            ring
            b error not now
            +20s
            b pending
            cancel still
            b ok
            cancel too late
            c ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            cancel changed my mind  [T3]
              ! the pivot has been asked: no way back is left
            timer b  [S10]
            timer b  [S13]
              -> b execute 2
            b lost  [S10]
            timer b  [S13]
              -> b execute 3
            b error not now  [S10]
            timer b  [S13]
              -> b execute 4
            timer b  [S10]
            timer b  [S13]
              -> b execute 5
            b pending  [S12]
            cancel still  [T3]
              ! the pivot has been asked: no way back is left
            b ok  [S4 S1 T1]
              -> c execute 1
            cancel too late
              ! it has been decided to commit
            c ok  [S4 T5]
              = t at 13 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a pivot that is expired is stuck: nobody knows; `retry` asks again",
        given: "a; b pivot; c retriable",
        when: "
            start
            a ok
            b expired
            b expired
            b error
            cancel please
            +20m
            retry the purge was a mistake
            b ok
            c ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b expired  [S9 T7]
              = t at 3 stuck: b: execute expired
            b expired  [S21]
            b error  [S21]
            cancel please  [T3]
              ! the pivot has been asked: no way back is left
            retry the purge was a mistake  [S20]
              -> b execute 2
            b ok  [S4 S1 T1]
              -> c execute 1
            c ok  [S4 T5]
              = t at 6 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a late ok frees a pivot that is stuck",
        given: "a; b pivot",
        when: "
            start
            a ok
            +30s
            ring
            b expired
            b@1 ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            timer b  [S10]
            timer b  [S13]
              -> b execute 2
            b expired  [S9 T7]
              = t at 5 stuck: b: execute expired
            b@1 ok  [S4 T1 T5]
              = t at 6 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a retriable step that is refused is stuck, the others go on",
        given: "a pivot; b retriable; c retriable after=a; d retriable after=b",
        when: "
            start
            a ok
            b refused no such address
            b refused no such address
            c ok
            retry address mended
            b refused still none
            b@1 ok
            d ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            a ok  [S4 S1 S1 T1]
              -> b execute 1
              -> c execute 1
            b refused no such address  [S6 T7]
              = t at 3 stuck: b: execute no such address
            b refused no such address  [S21]
            c ok  [S4]
            retry address mended  [S20]
              -> b execute 2
            b refused still none  [S6 T7]
              = t at 6 stuck: b: execute still none
            b@1 ok  [S4 S1]
              -> d execute 1
            d ok  [S4 T5]
              = t at 8 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a retriable step that is expired is stuck",
        given: "a pivot; b retriable",
        when: "
            start
            a ok
            b expired
            b@1 refused really not
            b expired
            retry again
            b ok
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            a ok  [S4 S1 T1]
              -> b execute 1
            b expired  [S9 T7]
              = t at 3 stuck: b: execute expired
            b@1 refused really not  [S21]
            b expired  [S21]
            retry again  [S20]
              -> b execute 2
            b ok  [S4 T5]
              = t at 5 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a retriable step whose input cannot be mapped is stuck, and `retry` does not help",
        given: r#"a pivot; b retriable input={"x":"${steps.a.x}"}; c retriable after=a"#,
        when: "
            start
            a ok {}
            c ok
            retry perhaps
            cancel please
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok {}  [S4 S2 S1 T1 T7]
              -> c execute 1
              = t at 2 stuck: b: execute ${steps.a.x} does not exist
            c ok  [S4]
            retry perhaps  [S2 T7]
              = t at 4 stuck: b: execute ${steps.a.x} does not exist
            cancel please
              ! it has been decided to commit
        ",
    },
    Case {
        name: "the result of a pivot that does not fit is left out, and it counts all the same",
        given: "a pivot; b retriable",
        when: r#"
            settings {"transaction_bytes_max":1024}
            start
            a ok *1100
            b ok
        "#,
        then: r#"
            settings {"transaction_bytes_max":1024}
            start  [S1]
              -> a execute 1
            a ok *1100  [S4 S1 T1]
              -> b execute 1
            b ok  [S4 T5]
              = t at 3 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a verb may name the revision it was decided on",
        given: "a attempts=3; b",
        when: "
            start
            a error
            cancel stale @1
            cancel good @2
            a ok
            a:compensate ok
            cancel ended
        ",
        then: "
            start  [S1]
              -> a execute 1
            a error  [S10]
            cancel stale @1
              ! it is at revision 2 by now
            cancel good @2  [S14 S3 S15 T2]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 4 compensated: cancelled: good
            a:compensate ok  [S21]
            cancel ended
              ! it has ended: compensated
        ",
    },
];
