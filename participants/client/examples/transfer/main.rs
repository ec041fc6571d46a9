//! A transfer and a collection, and what came of them. With a server at the usual address and two banks
//! (`sagamore participant bank --name bank-a`, and `bank-b`): `cargo run --release -p sagamore-client --example transfer`

mod banking;

use sagamore_client::{Client, Error, Outcome};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let address = std::env::var("SAGAMORE_SERVER").unwrap_or_else(|_| "http://127.0.0.1:8088".to_owned());
    let client = Client::connect(&address)?;
    let outcome = banking::transfer(&client, "transfer-77", 100).await?;
    println!("transfer-77 {outcome}");
    if let Outcome::Committed(results) = &outcome {
        for bank in ["bank-a", "bank-b"] {
            match results.of::<Value>(bank) {
                Ok(result) => println!("  {bank}: {result}"),
                Err(error) => println!("  {bank}: {error}"),
            }
        }
    }
    println!("collection-78 {}", banking::collect(&client, "collection-78", 100, 200).await?);
    Ok(())
}
