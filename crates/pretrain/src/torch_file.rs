//! Files that `torch.load(path, weights_only=True)` opens.
//!
//! A zip archive of stored entries: `archive/data.pkl`, a pickle of the whole tree of values, and `archive/data/N`, the numbers of
//! tensor `N`. In the pickle (protocol 2) a tensor is a call of `torch._utils._rebuild_tensor_v2` on a storage that is
//! named by a persistent id. Only what checkpoints need is spelt: dictionaries, lists, numbers, texts, tensors of f32.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::{Error, Result};

/// A value of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum TorchValue<'a> {
    /// `None`.
    None,
    /// `True`, `False`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A real number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// A `dict`.
    Dict(Vec<(Self, Self)>),
    /// A `collections.OrderedDict`, as state dicts are.
    OrderedDict(Vec<(String, Self)>),
    /// A tensor of f32, row-major.
    Tensor {
        /// Its shape; empty for a scalar.
        shape: Vec<usize>,
        /// Its numbers.
        data: &'a [f32],
    },
}

/// Where PyTorch wants the first number of a tensor in the file.
const ALIGNMENT: u16 = 64;

/// Writes a checkpoint, replacing an older file in one step.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written, or a tensor has not as many numbers as its shape says; the older file is
/// then still there.
pub fn write_torch(path: &Path, value: &TorchValue<'_>) -> Result<()> {
    let io = |source| Error::Io { path: path.into(), source };
    check(value).map_err(io)?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let beside = path.with_file_name(name);
    let written = write_archive(&beside, value).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside); // the error that matters is the first one
    }
    written.map_err(io)
}

/// # Errors
/// If a tensor has not as many numbers as its shape says: PyTorch would open the file and fail, or read a part.
fn check(value: &TorchValue<'_>) -> std::io::Result<()> {
    match value {
        TorchValue::Tensor { shape, data } if shape.iter().product::<usize>() != data.len() => {
            let reason = format!("a tensor of shape {shape:?} cannot have {} numbers", data.len());
            Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason))
        }
        TorchValue::List(items) => items.iter().try_for_each(check),
        TorchValue::Dict(items) => {
            items.iter().try_for_each(|(key, item)| check(key).and_then(|()| check(item)))
        }
        TorchValue::OrderedDict(items) => items.iter().try_for_each(|(_, item)| check(item)),
        _ => Ok(()),
    }
}

fn write_archive(path: &Path, value: &TorchValue<'_>) -> std::io::Result<()> {
    let mut pickle = Pickle::default();
    pickle.value(value);
    let Pickle { mut code, tensors } = pickle;
    code.push(b'.'); // STOP
    let mut archive = ZipWriter::new(BufWriter::new(File::create(path)?));
    // The default time stamp is fixed, so equal values give equal files.
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(false);
    let aligned = stored.with_alignment(ALIGNMENT);
    let head: [(&str, &[u8]); 3] =
        [("archive/data.pkl", &code), ("archive/byteorder", b"little"), ("archive/version", b"3\n")];
    for (name, content) in head {
        archive.start_file(name, stored)?;
        archive.write_all(content)?;
    }
    for (number, data) in tensors.iter().enumerate() {
        archive.start_file(format!("archive/data/{number}"), aligned.large_file(data.len() >= 1 << 29))?;
        for part in data.chunks(1 << 16) {
            let bytes: Vec<u8> = part.iter().flat_map(|x| x.to_le_bytes()).collect();
            archive.write_all(&bytes)?;
        }
    }
    let mut file = archive.finish()?;
    file.flush()?;
    file.get_ref().sync_all()
}

/// A pickle under construction. The stack machine builds every value on top of its stack.
#[derive(Default)]
struct Pickle<'a> {
    code: Vec<u8>,
    tensors: Vec<&'a [f32]>,
}

impl<'a> Pickle<'a> {
    fn value(&mut self, value: &TorchValue<'a>) {
        if self.code.is_empty() {
            self.code.extend([0x80, 2]); // PROTO 2
        }
        match value {
            TorchValue::None => self.code.push(b'N'),
            TorchValue::Bool(true) => self.code.push(0x88),
            TorchValue::Bool(false) => self.code.push(0x89),
            TorchValue::Int(i) => self.int(*i),
            TorchValue::Float(x) => {
                self.code.push(b'G');
                self.code.extend(x.to_be_bytes());
            }
            TorchValue::Text(text) => self.text(text),
            TorchValue::List(items) => {
                self.code.extend([b']', b'(']); // EMPTY_LIST, MARK … APPENDS
                items.iter().for_each(|item| self.value(item));
                self.code.push(b'e');
            }
            TorchValue::Dict(items) => {
                self.code.extend([b'}', b'(']); // EMPTY_DICT, MARK … SETITEMS
                items.iter().for_each(|(key, item)| {
                    self.value(key);
                    self.value(item);
                });
                self.code.push(b'u');
            }
            TorchValue::OrderedDict(items) => {
                self.ordered_dict();
                self.code.push(b'(');
                for (key, item) in items {
                    self.text(key);
                    self.value(item);
                }
                self.code.push(b'u');
            }
            TorchValue::Tensor { shape, data } => self.tensor(shape, data),
        }
    }

    /// An empty `OrderedDict()`.
    fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.code.extend(b")R"); // EMPTY_TUPLE, REDUCE
    }

    /// `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`.
    fn tensor(&mut self, shape: &[usize], data: &'a [f32]) {
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.code.push(b'('); // MARK
        self.code.push(b'('); // MARK: the persistent id
        self.text("storage");
        self.global("torch", "FloatStorage");
        self.text(&self.tensors.len().to_string());
        self.text("cpu");
        self.int(data.len() as i64);
        self.code.extend(b"tQ"); // TUPLE, BINPERSID
        self.tensors.push(data);
        self.int(0);
        self.tuple(shape);
        let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
        self.tuple(&strides);
        self.code.push(0x89);
        self.ordered_dict();
        self.code.extend(b"tR"); // TUPLE, REDUCE
    }

    fn tuple(&mut self, numbers: &[usize]) {
        self.code.push(b'(');
        numbers.iter().for_each(|&number| self.int(number as i64));
        self.code.push(b't');
    }

    fn int(&mut self, i: i64) {
        if let Ok(i) = i32::try_from(i) {
            self.code.push(b'J'); // BININT
            self.code.extend(i.to_le_bytes());
        } else {
            self.code.extend([0x8A, 8]); // LONG1 of 8 bytes
            self.code.extend(i.to_le_bytes());
        }
    }

    fn text(&mut self, text: &str) {
        self.code.push(b'X'); // BINUNICODE
        self.code.extend((text.len() as u32).to_le_bytes());
        self.code.extend(text.as_bytes());
    }

    fn global(&mut self, module: &str, name: &str) {
        self.code.extend(format!("c{module}\n{name}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn values_are_spelt_as_pickles() {
        let spell = |value: TorchValue<'static>| {
            let mut pickle = Pickle::default();
            pickle.value(&value);
            pickle.code[2..].to_vec()
        };
        assert_eq!(spell(TorchValue::Int(-2)), [b'J', 0xFE, 0xFF, 0xFF, 0xFF]);
        assert_eq!(spell(TorchValue::Int(1 << 40)), [0x8A, 8, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(spell(TorchValue::Text("é".into())), [b'X', 2, 0, 0, 0, 0xC3, 0xA9]);
        assert_eq!(spell(TorchValue::List(vec![TorchValue::None, TorchValue::Bool(true)])), b"](N\x88e");
        assert_eq!(spell(TorchValue::OrderedDict(vec![])), b"ccollections\nOrderedDict\n)R(u");
    }

    #[test]
    fn numbers_lie_where_the_pickle_says_and_equal_values_give_equal_files() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = ([1.0, 2.0, 3.0], [7.5]);
        let value = TorchValue::Dict(vec![
            (TorchValue::Int(0), TorchValue::Tensor { shape: vec![3, 1], data: &a }),
            (TorchValue::Text("x".into()), TorchValue::Tensor { shape: vec![], data: &b }),
        ]);
        let paths = ["one.pth", "two.pth"].map(|name| folder.path().join(name));
        paths.iter().for_each(|path| write_torch(path, &value).unwrap());
        assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
        let mut archive = zip::ZipArchive::new(File::open(&paths[0]).unwrap()).unwrap();
        let mut entry = archive.by_name("archive/data/1").unwrap();
        assert_eq!(entry.data_start().unwrap() % u64::from(ALIGNMENT), 0);
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, 7.5_f32.to_le_bytes());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2); // nothing is left beside them
    }

    #[test]
    fn a_tensor_is_a_call_on_its_storage() {
        let mut pickle = Pickle::default();
        pickle.value(&TorchValue::Tensor { shape: vec![2, 0], data: &[] });
        let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        let (zero, two) = (b"J\0\0\0\0", b"J\x02\0\0\0");
        let expected = [
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((",
            &text("storage")[..],
            b"ctorch\nFloatStorage\n",
            &text("0"),
            &text("cpu"),
            zero,
            b"tQ",
            zero,
            &[b"(", &two[..], zero, b"t"].concat(),
            &[b"(", &zero[..], b"J\x01\0\0\0t"].concat(),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ];
        assert_eq!(pickle.code, expected.concat());
    }

    #[test]
    fn our_own_reader_finds_the_teachers_backbone() {
        let config = backbone::VitConfig {
            embed_dim: 12,
            depth: 2,
            num_heads: 3,
            mlp_dim: 48,
            patch_size: 4,
            grid: 3,
            qkv_bias: true,
            layer_norm_eps: 1e-6,
        };
        let head = crate::HeadConfig { out_dim: 8, hidden_dim: 6, bottleneck_dim: 4, ..Default::default() };
        let layout = crate::Network::new(&config, crate::Readout::Class, &head).layout;
        let values: Vec<f32> = (0..layout.len()).map(|i| (i as f32).sin()).collect();
        let tensors = layout.tensors().iter().map(|tensor| {
            let data = tensor.slot.of(&values);
            (tensor.name.clone(), TorchValue::Tensor { shape: tensor.shape.clone(), data })
        });
        let teacher = TorchValue::OrderedDict(tensors.collect());
        let args = TorchValue::Dict(vec![(TorchValue::Text("num_heads".into()), TorchValue::Int(3))]);
        let text = |text: &str| TorchValue::Text(text.into());
        let value = TorchValue::Dict(vec![(text("teacher"), teacher), (text("args"), args)]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.pth");
        write_torch(&path, &value).unwrap();
        let loaded = backbone::load(path.to_str().unwrap(), &backbone::LoadOptions::default()).unwrap();
        let spec = loaded.backbone.spec();
        assert_eq!((spec.embed_dim, spec.depth, spec.num_heads, spec.patch_size), (12, 2, 3, 4));
    }

    #[test]
    fn a_tensor_of_another_length_than_its_shape_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pth");
        let value = TorchValue::List(vec![TorchValue::Tensor { shape: vec![2, 2], data: &[0.0; 3] }]);
        let error = write_torch(&path, &value).unwrap_err().to_string();
        assert!(error.contains("[2, 2]") && error.contains("3 numbers"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let error = write_torch(Path::new("/nonexistent/x.pth"), &TorchValue::None).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/x.pth"), "{error}");
    }
}
