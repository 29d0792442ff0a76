//! The widest vector instructions of the machine, chosen at run time.

use std::sync::LazyLock;

use pulp::Arch;

static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// Runs a loop compiled for the instruction set of this machine.
///
/// The loop must be all in `f` or in functions that are always inlined, else it is compiled for the oldest machine, where
/// a `mul_add` is a call. That goes for the closures of `for_each` and `fold` too, which the compiler inlines or not as it
/// sees fit: write `for`.
#[inline(always)]
pub fn simd<R>(f: impl FnOnce() -> R) -> R {
    ARCH.dispatch(f)
}
