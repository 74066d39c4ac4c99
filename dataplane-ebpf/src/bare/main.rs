//! The programs that benchmarks compare with: some send every frame to one device and do nothing else, so no program
//! that decides anything can be faster, and some forward by the kernel's FIB. And a source of frames for
//! `BPF_PROG_TEST_RUN`. Never part of the product.
//!
//! Built as hooks/main.rs is, which says why it is an empty program for the host.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod choice;
#[cfg(target_arch = "bpf")]
mod fib;
#[cfg(target_arch = "bpf")]
mod programs;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could come here.
    loop {}
}

/// As in hooks/main.rs.
#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
