//! One block of a transformer, there and back; the last one also for the class tokens alone.
//!
//! `x + Attn(LN1 x)`, then `+ MLP(LN2 …)`, each branch scaled by its dice of stochastic depth.

use kernels::{
    AttentionShape, NormStats, attention, attention_backward, cls_attention, cls_attention_backward,
};

use crate::buffer::sized;
use crate::drop_path::{Branch, add_branch, scale_branch};
use crate::layers::{Dense, Mlp, MlpActivations, Norm};

/// Where the parameters of a block lie, in the order of the forward pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) norm1: Norm,
    pub(super) qkv: Dense,
    pub(super) proj: Dense,
    pub(super) norm2: Norm,
    pub(super) mlp: Mlp,
}

/// Of one block. In the last one everything after `normed1` is of the class tokens only, except keys and values.
#[derive(Debug, Default)]
pub(super) struct BlockActivations {
    pub(super) x: Vec<f32>,       // [n, d], what enters
    pub(super) normed1: Vec<f32>, // [n, d]
    pub(super) stats1: Vec<NormStats>,
    pub(super) qkv: Vec<f32>, // [n, 3 d]; in the last block [n, 2 d], keys and values
    pub(super) cls_in: Vec<f32>, // [2, b, d]: in the last block `x` and `normed1` of the class tokens
    pub(super) queries: Vec<f32>, // [b, d], in the last block
    pub(super) attended: Vec<f32>, // [n, d]
    pub(super) branch: Vec<f32>, // [n, d]
    pub(super) middle: Vec<f32>, // [n, d], after attention
    pub(super) normed2: Vec<f32>, // [n, d]
    pub(super) stats2: Vec<NormStats>,
    pub(super) mlp: MlpActivations,
    pub(super) drop: [Branch; 2],
}

/// Gradients on the way back.
#[derive(Debug, Default)]
pub(super) struct Back {
    pub(super) x: Vec<f32>,      // [n, d]
    pub(super) last: Vec<f32>,   // [b, d] or [n, d]
    pub(super) branch: Vec<f32>, // [n, d]
    pub(super) normed: Vec<f32>, // [n, d]
    pub(super) qkv: Vec<f32>,    // [n, 3 d]
    pub(super) queries: Vec<f32>,
    pub(super) hidden: Vec<f32>, // [n, 4 d]
    pub(super) sums: Vec<f32>,   // [1 + t, d]
}

impl Block {
    /// `x + Attn(LN1 x)`, then `+ MLP(LN2 …)`, from `kept.x` to `out`, `[n, d]`.
    pub(super) fn forward(
        &self,
        params: &[f32],
        shape: AttentionShape,
        kept: &mut BlockActivations,
        out: &mut Vec<f32>,
    ) {
        let BlockActivations {
            x,
            normed1,
            stats1,
            qkv,
            attended,
            branch,
            middle,
            normed2,
            stats2,
            mlp,
            drop,
            ..
        } = kept;
        self.norm1.forward(params, x, normed1, stats1);
        self.qkv.forward(params, normed1, qkv);
        attention(qkv, shape, sized(attended, x.len()));
        self.proj.forward(params, attended, branch);
        add_branch(x, branch, &drop[0], sized(middle, x.len()));
        self.norm2.forward(params, middle, normed2, stats2);
        self.mlp.forward(params, normed2, branch, mlp);
        add_branch(middle, branch, &drop[1], sized(out, x.len()));
    }

    /// The way back: the gradient of what leaves is in `back.x`, and so is in the end that of what enters.
    pub(super) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        shape: AttentionShape,
        kept: &BlockActivations,
        back: &mut Back,
    ) {
        let Back { x: dx, branch, normed, qkv: dqkv, hidden, .. } = back;
        let dbranch = scale_branch(dx, &kept.drop[1], branch);
        self.mlp.backward(params, grads, dbranch, &kept.normed2, &kept.mlp, (normed, hidden));
        self.norm2.backward(params, grads, normed, &kept.middle, &kept.stats2, dx);
        let dbranch = scale_branch(dx, &kept.drop[0], branch);
        self.proj.backward(params, grads, dbranch, &kept.attended, Some(normed));
        attention_backward(normed, &kept.qkv, shape, sized(dqkv, kept.qkv.len()));
        self.qkv.backward(params, grads, dqkv, &kept.normed1, Some(normed));
        self.norm1.backward(params, grads, normed, &kept.x, &kept.stats1, dx);
    }

    /// As [`Block::forward`] for the class tokens alone: `kept.x` `[n, d]` to `out` `[b, d]`.
    pub(super) fn forward_cls(
        &self,
        params: &[f32],
        shape: AttentionShape,
        kept: &mut BlockActivations,
        out: &mut Vec<f32>,
    ) {
        let BlockActivations {
            x,
            normed1,
            stats1,
            qkv,
            attended,
            branch,
            middle,
            normed2,
            stats2,
            mlp,
            drop,
            ..
        } = kept;
        let (d, tokens) = (shape.dim(), shape.tokens);
        let len = x.len() / tokens;
        self.norm1.forward(params, x, normed1, stats1);
        let (cls_x, cls_normed) = sized(&mut kept.cls_in, 2 * len).split_at_mut(len);
        gather_cls(x, d, tokens, cls_x);
        gather_cls(normed1, d, tokens, cls_normed);
        self.qkv.forward_part(params, (0, d), cls_normed, &mut kept.queries);
        self.qkv.forward_part(params, (d, 3 * d), normed1, qkv);
        cls_attention(&kept.queries, qkv, shape, sized(attended, len));
        self.proj.forward(params, attended, branch);
        add_branch(cls_x, branch, &drop[0], sized(middle, len));
        self.norm2.forward(params, middle, normed2, stats2);
        self.mlp.forward(params, normed2, branch, mlp);
        add_branch(middle, branch, &drop[1], sized(out, len));
    }

    /// The way back of [`Block::forward_cls`]: from `back.last` to `back.x`.
    pub(super) fn backward_cls(
        &self,
        params: &[f32],
        grads: &mut [f32],
        shape: AttentionShape,
        kept: &BlockActivations,
        back: &mut Back,
    ) {
        let Back { x: dx, last: dcls, branch, normed, qkv: dkv, queries, hidden, .. } = back;
        let (d, len) = (shape.dim(), dcls.len());
        let dbranch = scale_branch(dcls, &kept.drop[1], branch);
        self.mlp.backward(params, grads, dbranch, &kept.normed2, &kept.mlp, (normed, hidden));
        self.norm2.backward(params, grads, normed, &kept.middle, &kept.stats2, dcls);
        let dbranch = scale_branch(dcls, &kept.drop[0], branch);
        self.proj.backward(params, grads, dbranch, &kept.attended, Some(normed));
        let (dqueries, dkv) = (sized(queries, len), sized(dkv, kept.qkv.len()));
        cls_attention_backward(normed, &kept.queries, &kept.qkv, shape, dqueries, dkv);
        self.qkv.backward_part(params, grads, (d, 3 * d), dkv, &kept.normed1, Some(normed));
        self.qkv.backward_part(params, grads, (0, d), dqueries, &kept.cls_in[len..], Some(branch));
        scatter_cls(branch, d, shape.tokens, normed);
        let dx = sized(dx, kept.x.len());
        dx.fill(0.0);
        scatter_cls(dcls, d, shape.tokens, dx); // the skip connection, of the class tokens only
        self.norm1.backward(params, grads, normed, &kept.x, &kept.stats1, dx);
    }
}

/// The class tokens, `[b, d]`, of `[b · tokens, d]`.
fn gather_cls(x: &[f32], d: usize, tokens: usize, cls: &mut [f32]) {
    cls.chunks_exact_mut(d).zip(x.chunks_exact(tokens * d)).for_each(|(cls, x)| cls.copy_from_slice(&x[..d]));
}

/// Adds `[b, d]` to the class tokens of `[b · tokens, d]`.
fn scatter_cls(cls: &[f32], d: usize, tokens: usize, x: &mut [f32]) {
    for (cls, x) in cls.chunks_exact(d).zip(x.chunks_exact_mut(tokens * d)) {
        x.iter_mut().zip(cls).for_each(|(x, cls)| *x += cls);
    }
}
