//! A Gaussian sum over the pixels of a picture by their places alone: the lattice of two dimensions, line by line.
//!
//! Pixels then lie so close that the lattice has hardly a hole but at its rim, and its vertices need no table: they form *lines*
//! along which the picture's height is constant, one for every half deviation, and vertices of neighbouring lines stand in the gaps
//! of one another:
//!
//! ```text
//! line r - 2      ·       ·       ·          direction 0: from the upper left to the lower right
//! line r - 1          ·       ·       ·      direction 1: from the upper right to the lower left
//! line r          ·       x       ·          direction 2: two lines up and down
//! ```
//!
//! So the sum of a picture goes down it as a wave: a line of pixels is shared out, the lattice lines that no later pixel touches are
//! blurred in one direction, those whose neighbours have been in the next one, and pixels are read whose vertices
//! are through. Only some lines are alive at a time, and stay in the nearest cache.

use std::iter;

use super::row::{Quarter, Row};
use super::scattered::TINY;
use super::simplex::Simplex;

/// Empty lines above the first one and below the last, so that all have neighbours. Even: lines keep their parity.
const RIM: i32 = 4;

/// A line that has been blurred in all directions lies this many lines further up in memory: each direction writes over the
/// topmost line that it reads.
const SHIFT: usize = 4;

/// A kernel `w k̃` on the places of a picture.
pub(super) struct Regular {
    w: usize,
    /// Vertices of a line, with an empty one at either end.
    columns: usize,
    /// Lines that memory is kept for; they are used in turn.
    kept: usize,
    /// Where in memory a pixel's corners lie, and its share in them, normalised: `[h w]`.
    corners: Vec<[(u32, f32); 3]>,
    /// All ones for vertices that a pixel touches, else zero: `[lines][columns]`.
    touched: Vec<u32>,
    steps: Vec<Step>,
    /// What is read is multiplied by this.
    scale: f32,
}

/// What is done next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Empty a line of the lattice.
    Clear(usize),
    /// Share out a line of pixels.
    Share(usize),
    /// Blur a line of the lattice in a direction.
    Blur(usize, usize),
    /// Read a line of pixels.
    Read(usize),
}

impl Regular {
    /// Whether a lattice of this deviation has not many more vertices than the picture has pixels.
    pub(super) fn suits(deviation: f32) -> bool {
        deviation >= 0.5
    }

    /// * `deviation`: of the Gaussian, in pixels.
    pub(super) fn new((h, w): (usize, usize), deviation: f32, weight: f32) -> Self {
        let mut vertices = Vec::with_capacity(h * w);
        kernels::simd(
            #[inline(always)]
            || {
                for y in 0..h {
                    for x in 0..w {
                        let simplex = Simplex::of(&[x as f32 / deviation, y as f32 / deviation]);
                        vertices
                            .push([0, 1, 2].map(|corner| (vertex(&simplex, corner), simplex.share(corner))));
                    }
                }
            },
        );
        let all = || vertices.iter().flatten().map(|(vertex, _)| vertex);
        let least = |f: fn(&Vertex) -> i32| all().map(f).min().unwrap_or(0);
        let most = |f: fn(&Vertex) -> i32| all().map(f).max().unwrap_or(0);
        // The first line even, as RIM is.
        let (line_0, column_0) = (least(|v| v.line) & !1, least(|v| v.column));
        let columns = (most(|v| v.column) - column_0 + 3) as usize;
        let lines = (most(|v| v.line) - line_0 + 2 * RIM + 1) as usize;
        let line = |v: &Vertex| (v.line - line_0 + RIM) as usize;
        let column = |v: &Vertex| (v.column - column_0 + 1) as usize;

        let mut touched = vec![0; lines * columns];
        all().for_each(|v| touched[line(v) * columns + column(v)] = u32::MAX);
        let span = |pixels: &[[(Vertex, f32); 3]]| {
            let lines = || pixels.iter().flatten().map(|(v, _)| line(v));
            (lines().min().unwrap_or(0), lines().max().unwrap_or(0))
        };
        let spans: Vec<_> = vertices.chunks_exact(w).map(span).collect();
        let (steps, kept) = steps(&spans, lines);
        let corners = vertices
            .iter()
            .map(|corners| corners.map(|(v, share)| ((line(&v) % kept * columns + column(&v)) as u32, share)))
            .collect();
        // What blurring adds to a lone vertex in every direction is taken off again.
        let mut this = Self { w, columns, kept, corners, touched, steps, scale: 1.0 / (1.0 + 0.25) };
        this.normalise();
        this.scale *= weight;
        this
    }

    /// Puts the symmetric normalisation into the shares.
    fn normalise(&mut self) {
        let mut rows = vec![Quarter::all(1.0); self.corners.len()];
        kernels::simd(
            #[inline(always)]
            || self.add(&mut rows, &mut Vec::new(), |_, row| *row = Quarter::all(0.0)),
        );
        for (corners, sum) in self.corners.iter_mut().zip(rows) {
            let scale = 1.0 / (sum.lanes()[0] + TINY).sqrt();
            corners.iter_mut().for_each(|(_, share)| *share *= scale);
        }
    }

    /// Puts `base + w k̃(q)` in place of `q`.
    ///
    /// * `q`: a row per pixel.
    /// * `memory`: kept from one call to the next, whatever is in it.
    /// * `base`: of a pixel, written to what was its row.
    #[inline(always)]
    pub(super) fn add<R: Row>(&self, q: &mut [R], memory: &mut Vec<R>, base: impl Fn(usize, &mut R)) {
        memory.resize(self.kept * self.columns, R::all(0.0));
        let pixels = |y: usize| y * self.w..(y + 1) * self.w;
        for &step in &self.steps {
            match step {
                Step::Clear(line) => memory[self.place(line)].fill(R::all(0.0)),
                Step::Share(y) => {
                    for (q, corners) in q[pixels(y)].iter().zip(&self.corners[pixels(y)]) {
                        for &(at, share) in corners {
                            memory[at as usize].add(share, q);
                        }
                    }
                }
                Step::Blur(direction, line) => self.blur(direction, line, memory),
                Step::Read(y) => {
                    let (shift, all) = (SHIFT * self.columns, self.kept * self.columns);
                    for pixel in pixels(y) {
                        let mut sum = R::all(0.0);
                        for &(at, share) in &self.corners[pixel] {
                            let at = at as usize;
                            sum.add(share, &memory[if at < shift { at + all - shift } else { at - shift }]);
                        }
                        base(pixel, &mut q[pixel]);
                        q[pixel].add(self.scale, &sum);
                    }
                }
            }
        }
    }

    /// Where a line lies.
    fn place(&self, line: usize) -> std::ops::Range<usize> {
        let line = line % self.kept;
        line * self.columns..(line + 1) * self.columns
    }

    /// Blurs a line in a direction, from where it lies after those before to the place of the topmost line that it takes from.
    #[inline(always)]
    fn blur<R: Row>(&self, direction: usize, line: usize, memory: &mut [R]) {
        let reach = if direction == 2 { 2 } else { 1 };
        let at = line + self.kept - direction; // one line further up for each direction before
        let places = [at - reach, at, at + reach].map(|line| self.place(line));
        let Ok([above, own, below]) = memory.get_disjoint_mut(places) else {
            unreachable!("more lines are kept than a blur reaches over")
        };
        let touched = &self.touched[line * self.columns..][..self.columns];
        let columns = 1..self.columns - 1;
        // Where the neighbours stand among the columns. A row above is overwritten when it has been read for the last time.
        match (direction, line % 2) {
            (0, 0) => {
                for j in columns {
                    above[j] = own[j].blurred(&above[j], &below[j + 1]).and(touched[j]);
                }
            }
            (0, _) => {
                for j in columns.rev() {
                    above[j] = own[j].blurred(&above[j - 1], &below[j]).and(touched[j]);
                }
            }
            (1, 0) => {
                for j in columns {
                    above[j] = own[j].blurred(&above[j + 1], &below[j]).and(touched[j]);
                }
            }
            (1, _) => {
                for j in columns {
                    above[j] = own[j].blurred(&above[j], &below[j - 1]).and(touched[j]);
                }
            }
            _ => {
                for j in columns {
                    above[j] = own[j].blurred(&above[j], &below[j]).and(touched[j]);
                }
            }
        }
    }
}

/// Line and column of a vertex.
#[derive(Debug, Clone, Copy)]
struct Vertex {
    line: i32,
    column: i32,
}

fn vertex(simplex: &Simplex<2>, corner: usize) -> Vertex {
    // Coordinates 0 and 1 by three, without what is common to both, which is the corner.
    let [a, b] = [0, 1].map(|i| simplex.origin[i] - i32::from(simplex.goes_down(corner, i)));
    let line = 3 * (a + b) + 2 * corner as i32; // the sum of both
    let along = 2 * a + b + corner as i32; // coordinate 0 is 3 along - line
    Vertex { line, column: along - line.div_euclid(2) }
}

/// The order in which all is done, and how many lines are alive at most.
///
/// * `spans`: the first and the last line of the lattice that each line of pixels touches.
fn steps(spans: &[(usize, usize)], lines: usize) -> (Vec<Step>, usize) {
    let mut steps = Vec::new();
    let mut kept = 0;
    // Lines of pixels below touch nothing above this.
    let mut untouched: Vec<usize> = spans.iter().map(|&(first, _)| first).chain(iter::once(lines)).collect();
    for y in (0..spans.len()).rev() {
        untouched[y] = untouched[y].min(untouched[y + 1]);
    }
    let (mut clear, mut read) = (0, 0);
    let mut blurred = [1, 2, 4]; // the next line of each direction; those above are empty
    for (y, &(_, last)) in spans.iter().enumerate() {
        let complete = untouched[y + 1]; // lines above this are
        while clear <= last || clear < complete {
            steps.push(Step::Clear(clear));
            clear += 1;
        }
        // The oldest line that is alive: one that is yet to be read, or the topmost of the next blur.
        let oldest = untouched[read].min(blurred[2]) - SHIFT;
        kept = kept.max(clear - oldest);
        steps.push(Step::Share(y));
        for direction in 0..3 {
            let (reach, before) = match direction {
                0 => (1, complete),
                1 => (1, blurred[0]),
                _ => (2, blurred[1]),
            };
            while blurred[direction] + reach < before {
                steps.push(Step::Blur(direction, blurred[direction]));
                blurred[direction] += 1;
            }
        }
        while read < spans.len() && spans[read].1 < blurred[2] {
            steps.push(Step::Read(read));
            read += 1;
        }
    }
    (steps, kept)
}

#[cfg(test)]
mod tests {
    use super::super::lattice::Lattice;
    use super::super::row::Line;
    use super::super::scattered::Scattered;
    use super::super::work::Work;
    use super::*;

    /// The same lattice with its vertices in a table, for pictures of all shapes, finer and coarser than their pixels.
    #[test]
    fn it_is_the_lattice_of_points_anywhere() {
        for (h, w) in [(1, 1), (1, 9), (9, 1), (2, 2), (13, 7), (24, 31)] {
            for deviation in [0.3, 0.5, 0.77, 1.0, 1.7, 2.5, 9.0, 400.0] {
                let lattice = Lattice::new(
                    h * w,
                    |i| [(i % w) as f32 / deviation, (i / w) as f32 / deviation],
                    Work::One,
                );
                let table = Scattered::new(lattice, 3.0);
                let lines = Regular::new((h, w), deviation, 3.0);
                let value = |i: usize, lane: usize| ((i * 7 + lane * 5) % 13) as f32 * 0.1;
                let mut q = vec![Line::all(0.0); h * w];
                for (i, row) in q.iter_mut().enumerate() {
                    row.lanes_mut().iter_mut().enumerate().for_each(|(lane, x)| *x = value(i, lane));
                }
                let mut rows = Vec::new();
                table.collect(&q, &mut rows);
                let mut memory = vec![Line::all(1.0); 5];
                let mut got = q.clone();
                lines.add(&mut got, &mut memory, |i, row| *row = Line::all(1.0).times(i as f32));
                for (i, got) in got.iter().enumerate() {
                    let mut expected = Line::all(1.0).times(i as f32);
                    table.read(i, &rows, &mut expected);
                    let near = |lane: usize| {
                        (got.lanes()[lane] - expected.lanes()[lane]).abs() < 1e-4 * (1.0 + i as f32)
                    };
                    assert!((0..16).all(near), "{h} x {w}, {deviation}, {i}: {got:?} {expected:?}");
                }
            }
        }
    }

    #[test]
    fn only_some_lines_are_kept() {
        assert!(Regular::new((320, 4), 1.0, 1.0).kept <= 20);
    }
}
