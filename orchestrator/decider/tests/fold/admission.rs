//! Admission: which starts are let in, which are known, which are refused.

use crate::harness::{Case, check};

#[test]
fn starts_are_answered_as_told() {
    CASES.iter().for_each(check);
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "a start that is known is accepted, and told again what it was told",
        given: "a; b",
        when: r#"
            start one {"n":1}
            start one {"n":1}
            start one {"n":1} t@1
            start one {"n":2}
            start one {"n":1} other
            start one {"n":1} t@2
            start one {"n":1} t @2020-01-01T00:00:00Z
            a ok {"big":1}
            b ok
            start one {"n":1}
            start one {"n":1} t@1 @2020-01-01T00:00:00Z
            start one {"n":2}
            start one {"n":1} other
            start one {"n":1} t@2
        "#,
        then: r#"
            start one {"n":1}  [S1]
              -> a execute 1 {"n":1}
            start one {"n":1}
            start one {"n":1} t@1
            start one {"n":2}
              = one refused: conflict: this id was started with another definition or other data
            start one {"n":1} other
              = one refused: conflict: this id was started with another definition or other data
            start one {"n":1} t@2
              = one refused: conflict: this id was started with another definition or other data
            start one {"n":1} t @2020-01-01T00:00:00Z
            a ok {"big":1}  [S4 S1]
              -> b execute 1 {"n":1}
            b ok  [S4 T1 T5]
              = one at 3 committed {"steps":{"a":{"big":1}}}
            start one {"n":1}
              = one at 3 committed
            start one {"n":1} t@1 @2020-01-01T00:00:00Z
              = one at 3 committed
            start one {"n":2}
              = one refused: conflict: this id was started with another definition or other data
            start one {"n":1} other
              = one refused: conflict: this id was started with another definition or other data
            start one {"n":1} t@2
              = one refused: conflict: this id was started with another definition or other data
        "#,
    },
    Case {
        name: "what ended compensated or aborted is told again as that",
        given: "a; b",
        when: "
            start one
            a ok
            b refused no
            a ok
            start one
            start two
            a refused no
            start two
        ",
        then: "
            start one  [S1]
              -> a execute 1
            a ok  [S4 S1]
              -> b execute 1
            b refused no  [S7 S15 T4]
              -> a compensate 1
            a ok  [S16 T6]
              = one at 4 compensated: b: no
            start one
              = one at 4 compensated
            start two  [S1]
              -> a execute 1
            a refused no  [S7 S3 T4 T6]
              = two at 2 aborted: a: no
            start two
              = two at 2 aborted
        ",
    },
    Case {
        name: "time must be within the window",
        given: "a",
        when: "
            start one {} t @2025-12-31T23:44:59.999Z
            start two {} t @2025-12-31T23:45:00Z
            start three {} t @2026-01-01T00:01:00.001Z
            start four {} t @2026-01-01T00:01:00Z
        ",
        then: "
            start one {} t @2025-12-31T23:44:59.999Z
              = one refused: too-old: first issued before 2025-12-31T23:45:00.000Z: it may have run, and be forgotten
            start two {} t @2025-12-31T23:45:00Z  [S1]
              -> a execute 1
            start three {} t @2026-01-01T00:01:00.001Z
              = three refused: too-early: its time is more than 1m ahead of the broker's clock
            start four {} t @2026-01-01T00:01:00Z  [S1]
              -> a execute 1
        ",
    },
    Case {
        name: "an id lives again when its first life is forgotten, and old starts of it are too old",
        given: "a",
        when: r#"
            settings {"dedupe_window":"10s"}
            start one
            a ok
            +10s
            start one {} t @2026-01-01T00:00:00Z
            +1s
            start one {} t @2026-01-01T00:00:00Z
            start one
            start one {} t @2026-01-01T00:00:00Z
            a ok
            a@1 ok
            start one
        "#,
        then: r#"
            settings {"dedupe_window":"10s"}
            start one  [S1]
              -> a execute 1
            a ok  [S4 T1 T5]
              = one at 2 committed {"steps":{}}
            start one {} t @2026-01-01T00:00:00Z
              = one at 2 committed
            start one {} t @2026-01-01T00:00:00Z
              = one refused: too-old: first issued before 2026-01-01T00:00:01.000Z: it may have run, and be forgotten
            start one  [S1]
              -> a execute 1
            start one {} t @2026-01-01T00:00:00Z
            a ok  [S4 T1 T5]
              = one at 2 committed {"steps":{}}
            a@1 ok  [S21]
            start one
              = one at 2 committed
        "#,
    },
    Case {
        name: "a start ahead of the clock is remembered from its own time",
        given: "a",
        when: r#"
            settings {"dedupe_window":"10s"}
            start one {} t @2026-01-01T00:00:50Z
            a ok
            +59s
            start one {} t @2026-01-01T00:00:50Z
            +2s
            start one {} t @2026-01-01T00:00:50Z
        "#,
        then: r#"
            settings {"dedupe_window":"10s"}
            start one {} t @2026-01-01T00:00:50Z  [S1]
              -> a execute 1
            a ok  [S4 T1 T5]
              = one at 2 committed {"steps":{}}
            start one {} t @2026-01-01T00:00:50Z
              = one at 2 committed
            start one {} t @2026-01-01T00:00:50Z
              = one refused: too-old: first issued before 2026-01-01T00:00:51.000Z: it may have run, and be forgotten
        "#,
    },
    Case {
        name: "a window that is raised forgets nothing that is remembered, and believes nothing that is forgotten",
        given: "a",
        when: r#"
            settings {"dedupe_window":"10s"}
            start one
            a ok
            +8s
            start two
            a ok
            +3s
            settings {"dedupe_window":"1h"}
            start one {} t @2026-01-01T00:00:00Z
            +20s
            start two {} t @2026-01-01T00:00:08Z
            start new {} t @2026-01-01T00:00:02Z
        "#,
        then: r#"
            settings {"dedupe_window":"10s"}
            start one  [S1]
              -> a execute 1
            a ok  [S4 T1 T5]
              = one at 2 committed {"steps":{}}
            start two  [S1]
              -> a execute 1
            a ok  [S4 T1 T5]
              = two at 2 committed {"steps":{}}
            settings {"dedupe_window":"1h"}
            start one {} t @2026-01-01T00:00:00Z
              = one refused: too-old: first issued before 2026-01-01T00:00:01.000Z: it may have run, and be forgotten
            start two {} t @2026-01-01T00:00:08Z
              = two at 2 committed
            start new {} t @2026-01-01T00:00:02Z  [S1]
              -> a execute 1
        "#,
    },
    Case {
        name: "unknown definitions and versions, missing fields, too much data",
        given: r#"a input={"x":"${input.x}","y":"${input.y.z}"}"#,
        when: r#"
            settings {"transaction_bytes_max":1024}
            start one {} other
            start one {} t@7
            start one {"x":1}
            start one {"x":1,"y":{"z":null}} t@1
        "#,
        then: r#"
            settings {"transaction_bytes_max":1024}
            start one {} other
              = one refused: unknown-definition: other has not been applied here
            start one {} t@7
              = one refused: unknown-definition: t@7 has not been applied here
            start one {"x":1}
              = one refused: missing-input: t@1 needs ${input.y.z}
            start one {"x":1,"y":{"z":null}} t@1  [S1]
              -> a execute 1 {"x":1,"y":null}
        "#,
    },
    Case {
        name: "as many transactions as may be open",
        given: "a",
        when: r#"
            settings {"open_max":1}
            start one
            start two
            start one
            a ok
            start two
        "#,
        then: r#"
            settings {"open_max":1}
            start one  [S1]
              -> a execute 1
            start two
              = two refused: overloaded: this shard holds as many transactions as it may: try again later
            start one
            a ok  [S4 T1 T5]
              = one at 2 committed {"steps":{}}
            start two  [S1]
              -> a execute 1
        "#,
    },
    Case {
        name: "as many bytes as may be open; replies always pass",
        given: "a; b",
        when: r#"
            settings {"open_bytes_max":1024}
            start one {"n":1}
            a ok *1100
            start two
            on one
            b ok
            start two
        "#,
        then: r#"
            settings {"open_bytes_max":1024}
            start one {"n":1}  [S1]
              -> a execute 1 {"n":1}
            a ok *1100  [S4 S1]
              -> b execute 1 {"n":1}
            start two
              = two refused: overloaded: this shard holds as many transactions as it may: try again later
            b ok  [S4 T1 T5]
              = one at 3 committed 1116 bytes
            start two  [S1]
              -> a execute 1
        "#,
    },
    Case {
        name: "as many endings as may be remembered, counting those to come",
        given: "a",
        when: r#"
            settings {"finished_max":1,"dedupe_window":"1s"}
            start one
            start two
            on one
            a ok
            start two
            start one
            +2s
            start two
        "#,
        then: r#"
            settings {"finished_max":1,"dedupe_window":"1s"}
            start one  [S1]
              -> a execute 1
            start two
              = two refused: overloaded: this shard holds as many transactions as it may: try again later
            a ok  [S4 T1 T5]
              = one at 2 committed {"steps":{}}
            start two
              = two refused: overloaded: this shard holds as many transactions as it may: try again later
            start one
              = one at 2 committed
            start two  [S1]
              -> a execute 1
        "#,
    },
    Case {
        name: "starts that cannot be read are refused with what is wrong",
        given: "a",
        when: r#"
            raw {"specversion":"1.0","type":"sagamore.start.v1","subject":"one"}
            raw {"specversion":"1.0","type":"sagamore.start.v1","subject":"one","time":"yesterday","definition":"t"}
            raw {"specversion":"1.0","type":"sagamore.start.v1","subject":"one","time":"2026-01-01T00:00:00Z","definition":"T!"}
            raw {"specversion":"1.0","type":"sagamore.start.v1","subject":"not one","time":"2026-01-01T00:00:00Z","definition":"t"}
        "#,
        then: r#"
            raw {"specversion":"1.0","type":"sagamore.start.v1","subject":"one"}
              = one refused: malformed: attribute time is missing
            raw {"specversion":"1.0","type":"sagamore.start.v1","subject":"one","time":"yesterday","definition":"t"}
              = one refused: malformed: attribute time: time "yesterday" must be RFC 3339, such as 2026-11-22T16:00:00Z
            raw {"specversion":"1.0","type":"sagamore.start.v1","subject":"one","time":"2026-01-01T00:00:00Z","definition":"T!"}
              = one refused: malformed: attribute definition: name "T!" must be 1-32 characters of [a-z0-9-]
            raw {"specversion":"1.0","type":"sagamore.start.v1","subject":"not one","time":"2026-01-01T00:00:00Z","definition":"t"}
              x attribute subject: transaction id "not one" must be 1-128 characters of [A-Za-z0-9._:-]
        "#,
    },
];
