//! What only a file can promise, and what can only go wrong with one.
mod faults;
mod killed;
mod speed;
