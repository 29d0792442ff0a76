//! `hash((a, b, c))` of non-negative integers as CPython >= 3.8 computes it on 64-bit machines.
//!
//! The reference places its random crops by this hash, so equal crops need equal hashes. Integers hash to
//! themselves modulo 2^61 - 1; tuples by the xxHash scheme of CPython's `Objects/tupleobject.c`. It is neither a good
//! random generator nor a hash to use for anything else.

/// The xxHash primes, <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>.
const PRIME_1: u64 = 11_400_714_785_074_694_791;
const PRIME_2: u64 = 14_029_467_366_897_019_727;
const PRIME_5: u64 = 2_870_177_450_012_600_261;
/// CPython adds the length in this disguise, so that `hash(())` stays what it was.
const LENGTH_MASK: u64 = PRIME_5 ^ 3_527_539;
/// `-1` means failure in CPython, and this takes its place.
const INSTEAD_OF_MINUS_ONE: i64 = 1_546_275_796;

/// The hash of the tuple of `items`.
pub(crate) fn tuple_hash(items: &[u64]) -> i64 {
    let mixed = items.iter().fold(PRIME_5, |sum, &item| {
        let lane = item % ((1 << 61) - 1);
        sum.wrapping_add(lane.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
    });
    let hash = mixed.wrapping_add(items.len() as u64 ^ LENGTH_MASK).cast_signed();
    if hash == -1 { INSTEAD_OF_MINUS_ONE } else { hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_python() {
        // Python 3.11: hash of these tuples.
        assert_eq!(tuple_hash(&[0, 0, 0]), 3010437511937009226);
        assert_eq!(tuple_hash(&[0, 0, 1]), -1882636517035687140);
        assert_eq!(tuple_hash(&[1, 0, 0]), 7839147235533974352);
        assert_eq!(tuple_hash(&[7, 4, 1]), -3378604983117126526);
        assert_eq!(tuple_hash(&[366, 3, 0]), -8883495471431915832);
        assert_eq!(tuple_hash(&[2974, 2, 1]), 8439675534121345434);
        assert_eq!(tuple_hash(&[2305843009213693951, 0, 0]), 3010437511937009226);
        assert_eq!(tuple_hash(&[9223372036854775813, 1, 0]), -2872765566771969880);
        assert_eq!(tuple_hash(&[]), 5740354900026072187);
    }
}
