//! Trees, bushes and hedges.
//!
//! A tree is a flat figure that faces the camera: a trunk with a few boughs, and a crown of round clumps.
//! Leaf-scale noise frays each clump's rim, opens holes to the sky and breaks its shading into lit and
//! dark leaves; every clump is shaded as the ball it stands for. Shadows use the balls themselves.

use super::VEGETATION;
use super::camera::Ray;
use super::dice::Dice;
use super::exact::{Rgb, Vec3, cos_turns, mix, ramp, shown, sin_turns, vec3};
use super::noise::{fbm, value};
use super::solid::{Convex, Paint, Pose, Solid, Touch};

/// One round clump of leaves: centre in the figure's plane (`u` across, `v` up), and radius.
#[derive(Clone, Copy, Debug)]
struct Clump {
    u: f32,
    v: f32,
    radius: f32,
}

/// A bough or trunk: a line from `(u, v)` to `(u, v)` that tapers.
type Bough = [(f32, f32, f32); 2];

/// A tree or bush.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// Local `z` points at the camera.
    pose: Pose,
    clumps: Vec<Clump>,
    boughs: Vec<Bough>,
    leaf: Rgb,
    /// A second leaf colour: blossom, turning leaves, young shoots.
    other: Rgb,
    bark: Rgb,
    /// Size of a leaf bunch in metres, and share of open holes.
    bunch: f32,
    holes: f32,
    reach: Vec3,
    grain: u32,
}

const LEAF: u16 = 0;
const BARK: u16 = 1;

/// The habit of a tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Habit {
    Broad,
    Conifer,
    Column,
    Bush,
}

impl Tree {
    /// A tree `height` metres tall at `place`, facing `eye`.
    pub(super) fn roll(dice: &mut Dice, place: Vec3, eye: Vec3, height: f32, habit: Habit) -> Self {
        let to_eye = vec3(eye.x - place.x, 0.0, eye.z - place.z).unit();
        let clear = if habit == Habit::Bush { 0.0 } else { height * dice.between(0.16, 0.36) };
        let clumps = clumps(dice, habit, height, clear);
        let leaves = [
            shown(72, 98, 44),
            shown(88, 108, 48),
            shown(58, 82, 48),
            shown(108, 116, 62),
            shown(64, 84, 66),
            shown(158, 112, 48),
            shown(140, 80, 46),
            shown(120, 104, 70),
        ];
        let leaf = dice.tint(&leaves);
        let other = if dice.chance(0.25) {
            dice.tint(&[shown(200, 160, 60), shown(170, 84, 50), shown(214, 190, 190)])
        } else {
            leaf * 1.4
        };
        let trunk = height * dice.between(0.012, 0.03) + 0.04;
        let mut boughs = vec![[(0.0, -0.1, trunk * 1.3), (0.0, clear + height * 0.25, trunk * 0.6)]];
        if habit == Habit::Broad {
            boughs
                .extend(clumps.iter().take(5).map(|c| [(0.0, clear * 0.9, trunk * 0.55), (c.u, c.v, 0.03)]));
        }
        let reach = clumps.iter().fold(vec3(0.3, 0.0, 0.3), |r, c| {
            vec3(r.x.max(c.u.abs() + c.radius * 1.2), r.y.max(c.v + c.radius * 1.2), r.z.max(c.radius))
        });
        Self {
            pose: Pose::facing(place, to_eye.x, to_eye.z),
            clumps,
            boughs: if habit == Habit::Bush { Vec::new() } else { boughs },
            leaf,
            other,
            bark: dice.tint(&[shown(96, 84, 70), shown(70, 62, 54), shown(130, 122, 112)]),
            bunch: dice.between(0.16, 0.4) * (height / 7.0).clamp(0.35, 1.3),
            holes: if dice.chance(0.2) { dice.between(0.45, 0.6) } else { dice.between(0.18, 0.42) },
            reach,
            grain: dice.grain(),
        }
    }

    /// The clump seen at `(u, v)`: how far it bulges towards the eye, and its ball's normal.
    fn clump_at(&self, u: f32, v: f32) -> Option<(f32, Vec3)> {
        let (mut best, mut frayed) = (None, None);
        for clump in &self.clumps {
            let (du, dv) = ((u - clump.u) / clump.radius, (v - clump.v) / clump.radius);
            let q = du * du + dv * dv;
            if q > 1.4 {
                continue;
            }
            let leaf = *frayed.get_or_insert_with(|| fbm(u / self.bunch, v / self.bunch, self.grain, 4, 0.0));
            if q + 1.5 * (leaf - 0.5) > 1.0 || leaf + 0.28 * q > 1.28 - self.holes * 0.9 {
                continue;
            }
            let bulge = (1.0 - q.min(1.0)).sqrt();
            let depth = bulge * clump.radius;
            if best.is_none_or(|(d, _)| depth > d) {
                best = Some((depth, vec3(du, dv, bulge + 0.15).unit()));
            }
        }
        best
    }

    fn bough_at(&self, u: f32, v: f32) -> Option<f32> {
        self.boughs.iter().find_map(|&[(u0, v0, r0), (u1, v1, r1)]| {
            let (du, dv) = (u1 - u0, v1 - v0);
            let along = (((u - u0) * du + (v - v0) * dv) / (du * du + dv * dv)).clamp(0.0, 1.0);
            let (x, y) = (u - u0 - along * du, v - v0 - along * dv);
            let radius = r0 + (r1 - r0) * along;
            (x * x + y * y < radius * radius).then(|| (x / radius).clamp(-1.0, 1.0))
        })
    }
}

fn clumps(dice: &mut Dice, habit: Habit, height: f32, clear: f32) -> Vec<Clump> {
    let crown = height - clear;
    let n = dice.count(8, 14);
    let spread = dice.between(0.28, 0.46);
    (0..n)
        .map(|i| {
            let level = i as f32 / (n - 1) as f32;
            match habit {
                Habit::Broad | Habit::Bush => {
                    let turn = dice.between(0.0, 1.0);
                    let out = dice.between(0.1, 1.0).sqrt();
                    let wide = if habit == Habit::Bush { 1.2 } else { 1.0 };
                    Clump {
                        u: cos_turns(turn) * out * crown * spread * wide,
                        v: clear + crown * (0.5 + 0.32 * sin_turns(turn) * out),
                        radius: crown * dice.between(0.14, 0.28),
                    }
                }
                Habit::Conifer => Clump {
                    u: dice.between(-0.06, 0.06) * crown,
                    v: clear * 0.5 + (height - clear * 0.5) * (0.06 + 0.88 * level),
                    radius: crown * (0.03 + 0.25 * (1.0 - level)),
                },
                Habit::Column => Clump {
                    u: dice.between(-0.05, 0.05) * crown,
                    v: clear + crown * (0.08 + 0.84 * level),
                    radius: crown * (0.08 + 0.1 * sin_turns(0.06 + 0.4 * level)),
                },
            }
        })
        .collect()
}

impl Solid for Tree {
    fn bounds(&self) -> (Vec3, Vec3) {
        let r = self.reach;
        // As a ball seen from any side: its shadow is cast by the balls, not by the flat figure.
        let wide = r.x.max(r.z);
        self.pose.bounds(vec3(-wide, 0.0, -wide), vec3(wide, r.y, wide))
    }

    fn cast(&self, ray: &Ray) -> Option<Touch> {
        let ray = self.pose.local_ray(ray);
        let t = -ray.origin.z / ray.dir.z;
        let at = ray.at(t);
        // Written so that a ray along the plane (t not finite) misses.
        let inside = t > 0.0 && at.x.abs() <= self.reach.x && (0.0..=self.reach.y).contains(&at.y);
        if !inside {
            return None;
        }
        if let Some((depth, normal)) = self.clump_at(at.x, at.y) {
            return Some(Touch { t: t + depth / ray.dir.z, at, normal, part: LEAF });
        }
        let side = self.bough_at(at.x, at.y)?;
        let normal = vec3(side, 0.0, (1.0 - side * side).sqrt());
        Some(Touch { t, at, normal, part: BARK })
    }

    fn paint(&self, touch: &Touch, footprint: f32) -> Paint {
        let (u, v) = (touch.at.x, touch.at.y);
        let normal = self.pose.outward(touch.normal);
        if touch.part == BARK {
            let bark = fbm(u * 14.0, v * 3.0, self.grain ^ 3, 3, footprint * 8.0);
            return Paint::matt(VEGETATION, self.bark * (0.3 + 1.2 * bark), normal);
        }
        let scale = 1.0 / self.bunch;
        let leaf = fbm(u * scale, v * scale, self.grain, 3, 0.0);
        let tiny = 17.0; // single leaves, about six centimetres
        let fine = fbm(u * tiny, v * tiny, self.grain ^ 5, 3, footprint * tiny);
        let sprig = fbm(u * 6.0, v * 6.0, self.grain ^ 6, 2, footprint * 6.0);
        let hue = ramp(0.35, 0.7, value(u * scale * 0.4, v * scale * 0.4, self.grain ^ 7));
        // Leaves near a gap are in the crown's own shade; undersides of clumps are darker still.
        let shade = 0.25
            + 1.1 * ramp(0.75, 0.25, leaf)
            + 1.3 * (fine - 0.5)
            + 1.1 * (sprig - 0.5)
            + 0.35 * touch.normal.y;
        let colour = mix(self.leaf, self.other, hue * 0.6);
        Paint::matt(VEGETATION, colour * shade.max(0.06), normal)
    }

    fn blocks(&self, ray: &Ray) -> bool {
        let across = self.pose.outward(vec3(1.0, 0.0, 0.0));
        let trunk = super::solid::enter_column(
            ray,
            (self.pose.place.x, self.pose.place.z),
            0.2,
            (0.0, self.reach.y * 0.6),
        );
        trunk.is_some() && !self.boughs.is_empty()
            || self.clumps.iter().any(|clump| {
                let centre = self.pose.place + across * clump.u + vec3(0.0, clump.v, 0.0);
                let away = centre - ray.origin;
                let nearest = ray.at(away.dot(ray.dir)) - centre;
                let q = nearest.dot(nearest) / (clump.radius * clump.radius);
                let gap = value(nearest.x * 2.5 + clump.u, nearest.z * 2.5 + clump.v, self.grain ^ 13);
                q < 1.0 && gap > 0.3 + 0.3 * q
            })
    }

    fn contact(&self, ground: Vec3) -> f32 {
        let away = ground - self.pose.place;
        0.35 * ramp(self.reach.x, 0.0, (away.x * away.x + away.z * away.z).sqrt())
    }
}

/// A clipped hedge: a box with a leafy, uneven rim.
#[derive(Clone, Debug)]
pub(super) struct Hedge {
    pose: Pose,
    half: Vec3,
    body: Convex,
    leaf: Rgb,
    grain: u32,
}

impl Hedge {
    /// A hedge `length` metres long in the direction of `yaw`.
    pub(super) fn roll(dice: &mut Dice, place: Vec3, yaw: f32, length: f32) -> Self {
        let half = vec3(dice.between(0.3, 0.7), dice.between(0.7, 2.4), length / 2.0);
        Self {
            pose: Pose::new(place, yaw),
            half,
            body: Convex::cuboid(vec3(-half.x, 0.0, -half.z), half),
            leaf: dice.tint(&[
                shown(66, 90, 46),
                shown(84, 96, 50),
                shown(58, 74, 52),
                shown(120, 90, 56),
                shown(104, 70, 62),
            ]),
            grain: dice.grain(),
        }
    }
}

impl Solid for Hedge {
    fn bounds(&self) -> (Vec3, Vec3) {
        self.pose.bounds(vec3(-self.half.x, 0.0, -self.half.z), self.half)
    }

    fn cast(&self, ray: &Ray) -> Option<Touch> {
        let ray = self.pose.local_ray(ray);
        let (t, normal) = self.body.enter(&ray)?;
        let at = ray.at(t);
        let ragged = fbm(at.z * 2.2 + at.x, at.y * 2.2, self.grain, 3, 0.0);
        let top = self.half.y * (1.02 - 0.3 * ragged);
        (at.y < top).then_some(Touch { t, at, normal, part: 0 })
    }

    fn paint(&self, touch: &Touch, footprint: f32) -> Paint {
        let Vec3 { x, y, z } = touch.at;
        let leaf = fbm(z * 5.0 + x * 5.0, y * 5.0 + x * 3.0, self.grain ^ 1, 4, footprint * 5.0);
        let clump = value(z * 1.3, y * 1.3, self.grain ^ 2);
        let gain = 0.05 + 1.3 * leaf + 0.5 * (clump - 0.3) - 0.3 * ramp(0.5, 0.0, y);
        let rounded = (touch.normal + vec3(0.0, 0.8 * ramp(0.6, 1.0, y / self.half.y), 0.0)).unit();
        Paint::matt(VEGETATION, self.leaf * gain.max(0.05), self.pose.outward(rounded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crown_has_leaves_holes_and_a_ragged_rim() {
        let mut dice = Dice::new(3, 0);
        let tree = Tree::roll(&mut dice, vec3(0.0, 0.0, 10.0), vec3(0.0, 1.5, 0.0), 8.0, Habit::Broad);
        let row: Vec<bool> = (0..400)
            .map(|i| {
                let x = (i as f32 - 200.0) / 40.0;
                let ray = Ray { origin: vec3(0.0, 1.5, 0.0), dir: vec3(x / 10.0, 0.35, 1.0) };
                tree.cast(&ray).is_some()
            })
            .collect();
        assert!(row.iter().filter(|&&hit| hit).count() > 80);
        assert!(row.windows(2).filter(|w| w[0] != w[1]).count() > 4);
    }
}
