//! Shows what effects have come to: a process of its own, as the kit wants it.

use tokio_postgres::NoTls;

use crate::run::myself;

const URL: &str = "KIT_URL";
const SQLITE: &str = "KIT_SQLITE";
const QUERY: &str = "KIT_QUERY";
const SEEN: &str = "seen=";

/// The number that this query finds in PostgreSQL.
pub fn of_postgres(url: &str, query: &str) -> String {
    shown(&[(URL, url), (QUERY, query)])
}

/// The number that this query finds in a file of SQLite.
pub fn of_sqlite(file: &str, query: &str) -> String {
    shown(&[(SQLITE, file), (QUERY, query)])
}

/// How many lines of a file have the one text, less those that have the other.
pub fn of_lines(file: &str, more: &str, less: &str) -> String {
    let count = |text: &str| format!("$(grep -c '{text}' '{file}')");
    format!("echo $(( {} - {} ))", count(more), count(less))
}

fn shown(variables: &[(&str, &str)]) -> String {
    format!("( {} ) | sed -n 's/.*{SEEN}//p'", myself(variables, "observer::shows_what_it_is_told_to"))
}

#[test]
#[ignore = "a process that the kit starts"]
fn shows_what_it_is_told_to() {
    let Ok(query) = std::env::var(QUERY) else { return };
    let number: i64 = match std::env::var(SQLITE) {
        Ok(file) => {
            let connection = rusqlite::Connection::open(file).unwrap();
            connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
            connection.query_row(&query, [], |row| row.get(0)).unwrap()
        }
        Err(_) => of_database(&std::env::var(URL).unwrap(), &query),
    };
    println!("{SEEN}{number}");
}

fn of_database(url: &str, query: &str) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.query_one(query, &[]).await.unwrap().get(0)
    })
}
