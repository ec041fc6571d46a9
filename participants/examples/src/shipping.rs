//! Shipping: books one parcel an order, and refuses countries to which no carrier goes.

use std::collections::BTreeSet;

use sagamore_participant::memory::{Cell, MemoryStore, State, Undo};
use sagamore_participant::{Command, Effect, Fault, Participant, Payload, read_data};
use serde::{Deserialize, Serialize};

use crate::books::{Books, Ledger, Stock};
use crate::injection::Injection;

pub(crate) const NAME: &str = "shipping";
/// Countries without a carrier unless told otherwise: about one order of the sample in twenty-five.
pub const REFUSED_COUNTRIES_DEFAULT: [&str; 3] = ["Ireland", "Norway", "Poland"];
/// Parcels the carriers take, so that the books have an end: more than any demo sends.
pub const CAPACITY_PARCELS: u64 = 1_000_000_000;

/// `data` of `execute`.
#[derive(Deserialize)]
struct Shipment {
    country: String,
}

/// The result of `execute`.
#[derive(Serialize)]
pub(crate) struct Booking {
    pub(crate) tracking: String,
}

/// Where it is to go, or why it does not.
pub(crate) fn read_country(injection: &Injection, command: &Command<'_>) -> Result<String, Effect> {
    if let Some(refusal) = injection.refusal(NAME, command) {
        return Err(refusal);
    }
    let Shipment { country } = read_data(command)?;
    if country.is_empty() {
        return Err(Effect::refused("bad-input: a shipment has a country"));
    }
    Ok(country)
}

/// The business state.
pub struct Dispatch {
    booked: Cell<u64>,
    ledger: Ledger,
    refused_countries: BTreeSet<String>,
}

impl Dispatch {
    /// Nothing booked, and no carrier to these countries.
    pub fn new(refused_countries: impl IntoIterator<Item = String>, ledger: Ledger) -> Self {
        Self { booked: Cell::default(), ledger, refused_countries: refused_countries.into_iter().collect() }
    }

    /// Parcels. What is there at the beginning is the room for them.
    pub fn books(&self) -> Books {
        let stock = Stock {
            opening: CAPACITY_PARCELS,
            added: 0,
            standing: *self.booked.get(),
            closing: CAPACITY_PARCELS - *self.booked.get(),
        };
        self.ledger.totals().with(NAME, "parcels", stock)
    }
}

impl State for Dispatch {
    fn parts(&mut self, visit: &mut dyn FnMut(&mut dyn Undo)) {
        visit(&mut self.booked);
        visit(&mut self.ledger);
    }
}

/// The participant.
pub struct Shipping {
    /// Failures on demand.
    pub injection: Injection,
}

impl Participant for Shipping {
    type Store = MemoryStore<Dispatch>;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        self.injection.before(NAME, command)
    }

    fn execute(&self, dispatch: &mut Dispatch, command: &Command<'_>) -> Result<Effect, Fault> {
        let country = match read_country(&self.injection, command) {
            Ok(country) => country,
            Err(refusal) => return Ok(refusal),
        };
        if dispatch.refused_countries.contains(&country) {
            return Ok(Effect::refused(format_args!("no-carrier: {country}")));
        }
        if *dispatch.booked.get() >= CAPACITY_PARCELS {
            return Ok(Effect::refused("no-capacity"));
        }
        *dispatch.booked.change() += 1;
        dispatch.ledger.applied(NAME, command, 1);
        Effect::done(&Booking { tracking: crate::token("trk", command) })
    }

    fn compensate(&self, dispatch: &mut Dispatch, command: &Command<'_>, _: &Payload) -> Result<(), Fault> {
        let Some(booked) = dispatch.booked.get().checked_sub(1) else {
            return Err(Fault::new("a cancellation of a parcel that was never booked"));
        };
        *dispatch.booked.change() = booked;
        dispatch.ledger.undone(NAME, command, 1);
        Ok(())
    }
}
