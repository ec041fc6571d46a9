//! A cluster answers, survives the `kill -9` of its broker, and leaves nothing behind: neither when it is dropped nor
//! when the process that started it is killed.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sagamore_local_kafka::{ClusterSize, LocalKafka};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn one_broker_is_killed_and_restarted_and_gone_when_dropped() {
    let mut kafka = LocalKafka::start(ClusterSize::One).expect("starts");
    let bootstrap = kafka.bootstrap().to_owned();
    TcpStream::connect(&bootstrap).expect("it listens");
    let first = kafka.broker_pid(0).expect("it runs");

    kafka.kill_broker(0);
    assert_eq!(kafka.broker_pid(0), None);
    assert!(!runs(first));
    TcpStream::connect(&bootstrap).expect_err("nobody listens");

    let began = Instant::now();
    kafka.restart_broker(0).expect("restarts");
    println!("restarted after {:?}", began.elapsed());
    TcpStream::connect(&bootstrap).expect("same port");
    assert!(kafka.log_tail(0).contains("INFO"), "the log goes to a file");

    let (second, data) = (kafka.broker_pid(0).expect("it runs"), kafka.data_dir());
    drop(kafka);
    assert!(!runs(second));
    assert!(!data.exists());
}

#[test]
fn three_brokers_go_on_when_one_is_killed() {
    let mut kafka = LocalKafka::start(ClusterSize::Three).expect("starts");
    assert_eq!((kafka.broker_count(), kafka.bootstrap().split(',').count()), (3, 3));
    kafka.kill_broker(1);
    let others: Vec<_> =
        kafka.bootstrap().split(',').map(|address| TcpStream::connect(address).is_ok()).collect();
    assert_eq!(others, [true, false, true]);
    kafka.restart_broker(1).expect("restarts");
}

/// Not a test of its own: the process that the next test kills.
#[test]
#[ignore = "started by nothing_is_left_of_a_killed_process"]
fn victim() {
    let kafka = LocalKafka::start(ClusterSize::One).expect("starts");
    println!("victim {} {}", kafka.broker_pid(0).expect("it runs"), kafka.data_dir().display());
    thread::sleep(Duration::from_mins(10));
}

#[test]
fn nothing_is_left_of_a_killed_process() {
    let mut victim = Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "victim", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let (broker, data) = read_line_of_victim(victim.stdout.take().expect("piped"));
    assert!(runs(broker) && data.exists());
    victim.kill().expect("kill -9");
    victim.wait().expect("gone");
    wait_until("the broker is gone", || !runs(broker));
    wait_until("its data is gone", || !data.exists());
}

fn read_line_of_victim(stdout: impl std::io::Read) -> (u32, PathBuf) {
    use std::io::BufRead;
    for line in std::io::BufReader::new(stdout).lines() {
        let line = line.expect("text");
        // The test harness may have begun the line.
        if let Some((_, rest)) = line.split_once("victim ")
            && let Some((pid, data)) = rest.split_once(' ')
            && let Ok(pid) = pid.parse()
        {
            return (pid, PathBuf::from(data));
        }
    }
    panic!("the victim said nothing");
}

fn runs(pid: u32) -> bool {
    // A zombie has ended, and only waits to be asked.
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
