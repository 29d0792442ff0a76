//! One tensor of a checkpoint: where its values lie, and how they become `f32`.
//!
//! Element `[i, j, …]` is at `offset + i s₀ + j s₁ + …` of a storage, counted in elements. Shapes and strides come from
//! the file, so they are checked against the storage before anything is allocated: a tensor cannot have more elements
//! than its storage.

use std::ops::Range;

use half::{bf16, f16};

/// How values are stored, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dtype {
    F16,
    Bf16,
    F32,
    F64,
    /// A type that no weights have: its name, and its size where it is known.
    Other(String, Option<usize>),
}

/// The bytes that a tensor is a view of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Storage {
    /// Within the file.
    Bytes(Range<usize>),
    /// An entry of the zip archive that the file is.
    Entry(String),
    /// None: a tensor that the file leaves out because all its values are zero.
    Zeros,
}

/// A tensor that was not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) offset: usize,
    pub(crate) dtype: Dtype,
    pub(crate) storage: Storage,
}

impl Dtype {
    /// Bytes per element, where they are known.
    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            Self::F16 | Self::Bf16 => Some(2),
            Self::F32 => Some(4),
            Self::F64 => Some(8),
            Self::Other(_, size) => *size,
        }
    }
}

/// Strides of a row-major tensor.
pub(crate) fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

impl Array {
    /// Zeros in the shape of a tensor and of its type.
    pub(crate) fn zeros(shape: Vec<usize>, dtype: Dtype) -> Self {
        Self { strides: row_major(&shape), shape, offset: 0, dtype, storage: Storage::Zeros }
    }

    /// The values, row-major.
    ///
    /// # Errors
    /// If the storage is too short, or its values are no floating-point numbers.
    pub(crate) fn values(&self, storage: &[u8]) -> Result<Vec<f32>, String> {
        match &self.dtype {
            Dtype::F16 => self.gather(storage, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::Bf16 => self.gather(storage, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F32 => self.gather(storage, f32::from_le_bytes),
            Dtype::F64 => self.gather(storage, |b| f64::from_le_bytes(b) as f32),
            Dtype::Other(name, _) => Err(format!("its values are {name}, not floating-point numbers")),
        }
    }

    fn gather<const N: usize>(
        &self,
        storage: &[u8],
        read: impl Fn([u8; N]) -> f32,
    ) -> Result<Vec<f32>, String> {
        let (elements, _) = storage.as_chunks::<N>();
        let n = self.check(elements.len())?;
        if self.strides == row_major(&self.shape) {
            return Ok(elements[self.offset..self.offset + n].iter().map(|&b| read(b)).collect());
        }
        let mut values = Vec::with_capacity(n);
        let mut index = vec![0; self.shape.len()];
        let mut at = self.offset;
        for _ in 0..n {
            values.push(read(elements[at]));
            // One step in row-major order: the last axis first, with a carry to the one before it.
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        Ok(values)
    }

    /// The number of elements, all of which lie in a storage of `held` elements.
    fn check(&self, held: usize) -> Result<usize, String> {
        if self.shape.len() != self.strides.len() {
            return Err(format!("shape {:?} with strides {:?}", self.shape, self.strides));
        }
        let n = self.shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
        let reach = self.shape.iter().zip(&self.strides).try_fold(self.offset, |at, (&side, &stride)| {
            // The step past the end, which `gather` takes before it turns round, must not overflow either.
            side.checked_mul(stride).and_then(|past| past.checked_add(at))?;
            side.saturating_sub(1).checked_mul(stride)?.checked_add(at)
        });
        match (n, reach) {
            (Some(0), _) => Err(format!("shape {:?} has no elements", self.shape)),
            (Some(n), Some(last)) if n <= held && last < held => Ok(n),
            _ => Err(format!(
                "shape {:?} with strides {:?} at {} goes beyond its {held} stored values",
                self.shape, self.strides, self.offset
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(shape: &[usize], strides: &[usize], offset: usize) -> Array {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        Array { shape, strides, offset, dtype: Dtype::F32, storage: Storage::Bytes(0..0) }
    }

    /// The numbers 0 to 11.
    fn storage() -> Vec<u8> {
        (0..12).flat_map(|i| (i as f32).to_le_bytes()).collect()
    }

    #[test]
    fn strides_and_offsets_are_respected() {
        let values =
            |shape: &[usize], strides: &[usize], offset| array(shape, strides, offset).values(&storage());
        assert_eq!(values(&[2, 3], &[3, 1], 0).unwrap(), [0., 1., 2., 3., 4., 5.]);
        assert_eq!(values(&[2, 3], &[3, 1], 6).unwrap(), [6., 7., 8., 9., 10., 11.]);
        assert_eq!(values(&[3, 2], &[1, 3], 0).unwrap(), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(values(&[2, 2, 2], &[1, 6, 2], 1).unwrap(), [1., 3., 7., 9., 2., 4., 8., 10.]);
        assert_eq!(values(&[2, 3], &[0, 2], 0).unwrap(), [0., 2., 4., 0., 2., 4.]);
        assert_eq!(values(&[], &[], 5).unwrap(), [5.]);
    }

    #[test]
    fn nothing_is_read_outside_the_storage() {
        let huge = usize::MAX / 2;
        for (shape, strides, offset) in [
            (vec![13], vec![1], 0),
            (vec![12], vec![1], 1),
            (vec![2, 2], vec![11, 1], 0),
            (vec![huge, huge], vec![0, 0], 0),
            (vec![1 << 20, 1 << 20], vec![0, 0], 0),
            (vec![2], vec![huge * 2], 0),
            (vec![1], vec![1], usize::MAX),
            (vec![2], vec![], 0),
            (vec![0], vec![1], 0),
        ] {
            assert!(
                array(&shape, &strides, offset).values(&storage()).is_err(),
                "{shape:?} {strides:?} {offset}"
            );
        }
    }

    #[test]
    fn all_floating_types_are_read() {
        let one = |dtype, bytes: &[u8]| Array { dtype, ..array(&[1], &[1], 0) }.values(bytes);
        assert_eq!(one(Dtype::F16, &f16::from_f32(-1.5).to_le_bytes()).unwrap(), [-1.5]);
        assert_eq!(one(Dtype::Bf16, &bf16::from_f32(3.0).to_le_bytes()).unwrap(), [3.0]);
        assert_eq!(one(Dtype::F64, &0.1f64.to_le_bytes()).unwrap(), [0.1]);
        assert!(one(Dtype::Other("torch.LongStorage".to_owned(), Some(8)), &[0; 8]).is_err());
    }
}
