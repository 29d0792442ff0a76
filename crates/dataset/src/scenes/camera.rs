//! The camera: from a place in the picture to a ray, and from a box in the world to a rectangle.
//!
//! A pinhole with yaw, pitch, a little roll, and an off-centre principal point (as after a crop), so the
//! horizon can be anywhere between 15 % and 75 % of the height without tilting every wall. Ray
//! directions have length 1 along the optical axis: the ray parameter is the depth in metres.

use super::dice::Dice;
use super::exact::{Vec3, cos_turns, sin_turns, vec3};

/// Nearer than this nothing is drawn.
const NEAR_M: f32 = 0.35;

/// A half line `origin + t * dir`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ray {
    pub(super) origin: Vec3,
    pub(super) dir: Vec3,
}

impl Ray {
    pub(super) fn at(&self, t: f32) -> Vec3 {
        self.origin + self.dir * t
    }
}

/// How the picture is taken, apart from its size.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) eye: Vec3,
    /// Heading in turns; 0 looks along the street.
    pub(super) yaw: f32,
    /// Tilt in turns, positive upwards.
    pub(super) pitch: f32,
    pub(super) roll: f32,
    /// Focal length as a multiple of the picture's shorter side.
    pub(super) focal: f32,
    /// Height of the horizon from the top, as a fraction.
    pub(super) horizon: f32,
}

impl View {
    /// A hand-held or windscreen camera standing at `x` beside the street's middle line.
    pub(super) fn roll(dice: &mut Dice, x: f32, yaw: f32) -> Self {
        let height = if dice.chance(0.2) { dice.between(2.2, 7.0) } else { dice.between(1.1, 2.1) };
        Self {
            eye: vec3(x, height, 0.0),
            yaw,
            pitch: dice.between(-0.02, 0.025),
            roll: dice.between(-0.008, 0.008),
            focal: dice.between(0.65, 1.45),
            horizon: dice.between(0.15, 0.45) + dice.between(0.0, 0.30),
        }
    }
}

/// A [`View`] with the picture's size in samples.
#[derive(Debug)]
pub(super) struct Camera {
    pub(super) eye: Vec3,
    right: Vec3,
    up: Vec3,
    forward: Vec3,
    focal_samples: f32,
    centre: (f32, f32),
}

impl Camera {
    /// A camera for a picture of `h × w` samples.
    pub(super) fn new(view: &View, (h, w): (usize, usize)) -> Self {
        let (sin_y, cos_y) = (sin_turns(view.yaw), cos_turns(view.yaw));
        let (sin_p, cos_p) = (sin_turns(view.pitch), cos_turns(view.pitch));
        let (sin_r, cos_r) = (sin_turns(view.roll), cos_turns(view.roll));
        let level = vec3(cos_y, 0.0, -sin_y);
        let forward = vec3(sin_y * cos_p, sin_p, cos_y * cos_p);
        let raised = vec3(-sin_y * sin_p, cos_p, -cos_y * sin_p);
        let focal_samples = view.focal * h.min(w) as f32;
        // The horizon lies `focal * tan(pitch)` below the principal point.
        let centre_y = view.horizon * h as f32 - focal_samples * sin_p / cos_p;
        Self {
            eye: view.eye,
            right: level * cos_r + raised * sin_r,
            up: raised * cos_r - level * sin_r,
            forward,
            focal_samples,
            centre: (w as f32 / 2.0, centre_y),
        }
    }

    /// The ray through the middle of sample `(row, col)`.
    pub(super) fn ray(&self, row: usize, col: usize) -> Ray {
        let u = (col as f32 + 0.5 - self.centre.0) / self.focal_samples;
        let v = (self.centre.1 - row as f32 - 0.5) / self.focal_samples;
        Ray { origin: self.eye, dir: self.forward + self.right * u + self.up * v }
    }

    /// Width of one sample in metres at `depth`.
    pub(super) fn footprint(&self, depth: f32) -> f32 {
        depth / self.focal_samples
    }

    /// Where a direction is left or right of the optical axis: the tangent of its bearing.
    pub(super) fn bearing(&self, dir: Vec3) -> f32 {
        dir.dot(self.right) / dir.dot(self.forward).max(1e-3)
    }

    /// Where an axis-aligned box can be seen, and its nearest depth; `None` if it is behind the camera.
    pub(super) fn frame(&self, (low, high): (Vec3, Vec3)) -> Option<Frame> {
        let corners: [Vec3; 8] = std::array::from_fn(|corner| {
            let pick = |bit: usize, a: f32, b: f32| if corner & bit == 0 { a } else { b };
            vec3(pick(1, low.x, high.x), pick(2, low.y, high.y), pick(4, low.z, high.z)) - self.eye
        });
        let depths = corners.map(|p| p.dot(self.forward));
        let mut frame = Frame { rows: (f32::MAX, f32::MIN), cols: (f32::MAX, f32::MIN), near: f32::MAX };
        for (i, (&p, &depth)) in corners.iter().zip(&depths).enumerate() {
            if depth >= NEAR_M {
                self.widen(&mut frame, p, depth);
                continue;
            }
            // Behind the camera projection means nothing: cut the edges at the near plane.
            for other in [i ^ 1, i ^ 2, i ^ 4].into_iter().filter(|&other| depths[other] > NEAR_M) {
                let share = (NEAR_M - depth) / (depths[other] - depth);
                self.widen(&mut frame, p + (corners[other] - p) * share, NEAR_M);
            }
        }
        (frame.near < f32::MAX).then_some(frame)
    }

    /// Makes room in `frame` for the point `p` (relative to the eye), with a sample to spare.
    fn widen(&self, frame: &mut Frame, p: Vec3, depth: f32) {
        let row = self.centre.1 - p.dot(self.up) / depth * self.focal_samples;
        let col = self.centre.0 + p.dot(self.right) / depth * self.focal_samples;
        frame.rows = (frame.rows.0.min(row - 1.0), frame.rows.1.max(row + 1.0));
        frame.cols = (frame.cols.0.min(col - 1.0), frame.cols.1.max(col + 1.0));
        frame.near = frame.near.min(depth);
    }
}

/// A rectangle of samples and the depth in front of which it is empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) rows: (f32, f32),
    pub(super) cols: (f32, f32),
    pub(super) near: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framed_box_contains_the_rays_that_reach_it() {
        let view =
            View { eye: vec3(0.5, 1.6, 0.0), yaw: 0.04, pitch: 0.02, roll: 0.005, focal: 1.0, horizon: 0.4 };
        let camera = Camera::new(&view, (100, 120));
        let target = vec3(1.0, 2.0, 12.0);
        let frame = camera.frame((target, target)).expect("it is ahead");
        let (row, col) = ((frame.rows.0 + 1.0) as usize, (frame.cols.0 + 1.0) as usize);
        let miss = camera.ray(row, col).at(frame.near) - target;
        assert!(miss.dot(miss).sqrt() < 1.5 * camera.footprint(frame.near));
        assert!(camera.frame((vec3(0.0, 0.0, -9.0), vec3(1.0, 1.0, -8.0))).is_none());
    }
}
