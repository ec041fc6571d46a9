//! Compensations that fail, and what frees them.

use crate::harness::{Case, check};

#[test]
fn stuck_compensations_are_freed_as_told() {
    CASES.iter().for_each(check);
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "a compensation that is refused is stuck, the others go on; a late ok frees it",
        given: "a after=; b after=a; c after=a; d after=b+c",
        when: "
            start
            a ok
            b ok
            c ok
            d refused
            b refused cannot
            b refused cannot
            c ok
            b error
            a ok
            b ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1 S1]
              -> b execute 1
              -> c execute 1
            b ok  [S4]
            c ok  [S4 S1]
              -> d execute 1
            d refused  [S7 S15 S15 T4]
              -> c compensate 1
              -> b compensate 1
            b refused cannot  [S17 T7]
              = t at 6 stuck: b: compensate cannot
            b refused cannot  [S21]
            c ok  [S16 S15]
              -> a compensate 1
            b error  [S21]
            a ok  [S16]
            b ok  [S16 T6]
              = t at 9 compensated: d: refused
        ",
    },
    Case {
        name: "a compensation that is expired is stuck, `retry` asks again with new tries",
        given: "a attempts=2; b",
        when: "
            start
            a ok
            b refused
            a expired
            retry they restored it
            a error
            ring
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b refused  [S7 S15 T4]
              -> a compensate 1
            a expired  [S17 T7]
              = t at 4 stuck: a: compensate expired
            retry they restored it  [S20]
              -> a compensate 2
            a error  [S18]
            timer a  [S13]
              -> a compensate 3
            a ok  [S16 T6]
              = t at 8 compensated: b: refused
        ",
    },
    Case {
        name: "a compensation out of attempts is stuck",
        given: "a attempts=2 timeout=5s; b",
        when: "
            start
            a ok
            b refused
            +5s
            ring
            a error
            a@1 ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b refused  [S7 S15 T4]
              -> a compensate 1
            timer a  [S18]
            timer a  [S13]
              -> a compensate 2
            a error  [S19 T7]
              = t at 6 stuck: a: compensate error
            a@1 ok  [S16 T6]
              = t at 7 compensated: b: refused
        ",
    },
    Case {
        name: "a compensation that is lost, pending, silent; and done after all",
        given: "a attempts=3 timeout=5s; b",
        when: "
            start
            a ok
            b refused
            a lost
            ring
            +4s
            a pending
            +5s
            ring
            a lost
            retry the topic is there now
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b refused  [S7 S15 T4]
              -> a compensate 1
            a lost  [S18]
            timer a  [S13]
              -> a compensate 2
            a pending  [S12]
            timer a  [S18]
            timer a  [S13]
              -> a compensate 3
            a lost  [S19 T7]
              = t at 9 stuck: a: compensate no such topic
            retry the topic is there now  [S20]
              -> a compensate 4
            a ok  [S16 T6]
              = t at 11 compensated: b: refused
        ",
    },
    Case {
        name: "`retry` asks a compensation that pauses",
        given: "a attempts=3; b",
        when: "
            start
            a ok
            b refused
            a error
            retry now
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b refused  [S7 S15 T4]
              -> a compensate 1
            a error  [S18]
            retry now  [S13]
              -> a compensate 2
            a ok  [S16 T6]
              = t at 6 compensated: b: refused
        ",
    },
    Case {
        name: "two stuck compensations, told each",
        given: "a after=; b after=; c after=a+b",
        when: "
            start
            a ok
            b ok
            c refused
            a refused one
            b refused two
            retry both
            a ok
            b ok
        ",
        then: "
            start  [S1 S1]
              -> a execute 1
              -> b execute 1
            a ok  [S4]
            b ok  [S4 S1]
              -> c execute 1
            c refused  [S7 S15 S15 T4]
              -> b compensate 1
              -> a compensate 1
            a refused one  [S17 T7]
              = t at 5 stuck: a: compensate one
            b refused two  [S17 T7]
              = t at 6 stuck: b: compensate two
            retry both  [S20 S20]
              -> a compensate 2
              -> b compensate 2
            a ok  [S16]
            b ok  [S16 T6]
              = t at 9 compensated: c: refused
        ",
    },
    Case {
        name: "a person answers for a compensation that is stuck",
        given: "a; b",
        when: "
            start
            a ok
            b refused
            resolve a ok too early
            a refused cannot
            resolve a refused never mind
            resolve b ok of another one
            resolve nobody ok what
            resolve a ok paid back by hand
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b refused  [S7 S15 T4]
              -> a compensate 1
            resolve a ok too early
              ! it is not stuck
            a refused cannot  [S17 T7]
              = t at 4 stuck: a: compensate cannot
            resolve a refused never mind
              ! it has been decided on, and can only be resolved as ok
            resolve b ok of another one
              ! it is not stuck
            resolve nobody ok what
              ! there is no such step or branch; of several branches one is to be named
            resolve a ok paid back by hand  [S16 T6]
              = t at 5 compensated: b: refused
        ",
    },
    Case {
        name: "a pivot of which nobody knows is resolved as done, with the result that was found",
        given: "a; b pivot; c retriable",
        when: "
            start
            a ok
            b expired
            resolve b ok it is in their books
            c ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b expired  [S9 T7]
              = t at 3 stuck: b: execute expired
            resolve b ok it is in their books  [S4 S1 T1]
              -> c execute 1
            c ok  [S4 T5]
              = t at 5 committed {\"steps\":{\"b\":{\"by\":\"hand\"}}}
        ",
    },
    Case {
        name: "the same as not done: it turns back",
        given: "a; b pivot; c retriable",
        when: "
            start
            a ok
            b expired
            resolve b refused it is not in their books @2
            resolve b refused it is not in their books
            b ok
            a ok
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b expired  [S9 T7]
              = t at 3 stuck: b: execute expired
            resolve b refused it is not in their books @2
              ! it is at revision 3 by now
            resolve b refused it is not in their books  [S7 S3 S15 T4]
              -> a compensate 1
            b ok  [S21]
            a ok  [S16 T6]
              = t at 5 compensated: b: it is not in their books
        ",
    },
    Case {
        name: "past the decision a step can only be resolved as done",
        given: "a pivot; b retriable",
        when: "
            start
            a ok
            b refused never
            resolve b refused leave it out
            resolve b ok done by hand
        ",
        then: "
            start  [S1]
              -> a execute 1
            a ok  [S4 S1 T1]
              -> b execute 1
            b refused never  [S6 T7]
              = t at 3 stuck: b: execute never
            resolve b refused leave it out
              ! it has been decided on, and can only be resolved as ok
            resolve b ok done by hand  [S4 T5]
              = t at 4 committed {\"steps\":{\"b\":{\"by\":\"hand\"}}}
        ",
    },
];
