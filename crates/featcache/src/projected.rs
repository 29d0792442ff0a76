//! Projected features: what became of tokens after the backbone, as part of their key.
//!
//! A cache whose tokens went through a reducer has the key of the cache they came from, but for `facet`, behind which stands
//! what was done: `token > f16 pca 12 9f86d0…`, the number type the tokens were read in, the method, the dimensions that were
//! kept, and the SHA-256 of the reducer file. A word in a field that is there and not a field of its own, so that readers of
//! before this was possible compute the same cache id. Projections of projections stand one behind the other.

use std::fmt;
use std::str::FromStr;

use crate::{Dtype, Error, FeatureKey, Reading};

/// Between the facet and what was done to it.
const THEN: &str = " > ";

/// One projection of all tokens of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projected {
    /// Number type of the tokens that were projected.
    pub from: Dtype,
    /// The reducer's name, e.g. `pca`: one word.
    pub method: String,
    /// Dimensions kept, `k`.
    pub dim: usize,
    /// SHA-256 of the reducer file, in hex.
    pub reducer: String,
}

impl fmt::Display for Projected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.from, self.method, self.dim, self.reducer)
    }
}

impl FromStr for Projected {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::InvalidKey { field: "facet", reason: format!("has no projection in {text:?}") };
        match text.split(' ').collect::<Vec<_>>()[..] {
            [from, method, dim, reducer] => Ok(Self {
                from: from.parse()?,
                method: method.to_owned(),
                dim: dim.parse().map_err(|_| wrong())?,
                reducer: reducer.to_owned(),
            }),
            _ => Err(wrong()),
        }
    }
}

impl FeatureKey {
    /// The key of one column of this cache after a projection, stored in `dtype`.
    #[must_use]
    pub fn projected(&self, column: Reading, by: &Projected, dtype: Dtype) -> Self {
        let facet = format!("{}{THEN}{by}", column.facet);
        Self { facet, layer: column.layer, dtype, more: Vec::new(), ..self.clone() }
    }

    /// What was done to the tokens since the backbone, in order; nothing for most caches.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] if it stands there in words that this version does not know.
    pub fn projections(&self) -> Result<Vec<Projected>, Error> {
        self.facet.split(THEN).skip(1).map(str::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::key;

    fn by(method: &str, dim: usize) -> Projected {
        Projected { from: Dtype::F16, method: method.into(), dim, reducer: "9f86d081".into() }
    }

    fn first() -> Reading {
        Reading { facet: "token".into(), layer: -1 }
    }

    #[test]
    fn a_projection_is_another_key_and_is_read_back() {
        let source = FeatureKey { more: vec![Reading { facet: "key".into(), layer: 11 }], ..key() };
        let projected = source.projected(first(), &by("pca", 12), Dtype::F32);
        assert_eq!(projected.facet, "token > f16 pca 12 9f86d081");
        assert_eq!((projected.layer, projected.dtype, projected.more.len()), (-1, Dtype::F32, 0));
        assert_eq!(projected.projections().unwrap(), [by("pca", 12)]);
        assert!(source.projections().unwrap().is_empty());
        projected.check().unwrap();

        let other = source.projected(source.more[0].clone(), &by("pca", 12), Dtype::F32);
        assert_eq!((other.layer, &*other.facet), (11, "key > f16 pca 12 9f86d081"));
        let ids = [
            key().fingerprint(),
            projected.fingerprint(),
            other.fingerprint(),
            source.projected(first(), &by("pca", 13), Dtype::F32).fingerprint(),
            source.projected(first(), &by("rp", 12), Dtype::F32).fingerprint(),
            source.projected(first(), &by("pca", 12), Dtype::F16).fingerprint(),
            source
                .projected(first(), &Projected { from: Dtype::F32, ..by("pca", 12) }, Dtype::F32)
                .fingerprint(),
        ];
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
    }

    #[test]
    fn projections_follow_one_another() {
        let once = key().projected(first(), &by("pca", 12), Dtype::F32);
        let reading = Reading { facet: once.facet.clone(), layer: once.layer };
        let second = Projected { from: Dtype::F32, ..by("umap", 3) };
        let twice = once.projected(reading, &second, Dtype::F32);
        assert_eq!(twice.projections().unwrap(), [by("pca", 12), second]);
    }

    #[test]
    fn unknown_words_are_refused() {
        for facet in ["token > f16 pca 12", "token > f16 pca many 00", "token > f8 pca 12 00"] {
            assert!(FeatureKey { facet: facet.into(), ..key() }.projections().is_err(), "{facet}");
        }
    }
}
