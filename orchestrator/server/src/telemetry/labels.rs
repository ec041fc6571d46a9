//! Values of labels, bounded: whoever applies definitions must not decide how many series there are.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Values that a label has, at most; the rest are [`OTHER`]. With thirteen buckets and four outcomes fifty definitions are
/// 3,000 series, which a Prometheus takes from each server without being asked.
pub const VALUES_MAX: usize = 50;
/// What stands for all values beyond [`VALUES_MAX`].
pub const OTHER: &str = "other";

/// The values of one label, in the order in which they came.
#[derive(Debug, Default)]
pub struct Values(Mutex<BTreeSet<Arc<str>>>);

impl Values {
    /// None yet.
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeSet::new()))
    }

    /// This value, or [`OTHER`] when there are too many before it.
    pub fn value(&self, text: &str) -> Arc<str> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known.get(text) {
            return Arc::clone(value);
        }
        if known.len() >= VALUES_MAX {
            return Arc::from(OTHER);
        }
        let value: Arc<str> = Arc::from(text);
        known.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_so_many_values() {
        let values = Values::new();
        for number in 0..VALUES_MAX {
            let text = format!("v{number}");
            assert_eq!(&*values.value(&text), text);
        }
        assert_eq!(&*values.value("one more"), OTHER);
        assert_eq!(&*values.value("v0"), "v0", "those that are known stay");
    }
}
