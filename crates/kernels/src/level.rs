//! The vector instructions that are used, chosen once at run time: the widest of the machine, or those that
//! `FEATLAB_SIMD` names.

use std::any::TypeId;
use std::sync::LazyLock;

use pulp::{Scalar256b, Simd, WithSimd};

/// The environment variable that names a level.
pub const LEVEL_VARIABLE: &str = "FEATLAB_SIMD";

/// A set of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// x86-64 with AVX-512: 16 numbers at a time.
    Avx512,
    /// x86-64 with AVX2 and fused multiply-adds: 8 numbers.
    Avx2,
    /// 64-bit ARM: 4 numbers.
    Neon,
    /// What the compiler makes of plain loops, without fused multiply-adds.
    Portable,
}

static CURRENT: LazyLock<Result<Level, String>> = LazyLock::new(|| match std::env::var(LEVEL_VARIABLE) {
    Ok(name) if !name.is_empty() => Level::by_name(&name),
    _ => Ok(Level::available()[0]),
});

impl Level {
    const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// The levels that this machine has, the fastest first; the last is [`Level::Portable`].
    #[must_use]
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|level| level.is_available()).collect()
    }

    /// The level of this process: what [`LEVEL_VARIABLE`] names, else the fastest.
    ///
    /// # Errors
    /// If the variable names no level of this machine: what it says, and what there is.
    pub fn requested() -> Result<Self, String> {
        CURRENT.clone()
    }

    /// As [`Level::requested`]; a variable that names no level is as good as none.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.clone().unwrap_or_else(|_| Self::available()[0])
    }

    /// The name, as [`LEVEL_VARIABLE`] takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    fn by_name(name: &str) -> Result<Self, String> {
        let levels = Self::available();
        levels.iter().copied().find(|level| level.name() == name).ok_or_else(|| {
            let names: Vec<_> = levels.iter().map(|level| level.name()).collect();
            format!("{LEVEL_VARIABLE}={name}: this machine has {}", names.join(", "))
        })
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Self::Avx512 => pulp::x86::V4::try_new().is_some(),
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
            Self::Neon => false,
            Self::Portable => true,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_available(self) -> bool {
        match self {
            Self::Neon => pulp::aarch64::Neon::try_new().is_some(),
            other => other == Self::Portable,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }

    /// Runs `op` with these instructions, or without any if the machine has not got them.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn run<Op: WithSimd>(self, op: Op) -> Op::Output {
        let (v4, v3) = (pulp::x86::V4::try_new(), pulp::x86::V3::try_new());
        match (self, v4, v3) {
            (Self::Avx512, Some(simd), _) => Simd::vectorize(simd, op),
            (Self::Avx2, _, Some(simd)) => Simd::vectorize(simd, op),
            _ => Simd::vectorize(Scalar256b, op),
        }
    }

    /// Runs `op` with these instructions, or without any if the machine has not got them.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn run<Op: WithSimd>(self, op: Op) -> Op::Output {
        match (self, pulp::aarch64::Neon::try_new()) {
            (Self::Neon, Some(simd)) => Simd::vectorize(simd, op),
            _ => Simd::vectorize(Scalar256b, op),
        }
    }

    /// Runs `op` as plain loops.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(crate) fn run<Op: WithSimd>(self, op: Op) -> Op::Output {
        Simd::vectorize(Scalar256b, op)
    }
}

/// `a b + c`: fused where there is an instruction for it, since without one a fused sum is a slow call.
#[inline(always)]
pub(crate) fn mul_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    if TypeId::of::<S>() == TypeId::of::<Scalar256b>() {
        simd.add_f32s(simd.mul_f32s(a, b), c)
    } else {
        simd.mul_add_e_f32s(a, b, c)
    }
}
