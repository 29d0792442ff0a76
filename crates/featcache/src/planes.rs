//! Byte planes: all first bytes of a row of numbers, then all second ones …
//!
//! The high bytes of floats (sign, exponent) are alike and compress; the low ones are noise. Side by side neither shows.

/// `[n, size]` to `[size, n]`.
pub(crate) fn split(bytes: &[u8], size: usize) -> Vec<u8> {
    let n = bytes.len() / size;
    let mut planes = vec![0; bytes.len()];
    if size == 2 {
        let (low, high) = planes.split_at_mut(n);
        for ((pair, low), high) in bytes.as_chunks::<2>().0.iter().zip(low).zip(high) {
            [*low, *high] = *pair;
        }
        return planes;
    }
    for (i, number) in bytes.chunks_exact(size).enumerate() {
        for (plane, &byte) in number.iter().enumerate() {
            planes[plane * n + i] = byte;
        }
    }
    planes
}

/// `[size, n]` to `[n, size]`.
pub(crate) fn join(planes: &[u8], size: usize) -> Vec<u8> {
    let n = planes.len() / size;
    let mut bytes = vec![0; planes.len()];
    if size == 2 {
        let (low, high) = planes.split_at(n);
        for ((pair, &low), &high) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(low).zip(high) {
            *pair = [low, high];
        }
        return bytes;
    }
    for (i, number) in bytes.chunks_exact_mut(size).enumerate() {
        for (plane, byte) in number.iter_mut().enumerate() {
            *byte = planes[plane * n + i];
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_apart_and_put_together() {
        assert_eq!(split(&[1, 2, 3, 4, 5, 6], 2), [1, 3, 5, 2, 4, 6]);
        assert_eq!(split(&[1, 2, 3, 4, 5, 6, 7, 8], 4), [1, 5, 2, 6, 3, 7, 4, 8]);
        let bytes: Vec<u8> = (0..240).collect();
        for size in [1, 2, 4] {
            assert_eq!(join(&split(&bytes, size), size), bytes);
        }
    }
}
