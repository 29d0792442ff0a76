//! Safetensors files that are the same bytes each time.
//!
//! The `safetensors` crate keeps metadata in a hash map, whose order changes from process to process, and featlab promises the
//! same bits for the same inputs. Tensors are laid out by that crate; the JSON header is written again with its keys in
//! order. A file is `[length: u64 le][header: JSON, padded with spaces to 8 bytes][data]`.
//!
//! Everything that featlab writes as safetensors goes through [`to_bytes`]; reading needs nothing but the `safetensors` crate.

use std::collections::BTreeMap;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView};

/// Notes of a file's header, by name.
pub type Metadata = BTreeMap<String, String>;

/// A named array, as little-endian bytes in row-major order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Name in the file.
    pub name: String,
    /// Kind of its numbers.
    pub dtype: Dtype,
    /// Lengths of its axes.
    pub shape: Vec<usize>,
    /// `product(shape)` numbers.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor from the bytes of its numbers, row-major.
    pub fn new<const N: usize>(
        name: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        numbers: impl IntoIterator<Item = [u8; N]>,
    ) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
            bytes: numbers.into_iter().flatten().collect(),
        }
    }

    /// 32-bit floats, row-major.
    pub fn f32<'a>(
        name: impl Into<String>,
        shape: &[usize],
        numbers: impl IntoIterator<Item = &'a f32>,
    ) -> Self {
        Self::new(name, Dtype::F32, shape, numbers.into_iter().map(|number| number.to_le_bytes()))
    }
}

/// The file of these tensors.
///
/// # Errors
/// If a tensor's bytes do not fit its shape, or a name is there twice.
pub fn to_bytes(tensors: &[Tensor], metadata: &Metadata) -> Result<Vec<u8>, SafeTensorError> {
    let mut views = BTreeMap::new();
    for tensor in tensors {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)?;
        if views.insert(tensor.name.as_str(), view).is_some() {
            return Err(SafeTensorError::InvalidTensorView(
                tensor.dtype,
                tensor.shape.clone(),
                tensor.bytes.len(),
            ));
        }
    }
    let file = safetensors::serialize(views, None)?;
    let (header, data) = split(&file)?;
    let mut header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
    if !metadata.is_empty() {
        let notes = metadata.iter().map(|(name, note)| (name.clone(), note.as_str().into())).collect();
        header.insert("__metadata__".to_owned(), serde_json::Value::Object(notes));
    }
    let mut header = serde_json::to_vec(&header).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([(header.len() as u64).to_le_bytes().as_slice(), &header, data].concat())
}

/// Header and data of a file.
///
/// # Errors
/// If the file is cut off.
pub fn split(file: &[u8]) -> Result<(&[u8], &[u8]), SafeTensorError> {
    let (length, rest) = file.split_first_chunk::<8>().ok_or(SafeTensorError::HeaderTooSmall)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| SafeTensorError::HeaderTooLarge)?;
    rest.split_at_checked(length).ok_or(SafeTensorError::InvalidHeaderLength)
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    fn tensors() -> Vec<Tensor> {
        let wide = Tensor::new("wide", Dtype::F64, &[1], [2.5_f64.to_le_bytes()]);
        vec![
            Tensor::f32("b", &[2, 2], &[1.0, -2.0, 0.5, f32::MIN_POSITIVE]),
            Tensor::f32("a", &[0], &[]),
            wide,
        ]
    }

    fn notes() -> Metadata {
        ('a'..='z').map(|c| (c.to_string(), format!("\"{c}\"\n"))).collect()
    }

    #[test]
    fn the_library_reads_what_was_written() {
        let file = to_bytes(&tensors(), &notes()).unwrap();
        let (_, header) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(header.metadata().clone().unwrap().into_iter().collect::<Metadata>(), notes());
        let read = SafeTensors::deserialize(&file).unwrap();
        for tensor in tensors() {
            let view = read.tensor(&tensor.name).unwrap();
            assert_eq!(
                (view.dtype(), view.shape(), view.data()),
                (tensor.dtype, &*tensor.shape, &*tensor.bytes)
            );
        }
    }

    /// A hash map of 26 keys comes out in order once in 26! times.
    #[test]
    fn names_are_in_order_however_tensors_came() {
        let mut turned = tensors();
        turned.reverse();
        let file = to_bytes(&turned, &notes()).unwrap();
        assert_eq!(file, to_bytes(&tensors(), &notes()).unwrap());
        let header = String::from_utf8(split(&file).unwrap().0.to_vec()).unwrap();
        let places: Vec<_> =
            notes().keys().map(|key| header.find(&format!("\"{key}\":\"")).unwrap()).collect();
        assert!(places.is_sorted(), "{header}");
        assert_eq!(split(&file).unwrap().0.len() % 8, 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let short = Tensor { shape: vec![3], ..tensors().swap_remove(0) };
        assert!(to_bytes(&[short], &notes()).is_err());
        let twice = [tensors().swap_remove(0), tensors().swap_remove(0)];
        assert!(to_bytes(&twice, &notes()).is_err());
        let file = to_bytes(&tensors(), &Metadata::new()).unwrap();
        assert!(split(&file[..4]).is_err() && split(&file[..20]).is_err());
    }
}
