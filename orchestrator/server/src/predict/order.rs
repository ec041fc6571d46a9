//! An order of steps as series and parallels of each other.
//!
//! Source: J. Valdes, R. Tarjan and E. Lawler, "The Recognition of Series Parallel Digraphs", SIAM J. Comput. 1982: what is
//! not connected by the order is parallel, what is not connected by its absence is a series, and what is neither contains
//! an N (a before c, b before c and d). Only series and parallels can be reckoned step by step without asking what two
//! branches have in common; an N is therefore read in stages, each of which waits for the whole stage before it. That is
//! never faster than the definition, so what is said of deadlines is on the safe side.

/// Series and parallels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// One thing, by its number.
    One(usize),
    /// One after the other.
    Series(Vec<Order>),
    /// Beside each other.
    Parallel(Vec<Order>),
}

/// An order, and whether stages had to take the place of some of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// As series and parallels.
    pub order: Order,
    /// It had an N.
    pub has_stages: bool,
}

impl Order {
    /// The order of `count` things of which each comes after those `after` says; without cycles.
    pub fn of(count: usize, after: &[Vec<usize>]) -> Ordered {
        let mut reach = Reach { before: vec![None; count] };
        (0..count).for_each(|one| reach.fill(one, after));
        let mut has_stages = false;
        let order = reach.split(&(0..count).collect::<Vec<_>>(), &mut has_stages);
        Ordered { order, has_stages }
    }
}

/// What comes before each, directly or not.
struct Reach {
    before: Vec<Option<Vec<bool>>>,
}

impl Reach {
    fn fill(&mut self, one: usize, after: &[Vec<usize>]) {
        if self.before[one].is_some() {
            return;
        }
        let mut all = vec![false; self.before.len()];
        for &earlier in &after[one] {
            self.fill(earlier, after);
            all[earlier] = true;
            for (found, is) in all.iter_mut().zip(self.before[earlier].iter().flatten()) {
                *found |= is;
            }
        }
        self.before[one] = Some(all);
    }

    fn is_before(&self, one: usize, other: usize) -> bool {
        self.before[other].as_ref().is_some_and(|before| before[one])
    }

    fn split(&self, things: &[usize], has_stages: &mut bool) -> Order {
        if let [one] = things {
            return Order::One(*one);
        }
        let is_ordered = |one, other| self.is_before(one, other) || self.is_before(other, one);
        let apart = components(things, is_ordered);
        if apart.len() > 1 || things.is_empty() {
            return Order::Parallel(apart.iter().map(|part| self.split(part, has_stages)).collect());
        }
        let mut series = components(things, |one, other| !is_ordered(one, other));
        if series.len() == 1 {
            *has_stages = true;
            series = self.stages(things);
        }
        series.sort_by_key(|part| things.iter().filter(|&&other| self.is_before(other, part[0])).count());
        Order::Series(series.iter().map(|part| self.split(part, has_stages)).collect())
    }

    /// By the length of the longest way to each.
    fn stages(&self, things: &[usize]) -> Vec<Vec<usize>> {
        let mut left = things.to_vec();
        let mut stages = Vec::new();
        while !left.is_empty() {
            let is_next = |&one: &usize| !left.iter().any(|&other| self.is_before(other, one));
            let (next, later) = left.iter().partition(|one| is_next(one));
            stages.push(next);
            left = later;
        }
        stages
    }
}

fn components(things: &[usize], touch: impl Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
    let mut left = things.to_vec();
    let mut components = Vec::new();
    while let Some(first) = left.first().copied() {
        let mut found = vec![first];
        left.remove(0);
        let mut next = 0;
        while let Some(&one) = found.get(next) {
            let (touched, rest): (Vec<usize>, Vec<usize>) =
                left.iter().partition(|&&other| touch(one, other));
            found.extend(touched);
            left = rest;
            next += 1;
        }
        found.sort_unstable();
        components.push(found);
    }
    components
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(after: &[&[usize]], then: &str) {
        let after: Vec<Vec<usize>> = after.iter().map(|list| list.to_vec()).collect();
        let Ordered { order, has_stages } = Order::of(after.len(), &after);
        assert_eq!(format!("{}{}", drawn(&order), if has_stages { " in stages" } else { "" }), then);
    }

    fn drawn(order: &Order) -> String {
        let all = |parts: &[Order]| parts.iter().map(drawn).collect::<Vec<_>>();
        match order {
            Order::One(one) => one.to_string(),
            Order::Series(parts) => format!("({})", all(parts).join(" ")),
            Order::Parallel(parts) => format!("[{}]", all(parts).join(" ")),
        }
    }

    #[test]
    fn orders() {
        check(&[], "[]");
        check(&[&[]], "0");
        check(&[&[], &[0], &[1]], "(0 1 2)");
        check(&[&[1], &[2], &[]], "(2 1 0)");
        check(&[&[], &[0], &[0, 1]], "(0 1 2)");
        check(&[&[], &[0], &[0], &[1, 2]], "(0 [1 2] 3)");
        check(&[&[], &[], &[0], &[1], &[2, 3]], "([(0 2) (1 3)] 4)");
        check(&[&[], &[], &[0], &[0, 1]], "([0 1] [2 3]) in stages");
    }
}
