//! How large programs are, as the kernel has them.

use super::Programs;
use crate::process;
use std::collections::BTreeMap;
use std::process::Command;

/// What a program costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Instructions that the verifier went through; it gives up at 1,000,000.
    pub verified: u32,
    /// Instructions after verification.
    pub translated: u32,
    /// Bytes of machine code.
    pub jited: u32,
    /// Bytes of stack along the deepest chain of calls, of which 512 are allowed; kernels round each frame up besides.
    pub stack: u32,
}

/// Bytes of an instruction.
const INSTRUCTION: u32 = 8;

impl Programs {
    /// The size of every program.
    pub fn sizes(&self) -> BTreeMap<String, Size> {
        self.programs()
            .map(|(name, program)| {
                let info = program.info().expect("a loaded program has info");
                let mut dump = Command::new("bpftool");
                dump.args(["prog", "dump", "xlated", "id", &info.id().to_string()]);
                let listing = process::run(dump).expect("bpftool shows a program");
                let size = Size {
                    verified: info.verified_instruction_count().expect("kernel 5.16 or newer"),
                    translated: info.size_translated().expect("we may see it") / INSTRUCTION,
                    jited: info.size_jitted(),
                    stack: stack(&listing),
                };
                (name.to_owned(), size)
            })
            .collect()
    }
}

/// A function in a listing of bpftool's.
#[derive(Default)]
struct Function<'a> {
    frame: u32,
    calls: Vec<&'a str>,
}

/// Stack along the deepest chain of calls, which the verifier has found to end.
fn stack(listing: &str) -> u32 {
    let mut functions: Vec<(&str, Function<'_>)> = Vec::new();
    // A register that has just been made a pointer to the frame.
    let mut pointer = None;
    for line in listing.lines() {
        if let Some(name) = function_name(line) {
            functions.push((name, Function::default()));
            continue;
        }
        let (Some((_, function)), Some((_, code))) = (functions.last_mut(), line.split_once(") ")) else {
            continue;
        };
        let below = |text: &str| text.split([' ', ')']).next().and_then(|number| number.parse::<u32>().ok());
        let offset = match (code.split_once("(r10 -"), pointer) {
            (Some((_, rest)), _) => below(rest),
            (None, Some(register)) => {
                code.strip_prefix(register).and_then(|rest| rest.strip_prefix(" += -")).and_then(below)
            }
            (None, None) => None,
        };
        function.frame = function.frame.max(offset.unwrap_or(0));
        pointer = code.strip_suffix(" = r10");
        if let Some((_, target)) = code.strip_prefix("call pc").and_then(|call| call.split_once('#')) {
            function.calls.push(target);
        }
    }
    functions.first().map_or(0, |(name, _)| deepest(&functions, name))
}

/// The `name` of `u32 name(arguments):`.
fn function_name(line: &str) -> Option<&str> {
    let (head, _) = line.strip_suffix("):")?.split_once('(')?;
    head.rsplit([' ', '*']).next()
}

/// With `name` as a call shows it: behind `bpf_prog_` and a hash.
fn deepest(functions: &[(&str, Function<'_>)], name: &str) -> u32 {
    let found = functions.iter().find(|(function, _)| {
        name == *function || (name.starts_with("bpf_prog_") && name.ends_with(&format!("_{function}")))
    });
    let (_, function) = found.unwrap_or_else(|| panic!("{name} is called and not listed"));
    function.frame + function.calls.iter().map(|callee| deepest(functions, callee)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_is_that_of_the_deepest_chain() {
        let listing = "\
u32 entry(struct xdp_md * ctx):
; let x = 1;
   0: (7b) *(u64 *)(r10 -216) = r1
   1: (bf) r2 = r10
   2: (07) r2 += -240
   3: (07) r3 += -400
   4: (85) call pc+3#bpf_prog_4f9302ba65b90ccd_flat
   5: (85) call pc+9#bpf_prog_c7b0fe14ce29f9da_deep
   6: (95) exit
void flat(u8 * s, usize n):
   7: (7b) *(u64 *)(r10 -8) = r1
u32 deep(void):
   8: (79) r1 = *(u64 *)(r10 -80)
";
        assert_eq!(stack(listing), 320);
    }
}
