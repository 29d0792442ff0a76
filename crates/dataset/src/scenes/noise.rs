//! Hash-based value noise, the grain of every surface.
//!
//! A lattice point's value is a hash of its integer coordinates and a seed, smoothly interpolated
//! between lattice points; `fbm` adds octaves of it. Nothing is stored, so any point can be asked in
//! any order. Octaves finer than the sample's footprint fade out, which is what a lens would do.

/// A well-mixed 32-bit hash of lattice coordinates.
pub(super) fn hash(x: i32, y: i32, seed: u32) -> u32 {
    let mut h = (x as u32).wrapping_mul(0x9E37_79B1)
        ^ (y as u32).wrapping_mul(0x85EB_CA77)
        ^ seed.wrapping_mul(0xC2B2_AE3D);
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    h ^ (h >> 15)
}

/// The hash as a fraction in `[0, 1)`.
pub(super) fn speck(x: i32, y: i32, seed: u32) -> f32 {
    (hash(x, y, seed) >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// The floor as an integer: `f32::floor` is a slow call where the processor has no such instruction.
fn cell(v: f32) -> i32 {
    let towards_zero = v as i32;
    if towards_zero as f32 > v { towards_zero.wrapping_sub(1) } else { towards_zero }
}

/// Value noise in `[0, 1]` with features about one unit wide.
pub(super) fn value(x: f32, y: f32, seed: u32) -> f32 {
    let (ix, iy) = (cell(x), cell(y));
    let (fx, fy) = (x - ix as f32, y - iy as f32);
    let (sx, sy) = (fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy));
    let corner = |dx, dy| speck(ix.wrapping_add(dx), iy.wrapping_add(dy), seed);
    let (a, b, c, d) = (corner(0, 0), corner(1, 0), corner(0, 1), corner(1, 1));
    let top = a + (b - a) * sx;
    top + (c + (d - c) * sx - top) * sy
}

/// `octaves` of value noise, each half as wide and half as strong; mean about 0.5.
///
/// `footprint` is the size of one sample in units of `x, y`: octaves it cannot resolve are left out.
pub(super) fn fbm(x: f32, y: f32, seed: u32, octaves: u32, footprint: f32) -> f32 {
    let (mut sum, mut weight, mut scale) = (0.5, 0.5, 1.0);
    for octave in 0..octaves {
        let seen = 1.5 - 2.0 * footprint * scale; // 1 where resolved, 0 where it would alias
        if seen <= 0.0 {
            break;
        }
        let wave = value(x * scale, y * scale, seed.wrapping_add(octave * 101)) - 0.5;
        sum += wave * weight * seen.min(1.0);
        weight *= 0.55;
        scale *= 2.03;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_noise_is_continuous_and_spans_the_unit_interval() {
        let row: Vec<f32> = (0..4000).map(|i| value(i as f32 * 0.01, 0.3, 7)).collect();
        assert!(row.windows(2).all(|w| (w[0] - w[1]).abs() < 0.03));
        let (low, high) = row.iter().fold((1f32, 0f32), |(l, h), &v| (l.min(v), h.max(v)));
        assert!(low >= 0.0 && high <= 1.0 && high - low > 0.6);
    }

    #[test]
    fn detail_below_the_footprint_vanishes() {
        assert_eq!(fbm(3.7, 1.2, 5, 4, 10.0), 0.5);
    }
}
