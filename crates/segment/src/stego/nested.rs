//! A ladder of prefixes: one head whose first 3, 6, 12, … numbers are each a code.
//!
//! The loss is summed over the rungs, and every prefix is normalised by itself, so that the code cut off at a rung is trained as if
//! it were the whole one. What the rungs share is computed once: points and feature correlations, and of the codes'
//! correlations the part that a rung has in common with the one below. With `P_r = Σ_{i<r} x_i y_i` the
//! correlation on rung `r` is `P_r / (‖x‖_r ‖y‖_r)`, and `P_r` grows from rung to rung by the product of the new numbers
//! alone. On the way back, a number's gradient is one product with the sum of the slopes of all rungs that contain it.

use std::ops::Range;

use super::error::{Result, expect_range};

/// Rising lengths of prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    rungs: Vec<usize>,
}

impl Ladder {
    /// A ladder for codes of `dim` numbers. What lies behind the last rung is not trained.
    ///
    /// # Errors
    /// [`Error::Range`](super::Error::Range) unless the rungs rise within 1 to `dim`.
    pub fn new(rungs: &[usize], dim: usize) -> Result<Self> {
        let rises = rungs.is_sorted_by(|a, b| a < b);
        let within = rungs.first().is_some_and(|&first| first > 0) && rungs.last().is_some_and(|&k| k <= dim);
        let text = || format!("{rungs:?}");
        expect_range(rises && within, "ladder of prefixes", &format!("rising within 1 to {dim}"), text())?;
        Ok(Self { rungs: rungs.to_vec() })
    }

    /// The code as a whole.
    ///
    /// # Errors
    /// [`Error::Range`](super::Error::Range) for `dim = 0`.
    pub fn whole(dim: usize) -> Result<Self> {
        Self::new(&[dim], dim)
    }

    /// 3, 6, 12, … as far as they are below `dim`, and `dim`.
    ///
    /// # Errors
    /// [`Error::Range`](super::Error::Range) for `dim = 0`.
    pub fn doubling(dim: usize) -> Result<Self> {
        let below = std::iter::successors(Some(3), |rung| Some(rung * 2)).take_while(|&rung| rung < dim);
        Self::new(&below.chain([dim]).collect::<Vec<_>>(), dim)
    }

    /// Lengths of the prefixes, rising.
    #[must_use]
    pub fn rungs(&self) -> &[usize] {
        &self.rungs
    }

    /// The numbers that each rung adds to the one below.
    pub(super) fn blocks(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + ExactSizeIterator + '_ {
        (0..self.rungs.len()).map(|r| if r == 0 { 0 } else { self.rungs[r - 1] }..self.rungs[r])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_and_blocks() {
        let ladder = Ladder::doubling(70).unwrap();
        assert_eq!(ladder.rungs(), [3, 6, 12, 24, 48, 70]);
        assert_eq!(ladder.blocks().map(|block| block.len()).collect::<Vec<_>>(), [3, 3, 6, 12, 24, 22]);
        assert_eq!(Ladder::doubling(2).unwrap(), Ladder::whole(2).unwrap());
        for wrong in [&[][..], &[0, 3], &[3, 3], &[6, 3], &[3, 8]] {
            assert!(Ladder::new(wrong, 7).is_err(), "{wrong:?}");
        }
    }
}
