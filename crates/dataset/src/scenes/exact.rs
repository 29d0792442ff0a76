//! Arithmetic with the same bits on every machine.
//!
//! Only `+ - * /`, `sqrt`, `floor` and comparisons are used: IEEE 754 fixes their results, while the
//! `sin`, `exp` and `pow` of the system's maths library differ in the last bit from one platform to
//! the next, which would move a silhouette by a pixel. Angles are in *turns* (1 = 360°), light is
//! linear, and a displayed value is its square root (gamma 2), so that `sqrt` is the whole display curve.

use std::ops::{Add, AddAssign, Mul, Neg, Sub};

/// A point or direction in metres (`x` right, `y` up, `z` ahead), or a linear colour.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Vec3 {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) z: f32,
}

/// A linear colour: `x, y, z` are red, green, blue; 1 is the white of a sunlit sheet.
pub(super) type Rgb = Vec3;

pub(super) const fn vec3(x: f32, y: f32, z: f32) -> Vec3 {
    Vec3 { x, y, z }
}

/// The linear colour that is displayed as `r, g, b` in `0..=255`.
pub(super) const fn shown(r: u8, g: u8, b: u8) -> Rgb {
    const fn linear(v: u8) -> f32 {
        let v = v as f32 / 255.0;
        v * v
    }
    vec3(linear(r), linear(g), linear(b))
}

/// A linear grey.
pub(super) const fn grey(v: f32) -> Rgb {
    vec3(v, v, v)
}

impl Vec3 {
    pub(super) fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y + self.z * other.z
    }

    pub(super) fn unit(self) -> Self {
        self * (1.0 / self.dot(self).sqrt().max(1e-12))
    }

    /// This direction mirrored by a surface with unit `normal`.
    pub(super) fn reflected(self, normal: Self) -> Self {
        self - normal * (2.0 * self.dot(normal))
    }

    /// Luminance of a linear colour.
    pub(super) fn luma(self) -> f32 {
        0.3 * self.x + 0.59 * self.y + 0.11 * self.z
    }

    pub(super) fn map(self, f: impl Fn(f32) -> f32) -> Self {
        vec3(f(self.x), f(self.y), f(self.z))
    }
}

impl Add for Vec3 {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        vec3(self.x + o.x, self.y + o.y, self.z + o.z)
    }
}

impl AddAssign for Vec3 {
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}

impl Sub for Vec3 {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        vec3(self.x - o.x, self.y - o.y, self.z - o.z)
    }
}

impl Neg for Vec3 {
    type Output = Self;
    fn neg(self) -> Self {
        vec3(-self.x, -self.y, -self.z)
    }
}

impl Mul<f32> for Vec3 {
    type Output = Self;
    fn mul(self, s: f32) -> Self {
        vec3(self.x * s, self.y * s, self.z * s)
    }
}

/// Component-wise: a colour seen through, or lit by, another.
impl Mul for Vec3 {
    type Output = Self;
    fn mul(self, o: Self) -> Self {
        vec3(self.x * o.x, self.y * o.y, self.z * o.z)
    }
}

/// `a` at `t = 0`, `b` at `t = 1`.
pub(super) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    a + (b - a) * t
}

/// 0 below `low`, 1 above `high`, smooth between.
pub(super) fn ramp(low: f32, high: f32, v: f32) -> f32 {
    let t = ((v - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// The part of `v` after its floor, in `[0, 1)` also for negative `v`.
pub(super) fn fract(v: f32) -> f32 {
    v - v.floor()
}

/// Sine of an angle in turns; good to 1e-4, and exactly the same everywhere.
pub(super) fn sin_turns(turns: f32) -> f32 {
    let t = fract(turns + 0.25) - 0.25; // [-1/4, 3/4)
    let t = if t > 0.25 { 0.5 - t } else { t }; // the same sine on [-1/4, 1/4]
    let x = t * std::f32::consts::TAU;
    let x2 = x * x;
    x * (1.0 - x2 / 6.0 * (1.0 - x2 / 20.0 * (1.0 - x2 / 42.0 * (1.0 - x2 / 72.0))))
}

/// Cosine of an angle in turns; see [`sin_turns`].
pub(super) fn cos_turns(turns: f32) -> f32 {
    sin_turns(turns + 0.25)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sine_is_close_to_the_real_one() {
        for i in -40..40 {
            let turns = i as f32 * 0.037;
            let want = (turns * std::f32::consts::TAU).sin();
            assert!((sin_turns(turns) - want).abs() < 1e-4, "{turns}");
        }
    }

    #[test]
    fn a_mirrored_direction_keeps_its_length_and_flips_its_normal_part() {
        let miss = vec3(0.6, -0.8, 0.0).reflected(vec3(0.0, 1.0, 0.0)) - vec3(0.6, 0.8, 0.0);
        assert!(miss.dot(miss) < 1e-12);
    }
}
