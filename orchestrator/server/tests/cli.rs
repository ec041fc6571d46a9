//! `sagamore` as a process, on a real Apache Kafka: what its exit codes and outputs say is what has happened.

#![expect(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sagamore_local_kafka::{ClusterSize, LocalKafka};
use serde_json::Value;

mod shapes;

const SOON: Duration = Duration::from_mins(1);
const ORDER: &str = include_str!("../src/demo/order.json");

/// One broker for all tests of this file; each has a prefix of its own.
static KAFKA: LazyLock<LocalKafka> =
    LazyLock::new(|| LocalKafka::start(ClusterSize::One).expect("a broker starts"));

struct Site {
    prefix: &'static str,
    server: Option<String>,
    folder: tempfile::TempDir,
}

/// What a command said, and how it ended.
struct Said {
    exit: i32,
    stdout: String,
    stderr: String,
}

impl Site {
    fn new(prefix: &'static str) -> Self {
        LazyLock::force(&KAFKA);
        Self { prefix, server: None, folder: tempfile::tempdir().unwrap() }
    }

    /// The variables say where; the line says what.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sagamore"));
        command.args(arguments).current_dir(self.folder.path());
        command.env("SAGAMORE_KAFKA", KAFKA.bootstrap()).env("SAGAMORE_PREFIX", self.prefix);
        command.env("SAGAMORE_OUTPUT", "json");
        if let Some(server) = &self.server {
            command.env("SAGAMORE_SERVER", server);
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("it starts");
        let said = Said {
            exit: status.code().unwrap_or(-1),
            stdout: String::from_utf8(stdout).expect("text"),
            stderr: String::from_utf8(stderr).expect("text"),
        };
        println!("$ sagamore {}\n{}{}-> {}", arguments.join(" "), said.stdout, said.stderr, said.exit);
        said
    }

    fn spawn(&self, arguments: &[&str]) -> Running {
        let child = self.command(arguments).stdout(Stdio::piped()).spawn().expect("it starts");
        Running(Some(child))
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }
}

impl Said {
    fn ends(self, exit: i32) -> Self {
        assert_eq!(self.exit, exit, "{}", self.stderr);
        self
    }

    fn data(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    fn list(&self) -> Vec<Value> {
        self.data().as_array().expect("a list").clone()
    }
}

/// A process that ends with the test, whatever happens.
struct Running(Option<Child>);

impl Running {
    /// Asks it to end; what it printed, and its exit code.
    fn terminate(mut self) -> (i32, String) {
        let child = self.0.take().expect("it runs");
        let asked = Command::new("kill").arg(child.id().to_string()).status().expect("kill");
        assert!(asked.success());
        let output = child.wait_with_output().expect("it ends");
        (output.status.code().unwrap_or(-1), String::from_utf8(output.stdout).expect("text"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn topics_and_definitions_without_a_server() {
    let site = Site::new("cli-alone");
    site.write("order.json", ORDER);

    assert!(
        site.run(&["topics", "check"]).ends(10).list().iter().any(|finding| finding["value"] == "missing")
    );
    site.run(&["define", "apply", "order.json"]).ends(3);
    let planned = site.run(&["topics", "plan", "--replication", "1", "--partitions", "2"]).ends(0).list();
    let applied = site.run(&["topics", "apply", "--replication", "1", "--partitions", "2"]).ends(0).list();
    assert_eq!((planned.len(), applied.len()), (8, 8), "seven topics and the instance");
    assert_eq!(
        site.run(&["topics", "apply", "--replication", "1", "--partitions", "2"]).ends(0).stdout,
        "[]\n"
    );
    site.run(&["topics", "apply", "--replication", "1", "--partitions", "3"]).ends(4);
    site.run(&["topics", "check"]).ends(10);
    site.run(&["topics", "check", "--development"]).ends(0);
    let examined = site.run(&["doctor"]).ends(10).data();
    assert_eq!((&examined["fit"], &examined["promises"][2]["kept"]), (&false.into(), &false.into()));
    let examined = site.run(&["doctor", "--development"]).ends(0).data();
    assert_eq!(examined["probe"]["transactions"]["fences"], true, "{examined:#}");
    shapes::Shapes::read().check("doctor", &examined);

    assert_eq!(site.run(&["define", "list"]).ends(0).stdout, "[]\n");
    let nobody = site.run(&["define", "apply", "order.json", "--wait", "1s"]).ends(7);
    assert!(nobody.stderr.contains("the shards of partition 0, 1 have not said so"), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("is a server running"), "{}", nobody.stderr);
    let again = site.run(&["define", "apply", "order.json", "--wait", "0s"]).ends(0).data();
    assert_eq!((&again["was_there"], &again["complete"]), (&true.into(), &false.into()));
    let topics = site.run(&["topics", "check", "--development"]).ends(0).list();
    assert!(topics.iter().any(|finding| finding["topic"] == "cli-alone.commands.inventory"));

    site.write("other.json", &ORDER.replace("5s", "6s"));
    let conflict = site.run(&["define", "apply", "other.json"]).ends(4);
    assert!(conflict.stderr.contains("raise `version` to 2"), "{}", conflict.stderr);
    assert_eq!(site.run(&["define", "diff", "order@1", "other.json"]).ends(0).list().len(), 3);
    assert_eq!(site.run(&["define", "get", "order"]).ends(0).data()["version"], 1);
    site.run(&["define", "get", "order@2"]).ends(3);
    site.write("bad.json", &ORDER.replace("\"kind\"", "\"kin\""));
    let bad = site.run(&["define", "check", "order.json", "bad.json"]).ends(10).list();
    assert_eq!((&bad[0]["accepted"], &bad[1]["problems"][0]["line"]), (&true.into(), &21.into()));

    assert_eq!(site.run(&["settings", "show"]).ends(0).stdout, "[]\n", "no checkpoint, no numbers");
    site.run(&["settings", "set", "open_max=0", "--reason", "test"]).ends(2);
    site.run(&["skip", "2/0", "--reason", "test"]).ends(3);
    site.run(&["list", "--server", "http://127.0.0.1:1"]).ends(6);
    site.run(&["topics", "check", "--kafka-config", "acks=1"]).ends(2);
}

#[test]
fn orders_through_a_server_and_participants_each_a_process() {
    let mut site = Site::new("cli-order");
    site.write("order.json", ORDER);
    site.run(&["topics", "apply", "--replication", "1", "--partitions", "2"]).ends(0);
    let port = free_port();
    site.write("server.toml", &format!("listen = '127.0.0.1:{port}'\nlanes = 1\ndevelopment = true\n"));
    site.server = Some(format!("http://127.0.0.1:{port}"));
    let server = site.spawn(&["server", "--config", "server.toml"]);
    let applied = site.run(&["define", "apply", "order.json", "--wait", "60s"]).ends(0).data();
    assert_eq!(applied["complete"], true);
    let participants = ["inventory", "payment", "shipping"].map(|name| site.spawn(&["participant", name]));

    let start = |id: &str, country: &str| {
        let lines = r#"[{"product":11,"quantity":12}]"#;
        let input = format!(
            r#"{{"order":1,"customer":"VINET","ship_country":"{country}","total_cents":44000,"lines":{lines}}}"#
        );
        site.run(&["start", "order", "--id", id, "--wait", "--timeout", "60s", "--input", &input])
    };
    let committed = start("order-1", "France").ends(0).data();
    assert_eq!((&committed["outcome"], &committed["definition"]), (&"committed".into(), &"order@1".into()));
    let compensated = start("order-2", "Norway").ends(20).data();
    assert_eq!(compensated["outcome"], "compensated");
    assert_eq!(start("order-1", "France").ends(0).data()["birth"], committed["birth"], "the same life");
    start("order-1", "Spain").ends(4);
    site.run(&["start", "nothing", "--id", "order-3", "--input", "{}"]).ends(3);
    site.run(&["start", "order", "--id", "order-3", "--input", "{}"]).ends(2);

    assert_eq!(site.run(&["get", "order-2"]).ends(0).data()["status"], "compensated");
    site.run(&["get", "order-3"]).ends(3);
    site.run(&["wait", "order-1"]).ends(0);
    assert_eq!(site.run(&["wait", "order-1", "order-2"]).ends(20).list().len(), 2);
    // The view follows the journal, and that the checkpoints.
    let deadline = Instant::now() + SOON;
    while site.run(&["list"]).ends(0).stdout != "[]\n" {
        assert!(Instant::now() < deadline, "the view does not get on");
    }
    assert_eq!(site.run(&["stuck"]).ends(0).stdout, "[]\n");
    assert_eq!(site.run(&["count"]).ends(0).list()[0]["transactions"], 0);
    let shapes = shapes::Shapes::read();
    let refused = site.run(&["cancel", "order-1", "--reason", "test"]).ends(4);
    shapes.check("cancel", &refused.data());
    let history = site.run(&["get", "order-2"]).ends(0).data();
    assert_eq!(history["steps"][0]["attempts"][0]["came_to"], "ok", "{history}");
    shapes.check("get", &history);
    shapes.check("wait", &site.run(&["wait", "order-1"]).ends(0).data());
    let ended = site.run(&["list", "--status", "ended", "--id-prefix", "order-", "--all"]).ends(0).data();
    shapes.check("list", &ended);
    let statuses: Vec<_> =
        ended.as_array().unwrap().iter().map(|one| one["status"].as_str().unwrap()).collect();
    assert!(statuses.contains(&"committed") && statuses.contains(&"compensated"), "{ended}");
    let counted = site.run(&["count", "--by", "definition,status", "--status", "committed"]).ends(0).data();
    shapes.check("count", &counted);
    assert_eq!(
        counted,
        serde_json::json!([{"definition": "order@1", "status": "committed", "transactions": 1}])
    );
    shapes.check("count", &site.run(&["count"]).ends(0).data());
    let typo = site.run(&["list", "--definition", "ordre"]).ends(2);
    assert!(typo.stderr.contains("did you mean order?"), "{}", typo.stderr);
    let typo = site.run(&["list", "--status", "stuk"]).ends(2);
    assert!(typo.stderr.contains("'stuck'"), "{}", typo.stderr);
    let dry = site.run(&["cancel", "--status", "open", "--dry-run", "--reason", "test"]).ends(0);
    assert_eq!(dry.stdout, "[]\n");
    site.run(&["retry", "order-3", "--reason", "test"]).ends(3);

    site.run(&["settings", "set", "open_max=1000", "--reason", "test"]).ends(0);
    let deadline = Instant::now() + SOON;
    while !site
        .run(&["settings", "show"])
        .ends(0)
        .list()
        .iter()
        .all(|shard| shard["settings"]["open_max"] == 1000)
    {
        assert!(Instant::now() < deadline, "the settings do not arrive");
    }

    dead_letters(&site, &shapes);

    for participant in participants {
        let (exit, report) = participant.terminate();
        let report: Value = serde_json::from_str(&report).expect("a report");
        assert_eq!((exit, &report["balance"]), (0, &true.into()), "{report}");
    }
    assert_eq!(server.terminate().0, 0);
    site.run(&["get", "order-1"]).ends(6);
    let late = site.run(&["wait", "order-1", "--timeout", "1s"]).ends(6);
    assert!(late.stderr.contains("no server answers"), "{}", late.stderr);
}

/// What cannot be read, and what is printed of it.
fn dead_letters(site: &Site, shapes: &shapes::Shapes) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", KAFKA.bootstrap()).create().unwrap();
    let inbox = format!("{}.inbox", site.prefix);
    producer.send(BaseRecord::to(&inbox).partition(0).key("k").payload(&b"\xff no text"[..])).unwrap();
    producer.flush(SOON).unwrap();
    let deadline = Instant::now() + SOON;
    let listed = loop {
        let listed = site.run(&["dead-letters", "list"]).ends(0).data();
        if !listed.as_array().unwrap().is_empty() {
            break listed;
        }
        assert!(Instant::now() < deadline, "it is not set aside");
    };
    shapes.check("dead-letters list", &listed);
    let place = listed[0]["place"].as_str().unwrap();
    let check = |name: &str, arguments: &[&str]| shapes.check(name, &site.run(arguments).ends(0).data());
    check("dead-letters list --by-cause", &["dead-letters", "list", "--by-cause"]);
    check("dead-letters resend", &["dead-letters", "resend", place, "--dry-run", "--reason", "test"]);
    check("dead-letters discard", &["dead-letters", "discard", place, "--reason", "test"]);
    check("dead-letters show", &["dead-letters", "show", place]);
}

#[test]
fn a_server_that_cannot_run_says_why() {
    let site = Site::new("cli-nowhere");
    site.run(&["server", "--listen", "127.0.0.1:0"]).ends(10);
    site.run(&["server", "--config", "missing.toml"]).ends(3);
    site.write("typo.yaml", "lane: 2\n");
    let typo = site.run(&["server", "--config", "typo.yaml"]).ends(2);
    assert!(typo.stderr.contains("did you mean `lanes`?"), "{}", typo.stderr);
    assert!(typo.stderr.contains("typo.yaml: line 1: "), "{}", typo.stderr);
    let misspelt = site.command(&["--version"]).env("SAGAMORE_LANE", "2").output().unwrap();
    let misspelt = String::from_utf8(misspelt.stderr).unwrap();
    assert_eq!(misspelt, "warning: nobody reads SAGAMORE_LANE; did you mean SAGAMORE_LANES?\n");
    site.write("s.yaml", "# ours\nlanes: 3\nkafka-config: [sasl.password=x]\n");
    let shown = site.run(&["config", "show", "server", "--config", "s.yaml", "--advertise", "h:1"]).ends(0);
    shapes::Shapes::read().check("config show", &shown.data());
    let by = |name: &str| shown.list().into_iter().find(|setting| setting["setting"] == name).unwrap();
    assert_eq!(
        (&by("kafka")["source"], &by("kafka")["place"]),
        (&"variable".into(), &"SAGAMORE_KAFKA".into())
    );
    assert_eq!((&by("lanes")["source"], &by("lanes")["place"]), (&"file".into(), &"s.yaml, line 2".into()));
    assert_eq!(by("advertise")["source"], "flag");
    assert_eq!(by("kafka-config")["values"][0], "sasl.password=(hidden)");
    site.write("secret", "short\n");
    let short = site.run(&["server", "--reply-token-secret-file", "secret"]).ends(2);
    assert!(short.stderr.contains("16 bytes"), "{}", short.stderr);
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
