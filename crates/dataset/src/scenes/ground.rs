//! The ground: a plan of bands along the street, and what each surface looks like up close.
//!
//! The street follows `x = curve * z²`. To each side of its middle line lie bands (carriageway, pavement,
//! verge, water …) given by their outer edges. A surface is a *class* and a *texture*, chosen apart:
//! there are asphalt pavements and cobbled roads, and place and edges must tell which is which.

use super::exact::{Rgb, Vec3, fract, grey, mix, ramp, shown, vec3};
use super::light::Light;
use super::masonry::laid;
use super::noise::{fbm, speck, value};
use super::solid::Paint;
use super::{PAVEMENT, ROAD, WATER};

/// What the ground is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Texture {
    Asphalt,
    Cobbles,
    Slabs,
    Gravel,
    Lawn,
    /// Ploughed or planted in rows.
    Field,
    Ripples,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Surface {
    pub(super) class: u8,
    pub(super) texture: Texture,
    pub(super) colour: Rgb,
    pub(super) grain: u32,
}

/// A strip beside the middle line, as far out as `outer` metres.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub(super) outer: f32,
    pub(super) surface: Surface,
}

/// Paint on the carriageway.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Marks {
    Bare,
    /// Dashes between lanes of this width; solid lines at the edges if `edges`.
    Lanes {
        width: f32,
        edges: bool,
    },
    /// Parking bays on both sides of an aisle.
    Bays {
        aisle: f32,
    },
}

/// The ground of one scene.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub(super) curve: f32,
    /// Bands left (`x < 0`) and right of the middle line, by ascending `outer`; the last has no end.
    pub(super) sides: [Vec<Band>; 2],
    pub(super) marks: Marks,
    /// A street that crosses between these two `z`, and whether it has a zebra crossing before it.
    pub(super) crossing: Option<(f32, f32, bool)>,
    pub(super) wear: u32,
}

impl Ground {
    /// `x` of the middle line at `z`.
    pub(super) fn middle(&self, z: f32) -> f32 {
        let z = z.clamp(-60.0, 90.0);
        self.curve * z * z
    }

    /// Outer edge of the first band of a side (0 left, 1 right).
    pub(super) fn half_width(&self, side: usize) -> f32 {
        self.sides[side][0].outer
    }

    fn crosses(&self, z: f32) -> bool {
        self.crossing.is_some_and(|(from, to, _)| z > from && z < to)
    }

    /// The surface at a point, and its distance from the band's inner edge.
    pub(super) fn surface(&self, x: f32, z: f32) -> (Surface, f32) {
        let offset = x - self.middle(z);
        let side = usize::from(offset >= 0.0);
        let bands = &self.sides[side];
        if self.crosses(z) {
            return (self.sides[1][0].surface, 9.0);
        }
        let away = offset.abs();
        let ragged = (value(z * 1.7, x * 1.7, self.wear) - 0.5) * 0.35;
        let mut inner = 0.0;
        for band in bands {
            let natural = matches!(band.surface.texture, Texture::Lawn | Texture::Field | Texture::Gravel);
            if away < band.outer + if natural { ragged } else { 0.0 } {
                return (band.surface, away - inner);
            }
            inner = band.outer;
        }
        (bands[bands.len() - 1].surface, away - inner)
    }

    /// What is seen at a point of the ground.
    pub(super) fn paint(&self, p: Vec3, footprint: f32, light: &Light) -> Paint {
        let (surface, from_edge) = self.surface(p.x, p.z);
        let up = vec3(0.0, 1.0, 0.0);
        let mut paint = Paint::matt(surface.class, surface.tone(p, footprint), up);
        match surface.class {
            ROAD => {
                paint.albedo = self.worn(p, footprint, paint.albedo);
                paint.gloss = light.wet
                    * ramp(0.42, 0.62, fbm(p.x * 0.35, p.z * 0.2, self.wear ^ 5, 3, footprint))
                    * 0.5;
                paint.gloss += light.wet * 0.12;
            }
            PAVEMENT => {
                if surface.texture != Texture::Gravel && from_edge < 0.18 {
                    paint.albedo = paint.albedo * 0.6 + grey(0.16); // kerb stone
                }
                paint.gloss = light.wet * 0.15;
            }
            WATER => {
                let (dx, dz) = surface.waves(p, footprint);
                paint.normal = vec3(dx, 1.0, dz).unit();
                paint.gloss = 0.62;
            }
            _ => {}
        }
        paint.albedo = paint.albedo * (1.0 - 0.4 * light.wet);
        paint
    }

    /// Asphalt with tracks, patches, cracks and painted lines.
    fn worn(&self, p: Vec3, footprint: f32, base: Rgb) -> Rgb {
        let s = p.x - self.middle(p.z);
        let mut albedo = base;
        let patch = speck((s * 0.4).floor() as i32, (p.z * 0.13).floor() as i32, self.wear);
        if patch > 0.88 {
            albedo = albedo * (0.55 + 0.5 * fract(patch * 57.0));
        }
        let crack = (fbm(p.x * 0.6, p.z * 0.6, self.wear ^ 3, 4, footprint * 0.6) - 0.5).abs();
        albedo = albedo * (0.62 + 0.38 * ramp(0.0, 0.02 + footprint * 0.3, crack));
        if self.line(s, p) {
            let worn_off = ramp(0.3, 0.6, fbm(p.x * 3.0, p.z * 3.0, self.wear ^ 4, 3, footprint * 3.0));
            albedo = mix(albedo, grey(0.62), 0.35 + 0.6 * worn_off);
        }
        albedo
    }

    /// Whether a point of the road is painted.
    fn line(&self, s: f32, p: Vec3) -> bool {
        if let Some((from, to, zebra)) = self.crossing {
            let before = from - p.z;
            if zebra && (0.6..3.6).contains(&before) {
                return fract(s * 0.9) < 0.5;
            }
            if zebra && (4.4..4.8).contains(&before) {
                return true;
            }
            if p.z > from && p.z < to {
                return false;
            }
        }
        match self.marks {
            Marks::Bare => false,
            Marks::Lanes { width, edges } => {
                let half = self.half_width(usize::from(s > 0.0));
                let to_edge = half - s.abs();
                let lane = fract(s / width + 0.5) - 0.5;
                let inside = to_edge > 0.6 * width;
                (inside && (lane * width).abs() < 0.08 && fract(p.z / 6.0) < 0.55)
                    || (edges && (0.25..0.4).contains(&to_edge))
            }
            Marks::Bays { aisle } => {
                let deep = s.abs() - aisle;
                let row = fract(deep / 11.0) * 11.0;
                deep > 0.0 && ((row < 5.0 && fract(p.z / 2.7) < 0.045) || (4.95..5.07).contains(&row))
            }
        }
    }
}

impl Surface {
    /// Reflectance with the texture of the material.
    fn tone(&self, p: Vec3, footprint: f32) -> Rgb {
        let Vec3 { x, z, .. } = p;
        let broad = fbm(x * 0.22, z * 0.22, self.grain, 3, footprint * 0.22);
        let fine =
            |scale: f32, octaves| fbm(x * scale, z * scale, self.grain ^ 11, octaves, footprint * scale);
        let blocks = |size| laid((x, z), size, 0.3, footprint, self.grain) - 0.2;
        let gain = match self.texture {
            Texture::Asphalt => {
                0.35 + 0.5 * broad + 0.6 * (fine(9.0, 3) - 0.5) + 0.7 * (fine(43.0, 2) - 0.5) + 0.4
            }
            Texture::Cobbles => 0.35 + 0.3 * broad + blocks((0.24, 0.17)),
            Texture::Slabs => 0.3 + 0.4 * broad + blocks((0.9, 0.6)) + 0.3 * (fine(6.0, 2) - 0.5),
            Texture::Gravel => 0.15 + 0.6 * broad + 1.2 * fine(7.0, 3) - 0.15,
            Texture::Lawn => {
                0.35 * broad + 1.2 * fine(5.0, 3) + 0.9 * (fine(31.0, 3) - 0.5) + 0.6 * (fine(0.8, 2) - 0.5)
            }
            Texture::Field => {
                let row = (fract(x * 0.9 + 0.15 * value(z * 0.3, x * 0.3, self.grain)) - 0.5).abs() * 2.0;
                let seen = (1.2 - footprint * 1.5).clamp(0.0, 1.0);
                0.45 * broad + 0.9 * fine(4.0, 3) + 0.5 * seen * (row - 0.5)
            }
            Texture::Ripples => 0.8 + 0.4 * (broad - 0.5),
        };
        let tinted = match self.texture {
            // Dry and lush patches differ in hue, not only in brightness.
            Texture::Lawn | Texture::Field => {
                let dry = ramp(0.45, 0.75, fbm(x * 0.35, z * 0.35, self.grain ^ 17, 3, footprint * 0.35));
                mix(self.colour, shown(140, 128, 86), 0.75 * dry)
            }
            _ => self.colour,
        };
        tinted * gain.max(0.08)
    }

    /// Slope of the water's surface.
    fn waves(&self, p: Vec3, footprint: f32) -> (f32, f32) {
        let tilt = |seed: u32| fbm(p.x * 0.9, p.z * 0.9, self.grain ^ seed, 4, footprint * 0.9) - 0.5;
        let calm = 0.04 + 0.14 * value(p.x * 0.05, p.z * 0.05, self.grain);
        (tilt(1) * calm, tilt(2) * calm * 1.6)
    }
}
