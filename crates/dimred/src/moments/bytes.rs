//! Moments as bytes, for another process: numbers of 64 bits, little-endian, whose order is that in memory.

use super::Moments;
use crate::{Error, Result};

impl Moments {
    /// Appends count, mean and scatter: numbers of 64 bits, little-endian.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.count.to_le_bytes());
        for x in self.mean.iter().chain(self.scatter.numbers()) {
            bytes.extend(x.to_le_bytes());
        }
    }

    /// Takes moments of width `d` off the front.
    pub(crate) fn read(d: usize, bytes: &mut &[u8]) -> Result<Self> {
        let mut moments = Self { count: word(bytes)?, ..Self::new(d) };
        for x in moments.mean.iter_mut().chain(moments.scatter.numbers_mut()) {
            *x = f64::from_bits(word(bytes)?);
        }
        Ok(moments)
    }
}

/// Takes a number off the front.
pub(crate) fn word(bytes: &mut &[u8]) -> Result<u64> {
    let (first, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    *bytes = rest;
    Ok(u64::from_le_bytes(*first))
}

/// What bytes that are none are refused with.
pub(crate) fn damaged() -> Error {
    Error::Format("these bytes are no moments".into())
}
