//! Which of many variants a frame is, for a random number. Pure; bench/src/choice.rs tests it.
//!
//! There is no table of frequencies: it would be in the caches in place of what is measured.

/// Binary places of the octaves of [`zipf`].
pub const PLACES: u32 = 26;

/// One of `count`, each as often as any other.
#[inline(always)]
pub const fn uniform(random: u32, count: u32) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

/// One of `count`, the first far more often than the last, as names and addresses are asked for (Zipf's law with an
/// exponent of 1). `octaves`: log2(count + 1), with [`PLACES`].
///
/// It is 2^x - 1 for an x that is uniform from 0 to `octaves`, so number k is it with a probability in proportion to
/// log((k + 2) / (k + 1)), which is about 1 / (k + 1.5).
#[inline(always)]
pub const fn zipf(random: u32, count: u32, octaves: u32) -> u32 {
    let exponent = (random as u64 * octaves as u64) >> 32;
    let whole = (exponent >> PLACES) & 31;
    let part = (exponent & ((1 << PLACES) - 1)) >> (PLACES - 16);
    // Between powers of two a parabola, which is off by less than 0.4 %.
    let power = 0x1_0000 + ((part * (43_024 + ((22_512 * part) >> 16))) >> 16);
    let index = (((power << whole) >> 16) - 1) as u32;
    if index < count { index } else { count - 1 }
}
