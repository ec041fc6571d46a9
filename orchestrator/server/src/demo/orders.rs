//! Orders as they are read: what the demo needs of them, and their text as it is passed on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use sagamore_examples::inventory::{Product, read_products};
use sagamore_schemas::ids::TransactionId;
use sagamore_schemas::wire::Payload;
use serde::Deserialize;

use super::DemoError;
use super::generator::{Generated, ProductRecord};

/// An order.
#[derive(Debug, Clone)]
pub struct Order {
    /// The transaction it becomes.
    pub id: TransactionId,
    /// Units of all lines.
    pub units: u64,
    /// What the customer pays, in cents.
    pub total_cents: u64,
    /// The order itself, byte for byte.
    pub data: Payload,
}

/// What is ordered, and of what.
#[derive(Debug, Clone)]
pub struct Trade {
    /// The assortment.
    pub products: Vec<Product>,
    /// The orders, in the order of the file.
    pub orders: Vec<Order>,
}

/// The fields the definition maps, so that a file without them is refused before anything runs.
#[derive(Deserialize)]
#[expect(dead_code, reason = "customer and country only have to be there")]
struct Needed {
    order: u64,
    customer: String,
    ship_country: String,
    lines: Vec<NeededLine>,
    total_cents: u64,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "the product only has to be there")]
struct NeededLine {
    product: u32,
    quantity: u32,
}

impl Trade {
    /// From two files of JSON lines; an error names file and line.
    pub fn read(orders: &Path, products: &Path) -> Result<Self, DemoError> {
        let wrong = |path: &Path| {
            let path = path.to_owned();
            move |cause| DemoError::File { path, cause }
        };
        let open = |path: &Path| File::open(path).map(BufReader::new);
        let read = open(orders).and_then(read_orders).map_err(wrong(orders))?;
        let products = open(products).and_then(read_products).map_err(wrong(products))?;
        Ok(Self { products, orders: read })
    }

    /// Mean size of an order on the wire, in bytes, rounded up.
    pub fn order_bytes(&self) -> u64 {
        let bytes: usize = self.orders.iter().map(|order| order.data.size_bytes()).sum();
        bytes.div_ceil(self.orders.len().max(1)) as u64
    }
}

impl From<Generated> for Trade {
    fn from(Generated { products, orders }: Generated) -> Self {
        let product = |record: &ProductRecord| Product {
            product: record.product,
            units_in_stock: record.units_in_stock,
            reorder_level: record.reorder_level,
        };
        let order = |record| {
            let text = serde_json::to_string(record).and_then(Order::read);
            text.unwrap_or_else(|error| unreachable!("what is generated is an order: {error}"))
        };
        Self { products: products.iter().map(product).collect(), orders: orders.iter().map(order).collect() }
    }
}

impl Order {
    fn read(text: String) -> Result<Self, serde_json::Error> {
        let needed: Needed = serde_json::from_str(&text)?;
        let id = format!("order-{}", needed.order);
        Ok(Self {
            id: id.parse().unwrap_or_else(|error| unreachable!("a number makes an id: {error}")),
            units: needed.lines.iter().map(|line| u64::from(line.quantity)).sum(),
            total_cents: needed.total_cents,
            data: Payload::from_json(text)?,
        })
    }
}

fn read_orders(lines: impl BufRead) -> io::Result<Vec<Order>> {
    let mut ids = BTreeSet::new();
    let read = |(index, line): (usize, io::Result<String>)| {
        let wrong = |error: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {error}", index + 1))
        };
        let order = Order::read(line?).map_err(|error| wrong(error.to_string()))?;
        if !ids.insert(order.id.clone()) {
            return Err(wrong(format!("{} is there twice", order.id)));
        }
        Ok(order)
    };
    lines.lines().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#"{"order": 7, "customer": "A", "ship_country": "UK", "lines": [{"product": 1, "quantity": 2}, {"product": 3, "quantity": 4}], "total_cents": 50, "note": 1.10}"#;

    #[test]
    fn an_order_is_passed_on_as_it_stands() {
        let order = Order::read(ORDER.to_owned()).unwrap();
        assert_eq!((order.id.as_str(), order.units, order.total_cents), ("order-7", 6, 50));
        assert_eq!(order.data.as_ref().json(), Some(ORDER));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let check = |text: &str, expected: &str| {
            let error = read_orders(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&format!("{ORDER}\n{ORDER}"), "line 2: order-7 is there twice");
        check(&ORDER.replace("customer", "client"), "line 1: missing field `customer`");
        check(&ORDER.replace("4}", "-4}"), "line 1: invalid value: integer `-4`");
    }
}
