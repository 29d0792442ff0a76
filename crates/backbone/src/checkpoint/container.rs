//! The containers of weights: what tensors a file holds, and their values on demand.
//!
//! All three are told by their first bytes, since extensions vary. The file is in memory as a whole; the tensors are
//! views of it, or of the entries of the zip archive that it is.

use std::io::Cursor;

use safetensors::{Dtype as StDtype, SafeTensors};

use super::array::{Array, Dtype, Storage, row_major};
use super::layout::Parts;
use super::sidecar::Inside;
use super::torch::{self, Archive, Torch};
use super::unwrap::{self, Arrays};

/// A container whose tensors are known and not read.
pub(crate) struct Container<'a> {
    bytes: &'a [u8],
    archive: Option<Archive<'a>>,
    /// The storage that was read last: tensors that share one come one after the other.
    last: Option<(String, Vec<u8>)>,
    /// Its tensors, under the names of the file.
    pub(crate) arrays: Arrays,
    /// What it says of the heads.
    pub(crate) inside: Inside,
    /// What a reader should know of its choice of tensors.
    pub(crate) notes: Vec<String>,
}

impl<'a> Container<'a> {
    /// Finds the tensors of a file, whose container is told by its first bytes.
    ///
    /// # Errors
    /// If it is none that is known, or damaged.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        if Torch::is_zip(bytes) {
            let mut archive =
                Archive::new(Cursor::new(bytes)).map_err(|error| format!("zip archive: {error}"))?;
            let torch = Torch::open_zip(&mut archive)?;
            Ok(Self { archive: Some(archive), ..Self::of_torch(bytes, &torch)? })
        } else if Torch::is_legacy(bytes) {
            Self::of_torch(bytes, &Torch::open_legacy(bytes)?)
        } else if bytes.get(8) == Some(&b'{') {
            Self::of_safetensors(bytes)
        } else {
            Err("it is neither a zip archive, nor a PyTorch pickle, nor a safetensors file".to_owned())
        }
    }

    fn of_torch(bytes: &'a [u8], torch: &Torch) -> Result<Self, String> {
        let (dict, note) = unwrap::state_dict(&torch.pickle);
        let mut arrays = Arrays::new();
        for &(key, value) in torch.pickle.entries(dict).ok_or("it holds no dictionary of tensors")? {
            let Some(name) = torch.pickle.str(key) else { continue };
            if let Some(array) = torch.tensor(value).map_err(|reason| format!("{name}: {reason}"))? {
                arrays.insert(name.to_owned(), array);
            }
        }
        let inside = unwrap::arguments(&torch.pickle);
        Ok(Self { bytes, archive: None, last: None, arrays, inside, notes: note.into_iter().collect() })
    }

    fn of_safetensors(bytes: &'a [u8]) -> Result<Self, String> {
        SafeTensors::deserialize(bytes).map_err(|error| format!("safetensors: {error}"))?; // checks that all is there
        let (header, about) =
            SafeTensors::read_metadata(bytes).map_err(|error| format!("safetensors: {error}"))?;
        let start = header + 8; // the length of the header comes before it
        let mut arrays = Arrays::new();
        for (name, info) in about.tensors() {
            let (from, to) = info.data_offsets;
            let range = start + from..start + to;
            let dtype = match info.dtype {
                StDtype::F16 => Dtype::F16,
                StDtype::BF16 => Dtype::Bf16,
                StDtype::F32 => Dtype::F32,
                StDtype::F64 => Dtype::F64,
                other => Dtype::Other(format!("{other:?}"), None),
            };
            let (shape, strides) = (info.shape.clone(), row_major(&info.shape));
            arrays.insert(name, Array { shape, strides, offset: 0, dtype, storage: Storage::Bytes(range) });
        }
        let note = |name: &str| about.metadata().as_ref().and_then(|entries| entries.get(name));
        let inside = Inside {
            metadata_heads: note("num_heads").and_then(|heads| heads.parse().ok()),
            readout: note("readout").cloned(),
            ..Inside::default()
        };
        Ok(Self { bytes, archive: None, last: None, arrays, inside, notes: Vec::new() })
    }

    /// The values of all parts, one after the other, times the mask where there is one.
    ///
    /// # Errors
    /// If they go beyond their storage, or are no floating-point numbers.
    pub(crate) fn values(&mut self, parts: &Parts) -> Result<Vec<f32>, String> {
        let mut all = Vec::new();
        for array in &parts.arrays {
            all.append(&mut self.of_array(array)?);
        }
        if let Some(mask) = &parts.mask {
            let mask = self.of_array(mask)?;
            all.iter_mut().zip(mask).for_each(|(value, factor)| *value *= factor);
        }
        Ok(all)
    }

    /// The values of one tensor.
    ///
    /// # Errors
    /// As [`Self::values`].
    pub(crate) fn of_array(&mut self, array: &Array) -> Result<Vec<f32>, String> {
        match &array.storage {
            Storage::Zeros => Ok(vec![0.0; array.shape.iter().product()]),
            storage => array.values(self.storage(storage)?),
        }
    }

    fn storage(&mut self, storage: &Storage) -> Result<&[u8], String> {
        let (name, archive) = match (storage, &mut self.archive) {
            (Storage::Bytes(range), _) => return Ok(&self.bytes[range.clone()]),
            (Storage::Entry(name), Some(archive)) => (name, archive),
            (Storage::Zeros, _) => return Ok(&[]),
            (Storage::Entry(name), None) => return Err(format!("there is no archive to hold {name}")),
        };
        if self.last.as_ref().is_none_or(|(last, _)| last != name) {
            let content = torch::entry(archive, name, self.bytes.len() as u64)?;
            self.last = Some((name.clone(), content));
        }
        Ok(self.last.as_ref().map(|(_, content)| &content[..]).unwrap_or_default())
    }
}
