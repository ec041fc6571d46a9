//! Payment: charges customers up to their credit limit, in cents.

use sagamore_participant::memory::{MemoryStore, State, Table, Undo};
use sagamore_participant::{Command, Effect, Fault, Participant, Payload, read_data};
use serde::{Deserialize, Serialize};

use crate::books::{Books, Ledger, Stock};
use crate::injection::Injection;

pub(crate) const NAME: &str = "payment";
/// Every customer's credit unless told otherwise: with the 830 orders of the sample the three best customers meet it.
pub const CREDIT_LIMIT_CENTS_DEFAULT: u64 = 5_000_000;

/// `data` of `execute`.
#[derive(Deserialize)]
pub(crate) struct Charge {
    pub(crate) customer: String,
    pub(crate) amount_cents: u64,
}

/// `data` of `compensate`.
#[derive(Deserialize)]
pub(crate) struct Undoing {
    pub(crate) input: Charge,
}

/// The result of `execute`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) receipt: String,
    pub(crate) amount_cents: u64,
}

/// What is to be charged, or why it is not.
pub(crate) fn read_charge(injection: &Injection, command: &Command<'_>) -> Result<Charge, Effect> {
    if let Some(refusal) = injection.refusal(NAME, command) {
        return Err(refusal);
    }
    let charge: Charge = read_data(command)?;
    if charge.customer.is_empty() || charge.amount_cents == 0 {
        return Err(Effect::refused("bad-input: a charge has a customer and more than 0 cents"));
    }
    Ok(charge)
}

#[derive(Clone, Copy)]
struct Account {
    limit_cents: u64,
    charged_cents: u64,
}

/// The business state.
pub struct Accounts {
    by_customer: Table<String, Account>,
    ledger: Ledger,
    credit_limit_cents: u64,
}

impl Accounts {
    /// No customers yet: each gets this limit with the first charge.
    pub fn new(credit_limit_cents: u64, ledger: Ledger) -> Self {
        Self { by_customer: Table::default(), ledger, credit_limit_cents }
    }

    /// Cents. What is there at the beginning is the credit of every customer seen.
    pub fn books(&self) -> Books {
        let sum = |part: fn(&Account) -> u64| self.by_customer.iter().map(|(_, account)| part(account)).sum();
        let stock = Stock {
            opening: sum(|account| account.limit_cents),
            added: 0,
            standing: sum(|account| account.charged_cents),
            closing: sum(|account| account.limit_cents - account.charged_cents),
        };
        self.ledger.totals().with(NAME, "cents", stock)
    }
}

impl State for Accounts {
    fn parts(&mut self, visit: &mut dyn FnMut(&mut dyn Undo)) {
        visit(&mut self.by_customer);
        visit(&mut self.ledger);
    }
}

/// The participant.
pub struct Payment {
    /// Failures on demand.
    pub injection: Injection,
}

impl Participant for Payment {
    type Store = MemoryStore<Accounts>;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        self.injection.before(NAME, command)
    }

    fn execute(&self, bank: &mut Accounts, command: &Command<'_>) -> Result<Effect, Fault> {
        let Charge { customer, amount_cents } = match read_charge(&self.injection, command) {
            Ok(charge) => charge,
            Err(refusal) => return Ok(refusal),
        };
        let unknown = Account { limit_cents: bank.credit_limit_cents, charged_cents: 0 };
        let account = bank.by_customer.get(&customer).copied().unwrap_or(unknown);
        let charged_cents = account.charged_cents.saturating_add(amount_cents);
        if charged_cents > account.limit_cents {
            return Ok(Effect::refused(format_args!("credit-limit: customer {customer}")));
        }
        bank.by_customer.put(customer, Account { charged_cents, ..account });
        bank.ledger.applied(NAME, command, amount_cents);
        Effect::done(&Receipt { receipt: crate::token("rcp", command), amount_cents })
    }

    fn compensate(&self, bank: &mut Accounts, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
        let receipt: Receipt = crate::stored(done)?;
        let Undoing { input: Charge { customer, .. } } = crate::asked(command)?;
        let Some(account) = bank.by_customer.get(&customer).copied() else {
            return Err(Fault::new("a refund for a customer who was never charged"));
        };
        let Some(charged_cents) = account.charged_cents.checked_sub(receipt.amount_cents) else {
            return Err(Fault::new("a refund of more than was charged"));
        };
        bank.by_customer.put(customer, Account { charged_cents, ..account });
        bank.ledger.undone(NAME, command, receipt.amount_cents);
        Ok(())
    }
}
