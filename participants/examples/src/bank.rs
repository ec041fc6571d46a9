//! A bank: accounts in cents, moved by sagas (`execute`, `compensate`) and by atomic commitment (`prepare` holds what is
//! debited and announces what is credited; `commit` moves it; `abort` lets it go).

use sagamore_participant::memory::{MemoryStore, State, Table, Undo};
use sagamore_participant::{Command, Effect, Fault, Participant, Payload, read_data};
use serde::{Deserialize, Serialize};

use crate::books::{Books, Ledger, Stock};
use crate::injection::Injection;

pub(crate) const NAME: &str = "bank";
/// What every account has when it is first seen, unless told otherwise.
pub const OPENING_CENTS_DEFAULT: u64 = 1_000_000;

/// `data` of `execute` and `prepare`: one of the two amounts.
#[derive(Clone, Deserialize)]
pub(crate) struct Posting {
    pub(crate) account: String,
    #[serde(default)]
    pub(crate) debit_cents: u64,
    #[serde(default)]
    pub(crate) credit_cents: u64,
}

impl Posting {
    /// What is to be posted, or why it is not.
    pub(crate) fn read(injection: &Injection, command: &Command<'_>) -> Result<Self, Effect> {
        if let Some(refusal) = injection.refusal(NAME, command) {
            return Err(refusal);
        }
        let posting: Self = read_data(command)?;
        let one_amount = (posting.debit_cents == 0) != (posting.credit_cents == 0);
        let is_amount = i64::try_from(posting.debit_cents.max(posting.credit_cents)).is_ok();
        if posting.account.is_empty() || !one_amount || !is_amount {
            return Err(Effect::refused("bad-input: an account, and debit_cents or credit_cents above 0"));
        }
        Ok(posting)
    }
}

/// `data` of what follows.
#[derive(Deserialize)]
pub(crate) struct Following {
    pub(crate) input: Posting,
}

/// The result of `execute` and `prepare`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Posted {
    pub(crate) posting: String,
}

/// Cents.
#[derive(Clone, Copy, Default)]
struct Account {
    opening: u64,
    /// What can be spent: debits are taken when they are held, credits are there when they are committed.
    available: u64,
    debited: u64,
    credited: u64,
}

/// The business state.
pub struct Accounts {
    by_name: Table<String, Account>,
    ledger: Ledger,
    opening_cents: u64,
}

impl Accounts {
    /// No accounts yet: each begins with this amount when it is first seen.
    pub fn new(opening_cents: u64, ledger: Ledger) -> Self {
        Self { by_name: Table::default(), ledger, opening_cents }
    }

    /// Cents. Credits are what came in, debits what was taken.
    pub fn books(&self) -> Books {
        let sum = |part: fn(&Account) -> u64| self.by_name.iter().map(|(_, account)| part(account)).sum();
        let stock = Stock {
            opening: sum(|account| account.opening),
            added: sum(|account| account.credited),
            standing: sum(|account| account.debited),
            closing: sum(|account| account.available),
        };
        self.ledger.totals().with(NAME, "cents", stock)
    }

    fn account(&self, name: &String) -> Account {
        let unseen =
            Account { opening: self.opening_cents, available: self.opening_cents, ..Account::default() };
        self.by_name.get(name).copied().unwrap_or(unseen)
    }

    /// Takes what is debited, if it is there.
    fn take(&mut self, posting: &Posting) -> Result<(), Effect> {
        let mut account = self.account(&posting.account);
        let Some(available) = account.available.checked_sub(posting.debit_cents) else {
            return Err(Effect::refused(format_args!("insufficient-funds: account {}", posting.account)));
        };
        account.available = available;
        account.debited += posting.debit_cents;
        self.by_name.put(posting.account.clone(), account);
        Ok(())
    }

    /// Gives back what was debited.
    fn give_back(&mut self, posting: &Posting) -> Result<(), Fault> {
        let mut account = self.account(&posting.account);
        let Some(debited) = account.debited.checked_sub(posting.debit_cents) else {
            return Err(Fault::new("more is given back than was taken"));
        };
        account.debited = debited;
        account.available += posting.debit_cents;
        self.by_name.put(posting.account.clone(), account);
        Ok(())
    }

    fn credit(&mut self, posting: &Posting) {
        let mut account = self.account(&posting.account);
        account.available += posting.credit_cents;
        account.credited += posting.credit_cents;
        self.by_name.put(posting.account.clone(), account);
    }

    /// Takes a credit back: not while it has been spent.
    fn uncredit(&mut self, posting: &Posting) -> Result<(), Fault> {
        let mut account = self.account(&posting.account);
        let (Some(available), Some(credited)) = (
            account.available.checked_sub(posting.credit_cents),
            account.credited.checked_sub(posting.credit_cents),
        ) else {
            return Err(Fault::new("the credit has been spent, and cannot be taken back yet"));
        };
        account.available = available;
        account.credited = credited;
        self.by_name.put(posting.account.clone(), account);
        Ok(())
    }
}

impl State for Accounts {
    fn parts(&mut self, visit: &mut dyn FnMut(&mut dyn Undo)) {
        visit(&mut self.by_name);
        visit(&mut self.ledger);
    }
}

/// The participant.
pub struct Bank {
    /// Failures on demand.
    pub injection: Injection,
}

impl Participant for Bank {
    type Store = MemoryStore<Accounts>;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        self.injection.before(NAME, command)
    }

    fn execute(&self, bank: &mut Accounts, command: &Command<'_>) -> Result<Effect, Fault> {
        let posting = match Posting::read(&self.injection, command) {
            Ok(posting) => posting,
            Err(refusal) => return Ok(refusal),
        };
        if let Err(refusal) = bank.take(&posting) {
            return Ok(refusal);
        }
        if posting.credit_cents > 0 {
            bank.credit(&posting);
            bank.ledger.brought(NAME, command, posting.credit_cents);
        } else {
            bank.ledger.applied(NAME, command, posting.debit_cents);
        }
        Effect::done(&Posted { posting: crate::token("pst", command) })
    }

    fn compensate(&self, bank: &mut Accounts, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        let Following { input: posting } = crate::asked(command)?;
        if posting.credit_cents > 0 {
            bank.uncredit(&posting)?;
            bank.ledger.taken_back(NAME, command, posting.credit_cents);
        } else {
            bank.give_back(&posting)?;
            bank.ledger.undone(NAME, command, posting.debit_cents);
        }
        Ok(())
    }

    fn prepare(&self, bank: &mut Accounts, command: &Command<'_>) -> Result<Effect, Fault> {
        let posting = match Posting::read(&self.injection, command) {
            Ok(posting) => posting,
            Err(refusal) => return Ok(refusal),
        };
        if let Err(refusal) = bank.take(&posting) {
            return Ok(refusal);
        }
        bank.ledger.held(NAME, command, posting.debit_cents);
        Effect::done(&Posted { posting: crate::token("pst", command) })
    }

    fn commit(&self, bank: &mut Accounts, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        let Following { input: posting } = crate::asked(command)?;
        if posting.credit_cents > 0 {
            bank.credit(&posting);
        }
        bank.ledger.confirmed(NAME, command, posting.debit_cents + posting.credit_cents);
        Ok(())
    }

    fn abort(&self, bank: &mut Accounts, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        let Following { input: posting } = crate::asked(command)?;
        if posting.debit_cents > 0 {
            bank.give_back(&posting)?;
        }
        bank.ledger.released(NAME, command, posting.debit_cents);
        Ok(())
    }
}
