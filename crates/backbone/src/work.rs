//! How much work a forward pass is.

use crate::{BackboneSpec, Facet, Layer, Result};

impl BackboneSpec {
    /// Floating-point operations of the matrix products of one image of `h × w` pixels, up to the last of `layers`: a
    /// multiply-add counts as two. Norms, softmax and GELU are left out, as is usual.
    ///
    /// With `n` tokens, `t` of them patches of side `p`, and `m` hidden units: `6 t p² d` for the patches, and for every block
    /// `6 n d²` (queries, keys, values), `4 n² d` (attention), `2 n d²` (projection) and `4 n d m` (perceptron). Of a
    /// convolutional network the convolutions.
    ///
    /// # Errors
    /// [`Error::Block`](crate::Error::Block) if there is no such block.
    ///
    /// ```
    /// let loaded = backbone::load("random:vit_small_patch8:0", &backbone::LoadOptions::default())?;
    /// let work = loaded.backbone.spec().work((224, 224), &[backbone::Layer::default()])?;
    /// assert_eq!((work / 1e9).round(), 45.0); // 785 tokens
    /// # Ok::<(), backbone::Error>(())
    /// ```
    pub fn work(&self, (h, w): (usize, usize), layers: &[Layer]) -> Result<f64> {
        if !self.stages.is_empty() {
            let mut work: f64 = 0.0;
            for layer in layers {
                work = work.max(self.stages[self.block_index(layer.block)?].work_per_pixel);
            }
            return Ok(work * (h * w) as f64);
        }
        let (p, d, m) = (self.patch_size as f64, self.embed_dim as f64, self.mlp_dim as f64);
        let patches = ((h / self.patch_size) * (w / self.patch_size)) as f64;
        let tokens = 1.0 + self.registers as f64 + patches;
        let qkv = 6.0 * tokens * d * d;
        let block = qkv + 4.0 * tokens * tokens * d + 2.0 * tokens * d * d + 4.0 * tokens * d * m;
        let mut blocks: f64 = 0.0;
        for layer in layers {
            let before = self.block_index(layer.block)? as f64 * block;
            blocks = blocks.max(before + if layer.facet == Facet::Token { block } else { qkv });
        }
        Ok(6.0 * patches * p * p * d + blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_behind_the_last_layer_are_no_work() {
        let spec = BackboneSpec {
            architecture: "any".to_owned(),
            embed_dim: 2,
            depth: 3,
            num_heads: 1,
            mlp_dim: 5,
            patch_size: 4,
            registers: 1,
            stages: Vec::new(),
        };
        let work = |block, facet| spec.work((8, 12), &[Layer { block, facet }]).unwrap();
        // 6 patches and 8 tokens: by hand.
        let (embed, qkv, block) =
            (2.0 * 6.0 * 48.0 * 2.0, 2.0 * 8.0 * 2.0 * 6.0, 2.0 * 8.0 * (12.0 + 4.0 + 20.0));
        let block = block + 4.0 * 64.0 * 2.0;
        assert_eq!(work(-1, Facet::Token), embed + 3.0 * block);
        assert_eq!(work(0, Facet::Token), embed + block);
        assert_eq!(work(1, Facet::Key), embed + block + qkv);
        let both = [Layer { block: 0, facet: Facet::Token }, Layer { block: 1, facet: Facet::Value }];
        assert_eq!(spec.work((8, 12), &both).unwrap(), embed + block + qkv);
        assert!(spec.work((8, 12), &[Layer { block: 3, facet: Facet::Token }]).is_err());
    }
}
