//! One array of a MATLAB file, version 5 (also called 6 and 7, when compressed): what Potsdam's tiles are kept in.
//!
//! Such a file is a header of 128 bytes and then *elements*, each of a type, a length and its bytes, filled up to 8. An array is
//! an element of elements: flags (its class), sizes, name, numbers, the last in column-major order and in any type that holds
//! them. An element may be one that is compressed with zlib. Read is the first array of a name, if it is one of real numbers;
//! cells, structures, sparse and complex arrays are refused, and so are version 4 and version 7.3, which is HDF5.
//!
//! [`write`] is the other way, for pictures that are drawn.

use std::io::Read as _;

use flate2::read::ZlibDecoder;
use ndarray::{ArrayD, ArrayViewD, IxDyn, ShapeBuilder as _};

/// Why a file cannot be read.
pub(crate) type Reason = String;

const HEADER: usize = 128;

/// Most bytes that one element may become.
const MOST: usize = 1 << 30;

/// Types of elements.
mod kind {
    pub(super) const I8: u32 = 1;
    pub(super) const U8: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U16: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const U32: u32 = 6;
    pub(super) const F32: u32 = 7;
    pub(super) const F64: u32 = 9;
    pub(super) const I64: u32 = 12;
    pub(super) const U64: u32 = 13;
    pub(super) const MATRIX: u32 = 14;
    pub(super) const COMPRESSED: u32 = 15;
}

/// Classes of arrays: double, single and the integers.
const NUMBERS: std::ops::RangeInclusive<u32> = 6..=15;
const CLASS_U8: u32 = 9;
const COMPLEX: u32 = 1 << 11;

/// The array called `name`, with numbers as bytes.
///
/// * `other`: stands for every number that is not a whole one from 0 to 255; without it such a number is an error.
///
/// # Errors
/// The reason, if the file is none of this kind, cut off, or without such an array.
pub(crate) fn read(bytes: &[u8], name: &str, other: Option<u8>) -> Result<ArrayD<u8>, Reason> {
    let order = byte_order(bytes)?;
    let mut rest = &bytes[HEADER..];
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (mut kind, mut data) = element(&mut rest, order)?;
        let inflated;
        if kind == kind::COMPRESSED {
            inflated = inflate(data)?;
            (kind, data) = element(&mut &inflated[..], order)?;
        }
        if kind != kind::MATRIX {
            continue;
        }
        let array = Parts::of(data, order)?;
        if array.name == name.as_bytes() {
            return array.values(other);
        }
        names.push(String::from_utf8_lossy(array.name).into_owned());
    }
    let found = if names.is_empty() { "none".into() } else { names.join(", ") };
    Err(format!("it holds no array \"{name}\"; found {found}"))
}

/// How numbers of several bytes are written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }
}

fn byte_order(bytes: &[u8]) -> Result<Order, Reason> {
    if bytes.starts_with(b"\x89HDF") || bytes.starts_with(b"MATLAB 7.3") {
        return Err("it is a MATLAB file of version 7.3 (HDF5); save it with save(..., '-v7')".into());
    }
    if bytes.len() < HEADER {
        return Err(format!("it has {} bytes; a MATLAB file of version 5 begins with {HEADER}", bytes.len()));
    }
    match &bytes[124..HEADER] {
        [0, 1, b'I', b'M'] => Ok(Order::Little),
        [1, 0, b'M', b'I'] => Ok(Order::Big),
        [a, b, c, d] => Err(format!(
            "it is not a MATLAB file of version 5: bytes 124 to 127 are {a:02x} {b:02x} {c:02x} {d:02x}; expected 00 01 49 4d"
        )),
        _ => Err("it is not a MATLAB file of version 5".into()),
    }
}

/// Takes the next element off `rest`: its type and its bytes.
fn element<'a>(rest: &mut &'a [u8], order: Order) -> Result<(u32, &'a [u8]), Reason> {
    let cut = || Reason::from("the file is cut off");
    let (&tag, after) = rest.split_first_chunk().ok_or_else(cut)?;
    let word = order.u32(tag);
    // Up to four bytes may stand in the tag itself; then the upper half of its first word is their number.
    if word >> 16 != 0 {
        let (length, (data, after)) = ((word >> 16) as usize, after.split_at_checked(4).ok_or_else(cut)?);
        *rest = after;
        let data = data.get(..length).ok_or("an element in short form says that it has more than 4 bytes")?;
        return Ok((word & 0xffff, data));
    }
    let (&length, after) = after.split_first_chunk().ok_or_else(cut)?;
    let length = order.u32(length) as usize;
    let (data, after) = after.split_at_checked(length).ok_or_else(cut)?;
    // Compressed elements are not filled up; of the last one the filling may be left out.
    let filled = if word == kind::COMPRESSED { 0 } else { length.next_multiple_of(8) - length };
    *rest = &after[filled.min(after.len())..];
    Ok((word, data))
}

fn inflate(data: &[u8]) -> Result<Vec<u8>, Reason> {
    let mut bytes = Vec::new();
    let limit = MOST as u64 + 1;
    ZlibDecoder::new(data).take(limit).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() > MOST {
        return Err(format!("an array has more than {MOST} bytes"));
    }
    Ok(bytes)
}

/// The elements of an array.
struct Parts<'a> {
    flags: u32,
    shape: Vec<usize>,
    name: &'a [u8],
    /// What follows.
    rest: &'a [u8],
    order: Order,
}

impl<'a> Parts<'a> {
    fn of(mut data: &'a [u8], order: Order) -> Result<Self, Reason> {
        let (kind, flags) = element(&mut data, order)?;
        let flags = match flags.first_chunk() {
            Some(&flags) if kind == kind::U32 => order.u32(flags),
            _ => return Err("an array does not begin with its flags".into()),
        };
        let (kind, sizes) = element(&mut data, order)?;
        if kind != kind::I32 || sizes.len() % 4 != 0 {
            return Err("an array has no sizes".into());
        }
        let shape = sizes.as_chunks::<4>().0.iter().map(|&size| order.u32(size) as usize).collect();
        let (_, name) = element(&mut data, order)?;
        Ok(Self { flags, shape, name, rest: data, order })
    }

    fn values(self, other: Option<u8>) -> Result<ArrayD<u8>, Reason> {
        let Self { flags, shape, name, mut rest, order } = self;
        let name = String::from_utf8_lossy(name);
        if !NUMBERS.contains(&(flags & 0xff)) || flags & COMPLEX != 0 {
            return Err(format!("\"{name}\" is not an array of real numbers"));
        }
        let count = shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size)).filter(|&n| n <= MOST);
        let count = count.ok_or_else(|| format!("\"{name}\" is of size {shape:?}: too large"))?;
        let (kind, data) = element(&mut rest, order)?;
        let values = bytes_of(kind, data, order, other)?;
        if values.len() != count {
            return Err(format!("\"{name}\" is of size {shape:?} and holds {} numbers", values.len()));
        }
        let array = ArrayD::from_shape_vec(IxDyn(&shape).f(), values).map_err(|e| e.to_string())?;
        Ok(array.as_standard_layout().into_owned())
    }
}

/// Numbers of a type as bytes.
fn bytes_of(kind: u32, data: &[u8], order: Order, other: Option<u8>) -> Result<Vec<u8>, Reason> {
    /// Every number, of `N` bytes, made one by `from` out of little-endian bytes.
    fn all<const N: usize>(
        data: &[u8],
        order: Order,
        other: Option<u8>,
        from: impl Fn([u8; N]) -> f64,
    ) -> Result<Vec<u8>, Reason> {
        let (numbers, rest) = data.as_chunks::<N>();
        if !rest.is_empty() {
            return Err("the last number of an array is cut off".into());
        }
        let byte = |&(mut number): &[u8; N]| {
            if order == Order::Big {
                number.reverse();
            }
            let number = from(number);
            let byte = number as u8; // saturating, and 0 if it is not a number
            match (f64::from(byte) == number, other) {
                (true, _) => Ok(byte),
                (false, Some(other)) => Ok(other),
                (false, None) => {
                    Err(format!("an array holds {number}; expected whole numbers from 0 to 255"))
                }
            }
        };
        numbers.iter().map(byte).collect()
    }
    match kind {
        kind::U8 => Ok(data.to_vec()),
        kind::I8 => all(data, order, other, |b| i8::from_le_bytes(b).into()),
        kind::I16 => all(data, order, other, |b| i16::from_le_bytes(b).into()),
        kind::U16 => all(data, order, other, |b| u16::from_le_bytes(b).into()),
        kind::I32 => all(data, order, other, |b| i32::from_le_bytes(b).into()),
        kind::U32 => all(data, order, other, |b| u32::from_le_bytes(b).into()),
        kind::F32 => all(data, order, other, |b| f32::from_le_bytes(b).into()),
        kind::F64 => all(data, order, other, f64::from_le_bytes),
        kind::I64 => all(data, order, other, |b| i64::from_le_bytes(b) as f64),
        kind::U64 => all(data, order, other, |b| u64::from_le_bytes(b) as f64),
        kind => Err(format!("an array's numbers are of the unknown type {kind}")),
    }
}

/// Writes one array of bytes, uncompressed.
pub(crate) fn write(name: &str, array: ArrayViewD<'_, u8>) -> Vec<u8> {
    let mut file = format!("{:124}", "MATLAB 5.0 MAT-file, one array").into_bytes();
    file.extend([0, 1, b'I', b'M']);
    let mut matrix = Vec::new();
    put(&mut matrix, kind::U32, &[CLASS_U8.to_le_bytes(), [0; 4]].concat());
    let sizes: Vec<u8> = array.shape().iter().flat_map(|&size| (size as u32).to_le_bytes()).collect();
    put(&mut matrix, kind::I32, &sizes);
    put(&mut matrix, kind::I8, name.as_bytes());
    put(&mut matrix, kind::U8, &array.t().iter().copied().collect::<Vec<u8>>());
    put(&mut file, kind::MATRIX, &matrix);
    file
}

fn put(to: &mut Vec<u8>, kind: u32, data: &[u8]) {
    to.extend(kind.to_le_bytes());
    to.extend((data.len() as u32).to_le_bytes());
    to.extend(data);
    to.resize(to.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::ZlibEncoder};
    use ndarray::{Array2, Array3};

    use super::*;
    use crate::label_file::IGNORE;

    fn picture() -> ArrayD<u8> {
        Array3::from_shape_fn((3, 5, 4), |(y, x, c)| (y * 60 + x * 10 + c) as u8).into_dyn()
    }

    /// A file whose array is compressed, as MATLAB writes it today.
    fn compressed(file: &[u8]) -> Vec<u8> {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&file[HEADER..]).unwrap();
        let mut out = file[..HEADER].to_vec();
        let data = zlib.finish().unwrap();
        out.extend(kind::COMPRESSED.to_le_bytes());
        out.extend((data.len() as u32).to_le_bytes());
        out.extend(data);
        out
    }

    /// An array of numbers of any type, in either order of bytes, as a file.
    fn of_numbers(kind: u32, class: u32, numbers: &[u8], sizes: [u32; 2], order: Order) -> Vec<u8> {
        let word = |x: u32| if order == Order::Big { x.to_be_bytes() } else { x.to_le_bytes() };
        let element = |kind: u32, data: &[u8]| {
            let mut out = [word(kind), word(data.len() as u32)].concat();
            out.extend(data);
            out.resize(out.len().next_multiple_of(8), 0);
            out
        };
        let mut matrix = element(kind::U32, &[word(class), [0; 4]].concat());
        matrix.extend(element(kind::I32, &sizes.map(word).concat()));
        let short = word(2 << 16 | kind::I8); // a name that stands in its tag
        matrix.extend([&short[..], b"gt\0\0"].concat());
        matrix.extend(element(kind, numbers));
        let mut file = vec![b' '; 124];
        file.extend(if order == Order::Big { [1, 0, b'M', b'I'] } else { [0, 1, b'I', b'M'] });
        file.extend(element(kind::MATRIX, &matrix));
        file
    }

    /// Files that scipy wrote (`tests/golden/dataset/mat.py`).
    #[test]
    fn files_of_another_program() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/dataset/mat");
        let file = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let image =
            Array3::from_shape_fn((5, 7, 4), |(y, x, c)| (y * 41 + x * 17 + c * 101) as u8).into_dyn();
        let label = Array2::from_shape_fn((5, 7), |(y, x)| ((y * 3 + x) % 6) as u8);
        let mut with_void = label.clone();
        with_void[[4, 6]] = 255;
        for (name, array, expected) in [
            ("tile_plain.mat", "img", image.clone()),
            ("tile_compressed.mat", "img", image),
            ("tile_compressed.mat", "gt", with_void.clone().into_dyn()),
            ("label_double.mat", "gt", with_void.into_dyn()),
            ("label_short.mat", "gt", label.into_dyn()),
        ] {
            assert_eq!(read(&file(name), array, Some(IGNORE)).unwrap(), expected, "{name} {array}");
        }
        assert!(read(&file("version_4.mat"), "gt", None).unwrap_err().contains("version 5"));
        assert!(read(&file("cells.mat"), "gt", None).unwrap_err().contains("not an array of real numbers"));
    }

    #[test]
    fn what_is_written_is_read_compressed_or_not() {
        let file = write("img", picture().view());
        assert_eq!(read(&file, "img", None).unwrap(), picture());
        assert_eq!(read(&compressed(&file), "img", None).unwrap(), picture());
        let label = Array2::from_shape_vec((2, 3), vec![0, 1, 2, 3, 4, 255]).unwrap().into_dyn();
        let mut both = compressed(&file);
        both.extend(&compressed(&write("gt", label.view()))[HEADER..]);
        assert_eq!(read(&both, "gt", None).unwrap(), label);
        let error = read(&both, "label", None).unwrap_err();
        assert_eq!(error, "it holds no array \"label\"; found img, gt");
    }

    #[test]
    fn numbers_of_any_type_are_bytes_or_what_stands_for_others() {
        let doubles: Vec<u8> =
            [0.0_f64, 5.0, 255.0, -1.0, 2.5, f64::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
        let file = of_numbers(kind::F64, 6, &doubles, [2, 3], Order::Little);
        let expected = ndarray::array![[0, 255, 9], [5, 9, 9]].into_dyn();
        assert_eq!(read(&file, "gt", Some(9)).unwrap(), expected);
        assert!(read(&file, "gt", None).unwrap_err().contains("holds -1"));
        let shorts: Vec<u8> = [1_i16, 300, 3, -4].iter().flat_map(|x| x.to_be_bytes()).collect();
        let file = of_numbers(kind::I16, 10, &shorts, [2, 2], Order::Big);
        assert_eq!(read(&file, "gt", Some(255)).unwrap(), ndarray::array![[1, 3], [255, 255]].into_dyn());
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        let whole = write("img", picture().view());
        let hdf = [&b"MATLAB 7.3 MAT-file, Platform: GLNXA64"[..], &[b' '; 600]].concat();
        let complex = of_numbers(kind::F64, 6 | COMPLEX, &[0; 32], [2, 2], Order::Little);
        let cell = of_numbers(kind::U8, 1, &[0; 4], [2, 2], Order::Little);
        let few = of_numbers(kind::U8, CLASS_U8, &[0; 3], [2, 2], Order::Little);
        for (file, word) in [
            (hdf, "-v7"),
            (b"words".to_vec(), "5 bytes"),
            (vec![0; 200], "expected 00 01 49 4d"),
            (whole[..whole.len() / 2].to_vec(), "cut off"),
            (compressed(&whole)[..HEADER + 20].to_vec(), "cut off"),
            (whole[..HEADER].to_vec(), "found none"),
        ] {
            let error = read(&file, "img", None).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        for (file, word) in [(complex, "real numbers"), (cell, "real numbers"), (few, "holds 3 numbers")] {
            let error = read(&file, "gt", None).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        let mut damaged = compressed(&whole);
        let middle = HEADER + (damaged.len() - HEADER) / 2;
        damaged[middle..].fill(0x5a);
        assert!(read(&damaged, "img", None).is_err());
    }
}
