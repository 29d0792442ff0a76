//! TensorBoard event files: records of scalars, framed and checksummed, appended to one file per process.
//!
//! A record is its length (u64), the masked CRC-32C of the length, the data, and the masked CRC-32C of the data, all
//! little-endian (TFRecord). The data is an `Event` message: `wall_time = 1`, `step = 2`, `file_version = 3`, `summary = 5`; a summary
//! holds `value = 1` with `tag = 1` and `simple_value = 2` (f32). That is all of it that is used, so the few bytes are
//! written here: of the libraries, tensorboard-rs was last released in 2022 (and brings an image decoder), tboard in
//! January 2024.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The reflected polynomial of CRC-32C (Castagnoli).
const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc: u32, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize])
}

/// TFRecord's masking, so that a checksum of data that holds checksums stays useful.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// Writes scalars where TensorBoard finds them.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
}

impl EventWriter {
    /// Starts a new event file in `folder`; TensorBoard shows all files of a folder as one run.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn append_to(folder: &Path, created_at: SystemTime) -> std::io::Result<Self> {
        let since = created_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = |suffix: u32| format!("events.out.tfevents.{}.featlab.{suffix}", since.as_secs());
        let free = (0..).map(|suffix| folder.join(name(suffix))).find(|path| !path.exists());
        let path = free.unwrap_or_else(|| folder.join(name(0)));
        let mut writer = Self { file: File::options().create(true).append(true).open(path)? };
        let mut event = wall_time(since.as_secs_f64());
        bytes_field(&mut event, 3, b"brain.Event:2");
        writer.record(&event)?;
        Ok(writer)
    }

    /// Appends scalars of one step.
    ///
    /// * `wall_time`: seconds since 1970.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn scalars(&mut self, step: u64, wall_time: f64, values: &[(&str, f64)]) -> std::io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            bytes_field(&mut entry, 1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((*value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &entry);
        }
        let mut event = self::wall_time(wall_time);
        event.push(2 << 3);
        varint(&mut event, step);
        bytes_field(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, data: &[u8]) -> std::io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked(data).to_le_bytes());
        self.file.write_all(&record)
    }
}

/// An event that begins with its time.
fn wall_time(seconds: f64) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(seconds.to_le_bytes());
    event
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn records_are_framed_and_hold_the_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::append_to(folder.path(), UNIX_EPOCH).unwrap();
        writer.scalars(300, 1.5, &[("loss", 0.25), ("knn", 2.0)]).unwrap();
        let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let file = std::fs::read(path).unwrap();
        let mut rest = file.as_slice();
        let mut records = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked(data).to_le_bytes());
            records.push(data.to_vec());
            rest = &rest[16 + length..];
        }
        assert!(records.len() == 2 && records[0].ends_with(b"brain.Event:2"));
        let mut expected = vec![0x09];
        expected.extend(1.5_f64.to_le_bytes());
        expected.extend([0x10, 0xAC, 0x02, 0x2A, 24]); // step 300, summary of 24 bytes
        expected.extend(b"\x0A\x0B\x0A\x04loss\x15\x00\x00\x80\x3E\x0A\x0A\x0A\x03knn\x15\x00\x00\x00\x40");
        expected[13] = (expected.len() - 14) as u8;
        assert_eq!(records[1], expected);
    }

    #[test]
    fn two_files_of_one_second_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let _ = [0; 2].map(|_| EventWriter::append_to(folder.path(), UNIX_EPOCH).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
