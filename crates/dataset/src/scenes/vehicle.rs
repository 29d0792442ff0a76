//! Cars, vans, buses and lorries.
//!
//! Two convex bodies drawn out of a side profile (hull and cabin) on wheels; windows, lights, seams and
//! number plate are painted on. Local `z` runs from tail to nose.

use super::VEHICLE;
use super::camera::Ray;
use super::dice::Dice;
use super::exact::{Rgb, Vec3, fract, grey, mix, ramp, shown, vec3};
use super::noise::fbm;
use super::solid::{Convex, Paint, Pose, Solid, Touch, enter_wheel};

/// The shapes there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Model {
    Saloon,
    Hatchback,
    OffRoad,
    Van,
    Bus,
    Lorry,
}

/// A road vehicle.
#[derive(Clone, Debug)]
pub(super) struct Vehicle {
    model: Model,
    pose: Pose,
    /// Half width, height and half length.
    half: Vec3,
    hull: Convex,
    /// The box around the wheels.
    chassis: Convex,
    cabin: Option<Convex>,
    /// Height where glass begins and ends.
    glass: (f32, f32),
    wheel: f32,
    axles: [f32; 2],
    colour: Rgb,
    trim: Rgb,
    /// Head and tail lights on.
    lamps: f32,
    grain: u32,
}

const HULL: u16 = 0;
const CABIN: u16 = 1;
const WHEEL: u16 = 2;

impl Vehicle {
    /// A vehicle of some `model` at `place`, its nose in the direction `yaw`.
    pub(super) fn roll(dice: &mut Dice, place: Vec3, yaw: f32, model: Model, lamps: f32) -> Self {
        use Model::{Bus, Hatchback, Lorry, OffRoad, Saloon, Van};
        // Length, width, height, height of the hull.
        let (length, width, height, hull) = match model {
            Saloon => (4.6, 1.8, 1.45, 0.92),
            Hatchback => (3.9, 1.7, 1.5, 0.92),
            OffRoad => (4.6, 1.9, 1.75, 1.08),
            Van => (5.3, 2.0, 2.35, 2.35),
            Bus => (11.0, 2.5, 3.1, 3.1),
            Lorry => (7.5, 2.4, 3.2, 3.2),
        };
        let scale = dice.between(0.93, 1.07);
        let half = vec3(width / 2.0, height * scale, length / 2.0 * scale);
        let (z, h) = (half.z, hull * scale);
        let wheel = if matches!(model, Bus | Lorry) { 0.48 } else { 0.33 };
        let floor = wheel * 0.65;
        let profile = match model {
            Saloon => vec![
                (-z, 0.45),
                (-z + 0.08, h),
                (z - 1.1, h),
                (z - 0.06, h * 0.78),
                (z, 0.45),
                (z - 0.1, floor),
                (-z + 0.1, floor),
            ],
            Hatchback | OffRoad => vec![
                (-z, 0.45),
                (-z + 0.05, h),
                (z - 0.9, h),
                (z - 0.05, h * 0.84),
                (z, 0.45),
                (z - 0.1, floor),
                (-z + 0.1, floor),
            ],
            Van => vec![
                (-z, floor),
                (-z + 0.06, h),
                (z - 1.5, h),
                (z - 0.75, h * 0.55),
                (z, h * 0.44),
                (z, floor),
            ],
            Bus => vec![(-z, floor), (-z + 0.1, h), (z - 0.25, h), (z, h * 0.5), (z, floor)],
            Lorry => vec![(-z, floor), (-z, h), (z - 1.9, h), (z - 0.25, h * 0.78), (z, h * 0.4), (z, floor)],
        };
        let cabin = match model {
            Saloon => Some(vec![
                (-z + 0.35, h - 0.02),
                (-z + 1.05, half.y),
                (z - 2.1, half.y),
                (z - 1.15, h - 0.02),
            ]),
            Hatchback => Some(vec![
                (-z + 0.02, h - 0.02),
                (-z + 0.45, half.y),
                (z - 1.9, half.y),
                (z - 0.95, h - 0.02),
            ]),
            OffRoad => Some(vec![
                (-z + 0.04, h - 0.02),
                (-z + 0.25, half.y),
                (z - 2.0, half.y),
                (z - 1.25, h - 0.02),
            ]),
            _ => None,
        };
        let paints = [
            shown(190, 192, 194),
            shown(228, 228, 226),
            shown(40, 42, 46),
            shown(110, 114, 118),
            shown(150, 34, 34),
            shown(44, 66, 120),
            shown(70, 92, 70),
            shown(150, 138, 110),
            shown(120, 80, 56),
            shown(196, 170, 60),
        ];
        Self {
            model,
            pose: Pose::new(place, yaw),
            half,
            chassis: Convex::cuboid(vec3(-half.x - 0.02, 0.0, -z), vec3(half.x + 0.02, 2.1 * wheel, z)),
            hull: Convex::extruded(&profile, half.x, 0.03),
            cabin: cabin.map(|outline| Convex::extruded(&outline, half.x + h * 0.22, 0.28)),
            glass: match model {
                Van => (h * 0.52, h * 0.82),
                Bus => (h * 0.4, h * 0.82),
                Lorry => (h * 0.42, h * 0.74),
                _ => (h + 0.02, half.y - 0.09),
            },
            wheel,
            axles: [-z + 0.19 * 2.0 * z, z - 0.18 * 2.0 * z],
            colour: dice.tint(&paints),
            trim: dice.tint(&paints),
            lamps,
            grain: dice.grain(),
        }
    }

    fn is_glass(&self, at: Vec3, normal: Vec3, part: u16) -> bool {
        if at.y < self.glass.0 || at.y > self.glass.1 || normal.y > 0.9 {
            return false;
        }
        let sideways = normal.x.abs() > 0.6;
        match (self.model, part) {
            (_, CABIN) if sideways => {
                let pillar = |z: f32| (at.z - z).abs() < 0.05;
                !(pillar(-0.15) || pillar(-self.half.z * 0.55))
            }
            (_, CABIN) => at.x.abs() < self.half.x * 0.86,
            (Model::Bus, HULL) if sideways => {
                (at.z * 0.66 - (at.z * 0.66).floor()) > 0.08 && at.z.abs() < self.half.z - 0.3
            }
            (Model::Van | Model::Lorry, HULL) if sideways => {
                (self.half.z - 2.1..self.half.z - 1.1).contains(&at.z)
            }
            (Model::Lorry | Model::Van, HULL) => normal.z > 0.0 && at.x.abs() < self.half.x * 0.85,
            (Model::Bus, HULL) => at.x.abs() < self.half.x * 0.88,
            _ => false,
        }
    }

    /// Lights, plate, grille and bumpers on nose and tail.
    fn end_detail(&self, at: Vec3, nose: bool) -> Option<(Rgb, Rgb)> {
        let (x, y) = (at.x.abs() / self.half.x, at.y);
        let level = if self.half.y > 2.0 { 0.75 } else { 0.66 };
        if (y - level).abs() < 0.1 && x > 0.6 && x < 0.95 {
            let on = self.lamps.max(0.08);
            return Some(if nose {
                (grey(0.7), shown(255, 240, 205) * (1.6 * on))
            } else {
                (shown(140, 20, 18), shown(200, 20, 14) * (0.9 * on))
            });
        }
        if (y - level + 0.12).abs() < 0.07 && x < 0.3 {
            return Some((grey(0.65), grey(0.0)));
        }
        if y < 0.48 {
            return Some((mix(self.colour, grey(0.05), 0.7), grey(0.0)));
        }
        (nose && (y - level).abs() < 0.09 && x < 0.5).then_some((grey(0.04), grey(0.0)))
    }

    fn body(&self, at: Vec3, normal: Vec3, footprint: f32) -> (Rgb, f32, Rgb) {
        if normal.z.abs() > 0.6
            && let Some((colour, glow)) = self.end_detail(at, normal.z > 0.0)
        {
            return (colour, 0.08, glow);
        }
        let dirt = fbm(at.z * 1.5, at.y * 2.5, self.grain, 3, footprint * 2.0);
        let seam = normal.x.abs() > 0.6
            && at.y > 0.4
            && [-0.15, 0.95, -1.2].iter().any(|z| (at.z - z).abs() < 0.025);
        let stripe = self.half.y > 2.0 && (at.y - self.half.y * 0.3).abs() < 0.22;
        let cargo = self.model == Model::Lorry && at.z < self.half.z - 2.2 && at.y > 0.9;
        let mut colour = if stripe || cargo { self.trim } else { self.colour };
        if cargo {
            let ribs = fract((at.z + at.x) * 2.2) < 0.2 || at.y > self.half.y - 0.15;
            colour = colour * if ribs { 0.6 } else { 1.0 };
        }
        if at.y < 0.42 || seam {
            colour = colour * 0.45;
        }
        let grimy = 0.7 + 0.35 * dirt - 0.25 * ramp(0.8, 0.2, at.y);
        (colour * grimy, if normal.y > 0.5 { 0.22 } else { 0.12 }, grey(0.0))
    }
}

impl Solid for Vehicle {
    fn bounds(&self) -> (Vec3, Vec3) {
        let reach = vec3(self.half.x + 0.05, 0.0, self.half.z + 0.05);
        self.pose.bounds(-reach, vec3(reach.x, self.half.y, reach.z))
    }

    fn cast(&self, ray: &Ray) -> Option<Touch> {
        let ray = self.pose.local_ray(ray);
        let nearer = |best: Option<Touch>, part, hit: Option<(f32, Vec3)>| match hit {
            Some((t, normal)) if best.is_none_or(|b| t < b.t) => {
                Some(Touch { t, at: ray.at(t), normal, part })
            }
            _ => best,
        };
        let mut best = nearer(None, HULL, self.hull.enter(&ray));
        best = nearer(best, CABIN, self.cabin.as_ref().and_then(|cabin| cabin.enter(&ray)));
        // Wheels show beneath the hull or low on its flank; most rays can do without them.
        let low = best.map_or_else(|| self.chassis.enter(&ray).is_some(), |b| b.at.y < 2.2 * self.wheel);
        if !low {
            return best;
        }
        for z in self.axles {
            for x in [-self.half.x, self.half.x - 0.21] {
                let hit = enter_wheel(&ray, (x - 0.01, x + 0.22), (self.wheel, z), self.wheel);
                best = nearer(best, WHEEL, hit);
            }
        }
        best
    }

    fn paint(&self, touch: &Touch, footprint: f32) -> Paint {
        let (at, normal) = (touch.at, touch.normal);
        let (albedo, gloss, glow) = if touch.part == WHEEL {
            let nearest = self.axles.iter().map(|z| (at.z - z).abs()).fold(f32::MAX, f32::min);
            let radius = (nearest * nearest + (at.y - self.wheel) * (at.y - self.wheel)).sqrt() / self.wheel;
            let rim = normal.x.abs() > 0.5 && radius < 0.62;
            (if rim { grey(0.3) * (0.5 + radius) } else { grey(0.025) }, 0.0, grey(0.0))
        } else if self.is_glass(at, normal, touch.part) {
            (grey(0.03), 0.3, grey(0.0))
        } else {
            self.body(at, normal, footprint)
        };
        Paint { albedo, normal: self.pose.outward(normal), gloss, glow, class: VEHICLE }
    }

    fn contact(&self, ground: Vec3) -> f32 {
        let p = self.pose.local(ground);
        let outside = (p.x.abs() - self.half.x).max(p.z.abs() - self.half.z);
        0.85 * ramp(0.25, -0.35, outside)
    }
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::*;

    #[test]
    fn every_model_is_hit_from_the_side_and_stands_on_its_wheels() {
        use Model::{Bus, Hatchback, Lorry, OffRoad, Saloon, Van};
        for model in [Saloon, Hatchback, OffRoad, Van, Bus, Lorry] {
            let car = Vehicle::roll(&mut Dice::new(1, 1), vec3(0.0, 0.0, 0.0), 0.0, model, 0.0);
            let side = |y: f32, z: f32| car.cast(&Ray { origin: vec3(9.0, y, z), dir: vec3(-1.0, 0.0, 0.0) });
            assert_eq!(side(0.6, 0.0).map(|touch| touch.part), Some(HULL), "{model:?}");
            assert_eq!(side(0.1, car.axles[0]).map(|touch| touch.part), Some(WHEEL), "{model:?}");
            assert!(side(car.half.y + 0.2, 0.0).is_none(), "{model:?}");
        }
    }
}
