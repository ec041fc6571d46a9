//! The script of steps that start other definitions.

use super::super::scribe::Scribe;

pub fn children(s: &mut Scribe) {
    s.define("name=recharge; take");
    s.define("name=refund; undo=recharge@1; pay; give");
    s.define(r#"deadline=10m; back child=refund@1 input={"n":"${input.n}"} timeout=5s; b; c child=refund@1 retriable"#);
    committed(s);
    undone(s);
    called_off(s);
    away(s);
}

fn committed(s: &mut Scribe) {
    s.start("committed", r#"{"n":1}"#);
    s.pass_on(2);
    s.checkpoint(0);
    let child = s.child_of("back");
    s.answer(&format!("{child} pay ok {{\"r\":1}}"));
    s.answer(&format!("{child} give ok"));
    s.checkpoint(1);
    s.pass_on(2);
    s.answer("committed b ok");
    s.pass_on(1);
    let child = s.child_of("c");
    s.answer(&format!("{child} pay refused no"));
    s.pass_on(1);
    s.checkpoint(0);
    s.retry("committed", "again");
    s.pass_on(1);
    let child = s.child_of("c");
    s.answer(&format!("{child} pay ok"));
    s.answer(&format!("{child} give ok"));
    s.pass_on(1);
    s.checkpoint(0);
}

fn undone(s: &mut Scribe) {
    s.start("undone", r#"{"n":2}"#);
    s.pass_on(1);
    let child = s.child_of("back");
    s.answer(&format!("{child} pay ok {{\"r\":2}}"));
    s.answer(&format!("{child} give ok"));
    s.pass_on(1);
    s.answer("undone b refused no");
    s.pass_on(1);
    let child = s.child_of("back");
    s.checkpoint(0);
    s.answer(&format!("{child} take refused no"));
    s.pass_on(1);
    s.retry("undone", "again");
    s.pass_on(1);
    let child = s.child_of("back");
    s.answer(&format!("{child} take ok"));
    s.pass_on(2);
    s.checkpoint(0);
}

fn called_off(s: &mut Scribe) {
    s.start("early", r#"{"n":3}"#);
    s.lose();
    s.cancel("early", "before it began", None);
    s.pass_on(1);
    s.start("amid", r#"{"n":4}"#);
    s.pass_on(1);
    let child = s.child_of("back");
    s.answer(&format!("{child} pay ok"));
    s.cancel("amid", "while it runs", None);
    s.pass_on(1);
    s.answer(&format!("{child} give ok"));
    s.checkpoint(0);
    s.answer(&format!("{child} pay ok"));
    s.pass_on(1);
    s.start("late", r#"{"n":5}"#);
    s.pass_on(1);
    let child = s.child_of("back");
    s.answer(&format!("{child} pay ok"));
    s.cancel("late", "when it had committed", None);
    s.answer(&format!("{child} give ok"));
    s.pass_on(1);
    let child = s.child_of("back");
    s.answer(&format!("{child} take ok"));
    s.pass_on(1);
    s.checkpoint(0);
}

fn away(s: &mut Scribe) {
    s.start("away", r#"{"n":6}"#);
    s.lose();
    s.ring();
    s.ring();
    s.settings(r#"{"open_max":1}"#);
    s.pass_on(1);
    s.start("also", r#"{"n":7}"#);
    s.settings(r#"{"open_max":100}"#);
    s.ring();
    s.pass_on(1);
}
