//! The head's passes on a candle device, for GPUs: the same loss as [`Batch::backward`](super::batch::Batch) finds on the CPU, written as
//! tensor operations with candle's gradients.
//!
//! Points are read by a product with their weights, `[s, t]` per image, so that a neighbour and a negative cost one batched product each.
//! Every rung of the ladder normalises its prefix and adds its loss. Nothing is read back before the gradient is there.
//! What candle adds in another order than we do differs in the last digits: results are the same within a tolerance, not to the bit.

use candle_core::{D, Device, Result, Tensor, Var};

use super::{CorrespondenceParams, HeadShape};

/// A batch as the device sees it; `n = b` images with a neighbour each.
pub(super) struct DeviceBatch<'a> {
    /// Features of the images, `[b, t, d]`, and of their neighbours.
    pub(super) tokens: [Vec<&'a [f32]>; 2],
    /// Masks of dropout, `[d]` per image: of the linear branch, the other one, and the features that are compared; those of the
    /// neighbours behind them.
    pub(super) masks: [[Option<Vec<f32>>; 3]; 2],
    /// Weights of the points at which an image is read as first and as second of a pair, `[b, s, t]` each.
    pub(super) points: [Vec<f32>; 2],
    /// `s`, points of an image.
    pub(super) samples: usize,
    /// `[neg_samples][b]`.
    pub(super) negatives: &'a [Vec<usize>],
}

/// What a step found.
pub(super) struct DeviceStep {
    /// Codes of the images, `[b, t, k]`.
    pub(super) codes: Vec<f32>,
    /// Gradient of the head, laid out as [`HeadShape::tensors`] says.
    pub(super) head: Vec<f32>,
    /// `Σ -clamp(c) (f - b)` over pairs of points, `[rungs, partners]`.
    pub(super) losses: Vec<f64>,
    /// `Σ c`, likewise.
    pub(super) cosines: Vec<f64>,
}

/// A head whose tensors gather gradients.
struct DeviceHead(Vec<Var>);

impl DeviceHead {
    fn new(shape: HeadShape, parameters: &[f32], device: &Device) -> Result<Self> {
        let var = |tensor: super::HeadTensor| {
            let flat = &parameters[tensor.range];
            let matrix = if tensor.shape.len() == 4 { &tensor.shape[..2] } else { &tensor.shape };
            Var::from_slice(flat, matrix, device)
        };
        Ok(Self(shape.tensors().into_iter().map(var).collect::<Result<_>>()?))
    }

    /// Codes, `[b, t, k]`, of features `[b, t, d]`.
    ///
    /// * `masks`: `[b, 1, d]` each.
    fn codes(&self, x: &Tensor, masks: &[Option<Tensor>; 3]) -> Result<Tensor> {
        let layer = |x: &Tensor, at: usize| -> Result<Tensor> {
            x.broadcast_matmul(&self.0[at].t()?)?.broadcast_add(&self.0[at + 1])
        };
        let linear = layer(&masked(x, masks[0].as_ref())?, 0)?;
        if self.0.len() == 2 {
            return Ok(linear);
        }
        linear + layer(&layer(&masked(x, masks[1].as_ref())?, 2)?.relu()?, 4)?
    }
}

fn masked(x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    match mask {
        Some(mask) => x.broadcast_mul(mask),
        None => Ok(x.clone()),
    }
}

/// Rows as directions. Below a length of 1e-10 the divisor is a constant.
fn unit(rows: &Tensor) -> Result<Tensor> {
    let length = rows.sqr()?.sum_keepdim(D::Minus1)?.maximum(1e-20)?.sqrt()?;
    rows.broadcast_div(&length)
}

/// One partner of every image: where its points' features and codes come from, its shift, and the weight of its loss.
struct Partner {
    features: Tensor,
    codes: Tensor,
    shift: f64,
    weight: f64,
}

impl DeviceBatch<'_> {
    /// Codes, losses and the gradient of the head.
    pub(super) fn run(
        &self,
        config: &CorrespondenceParams,
        (shape, parameters): (HeadShape, &[f32]),
        rungs: &[usize],
        device: &Device,
    ) -> Result<DeviceStep> {
        let (b, d, s) = (self.tokens[0].len(), shape.embed_dim, self.samples);
        let t = self.tokens[0].first().map_or(0, |rows| rows.len() / d);
        let head = DeviceHead::new(shape, parameters, device)?;
        let tokens = |rows: &[&[f32]]| Tensor::from_vec(rows.concat(), (b, t, d), device);
        let [own, other] = [tokens(&self.tokens[0])?, tokens(&self.tokens[1])?];
        let [own_masks, other_masks] = [self.masks(0, (b, d), device)?, self.masks(1, (b, d), device)?];
        let points = |weights: &[f32]| Tensor::from_slice(weights, (b, s, t), device);
        let [first, second] = [points(&self.points[0])?, points(&self.points[1])?];

        let codes = head.codes(&own, &own_masks)?;
        let other_codes = head.codes(&other, &other_masks)?;
        let own = masked(&own, own_masks[2].as_ref())?;
        let other = masked(&other, other_masks[2].as_ref())?;
        let own_features = unit(&first.matmul(&own)?)?;
        let own_codes = first.matmul(&codes)?;
        let mut partners = vec![
            Partner {
                features: own_features.clone(),
                codes: own_codes.clone(),
                shift: config.pos_intra_shift.into(),
                weight: config.pos_intra_weight.into(),
            },
            Partner {
                features: unit(&second.matmul(&other)?)?,
                codes: second.matmul(&other_codes)?,
                shift: config.pos_inter_shift.into(),
                weight: config.pos_inter_weight.into(),
            },
        ];
        for order in self.negatives {
            let order: Vec<u32> = order.iter().map(|&image| image as u32).collect();
            let order = Tensor::from_vec(order, b, device)?;
            partners.push(Partner {
                features: unit(&second.matmul(&own.index_select(&order, 0)?)?)?,
                codes: second.matmul(&codes.index_select(&order, 0)?)?,
                shift: config.neg_inter_shift.into(),
                weight: f64::from(config.neg_inter_weight) / self.negatives.len() as f64,
            });
        }

        let correlations = partners.iter().map(|partner| {
            let all = own_features.matmul(&partner.features.t()?)?;
            if !config.pointwise {
                return all - partner.shift;
            }
            let centred = all.broadcast_sub(&all.mean_keepdim(D::Minus1)?)?;
            centred.broadcast_add(&all.mean_all()?)? - partner.shift
        });
        let correlations = correlations.collect::<Result<Vec<_>>>()?;
        let pairs = (b * s * s) as f64;
        let (low, high) = config.limits();
        let (mut total, mut losses, mut cosines) = (Tensor::zeros((), own.dtype(), device)?, vec![], vec![]);
        for &rung in rungs {
            let prefix = |codes: &Tensor| unit(&codes.narrow(D::Minus1, 0, rung)?);
            let own = prefix(&own_codes)?;
            for (partner, f) in partners.iter().zip(&correlations) {
                let c = own.matmul(&prefix(&partner.codes)?.t()?)?;
                let mut clamped = c.clone();
                if low > f32::NEG_INFINITY {
                    clamped = clamped.maximum(low)?;
                }
                if high < f32::INFINITY {
                    clamped = clamped.minimum(high)?;
                }
                let loss = (clamped * f)?.sum_all()?.neg()?;
                let weight = f64::from(config.correspondence_weight) * partner.weight / pairs;
                total = (total + (&loss * weight)?)?;
                losses.push(loss.detach());
                cosines.push(c.detach().sum_all()?);
            }
        }
        let grads = total.backward()?;
        let mut gradient = Vec::with_capacity(parameters.len());
        for var in &head.0 {
            match grads.get(var) {
                Some(grad) => gradient.extend(grad.flatten_all()?.to_vec1::<f32>()?),
                None => gradient.extend(std::iter::repeat_n(0.0, var.elem_count())),
            }
        }
        let numbers = |sums: Vec<Tensor>| -> Result<Vec<f64>> {
            let sums = Tensor::stack(&sums, 0)?.to_vec1::<f32>()?;
            Ok(sums.into_iter().map(f64::from).collect())
        };
        let codes = codes.detach().flatten_all()?.to_vec1()?;
        Ok(DeviceStep { codes, head: gradient, losses: numbers(losses)?, cosines: numbers(cosines)? })
    }

    /// Masks of the images or of their neighbours, `[b, 1, d]` each.
    fn masks(&self, side: usize, (b, d): (usize, usize), device: &Device) -> Result<[Option<Tensor>; 3]> {
        let mut masks = [None, None, None];
        for (to, mask) in masks.iter_mut().zip(&self.masks[side]) {
            *to = mask.as_ref().map(|mask| Tensor::from_slice(mask, (b, 1, d), device)).transpose()?;
        }
        Ok(masks)
    }
}
