//! Where a point lies in the permutohedral lattice (Adams, Baek and Davis 2010): the `D + 1` vertices around it.
//!
//! Points of `D` dimensions are laid into the plane of `D + 1` coordinates whose sum is 0. The points of that plane
//! whose coordinates are integers that are all equal modulo `D + 1` are the lattice's vertices; every point lies in a simplex
//! of `D + 1` of them and is shared out among them by its barycentric coordinates. Corner `c` of a simplex has coordinates that
//! are `c` modulo `D + 1`.

/// The simplex of a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Simplex<const D: usize> {
    /// Corner 0: its first coordinates, which are multiples of `D + 1`, as such.
    pub(super) origin: [i32; D],
    /// How many coordinates are further above those of corner 0: the order in which the simplex is walked.
    pub(super) rank: [u8; D],
    /// Barycentric coordinates of the first corners.
    share: [f32; D],
    /// And of the last.
    last: f32,
}

impl<const D: usize> Simplex<D> {
    /// Finds the simplex of a point. In `f32`, in this order of operations, so that points between two simplices
    /// fall where they do elsewhere.
    ///
    /// * `feature`: in units of the Gaussian's standard deviation.
    #[inline(always)]
    pub(super) fn of(feature: &[f32; D]) -> Self {
        let up = (D + 1) as f32;
        let down = 1.0 / up;
        // A unit of length in which the blur's variance makes a Gaussian of deviation 1.
        let unit = ((2.0_f64 / 3.0).sqrt() * (D + 1) as f64) as f32;

        // The point in the plane; coordinate 0 takes what is left.
        let (mut high, mut sum) = ([0.0_f32; D], 0.0_f32);
        for j in (0..D).rev() {
            let scale = (1.0 / (((j + 2) as f64) * ((j + 1) as f64)).sqrt() * f64::from(unit)) as f32;
            let x = feature[j] * scale;
            high[j] = sum - (j + 1) as f32 * x; // coordinate j + 1
            sum += x;
        }
        let at = |i: usize| if i == 0 { sum } else { high[i - 1] };

        // The nearest vertex with multiples of D + 1, before it is brought back into the plane.
        let nearest = |i: usize| (at(i) * down).round_ties_even();
        let mut away: isize = 0; // how far the rounded coordinates are from summing to 0
        for i in 0..=D {
            away += nearest(i) as isize;
        }
        let above = |i: usize| at(i) - nearest(i) * up;
        let mut ranks = [0_isize; D];
        let mut last_rank = 0_isize;
        for i in 0..=D {
            for j in i + 1..=D {
                let lower = if above(i) < above(j) { i } else { j };
                if lower < D { ranks[lower] += 1 } else { last_rank += 1 }
            }
        }
        let mut origin = [0_i32; D];
        let mut rank = [0_u8; D];
        let mut share = [0.0_f32; D];
        let mut last = 0.0_f32;
        let mut wrapped = 0.0_f32; // what went over the end
        for i in 0..=D {
            let mut r = away + if i < D { ranks[i] } else { last_rank };
            let mut base = nearest(i);
            if r < 0 {
                r += D as isize + 1;
                base += 1.0;
            } else if r > D as isize {
                r -= D as isize + 1;
                base -= 1.0;
            }
            if i < D {
                origin[i] = base as i32;
                rank[i] = r as u8;
            }
            let part = (at(i) - base * up) * down;
            let mut add = |corner: usize, x: f32| match corner {
                c if c < D => share[c] += x,
                c if c == D => last += x,
                _ => wrapped += x,
            };
            add(D - r as usize, part);
            add(D + 1 - r as usize, -part);
        }
        share[0] += 1.0 + wrapped;
        Self { origin, rank, share, last }
    }

    /// Barycentric coordinate of a corner, `0..=D`.
    #[inline(always)]
    pub(super) fn share(&self, corner: usize) -> f32 {
        if corner < D { self.share[corner] } else { self.last }
    }

    /// Whether coordinate `i` of a corner is `corner - (D + 1)` further than that of corner 0, rather than `corner`.
    #[inline(always)]
    pub(super) fn goes_down(&self, corner: usize, i: usize) -> bool {
        usize::from(self.rank[i]) + corner > D
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The corners' coordinates, shared out, are the point again; shares are positive and sum to 1.
    #[test]
    fn a_point_is_the_mean_of_its_corners() {
        for i in 0..200 {
            let feature: [f32; 5] = std::array::from_fn(|j| ((i * 7 + j * 13) % 29) as f32 * 0.37);
            let simplex = Simplex::of(&feature);
            let shares: Vec<f32> = (0..=5).map(|corner| simplex.share(corner)).collect();
            assert!(shares.iter().all(|&share| (-1e-5..=1.0 + 1e-5).contains(&share)), "{shares:?}");
            assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            // Coordinate 0 is the sum of all scaled features.
            let unit = (2.0_f64 / 3.0).sqrt() * 6.0;
            let scaled = |j: usize| f64::from(feature[j]) * unit / (((j + 1) * (j + 2)) as f64).sqrt();
            let expected: f64 = (0..5).map(scaled).sum();
            let corner =
                |c: usize| 6 * simplex.origin[0] + c as i32 - if simplex.goes_down(c, 0) { 6 } else { 0 };
            let got: f64 = (0..=5).map(|c| f64::from(shares[c]) * f64::from(corner(c))).sum();
            assert!((got - expected).abs() < 1e-3, "{got} {expected}");
        }
    }
}
