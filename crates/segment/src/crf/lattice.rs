//! The permutohedral lattice of points anywhere: only the vertices that a point touches exist, and a table finds them.
//!
//! A Gaussian sum is a small blur along each of the `D + 1` directions of the lattice. In a direction vertices form *chains*; a
//! vertex without neighbours in it stays as it is, and is not even looked at. Vertices are numbered as points meet them, so
//! that neighbours in the picture are neighbours in memory.

use super::simplex::Simplex;
use super::work::{Work, each};

/// Marks the last vertex of a chain.
pub(super) const END: u32 = 1 << 31;

/// Where points lie among vertices, and which vertices are neighbours.
pub(super) struct Lattice {
    /// Vertices of a point, `D + 1`.
    pub(super) corners: usize,
    /// How many vertices there are.
    pub(super) vertices: usize,
    /// Per point, its vertices and its share in each: `[n, D + 1]`.
    pub(super) shares: Vec<(u32, f32)>,
    /// Per direction, chains of two or more vertices one after another, the last of each with [`END`].
    pub(super) chains: Vec<Vec<u32>>,
}

impl Lattice {
    /// * `points`: how many points there are.
    /// * `feature`: of a point, in units of the Gaussian's standard deviation.
    pub(super) fn new<const D: usize>(
        points: usize,
        feature: impl Fn(usize) -> [f32; D] + Sync + Send,
        work: Work,
    ) -> Self {
        const PART: usize = 4096;
        let mut simplices = vec![Simplex::of(&[0.0; D]); points];
        each(work, simplices.chunks_mut(PART).enumerate().collect(), |(part, simplices)| {
            kernels::simd(
                #[inline(always)]
                || {
                    for (i, simplex) in simplices.iter_mut().enumerate() {
                        *simplex = Simplex::of(&feature(part * PART + i));
                    }
                },
            );
        });
        let mut table = Table::new(points);
        let mut shares: Vec<(u32, f32)> = Vec::with_capacity(points * (D + 1));
        let mut last: Option<&Simplex<D>> = None;
        for simplex in &simplices {
            let same = last.is_some_and(|last| last.origin == simplex.origin && last.rank == simplex.rank);
            last = Some(simplex);
            for corner in 0..=D {
                // Pixels beside each other are often in one simplex.
                let vertex =
                    if same { shares[shares.len() - D - 1].0 } else { table.enter(key(simplex, corner)) };
                shares.push((vertex, simplex.share(corner)));
            }
        }
        let mut chains = vec![Vec::new(); D + 1];
        each(work, chains.iter_mut().enumerate().collect(), |(direction, chains)| {
            *chains = table.chains::<D>(direction);
        });
        Self { corners: D + 1, vertices: table.keys.len(), shares, chains }
    }
}

/// A vertex: its first `D` coordinates divided by `D + 1`, above [`middle`], and then the remainder that is common to all.
type Key = u64;

const fn bits(dimensions: usize) -> usize {
    60 / dimensions
}

/// Coordinates are counted from here, so that none of them borrows from its neighbour.
const fn middle(dimensions: usize) -> Key {
    1 << (bits(dimensions) - 1)
}

/// All first coordinates by 1.
fn ones<const D: usize>() -> Key {
    (0..D).fold(0, |key, i| key | 1 << (bits(D) * i))
}

fn key<const D: usize>(simplex: &Simplex<D>, corner: usize) -> Key {
    let coordinate = |i: usize| {
        let whole = simplex.origin[i] - i32::from(simplex.goes_down(corner, i));
        ((i64::from(whole) as Key).wrapping_add(middle(D)) & (2 * middle(D) - 1)) << (bits(D) * i)
    };
    (0..D).fold((corner as Key) << (bits(D) * D), |key, i| key | coordinate(i))
}

/// The next vertex in a direction: all coordinates grow by 1, but that of the direction shrinks by `D`.
fn next<const D: usize>(key: Key, direction: usize) -> Key {
    let one = 1 << (bits(D) * D);
    let up = if key >> (bits(D) * D) < D as Key { key + one } else { key - D as Key * one + ones::<D>() };
    if direction < D { up - (1 << (bits(D) * direction)) } else { up }
}

/// Vertices by their keys: open addressing, at most half full.
struct Table {
    slots: Vec<(Key, u32)>,
    keys: Vec<Key>,
}

const NOBODY: u32 = u32::MAX;

impl Table {
    fn new(expected: usize) -> Self {
        Self { slots: vec![(0, NOBODY); (2 * expected).next_power_of_two()], keys: Vec::new() }
    }

    /// The slot of a key, or the one where it would be.
    fn slot(&self, key: Key) -> usize {
        let mask = self.slots.len() - 1;
        let mixed = (key ^ (key >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut slot = (mixed ^ (mixed >> 32)) as usize & mask;
        while self.slots[slot].1 != NOBODY && self.slots[slot].0 != key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// The number of a vertex, which is a new one if it has none.
    fn enter(&mut self, key: Key) -> u32 {
        let slot = self.slot(key);
        if self.slots[slot].1 != NOBODY {
            return self.slots[slot].1;
        }
        let vertex = self.keys.len() as u32;
        self.slots[slot] = (key, vertex);
        self.keys.push(key);
        if 2 * self.keys.len() > self.slots.len() {
            self.grow();
        }
        vertex
    }

    fn grow(&mut self) {
        self.slots = vec![(0, NOBODY); 2 * self.slots.len()];
        for vertex in 0..self.keys.len() {
            let slot = self.slot(self.keys[vertex]);
            self.slots[slot] = (self.keys[vertex], vertex as u32);
        }
    }

    fn chains<const D: usize>(&self, direction: usize) -> Vec<u32> {
        let after: Vec<u32> =
            self.keys.iter().map(|&key| self.slots[self.slot(next::<D>(key, direction))].1).collect();
        let mut is_after = vec![false; after.len()];
        after.iter().filter(|&&vertex| vertex != NOBODY).for_each(|&vertex| is_after[vertex as usize] = true);
        let mut chains = Vec::new();
        for (first, &second) in after.iter().enumerate() {
            if is_after[first] || second == NOBODY {
                continue;
            }
            let mut vertex = first as u32;
            while after[vertex as usize] != NOBODY {
                chains.push(vertex);
                vertex = after[vertex as usize];
            }
            chains.push(vertex | END);
        }
        chains
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Points that are crowded in a corner and stray far from it.
    fn feature(i: usize) -> [f32; 5] {
        std::array::from_fn(|j| {
            ((i * i * (j + 3)) % (if i.is_multiple_of(5) { 997 } else { 11 })) as f32 * 0.2
        })
    }

    #[test]
    fn vertices_of_equal_coordinates_are_one_and_chains_go_by_the_coordinates() {
        let n = 2000;
        let lattice = Lattice::new(n, feature, Work::One);
        let mut of = BTreeMap::new();
        let mut coordinates = vec![[0; 6]; lattice.vertices];
        for i in 0..n {
            let simplex = Simplex::of(&feature(i));
            for corner in 0..6 {
                let coordinate = |j: usize| {
                    6 * simplex.origin[j] + corner as i32 - if simplex.goes_down(corner, j) { 6 } else { 0 }
                };
                let mut place: [i32; 6] = std::array::from_fn(|j| if j < 5 { coordinate(j) } else { 0 });
                place[5] = -place.iter().sum::<i32>();
                let (vertex, share) = lattice.shares[i * 6 + corner];
                assert_eq!(share, simplex.share(corner));
                assert_eq!(*of.entry(place).or_insert(vertex), vertex);
                coordinates[vertex as usize] = place;
            }
        }
        assert_eq!(of.len(), lattice.vertices);
        for (direction, chains) in lattice.chains.iter().enumerate() {
            let mut pairs = 0;
            for pair in chains.windows(2).filter(|pair| pair[0] & END == 0) {
                let [a, b] = [pair[0], pair[1] & !END].map(|vertex| coordinates[vertex as usize]);
                let step: Vec<i32> = (0..6).map(|i| b[i] - a[i]).collect();
                assert!((0..6).all(|i| step[i] == if i == direction { -5 } else { 1 }), "{step:?}");
                pairs += 1;
            }
            let beside = |place: &[i32; 6]| {
                let mut next = place.map(|x| x + 1);
                next[direction] -= 6;
                of.contains_key(&next)
            };
            assert_eq!(pairs, of.keys().filter(|place| beside(place)).count());
        }
    }

    #[test]
    fn points_beside_each_other_in_one_simplex_share_its_vertices() {
        let lattice = Lattice::new(4, |i| [0.3, 0.301, 0.302, 7.0].map(|x| [x; 2])[i], Work::One);
        assert_eq!(lattice.vertices, 6);
        assert!(lattice.shares[..9].chunks(3).all(|point| point.iter().map(|s| s.0).eq(0..3)));
    }

    #[test]
    fn a_table_grows() {
        let mut table = Table::new(1);
        let numbers: Vec<u32> = (0..500).map(|key| table.enter(key * 77)).collect();
        assert!(numbers.iter().copied().eq(0..500));
        assert!((0..500).all(|key| table.enter(key * 77) == numbers[key as usize]));
    }
}
