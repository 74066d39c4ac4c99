//! Embeds the BPF object that `cargo xtask build` made and names in `SERVAL_BPF_OBJECT`. Without it (plain
//! `cargo build`, clippy, unit tests) an empty file takes its place, and the loader says what to do.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=SERVAL_BPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("serval-hooks.o");
    match env::var_os("SERVAL_BPF_OBJECT") {
        Some(object) => {
            println!("cargo::rerun-if-changed={}", PathBuf::from(&object).display());
            fs::copy(&object, &out).expect("SERVAL_BPF_OBJECT names a readable file");
        }
        None => fs::write(&out, []).expect("OUT_DIR is writable"),
    }
}
