//! People: standing, walking, alone or in pairs.
//!
//! A flat figure that faces the camera, put together from rounded limbs (capsules in its plane), each
//! shaded as a cylinder. Clothes take any colour that walls, cars and leaves take too.

use super::PERSON;
use super::camera::Ray;
use super::dice::Dice;
use super::exact::{Rgb, Vec3, grey, ramp, shown, vec3};
use super::noise::fbm;
use super::solid::{Paint, Pose, Solid, Touch};

/// A limb: from `(u, v, radius)` to `(u, v, radius)` in metres, and its colour.
#[derive(Clone, Copy, Debug)]
struct Limb {
    from: (f32, f32, f32),
    to: (f32, f32, f32),
    colour: Rgb,
}

#[derive(Clone, Debug)]
pub(super) struct Person {
    /// Local `z` points at the camera.
    pose: Pose,
    /// Nearest to the eye first.
    limbs: Vec<Limb>,
    height: f32,
    grain: u32,
}

impl Person {
    /// Somebody at `place`, drawn as seen from `eye`.
    pub(super) fn roll(dice: &mut Dice, place: Vec3, eye: Vec3) -> Self {
        let to_eye = vec3(eye.x - place.x, 0.0, eye.z - place.z).unit();
        let height = if dice.chance(0.15) { dice.between(1.05, 1.45) } else { dice.between(1.55, 1.92) };
        let stride = dice.between(0.0, 0.13);
        let lean = dice.between(-0.05, 0.05);
        let broad = dice.between(0.85, 1.25);
        let cloth = [
            shown(60, 64, 74),
            shown(34, 34, 38),
            shown(150, 148, 140),
            shown(196, 190, 180),
            shown(140, 44, 40),
            shown(58, 84, 66),
            shown(70, 90, 136),
            shown(150, 118, 76),
            shown(206, 168, 70),
            shown(116, 80, 110),
        ];
        let (coat, legs, shoes) =
            (dice.tint(&cloth), dice.tint(&cloth[..4]), dice.tint(&[shown(50, 44, 40), grey(0.5)]));
        let skin = dice.tint(&[shown(214, 170, 140), shown(170, 122, 92), shown(112, 78, 60)]);
        let hair =
            dice.tint(&[shown(40, 32, 28), shown(110, 80, 50), shown(170, 150, 120), shown(130, 128, 126)]);
        let limb = |from: (f32, f32, f32), to: (f32, f32, f32), colour| Limb { from, to, colour };
        let swing = stride * 1.3;
        let mut limbs = vec![
            limb((lean, 0.945, 0.062), (lean, 0.965, 0.058), hair),
            limb((lean, 0.915, 0.052), (lean, 0.93, 0.058), skin),
            limb((lean, 0.85, 0.03), (lean, 0.9, 0.03), skin),
            limb((-0.115 * broad, 0.79, 0.032), (-0.125 * broad - swing, 0.5, 0.026), coat * 0.85),
            limb((0.115 * broad, 0.79, 0.032), (0.125 * broad + swing, 0.5, 0.026), coat * 0.8),
            limb((-0.125 * broad - swing, 0.49, 0.026), (-0.125 * broad - swing, 0.46, 0.024), skin),
            limb((0.125 * broad + swing, 0.49, 0.026), (0.125 * broad + swing, 0.46, 0.024), skin),
            limb((0.0, 0.55, 0.088 * broad), (lean * 0.7, 0.76, 0.105 * broad), coat),
            limb((-0.04, 0.5, 0.056), (-0.05 - stride, 0.07, 0.036), legs),
            limb((0.04, 0.5, 0.056), (0.05 + stride, 0.07, 0.036), legs * 0.85),
            limb((-0.05 - stride, 0.025, 0.03), (-0.02 - stride, 0.02, 0.028), shoes),
            limb((0.05 + stride, 0.025, 0.03), (0.08 + stride, 0.02, 0.028), shoes),
        ];
        if dice.chance(0.2) {
            // A long coat or a skirt.
            limbs.insert(7, limb((0.0, 0.36, 0.115 * broad), (0.0, 0.55, 0.09 * broad), coat * 0.95));
        }
        if dice.chance(0.3) {
            let bag = dice.tint(&cloth);
            let at = dice.sign() * 0.16 * broad;
            limbs.insert(3, limb((at, 0.5, 0.05), (at, 0.56, 0.05), bag));
        }
        for limb in &mut limbs {
            for end in [&mut limb.from, &mut limb.to] {
                *end = (end.0 * height, end.1 * height, end.2 * height);
            }
        }
        Self { pose: Pose::facing(place, to_eye.x, to_eye.z), limbs, height, grain: dice.grain() }
    }
}

impl Solid for Person {
    fn bounds(&self) -> (Vec3, Vec3) {
        let wide = self.height * 0.36;
        self.pose.bounds(vec3(-wide, 0.0, -wide), vec3(wide, self.height * 1.04, wide))
    }

    fn cast(&self, ray: &Ray) -> Option<Touch> {
        let ray = self.pose.local_ray(ray);
        let t = -ray.origin.z / ray.dir.z;
        let at = ray.at(t);
        // Written so that a ray along the plane (t not finite) misses.
        let inside =
            t > 0.0 && at.x.abs() <= self.height * 0.36 && (0.0..=self.height * 1.04).contains(&at.y);
        if !inside {
            return None;
        }
        self.limbs.iter().enumerate().find_map(|(part, limb)| {
            let ((u0, v0, r0), (u1, v1, r1)) = (limb.from, limb.to);
            let (du, dv) = (u1 - u0, v1 - v0);
            let along =
                (((at.x - u0) * du + (at.y - v0) * dv) / (du * du + dv * dv).max(1e-6)).clamp(0.0, 1.0);
            let radius = r0 + (r1 - r0) * along;
            let (x, y) = ((at.x - u0 - along * du) / radius, (at.y - v0 - along * dv) / radius);
            let q = x * x + y * y;
            (q < 1.0).then(|| Touch {
                t,
                at,
                normal: vec3(x, y, (1.0 - q).sqrt() + 0.1).unit(),
                part: part as u16,
            })
        })
    }

    fn paint(&self, touch: &Touch, footprint: f32) -> Paint {
        let folds = fbm(touch.at.x * 9.0, touch.at.y * 5.0, self.grain, 3, footprint * 9.0);
        let colour = self.limbs[usize::from(touch.part)].colour;
        Paint::matt(PERSON, colour * (0.45 + 1.1 * folds), self.pose.outward(touch.normal))
    }

    fn blocks(&self, ray: &Ray) -> bool {
        let place = self.pose.place;
        super::solid::enter_column(ray, (place.x, place.z), self.height * 0.13, (0.0, self.height)).is_some()
    }

    fn contact(&self, ground: Vec3) -> f32 {
        let away = ground - self.pose.place;
        0.6 * ramp(0.5, 0.1, (away.x * away.x + away.z * away.z).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_narrower_than_tall_and_has_a_head_and_feet() {
        let person = Person::roll(&mut Dice::new(5, 0), vec3(0.0, 0.0, 5.0), vec3(0.0, 1.0, 0.0));
        let hit = |x: f32, y: f32| {
            person.cast(&Ray { origin: vec3(x, y * person.height, 0.0), dir: vec3(0.0, 0.0, 1.0) }).is_some()
        };
        assert!((-9..10).any(|i| hit(i as f32 * 0.02, 0.94)));
        assert!((-20..20).any(|i| hit(i as f32 * 0.02, 0.05)));
        assert!(!hit(0.75, 0.6) && !hit(0.0, 1.1));
    }
}
