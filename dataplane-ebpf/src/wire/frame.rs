//! The seam between the decision and the packet: XDP buffers, socket buffers and plain memory look the same.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A packet as Ethernet frame. Offsets count from the first byte of the Ethernet header.
pub trait Frame {
    /// Bytes of the whole frame, also of what is not linear in memory.
    fn len(&self) -> usize;

    /// The frame has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Layer-4 payload bytes of each segment the frame is still to be cut into; 0 when it is sent as it is.
    fn gso_size(&self) -> usize;

    /// A VLAN tag was taken out of the bytes and is kept beside them.
    fn is_tagged(&self) -> bool;

    /// The VLAN of that tag; 0 for a priority tag, which belongs to no VLAN, and without a tag.
    fn vlan_id(&self) -> u16;

    /// The kernel, which received the frame on `ifindex`, would have to ask who has the MAC of its next hop. `false` where
    /// nobody can tell: XDP hands such a frame to TC.
    fn needs_neighbour(&self, ifindex: u32, source: [u64; 2], destination: [u64; 2]) -> bool;

    /// A header at an offset known at compile time, within the first 74 bytes.
    fn view<T: FromBytes + Immutable + KnownLayout + Unaligned>(&self, offset: usize) -> Option<&T>;

    /// As [`view`](Self::view), to edit.
    fn view_mut<T: FromBytes + IntoBytes + KnownLayout + Unaligned>(
        &mut self,
        offset: usize,
    ) -> Option<&mut T>;

    /// A copy of what is at any offset.
    fn load<T: FromBytes + IntoBytes>(&self, offset: usize) -> Option<T>;

    /// Ones' complement sum of `len` bytes at `offset`, unfolded, as native 16-bit words; `None` where the hook cannot
    /// read them cheaply. `offset` is even.
    fn sum(&self, offset: usize, len: usize) -> Option<u32>;

    /// Makes the frame `len` bytes long, all of them within reach of [`view_mut`](Self::view_mut); what they are is
    /// undefined until they are written. `false` leaves it unedited.
    fn resize(&mut self, len: usize) -> bool;

    /// Writes `bytes` at the start of the frame, which is long enough.
    fn store(&mut self, bytes: &[u8]) -> bool;
}
