//! A server answers, keeps what it has committed through `kill -9`, and leaves nothing behind: neither when it is dropped
//! nor when the process that started it is killed.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sagamore_local_postgres::LocalPostgres;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_server_is_killed_and_restarted_and_gone_when_dropped() {
    let began = Instant::now();
    let mut postgres = LocalPostgres::start(&[("max_prepared_transactions", "7")]).expect("starts");
    println!("started after {:?}", began.elapsed());
    let address = ("127.0.0.1", postgres.port());
    TcpStream::connect(address).expect("it listens");
    let first = postgres.pid().expect("it runs");

    postgres.kill();
    assert_eq!(postgres.pid(), None);
    assert!(!runs(first));
    TcpStream::connect(address).expect_err("nobody listens");

    let began = Instant::now();
    postgres.restart().expect("restarts");
    println!("restarted after {:?}", began.elapsed());
    TcpStream::connect(address).expect("same port");
    assert!(postgres.log_tail().contains("not properly shut down"), "{}", postgres.log_tail());
    postgres.restart_with("max_prepared_transactions", "9").expect("restarts");
    assert!(postgres.restart_with("max_prepared_transactions", "-3").is_err());
    postgres.restart_with("max_prepared_transactions", "9").expect("restarts");

    let (second, data) = (postgres.pid().expect("it runs"), postgres.data_dir());
    assert!(data.exists());
    drop(postgres);
    assert!(!runs(second));
    assert!(!data.exists());
}

/// Not a test of its own: the process that the next test kills.
#[test]
#[ignore = "started by nothing_is_left_of_a_killed_process"]
fn victim() {
    let postgres = LocalPostgres::start(&[]).expect("starts");
    println!("victim {} {}", postgres.pid().expect("it runs"), postgres.data_dir().display());
    thread::sleep(Duration::from_mins(10));
}

#[test]
fn nothing_is_left_of_a_killed_process() {
    let mut victim = Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "victim", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let (server, data) = read_line_of_victim(victim.stdout.take().expect("piped"));
    assert!(runs(server) && data.exists());
    victim.kill().expect("kill -9");
    victim.wait().expect("gone");
    wait_until("the server is gone", || !runs(server));
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
