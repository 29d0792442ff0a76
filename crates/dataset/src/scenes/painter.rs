//! From a world to linear light and labels: visibility, shadow, mirror, air.
//!
//! Every pixel is four samples. A sample's ray is tried against the solids whose frame covers it, nearest
//! first, then meets the ground or the sky. Light is averaged over the four samples; the label is the
//! majority, so it names what fills most of the pixel.

use super::WATER;
use super::camera::{Camera, Frame, Ray};
use super::exact::{Rgb, Vec3, grey, vec3};
use super::solid::Touch;
use super::world::World;

/// Samples per pixel side.
const SAMPLES: usize = 2;
/// Ground farther than this belongs to the backdrop.
const GROUND_REACH_M: f32 = 900.0;
/// A low sun would throw shadows across the whole plan; they are cut here.
const SHADOW_REACH_M: f32 = 30.0;

/// Linear light and class of every pixel, row by row.
pub(super) struct Exposure {
    pub(super) light: Vec<Rgb>,
    pub(super) classes: Vec<u8>,
}

/// The region of ground that a solid may shade or touch.
struct Patch {
    low: Vec3,
    high: Vec3,
    solid: usize,
}

impl Patch {
    fn covers(&self, p: Vec3) -> bool {
        p.x > self.low.x && p.x < self.high.x && p.z > self.low.z && p.z < self.high.z
    }
}

/// A world prepared for one picture.
struct Painter<'a> {
    world: &'a World,
    camera: Camera,
    /// Solids in view, nearest first.
    frames: Vec<(Frame, usize)>,
    shadows: Vec<Patch>,
    contacts: Vec<Patch>,
    /// Share of the sun that reaches each solid.
    lit: Vec<f32>,
}

/// Paints `h × w` pixels.
pub(super) fn expose(world: &World, (h, w): (usize, usize)) -> Exposure {
    let painter = Painter::new(world, (h * SAMPLES, w * SAMPLES));
    let mut exposure = Exposure { light: vec![grey(0.0); h * w], classes: vec![0; h * w] };
    let mut samples = vec![(grey(0.0), 0u8); SAMPLES * SAMPLES * w]; // the samples of one row of pixels
    for row in 0..h {
        for sub in 0..SAMPLES {
            painter.row(row * SAMPLES + sub, &mut samples[sub * SAMPLES * w..][..SAMPLES * w]);
        }
        for col in 0..w {
            let block: [(Rgb, u8); 4] =
                std::array::from_fn(|i| samples[(i / SAMPLES) * SAMPLES * w + col * SAMPLES + i % SAMPLES]);
            let sum = block.iter().fold(grey(0.0), |sum, s| sum + s.0);
            exposure.light[row * w + col] = sum * 0.25;
            exposure.classes[row * w + col] = majority(block.map(|s| s.1));
        }
    }
    exposure
}

/// The commonest of four classes; of two equally common ones the first met.
fn majority(classes: [u8; 4]) -> u8 {
    let votes = |class: u8| classes.iter().filter(|&&c| c == class).count();
    classes.into_iter().rev().max_by_key(|&class| votes(class)).unwrap_or(classes[0])
}

impl<'a> Painter<'a> {
    fn new(world: &'a World, samples: (usize, usize)) -> Self {
        let camera = Camera::new(&world.view, samples);
        let mut frames: Vec<_> = (world.solids.iter().enumerate())
            .filter_map(|(i, solid)| Some((camera.frame(solid.bounds())?, i)))
            .filter(|(frame, _)| frame.cols.1 > 0.0 && frame.cols.0 < samples.1 as f32)
            .collect();
        frames.sort_by(|a, b| a.0.near.total_cmp(&b.0.near));
        let shadows = if world.light.sun.luma() > 0.3 { world.shadows() } else { Vec::new() };
        let contacts = world.contacts();
        let mut painter = Self { world, camera, frames, shadows, contacts, lit: Vec::new() };
        painter.lit = (0..world.solids.len()).map(|i| painter.sun_on(i)).collect();
        painter
    }

    /// How much sun a solid as a whole receives.
    fn sun_on(&self, solid: usize) -> f32 {
        let (low, high) = self.world.solids[solid].bounds();
        if high.y > 6.0 {
            return 1.0;
        }
        let middle = vec3((low.x + high.x) / 2.0, high.y * 0.7, (low.z + high.z) / 2.0);
        let shaded = self
            .shadows
            .iter()
            .any(|patch| patch.solid != solid && patch.covers(middle) && self.blocks(patch, middle));
        if shaded { 0.15 } else { 1.0 }
    }

    fn blocks(&self, patch: &Patch, from: Vec3) -> bool {
        self.world.solids[patch.solid].blocks(&Ray { origin: from, dir: self.world.light.sun_dir })
    }

    /// Fills one row of samples.
    fn row(&self, row: usize, out: &mut [(Rgb, u8)]) {
        let at = row as f32;
        let active: Vec<_> = self.frames.iter().filter(|(f, _)| f.rows.0 <= at && f.rows.1 >= at).collect();
        for (col, sample) in out.iter_mut().enumerate() {
            let ray = self.camera.ray(row, col);
            let mut best: Option<(Touch, usize)> = None;
            for (frame, solid) in &active {
                let reach = best.map_or(f32::MAX, |(touch, _)| touch.t);
                if frame.near > reach {
                    break;
                }
                if (frame.cols.0..=frame.cols.1).contains(&(col as f32))
                    && let Some(touch) = self.world.solids[*solid].cast(&ray)
                    && touch.t < reach
                    && touch.t > 0.2
                {
                    best = Some((touch, *solid));
                }
            }
            *sample = self.sample(&ray, best);
        }
    }

    fn sample(&self, ray: &Ray, nearest: Option<(Touch, usize)>) -> (Rgb, u8) {
        let to_ground = if ray.dir.y < 0.0 { -ray.origin.y / ray.dir.y } else { f32::MAX };
        match nearest {
            Some((touch, solid)) if touch.t < to_ground => self.solid(ray, &touch, solid),
            _ if to_ground < GROUND_REACH_M => self.ground(ray, to_ground),
            _ => self.world.sky.look(ray.dir, &self.camera, &self.world.light),
        }
    }

    fn solid(&self, ray: &Ray, touch: &Touch, solid: usize) -> (Rgb, u8) {
        let light = &self.world.light;
        let paint = self.world.solids[solid].paint(touch, self.camera.footprint(touch.t));
        let mirror = if paint.gloss > 0.0 {
            let towards = ray.dir.reflected(paint.normal);
            // Below the horizon a mirror shows the street: about a third as bright as the sky.
            light.sky(towards) * if towards.y < 0.0 { 0.3 } else { 0.9 }
        } else {
            grey(0.0)
        };
        let colour = light.shade(&paint, self.lit[solid], mirror);
        (light.through_air(colour, touch.t), paint.class)
    }

    fn ground(&self, ray: &Ray, t: f32) -> (Rgb, u8) {
        let World { light, ground, sky, solids, .. } = self.world;
        let p = ray.at(t);
        // A sample covers a long strip of ground when the view grazes it.
        let grazing = -ray.dir.y / ray.dir.dot(ray.dir).sqrt();
        let paint = ground.paint(p, self.camera.footprint(t) / grazing.sqrt(), light);
        let mirror = if paint.gloss > 0.0 {
            let towards = ray.dir.reflected(paint.normal);
            let upwards = vec3(towards.x, towards.y.abs(), towards.z);
            // Open water mirrors the far shore; a wet street mostly mirrors sky.
            if paint.class == WATER { sky.look(upwards, &self.camera, light).0 } else { light.sky(upwards) }
        } else {
            grey(0.0)
        };
        let shaded = self.shadows.iter().any(|patch| patch.covers(p) && self.blocks(patch, p));
        let near = self.contacts.iter().filter(|patch| patch.covers(p));
        let open = near.fold(1.0, |open, patch| open * (1.0 - solids[patch.solid].contact(p)));
        let colour = light.shade(&paint, if shaded { 0.0 } else { 1.0 }, mirror) * open;
        (light.through_air(colour, t), paint.class)
    }
}

impl World {
    /// Where each solid may throw its shadow.
    fn shadows(&self) -> Vec<Patch> {
        let sun = self.light.sun_dir;
        let throw = |solid: usize| {
            let (low, high) = self.solids[solid].bounds();
            let reach = (high.y / sun.y.max(0.02)).min(SHADOW_REACH_M);
            let (dx, dz) = (-sun.x * reach, -sun.z * reach);
            Patch {
                low: vec3(low.x + dx.min(0.0), 0.0, low.z + dz.min(0.0)),
                high: vec3(high.x + dx.max(0.0), 0.0, high.z + dz.max(0.0)),
                solid,
            }
        };
        (0..self.solids.len()).map(throw).collect()
    }

    /// The ground right around each solid.
    fn contacts(&self) -> Vec<Patch> {
        let rim = vec3(0.5, 0.0, 0.5);
        let around = |solid: usize| {
            let (low, high) = self.solids[solid].bounds();
            Patch { low: low - rim, high: high + rim, solid }
        };
        (0..self.solids.len()).map(around).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::majority;

    #[test]
    fn the_majority_wins_and_ties_go_to_the_first() {
        assert_eq!(majority([1, 2, 2, 2]), 2);
        assert_eq!(majority([3, 1, 1, 3]), 3);
        assert_eq!(majority([4, 5, 6, 7]), 4);
    }
}
