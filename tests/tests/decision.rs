//! x
use serval_tests::program::{Programs, object};

#[test]
fn loads() {
    let Some(object) = object() else { return };
    let programs = Programs::load(&object);
    println!("{:?}", programs.verified_instructions());
}
