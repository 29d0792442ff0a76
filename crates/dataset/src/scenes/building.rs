//! Buildings: a box with façades, and a flat, gabled or hipped roof.
//!
//! A façade is a grid of bays and storeys; each cell holds a window (or a shop, a door, a balcony) in a
//! wall of some material. Materials share their colours with roads, skies and trees on purpose: what
//! says "building" is the grid, the edges and the place.

use super::BUILDING;
use super::camera::Ray;
use super::dice::Dice;
use super::exact::{Rgb, Vec3, fract, grey, mix, ramp, shown, vec3};
use super::masonry::laid;
use super::noise::{fbm, speck, value};
use super::solid::{Convex, Paint, Pose, Solid, Touch};

/// What the walls are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Material {
    Brick,
    Plaster,
    Concrete,
    Stone,
    Boards,
    Curtain,
}

/// The look of the walls.
#[derive(Clone, Debug)]
struct Facade {
    material: Material,
    wall: Rgb,
    frame: Rgb,
    storey: f32,
    bay: f32,
    /// Share of the bay's width and of the storey's height that is window.
    window: (f32, f32),
    /// Height of a ground floor of shops; 0 for none.
    shop: f32,
    awning: Rgb,
    balconies: bool,
    /// Share of windows with a light on, and how bright it is.
    lamps: f32,
    grain: u32,
}

/// A building; local `x` runs along its front, `z` through its depth.
#[derive(Clone, Debug)]
pub(super) struct Building {
    pose: Pose,
    half: Vec3,
    body: Convex,
    roof: Option<Convex>,
    roof_height: f32,
    tiles: Rgb,
    facade: Facade,
}

const BODY: u16 = 0;
const ROOF: u16 = 1;

impl Building {
    /// A town house or block `width × height × depth` metres; `yaw` in turns.
    pub(super) fn roll(
        dice: &mut Dice,
        place: Vec3,
        yaw: f32,
        [width, height, depth]: [f32; 3],
        lamps: f32,
    ) -> Self {
        let half = vec3(width / 2.0, height, depth / 2.0);
        let gabled = height < 14.0 && dice.chance(0.6);
        let roof_height = if gabled { dice.between(1.8, 4.2) } else { 0.0 };
        let overhang = dice.between(0.15, 0.6);
        let ridge = (depth / 2.0 + overhang, height - 0.1, height + roof_height);
        let tiles = [
            shown(150, 84, 60),
            shown(110, 70, 58),
            shown(92, 94, 100),
            shown(120, 118, 112),
            shown(70, 74, 82),
        ];
        Self {
            pose: Pose::new(place, yaw),
            half,
            body: Convex::cuboid(vec3(-half.x, 0.0, -half.z), vec3(half.x, height, half.z)),
            roof: gabled.then(|| {
                let hip = if dice.chance(0.35) { dice.between(0.4, 1.1) } else { 0.0 };
                let outline = [(-ridge.0, ridge.1), (0.0, ridge.2), (ridge.0, ridge.1)];
                // Its ends lean in from the eaves, while `extruded` counts from the ground.
                Convex::extruded(&outline, half.x + overhang + hip * ridge.1, hip)
            }),
            roof_height,
            tiles: dice.tint(&tiles),
            facade: Facade::roll(dice, height, lamps),
        }
    }
}

impl Facade {
    fn roll(dice: &mut Dice, height: f32, lamps: f32) -> Self {
        use Material::{Boards, Brick, Concrete, Curtain, Plaster, Stone};
        let material = if height > 16.0 {
            dice.pick(&[Brick, Concrete, Concrete, Stone, Curtain, Curtain, Plaster])
        } else {
            dice.pick(&[Brick, Brick, Plaster, Plaster, Plaster, Stone, Boards, Concrete])
        };
        let wall = dice.tint(match material {
            Brick => const { &[shown(150, 92, 74), shown(120, 80, 66), shown(170, 130, 100), shown(110, 100, 96)] },
            Plaster => const { &[shown(214, 204, 180), shown(226, 222, 214), shown(200, 170, 130), shown(170, 190, 175), shown(160, 176, 196), shown(206, 150, 130)] },
            Concrete => const { &[shown(150, 150, 148), shown(170, 166, 158), shown(124, 128, 132)] },
            Stone => const { &[shown(176, 166, 146), shown(150, 144, 134), shown(134, 122, 104)] },
            Boards => const { &[shown(220, 220, 214), shown(120, 136, 120), shown(126, 96, 74), shown(136, 152, 168)] },
            Curtain => const { &[shown(90, 110, 130), shown(110, 130, 140), shown(70, 84, 92), shown(120, 120, 116)] },
        });
        let tall = dice.between(0.35, 0.72);
        Self {
            material,
            wall,
            frame: dice.tint(&[
                shown(235, 235, 230),
                shown(70, 60, 52),
                shown(120, 124, 128),
                shown(60, 84, 70),
            ]),
            storey: dice.between(2.7, 3.9),
            bay: dice.between(1.7, 4.2),
            window: if material == Curtain { (0.92, 0.86) } else { (dice.between(0.3, 0.72), tall) },
            shop: if dice.chance(0.4) { dice.between(3.0, 4.2) } else { 0.0 },
            awning: dice.tint(&[
                shown(160, 50, 44),
                shown(40, 84, 60),
                shown(44, 64, 120),
                shown(200, 180, 130),
                shown(90, 90, 90),
            ]),
            balconies: height > 8.0 && dice.chance(0.25),
            lamps,
            grain: dice.grain(),
        }
    }

    /// Reflectance, gloss and glow at `(u, y)` metres on a wall whose face number salts the choices.
    fn look(&self, u: f32, y: f32, top: f32, face: u32, footprint: f32) -> (Rgb, f32, Rgb) {
        if y < self.shop {
            return self.shopfront(u, y, face, footprint);
        }
        if top - y < 0.45 {
            return (self.masonry(u, y, footprint) * 0.75 + grey(0.08), 0.0, grey(0.0)); // cornice
        }
        let (column, floor) = ((u / self.bay).floor(), ((y - self.shop) / self.storey).floor());
        let (fu, fv) = (u / self.bay - column, (y - self.shop) / self.storey - floor);
        let salt = self.grain.wrapping_add(face);
        let cell = |k: u32| speck(column as i32, floor as i32, salt ^ (k * 7919));
        let (du, dv) = ((fu - 0.5).abs() - self.window.0 / 2.0, (fv - 0.52).abs() - self.window.1 / 2.0);
        let fits = top - self.shop > (floor + 0.95) * self.storey;
        let blank = self.material != Material::Curtain && cell(4) > 0.93;
        let door = self.shop == 0.0 && floor == 0.0 && cell(5) > 0.8;
        if door && (fu - 0.5).abs() * self.bay < 0.55 && fv * self.storey < 2.2 {
            return (mix(self.awning, self.frame, 0.5 * cell(6)), 0.1, grey(0.0));
        }
        if self.balconies && fv < 0.33 && (fu - 0.5).abs() < 0.42 && floor > 0.0 {
            let rail = fract(u * 6.0) < 0.4 || fv > 0.29;
            return (if rail { self.frame * 0.8 } else { self.wall * 0.35 }, 0.0, grey(0.0));
        }
        if !fits || blank || du > 0.0 || dv > 0.0 {
            let under = fv - 0.52 < 0.0 && dv > 0.0 && dv < 0.04 && du < 0.03;
            let shade = if under { 1.25 } else { 1.0 };
            return (self.masonry(u, y, footprint) * shade, 0.0, grey(0.0));
        }
        // Distance to the window's edge and to its bars, in metres.
        let edge = (-du * self.bay).min(-dv * self.storey);
        let bar = if self.window.0 * self.bay > 0.9 { (fu - 0.5).abs() * self.bay } else { 1.0 };
        if edge < 0.09 || bar < 0.04 {
            return (self.frame, 0.0, grey(0.0));
        }
        self.pane(cell(1), cell(2), cell(3), fv)
    }

    /// A pane: dark room, curtain or lit room behind glass that mirrors the sky.
    fn pane(&self, inside: f32, shade: f32, lamp: f32, fv: f32) -> (Rgb, f32, Rgb) {
        if lamp < self.lamps * 0.6 {
            return (grey(0.1), 0.05, shown(205, 165, 100) * (0.15 + 0.5 * shade * self.lamps));
        }
        let room = if inside > 0.55 && fv > 0.25 + 0.4 * shade {
            grey(0.35 + 0.2 * shade)
        } else {
            grey(0.02 + 0.06 * shade)
        };
        let tint = if self.material == Material::Curtain { self.wall * 0.5 } else { grey(0.0) };
        (room * 0.7 + tint, 0.15 + 0.4 * inside, grey(0.0))
    }

    fn shopfront(&self, u: f32, y: f32, face: u32, footprint: f32) -> (Rgb, f32, Rgb) {
        let wide = self.bay * 1.8;
        let (shop, fu) = ((u / wide).floor(), fract(u / wide));
        let salt = self.grain.wrapping_add(face) ^ 77;
        let own = speck(shop as i32, 0, salt);
        let board = self.shop - y;
        let colour = mix(self.awning, Vec3 { x: self.awning.z, y: self.awning.x, z: self.awning.y }, own);
        if board < 0.25 {
            return (self.masonry(u, y, footprint), 0.0, grey(0.0));
        }
        if board < 0.95 {
            let writing =
                value(u * 5.0, 0.0, salt) > 0.5 && (0.35..0.75).contains(&board) && fu > 0.2 && fu < 0.8;
            let glow = colour * (self.lamps * 0.5);
            return (if writing { grey(0.75) } else { colour }, 0.05, glow);
        }
        if own > 0.6 && board < 1.6 {
            return (if fract(u * 1.6) < 0.5 { colour } else { grey(0.6) }, 0.0, grey(0.0)); // striped awning
        }
        if !(0.1..0.92).contains(&fu) || y < 0.45 {
            return (self.masonry(u, y, footprint) * 0.8, 0.0, grey(0.0));
        }
        let goods = value(u * 3.0, y * 2.2, salt ^ 5);
        let hue = vec3(value(u * 2.0, y, salt ^ 6), value(u * 2.0, y, salt ^ 7), value(u * 2.0, y, salt ^ 8));
        let light = if own < 0.2 + self.lamps { 0.12 + 0.4 * self.lamps } else { 0.02 };
        (hue * (goods * 0.35), 0.25, (hue + grey(0.4)) * (goods * light))
    }

    /// The bare wall.
    fn masonry(&self, u: f32, y: f32, footprint: f32) -> Rgb {
        let stain = fbm(u * 0.5, y * 0.25, self.grain, 4, footprint * 0.5);
        let rough = fbm(u * 6.0, y * 6.0, self.grain ^ 1, 2, footprint * 6.0);
        let streak = value(u * 2.0, y * 0.12, self.grain ^ 2);
        let gain = match self.material {
            Material::Brick => laid((u, y), (0.3, 0.11), 1.2, footprint, self.grain) + 0.3 * stain,
            Material::Stone => laid((u, y), (0.8, 0.42), 0.5, footprint, self.grain) + 0.4 * stain,
            Material::Boards => {
                0.65 + 0.3 * fract(y / 0.22) * (1.2 - footprint * 4.0).clamp(0.0, 1.0) + 0.2 * stain
            }
            Material::Concrete => {
                let seam = fract(y / self.storey) < 0.025 || fract(u / (self.bay * 2.0)) < 0.012;
                (0.55 + 0.4 * stain + 0.25 * streak + 0.3 * (rough - 0.5)) * if seam { 0.6 } else { 1.0 }
            }
            _ => 0.6 + 0.45 * stain + 0.2 * streak + 0.25 * (rough - 0.5),
        };
        let grimy = 0.75 + 0.25 * ramp(0.0, 1.2, y);
        self.wall * (gain * grimy)
    }
}

impl Solid for Building {
    fn bounds(&self) -> (Vec3, Vec3) {
        let reach = vec3(self.half.x + 0.8, 0.0, self.half.z + 0.7);
        self.pose.bounds(-reach, vec3(reach.x, self.half.y + self.roof_height, reach.z))
    }

    fn cast(&self, ray: &Ray) -> Option<Touch> {
        let ray = self.pose.local_ray(ray);
        let touch = |part, (t, normal)| Touch { t, at: ray.at(t), normal, part };
        let body = self.body.enter(&ray).map(|hit| touch(BODY, hit));
        let roof = self.roof.as_ref().and_then(|roof| roof.enter(&ray)).map(|hit| touch(ROOF, hit));
        match (body, roof) {
            (Some(b), Some(r)) => Some(if b.t < r.t { b } else { r }),
            (b, r) => b.or(r),
        }
    }

    fn paint(&self, touch: &Touch, footprint: f32) -> Paint {
        let normal = self.pose.outward(touch.normal);
        let Vec3 { x, y, z } = touch.at;
        if touch.part == ROOF && touch.normal.y.abs() > 0.1 {
            let row = fract((y - self.half.y) / 0.28);
            let grain = fbm(x * 3.0, z * 3.0, self.facade.grain ^ 21, 3, footprint * 3.0);
            let tile = 0.35 + 0.9 * grain + 0.3 * row * (1.2 - footprint * 3.0).clamp(0.0, 1.0);
            return Paint::matt(BUILDING, self.tiles * tile, normal);
        }
        if touch.normal.y > 0.5 {
            return Paint::matt(BUILDING, grey(0.2), normal);
        }
        let across = touch.normal.z.abs() > 0.5;
        let (u, half, face) = if across { (x, self.half.x, 1) } else { (z, self.half.z, 2) };
        if touch.part == ROOF {
            return Paint::matt(BUILDING, self.facade.masonry(u, y, footprint), normal);
        }
        // Corners are solid: bays start half a metre in.
        let (albedo, gloss, glow) = if half - u.abs() < 0.3 {
            (self.facade.masonry(u, y, footprint), 0.0, grey(0.0))
        } else {
            let face = face + u32::from(touch.normal.x + touch.normal.z > 0.0) * 2;
            self.facade.look(u + half, y, self.half.y, face, footprint)
        };
        Paint { albedo, normal, gloss, glow, class: BUILDING }
    }
}
