//! The two containers of `torch.save`: a pickle whose tensors refer to storages outside it.
//!
//! Since PyTorch 1.6 the file is a zip archive: `NAME/data.pkl` with the pickle, `NAME/data/KEY` with each storage,
//! `NAME/byteorder`. Before, it was a row of pickles (a magic number, the protocol, the system's sizes, the object, the
//! keys of the storages), then for each key the number of elements and the elements.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;

use zip::ZipArchive;

use super::array::{Array, Dtype, Storage};
use super::pickle::{Id, Node, Pickle};

/// First value of a file in the old container.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;

/// Largest pickle that is read out of an archive; those of checkpoints have a few hundred kilobytes.
const MAX_PICKLE_BYTES: u64 = 1 << 28;

/// The archive that a zip container is.
pub(crate) type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// The pickle of a file, and where the storages are that it refers to.
pub(crate) struct Torch {
    pub(crate) pickle: Pickle,
    storages: Storages,
}

enum Storages {
    /// The folder in the archive: a storage is the entry `FOLDER/data/KEY`.
    Zip(String),
    /// Where in the file each storage lies.
    Legacy(HashMap<String, Range<usize>>),
}

impl Torch {
    /// Whether the file starts as a zip archive does.
    pub(crate) fn is_zip(bytes: &[u8]) -> bool {
        bytes.starts_with(b"PK\x03\x04")
    }

    /// Whether the file starts with the old container's magic number.
    pub(crate) fn is_legacy(bytes: &[u8]) -> bool {
        let start = &bytes[..bytes.len().min(64)];
        Pickle::read(start).is_ok_and(|(pickle, _)| pickle.int(pickle.root()) == Some(MAGIC))
    }

    /// # Errors
    /// If the archive holds no pickle, was written on a big-endian machine, or is damaged.
    pub(crate) fn open_zip(archive: &mut Archive<'_>) -> Result<Self, String> {
        let names = archive.file_names().filter_map(|name| name.ok());
        let folders = names.filter_map(|name| name.strip_suffix("/data.pkl").map(str::to_owned));
        let folder = folders.min_by_key(String::len).ok_or("the archive holds no data.pkl")?;
        let order = format!("{folder}/byteorder");
        if archive.index_for_name(&order).is_some() && entry(archive, &order, 16)? != b"little" {
            return Err("its numbers are big-endian".to_owned());
        }
        let (pickle, _) = Pickle::read(&entry(archive, &format!("{folder}/data.pkl"), MAX_PICKLE_BYTES)?)?;
        Ok(Self { pickle, storages: Storages::Zip(folder) })
    }

    /// # Errors
    /// If the file is truncated, refers to storages of unknown types, or was written on a big-endian machine.
    pub(crate) fn open_legacy(bytes: &[u8]) -> Result<Self, String> {
        let mut at = 0;
        let mut next = || {
            let (pickle, length) = Pickle::read(&bytes[at..])?;
            at += length;
            Ok::<_, String>(pickle)
        };
        let (_magic, _protocol, system, pickle, keys) = (next()?, next()?, next()?, next()?, next()?);
        if system.get(system.root(), "little_endian").is_some_and(|id| system.node(id) == &Node::Bool(false))
        {
            return Err("its numbers are big-endian".to_owned());
        }
        let dtypes = storage_types(&pickle);
        let mut storages = HashMap::new();
        for &id in keys.sequence(keys.root()).ok_or("the keys of the storages are no list")? {
            let key = keys.str(id).ok_or("a storage's key is no text")?;
            let dtype = dtypes.get(key).ok_or_else(|| format!("nothing refers to storage {key}"))?;
            let size = dtype.size().ok_or_else(|| format!("storage {key} has the unknown type {dtype:?}"))?;
            let range = legacy_storage(bytes, at, size).ok_or_else(|| format!("storage {key} is cut off"))?;
            at = range.end;
            storages.insert(key.to_owned(), range);
        }
        Ok(Self { pickle, storages: Storages::Legacy(storages) })
    }

    /// The tensor that a value of the pickle stands for; `None` if it is something else.
    ///
    /// # Errors
    /// If its description makes no sense.
    pub(crate) fn tensor(&self, id: Id) -> Result<Option<Array>, String> {
        let Node::Object(object) = self.pickle.node(id) else { return Ok(None) };
        let args = self.pickle.sequence(object.args).unwrap_or_default();
        match (self.pickle.global(object.class), args) {
            (Some("torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2"), args) => {
                self.rebuild(args).map(Some)
            }
            (Some("torch._utils._rebuild_parameter"), &[inner, ..]) if self.is_plain_tensor(inner) => {
                self.tensor(inner)
            }
            _ => Ok(None),
        }
    }

    /// Whether a parameter's content is a tensor and not, in a hostile file, a parameter again.
    fn is_plain_tensor(&self, id: Id) -> bool {
        matches!(self.pickle.node(id), Node::Object(o) if self.pickle.global(o.class) != Some("torch._utils._rebuild_parameter"))
    }

    /// Arguments `storage, offset, shape, strides, …`.
    fn rebuild(&self, args: &[Id]) -> Result<Array, String> {
        let [storage, offset, shape, strides, ..] = args else {
            return Err("a tensor without a shape".to_owned());
        };
        let size = |id: &Id| self.pickle.int(*id).and_then(|value| usize::try_from(value).ok());
        let sizes = |id: &Id| {
            self.pickle.sequence(*id).and_then(|items| items.iter().map(size).collect::<Option<Vec<_>>>())
        };
        let (Some(offset), Some(shape), Some(strides)) = (size(offset), sizes(shape), sizes(strides)) else {
            return Err("a tensor whose shape is no list of sizes".to_owned());
        };
        let reference =
            reference(&self.pickle, self.pickle.node(*storage)).ok_or("a tensor without a storage")?;
        let offset = match reference.view {
            Some(view) => {
                size(&view).and_then(|start| start.checked_add(offset)).ok_or("a view without a start")?
            }
            None => offset,
        };
        let storage = match &self.storages {
            Storages::Zip(folder) => Storage::Entry(format!("{folder}/data/{}", reference.key)),
            Storages::Legacy(ranges) => {
                let range = ranges
                    .get(reference.key)
                    .ok_or_else(|| format!("there is no storage {}", reference.key))?;
                Storage::Bytes(range.clone())
            }
        };
        Ok(Array { shape, strides, offset, dtype: dtype(reference.class), storage })
    }
}

/// An entry of the archive, checked against its checksum.
///
/// # Errors
/// If it is absent, damaged, or longer than `limit`.
pub(crate) fn entry(archive: &mut Archive<'_>, name: &str, limit: u64) -> Result<Vec<u8>, String> {
    let entry = archive.by_name(name).map_err(|error| format!("entry {name}: {error}"))?;
    let mut content = Vec::new();
    entry.take(limit + 1).read_to_end(&mut content).map_err(|error| format!("entry {name}: {error}"))?;
    if content.len() as u64 > limit {
        return Err(format!("entry {name} is longer than {limit} bytes"));
    }
    Ok(content)
}

/// A reference to a storage: `("storage", class, key, location, length[, (view key, start, length)])`.
struct Reference<'a> {
    class: &'a str,
    key: &'a str,
    /// Where the view starts, in elements.
    view: Option<Id>,
}

fn reference<'a>(pickle: &'a Pickle, node: &Node) -> Option<Reference<'a>> {
    let &Node::Persistent(id) = node else { return None };
    let &[kind, class, key, _, _, ref view @ ..] = pickle.sequence(id)? else { return None };
    if pickle.str(kind) != Some("storage") {
        return None;
    }
    let view = view.first().and_then(|&view| pickle.sequence(view)).and_then(|view| view.get(1)).copied();
    Some(Reference { class: pickle.global(class)?, key: pickle.str(key)?, view })
}

/// The type of every storage that a pickle refers to.
fn storage_types(pickle: &Pickle) -> HashMap<String, Dtype> {
    let references = pickle.nodes().filter_map(|node| reference(pickle, node));
    references.map(|reference| (reference.key.to_owned(), dtype(reference.class))).collect()
}

fn dtype(class: &str) -> Dtype {
    let kind = class.strip_prefix("torch.").and_then(|name| name.strip_suffix("Storage")).unwrap_or_default();
    let size = match kind {
        "Half" => return Dtype::F16,
        "BFloat16" => return Dtype::Bf16,
        "Float" => return Dtype::F32,
        "Double" => return Dtype::F64,
        "Byte" | "Char" | "Bool" => Some(1),
        "Short" => Some(2),
        "Int" => Some(4),
        "Long" | "ComplexFloat" => Some(8),
        "ComplexDouble" => Some(16),
        _ => None,
    };
    Dtype::Other(class.to_owned(), size)
}

/// The elements of a storage in the old container, whose number stands before them.
fn legacy_storage(bytes: &[u8], at: usize, size: usize) -> Option<Range<usize>> {
    let (number, _) = bytes.get(at..)?.split_first_chunk::<8>()?;
    let length = usize::try_from(i64::from_le_bytes(*number)).ok()?.checked_mul(size)?;
    let start = at + number.len();
    let end = start.checked_add(length).filter(|&end| end <= bytes.len())?;
    Some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
    }

    /// A file in the old container: `object` as the object, and storage "7" with the numbers 0 to 5 in `f32`.
    fn legacy(object: &[u8], system: &[u8]) -> Vec<u8> {
        let pickle = |program: &[u8]| [b"\x80\x02", program, b"."].concat();
        let keys = [&b"]"[..], &text("7"), b"a"].concat();
        let mut file = pickle(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19");
        for program in [b"M\xe9\x03", system, object, &keys] {
            file.extend(pickle(program));
        }
        file.extend(6i64.to_le_bytes());
        file.extend((0..6).flat_map(|i| (i as f32).to_le_bytes()));
        file
    }

    /// A call that rebuilds a tensor of shape `[2]` at offset 1 of storage "7", or of a view of it.
    fn tensor(view: &[u8]) -> Vec<u8> {
        let call = b"ctorch._utils\n_rebuild_tensor_v2\n((";
        let class = b"ctorch\nFloatStorage\n";
        let storage =
            [&text("storage"), &class[..], &text("7"), &text("cpu"), b"K\x06", view, b"tQ"].concat();
        [&call[..], &storage, b"K\x01K\x02\x85K\x02\x85\x89NtR"].concat()
    }

    fn values(object: &[u8]) -> Result<Vec<f32>, String> {
        let bytes = legacy(object, b"}");
        let torch = Torch::open_legacy(&bytes)?;
        let array = torch.tensor(torch.pickle.root())?.ok_or("no tensor")?;
        let Storage::Bytes(range) = array.storage.clone() else { panic!("not in the file") };
        array.values(&bytes[range])
    }

    #[test]
    fn views_of_storages_start_where_they_say() {
        assert!(Torch::is_legacy(&legacy(b"N", b"}")));
        assert_eq!(values(&tensor(b"N")).unwrap(), [1.0, 3.0]);
        let view = [&b"("[..], &text("v"), b"K\x02K\x04t"].concat();
        assert_eq!(values(&tensor(&view)).unwrap(), [3.0, 5.0]);
        let outside = [&b"("[..], &text("v"), b"K\x04K\x02t"].concat();
        assert!(values(&tensor(&outside)).is_err());
    }

    #[test]
    fn a_parameter_is_its_tensor() {
        let parameter =
            |inner: &[u8]| [&b"ctorch._utils\n_rebuild_parameter\n("[..], inner, b"\x88NtR"].concat();
        assert_eq!(values(&parameter(&tensor(b"N"))).unwrap(), [1.0, 3.0]);
        assert_eq!(values(&parameter(&parameter(&tensor(b"N")))).unwrap_err(), "no tensor");
    }

    #[test]
    fn other_machines_and_cut_storages_are_refused() {
        let big = [&b"}"[..], &text("little_endian"), b"\x89s"].concat();
        let refused = |bytes: &[u8]| Torch::open_legacy(bytes).err().unwrap();
        assert!(refused(&legacy(&tensor(b"N"), &big)).contains("big-endian"));
        let whole = legacy(&tensor(b"N"), b"}");
        assert!(refused(&whole[..whole.len() - 1]).contains("cut off"));
        assert!(refused(&legacy(b"N", b"}")).contains("nothing refers"));
    }

    #[test]
    fn classes_of_storages_have_their_sizes() {
        assert_eq!(dtype("torch.HalfStorage"), Dtype::F16);
        assert_eq!(dtype("torch.LongStorage").size(), Some(8));
        assert_eq!(dtype("os.system").size(), None);
    }
}
