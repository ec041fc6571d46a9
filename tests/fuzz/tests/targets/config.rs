//! The file of `sagamore server --config`.

use sagamore::cli::{command, config_file};
use sagamore_fuzz::Target;

#[test]
fn a_file_is_taken_or_told_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    Target { name: "config", cases: 800 }.run(|bytes| {
        for name in ["server.toml", "server.yaml"] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let read = config_file::read(&path);
            match read.and_then(|entries| config_file::apply(command(), &path, &entries)) {
                Ok(command) => {
                    let read = command.try_get_matches_from(["sagamore", "server", "--kafka", "h:9092"]);
                    let error = read.err().map(|error| error.to_string());
                    assert!(error.is_none_or(|told| told.starts_with("error: ")), "clap says what is wrong");
                }
                Err(failure) => {
                    let told = failure.to_string();
                    assert!(told.contains(name) && told.len() > name.len() + 8, "{told}");
                }
            }
        }
    });
}
