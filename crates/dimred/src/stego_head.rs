//! A trained STEGO head as a reducer: `x ↦ L x + N(x)`, where `N` is a perceptron with one hidden layer or absent
//! (Hamilton et al., ICLR 2022).
//!
//! The head is trained elsewhere; here it is a map of rows, and a file. A *nested* head was trained so that its first `k` numbers
//! are a code by themselves: it serves every smaller dimension, as principal components do. Another one serves its own alone.

use kernels::{Level, RowMap};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};

use crate::affine::Projection;
use crate::{Error, Result};

/// One affine layer.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadLayer {
    /// `[to, from]`.
    pub weight: Array2<f32>,
    /// `[to]`.
    pub bias: Array1<f32>,
}

impl HeadLayer {
    fn check(&self, what: &'static str, from: usize) -> Result<()> {
        let (to, width) = self.weight.dim();
        let fits = width == from && self.bias.len() == to && to > 0 && from > 0;
        if !fits {
            return Err(Error::Invalid {
                what,
                expected: "a weight [to, from] and a bias [to] that fit the head",
                got: format!("{:?} and {:?} for {from} dimensions", self.weight.shape(), self.bias.shape()),
            });
        }
        match self.weight.iter().chain(&self.bias).all(|x| x.is_finite()) {
            true => Ok(()),
            false => Err(Error::Invalid { what, expected: "finite numbers", got: "NaN or infinity".into() }),
        }
    }

    fn map(&self) -> RowMap {
        let matrix = self.weight.t().as_standard_layout().into_owned(); // [from, to]
        let (from, to) = matrix.dim();
        let numbers = matrix.as_slice().expect("an array in standard layout");
        RowMap::new(Level::current(), &vec![0.0; from], numbers, to)
    }

    fn first(&self, k: usize) -> Self {
        Self { weight: self.weight.slice(s![..k, ..]).to_owned(), bias: self.bias.slice(s![..k]).to_owned() }
    }
}

/// A trained head.
#[derive(Debug, Clone, PartialEq)]
pub struct StegoHead {
    linear: HeadLayer,
    perceptron: Option<(HeadLayer, HeadLayer)>,
    nested: bool,
    /// The layers laid out for products: linear, hidden, output.
    maps: Vec<RowMap>,
}

impl StegoHead {
    /// * `linear`: `[D, d]`; `perceptron`: a hidden layer `[h, d]` and one of outputs `[D, h]`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the layers do not fit together or hold NaN or infinity.
    pub fn new(linear: HeadLayer, perceptron: Option<(HeadLayer, HeadLayer)>, nested: bool) -> Result<Self> {
        let (k, d) = linear.weight.dim();
        linear.check("the head's linear layer", d)?;
        if let Some((hidden, output)) = &perceptron {
            hidden.check("the head's hidden layer", d)?;
            output.check("the head's layer of outputs", hidden.bias.len())?;
            if output.bias.len() != k {
                let got = format!("{} and {k}", output.bias.len());
                return Err(Error::Invalid {
                    what: "a head",
                    expected: "as many outputs of both branches",
                    got,
                });
            }
        }
        let branches = perceptron.iter().flat_map(|(hidden, output)| [hidden, output]);
        let maps = std::iter::once(&linear).chain(branches).map(HeadLayer::map).collect();
        Ok(Self { linear, perceptron, nested, maps })
    }

    /// The linear branch.
    #[must_use]
    pub fn linear(&self) -> &HeadLayer {
        &self.linear
    }

    /// Hidden layer and layer of outputs of the other branch, if there is one.
    #[must_use]
    pub fn perceptron(&self) -> Option<&(HeadLayer, HeadLayer)> {
        self.perceptron.as_ref()
    }

    /// Whether its first `k` numbers are a code of their own.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.nested
    }

    /// Whether it has a map to `k` dimensions.
    #[must_use]
    pub fn serves(&self, k: usize) -> bool {
        k == self.output_dim() || (self.nested && (1..self.output_dim()).contains(&k))
    }

    /// The head to the first `k` of its numbers, each as it was.
    ///
    /// # Errors
    /// [`Error::Dimension`] if it has fewer, [`Error::OtherDimension`] if it is not nested and has more.
    pub fn at(&self, k: usize) -> Result<Self> {
        let own = self.output_dim();
        match self.serves(k) {
            true if k == own => Ok(self.clone()),
            true => {
                let perceptron =
                    self.perceptron.as_ref().map(|(hidden, output)| (hidden.clone(), output.first(k)));
                Self::new(self.linear.first(k), perceptron, true)
            }
            false if self.nested => Err(Error::Dimension { asked: k, available: own }),
            false => Err(Error::OtherDimension { asked: k, fitted: own }),
        }
    }
}

fn apply(map: &RowMap, rows: &Array2<f32>, bias: &Array1<f32>) -> Array2<f32> {
    let mut out = Array2::zeros((rows.nrows(), bias.len()));
    let contiguous = "an array in standard layout";
    map.apply(rows.as_slice().expect(contiguous), out.as_slice_mut().expect(contiguous));
    out += &bias.view().insert_axis(Axis(0));
    out
}

impl Projection for StegoHead {
    fn input_dim(&self) -> usize {
        self.linear.weight.ncols()
    }

    fn output_dim(&self) -> usize {
        self.linear.weight.nrows()
    }

    fn transform(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        if rows.ncols() != self.input_dim() {
            return Err(Error::Width { expected: self.input_dim(), got: rows.ncols() });
        }
        let rows = rows.as_standard_layout().into_owned();
        let mut code = apply(&self.maps[0], &rows, &self.linear.bias); // [n, D]
        if let Some((hidden, output)) = &self.perceptron {
            let mut within = apply(&self.maps[1], &rows, &hidden.bias); // [n, h]
            within.mapv_inplace(|x| if x > 0.0 { x } else { 0.0 * x }); // NaN stays
            code += &apply(&self.maps[2], &within, &output.bias);
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn layer(to: usize, from: usize, salt: usize) -> HeadLayer {
        HeadLayer {
            weight: Array2::from_shape_fn((to, from), |(i, j)| ((i * 7 + j * 3 + salt) as f32).sin()),
            bias: Array1::from_shape_fn(to, |i| ((i + salt) as f32).cos()),
        }
    }

    fn head(nested: bool) -> StegoHead {
        StegoHead::new(layer(6, 10, 1), Some((layer(10, 10, 2), layer(6, 10, 3))), nested).unwrap()
    }

    #[test]
    fn by_hand() {
        let linear = HeadLayer { weight: array![[1.0, 2.0]], bias: array![0.5] };
        let hidden = HeadLayer { weight: array![[1.0, 0.0], [0.0, -1.0]], bias: array![0.0, 0.0] };
        let output = HeadLayer { weight: array![[10.0, 100.0]], bias: array![-1.0] };
        let rows = array![[1.0, 1.0], [-1.0, -2.0]];
        let alone = StegoHead::new(linear.clone(), None, false).unwrap();
        assert_eq!(alone.transform(rows.view()).unwrap(), array![[3.5], [-4.5]]);
        let both = StegoHead::new(linear, Some((hidden, output)), false).unwrap();
        assert_eq!(both.transform(rows.view()).unwrap(), array![[3.5 + 10.0 - 1.0], [-4.5 + 200.0 - 1.0]]);
    }

    #[test]
    fn a_nested_head_begins_with_its_smaller_ones() {
        let rows = Array2::from_shape_fn((9, 10), |(i, j)| ((i * j + i) as f32).sin());
        let whole = head(true).transform(rows.view()).unwrap();
        for k in [1, 4, 6] {
            let part = head(true).at(k).unwrap().transform(rows.view()).unwrap();
            assert_eq!(part, whole.slice(s![.., ..k]));
        }
        assert!(matches!(head(true).at(7), Err(Error::Dimension { asked: 7, available: 6 })));
        assert!(matches!(head(false).at(4), Err(Error::OtherDimension { asked: 4, fitted: 6 })));
        assert!(head(false).at(6).is_ok());
    }

    #[test]
    fn files_hold_heads_of_both_kinds() {
        use crate::Reducer;
        use std::collections::BTreeMap;
        use std::sync::Arc;
        let linear = StegoHead::new(layer(6, 10, 1), None, false).unwrap();
        for (head, method, scale) in [(head(true), "stego-nested", Some(1.0)), (linear, "stego", None)] {
            let reducer = Reducer::Stego(Arc::new(head));
            let back = Reducer::from_bytes(&reducer.to_bytes(&BTreeMap::new()).unwrap()).unwrap();
            assert_eq!((back.method(), back.prefix_scale(4)), (method, scale));
            assert_eq!((back.input_dim(), back.max_dim(), back.prefix_scale(6)), (10, 6, Some(1.0)));
            assert_eq!(back, reducer);
        }
    }

    #[test]
    fn layers_that_do_not_fit_are_refused() {
        assert!(StegoHead::new(layer(6, 10, 1), Some((layer(10, 9, 2), layer(6, 10, 3))), false).is_err());
        assert!(StegoHead::new(layer(6, 10, 1), Some((layer(10, 10, 2), layer(5, 10, 3))), false).is_err());
        let mut broken = layer(6, 10, 1);
        broken.weight[[2, 3]] = f32::NAN;
        assert!(StegoHead::new(broken, None, false).is_err());
    }
}
