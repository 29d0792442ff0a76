//! Moments of images in a row, added up as a tree, so that many processes come to the bits of one.
//!
//! Images `0..BLOCK_IMAGES` are one block, the next ones another. Within a block images are added one after the other; blocks are
//! merged two and two, those two and two, like the carries of a binary counter: the sum of blocks `2^l·i .. 2^l·(i+1)` is one node of
//! level `l`, whoever computes it. Which additions are made in which order thus depends on the number of images alone, not on
//! shards or on who adds what. A process that has the images of a whole number of blocks, from a multiple of `2^l` blocks on,
//! hands over its nodes; those put together in order ([`ImageMoments::append`]) are what one process would have.
//!
//! Memory is one matrix per level, `log2` of the number of blocks at most. Sums of pairs also lose fewer places than one long chain.

use ndarray::ArrayView2;

use crate::moments::{damaged, word};
use crate::{Error, Moments, Result};

/// Images of a block.
pub const BLOCK_IMAGES: usize = 64;

/// Streaming moments of images, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageMoments {
    dim: usize,
    /// The block that is being filled, and its images.
    open: Moments,
    images: usize,
    /// Nodes with their levels, which fall.
    nodes: Vec<(u32, Moments)>,
}

impl ImageMoments {
    /// Of no images, with tokens of width `d`.
    #[must_use]
    pub fn new(d: usize) -> Self {
        Self { dim: d, open: Moments::new(d), images: 0, nodes: Vec::new() }
    }

    /// Adds the tokens `[t, d]` of the next image.
    ///
    /// # Errors
    /// As [`Moments::add`]; then nothing was added.
    pub fn add(&mut self, tokens: ArrayView2<'_, f32>) -> Result<()> {
        self.open.add(tokens)?;
        self.images += 1;
        if self.images == BLOCK_IMAGES {
            self.close();
        }
        Ok(())
    }

    /// The images of `other` follow those of `self`. All but the last piece must consist of whole blocks, and a piece must begin
    /// at a multiple of its own size in blocks, rounded up to a power of two.
    ///
    /// # Errors
    /// [`Error::Format`] if the pieces do not fit like this.
    pub fn append(&mut self, other: Self) -> Result<()> {
        let fits = self.images == 0 && other.dim == self.dim;
        let lowest = self.nodes.last().map_or(u32::MAX, |(level, _)| *level);
        if !fits || other.nodes.first().is_some_and(|(level, _)| *level > lowest) {
            return Err(Error::Format("these are pieces of moments that do not follow one another".into()));
        }
        other.nodes.into_iter().for_each(|(level, node)| self.push(level, node));
        (self.open, self.images) = (other.open, other.images);
        Ok(())
    }

    /// Moments of all images.
    #[must_use]
    pub fn finish(mut self) -> Moments {
        if self.images > 0 {
            self.close();
        }
        let mut nodes = self.nodes.into_iter().map(|(_, node)| node);
        let mut total = nodes.next().unwrap_or_else(|| Moments::new(self.dim));
        nodes.for_each(|node| total.merge(&node));
        total
    }

    fn close(&mut self) {
        let block = std::mem::replace(&mut self.open, Moments::new(self.dim));
        self.images = 0;
        self.push(0, block);
    }

    /// Puts a node behind the others, and merges what is of one level.
    fn push(&mut self, mut level: u32, mut node: Moments) {
        while let Some((_, left)) = self.nodes.pop_if(|(other, _)| *other == level) {
            let right = std::mem::replace(&mut node, left);
            node.merge(&right);
            level += 1;
        }
        self.nodes.push((level, node));
    }

    /// As bytes, for another process: `d`, images of the open block, number of nodes, each with its level (`u64`, little-endian);
    /// the open block, if it has images, follows the nodes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let head = [self.dim, self.images, self.nodes.len()].map(|n| (n as u64).to_le_bytes());
        let mut bytes = head.concat();
        for (level, node) in &self.nodes {
            bytes.extend(u64::from(*level).to_le_bytes());
            node.write(&mut bytes);
        }
        if self.images > 0 {
            self.open.write(&mut bytes);
        }
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`Error::Format`] if they are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let (dim, images) = (word(&mut rest)? as usize, word(&mut rest)? as usize);
        let count = word(&mut rest)?;
        let mut nodes = Vec::new();
        for _ in 0..count {
            let level = u32::try_from(word(&mut rest)?).map_err(|_| damaged())?;
            nodes.push((level, Moments::read(dim, &mut rest)?));
        }
        let open = if images > 0 { Moments::read(dim, &mut rest)? } else { Moments::new(dim) };
        if images >= BLOCK_IMAGES || !rest.is_empty() {
            return Err(damaged());
        }
        Ok(Self { dim, open, images, nodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn of_images(images: &[Array2<f32>]) -> Moments {
        let mut moments = ImageMoments::new(5);
        images.iter().try_for_each(|image| moments.add(image.view())).unwrap();
        moments.finish()
    }

    fn images(n: usize) -> Vec<Array2<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
        let mut image = |i: usize| {
            Array2::from_shape_fn((3, 5), |(_, j)| rng.random_range(-1.0..1.0f32) + (i % 7 + j) as f32)
        };
        (0..n).map(&mut image).collect()
    }

    #[test]
    fn pieces_come_to_the_bits_of_the_whole() {
        for n in [1, 63, 64, 65, 64 * 5 + 9, 64 * 8, 64 * 13] {
            let images = images(n);
            let whole = of_images(&images);
            for blocks in [1, 2, 4, 8] {
                let mut sum = ImageMoments::new(5);
                for piece in images.chunks(blocks * BLOCK_IMAGES) {
                    let mut part = ImageMoments::new(5);
                    piece.iter().try_for_each(|image| part.add(image.view())).unwrap();
                    sum.append(ImageMoments::from_bytes(&part.to_bytes()).unwrap()).unwrap();
                }
                assert_eq!(sum.finish(), whole, "{n} images by {blocks} blocks");
            }
        }
    }

    #[test]
    fn the_tree_sums_what_the_chain_sums() {
        let images = images(64 * 3 + 5);
        let mut chain = Moments::new(5);
        images.iter().try_for_each(|image| chain.add(image.view())).unwrap();
        let tree = of_images(&images);
        assert_eq!(tree.count(), chain.count());
        let (a, b) = (tree.covariance().unwrap(), chain.covariance().unwrap());
        assert!((&a - &b).iter().all(|x| x.abs() < 1e-5), "{a} is not {b}");
        assert_eq!(ImageMoments::new(5).finish(), Moments::new(5));
    }

    #[test]
    fn pieces_out_of_order_and_other_bytes_are_refused() {
        let piece = |n: usize| {
            let mut part = ImageMoments::new(5);
            images(n).iter().try_for_each(|image| part.add(image.view())).unwrap();
            part
        };
        let mut sum = piece(64);
        assert!(sum.clone().append(piece(128)).is_err());
        sum.append(piece(10)).unwrap();
        assert!(sum.append(piece(64)).is_err(), "behind an open block");
        let bytes = piece(70).to_bytes();
        assert!(ImageMoments::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(ImageMoments::from_bytes(&[bytes.clone(), vec![0]].concat()).is_err());
        assert!(ImageMoments::from_bytes(&[]).is_err());
    }
}
