//! Illumination: the sun, the sky as a lamp, and the air between.
//!
//! A matt surface sends back `albedo * (sun * cos + sky from above + bounce from below)`; a glossy one adds
//! mirrored sky; air mixes all of it towards the horizon's colour with depth. Weather and hour change
//! only these few colours, yet they move every colour in the picture: that is why colour alone tells no class.

use super::dice::Dice;
use super::exact::{Rgb, Vec3, cos_turns, grey, mix, shown, sin_turns, vec3};
use super::solid::Paint;

/// Weather and hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Weather {
    Clear,
    Hazy,
    Overcast,
    /// Low, warm sun.
    Golden,
    Dusk,
    Night,
}

/// Everything that lights a scene.
#[derive(Clone, Debug)]
pub(super) struct Light {
    pub(super) weather: Weather,
    /// Unit vector towards the sun (or moon).
    pub(super) sun_dir: Vec3,
    pub(super) sun: Rgb,
    /// Colour of the sky at the zenith and at the horizon.
    pub(super) zenith: Rgb,
    pub(super) horizon: Rgb,
    /// Light sent up again by the ground.
    bounce: Rgb,
    /// Share of the view lost to haze, per metre.
    haze_per_m: f32,
    /// 0 dry, 1 streaming wet.
    pub(super) wet: f32,
}

impl Light {
    pub(super) fn roll(dice: &mut Dice) -> Self {
        use Weather::{Clear, Dusk, Golden, Hazy, Night, Overcast};
        let weather = dice.pick(&[
            Clear, Clear, Clear, Clear, Clear, Hazy, Hazy, Hazy, Overcast, Overcast, Overcast, Overcast,
            Golden, Golden, Dusk, Night,
        ]);
        // Sun strength and colour; its elevation in turns; zenith; horizon.
        let (strength, sun, elevation, zenith, horizon) = match weather {
            Clear => (2.2, shown(255, 248, 232), (0.06, 0.18), shown(70, 120, 195), shown(185, 208, 232)),
            Hazy => (1.3, shown(255, 244, 225), (0.05, 0.16), shown(150, 172, 200), shown(222, 224, 226)),
            Overcast => (0.12, shown(240, 240, 245), (0.1, 0.2), shown(165, 170, 178), shown(205, 207, 210)),
            Golden => (2.0, shown(255, 205, 140), (0.02, 0.05), shown(100, 130, 175), shown(250, 212, 160)),
            Dusk => (0.15, shown(255, 170, 120), (0.01, 0.03), shown(60, 70, 120), shown(232, 150, 120)),
            Night => (0.06, shown(190, 205, 255), (0.05, 0.2), shown(22, 26, 42), shown(62, 56, 60)),
        };
        let (heading, up) = (dice.between(0.0, 1.0), dice.between(elevation.0, elevation.1));
        let flat = cos_turns(up);
        let sun_dir = vec3(flat * sin_turns(heading), sin_turns(up), flat * cos_turns(heading));
        let rainy = matches!(weather, Overcast | Dusk | Night);
        let thick = if weather == Hazy { 0.012 } else { 0.004 };
        Self {
            weather,
            sun_dir,
            sun: dice.tint(&[sun]) * strength,
            zenith: dice.tint(&[zenith]),
            horizon: dice.tint(&[horizon]),
            bounce: grey(0.08),
            haze_per_m: if dice.chance(0.12) {
                dice.between(0.01, 0.03)
            } else {
                dice.between(0.0006, thick)
            },
            wet: if rainy && dice.chance(0.4) { dice.between(0.3, 1.0) } else { 0.0 },
        }
        .with_bounce()
    }

    fn with_bounce(mut self) -> Self {
        self.bounce = (self.sun * self.sun_dir.y.max(0.0) + self.zenith) * 0.12;
        self
    }

    /// Whether lamps and windows are lit.
    pub(super) fn lamps(&self) -> f32 {
        match self.weather {
            Weather::Night => 1.0,
            Weather::Dusk => 0.6,
            Weather::Overcast => 0.12,
            _ => 0.03,
        }
    }

    /// The cloudless sky in a direction, with the sun's glow.
    pub(super) fn sky(&self, dir: Vec3) -> Rgb {
        let dir = dir.unit();
        let height = dir.y.clamp(0.0, 1.0).sqrt();
        let towards = dir.dot(self.sun_dir).max(0.0);
        let squared = towards * towards;
        let wide = squared * squared;
        let narrow = wide * wide * wide * wide;
        mix(self.horizon, self.zenith, height) + self.sun * (0.05 * wide + 0.12 * narrow * narrow)
    }

    /// Light from `paint` to the eye: `dir` is the view ray, `lit` the share of sun that arrives,
    /// `mirror` what a mirror at this place would show.
    pub(super) fn shade(&self, paint: &Paint, lit: f32, mirror: Rgb) -> Rgb {
        let facing = paint.normal.dot(self.sun_dir).max(0.0);
        let open = paint.normal.y * 0.5 + 0.5;
        let ambient = mix(self.bounce, (self.zenith + self.horizon) * 0.5, open);
        let matt = paint.albedo * (self.sun * (facing * lit) + ambient);
        mix(matt, mirror, paint.gloss) + paint.glow
    }

    /// `colour` seen through `depth` metres of air.
    pub(super) fn through_air(&self, colour: Rgb, depth: f32) -> Rgb {
        let thickness = depth * self.haze_per_m;
        // A rational stand-in for exp(-thickness) that needs no libm.
        let clear = 1.0 / (1.0 + thickness + 0.5 * thickness * thickness);
        mix(self.horizon, colour, clear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_things_take_the_colour_of_the_horizon() {
        let light = Light::roll(&mut Dice::new(0, 0));
        let far = light.through_air(grey(0.0), 1e7) - light.horizon;
        assert!(far.dot(far) < 1e-4);
        assert_eq!(light.through_air(grey(0.3), 0.0), grey(0.3));
    }

    #[test]
    fn a_face_towards_the_sun_is_brighter_than_one_in_shadow() {
        let light = Light::roll(&mut Dice::new(0, 1));
        let paint = Paint::matt(0, grey(0.5), light.sun_dir);
        assert!(light.shade(&paint, 1.0, grey(0.0)).luma() > light.shade(&paint, 0.0, grey(0.0)).luma());
    }
}
