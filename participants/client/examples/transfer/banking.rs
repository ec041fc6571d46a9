//! Money between two banks, in the two ways there are: nobody sees it before both have agreed, or what was done is undone.

use std::time::Duration;

use sagamore_client::{Client, Error, Outcome};
use serde_json::json;

/// Both banks prepare, then both commit; or neither.
pub async fn transfer(client: &Client, id: &str, cents: u64) -> Result<Outcome, Error> {
    let transfer = client
        .transaction(id)
        .two_phase()
        .participant("bank-a", &json!({"account": "alice", "debit_cents": cents}))?
        .participant("bank-b", &json!({"account": "bob", "credit_cents": cents}))?
        .deadline("60s")
        .start()
        .await?;
    transfer.wait(Duration::from_secs(90)).await
}

/// Two debits, one after the other: when the second is refused, the first is given back.
pub async fn collect(client: &Client, id: &str, first: u64, second: u64) -> Result<Outcome, Error> {
    let collection = client
        .transaction(id)
        .saga()
        .participant("bank-a", &json!({"account": "alice", "debit_cents": first}))?
        .participant("bank-b", &json!({"account": "bob", "debit_cents": second}))?
        .start()
        .await?;
    collection.wait(Duration::from_secs(90)).await
}
