//! The permutohedral lattice (Adams, Baek and Davis 2010): where Gaussian sums in a few dimensions are taken.
//!
//! Points of `D` dimensions are laid into the plane of `D + 1` coordinates whose sum is 0. The points of that plane
//! whose coordinates are integers that are all equal modulo `D + 1` are the lattice's vertices; every point lies in a simplex
//! of `D + 1` of them and is shared out among them by its barycentric coordinates. A Gaussian is then a small blur
//! along each of the `D + 1` directions of the lattice. Only vertices that a point has touched exist.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rayon::prelude::*;

/// Where points lie among vertices, and which vertices are neighbours.
pub(super) struct Lattice {
    /// Vertices of a point, `D + 1`.
    pub(super) corners: usize,
    /// How many vertices there are.
    pub(super) vertices: usize,
    /// Per point, its vertices and its share in each: `[n, D + 1]`.
    pub(super) shares: Vec<(u32, f32)>,
    /// Per direction, the neighbours of every vertex on either side: `[D + 1][vertices]`; `vertices` stands for one that does
    /// not exist.
    pub(super) neighbours: Vec<Vec<[u32; 2]>>,
}

/// All but the last coordinate of a vertex, which follows from their sum; 16 bits each.
type Key = u128;

impl Lattice {
    /// * `features`: of every point, in units of the Gaussian's standard deviation.
    pub(super) fn new<const D: usize>(features: &[[f32; D]]) -> Self {
        let placed: Vec<Placed<D>> = features.par_iter().map(place).collect();
        let mut index: HashMap<Key, u32, BuildHasherDefault<KeyHasher>> = HashMap::default();
        let mut keys: Vec<Key> = Vec::new();
        let mut shares = Vec::with_capacity(features.len() * (D + 1));
        for Placed { origin, rank, share, last } in &placed {
            for (corner, &share) in share.iter().chain([last]).enumerate() {
                let key = pack::<D>(|i| origin[i] + step::<D>(corner, rank[i]));
                let vertex = *index.entry(key).or_insert_with(|| {
                    keys.push(key);
                    (keys.len() - 1) as u32
                });
                shares.push((vertex, share));
            }
        }
        let find = |key: Key| index.get(&key).copied().unwrap_or(keys.len() as u32);
        let along = |direction: usize| {
            // One step changes every coordinate by 1 but that of the direction, which goes the other way by D.
            let beside = |key: Key, sign: i16| {
                pack::<D>(|i| unpack(key, i) + sign * if i == direction { -(D as i16) } else { 1 })
            };
            keys.par_iter().map(|&key| [find(beside(key, -1)), find(beside(key, 1))]).collect()
        };
        Self { corners: D + 1, vertices: keys.len(), shares, neighbours: (0..=D).map(along).collect() }
    }
}

/// The simplex of a point.
struct Placed<const D: usize> {
    /// The first coordinates of the vertex whose coordinates are all multiples of `D + 1`.
    origin: [i16; D],
    /// How many coordinates are further above those of that vertex: the order in which the simplex is walked.
    rank: [usize; D],
    /// Barycentric coordinates; the last of them apart.
    share: [f32; D],
    last: f32,
}

/// Coordinate by which corner `corner` of a simplex differs from the origin, for a coordinate of this rank.
fn step<const D: usize>(corner: usize, rank: usize) -> i16 {
    (if rank <= D - corner { corner as isize } else { corner as isize - (D as isize + 1) }) as i16
}

/// Finds the simplex of a point. In `f32`, in this order of operations, so that points between two simplices
/// fall where they do elsewhere.
fn place<const D: usize>(feature: &[f32; D]) -> Placed<D> {
    let up = (D + 1) as f32;
    let down = 1.0 / up;
    // A unit of length in which the blur's variance makes a Gaussian of deviation 1.
    let unit = ((2.0_f64 / 3.0).sqrt() * (D + 1) as f64) as f32;

    // The point in the plane; coordinate 0 takes what is left.
    let (mut high, mut sum) = ([0.0_f32; D], 0.0_f32);
    for j in (0..D).rev() {
        let scale = (1.0 / (((j + 2) as f64) * ((j + 1) as f64)).sqrt() * f64::from(unit)) as f32;
        let x = feature[j] * scale;
        high[j] = sum - (j + 1) as f32 * x; // coordinate j + 1
        sum += x;
    }
    let at = |i: usize| if i == 0 { sum } else { high[i - 1] };

    // The nearest vertex with multiples of D + 1, before it is brought back into the plane.
    let nearest = |i: usize| (at(i) * down).round_ties_even();
    let mut away: isize = 0; // how far the rounded coordinates are from summing to 0
    for i in 0..=D {
        away += nearest(i) as isize;
    }
    let above = |i: usize| at(i) - nearest(i) * up;
    let mut ranks = [0_isize; D];
    let mut last_rank = 0_isize;
    for i in 0..=D {
        for j in i + 1..=D {
            let lower = if above(i) < above(j) { i } else { j };
            if lower < D { ranks[lower] += 1 } else { last_rank += 1 }
        }
    }
    let mut origin = [0_i16; D];
    let mut rank = [0_usize; D];
    let mut share = [0.0_f32; D];
    let mut last = 0.0_f32;
    let mut wrapped = 0.0_f32; // what went over the end
    for i in 0..=D {
        let mut r = away + if i < D { ranks[i] } else { last_rank };
        let mut base = nearest(i) * up;
        if r < 0 {
            r += D as isize + 1;
            base += up;
        } else if r > D as isize {
            r -= D as isize + 1;
            base -= up;
        }
        if i < D {
            origin[i] = base as i16;
            rank[i] = r as usize;
        }
        let part = (at(i) - base) * down;
        let mut add = |corner: usize, x: f32| match corner {
            c if c < D => share[c] += x,
            c if c == D => last += x,
            _ => wrapped += x,
        };
        add(D - r as usize, part);
        add(D + 1 - r as usize, -part);
    }
    share[0] += 1.0 + wrapped;
    Placed { origin, rank, share, last }
}

fn pack<const D: usize>(coordinate: impl Fn(usize) -> i16) -> Key {
    (0..D).fold(0, |key, i| key | Key::from(coordinate(i) as u16) << (16 * i))
}

fn unpack(key: Key, i: usize) -> i16 {
    (key >> (16 * i)) as u16 as i16
}

/// Multiplies and mixes: coordinates are small and close to one another.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u128(Key::from(byte));
        }
    }

    fn write_u128(&mut self, key: u128) {
        let mixed = (key as u64 ^ self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((key >> 64) as u64);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.0 = mixed ^ (mixed >> 29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
