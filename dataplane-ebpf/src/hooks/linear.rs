//! Direct access to the bytes of a frame that lie in one piece, the same for both contexts: the verifier wants every
//! pointer compared with the end before it is used.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A context with a linear part.
pub trait Linear {
    /// Where it begins.
    fn data(&self) -> usize;

    /// Where it ends.
    fn data_end(&self) -> usize;

    /// A pointer to `size` bytes at `offset`, all within the linear part.
    #[inline(always)]
    fn at(&self, offset: usize, size: usize) -> Option<*mut u8> {
        let start = self.data() + offset;
        if start + size > self.data_end() { None } else { Some(start as *mut u8) }
    }
}

/// `Frame::view`
#[inline(always)]
pub fn view<L: Linear, T: FromBytes + Immutable + KnownLayout + Unaligned>(
    frame: &L,
    offset: usize,
) -> Option<&T> {
    // SAFETY: the pointer is good for T, whose alignment is 1 and whose every bit pattern is a value.
    frame.at(offset, size_of::<T>()).map(|start| unsafe { &*start.cast() })
}

/// `Frame::view_mut`
#[inline(always)]
pub fn view_mut<L: Linear, T: FromBytes + IntoBytes + KnownLayout + Unaligned>(
    frame: &mut L,
    offset: usize,
) -> Option<&mut T> {
    // SAFETY: as for `view`, and `&mut` makes it the only one.
    frame.at(offset, size_of::<T>()).map(|start| unsafe { &mut *start.cast() })
}
