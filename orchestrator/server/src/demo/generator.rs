//! Orders and products in the shape of a wholesaler's, the same for the same seed.
//!
//! Chosen by the statistics of a well-known sample (830 orders in two years): 77 products, 89 customers in 21 countries,
//! 1 to 6 lines an order, quantities around 20 with a tail to 130, totals around 950.00 with a long tail, three customers
//! who buy far more than the rest. Integers only, so that every machine generates the same.
//!
//! Deliberately absent: floating point, a clock, a random source other than the seed.

use std::collections::BTreeSet;

use sagamore_schemas::ids::Time;
use serde::Serialize;

/// Products in the assortment.
pub const PRODUCTS: u32 = 77;
/// Customers.
pub const CUSTOMERS: usize = 89;

const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// The day before the first order: 2024-01-01.
const FIRST_DAY_MS: i64 = 1_704_067_200_000;
/// Days over which the orders spread.
const DAYS: u64 = 670;
/// Days until an order is required.
const REQUIRED_AFTER_DAYS: u64 = 28;

/// Country, orders from it in 830, customers in it. The first customer of the [`LARGE`] ones buys more.
const COUNTRIES: [(&str, u64, usize); 21] = [
    ("Germany", 122, 11),
    ("USA", 122, 13),
    ("Brazil", 83, 9),
    ("France", 77, 10),
    ("UK", 56, 7),
    ("Venezuela", 46, 4),
    ("Austria", 40, 2),
    ("Sweden", 37, 2),
    ("Canada", 30, 3),
    ("Mexico", 28, 5),
    ("Italy", 28, 3),
    ("Spain", 23, 4),
    ("Finland", 22, 2),
    ("Belgium", 19, 2),
    ("Ireland", 19, 1),
    ("Switzerland", 18, 2),
    ("Denmark", 18, 2),
    ("Argentina", 16, 3),
    ("Portugal", 13, 2),
    ("Poland", 7, 1),
    ("Norway", 6, 1),
];
const LARGE: [&str; 3] = ["Germany", "USA", "Austria"];

const PRICES_CENTS: Quantiles = Quantiles(&[
    (0, 250),
    (100, 700),
    (250, 1_000),
    (500, 1_500),
    (750, 2_500),
    (900, 4_000),
    (970, 7_500),
    (1_000, 22_000),
]);
const QUANTITIES: Quantiles =
    Quantiles(&[(0, 1), (100, 5), (250, 10), (500, 20), (750, 30), (900, 50), (980, 75), (1_000, 130)]);
const STOCKS: Quantiles = Quantiles(&[(0, 0), (250, 15), (500, 26), (750, 61), (1_000, 125)]);
/// How often a product is ordered, against the others.
const POPULARITIES: Quantiles = Quantiles(&[(0, 8), (100, 12), (500, 28), (900, 42), (1_000, 48)]);
const FREIGHTS_CENTS: Quantiles =
    Quantiles(&[(0, 2), (250, 1_340), (500, 4_140), (750, 9_140), (900, 17_000), (1_000, 60_000)]);
/// Lines of an order from 1 on, in 829.
const LINES: [u64; 6] = [137, 283, 248, 125, 33, 3];
/// Percent, and how often.
const DISCOUNTS: [(u64, u64); 6] = [(0, 61), (5, 9), (10, 8), (15, 7), (20, 8), (25, 7)];

/// A product, as a line of a products file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProductRecord {
    /// Its number, from 1.
    pub product: u32,
    /// What it is called.
    pub name: String,
    /// Its price, in cents.
    pub unit_price_cents: u64,
    /// Units at the beginning.
    pub units_in_stock: u64,
    /// Units under way; nobody heeds them.
    pub units_on_order: u64,
    /// Below this many units a delivery comes.
    pub reorder_level: u64,
    /// Whether it is sold no longer; nobody heeds it.
    pub discontinued: bool,
}

/// An order, as a line of an orders file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderRecord {
    /// Its number, from 1.
    pub order: u64,
    /// Who orders.
    pub customer: String,
    /// The day of the order.
    pub ordered_on: String,
    /// The day by which it is wanted.
    pub required_on: String,
    /// Which carrier, 1 to 3; nobody heeds it.
    pub ship_via: u64,
    /// Where it goes.
    pub ship_country: &'static str,
    /// What the carrier gets, in cents; not in the total.
    pub freight_cents: u64,
    /// What is ordered.
    pub lines: Vec<LineRecord>,
    /// Sum of the lines, each rounded half up.
    pub total_cents: u64,
}

/// A line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineRecord {
    /// Number of the product.
    pub product: u32,
    /// Units.
    pub quantity: u64,
    /// Price of one, in cents.
    pub unit_price_cents: u64,
    /// Discount, in per cent.
    pub discount_percent: u64,
}

/// What a seed generates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The assortment.
    pub products: Vec<ProductRecord>,
    /// The orders, in their order in time.
    pub orders: Vec<OrderRecord>,
}

/// Products, and `count` orders of them.
pub fn generate(seed: u64, count: u64) -> Generated {
    let mut random = Random(seed);
    let products = products(&mut random);
    let popularities = POPULARITIES.spread(&mut random);
    let customers = customers(&mut random);
    let weights: Vec<u64> = customers.iter().map(|customer| customer.weight).collect();
    let orders = (1..=count)
        .map(|number| {
            let customer = &customers[random.weighted(&weights)];
            let lines = lines(&mut random, customer, &products, &popularities);
            let day = number * DAYS / count.max(1);
            OrderRecord {
                order: number,
                customer: customer.code.clone(),
                ordered_on: date(day),
                required_on: date(day + REQUIRED_AFTER_DAYS),
                ship_via: 1 + random.below(3),
                ship_country: customer.country,
                freight_cents: FREIGHTS_CENTS.draw(&mut random),
                total_cents: lines.iter().map(LineRecord::cents).sum(),
                lines,
            }
        })
        .collect();
    Generated { products, orders }
}

impl LineRecord {
    fn cents(&self) -> u64 {
        (self.unit_price_cents * self.quantity * (100 - self.discount_percent) + 50) / 100
    }
}

struct Customer {
    code: String,
    country: &'static str,
    weight: u64,
    is_large: bool,
}

fn products(random: &mut Random) -> Vec<ProductRecord> {
    let prices = PRICES_CENTS.spread(random);
    let stocks = STOCKS.spread(random);
    let record = |((product, unit_price_cents), units_in_stock)| ProductRecord {
        product,
        name: format!("Product {product}"),
        unit_price_cents,
        units_in_stock,
        units_on_order: 0,
        reorder_level: random.below(7) * 5,
        discontinued: false,
    };
    (1..=PRODUCTS).zip(prices).zip(stocks).map(record).collect()
}

/// In each country the first customer buys most often, the others less and less.
fn customers(random: &mut Random) -> Vec<Customer> {
    let mut codes = BTreeSet::new();
    let mut customers = Vec::with_capacity(CUSTOMERS);
    for (country, orders, count) in COUNTRIES {
        let share = |rank: usize| 1_000_000 / (rank as u64 + 2);
        let shares: u64 = (0..count).map(share).sum();
        for rank in 0..count {
            let code = loop {
                let code = random.code();
                if codes.insert(code.clone()) {
                    break code;
                }
            };
            let weight = orders * 1_000_000 * share(rank) / shares;
            let is_large = rank == 0 && LARGE.contains(&country);
            customers.push(Customer { code, country, weight, is_large });
        }
    }
    customers
}

/// Different products in each line. Who buys large takes the largest of three draws.
fn lines(
    random: &mut Random,
    customer: &Customer,
    products: &[ProductRecord],
    popularities: &[u64],
) -> Vec<LineRecord> {
    let amount = |random: &mut Random, draw: fn(&mut Random) -> u64| {
        let draws = if customer.is_large { 3 } else { 1 };
        (0..draws).map(|_| draw(random)).max().unwrap_or(0)
    };
    let count = amount(random, |random| random.weighted(&LINES) as u64) + 1;
    let mut lines: Vec<LineRecord> = Vec::new();
    while (lines.len() as u64) < count {
        let ProductRecord { product, unit_price_cents, .. } = products[random.weighted(popularities)];
        if lines.iter().any(|line| line.product == product) {
            continue;
        }
        let quantity = amount(random, |random| QUANTITIES.draw(random));
        let (discount_percent, _) = DISCOUNTS[random.weighted(&DISCOUNTS.map(|(_, weight)| weight))];
        lines.push(LineRecord { product, quantity, unit_price_cents, discount_percent });
    }
    lines
}

fn date(day: u64) -> String {
    let ms = FIRST_DAY_MS + i64::try_from(day).unwrap_or_default() * DAY_MS;
    Time::from_epoch_ms(ms).to_string().chars().take("2024-01-01".len()).collect()
}

/// An inverse distribution function: per mille and value, straight lines between.
struct Quantiles(&'static [(u64, u64)]);

impl Quantiles {
    fn at(&self, parts_per_million: u64) -> u64 {
        let above =
            self.0.iter().position(|(mille, _)| mille * 1_000 >= parts_per_million).unwrap_or(0).max(1);
        let ((mille, value), (next_mille, next_value)) = (self.0[above - 1], self.0[above]);
        let (from, to) = (mille * 1_000, next_mille * 1_000);
        value + (next_value - value) * (parts_per_million - from) / (to - from)
    }

    fn draw(&self, random: &mut Random) -> u64 {
        self.at(random.below(1_000_001))
    }

    /// One value for each product, evenly over the distribution and in any order: no seed has an odd assortment.
    fn spread(&self, random: &mut Random) -> Vec<u64> {
        let count = u64::from(PRODUCTS);
        let mut values: Vec<u64> =
            (0..count).map(|rank| self.at((2 * rank + 1) * 1_000_000 / (2 * count))).collect();
        for last in (1..values.len()).rev() {
            values.swap(last, random.index_below(last + 1));
        }
        values
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    fn index_below(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.below(weights.iter().sum());
        let found = weights.iter().position(|weight| {
            let is_here = left < *weight;
            left = left.saturating_sub(*weight);
            is_here
        });
        found.unwrap_or(0)
    }

    /// Five letters that can be spoken.
    fn code(&mut self) -> String {
        let sounds = ["BCDFGHKLMNPRSTVWZ", "AEIOU"];
        let mut letter = |position: usize| {
            let letters = sounds[position % 2].as_bytes();
            char::from(letters[self.index_below(letters.len())])
        };
        (0..5).map(&mut letter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_stream() {
        assert_eq!(generate(7, 100), generate(7, 100));
        assert_ne!(generate(7, 100).orders, generate(8, 100).orders);
        // Another text for the seed of the README would be another demo.
        let text = serde_json::to_string(&generate(1, 830).orders[0]).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"order":1,"customer":"COMOC","ordered_on":"2024-01-01","required_on":"2024-01-29","#,
                r#""ship_via":2,"ship_country":"Canada","freight_cents":19251,"lines":["#,
                r#"{"product":63,"quantity":29,"unit_price_cents":3636,"discount_percent":0},"#,
                r#"{"product":25,"quantity":27,"unit_price_cents":4129,"discount_percent":0},"#,
                r#"{"product":17,"quantity":26,"unit_price_cents":1136,"discount_percent":0}],"total_cents":246463}"#,
            )
        );
    }

    #[test]
    fn every_seed_has_the_shape() {
        for seed in 0..20 {
            let Generated { products, orders } = generate(seed, 830);
            let within = |what: &str, value: u64, range: std::ops::RangeInclusive<u64>| {
                assert!(range.contains(&value), "seed {seed}: {what} {value}, not {range:?}");
            };
            let middle = |mut values: Vec<u64>| {
                values.sort_unstable();
                values[values.len() / 2]
            };
            assert_eq!((products.len(), orders.len()), (77, 830));
            let customers: BTreeSet<_> = orders.iter().map(|order| &order.customer).collect();
            let countries: BTreeSet<_> = orders.iter().map(|order| order.ship_country).collect();
            within("customers", customers.len() as u64, 84..=89);
            within("countries", countries.len() as u64, 20..=21);
            let lines: Vec<_> = orders.iter().flat_map(|order| &order.lines).collect();
            within("lines", lines.len() as u64, 2_000..=2_350);
            assert!(orders.iter().all(|order| (1..=6).contains(&order.lines.len())));
            within("median quantity", middle(lines.iter().map(|line| line.quantity).collect()), 18..=23);
            within("largest quantity", lines.iter().map(|line| line.quantity).max().unwrap(), 100..=130);
            let totals: Vec<_> = orders.iter().map(|order| order.total_cents).collect();
            within("median total", middle(totals.clone()), 85_000..=120_000);
            within("mean total", totals.iter().sum::<u64>() / 830, 130_000..=190_000);
            within("largest total", *totals.iter().max().unwrap(), 1_000_000..=3_000_000);
        }
    }
}
