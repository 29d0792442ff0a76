//! The directory of a shard: for every row, where each of its cells lies in the file and what it must hash to.
//!
//! It stands in the footer, which the manifest knows the length and checksum of. A reader that wants single rows reads that
//! footer once, then exactly the bytes of its rows, and can check both; a reader of whole shards finds its cells without decoding any page.
//! Offsets are known only when the file is written, so a placeholder of the right length is filled in afterwards, like the seal.

use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::offset_index::PageLocation;

use crate::checksum;
use crate::damage::Flaw;
use crate::parquet_file::GROUP_ROWS;
use crate::schema::Columns;
use crate::{DamageKind, Record};

pub(crate) const ROWS: &str = "featlab.rows";
pub(crate) const PAGES: &str = "featlab.pages";
const MARK: &str = "featlab-pages:";
/// Hex digits of an offset, a length and a checksum.
const DIGITS: [usize; 3] = [12, 8, 16];
const ENTRY: usize = DIGITS[0] + DIGITS[1] + DIGITS[2];
/// Columns before the first cell.
const PLAIN_COLUMNS: usize = 4;

/// Where the cells of a shard lie.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) rows: Vec<RowEntry>,
}

/// One row.
#[derive(Debug)]
pub(crate) struct RowEntry {
    pub(crate) image_id: String,
    pub(crate) crop: u8,
    /// One per column of cells; `None` is a null.
    pub(crate) cells: Vec<Option<Extent>>,
}

/// The stored bytes of a cell: of a compressed one, the compressed page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) range: Range<u64>,
    pub(crate) xxh3: u64,
}

impl Directory {
    /// The entries of the footer before the file is written: names, and room for the rest.
    pub(crate) fn placeholder(records: &[Record], columns: &Columns) -> [(&'static str, String); 2] {
        let names: Vec<(&str, u8)> = records.iter().map(|record| (&*record.image_id, record.crop)).collect();
        let names = serde_json::to_string(&names).expect("strings always have a JSON form");
        [(ROWS, names), (PAGES, format!("{MARK}{}", "0".repeat(ENTRY * records.len() * columns.list.len())))]
    }

    /// Fills in the placeholder of a finished file.
    pub(crate) fn fill_in(file: Vec<u8>, records: &[Record], columns: &Columns) -> Result<Vec<u8>, String> {
        let file = Bytes::from(file);
        let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
        let metadata = reader.parse_and_finish(&file).map_err(|error| error.to_string())?;
        let text = entries(&file, &metadata, records, columns).ok_or("pages are not one per row")?;
        let mut file = Vec::from(file);
        Self::put(&text, &mut file)?;
        Ok(file)
    }

    /// The entries of a file whose records are slices of it, by where they are; `None` if one is not.
    pub(crate) fn of_slices(file: &[u8], records: &[Record]) -> Option<String> {
        let mut text = String::new();
        for cell in records.iter().flat_map(|record| &record.cells) {
            let Some(cell) = cell else {
                text.push_str(&"0".repeat(ENTRY));
                continue;
            };
            let start = (cell.as_ptr() as usize).checked_sub(file.as_ptr() as usize)?;
            let is_within = file.get(start..start + cell.len())?.as_ptr() == cell.as_ptr();
            text.push_str(&entry(&(start..start + cell.len()), cell));
            is_within.then_some(())?;
        }
        Some(text)
    }

    /// Puts the entries in the place of the last placeholder.
    pub(crate) fn put(text: &str, file: &mut [u8]) -> Result<(), String> {
        let at = (0..=file.len().saturating_sub(MARK.len() + text.len()))
            .rev()
            .find(|&at| file[at..].starts_with(MARK.as_bytes()))
            .ok_or("the footer has no room for the directory")?;
        file[at + MARK.len()..][..text.len()].copy_from_slice(text.as_bytes());
        Ok(())
    }

    /// Reads the entries back; `None` if the file has none, as those of the first versions.
    pub(crate) fn from_pairs<'a>(
        get: impl Fn(&str) -> Option<&'a str>,
        columns: usize,
        file_bytes: u64,
    ) -> Result<Option<Self>, Flaw> {
        let (Some(names), Some(pages)) = (get(ROWS), get(PAGES)) else { return Ok(None) };
        let parsed = parse(names, pages, columns, file_bytes);
        parsed
            .map(Some)
            .ok_or_else(|| Flaw::new(DamageKind::Schema, "the directory in the footer is damaged"))
    }
}

impl Extent {
    /// Whether `bytes` are those that were written.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        checksum::of_cell(bytes) == self.xxh3
    }
}

/// All entries as text, row by row.
fn entries(file: &[u8], metadata: &ParquetMetaData, records: &[Record], columns: &Columns) -> Option<String> {
    let mut text = String::with_capacity(ENTRY * records.len() * columns.list.len());
    let index = metadata.offset_index()?;
    let mut rest = records;
    for (group, index) in metadata.row_groups().iter().zip(index) {
        let rows;
        (rows, rest) = rest.split_at_checked(usize::try_from(group.num_rows()).ok()?)?;
        for row in 0..rows.len() {
            for cell in 0..columns.list.len() {
                if rows[row].cells[cell].is_none() {
                    text.push_str(&"0".repeat(ENTRY));
                    continue;
                }
                let chunk = Chunk {
                    pages: index[PLAIN_COLUMNS + cell].page_locations(),
                    is_plain: group.column(PLAIN_COLUMNS + cell).compression() == Compression::UNCOMPRESSED,
                    width: columns.list[cell].width(),
                };
                let range = chunk
                    .locate(file, row, |row| rows.get(row).is_some_and(|row| row.cells[cell].is_some()))?;
                text.push_str(&entry(&range, &file[range.clone()]));
            }
        }
    }
    Some(text)
}

fn entry(range: &Range<usize>, bytes: &[u8]) -> String {
    format!("{:012x}{:08x}{:016x}", range.start, range.len(), checksum::of_cell(bytes))
}

/// The pages of one column in one row group.
struct Chunk<'a> {
    pages: &'a [PageLocation],
    is_plain: bool,
    /// Bytes of a value.
    width: usize,
}

impl Chunk<'_> {
    /// Where the value of `row` (of the group) is in the file, or the compressed body of the page that it has for itself.
    ///
    /// Values that are not null lie side by side at the end of a plain page; `is_there` says which rows have one.
    fn locate(&self, file: &[u8], row: usize, is_there: impl Fn(usize) -> bool) -> Option<Range<usize>> {
        let first_row = |page: &PageLocation| usize::try_from(page.first_row_index).unwrap_or(usize::MAX);
        let after = self.pages.partition_point(|page| first_row(page) <= row);
        let page = self.pages.get(after.checked_sub(1)?)?;
        let end_row = self.pages.get(after).map_or(row + GROUP_ROWS, first_row);
        let start = usize::try_from(page.offset).ok()?;
        let bytes = file.get(start..start + usize::try_from(page.compressed_page_size).ok()?)?;
        let body = start + header_length(bytes)?..start + bytes.len();
        if self.is_plain {
            let from_end = (row..end_row).filter(|&row| is_there(row)).count();
            let at = body.end.checked_sub(from_end * self.width)?;
            return Some(at..at + self.width);
        }
        let values = (first_row(page)..end_row).filter(|&row| is_there(row)).count();
        (values == 1).then_some(body)
    }
}

/// Length of the header before a page's body: its third field is the body's length. The header is in Thrift's compact
/// protocol, where each of the first three fields is a byte 0x15 (one field further, 32-bit integer) and a variable-length number.
fn header_length(page: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut body = 0u64;
    for _ in 0..3 {
        if *page.get(at)? != 0x15 {
            return None;
        }
        at += 1;
        body = 0;
        for shift in (0..35).step_by(7) {
            let byte = *page.get(at)?;
            at += 1;
            body |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
    }
    // Zigzag: non-negative numbers are doubled.
    page.len().checked_sub(usize::try_from(body >> 1).ok()?)
}

fn parse(names: &str, pages: &str, columns: usize, file_bytes: u64) -> Option<Directory> {
    let names: Vec<(String, u8)> = serde_json::from_str(names).ok()?;
    let digits = pages.strip_prefix(MARK)?.as_bytes();
    if digits.len() != ENTRY * columns * names.len() {
        return None;
    }
    let mut entries = digits.chunks_exact(ENTRY).map(|entry| extent(entry, file_bytes));
    let mut rows = Vec::with_capacity(names.len());
    for (image_id, crop) in names {
        let cells: Option<Vec<_>> = entries.by_ref().take(columns).collect();
        rows.push(RowEntry { image_id, crop, cells: cells? });
    }
    Some(Directory { rows })
}

/// `Some(None)` is a null, `None` no entry at all.
fn extent(digits: &[u8], file_bytes: u64) -> Option<Option<Extent>> {
    let number =
        |range: Range<usize>| u64::from_str_radix(std::str::from_utf8(&digits[range]).ok()?, 16).ok();
    let [offset, length, _] = DIGITS;
    let start = number(0..offset)?;
    let bytes = number(offset..offset + length)?;
    let xxh3 = number(offset + length..ENTRY)?;
    let range = start..start.checked_add(bytes)?;
    match bytes {
        0 => Some(None),
        _ if range.end <= file_bytes => Some(Some(Extent { range, xxh3 })),
        _ => None,
    }
}
