//! Everything else that may stand in an inbox: replies to nothing, timers, definitions, settings, levels, verbs.

use crate::harness::{Case, check};

#[test]
fn inputs_are_answered_as_told() {
    CASES.iter().for_each(check);
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "what nobody can read is set aside",
        given: "a",
        when: r#"
            raw nonsense
            raw {}
            raw {"specversion":"1.0","type":"sagamore.start.v2"}
            raw {"specversion":"1.0","type":"sagamore.cancel.v1","id":"v","subject":"one"}
        "#,
        then: r#"
            raw nonsense
              x not a CloudEvents document: expected ident at line 1 column 2
            raw {}
              x specversion must be "1.0"
            raw {"specversion":"1.0","type":"sagamore.start.v2"}
              x unexpected type "sagamore.start.v2"
            raw {"specversion":"1.0","type":"sagamore.cancel.v1","id":"v","subject":"one"}
              x attribute actor is missing
        "#,
    },
    Case {
        name: "replies to nothing are set aside, unless it has ended",
        given: "a",
        when: r#"
            start one
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000008","birth":"0-1","step":"a","branch":"a"}
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"1-1","step":"a","branch":"a"}
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"0-0","step":"a","branch":"a"}
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"0-1","step":"b","branch":"a"}
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"0-1","step":"a","branch":"b"}
            a ok
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"0-1","step":"a","branch":"a"}
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"0-0","step":"a","branch":"a"}
        "#,
        then: r#"
            start one  [S1]
              -> a execute 1
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000008","birth":"0-1","step":"a","branch":"a"}
              x a reply to another instance
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"1-1","step":"a","branch":"a"}
              x a reply in the wrong partition
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"0-0","step":"a","branch":"a"}
              x a reply to nothing that is known
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"0-1","step":"b","branch":"a"}
              x a reply of a step or branch that does not exist
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"0-1","step":"a","branch":"b"}
              x a reply of a step or branch that does not exist
            a ok  [S4 T1 T5]
              = one at 2 committed {"steps":{}}
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"0-1","step":"a","branch":"a"}  [S21]
            raw {"specversion":"1.0","type":"sagamore.reply.v1","id":"r","source":"/p","subject":"one","operation":"execute","attempt":1,"outcome":"ok","instance":"00000000-0000-0000-0000-000000000007","birth":"0-0","step":"a","branch":"a"}
              x a reply to nothing that is known
        "#,
    },
    Case {
        name: "timers that do not stand, or come too early, mean nothing",
        given: "a timeout=5s",
        when: r#"
            start one
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"0-1","step":"a","branch":"a","due":"2026-01-01T00:00:05Z"}
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"0-1","step":"b","branch":"a","due":"2026-01-01T00:00:00Z"}
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"0-1","due":"2026-01-01T00:00:00Z"}
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"0-0","due":"2026-01-01T00:00:00Z"}
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"1-1","due":"2026-01-01T00:15:00Z"}
            +5s
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"0-1","step":"a","branch":"a","due":"2026-01-01T00:00:05Z"}
        "#,
        then: r#"
            start one  [S1]
              -> a execute 1
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"0-1","step":"a","branch":"a","due":"2026-01-01T00:00:05Z"}  [S21]
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"0-1","step":"b","branch":"a","due":"2026-01-01T00:00:00Z"}  [S21]
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"0-1","due":"2026-01-01T00:00:00Z"}  [S21]
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"0-0","due":"2026-01-01T00:00:00Z"}  [S21]
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"1-1","due":"2026-01-01T00:15:00Z"}  [S21]
            timer a  [S10]
            raw {"specversion":"1.0","type":"sagamore.timer.v1","subject":"one","birth":"0-1","step":"a","branch":"a","due":"2026-01-01T00:00:05Z"}  [S21]
        "#,
    },
    Case {
        name: "a start without a version is pinned to the highest there is then",
        given: "a",
        when: "
            start one
            define version=3; b
            start two
            define version=2; c
            start three
            start four {} t@2
            c ok
        ",
        then: r#"
            start one  [S1]
              -> a execute 1
            define version=3; b
            start two  [S1]
              -> b execute 1
            define version=2; c
            start three  [S1]
              -> b execute 1
            start four {} t@2  [S1]
              -> c execute 1
            c ok  [S4 T1 T5]
              = four at 2 committed {"steps":{}}
        "#,
    },
    Case {
        name: "a definition is immutable, and must be one",
        given: "a",
        when: r#"
            define a
            define b
            define version=2; a pivot; b pivot
            settings {"definitions_max":1}
            define version=3; a
            raw {"specversion":"1.0","type":"sagamore.definition.v1","definitionsoffset":3,"data":{"name":"late","version":1,"steps":[]}}
            raw {"specversion":"1.0","type":"sagamore.definition.v1","definitionsoffset":9,"data":{"name":"shapeless"}}
            raw {"specversion":"1.0","type":"sagamore.definition.v1","definitionsoffset":10}
        "#,
        then: r#"
            define a
            define b
              x t@1 has been applied with other content: it is immutable, raise the version
            define version=2; a pivot; b pivot
              x t@2: steps[1].kind: `b` is a second pivot, after `a` (second-pivot); there is one point of no return: make this step compensatable before it, or retriable after it
            settings {"definitions_max":1}
            define version=3; a
              x t@3: there are 1 definitions already (setting definitions_max)
            raw {"specversion":"1.0","type":"sagamore.definition.v1","definitionsoffset":3,"data":{"name":"late","version":1,"steps":[]}}  [S21]
            raw {"specversion":"1.0","type":"sagamore.definition.v1","definitionsoffset":9,"data":{"name":"shapeless"}}
              x not a definition, at line 1 column 20
            raw {"specversion":"1.0","type":"sagamore.definition.v1","definitionsoffset":10}
              x not a definition, at line 1 column 4
        "#,
    },
    Case {
        name: "settings are all or nothing",
        given: "a",
        when: r#"
            settings {"open_max":1,"open_maximum":2}
            settings {"open_max":0}
            settings {"transaction_bytes_max":99999999}
            settings {"dedupe_window":"0s"}
            settings []
            start one
            start two
        "#,
        then: r#"
            settings {"open_max":1,"open_maximum":2}
              ! settings: unknown field `open_maximum`, expected one of `dedupe_window`, `start_ahead`, `watermark_age`, `open_max`, `open_bytes_max`, `transaction_bytes_max`, `finished_max`, `definitions_max`, `reply_token`
              x settings: unknown field `open_maximum`, expected one of `dedupe_window`, `start_ahead`, `watermark_age`, `open_max`, `open_bytes_max`, `transaction_bytes_max`, `finished_max`, `definitions_max`, `reply_token`
            settings {"open_max":0}
              ! setting open_max = 0 is outside 1..10000000
              x setting open_max = 0 is outside 1..10000000
            settings {"transaction_bytes_max":99999999}
              ! setting transaction_bytes_max = 99999999 is outside 1 KiB..1 MiB (a state record takes 2)
              x setting transaction_bytes_max = 99999999 is outside 1 KiB..1 MiB (a state record takes 2)
            settings {"dedupe_window":"0s"}
              ! setting dedupe_window = 0 is outside 1s..30d
              x setting dedupe_window = 0 is outside 1s..30d
            settings []
              ! settings: invalid type: sequence, expected a map at line 1 column 0
              x settings: invalid type: sequence, expected a map at line 1 column 0
            start one  [S1]
              -> a execute 1
            start two  [S1]
              -> a execute 1
        "#,
    },
    Case {
        name: "the level rises, never falls",
        given: "a",
        when: "
            level 1
            level 0
        ",
        then: "
            level 1
              ! the level is 1 already, and never falls to 1
              x the level is 1 already, and never falls to 1
            level 0
              ! the level is 1 already, and never falls to 0
              x the level is 1 already, and never falls to 0
        ",
    },
    Case {
        name: "an answer to an attempt that was never made, or to what was not asked, means nothing",
        given: "a; b",
        when: "
            start one
            a@2 ok
            a@0 ok
            a@2 refused
            a ok
            b refused
            a@2 ok
            a ok
        ",
        then: "
            start one  [S1]
              -> a execute 1
            a@2 ok  [S21]
            a@0 ok  [S21]
            a@2 refused  [S21]
            a ok  [S4 S1]
              -> b execute 1
            b refused  [S7 S15 T4]
              -> a compensate 1
            a@2 ok  [S21]
            a ok  [S16 T6]
              = one at 4 compensated: b: refused
        ",
    },
    Case {
        name: "verbs about nothing",
        given: "a",
        when: r#"
            start one
            a ok
            cancel ended
            retry ended
            raw {"specversion":"1.0","type":"sagamore.cancel.v1","id":"v","subject":"nobody","actor":"me","reason":"none"}
        "#,
        then: r#"
            start one  [S1]
              -> a execute 1
            a ok  [S4 T1 T5]
              = one at 2 committed {"steps":{}}
            cancel ended
              ! it has ended: committed
            retry ended
              ! it has ended: committed
            raw {"specversion":"1.0","type":"sagamore.cancel.v1","id":"v","subject":"nobody","actor":"me","reason":"none"}
              ! no such transaction
        "#,
    },
];
