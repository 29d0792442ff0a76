//! Things that stand in the world: what a ray meets, and what is seen there.
//!
//! A [`Solid`] answers two questions apart, so that only the nearest hit of a sample is painted:
//! `cast` (geometry) and `paint` (colour, class). Shapes are built from convex bodies (boxes, prisms:
//! half-spaces clipped against the ray) and upright or lying cylinders, in a local frame turned about the
//! vertical. Trees and people are flat figures that face the camera; see their own files.

use super::camera::Ray;
use super::exact::{Rgb, Vec3, cos_turns, grey, sin_turns, vec3};

/// Where a ray meets a solid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    /// Ray parameter: depth in metres.
    pub(super) t: f32,
    /// The point in the solid's own frame.
    pub(super) at: Vec3,
    /// Outward unit normal in the solid's own frame.
    pub(super) normal: Vec3,
    /// Which part of the solid; it decides for itself what that means.
    pub(super) part: u16,
}

/// What is seen at a point, before light.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    /// Linear reflectance.
    pub(super) albedo: Rgb,
    /// Unit normal in the world.
    pub(super) normal: Vec3,
    /// Share of mirrored sky, `[0, 1]`.
    pub(super) gloss: f32,
    /// Light of its own.
    pub(super) glow: Rgb,
    pub(super) class: u8,
}

impl Paint {
    pub(super) fn matt(class: u8, albedo: Rgb, normal: Vec3) -> Self {
        Self { albedo, normal, gloss: 0.0, glow: grey(0.0), class }
    }
}

/// Something that stands in the world.
pub(super) trait Solid {
    /// Axis-aligned box around it: low and high corner.
    fn bounds(&self) -> (Vec3, Vec3);

    /// The nearest point of the ray on it.
    fn cast(&self, ray: &Ray) -> Option<Touch>;

    /// What is seen at `touch`, by a sample that is `footprint` metres wide there.
    fn paint(&self, touch: &Touch, footprint: f32) -> Paint;

    /// Whether it keeps the sun from the start of `ray`.
    fn blocks(&self, ray: &Ray) -> bool {
        self.cast(ray).is_some()
    }

    /// How much it darkens the ground right beneath and beside it, `[0, 1]`.
    fn contact(&self, _ground: Vec3) -> f32 {
        0.0
    }
}

/// A local frame: a place on the ground and a turn about the vertical.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pose {
    pub(super) place: Vec3,
    sin: f32,
    cos: f32,
}

impl Pose {
    /// The frame at `place` whose `z` axis has the heading `yaw` (turns).
    pub(super) fn new(place: Vec3, yaw: f32) -> Self {
        Self { place, sin: sin_turns(yaw), cos: cos_turns(yaw) }
    }

    /// The frame at `place` whose `z` axis points along `(sin, cos)`, a unit vector in the `x, z` plane.
    pub(super) fn facing(place: Vec3, sin: f32, cos: f32) -> Self {
        Self { place, sin, cos }
    }

    pub(super) fn outward(&self, v: Vec3) -> Vec3 {
        vec3(v.x * self.cos + v.z * self.sin, v.y, v.z * self.cos - v.x * self.sin)
    }

    fn inward(&self, v: Vec3) -> Vec3 {
        vec3(v.x * self.cos - v.z * self.sin, v.y, v.x * self.sin + v.z * self.cos)
    }

    pub(super) fn local(&self, world: Vec3) -> Vec3 {
        self.inward(world - self.place)
    }

    pub(super) fn local_ray(&self, ray: &Ray) -> Ray {
        Ray { origin: self.local(ray.origin), dir: self.inward(ray.dir) }
    }

    /// World box around a local box.
    pub(super) fn bounds(&self, low: Vec3, high: Vec3) -> (Vec3, Vec3) {
        let (mid, half) = ((low + high) * 0.5, (high - low) * 0.5);
        let centre = self.place + self.outward(mid);
        let (s, c) = (self.sin.abs(), self.cos.abs());
        let reach = vec3(half.x * c + half.z * s, half.y, half.z * c + half.x * s);
        (centre - reach, centre + reach)
    }
}

/// An intersection of half-spaces `normal · p <= offset`.
#[derive(Clone, Debug)]
pub(super) struct Convex(Vec<(Vec3, f32)>);

impl Convex {
    /// The box between two corners.
    pub(super) fn cuboid(low: Vec3, high: Vec3) -> Self {
        Self(vec![
            (vec3(1.0, 0.0, 0.0), high.x),
            (vec3(-1.0, 0.0, 0.0), -low.x),
            (vec3(0.0, 1.0, 0.0), high.y),
            (vec3(0.0, -1.0, 0.0), -low.y),
            (vec3(0.0, 0.0, 1.0), high.z),
            (vec3(0.0, 0.0, -1.0), -low.z),
        ])
    }

    /// A convex outline of `(z, y)` corners, clockwise as seen with `z` to the right, drawn out to
    /// `±half_width` in `x`; sides lean in by `lean` metres per metre above `y = 0`.
    pub(super) fn extruded(outline: &[(f32, f32)], half_width: f32, lean: f32) -> Self {
        let mut planes = vec![side(1.0, half_width, lean), side(-1.0, half_width, lean)];
        for (i, &(z0, y0)) in outline.iter().enumerate() {
            let (z1, y1) = outline[(i + 1) % outline.len()];
            let normal = vec3(0.0, z1 - z0, y0 - y1).unit();
            planes.push((normal, normal.y * y0 + normal.z * z0));
        }
        Self(planes)
    }

    /// Where the ray enters: `(t, normal)`.
    pub(super) fn enter(&self, ray: &Ray) -> Option<(f32, Vec3)> {
        let (mut near, mut far, mut face) = (1e-3f32, f32::MAX, None);
        for &(normal, offset) in &self.0 {
            let speed = normal.dot(ray.dir);
            let gap = offset - normal.dot(ray.origin);
            if speed < 0.0 {
                let t = gap / speed;
                if t > near {
                    (near, face) = (t, Some(normal));
                }
            } else if speed > 0.0 {
                far = far.min(gap / speed);
            } else if gap < 0.0 {
                return None;
            }
        }
        face.filter(|_| near < far).map(|normal| (near, normal))
    }
}

fn side(sign: f32, half_width: f32, lean: f32) -> (Vec3, f32) {
    let steep = (1.0 + lean * lean).sqrt();
    (vec3(sign / steep, lean / steep, 0.0), half_width / steep)
}

/// An upright cylinder around the local `y` axis moved to `(x, z)`, between two heights.
pub(super) fn enter_column(
    ray: &Ray,
    (x, z): (f32, f32),
    radius: f32,
    (low, high): (f32, f32),
) -> Option<(f32, Vec3)> {
    let (ox, oz) = (ray.origin.x - x, ray.origin.z - z);
    let (dx, dz) = (ray.dir.x, ray.dir.z);
    let a = dx * dx + dz * dz;
    let b = ox * dx + oz * dz;
    let under_root = b * b - a * (ox * ox + oz * oz - radius * radius);
    if under_root < 0.0 || a <= 0.0 {
        return None;
    }
    let t = (-b - under_root.sqrt()) / a;
    let y = ray.origin.y + t * ray.dir.y;
    (t > 1e-3 && y >= low && y <= high)
        .then(|| (t, vec3((ox + t * dx) / radius, 0.0, (oz + t * dz) / radius)))
}

/// A wheel: a disc-ended cylinder along `x` between `x0 < x1`, around `(y, z)`.
pub(super) fn enter_wheel(
    ray: &Ray,
    (x0, x1): (f32, f32),
    (y, z): (f32, f32),
    radius: f32,
) -> Option<(f32, Vec3)> {
    let (oy, oz) = (ray.origin.y - y, ray.origin.z - z);
    let (dy, dz) = (ray.dir.y, ray.dir.z);
    let end = if ray.dir.x > 0.0 { x0 } else { x1 };
    if ray.dir.x != 0.0 {
        let t = (end - ray.origin.x) / ray.dir.x;
        let (py, pz) = (oy + t * dy, oz + t * dz);
        if t > 1e-3 && py * py + pz * pz <= radius * radius {
            return Some((t, vec3(if ray.dir.x > 0.0 { -1.0 } else { 1.0 }, 0.0, 0.0)));
        }
    }
    let a = dy * dy + dz * dz;
    let b = oy * dy + oz * dz;
    let under_root = b * b - a * (oy * oy + oz * oz - radius * radius);
    if under_root < 0.0 || a <= 0.0 {
        return None;
    }
    let t = (-b - under_root.sqrt()) / a;
    let x = ray.origin.x + t * ray.dir.x;
    (t > 1e-3 && x >= x0 && x <= x1).then(|| (t, vec3(0.0, (oy + t * dy) / radius, (oz + t * dz) / radius)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(x: f32, y: f32) -> Ray {
        Ray { origin: vec3(x, y, 0.0), dir: vec3(0.0, 0.0, 1.0) }
    }

    #[test]
    fn a_box_is_entered_at_its_front_face() {
        let cube = Convex::cuboid(vec3(-1.0, 0.0, 4.0), vec3(1.0, 2.0, 6.0));
        assert_eq!(cube.enter(&ahead(0.0, 1.0)), Some((4.0, vec3(0.0, 0.0, -1.0))));
        assert_eq!(cube.enter(&ahead(1.5, 1.0)), None);
    }

    #[test]
    fn a_prism_is_entered_through_its_slope() {
        // A ramp that rises from y = 0 at z = 2 to y = 2 at z = 4.
        let ramp = Convex::extruded(&[(2.0, 0.0), (4.0, 2.0), (4.0, 0.0)], 1.0, 0.0);
        let (t, normal) = ramp.enter(&ahead(0.0, 1.0)).expect("it is in the way");
        assert!((t - 3.0).abs() < 1e-5 && normal.y > 0.7 && normal.z < -0.7);
    }

    #[test]
    fn a_pose_and_its_inverse_cancel() {
        let pose = Pose::new(vec3(3.0, 0.0, 5.0), 0.13);
        let p = vec3(0.4, 1.0, -2.0);
        let back = pose.local(pose.place + pose.outward(p)) - p;
        assert!(back.dot(back) < 1e-8);
    }

    #[test]
    fn cylinders_are_met_on_their_near_side() {
        let (t, _) = enter_column(&ahead(0.0, 1.0), (0.0, 5.0), 0.5, (0.0, 2.0)).expect("hit");
        assert!((t - 4.5).abs() < 1e-5);
        assert!(enter_column(&ahead(0.0, 3.0), (0.0, 5.0), 0.5, (0.0, 2.0)).is_none());
        let (t, _) = enter_wheel(&ahead(0.0, 0.3), (-0.1, 0.1), (0.3, 5.0), 0.3).expect("hit");
        assert!((t - 4.7).abs() < 1e-5);
    }
}
