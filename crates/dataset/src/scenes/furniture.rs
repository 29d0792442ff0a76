//! Poles and what hangs on them: lamps, signs, traffic lights, telegraph poles.
//!
//! All are thin and share one class. A column and a few boxes in a local frame; boards are painted
//! with simple devices (rings, bars, arrows).

use super::POLE;
use super::camera::Ray;
use super::dice::Dice;
use super::exact::{Rgb, Vec3, fract, grey, shown, vec3};
use super::noise::value;
use super::solid::{Convex, Paint, Pose, Solid, Touch, enter_column};

/// What stands at the kerb.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Lamp,
    Sign,
    TrafficLight,
    Telegraph,
    Billboard,
    Bollard,
}

/// What a box of the pole shows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Face {
    Plain,
    Glow,
    /// Round, triangular or square board; outside its outline there is nothing.
    Disc,
    Triangle,
    Square,
    Signals,
}

#[derive(Clone, Debug)]
struct Fitting {
    body: Convex,
    /// Middle of the front and half its size.
    middle: (f32, f32),
    half: (f32, f32),
    face: Face,
}

#[derive(Clone, Debug)]
pub(super) struct Pole {
    pose: Pose,
    radius: f32,
    height: f32,
    reach: f32,
    fittings: Vec<Fitting>,
    metal: Rgb,
    board: Rgb,
    ink: Rgb,
    lamps: f32,
    signal: u32,
    grain: u32,
}

const COLUMN: u16 = 0;

impl Pole {
    /// A pole of some `kind` whose front looks along `-z` turned by `yaw`, towards who comes along the street.
    pub(super) fn roll(dice: &mut Dice, place: Vec3, yaw: f32, kind: Kind, lamps: f32) -> Self {
        let (radius, height) = match kind {
            Kind::Lamp => (dice.between(0.07, 0.12), dice.between(4.0, 9.0)),
            Kind::Sign => (dice.between(0.04, 0.06), dice.between(2.2, 3.2)),
            Kind::TrafficLight => (dice.between(0.07, 0.1), dice.between(2.8, 4.0)),
            Kind::Telegraph => (dice.between(0.1, 0.17), dice.between(7.0, 10.0)),
            Kind::Billboard => (dice.between(0.08, 0.14), dice.between(2.6, 4.5)),
            Kind::Bollard => (dice.between(0.07, 0.12), dice.between(0.8, 1.2)),
        };
        let fittings = fittings(dice, kind, radius, height);
        let boards = [
            shown(190, 36, 34),
            shown(40, 80, 150),
            shown(225, 225, 220),
            shown(214, 180, 50),
            shown(44, 110, 70),
        ];
        Self {
            pose: Pose::new(place, yaw),
            radius,
            height,
            reach: fittings.iter().fold(radius, |r, f| r.max(f.middle.0.abs() + f.half.0)),
            fittings,
            metal: dice.tint(&[
                shown(120, 122, 124),
                shown(60, 66, 62),
                shown(150, 148, 140),
                shown(104, 86, 66),
            ]),
            board: dice.tint(&boards),
            ink: dice.pick(&[grey(0.75), grey(0.03), grey(0.5)]),
            lamps,
            signal: dice.count(0, 2),
            grain: dice.grain(),
        }
    }

    fn outside(&self, fitting: &Fitting, at: Vec3) -> bool {
        let (x, y) = fitting.unit(at);
        match fitting.face {
            Face::Disc => x * x + y * y > 1.0,
            Face::Triangle => x.abs() > (1.0 - y) * 0.55,
            _ => false,
        }
    }

    fn face(&self, fitting: &Fitting, at: Vec3, front: bool) -> (Rgb, Rgb) {
        let (x, y) = fitting.unit(at);
        let dark = grey(0.0);
        match fitting.face {
            Face::Plain => (self.metal, dark),
            Face::Glow => (grey(0.6), shown(255, 225, 170) * (2.0 * self.lamps)),
            _ if !front => (self.metal * 0.8, dark),
            Face::Disc => {
                let ring = x * x + y * y;
                (if ring > 0.55 || (y.abs() < 0.18 && x.abs() < 0.6) { self.board } else { self.ink }, dark)
            }
            Face::Triangle => {
                let rim = (1.0 - y) * 0.55 - x.abs() < 0.22 || y < -0.75;
                (
                    if rim {
                        shown(180, 36, 32)
                    } else if x.abs() < 0.1 {
                        grey(0.05)
                    } else {
                        grey(0.7)
                    },
                    dark,
                )
            }
            Face::Square => {
                let picture = value(x * 3.0, y * 3.0, self.grain);
                let rim = x.abs().max(y.abs()) > 0.88;
                (if rim || picture > 0.55 { self.ink } else { self.board }, dark)
            }
            Face::Signals => self.signal_at(x, fract((y + 1.0) * 1.5), ((y + 1.0) * 1.5) as u32),
        }
    }

    /// Three lamps above each other, one of them on.
    fn signal_at(&self, x: f32, within: f32, slot: u32) -> (Rgb, Rgb) {
        let (dx, dy) = (x * 0.6, within - 0.5);
        if dx * dx + dy * dy > 0.13 {
            return (grey(0.03), grey(0.0));
        }
        let colour = [shown(30, 190, 110), shown(230, 160, 30), shown(220, 30, 24)][slot.min(2) as usize];
        (colour * 0.25, if slot == self.signal { colour * 0.9 } else { grey(0.0) })
    }
}

impl Fitting {
    fn new(middle: (f32, f32), half: (f32, f32), z: (f32, f32), face: Face) -> Self {
        let low = vec3(middle.0 - half.0, middle.1 - half.1, z.0);
        let high = vec3(middle.0 + half.0, middle.1 + half.1, z.1);
        Self { body: Convex::cuboid(low, high), middle, half, face }
    }

    /// Position on the front, `[-1, 1]` both ways.
    fn unit(&self, at: Vec3) -> (f32, f32) {
        ((at.x - self.middle.0) / self.half.0, (at.y - self.middle.1) / self.half.1)
    }
}

fn fittings(dice: &mut Dice, kind: Kind, radius: f32, height: f32) -> Vec<Fitting> {
    let arm = dice.sign() * dice.between(0.7, 1.8);
    let front = (-radius - 0.05, -radius);
    match kind {
        Kind::Lamp => vec![
            Fitting::new((arm * 0.5, height - 0.05), (arm.abs() * 0.5, 0.05), (-0.04, 0.04), Face::Plain),
            Fitting::new((arm, height - 0.12), (0.32, 0.1), (-0.16, 0.16), Face::Glow),
        ],
        Kind::Sign => {
            let half = dice.between(0.26, 0.42);
            let face = dice.pick(&[Face::Disc, Face::Triangle, Face::Square]);
            let mut boards = vec![Fitting::new((0.0, height - half), (half, half), front, face)];
            if dice.chance(0.4) {
                boards.push(Fitting::new(
                    (0.0, height - half * 2.6),
                    (half, half * 0.4),
                    front,
                    Face::Square,
                ));
            }
            boards
        }
        Kind::TrafficLight => {
            vec![Fitting::new((0.0, height - 0.45), (0.19, 0.5), (-radius - 0.25, -radius), Face::Signals)]
        }
        Kind::Telegraph => vec![
            Fitting::new((0.0, height - 0.5), (0.95, 0.07), (-0.08, 0.08), Face::Plain),
            Fitting::new((0.0, height - 1.3), (0.7, 0.06), (-0.08, 0.08), Face::Plain),
        ],
        Kind::Billboard => {
            let (wide, high) = (dice.between(0.5, 1.3), dice.between(0.4, 0.8));
            vec![Fitting::new((0.0, height - high), (wide, high), front, Face::Square)]
        }
        Kind::Bollard => Vec::new(),
    }
}

impl Solid for Pole {
    fn bounds(&self) -> (Vec3, Vec3) {
        let r = self.radius + 0.3;
        self.pose.bounds(vec3(-self.reach.max(r), 0.0, -r), vec3(self.reach.max(r), self.height + 0.05, r))
    }

    fn cast(&self, ray: &Ray) -> Option<Touch> {
        let ray = self.pose.local_ray(ray);
        let column = enter_column(&ray, (0.0, 0.0), self.radius, (0.0, self.height));
        let mut best = column.map(|(t, normal)| Touch { t, at: ray.at(t), normal, part: COLUMN });
        for (i, fitting) in self.fittings.iter().enumerate() {
            if let Some((t, normal)) = fitting.body.enter(&ray)
                && best.is_none_or(|b| t < b.t)
                && !self.outside(fitting, ray.at(t))
            {
                best = Some(Touch { t, at: ray.at(t), normal, part: i as u16 + 1 });
            }
        }
        best
    }

    fn paint(&self, touch: &Touch, _footprint: f32) -> Paint {
        let (albedo, glow) = if touch.part == COLUMN {
            let stain = value(touch.at.x * 4.0, touch.at.y * 1.5, self.grain);
            (self.metal * (0.7 + 0.5 * stain), grey(0.0))
        } else {
            self.face(&self.fittings[usize::from(touch.part) - 1], touch.at, touch.normal.z < -0.5)
        };
        Paint { albedo, normal: self.pose.outward(touch.normal), gloss: 0.05, glow, class: POLE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_sign_has_no_corners() {
        let mut pole = Pole::roll(&mut Dice::new(2, 2), vec3(0.0, 0.0, 0.0), 0.0, Kind::Sign, 0.0);
        pole.fittings = vec![Fitting::new((0.0, 2.0), (0.4, 0.4), (-0.1, -0.06), Face::Disc)];
        let hit =
            |x: f32, y: f32| pole.cast(&Ray { origin: vec3(x, y, -5.0), dir: vec3(0.0, 0.0, 1.0) }).is_some();
        assert!(hit(0.0, 2.0) && hit(0.39, 2.0) && !hit(0.37, 2.37));
    }
}
