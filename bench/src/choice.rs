//! How often each of many variants of a frame comes. The source of frames in the kernel has the same functions. Pure.

#[path = "../../dataplane-ebpf/src/bare/choice.rs"]
mod kernel;

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popularity {
    /// Each as often as any other.
    Even,
    /// Number k with a probability in proportion to 1/k, about: a few have most of it, as with names and addresses.
    Zipf,
}

impl Popularity {
    /// One of `count`, for a random value.
    pub fn choose(self, random: u32, count: u32) -> u32 {
        match self {
            Self::Even => kernel::uniform(random, count),
            Self::Zipf => kernel::zipf(random, count, self.octaves(count)),
        }
    }

    /// `OCTAVES` of dataplane-ebpf/src/bare.
    pub fn octaves(self, count: u32) -> u32 {
        match self {
            Self::Even => 0,
            Self::Zipf => ((f64::from(count) + 1.0).log2() * f64::from(1u32 << kernel::PLACES)) as u32,
        }
    }

    /// In names of arms.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Even => "",
            Self::Zipf => ", Zipf",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_have_what_zipfs_law_gives_them() {
        for count in [1, 2, 1_000, 100_000] {
            let draws = 1_000_000;
            let indices: Vec<u32> =
                (0..draws).map(|n| Popularity::Zipf.choose(n * (u32::MAX / draws), count)).collect();
            assert!(indices.iter().all(|index| *index < count));
            for first in [1, 2, 3, 10, 100, 1_000, 10_000] {
                let share = indices.iter().filter(|index| **index < first).count() as f64 / f64::from(draws);
                let wanted = (f64::from(first.min(count)) + 1.0).ln() / (f64::from(count) + 1.0).ln();
                assert!(
                    (share - wanted).abs() < 0.001,
                    "the first {first} of {count}: {share}, not {wanted}"
                );
            }
        }
    }

    #[test]
    fn all_are_chosen_alike_unless_said_otherwise() {
        let chosen: Vec<u32> = (0..8).map(|eighth| Popularity::Even.choose(eighth << 29, 4)).collect();
        assert_eq!(chosen, [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(Popularity::Even.choose(u32::MAX, 100_000), 99_999);
    }
}
