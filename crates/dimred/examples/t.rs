//! x
use linfa_linalg::tridiagonal::*;
use ndarray::*;
use std::time::Instant;
fn main() {
    for d in [384usize, 768, 769] {
        let mut s = 1u64;
        let x = Array2::from_shape_fn((20_000, d), |(_, j)| {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((s >> 40) as f32 / 16777216.0 - 0.5) * (1.0 + j as f32 * 0.1)
        });
        let t = Instant::now();
        let mut m = dimred::Moments::new(d);
        m.add(x.view()).unwrap();
        println!("{d} moments {:?}", t.elapsed());
        let c = m.covariance().unwrap();
        let t = Instant::now();
        let tri = c.clone().sym_tridiagonal().unwrap();
        println!("{d} tri {:?}", t.elapsed());
        let q = tri.generate_q();
        println!("{d} +q {:?} {:?}", t.elapsed(), q.strides());
    }
}
