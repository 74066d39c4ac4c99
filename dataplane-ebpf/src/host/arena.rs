//! Values that are handed out while others come and go, as the kernel hands out entries of its maps.

use std::cell::{Cell, OnceCell};

/// Keeps every value that it is given, until it is dropped itself. Nobody minds which those are: clones are empty, and all
/// are equal.
pub struct Arena<T> {
    /// Each twice as long as the one before it.
    chunks: [OnceCell<Box<[OnceCell<T>]>>; 32],
    len: Cell<usize>,
}

impl<T> Arena<T> {
    /// Keeps a value.
    pub fn keep(&self, value: T) -> &T {
        let number = self.len.get() + 1;
        self.len.set(number);
        let chunk = number.ilog2();
        let first = 1 << chunk;
        let places = self.chunks[chunk as usize]
            .get_or_init(|| std::iter::repeat_with(OnceCell::new).take(first).collect());
        places[number - first].get_or_init(|| value)
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { chunks: Default::default(), len: Cell::default() }
    }
}

impl<T> Clone for Arena<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> PartialEq for Arena<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Arena<T> {}

impl<T> std::fmt::Debug for Arena<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("len", &self.len.get()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_out_stays() {
        let arena = Arena::default();
        let kept: Vec<&usize> = (0..1000).map(|value| arena.keep(value)).collect();
        assert!(kept.into_iter().copied().eq(0..1000));
    }
}
