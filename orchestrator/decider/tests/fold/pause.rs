//! A person holds a transaction and lets it go on: nothing is asked meanwhile, and nothing that was decided is held.

use crate::harness::{Case, check};

#[test]
fn what_is_paused_asks_for_nothing() {
    CASES.iter().for_each(check);
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "what is answered meanwhile is kept, what would begin waits; timers do not stand, and act on resume",
        given: "a after= timeout=5s; b after= timeout=5s; c after=a+b",
        when: "
            start
            pause look first
            pause twice
            a ok
            retry now
            +5s
            resume looked
            resume twice
            ring
        ",
        then: "
            start  [S1 S1]
              -> a execute 1
              -> b execute 1
            pause look first  [T8]
            pause twice
              ! it is paused already
            a ok  [S4]
            retry now
              ! it is paused
            resume looked  [T9]
            resume twice
              ! it is not paused
            timer b  [S10]
        ",
    },
    Case {
        name: "a refusal turns back, and what has been decided is delivered",
        given: "a after=; b after=",
        when: "
            start
            pause look first
            a ok
            b refused no
            a ok
        ",
        then: "
            start  [S1 S1]
              -> a execute 1
              -> b execute 1
            pause look first  [T8]
            a ok  [S4]
            b refused no  [S7 S15 T4]
              -> a compensate 1
            a ok  [S16 T6]
              = t at 5 compensated: b: no
        ",
    },
    Case {
        name: "the deadline holds, and so does a cancel",
        given: "deadline=10s; a timeout=30s",
        when: "
            start one
            pause
            +10s
            a ok
            start two
            pause
            cancel after all
            a ok
        ",
        then: "
            start one  [S1]
              -> a execute 1
            pause  [T8]
            timer deadline  [S14 S15 T2]
              -> a compensate 1
            a ok  [S16 T6]
              = one at 4 compensated: deadline
            start two  [S1]
              -> a execute 1
            pause  [T8]
            cancel after all  [S14 S15 T2]
              -> a compensate 1
            a ok  [S16 T6]
              = two at 4 compensated: cancelled: after all
        ",
    },
    Case {
        name: "votes are kept, and decide when it is resumed",
        given: "pay two-phase branches=x+y",
        when: "
            start
            pause
            pay/x ok
            pay/y ok
            inquire pay/x
            resume
            pause too late
            pay/x ok
            pay/y ok
        ",
        then: r#"
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pause  [T8]
            pay/x ok  [P4]
            pay/y ok  [P4]
            inquire pay/x
              -> pay/x: undecided
            resume  [P11 P11 T1 T9]
              -> pay/x commit 1
              -> pay/y commit 1
            pause too late
              ! it has been decided to commit
            pay/x ok  [P13]
            pay/y ok  [P13 T5]
              = t at 7 committed {"steps":{}}
        "#,
    },
    Case {
        name: "what cannot be cancelled cannot be paused",
        given: "a pivot; b retriable",
        when: "
            start
            pause too late
            a ok
            pause too late
            b ok
            pause too late
            resume too late
        ",
        then: r#"
            start  [S1]
              -> a execute 1
            pause too late  [T3]
              ! the pivot has been asked: no way back is left
            a ok  [S4 S1 T1]
              -> b execute 1
            pause too late
              ! it has been decided to commit
            b ok  [S4 T5]
              = t at 3 committed {"steps":{}}
            pause too late
              ! it has ended: committed
            resume too late
              ! it has ended: committed
        "#,
    },
    Case {
        name: "a group that has decided tells its branches before anything is paused",
        given: "pay two-phase undone branches=x+y; b",
        when: "
            start
            pay/x ok
            pay/y ok
            pause too late
            pay/x ok
            pay/y ok
            pause now
            b ok
            resume
        ",
        then: r#"
            start  [P1 P1]
              -> pay/x prepare 1
              -> pay/y prepare 1
            pay/x ok  [P4]
            pay/y ok  [P4 P11 P11]
              -> pay/x commit 1
              -> pay/y commit 1
            pause too late
              ! a group of it has decided: its branches wait to be told
            pay/x ok  [P13]
            pay/y ok  [P13 S1]
              -> b execute 1
            pause now  [T8]
            b ok  [S4]
            resume  [T1 T9 T5]
              = t at 8 committed {"steps":{}}
        "#,
    },
];
