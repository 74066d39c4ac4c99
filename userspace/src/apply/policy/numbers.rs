//! Numbers for things, the same for as long as somebody has the thing. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Numbers, by what they stand for.
#[derive(Debug)]
pub struct Numbers<T> {
    by_content: BTreeMap<T, u32>,
    taken: BTreeSet<u32>,
    /// Numbers are from here on,
    first: u32,
    /// and less than this.
    end: u32,
    next: u32,
}

impl<T: Ord + Clone> Numbers<T> {
    /// Numbers from `first` on, less than `end`.
    pub fn new(first: u32, end: u32) -> Self {
        Self { by_content: BTreeMap::new(), taken: BTreeSet::new(), first, end, next: first }
    }

    /// Numbers that somebody else has, and that are not to be given until [`keep`](Self::keep).
    pub fn reserve(&mut self, numbers: impl IntoIterator<Item = u32>) {
        self.taken.extend(numbers);
    }

    /// The number of a thing, and whether it is new; `None`: all are taken.
    pub fn number(&mut self, thing: &T) -> Option<(u32, bool)> {
        if let Some(&number) = self.by_content.get(thing) {
            return Some((number, false));
        }
        let mut candidates = (self.next..self.end).chain(self.first..self.next);
        let number = candidates.find(|number| !self.taken.contains(number))?;
        self.next = number + 1;
        self.taken.insert(number);
        self.by_content.insert(thing.clone(), number);
        Some((number, true))
    }

    /// What has a number, with it.
    pub fn iter(&self) -> impl Iterator<Item = (&T, u32)> {
        self.by_content.iter().map(|(thing, number)| (thing, *number))
    }

    /// What has this number.
    pub fn content(&self, number: u32) -> Option<&T> {
        self.iter().find(|(_, of)| *of == number).map(|(thing, _)| thing)
    }

    /// Keeps these numbers, and takes all others back.
    pub fn keep(&mut self, numbers: &BTreeSet<u32>) {
        self.by_content.retain(|_, number| numbers.contains(number));
        self.taken = self.by_content.values().copied().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_keeps_its_number_and_nobody_gets_it_while_it_is_kept() {
        let mut numbers = Numbers::new(1, 4);
        numbers.reserve([2]);
        assert_eq!(numbers.number(&"a"), Some((1, true)));
        assert_eq!(numbers.number(&"b"), Some((3, true)));
        assert_eq!(numbers.number(&"a"), Some((1, false)));
        assert_eq!(numbers.number(&"c"), None, "2 is somebody else's");
        numbers.keep(&[3].into());
        assert_eq!(numbers.number(&"c"), Some((1, true)));
        assert_eq!(numbers.number(&"b"), Some((3, false)));
        assert_eq!(numbers.number(&"a"), Some((2, true)));
    }
}
