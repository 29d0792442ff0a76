//! Reducer: any fitted reduction; [its file](crate::reducer_file).

use std::sync::Arc;

use ndarray::{Array1, Array2};

use crate::affine::{Affine, Projection};
#[cfg(feature = "hnne")]
use crate::hnne::Hnne;
use crate::map::Map;
use crate::pca::Pca;
use crate::random_projection::RandomProjection;
use crate::stego_head::StegoHead;
use crate::umap::Umap;
use crate::{Error, Result};

/// No reduction: all `d` features as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub(crate) dim: usize,
}

impl Identity {
    /// The identity on rows of width `d`.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self { dim }
    }
}

/// Any fitted reduction.
#[derive(Debug, Clone, PartialEq)]
pub enum Reducer {
    /// All features as they are.
    Identity(Identity),
    /// Principal components.
    Pca(Pca),
    /// A random projection.
    RandomProjection(RandomProjection),
    /// A UMAP, for one target dimension.
    Umap(Arc<Umap>),
    /// A trained STEGO head: for one target dimension, or nested.
    Stego(Arc<StegoHead>),
    /// An h-NNE, for one target dimension.
    #[cfg(feature = "hnne")]
    Hnne(Arc<Hnne>),
}

impl Reducer {
    /// Name used in results: `none`, `pca`, `rp`, `rp-sparse`, `umap`, `hnne`, `stego`, `stego-nested`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::Identity(_) => "none",
            Self::Pca(_) => "pca",
            Self::RandomProjection(rp) if rp.sparse => "rp-sparse",
            Self::RandomProjection(_) => "rp",
            Self::Umap(_) => "umap",
            Self::Stego(head) if head.is_nested() => "stego-nested",
            Self::Stego(_) => "stego",
            #[cfg(feature = "hnne")]
            Self::Hnne(_) => "hnne",
        }
    }

    /// Width `d` of the rows that it takes.
    #[must_use]
    pub fn input_dim(&self) -> usize {
        match self {
            Self::Identity(identity) => identity.dim,
            Self::Pca(pca) => pca.mean.len(),
            Self::RandomProjection(rp) => rp.mean.len(),
            Self::Umap(umap) => umap.input_dim(),
            Self::Stego(head) => head.input_dim(),
            #[cfg(feature = "hnne")]
            Self::Hnne(hnne) => hnne.input_dim(),
        }
    }

    /// The largest target dimension.
    #[must_use]
    pub fn max_dim(&self) -> usize {
        match self {
            Self::Identity(identity) => identity.dim,
            Self::Pca(pca) => pca.n_components(),
            Self::RandomProjection(rp) => rp.max_dim(),
            Self::Umap(umap) => umap.output_dim(),
            Self::Stego(head) => head.output_dim(),
            #[cfg(feature = "hnne")]
            Self::Hnne(hnne) => hnne.output_dim(),
        }
    }

    /// The map to `k` dimensions.
    ///
    /// # Errors
    /// [`Error::Dimension`] if there is none: the identity has one for `k = d`.
    /// [`Error::OtherDimension`] for another `k` than that of a fit that serves only one.
    pub fn at(&self, k: usize) -> Result<Map> {
        match self {
            Self::Identity(Identity { dim }) if k == *dim => Ok(Map::Affine(Affine::new(
                Array1::zeros(k).view(),
                Array1::ones(k).view(),
                Array2::eye(k).view(),
            ))),
            Self::Identity(Identity { dim }) => Err(Error::Dimension { asked: k, available: *dim }),
            Self::Pca(pca) => pca.at(k).map(Map::Affine),
            Self::RandomProjection(rp) => rp.at(k).map(Map::Affine),
            Self::Umap(umap) if k == umap.output_dim() => Ok(Map::Umap(Arc::clone(umap))),
            Self::Umap(umap) => Err(Error::OtherDimension { asked: k, fitted: umap.output_dim() }),
            Self::Stego(head) => head.at(k).map(|head| Map::Stego(Arc::new(head))),
            #[cfg(feature = "hnne")]
            Self::Hnne(hnne) if k == hnne.output_dim() => Ok(Map::Hnne(Arc::clone(hnne))),
            #[cfg(feature = "hnne")]
            Self::Hnne(hnne) => Err(Error::OtherDimension { asked: k, fitted: hnne.output_dim() }),
        }
    }

    /// How the map to `k` dimensions follows from the map to [`Self::max_dim`]: `Some(s)` if it is `s` times the first `k`
    /// columns of that one (to the bit where `s` is 1). `None` if there is no map to `k` dimensions, and for reducers whose maps are
    /// no prefixes of one another.
    #[must_use]
    pub fn prefix_scale(&self, k: usize) -> Option<f32> {
        match self {
            Self::Identity(identity) => (k == identity.dim).then_some(1.0),
            Self::Pca(pca) => (1..=pca.n_components()).contains(&k).then_some(1.0),
            Self::RandomProjection(rp) => {
                let scale = (rp.max_dim() as f64 / k as f64).sqrt() as f32;
                (1..=rp.max_dim()).contains(&k).then_some(scale)
            }
            Self::Stego(head) => head.serves(k).then_some(1.0),
            Self::Umap(_) => None,
            #[cfg(feature = "hnne")]
            Self::Hnne(_) => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Moments, PcaParams, RandomProjectionKind, RandomProjectionParams, Scaler, UmapParams};

    /// One of each kind, those that are always there.
    pub(crate) fn reducers() -> Vec<Reducer> {
        let rows = Array2::from_shape_fn((60, 7), |(i, j)| ((i * (j + 3)) % 11) as f32 - 0.1 * j as f32);
        let mut moments = Moments::new(7);
        moments.add(rows.view()).unwrap();
        let random = |kind| RandomProjectionParams { kind, seed: 4, scaler: Scaler::Train, max_dim: 5 };
        vec![
            Reducer::Identity(Identity::new(7)),
            Reducer::Pca(PcaParams::default().fit_moments(&moments).unwrap().truncated(6).unwrap()),
            Reducer::Pca(PcaParams { whiten: true, ..PcaParams::default() }.fit_moments(&moments).unwrap()),
            Reducer::RandomProjection(random(RandomProjectionKind::Gaussian).fit(7, Some(&moments)).unwrap()),
            Reducer::RandomProjection(
                random(RandomProjectionKind::Sparse { density: None }).fit(7, Some(&moments)).unwrap(),
            ),
            Reducer::Umap(Arc::new(
                UmapParams { n_components: 3, n_epochs: Some(20), ..UmapParams::default() }
                    .fit(rows.view())
                    .unwrap(),
            )),
        ]
    }

    #[test]
    fn names_and_dimensions() {
        let names: Vec<_> = reducers().iter().map(|r| (r.method(), r.input_dim(), r.max_dim())).collect();
        assert_eq!(
            names,
            [("none", 7, 7), ("pca", 7, 6), ("pca", 7, 7), ("rp", 7, 5), ("rp-sparse", 7, 5), ("umap", 7, 3)]
        );
        assert!(reducers()[0].at(6).is_err() && reducers()[0].at(7).is_ok());
    }

    #[test]
    fn maps_are_scaled_prefixes_of_the_widest() {
        let rows = Array2::from_shape_fn((20, 7), |(i, j)| ((i * 3 + j) as f32).sin());
        for reducer in reducers() {
            let max = reducer.max_dim();
            let wide = reducer.at(max).unwrap().transform(rows.view()).unwrap();
            for k in 1..=max {
                let Some(scale) = reducer.prefix_scale(k) else {
                    let own = reducer.method() == "umap" && k == max;
                    assert_eq!(reducer.at(k).is_ok(), own, "{}", reducer.method());
                    continue;
                };
                let narrow = reducer.at(k).unwrap().transform(rows.view()).unwrap();
                let prefix = wide.slice(ndarray::s![.., ..k]).mapv(|x| x * scale);
                match scale {
                    1.0 => assert_eq!(narrow, prefix),
                    _ => assert!((narrow - prefix).iter().all(|x| x.abs() < 1e-5), "{}", reducer.method()),
                }
            }
            assert!(reducer.prefix_scale(0).is_none() && reducer.prefix_scale(max + 1).is_none());
            assert_eq!(reducer.at(max).unwrap().affine().is_some(), reducer.method() != "umap");
        }
    }
}
