//! Numbers of neighbouring classes, side by side: what a pixel, or a vertex of a lattice, has of them.
//!
//! A row is aligned to its own size, so that it never lies in two lines of the cache. [`Line`] fills one, for many classes;
//! [`Quarter`] is for few. All is done lane by lane, hence the same for both.

use std::fmt::Debug;

/// Numbers side by side.
pub(super) trait Row: Debug + Copy + PartialEq + Send + Sync {
    /// How many.
    const LANES: usize;

    /// All the same.
    fn all(x: f32) -> Self;

    fn lanes(&self) -> &[f32];

    fn lanes_mut(&mut self) -> &mut [f32];

    /// `f` of both rows' numbers, lane by lane.
    fn zip(&self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Self;

    /// All lanes into one, by halves.
    fn fold(&self, f: impl Fn(f32, f32) -> f32) -> f32;

    /// `f` of every number.
    #[inline(always)]
    fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        self.zip(
            self,
            #[inline(always)]
            |x, _| f(x),
        )
    }

    /// `self += share * other`.
    #[inline(always)]
    fn add(&mut self, share: f32, other: &Self) {
        *self = self.zip(
            other,
            #[inline(always)]
            |own, other| own + share * other,
        );
    }

    /// `share * self`.
    #[inline(always)]
    fn times(&self, share: f32) -> Self {
        self.map(
            #[inline(always)]
            |x| share * x,
        )
    }

    /// The row, or zeros: `mask` is all ones or all zeros.
    #[inline(always)]
    fn and(&self, mask: u32) -> Self {
        self.map(
            #[inline(always)]
            |x| f32::from_bits(x.to_bits() & mask),
        )
    }

    /// A step of the lattices' blur: half of either neighbour is added.
    #[inline(always)]
    fn blurred(&self, before: &Self, after: &Self) -> Self {
        let beside = before.zip(
            after,
            #[inline(always)]
            |before, after| 0.5 * (before + after),
        );
        self.zip(
            &beside,
            #[inline(always)]
            |own, beside| own + beside,
        )
    }
}

macro_rules! row {
    ($(#[$about:meta])* $name:ident, $lanes:literal, $bytes:literal) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[repr(align($bytes))]
        pub(super) struct $name([f32; $lanes]);

        impl Row for $name {
            const LANES: usize = $lanes;

            #[inline(always)]
            fn all(x: f32) -> Self {
                Self([x; $lanes])
            }

            #[inline(always)]
            fn lanes(&self) -> &[f32] {
                &self.0
            }

            #[inline(always)]
            fn lanes_mut(&mut self) -> &mut [f32] {
                &mut self.0
            }

            #[inline(always)]
            fn zip(&self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Self {
                // As values: if they lay somewhere, each lane would have to be stored before the next is loaded.
                let (a, b) = (self.0, other.0);
                let mut out = [0.0; $lanes];
                for lane in 0..$lanes {
                    out[lane] = f(a[lane], b[lane]);
                }
                Self(out)
            }

            #[inline(always)]
            fn fold(&self, f: impl Fn(f32, f32) -> f32) -> f32 {
                let mut lanes = self.0;
                let mut half = $lanes / 2;
                while half > 0 {
                    for lane in 0..half {
                        lanes[lane] = f(lanes[lane], lanes[lane + half]);
                    }
                    half /= 2;
                }
                lanes[0]
            }
        }
    };
}

row!(
    /// Sixteen classes: a line of the cache.
    Line, 16, 64
);
row!(
    /// Four classes.
    Quarter, 4, 16
);

#[cfg(test)]
mod tests {
    use super::*;

    fn check<R: Row>() {
        assert_eq!(
            (R::all(0.0).lanes().len(), align_of::<R>(), size_of::<R>()),
            (R::LANES, size_of::<R>(), 4 * R::LANES)
        );
        let mut row = R::all(0.0);
        row.lanes_mut().iter_mut().enumerate().for_each(|(lane, x)| *x = lane as f32);
        let n = R::LANES as f32;
        assert_eq!(row.fold(|a, b| a + b), n * (n - 1.0) / 2.0);
        assert_eq!(row.fold(f32::max), n - 1.0);
        let mut sum = row.times(2.0);
        sum.add(-1.0, &row);
        assert_eq!(sum, row);
        assert_eq!((row.and(u32::MAX), row.and(0)), (row, R::all(0.0)));
        assert_eq!(row.blurred(&R::all(1.0), &R::all(3.0)), row.map(|x| x + 2.0));
    }

    #[test]
    fn rows_of_every_width() {
        check::<Line>();
        check::<Quarter>();
    }
}
