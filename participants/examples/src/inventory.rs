//! Inventory: reserves all lines of an order in one command, or none; orders deliveries when a shelf runs low. A
//! reserved step holds them (`prepare`) until the decision.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use sagamore_participant::memory::{MemoryStore, State, Table, Undo};
use sagamore_participant::{Command, Effect, Fault, Participant, Payload, read_data};
use serde::{Deserialize, Serialize};

use crate::books::{Books, Ledger, Stock};
use crate::injection::Injection;

pub(crate) const NAME: &str = "inventory";

/// A product, as a line of a products file says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Its number.
    pub product: u32,
    /// Units at the beginning.
    pub units_in_stock: u64,
    /// Below this many units a delivery comes, unless [`Restock::level_min`] is higher.
    #[serde(default)]
    pub reorder_level: u64,
}

/// When deliveries come, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restock {
    /// A shelf with fewer units than this, or than its own reorder level, receives deliveries.
    pub level_min: u64,
    /// Units of one delivery.
    pub units: u64,
    /// Deliveries of one product at most; after them it can be out of stock.
    pub deliveries_max: u32,
}

/// Chosen by the 830 orders of the sample, of which it leaves about one in thirty unserved.
impl Default for Restock {
    fn default() -> Self {
        Self { level_min: 80, units: 120, deliveries_max: 9 }
    }
}

/// 77 products in the shape of the sample: 20 to 115 units, reordered below 0 to 30.
pub fn sample_products() -> Vec<Product> {
    (1..=77_u32)
        .map(|product| Product {
            product,
            units_in_stock: 20 + u64::from(product * 37 % 20) * 5,
            reorder_level: u64::from(product % 7) * 5,
        })
        .collect()
}

/// Products from JSON lines; an error names the line.
pub fn read_products(lines: impl BufRead) -> io::Result<Vec<Product>> {
    let lines = lines.lines().enumerate();
    lines
        .map(|(number, line)| {
            serde_json::from_str(&line?).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {error}", number + 1))
            })
        })
        .collect()
}

/// `data` of `execute` and `prepare`.
#[derive(Deserialize)]
struct Order {
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    product: u32,
    quantity: u64,
}

/// `data` of `compensate` and `abort`.
#[derive(Deserialize)]
struct Undoing {
    input: Order,
}

/// The result of `execute`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Reservation {
    pub(crate) reservation: String,
    pub(crate) units: u64,
}

/// One product's shelf.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shelf {
    pub(crate) opening: u64,
    pub(crate) delivered: u64,
    pub(crate) on_hand: u64,
    pub(crate) reserved: u64,
    pub(crate) reorder_level: u64,
    pub(crate) deliveries: u32,
}

impl Shelf {
    /// As it is first seen, with the deliveries that come at once.
    pub(crate) fn opened(product: &Product, restock: Restock) -> Self {
        let units = product.units_in_stock;
        let reorder_level = product.reorder_level.max(restock.level_min);
        let shelf = Self { opening: units, on_hand: units, reorder_level, ..Self::default() };
        shelf.restocked(restock)
    }

    fn restocked(mut self, restock: Restock) -> Self {
        while self.on_hand < self.reorder_level && self.deliveries < restock.deliveries_max {
            self.deliveries += 1;
            self.delivered += restock.units;
            self.on_hand += restock.units;
        }
        self
    }
}

/// The business state.
pub struct Warehouse {
    shelves: Table<u32, Shelf>,
    ledger: Ledger,
    restock: Restock,
}

impl Warehouse {
    /// These products, and the deliveries that come at once for low shelves.
    pub fn new(products: &[Product], restock: Restock, ledger: Ledger) -> Self {
        let shelf = |product: &Product| (product.product, Shelf::opened(product, restock));
        let shelves = products.iter().map(shelf).collect();
        Self { shelves, ledger, restock }
    }

    /// Units.
    pub fn books(&self) -> Books {
        let sum = |part: fn(&Shelf) -> u64| self.shelves.iter().map(|(_, shelf)| part(shelf)).sum();
        let stock = Stock {
            opening: sum(|shelf| shelf.opening),
            added: sum(|shelf| shelf.delivered),
            standing: sum(|shelf| shelf.reserved),
            closing: sum(|shelf| shelf.on_hand),
        };
        self.ledger.totals().with(NAME, "units", stock)
    }

    fn reserve(&mut self, wanted: &BTreeMap<u32, u64>) -> Result<u64, String> {
        let mut total = 0;
        for (product, units) in wanted {
            let Some(before) = self.shelves.get(product).copied() else {
                return Err(format!("unknown-product: {product}"));
            };
            let Some(on_hand) = before.on_hand.checked_sub(*units) else {
                return Err(format!("out-of-stock: product {product}"));
            };
            let taken = Shelf { on_hand, reserved: before.reserved + units, ..before };
            self.shelves.put(*product, taken.restocked(self.restock));
            total += units;
        }
        Ok(total)
    }

    fn release(&mut self, reserved: &BTreeMap<u32, u64>) -> Result<u64, Fault> {
        let mut total = 0;
        for (product, units) in reserved {
            let before = self.shelves.get(product).copied().unwrap_or_default();
            let Some(still_reserved) = before.reserved.checked_sub(*units) else {
                return Err(Fault::new(format!("product {product}: {units} units were never reserved")));
            };
            let on_hand = before.on_hand + units;
            self.shelves.put(*product, Shelf { on_hand, reserved: still_reserved, ..before });
            total += units;
        }
        Ok(total)
    }
}

impl State for Warehouse {
    fn parts(&mut self, visit: &mut dyn FnMut(&mut dyn Undo)) {
        visit(&mut self.shelves);
        visit(&mut self.ledger);
    }
}

/// The participant.
pub struct Inventory {
    /// Failures on demand.
    pub injection: Injection,
}

impl Participant for Inventory {
    type Store = MemoryStore<Warehouse>;

    fn before(&self, command: &Command<'_>) -> Result<(), Fault> {
        self.injection.before(NAME, command)
    }

    fn execute(&self, warehouse: &mut Warehouse, command: &Command<'_>) -> Result<Effect, Fault> {
        self.reserve(warehouse, command, Ledger::applied)
    }

    fn compensate(
        &self,
        warehouse: &mut Warehouse,
        command: &Command<'_>,
        done: &Payload,
    ) -> Result<(), Fault> {
        let units = release(warehouse, command, done)?;
        warehouse.ledger.undone(NAME, command, units);
        Ok(())
    }

    fn prepare(&self, warehouse: &mut Warehouse, command: &Command<'_>) -> Result<Effect, Fault> {
        self.reserve(warehouse, command, Ledger::held)
    }

    fn commit(&self, warehouse: &mut Warehouse, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
        let reservation: Reservation = crate::stored(done)?;
        warehouse.ledger.confirmed(NAME, command, reservation.units);
        Ok(())
    }

    fn abort(&self, warehouse: &mut Warehouse, command: &Command<'_>, done: &Payload) -> Result<(), Fault> {
        let units = release(warehouse, command, done)?;
        warehouse.ledger.released(NAME, command, units);
        Ok(())
    }
}

impl Inventory {
    fn reserve(
        &self,
        warehouse: &mut Warehouse,
        command: &Command<'_>,
        book: fn(&mut Ledger, &'static str, &Command<'_>, u64),
    ) -> Result<Effect, Fault> {
        let wanted = match read_wanted(&self.injection, command) {
            Ok(wanted) => wanted,
            Err(refusal) => return Ok(refusal),
        };
        let units = match warehouse.reserve(&wanted) {
            Ok(units) => units,
            Err(reason) => return Ok(Effect::refused(reason)),
        };
        book(&mut warehouse.ledger, NAME, command, units);
        Effect::done(&Reservation { reservation: crate::token("res", command), units })
    }
}

/// Puts back what this branch has reserved or holds.
fn release(warehouse: &mut Warehouse, command: &Command<'_>, done: &Payload) -> Result<u64, Fault> {
    let (reserved, _) = to_release(command, done)?;
    warehouse.release(&reserved)
}

/// Units by product that this branch has reserved, and how many in all.
pub(crate) fn to_release(command: &Command<'_>, done: &Payload) -> Result<(BTreeMap<u32, u64>, u64), Fault> {
    let reservation: Reservation = crate::stored(done)?;
    let undoing: Undoing = crate::asked(command)?;
    let reserved = wanted(&undoing.input).map_err(|_| Fault::new("the order has changed"))?;
    let units = reserved.values().sum();
    if units != reservation.units {
        return Err(Fault::new(format!("{} units were reserved, not {units}", reservation.units)));
    }
    Ok((reserved, units))
}

/// Units by product, or why they are not reserved.
pub(crate) fn read_wanted(
    injection: &Injection,
    command: &Command<'_>,
) -> Result<BTreeMap<u32, u64>, Effect> {
    if let Some(refusal) = injection.refusal(NAME, command) {
        return Err(refusal);
    }
    wanted(&read_data(command)?)
}

/// Units by product: an order may name a product twice.
fn wanted(order: &Order) -> Result<BTreeMap<u32, u64>, Effect> {
    let mut wanted = BTreeMap::new();
    for Line { product, quantity } in &order.lines {
        let units: &mut u64 = wanted.entry(*product).or_default();
        *units = match units.checked_add(*quantity) {
            Some(sum) if *quantity > 0 && u32::try_from(sum).is_ok() => sum,
            Some(_) | None => {
                return Err(Effect::refused(format_args!(
                    "bad-input: {quantity} units of product {product}"
                )));
            }
        };
    }
    if wanted.is_empty() {
        return Err(Effect::refused("bad-input: an order has at least one line"));
    }
    Ok(wanted)
}
