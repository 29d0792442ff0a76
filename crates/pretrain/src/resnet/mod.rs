//! A ResNet as it is trained: forwards with everything that the way back needs, and backwards.
//!
//! The network is that of `backbone::ResNet`, with batch norms that use the batch's statistics while it learns and keep running
//! ones for afterwards. Maps lie with channels last, `[n, h, w, c]`, so that a batch norm sees rows and a convolution is a matrix
//! product. What leaves it is the mean of the last map's pixels, `[n, d]`.

mod block;
mod conv_norm;

use backbone::ResNetConfig;
use kernels::for_each_row;

use self::block::{Block, BlockActivations, rectify_backward};
use self::conv_norm::{ConvNorm, ConvNormActivations};
use crate::buffer::sized;
use crate::conv::{ConvScratch, Size, max_pool, max_pool_backward};
use crate::hidden_mix::HiddenMix;
use crate::params::Layout;
use crate::weights::Weights;

/// A ResNet without its weights.
#[derive(Debug, Clone)]
pub struct ResNet {
    config: ResNetConfig,
    stem: ConvNorm,
    stages: Vec<Vec<Block>>,
}

/// What a forward pass leaves for the way back; reused from one to the next.
#[derive(Debug, Default)]
pub struct ResNetActivations {
    stem: ConvNormActivations,
    stem_out: Vec<f32>, // after the rectifier
    stem_size: Size,
    places: Vec<u32>,
    entry: Vec<f32>, // what enters the first stage
    entry_size: Size,
    blocks: Vec<BlockActivations>,
    images: usize,
    mix: Option<HiddenMix>,
    scratch: ConvScratch,
    back: [Vec<f32>; 3],
}

impl ResNet {
    /// Adds the network's tensors, under `prefix` and in torchvision's names; `buffers` is where running statistics lie.
    pub fn add(layout: &mut Layout, buffers: &mut Layout, prefix: &str, config: &ResNetConfig) -> Self {
        let (kernel, stride) = if config.small_stem { (3, 1) } else { (7, 2) };
        let mut add = |conv: String, norm: String, sizes: [usize; 4]| {
            let names = (format!("{prefix}{conv}"), format!("{prefix}{norm}"));
            ConvNorm::add(layout, buffers, (&names.0, &names.1), sizes)
        };
        let stem = add("conv1".into(), "bn1".into(), [3, config.width, kernel, stride]);
        let mut stages = Vec::new();
        for stage in 0..4 {
            let mut blocks = Vec::new();
            for block in 0..config.blocks[stage] {
                let name = format!("layer{}.{block}", stage + 1);
                let layers = config.convolutions(stage, block).into_iter().enumerate();
                let layers = layers
                    .map(|(i, sizes)| {
                        add(format!("{name}.conv{}", i + 1), format!("{name}.bn{}", i + 1), sizes)
                    })
                    .collect();
                let stride = if stage > 0 { 2 } else { 1 };
                let sizes = [config.inputs(stage, block), config.dim(stage), 1, stride];
                let shortcut = config
                    .has_shortcut(stage, block)
                    .then(|| add(format!("{name}.downsample.0"), format!("{name}.downsample.1"), sizes));
                blocks.push(Block { layers, shortcut });
            }
            stages.push(blocks);
        }
        Self { config: config.clone(), stem, stages }
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// The means of the last maps, `[n, d]`, to `out`.
    ///
    /// * `images`: `[n, 3, side, side]`; `mix`: images that are mixed where a stage takes them in.
    pub(crate) fn forward(
        &self,
        weights: &mut Weights<'_>,
        (images, side): (&[f32], usize),
        mix: Option<&HiddenMix>,
        kept: &mut ResNetActivations,
        out: &mut Vec<f32>,
    ) {
        kept.mix = mix.cloned();
        self.stem_forward(weights, (images, side), kept);
        self.stages_forward(weights, 3, kept);
        let (d, Some(last)) = (self.config.dim(3), kept.blocks.last()) else { return };
        let pixels = last.size.0 * last.size.1;
        for_each_row(sized(out, kept.images * d), d, |image, out| {
            out.fill(0.0);
            for pixel in last.out[image * pixels * d..(image + 1) * pixels * d].chunks_exact(d) {
                out.iter_mut().zip(pixel).for_each(|(out, x)| *out += x);
            }
            out.iter_mut().for_each(|out| *out /= pixels as f32);
        });
    }

    /// The map of a stage, `[n · h · w, c]`, and its size; nothing behind it is computed.
    pub(crate) fn map(
        &self,
        weights: &mut Weights<'_>,
        images: (&[f32], usize),
        stage: usize,
        kept: &mut ResNetActivations,
        map: &mut Vec<f32>,
    ) -> Size {
        kept.mix = None;
        self.stem_forward(weights, images, kept);
        let last = self.stages_forward(weights, stage, kept);
        map.clone_from(&kept.blocks[last].out);
        kept.blocks[last].size
    }

    fn stem_forward(
        &self,
        weights: &mut Weights<'_>,
        (images, side): (&[f32], usize),
        kept: &mut ResNetActivations,
    ) {
        let ResNetActivations { stem, stem_out, stem_size, places, entry, entry_size, scratch, .. } = kept;
        let plane = side * side;
        kept.images = images.len() / (3 * plane);
        for_each_row(sized(&mut stem.input, images.len()), 3, |pixel, to| {
            let (image, at) = (pixel / plane, pixel % plane);
            (0..3).for_each(|channel| to[channel] = images[(image * 3 + channel) * plane + at]);
        });
        stem.size = (side, side);
        let Weights { params, buffers, mode } = weights;
        *stem_size = self.stem.forward(params, buffers, *mode, stem, scratch, stem_out);
        stem_out.iter_mut().for_each(|x| *x = x.max(0.0));
        if self.config.small_stem {
            entry.clone_from(stem_out);
            *entry_size = *stem_size;
        } else {
            *entry_size = max_pool(stem_out, *stem_size, self.config.width, places, entry);
        }
    }

    /// All blocks up to the end of stage `last`; returns the number of the last one.
    fn stages_forward(&self, weights: &mut Weights<'_>, last: usize, kept: &mut ResNetActivations) -> usize {
        let ResNetActivations { entry, entry_size, blocks, scratch, mix, back, images, .. } = kept;
        blocks.resize_with(self.stages.iter().map(Vec::len).sum(), BlockActivations::default);
        let mut number = 0;
        for (stage, layers) in self.stages[..=last].iter().enumerate() {
            for (block, layer) in layers.iter().enumerate() {
                let (before, rest) = blocks.split_at_mut(number);
                let (input, size) = before.last().map_or((&*entry, *entry_size), |b| (&b.out, b.size));
                match mix.as_ref().filter(|mix| block == 0 && mix.block == stage) {
                    Some(mix) => {
                        // What the stage before left stays: its rectifier is told by it.
                        let [mixed, spare, _] = &mut *back;
                        mixed.clone_from(input);
                        let len = input.len() / *images;
                        mix.apply(mixed, len, spare);
                        layer.forward(weights, (mixed, size), &mut rest[0], scratch);
                    }
                    None => layer.forward(weights, (input, size), &mut rest[0], scratch),
                }
                number += 1;
            }
        }
        number.saturating_sub(1)
    }

    /// Adds the gradients of all parameters from that of what [`ResNet::forward`] wrote, `[n, d]`; writes the images' where
    /// they are asked for.
    pub(crate) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        dout: &[f32],
        kept: &mut ResNetActivations,
        dimages: Option<&mut Vec<f32>>,
    ) {
        let d = self.config.dim(3);
        let ResNetActivations { stem, stem_out, places, entry, blocks, images, mix, scratch, back, .. } =
            kept;
        let [dx, other, third] = back;
        let Some(last) = blocks.last() else { return };
        let pixels = last.size.0 * last.size.1;
        for_each_row(sized(dx, last.out.len()), d, |pixel, to| {
            let from = &dout[pixel / pixels * d..][..d];
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from / pixels as f32);
        });
        let mut number = blocks.len();
        for (stage, layers) in self.stages.iter().enumerate().rev() {
            for (block, layer) in layers.iter().enumerate().rev() {
                number -= 1;
                layer.backward(
                    params,
                    grads,
                    &mut blocks[number],
                    scratch,
                    [&mut *dx, &mut *other, &mut *third],
                );
                if let Some(mix) = mix.as_ref().filter(|mix| block == 0 && mix.block == stage) {
                    let len = dx.len() / *images;
                    mix.backward(dx, len, other);
                }
            }
        }
        debug_assert_eq!(dx.len(), entry.len());
        if !self.config.small_stem {
            max_pool_backward(dx, places, stem_out.len(), other);
            std::mem::swap(dx, other);
        }
        rectify_backward(dx, stem_out);
        let Some(dimages) = dimages else {
            self.stem.backward(params, grads, dx, stem, scratch, None);
            return;
        };
        self.stem.backward(params, grads, dx, stem, scratch, Some(other));
        let plane = stem.size.0 * stem.size.1;
        let pixels = &*other;
        for_each_row(sized(dimages, pixels.len()), plane, |row, to| {
            let (image, channel) = (row / 3, row % 3);
            to.iter_mut().enumerate().for_each(|(at, to)| *to = pixels[(image * plane + at) * 3 + channel]);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch_norm::Mode;

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.83 + phase).sin() + (i as f32 * 0.11 + 2.0 * phase).cos()).collect()
    }

    /// Images without a pattern that batch norms of few pixels could stumble over.
    fn noise(n: usize) -> Vec<f32> {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        (0..n).map(|_| rng.random_range(-1.5..1.5)).collect()
    }

    struct Small {
        layout: Layout,
        buffers: Layout,
        net: ResNet,
        params: Vec<f32>,
    }

    fn small(bottleneck: bool, small_stem: bool) -> Small {
        let config = ResNetConfig { bottleneck, blocks: [1, 2, 1, 1], width: 4, small_stem };
        let (mut layout, mut buffers) = (Layout::default(), Layout::default());
        let net = ResNet::add(&mut layout, &mut buffers, "backbone.", &config);
        let init = crate::init::Init { seed: 3, std: 0.02, patch_size: 1 };
        let mut params = init.parameters(&layout);
        params.iter_mut().zip(wave(layout.len(), 0.3)).for_each(|(p, w)| *p += 0.02 * w);
        Small { layout, buffers, net, params }
    }

    fn value(small: &Small, params: &[f32], images: &[f32], side: usize, mix: Option<&HiddenMix>) -> f64 {
        let mut buffers = crate::init::buffers(&small.buffers);
        let mut weights = Weights { params, buffers: &mut buffers, mode: Mode::Train };
        let (mut kept, mut out) = (ResNetActivations::default(), Vec::new());
        small.net.forward(&mut weights, (images, side), mix, &mut kept, &mut out);
        out.iter().zip(wave(out.len(), 2.0)).map(|(x, w)| f64::from(x * w)).sum()
    }

    #[test]
    fn gradients_are_slopes_for_weights_and_images() {
        let mix = HiddenMix { block: 1, lambda: 0.3, partners: vec![2, 0, 1, 1] };
        for (bottleneck, small_stem, mix) in
            [(false, true, None), (false, false, None), (true, true, None), (true, true, Some(&mix))]
        {
            let small = small(bottleneck, small_stem);
            let side = if small_stem { 16 } else { 64 };
            let images = noise(4 * 3 * side * side);
            let mut buffers = crate::init::buffers(&small.buffers);
            let mut weights = Weights { params: &small.params, buffers: &mut buffers, mode: Mode::Train };
            let (mut kept, mut out) = (ResNetActivations::default(), Vec::new());
            small.net.forward(&mut weights, (&images, side), mix, &mut kept, &mut out);
            let (mut grads, mut dimages) = (vec![0.0; small.layout.len()], Vec::new());
            let dout = wave(out.len(), 2.0);
            small.net.backward(&small.params, &mut grads, &dout, &mut kept, Some(&mut dimages));
            // Rectifiers have corners, which a step may pass: a rough check of every wire. Exact numbers are PyTorch's, below.
            let check = |what: &str, gradient: &[f32], of: &dyn Fn(&[f32], f32) -> f64| {
                let mut direction = wave(gradient.len(), 0.9);
                let length = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
                direction.iter_mut().for_each(|x| *x /= length);
                let slope = (of(&direction, 5e-4) - of(&direction, -5e-4)) / 1e-3;
                let product: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
                let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
                assert!(
                    (slope - product).abs() < 0.12 * norm + 2e-2,
                    "{what}: {slope} {product}, norm {norm}"
                );
            };
            for tensor in small.layout.tensors() {
                check(&tensor.name, tensor.slot.of(&grads), &|direction, step| {
                    let mut params = small.params.clone();
                    tensor
                        .slot
                        .of_mut(&mut params)
                        .iter_mut()
                        .zip(direction)
                        .for_each(|(p, d)| *p += step * d);
                    value(&small, &params, &images, side, mix)
                });
            }
            check("images", &dimages, &|direction, step| {
                let moved: Vec<f32> = images.iter().zip(direction).map(|(x, d)| x + step * d).collect();
                value(&small, &small.params, &moved, side, mix)
            });
        }
    }

    /// Trained here, used there: the same features from the same weights and running statistics.
    #[test]
    fn the_frozen_network_computes_the_same() {
        use backbone::Backbone as _;
        use candle_core::{DType, Device, Tensor};
        for (bottleneck, small_stem) in [(false, true), (true, false)] {
            let small = small(bottleneck, small_stem);
            let side = if small_stem { 16 } else { 64 };
            let images = wave(2 * 3 * side * side, 1.0);
            let mut buffers = crate::init::buffers(&small.buffers);
            let (mut kept, mut out, mut map) = (ResNetActivations::default(), Vec::new(), Vec::new());
            for mode in [Mode::Train, Mode::Eval] {
                let mut weights = Weights { params: &small.params, buffers: &mut buffers, mode };
                small.net.forward(&mut weights, (&images, side), None, &mut kept, &mut out);
            }
            let mut weights = Weights { params: &small.params, buffers: &mut buffers, mode: Mode::Eval };
            let size = small.net.map(&mut weights, (&images, side), 2, &mut kept, &mut map);
            let of = |layout: &Layout, values: &[f32]| {
                let tensor = |t: &crate::params::TensorSpec| {
                    let name = t.name.trim_start_matches("backbone.").to_owned();
                    (name, Tensor::from_slice(t.slot.of(values), t.shape.as_slice(), &Device::Cpu).unwrap())
                };
                layout.tensors().iter().map(tensor).collect::<Vec<_>>()
            };
            let all = of(&small.layout, &small.params).into_iter().chain(of(&small.buffers, &buffers));
            let vb = candle_nn::VarBuilder::from_tensors(all.collect(), DType::F32, &Device::Cpu);
            let frozen = backbone::ResNet::new(vb, small.net.config()).unwrap();
            let images = Tensor::from_vec(images, (2, 3, side, side), &Device::Cpu).unwrap();
            let layers = [2, 3].map(|block| backbone::Layer { block, ..backbone::Layer::default() });
            let features = frozen.forward_layers(&images, &layers).unwrap();
            assert_eq!(features[0].grid, size);
            let close = |got: &Tensor, want: &[f32]| {
                let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let top = want.iter().fold(1e-3f32, |top, x| top.max(x.abs()));
                let off = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(got.len() == want.len() && off < 1e-4 * top, "off by {off} of {top}");
            };
            close(&features[0].patches, &map);
            close(&features[1].cls, &out);
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let small = small(true, true);
        let images = wave(4 * 3 * 64, 1.0);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (mut kept, mut out, mut grads) =
                (ResNetActivations::default(), Vec::new(), vec![0.0; small.layout.len()]);
            pool.install(|| {
                let mut buffers = crate::init::buffers(&small.buffers);
                let mut weights = Weights { params: &small.params, buffers: &mut buffers, mode: Mode::Train };
                small.net.forward(&mut weights, (&images, 8), None, &mut kept, &mut out);
                small.net.backward(&small.params, &mut grads, &wave(out.len(), 1.0), &mut kept, None);
            });
            (out, grads)
        };
        let one = run(1);
        assert!([2, 5].into_iter().all(|threads| run(threads) == one));
    }
}
