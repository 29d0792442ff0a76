//! Setting things up along the street, row by row.
//!
//! Positions are given in street coordinates: a side, metres away from the middle line, metres along it.
//! Anything that would stand on the camera, on a crossing or in the water is left out.

use super::barrier::{Barrier, Make};
use super::building::Building;
use super::dice::Dice;
use super::exact::{Vec3, vec3};
use super::furniture::{Kind, Pole};
use super::ground::Ground;
use super::person::Person;
use super::solid::Solid;
use super::vegetation::{Habit, Hedge, Tree};
use super::vehicle::{Model, Vehicle};
use super::{PAVEMENT, ROAD, WATER};

/// How far back and ahead the street is furnished.
const FROM_M: f32 = -14.0;
const TO_M: f32 = 85.0;

/// A street under construction.
pub(super) struct Street<'a> {
    pub(super) dice: &'a mut Dice,
    pub(super) ground: &'a Ground,
    eye: Vec3,
    lamps: f32,
    solids: Vec<Box<dyn Solid>>,
}

impl<'a> Street<'a> {
    /// An empty street seen from `eye`; `lamps` is how dark it is for lights, `[0, 1]`.
    pub(super) fn new(dice: &'a mut Dice, ground: &'a Ground, eye: Vec3, lamps: f32) -> Self {
        Self { dice, ground, eye, lamps, solids: Vec::new() }
    }

    pub(super) fn finish(self) -> Vec<Box<dyn Solid>> {
        self.solids
    }

    /// Outer edge of the outermost band that ends.
    pub(super) fn building_line(&self, side: usize) -> f32 {
        let bands = &self.ground.sides[side];
        bands[bands.len() - 2].outer
    }

    /// World place of street coordinates.
    fn place(&self, side: usize, away: f32, z: f32) -> Vec3 {
        let sign = if side == 0 { -1.0 } else { 1.0 };
        vec3(self.ground.middle(z) + sign * away, 0.0, z)
    }

    /// Heading of the street at `z`, in turns (the bend is gentle: tangent for angle).
    fn heading(&self, z: f32) -> f32 {
        let slope = self.ground.middle(z + 0.5) - self.ground.middle(z - 0.5);
        slope / std::f32::consts::TAU
    }

    /// Whether a thing of this radius leaves the camera free and the crossing passable.
    fn is_free(&self, p: Vec3, radius: f32) -> bool {
        let (dx, dz) = (p.x - self.eye.x, p.z - self.eye.z);
        let crosses = self.ground.crossing.is_some_and(|(from, to, _)| p.z > from - 0.5 && p.z < to + 0.5);
        dx * dx + dz * dz > (radius + 1.3) * (radius + 1.3) && !crosses
    }

    /// [`Self::is_free`] for something long that starts at `z`: both at its middle and where it is nearest.
    fn is_free_run(&self, side: usize, away: f32, (z, length): (f32, f32), radius: f32) -> bool {
        let nearest = self.eye.z.clamp(z, z + length);
        [nearest, z + length / 2.0].into_iter().all(|z| self.is_free(self.place(side, away, z), radius))
    }

    fn is_dry(&self, p: Vec3) -> bool {
        self.ground.surface(p.x, p.z).0.class != WATER
    }

    fn push(&mut self, solid: impl Solid + 'static) {
        self.solids.push(Box::new(solid));
    }

    /// A row of houses whose fronts stand `line` metres out; `gaps` is how likely a plot is empty.
    pub(super) fn houses(
        &mut self,
        side: usize,
        line: f32,
        width: (f32, f32),
        height: (f32, f32),
        gaps: f32,
    ) {
        let mut z = FROM_M - 8.0;
        while z < TO_M {
            let wide = self.dice.between(width.0, width.1);
            let deep = self.dice.between(8.0, 14.0);
            let tall = self.dice.between(height.0, height.1);
            let mid = z + wide / 2.0;
            let setback = if self.dice.chance(0.3) { self.dice.between(0.0, 2.5) } else { 0.0 };
            let p = self.place(side, line + deep / 2.0 + setback + self.bulge(mid, wide), mid);
            let clear_crossing = (self.ground.crossing)
                .is_none_or(|(from, to, _)| mid + wide / 2.0 < from - 1.5 || mid - wide / 2.0 > to + 1.5);
            if !self.dice.chance(gaps) && clear_crossing {
                let yaw = 0.25 + self.heading(mid);
                let house = Building::roll(self.dice, p, yaw, [wide, tall, deep], self.lamps);
                self.push(house);
            }
            z += wide + if self.dice.chance(0.3 + gaps) { self.dice.between(1.0, 7.0) } else { 0.0 };
        }
    }

    /// How much a straight front must step back to keep off a bending kerb.
    fn bulge(&self, z: f32, wide: f32) -> f32 {
        let half = wide / 2.0;
        let sag = (self.ground.middle(z - half) + self.ground.middle(z + half)) / 2.0 - self.ground.middle(z);
        sag.abs()
    }

    pub(super) fn trees(&mut self, side: usize, from: f32, to: f32, spacing: f32, height: f32) {
        let habit =
            self.dice.pick(&[Habit::Broad, Habit::Broad, Habit::Broad, Habit::Conifer, Habit::Column]);
        let mut z = FROM_M + self.dice.between(0.0, spacing);
        while z < TO_M {
            let away = self.dice.between(from, to);
            let p = self.place(side, away, z);
            let tall = height * self.dice.between(0.7, 1.3);
            let habit = match self.dice.count(0, 7) {
                0 => Habit::Bush,
                1 => Habit::Broad,
                _ if height < 2.0 => Habit::Bush,
                _ => habit,
            };
            let tall = if habit == Habit::Bush { tall.min(2.2) } else { tall };
            if self.is_free(p, tall * 0.3) && self.is_dry(p) {
                let tree = Tree::roll(self.dice, p, self.eye, tall, habit);
                self.push(tree);
            }
            z += spacing * self.dice.between(0.5, 1.5);
        }
    }

    pub(super) fn hedges(&mut self, side: usize, away: f32) {
        let mut z = FROM_M;
        while z < TO_M {
            let length = self.dice.between(5.0, 12.0);
            let p = self.place(side, away, z + length / 2.0);
            if self.dice.chance(0.8) && self.is_free_run(side, away, (z, length), 0.4) && self.is_dry(p) {
                let hedge = Hedge::roll(self.dice, p, self.heading(p.z), length);
                self.push(hedge);
            }
            z += length + if self.dice.chance(0.3) { self.dice.between(1.0, 4.0) } else { 0.0 };
        }
    }

    pub(super) fn barriers(&mut self, side: usize, away: f32, share: f32, makes: &[Make]) {
        let make = self.dice.pick(makes);
        let mut z = FROM_M;
        while z < TO_M {
            let length = self.dice.between(5.0, 11.0);
            let p = self.place(side, away, z + length / 2.0);
            if self.dice.chance(share) && self.is_free_run(side, away, (z, length), -0.5) {
                let barrier = Barrier::roll(self.dice, p, self.heading(p.z), length, make);
                self.push(barrier);
            }
            z += length;
        }
    }

    pub(super) fn poles(&mut self, side: usize, away: f32, spacing: f32) {
        let mut z = FROM_M + self.dice.between(0.0, spacing);
        while z < TO_M {
            let kind = self.dice.pick(&[
                Kind::Lamp,
                Kind::Lamp,
                Kind::Sign,
                Kind::Sign,
                Kind::TrafficLight,
                Kind::Telegraph,
                Kind::Billboard,
                Kind::Bollard,
            ]);
            let shift = self.dice.between(-0.1, 0.4);
            let p = self.place(side, away + shift, z);
            if self.is_free(p, 0.5) && self.is_dry(p) {
                let yaw = self.heading(z) + self.dice.between(-0.06, 0.06);
                let pole = Pole::roll(self.dice, p, yaw, kind, self.lamps);
                self.push(pole);
            }
            z += spacing * self.dice.between(0.4, 1.4);
        }
    }

    fn vehicle(&mut self, p: Vec3, yaw: f32, big: f32) {
        let model = if self.dice.chance(big) {
            self.dice.pick(&[Model::Bus, Model::Lorry])
        } else {
            self.dice.pick(&[
                Model::Saloon,
                Model::Saloon,
                Model::Hatchback,
                Model::Hatchback,
                Model::OffRoad,
                Model::Van,
            ])
        };
        let radius = if matches!(model, Model::Bus | Model::Lorry) { 5.0 } else { 2.2 };
        if self.is_free(p, radius) {
            let car = Vehicle::roll(self.dice, p, yaw, model, self.lamps);
            self.push(car);
        }
    }

    /// Cars along the kerb.
    pub(super) fn parked(&mut self, side: usize, away: f32, share: f32) {
        let share = share * self.dice.between(0.3, 1.5);
        let mut z = FROM_M + self.dice.between(0.0, 5.0);
        while z < TO_M * 0.7 {
            if self.dice.chance(share) {
                let reversed = if self.dice.chance(0.3) { 0.5 } else { 0.0 };
                let yaw = self.heading(z) + reversed + self.dice.between(-0.008, 0.008);
                self.vehicle(self.place(side, away, z), yaw, 0.0);
            }
            z += self.dice.between(5.4, 7.5);
        }
    }

    /// Up to `n` vehicles under way; who keeps right on side 1 goes ahead, on side 0 comes towards us.
    pub(super) fn traffic(&mut self, side: usize, away: f32, n: u32) {
        let n = self.dice.count(0, n);
        let mut z = self.dice.between(5.0, 14.0);
        for _ in 0..n {
            let yaw = self.heading(z) + if side == 0 { 0.5 } else { 0.0 } + self.dice.between(-0.015, 0.015);
            self.vehicle(self.place(side, away, z), yaw, 0.2);
            z += self.dice.between(11.0, 28.0);
        }
    }

    pub(super) fn bay_row(&mut self, side: usize, away: f32) {
        let share = self.dice.between(0.2, 0.8);
        let mut z = FROM_M;
        while z < 40.0 {
            if self.dice.chance(share) {
                let yaw = self.dice.pick(&[0.25, 0.75]) + self.dice.between(-0.01, 0.01);
                self.vehicle(self.place(side, away, z + 1.35), yaw, 0.0);
            }
            z += 2.7;
        }
    }

    /// `n` people on pavements, paths and lawns, some of them close to the camera.
    pub(super) fn people(&mut self, n: u32) {
        for _ in 0..n {
            let side = usize::from(self.dice.chance(0.5));
            let kerb = self.ground.half_width(side);
            let far = if self.dice.chance(0.6) { 9.0 } else { 35.0 };
            let z = self.dice.between(-3.0, far);
            let away = kerb + self.dice.between(-0.6, 2.6);
            let p = self.place(side, away, z);
            let class = self.ground.surface(p.x, p.z).0.class;
            let walks = matches!(class, PAVEMENT | ROAD) || self.dice.chance(0.6);
            if class != WATER && walks && self.is_free(p, 0.8) {
                let person = Person::roll(self.dice, p, self.eye);
                self.push(person);
                if self.dice.chance(0.35) {
                    let friend = p + vec3(self.dice.between(0.45, 0.7), 0.0, self.dice.between(-0.3, 0.3));
                    let friend = Person::roll(self.dice, friend, self.eye);
                    self.push(friend);
                }
            }
        }
    }
}
