//! What is far: the sky with its clouds, and the backdrop that stands before it.
//!
//! The backdrop is a stack of silhouettes, nearest first, each a height over the horizon as a function of
//! bearing: rows of trees, wooded or bare hills, a skyline of towers. Each belongs to its class, so "high
//! up and pale" does not mean sky.

use super::camera::Camera;
use super::dice::Dice;
use super::exact::{Rgb, Vec3, fract, mix, ramp, shown};
use super::light::{Light, Weather};
use super::noise::{fbm, speck, value};
use super::{BUILDING, GRASS, SKY, VEGETATION};

#[derive(Clone, Copy, Debug)]
enum Outline {
    Hills,
    Trees,
    Towers,
}

/// One silhouette.
#[derive(Clone, Debug)]
struct Layer {
    outline: Outline,
    class: u8,
    colour: Rgb,
    /// Tangent of the elevation of the lowest and highest point.
    low: f32,
    rise: f32,
    /// Features per unit of bearing (the tangent of the angle off the optical axis).
    pace: f32,
    distance_m: f32,
    grain: u32,
}

/// The sky and the backdrop of one scene.
#[derive(Clone, Debug)]
pub(super) struct Sky {
    layers: Vec<Layer>,
    /// Cloud cover: the noise level above which there is cloud, and how soft its edge is.
    cover: f32,
    softness: f32,
    cloud_scale: f32,
    cloud: Rgb,
    grain: u32,
}

impl Sky {
    /// `towers`, `trees`, `hills`: how likely each kind of silhouette is.
    pub(super) fn roll(dice: &mut Dice, light: &Light, [towers, trees, hills]: [f32; 3]) -> Self {
        let mut layers = Vec::new();
        if dice.chance(trees) {
            layers.push(Layer::trees(dice));
        }
        if dice.chance(towers) {
            layers.push(Layer::towers(dice));
        }
        if dice.chance(hills) {
            layers.push(Layer::hills(dice));
        }
        let cover = match light.weather {
            Weather::Overcast => dice.between(0.1, 0.4),
            _ => dice.between(0.3, 0.85),
        };
        let bright = (light.sun * 0.35 + light.horizon + light.zenith * 0.4) * 0.62;
        Self {
            layers,
            cover,
            softness: dice.between(0.06, 0.35),
            cloud_scale: dice.between(0.5, 1.8),
            cloud: dice.tint(&[bright]),
            grain: dice.grain(),
        }
    }

    /// Colour (air included) and class in a direction; `dir` has length 1 along the optical axis.
    pub(super) fn look(&self, dir: Vec3, camera: &Camera, light: &Light) -> (Rgb, u8) {
        let flat = (dir.x * dir.x + dir.z * dir.z).sqrt().max(1e-4);
        let (elevation, bearing) = (dir.y / flat, camera.bearing(dir));
        let footprint = camera.footprint(1.0);
        for layer in &self.layers {
            if let Some(colour) = layer.look(bearing, elevation, footprint, light) {
                return (light.through_air(colour, layer.distance_m), layer.class);
            }
        }
        (self.heaven(dir, light), SKY)
    }

    fn heaven(&self, dir: Vec3, light: &Light) -> Rgb {
        let blue = light.sky(dir);
        let dir = dir.unit();
        let reach = self.cloud_scale / (dir.y.max(0.0) + 0.09);
        let (x, y) = (dir.x * reach, dir.z * reach);
        let drift = value(x * 0.7, y * 0.7, self.grain ^ 9) - 0.5;
        let density = fbm(x + drift, y, self.grain, 5, 0.02 * reach);
        let cloud = ramp(self.cover, self.cover + self.softness, density);
        // A second look towards the sun: thicker there means shaded here.
        let towards =
            fbm(x + drift + light.sun_dir.x * 0.3, y + light.sun_dir.z * 0.3, self.grain, 3, 0.02 * reach);
        let lit = (0.85 + 1.6 * (density - towards)).clamp(0.45, 1.15);
        mix(blue, self.cloud * lit, cloud * 0.95)
    }
}

impl Layer {
    fn trees(dice: &mut Dice) -> Self {
        let palette =
            [shown(62, 80, 48), shown(82, 92, 52), shown(110, 92, 50), shown(58, 68, 54), shown(92, 84, 66)];
        Self {
            outline: Outline::Trees,
            class: VEGETATION,
            colour: dice.tint(&palette),
            low: dice.between(0.0, 0.06),
            rise: dice.between(0.03, 0.2),
            pace: dice.between(4.0, 10.0),
            distance_m: dice.between(60.0, 160.0),
            grain: dice.grain(),
        }
    }

    fn towers(dice: &mut Dice) -> Self {
        let palette =
            [shown(150, 150, 150), shown(120, 130, 145), shown(160, 140, 120), shown(100, 105, 112)];
        Self {
            outline: Outline::Towers,
            class: BUILDING,
            colour: dice.tint(&palette),
            low: dice.between(0.03, 0.1),
            rise: dice.between(0.1, 0.5),
            pace: dice.between(5.0, 14.0),
            distance_m: dice.between(120.0, 400.0),
            grain: dice.grain(),
        }
    }

    fn hills(dice: &mut Dice) -> Self {
        let wooded = dice.chance(0.5);
        let woods = [shown(58, 76, 52), shown(74, 84, 60), shown(90, 80, 56)];
        let bare = [shown(128, 124, 84), shown(112, 116, 78), shown(134, 118, 98), shown(104, 112, 70)];
        Self {
            outline: Outline::Hills,
            class: if wooded { VEGETATION } else { GRASS },
            colour: dice.tint(if wooded { &woods } else { &bare }),
            low: dice.between(0.01, 0.08),
            rise: dice.between(0.08, 0.35),
            pace: dice.between(0.8, 2.5),
            distance_m: dice.between(200.0, 900.0),
            grain: dice.grain(),
        }
    }

    /// Its colour without air, or `None` above its outline.
    fn look(&self, bearing: f32, elevation: f32, footprint: f32, light: &Light) -> Option<Rgb> {
        if elevation > self.low + self.rise {
            return None;
        }
        let u = bearing * self.pace;
        match self.outline {
            Outline::Towers => self.tower(u, elevation, light),
            Outline::Hills => {
                let top = self.low + self.rise * fbm(u, 0.5, self.grain, 5, footprint * self.pace);
                let fine = if self.class == VEGETATION { 90.0 } else { 25.0 };
                let grain = fbm(bearing * fine, elevation * fine * 1.6, self.grain ^ 1, 4, footprint * fine);
                let slope = value(u * 2.0, elevation * self.pace * 3.0, self.grain ^ 2);
                (elevation < top).then(|| self.lit(light) * (0.25 + 0.9 * grain + 0.6 * slope))
            }
            Outline::Trees => {
                let crown = fbm(u, 0.5, self.grain, 2, 0.0);
                let edge = fbm(bearing * 60.0, elevation * 60.0, self.grain ^ 1, 3, footprint * 60.0);
                let top = self.low + self.rise * (crown + 0.35 * (edge - 0.5));
                let clump = value(u * 2.5, elevation * self.pace * 2.5, self.grain ^ 2);
                (elevation < top).then(|| self.lit(light) * (0.1 + 0.9 * edge + 0.6 * clump))
            }
        }
    }

    fn lit(&self, light: &Light) -> Rgb {
        self.colour * (light.sun * (0.25 + 0.4 * light.sun_dir.y) + (light.zenith + light.horizon) * 0.5)
    }

    fn tower(&self, u: f32, elevation: f32, light: &Light) -> Option<Rgb> {
        let column = u.floor() as i32;
        let tall = speck(column, 0, self.grain);
        if elevation > self.low + self.rise * tall * tall {
            return None;
        }
        // Windows as a fine grid, some of them lit after dark.
        let (wx, wy) = (u * 9.0, elevation * self.pace * 11.0);
        let glass = fract(wx) > 0.35 && fract(wy) > 0.4;
        let tone = 0.6 + 0.7 * speck(column, 1, self.grain);
        let cast = mix(self.colour, light.zenith * 0.6, 0.6 * speck(column, 2, self.grain));
        let wall = cast * self.lit(light).luma() * (tone / self.colour.luma().max(0.05));
        let lamp = speck(wx as i32, wy as i32, self.grain ^ 3) < light.lamps() * 0.45;
        Some(match (glass, lamp) {
            (true, true) => wall * 0.5 + shown(150, 120, 70) * (light.lamps() * 0.7),
            (true, false) => wall * 0.62,
            _ => wall,
        })
    }
}
