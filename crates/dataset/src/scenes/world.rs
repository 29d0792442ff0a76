//! One scene before it is painted: the place, the light, the view, and all that stands there.
//!
//! A *place* (town street, park, riverside, car park …) decides the bands of the ground and what is set
//! up on them; `populate` lists it and `street` does the setting up.

use super::camera::View;
use super::dice::Dice;
use super::exact::shown;
use super::ground::{Band, Ground, Marks, Surface, Texture};
use super::light::Light;
use super::sensor::Sensor;
use super::sky::Sky;
use super::solid::Solid;
use super::street::Street;
use super::{GRASS, PAVEMENT, ROAD, WATER};

/// Kinds of scene.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    Town,
    Suburb,
    Country,
    Highway,
    Park,
    Riverside,
    CarPark,
    Square,
}

/// A whole scene.
pub(super) struct World {
    pub(super) light: Light,
    pub(super) sky: Sky,
    pub(super) ground: Ground,
    pub(super) solids: Vec<Box<dyn Solid>>,
    pub(super) view: View,
    pub(super) sensor: Sensor,
}

impl World {
    /// The scene of `(seed, index)`.
    pub(super) fn roll(seed: u64, index: u64) -> Self {
        use Place::{CarPark, Country, Highway, Park, Riverside, Square, Suburb, Town};
        let mut dice = Dice::new(seed, index);
        let dice = &mut dice;
        let place = dice.pick(&[
            Town, Town, Town, Suburb, Suburb, Country, Highway, Park, Park, Riverside, Riverside, Riverside,
            CarPark, Square,
        ]);
        let light = Light::roll(dice);
        let ground = place.ground(dice);
        let view = place.view(dice, &ground);
        let sky = Sky::roll(dice, &light, place.backdrop());
        let sensor = Sensor::roll(dice, &light);
        let mut street = Street::new(dice, &ground, view.eye, light.lamps());
        street.set_up(place);
        let solids = street.finish();
        Self { light, sky, ground, solids, view, sensor }
    }
}

impl Place {
    /// How likely towers, trees and hills stand on the horizon.
    fn backdrop(self) -> [f32; 3] {
        match self {
            Self::Town | Self::Square => [0.5, 0.4, 0.25],
            Self::Suburb => [0.2, 0.7, 0.35],
            Self::Country | Self::Highway => [0.08, 0.6, 0.7],
            Self::Park => [0.35, 0.7, 0.3],
            Self::Riverside => [0.5, 0.6, 0.5],
            Self::CarPark => [0.3, 0.6, 0.4],
        }
    }

    /// Where the camera stands and looks.
    fn view(self, dice: &mut Dice, ground: &Ground) -> View {
        let side = usize::from(dice.chance(0.5));
        let sign = if side == 0 { -1.0 } else { 1.0 };
        let carriageway = ground.half_width(side);
        // On the carriageway, or on the pavement beside it.
        let away = if dice.chance(0.5) {
            dice.between(0.0, carriageway)
        } else {
            carriageway + dice.between(0.3, 1.4)
        };
        let yaw = match dice.between(0.0, 1.0) {
            p if p < 0.5 => dice.between(-0.05, 0.05),
            p if p < 0.82 => dice.sign() * dice.between(0.05, 0.13),
            _ => dice.sign() * dice.between(0.17, 0.27),
        };
        View::roll(dice, sign * away, yaw)
    }

    /// The bands of the ground.
    fn ground(self, dice: &mut Dice) -> Ground {
        let lane = dice.between(2.7, 3.6);
        let lanes = dice.count(1, 2) as f32;
        let half = match self {
            Self::Town | Self::Suburb => lane * lanes.max(1.0),
            Self::Country => lane,
            Self::Highway => lane * 2.0 + 1.5,
            Self::Park => dice.between(1.0, 2.5),
            Self::Riverside => lane * 0.5 + dice.between(1.0, 3.0),
            Self::CarPark => dice.between(12.0, 22.0),
            Self::Square => dice.between(2.5, 4.0),
        };
        let middle = if self == Self::Park { pavement(dice) } else { road(dice) };
        let sides = [0, 1].map(|_| self.side(dice, half, middle));
        let marks = match self {
            Self::CarPark => Marks::Bays { aisle: dice.between(2.6, 3.6) },
            Self::Park => Marks::Bare,
            _ if dice.chance(0.75) => Marks::Lanes { width: lane, edges: dice.chance(0.5) },
            _ => Marks::Bare,
        };
        let crosses = match self {
            Self::Town => 0.5,
            Self::Suburb | Self::Square => 0.3,
            _ => 0.0,
        };
        let crossing = dice.chance(crosses).then(|| {
            let from = dice.between(7.0, 30.0);
            (from, from + dice.between(5.0, 9.0), dice.chance(0.7))
        });
        let bend = if matches!(self, Self::CarPark | Self::Square) { 0.0 } else { 0.0035 };
        Ground { curve: dice.between(-bend, bend), sides, marks, crossing, wear: dice.grain() }
    }

    /// The bands of one side, from the middle line outwards.
    fn side(self, dice: &mut Dice, half: f32, middle: Surface) -> Vec<Band> {
        let mut bands = vec![Band { outer: half, surface: middle }];
        let mut add = |width: f32, surface: Surface| {
            let inner = bands[bands.len() - 1].outer;
            bands.push(Band { outer: inner + width, surface });
        };
        match self {
            Self::Town => {
                if dice.chance(0.2) {
                    add(dice.between(0.8, 2.0), grass(dice));
                }
                add(dice.between(2.0, 5.5), pavement(dice));
            }
            Self::Suburb => {
                if dice.chance(0.4) {
                    add(dice.between(0.8, 2.5), grass(dice));
                }
                if dice.chance(0.85) {
                    add(dice.between(1.3, 2.4), pavement(dice));
                }
                add(60.0, grass(dice));
            }
            Self::Country | Self::Highway => {
                add(dice.between(1.0, 6.0), grass(dice));
                if dice.chance(0.25) {
                    add(dice.between(6.0, 30.0), water(dice));
                }
                add(90.0, grass(dice));
            }
            Self::Park => {
                add(dice.between(2.0, 9.0), grass(dice));
                if dice.chance(0.5) {
                    add(dice.between(6.0, 25.0), water(dice));
                }
                add(60.0, grass(dice));
            }
            Self::Riverside => {
                add(dice.between(1.5, 3.5), pavement(dice));
                if dice.chance(0.35) {
                    add(dice.between(0.8, 3.0), grass(dice));
                }
                if dice.chance(0.8) {
                    add(dice.between(15.0, 70.0), water(dice));
                    add(5.0, grass(dice));
                }
            }
            Self::CarPark => {
                add(dice.between(1.2, 3.0), pavement(dice));
                add(40.0, grass(dice));
            }
            Self::Square => add(dice.between(8.0, 20.0), pavement(dice)),
        }
        let beyond = if dice.chance(0.5) { pavement(dice) } else { grass(dice) };
        add(1e6, beyond);
        bands
    }
}

fn road(dice: &mut Dice) -> Surface {
    let colours = [
        shown(96, 96, 99),
        shown(122, 119, 116),
        shown(148, 145, 140),
        shown(84, 80, 82),
        shown(138, 118, 106),
    ];
    let texture = if dice.chance(0.85) { Texture::Asphalt } else { Texture::Cobbles };
    Surface { class: ROAD, texture, colour: dice.tint(&colours), grain: dice.grain() }
}

fn pavement(dice: &mut Dice) -> Surface {
    let colours = [
        shown(160, 158, 152),
        shown(142, 130, 118),
        shown(116, 116, 120),
        shown(166, 134, 118),
        shown(182, 172, 150),
    ];
    let texture =
        dice.pick(&[Texture::Slabs, Texture::Slabs, Texture::Cobbles, Texture::Asphalt, Texture::Gravel]);
    Surface { class: PAVEMENT, texture, colour: dice.tint(&colours), grain: dice.grain() }
}

fn grass(dice: &mut Dice) -> Surface {
    let colours = [
        shown(98, 116, 60),
        shown(126, 122, 74),
        shown(84, 100, 60),
        shown(150, 136, 90),
        shown(114, 104, 74),
        shown(106, 122, 70),
    ];
    let texture = if dice.chance(0.8) { Texture::Lawn } else { Texture::Field };
    Surface { class: GRASS, texture, colour: dice.tint(&colours), grain: dice.grain() }
}

fn water(dice: &mut Dice) -> Surface {
    let colours = [shown(50, 66, 70), shown(78, 84, 66), shown(60, 72, 88), shown(92, 86, 70)];
    Surface { class: WATER, texture: Texture::Ripples, colour: dice.tint(&colours), grain: dice.grain() }
}
