//! From linear light to bytes: lens, exposure, white balance, noise.
//!
//! Rain in front of the lens, a slight blur, exposure for the picture's own mean, a wrong white balance,
//! vignetting, a display curve (square root) with some contrast, colour stored more coarsely than brightness as
//! JPEG does, and grain that grows in the dark.

use super::dice::Dice;
use super::exact::{Rgb, fract, grey, mix, vec3};
use super::light::{Light, Weather};
use super::noise::{hash, speck, value};

/// One camera's settings and faults.
#[derive(Clone, Debug)]
pub(super) struct Sensor {
    /// Mean linear luminance aimed at.
    target: f32,
    balance: Rgb,
    vignette: f32,
    /// Weight of the four neighbours in one blur pass.
    blur: f32,
    saturation: f32,
    contrast: f32,
    /// Standard deviation of the grain, as a fraction of full scale.
    grain: f32,
    rain: f32,
    seed: u32,
}

impl Sensor {
    pub(super) fn roll(dice: &mut Dice, light: &Light) -> Self {
        let night = light.weather == Weather::Night;
        let (dark, bright) = if night { (0.09, 0.22) } else { (0.24, 0.58) };
        Self {
            target: dice.between(dark, bright),
            balance: vec3(dice.between(0.82, 1.2), 1.0, dice.between(0.8, 1.22)),
            vignette: dice.between(0.0, 0.45),
            blur: if dice.chance(0.4) { dice.between(0.0, 0.16) } else { 0.0 },
            saturation: dice.between(0.55, 1.15),
            contrast: dice.between(0.95, 1.35),
            grain: if night { dice.between(0.015, 0.035) } else { dice.between(0.004, 0.02) },
            rain: if light.wet > 0.0 && dice.chance(0.5) { dice.between(0.15, 0.5) } else { 0.0 },
            seed: dice.grain(),
        }
    }

    /// Bytes `[h, w, 3]` of linear `light` `[h, w]`.
    pub(super) fn develop(&self, mut light: Vec<Rgb>, (h, w): (usize, usize)) -> Vec<u8> {
        if self.rain > 0.0 {
            self.draw_rain(&mut light, (h, w));
        }
        if self.blur > 0.0 {
            light = soften(&light, (h, w), self.blur);
        }
        // Highlights count little, as in a camera's meter.
        let metered: f32 = light.iter().map(|c| c.luma().min(1.0)).sum::<f32>() / light.len() as f32;
        let gain = self.target / metered.max(1e-3);
        let shown: Vec<Rgb> =
            (0..h * w).map(|i| self.display(light[i] * gain, (i / w, i % w), (h, w))).collect();
        let coarse = soften(&soften(&shown, (h, w), 0.2), (h, w), 0.2);
        let mut bytes = Vec::with_capacity(3 * h * w);
        for (i, (sharp, smooth)) in shown.iter().zip(&coarse).enumerate() {
            // Brightness from the sharp picture, colour half from the coarse one.
            let chroma = mix(*sharp - grey(sharp.luma()), *smooth - grey(smooth.luma()), 0.7);
            let noisy = self.speckle(grey(sharp.luma()) + chroma, i as u32);
            bytes.extend([noisy.x, noisy.y, noisy.z].map(|v| (v.clamp(0.0, 1.0) * 255.0 + 0.5) as u8));
        }
        bytes
    }

    /// Display value of one pixel: balance, vignette, shoulder, square root, contrast, saturation.
    fn display(&self, light: Rgb, (row, col): (usize, usize), (h, w): (usize, usize)) -> Rgb {
        let (y, x) = (row as f32 / h as f32 - 0.5, col as f32 / w as f32 - 0.5);
        let corner = 1.0 - self.vignette * 2.0 * (x * x + y * y);
        let shoulder = |v: f32| v * (1.0 + 0.3 * v) / (1.0 + 0.6 * v);
        let curve = |v: f32| (v.sqrt() - 0.45) * self.contrast + 0.45;
        let shown = (light * self.balance * corner).map(|v| curve(shoulder(v.max(0.0))));
        mix(grey(shown.luma()), shown, self.saturation)
    }

    /// Grain: mostly brightness, a little colour; nearly normal (a sum of uniforms).
    fn speckle(&self, shown: Rgb, pixel: u32) -> Rgb {
        let draw = |channel: u32| {
            let bits = hash(pixel as i32, channel as i32, self.seed);
            let sum: u32 = (0..4).map(|i| (bits >> (8 * i)) & 0xFF).sum();
            (sum as f32 - 510.0) * (1.0 / 147.8) // four uniform bytes: mean 510, deviation 147.8
        };
        let strength = self.grain * (1.3 - 0.6 * shown.luma().clamp(0.0, 1.0));
        let common = draw(3) * 0.8;
        shown + vec3(draw(0) * 0.6 + common, draw(1) * 0.6 + common, draw(2) * 0.6 + common) * strength
    }

    /// Short slanted streaks that catch the sky's light.
    fn draw_rain(&self, light: &mut [Rgb], (h, w): (usize, usize)) {
        let mean = light.iter().fold(grey(0.0), |sum, &c| sum + c) * (1.0 / light.len() as f32);
        for (i, pixel) in light.iter_mut().enumerate() {
            let (y, x) = ((i / w) as f32 / h as f32, (i % w) as f32 / h as f32);
            let lane = (x + 0.12 * y) * 110.0;
            let fall = y * 9.0 + 31.0 * speck(lane as i32, 1, self.seed);
            let drop = speck(lane as i32, fall as i32, self.seed ^ 3) < 0.16 && fract(fall) < 0.6;
            let veil = 0.12 * value(x * 3.0, y * 3.0, self.seed ^ 4);
            let share = self.rain * (veil + if drop { 0.35 } else { 0.0 });
            *pixel = mix(*pixel, mean * 1.5, share);
        }
    }
}

/// One pass of a cross-shaped blur with `side` as the weight of each of the four neighbours.
fn soften(image: &[Rgb], (h, w): (usize, usize), side: f32) -> Vec<Rgb> {
    let at = |row: usize, col: usize| image[row.min(h - 1) * w + col.min(w - 1)];
    (0..h * w)
        .map(|i| {
            let (row, col) = (i / w, i % w);
            let ring = at(row.saturating_sub(1), col)
                + at(row + 1, col)
                + at(row, col.saturating_sub(1))
                + at(row, col + 1);
            image[i] * (1.0 - 4.0 * side) + ring * side
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blur_keeps_a_flat_picture_and_spreads_a_point() {
        let flat = soften(&[grey(0.4); 12], (3, 4), 0.2);
        assert!(flat.iter().all(|c| (c.x - 0.4).abs() < 1e-6));
        let mut point = vec![grey(0.0); 9];
        point[4] = grey(1.0);
        let spread = soften(&point, (3, 3), 0.1);
        assert!((spread[4].x - 0.6).abs() < 1e-6 && (spread[1].x - 0.1).abs() < 1e-6 && spread[0].x == 0.0);
    }

    #[test]
    fn exposure_makes_up_for_the_strength_of_the_light() {
        let mut dice = Dice::new(0, 0);
        let mut sensor = Sensor::roll(&mut dice, &Light::roll(&mut Dice::new(0, 0)));
        sensor.rain = 0.0;
        let dim = sensor.develop(vec![grey(0.01); 64], (8, 8));
        let bright = sensor.develop(vec![grey(0.5); 64], (8, 8));
        assert!(dim.iter().zip(&bright).all(|(a, b)| a.abs_diff(*b) <= 1));
    }
}
