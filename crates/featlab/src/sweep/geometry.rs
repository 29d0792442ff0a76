//! What the training features look like before any reduction: spectrum and intrinsic dimension, measured once per cache.

use std::path::PathBuf;

use anyhow::Result;
use dimred::{IntrinsicDimensionParams, Moments, Scaler, Spectrum, intrinsic_dimension};
use probe::TokenSample;

use super::Sweep;
use crate::Context;
use crate::records::write_atomically;
use crate::stages::features::Features;
use crate::study::FeatureGeometry;

/// Tokens that the intrinsic dimension is estimated from.
const TOKENS: usize = 5000;

impl Sweep {
    pub(super) fn geometry_file(&self, cache_id: &str) -> PathBuf {
        self.out.join("projections").join(format!("geometry-{cache_id}.json"))
    }

    /// What was measured of a cache's features, if it was.
    pub(super) fn geometry(&self, cache_id: &str) -> Option<FeatureGeometry> {
        serde_json::from_slice(&std::fs::read(self.geometry_file(cache_id)).ok()?).ok()
    }

    /// Measures it unless it is known.
    ///
    /// # Errors
    /// If a token is not finite, the file cannot be written, or on interruption.
    pub(super) fn measure(
        &self,
        features: &Features,
        moments: &mut Option<Moments>,
        context: &Context,
    ) -> Result<()> {
        let cache_id = &features.cache().manifest().cache_id;
        if self.geometry(cache_id).is_some() {
            return Ok(());
        }
        let moments = match moments.take() {
            Some(known) => moments.insert(known),
            None => moments.insert(features.moments(context)?),
        };
        let spectrum = Spectrum::of_moments(moments, Scaler::None)?;
        let mut geometry = FeatureGeometry {
            condition_number: Some(spectrum.condition_number()).filter(|number| number.is_finite()),
            effective_rank: Some(spectrum.effective_rank()),
            ..FeatureGeometry::default()
        };
        let mut sample = TokenSample::new(features.dim(), TOKENS, 0)?;
        for i in 0..features.len() {
            context.interrupt.check()?;
            let tokens = features.tokens(i);
            sample.add(i as u64, tokens.view(), &vec![0; tokens.nrows()])?;
        }
        // Features that all lie in a few points have no dimension; the rest of the sweep goes on without it.
        if let Ok(found) = sample
            .finish()
            .map_err(anyhow::Error::from)
            .and_then(|(rows, _)| Ok(intrinsic_dimension(rows.view(), &IntrinsicDimensionParams::default())?))
        {
            geometry.tokens = found.rows;
            geometry.intrinsic_dim =
                vec![("TwoNN".into(), found.two_nn), ("maximum likelihood".into(), found.maximum_likelihood)];
        }
        write_atomically(&self.geometry_file(cache_id), &serde_json::to_vec_pretty(&geometry)?)
    }
}
