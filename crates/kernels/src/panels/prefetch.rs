//! Asking the caches for numbers before they are needed.
//!
//! A tile lasts some thousand cycles, in which it reads what lies in the first two caches. The next tile's weights, the
//! residual and the memory of the results may lie in the third one or behind it; asked for in time, they cost nothing.

/// Read soon.
pub(super) const READ: i32 = 3; // _MM_HINT_T0
/// Read a little later: into the second-level cache.
pub(super) const LATER: i32 = 2; // _MM_HINT_T1
/// Written soon.
pub(super) const WRITE: i32 = 7; // _MM_HINT_ET0

/// Bytes of a line of the caches.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// The part of `data` at `index` of those of `len` elements each, as far as there is one.
#[inline(always)]
pub(super) fn part<T>(data: &[T], index: usize, len: usize) -> &[T] {
    let start = (index * len).min(data.len());
    &data[start..(start + len).min(data.len())]
}

/// Asks the caches for all of `data`, which will be read soon but not in an order that they foresee.
#[inline(always)]
pub fn prefetch_read<T>(data: &[T]) {
    prefetch::<READ, T>(data);
}

/// Asks for all of `data`; nothing happens where no instruction does that.
#[inline(always)]
pub(super) fn prefetch<const HINT: i32, T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of_val(data)).step_by(LINE) {
        // SAFETY: every x86-64 has the instruction, which changes nothing that a program could see; the address lies in
        // `data`.
        #[expect(unsafe_code, reason = "no safe function prefetches")]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<HINT>(data.as_ptr().cast::<i8>().add(offset));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}
