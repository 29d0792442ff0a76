//! Fences and walls: long, thin, and between the street and what lies beside it.
//!
//! One slab per run of fence with a pattern that may let the view through: pickets, boards, railings,
//! crash barriers, or solid walls of brick and rubble in the very colours of houses and roads.

use super::BARRIER;
use super::camera::Ray;
use super::dice::Dice;
use super::exact::{Rgb, Vec3, fract, shown, vec3};
use super::masonry::laid;
use super::noise::{fbm, speck};
use super::solid::{Convex, Paint, Pose, Solid, Touch};

/// How it is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Make {
    Pickets,
    Boards,
    Railing,
    CrashBarrier,
    Brick,
    Rubble,
}

#[derive(Clone, Debug)]
pub(super) struct Barrier {
    make: Make,
    pose: Pose,
    half: Vec3,
    slab: Convex,
    colour: Rgb,
    grain: u32,
}

impl Barrier {
    /// A run of `length` metres in the direction `yaw`, centred at `place`.
    pub(super) fn roll(dice: &mut Dice, place: Vec3, yaw: f32, length: f32, make: Make) -> Self {
        let (thick, height) = match make {
            Make::Pickets => (0.05, dice.between(0.9, 1.4)),
            Make::Boards => (0.06, dice.between(1.2, 2.0)),
            Make::Railing => (0.05, dice.between(0.95, 1.25)),
            Make::CrashBarrier => (0.12, dice.between(0.7, 0.9)),
            Make::Brick | Make::Rubble => (0.3, dice.between(0.6, 2.2)),
        };
        let palette: &[Rgb] = match make {
            Make::Pickets => const { &[shown(225, 225, 220), shown(130, 100, 74), shown(84, 104, 80)] },
            Make::Boards => {
                const { &[shown(128, 98, 70), shown(96, 92, 84), shown(74, 92, 70), shown(150, 126, 96)] }
            }
            Make::Railing => const { &[shown(40, 44, 46), shown(70, 90, 84), shown(150, 150, 150)] },
            Make::CrashBarrier => const { &[shown(160, 162, 164), shown(128, 124, 118)] },
            Make::Brick => const { &[shown(146, 92, 72), shown(116, 100, 92), shown(170, 150, 128)] },
            Make::Rubble => const { &[shown(140, 134, 122), shown(116, 110, 100), shown(160, 150, 130)] },
        };
        let half = vec3(thick / 2.0, height, length / 2.0);
        Self {
            make,
            pose: Pose::new(place, yaw),
            half,
            slab: Convex::cuboid(vec3(-half.x, 0.0, -half.z), half),
            colour: dice.tint(palette),
            grain: dice.grain(),
        }
    }

    /// Whether there is material at `z` along and `y` up; `v` is `y` as a share of the height.
    fn is_there(&self, z: f32, y: f32) -> bool {
        let v = y / self.half.y;
        match self.make {
            Make::Pickets => {
                let slat = (fract(z / 0.16) - 0.5).abs();
                let top = 0.9 + 0.2 * (0.5 - slat);
                (slat < 0.36 && v < top) || (0.2..0.3).contains(&v) || (0.7..0.8).contains(&v)
            }
            Make::Railing => {
                fract(z / 0.13) < 0.38 || v > 0.93 || (0.06..0.13).contains(&v) || fract(z / 2.0) < 0.05
            }
            Make::CrashBarrier => v > 0.42 || fract(z / 2.5) < 0.06,
            Make::Rubble => v < 0.88 + 0.12 * speck((z / 0.35).floor() as i32, 0, self.grain),
            Make::Boards | Make::Brick => true,
        }
    }
}

impl Solid for Barrier {
    fn bounds(&self) -> (Vec3, Vec3) {
        self.pose.bounds(vec3(-self.half.x, 0.0, -self.half.z), self.half)
    }

    fn cast(&self, ray: &Ray) -> Option<Touch> {
        let ray = self.pose.local_ray(ray);
        let (t, normal) = self.slab.enter(&ray)?;
        let at = ray.at(t);
        self.is_there(at.z, at.y).then_some(Touch { t, at, normal, part: 0 })
    }

    fn paint(&self, touch: &Touch, footprint: f32) -> Paint {
        let Vec3 { y, z, .. } = touch.at;
        let grain = fbm(z * 3.0, y * 3.0, self.grain, 3, footprint * 3.0);
        let gain = match self.make {
            Make::Boards => (0.4 + 0.8 * grain) * if fract(z / 0.18) < 0.12 { 0.35 } else { 1.0 },
            Make::Brick => laid((z, y), (0.3, 0.11), 0.4, footprint, self.grain) * (0.6 + 0.7 * grain),
            Make::Rubble => laid((z, y), (0.5, 0.3), 0.3, footprint, self.grain) * (0.5 + 0.9 * grain),
            Make::CrashBarrier => {
                (0.6 + 0.5 * grain) * if (0.62..0.72).contains(&(y / self.half.y)) { 0.5 } else { 1.0 }
            }
            Make::Pickets | Make::Railing => 0.6 + 0.6 * grain,
        };
        Paint::matt(BARRIER, self.colour * gain, self.pose.outward(touch.normal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn railings_let_part_of_the_view_through_and_walls_none() {
        let seen = |make| {
            let wall = Barrier::roll(&mut Dice::new(4, 4), vec3(0.0, 0.0, 0.0), 0.0, 8.0, make);
            let hits = (0..300).filter(|&i| wall.is_there(i as f32 * 0.013, 0.5 * wall.half.y)).count();
            hits as f32 / 300.0
        };
        assert!((0.2..0.6).contains(&seen(Make::Railing)));
        assert_eq!(seen(Make::Brick), 1.0);
    }
}
