//! Buffers that keep their memory from step to step.

/// The buffer with `len` numbers, of which those that were there before are not cleared.
pub(crate) fn sized<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    buffer.resize(len, T::default());
    buffer
}
