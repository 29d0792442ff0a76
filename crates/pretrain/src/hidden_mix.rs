//! Manifold mixup: images that are mixed inside a network, where a block or stage takes them in, and the way back through the mixture.

use crate::buffer::sized;

/// Images that are mixed inside the network (manifold mixup): `x ← λ x + (1 - λ) x[π]` where a block takes it in.
#[derive(Debug, Clone, PartialEq)]
pub struct HiddenMix {
    /// The block, from 0: what leaves the embedding. Of a ResNet the stage.
    pub block: usize,
    /// λ: the share of the image itself.
    pub lambda: f32,
    /// π: the partner of each image.
    pub partners: Vec<usize>,
}

impl HiddenMix {
    /// Mixes images of `len` numbers each.
    pub(crate) fn apply(&self, x: &mut [f32], len: usize, before: &mut Vec<f32>) {
        let before = sized(before, x.len());
        before.copy_from_slice(x);
        let (own, other) = (self.lambda, 1.0 - self.lambda);
        for (x, &partner) in x.chunks_exact_mut(len).zip(&self.partners) {
            let partner = &before[partner * len..][..len];
            x.iter_mut().zip(partner).for_each(|(x, partner)| *x = own * *x + other * partner);
        }
    }

    /// The gradient of what was mixed, in place.
    pub(crate) fn backward(&self, dx: &mut [f32], len: usize, after: &mut Vec<f32>) {
        let after = sized(after, dx.len());
        after.copy_from_slice(dx);
        let (own, other) = (self.lambda, 1.0 - self.lambda);
        dx.iter_mut().for_each(|dx| *dx *= own);
        for (image, &partner) in self.partners.iter().enumerate() {
            let from = &after[image * len..][..len];
            let to = &mut dx[partner * len..][..len];
            to.iter_mut().zip(from).for_each(|(to, from)| *to += other * from);
        }
    }
}
