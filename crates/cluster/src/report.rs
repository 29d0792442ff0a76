//! What comes back of a unit: a header that says who did it, and the bytes that the worker returned.
//!
//! As bytes: length of the header (`u32`, little-endian), header (JSON), payload.

use serde::{Deserialize, Serialize};

/// What became of a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which unit.
    pub unit: u64,
    /// Which executor did it.
    pub executor: String,
    /// Version of that executor.
    pub version: String,
    /// How long it took.
    pub seconds: f64,
    /// Why it could not be done.
    pub failure: Option<UnitFailure>,
    /// What the worker returned; nothing if it failed.
    #[serde(skip)]
    pub payload: Vec<u8>,
}

/// Why a unit could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitFailure {
    /// One line.
    pub message: String,
    /// Exit code that the program should end with.
    pub code: u8,
    /// Whether another attempt, perhaps elsewhere, may go better: a store that did not answer, a full disk.
    pub again: bool,
}

impl Report {
    /// As bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let header = serde_json::to_vec(self).expect("a report has a JSON form");
        let length = u32::try_from(header.len()).expect("a header is small");
        [&length.to_le_bytes()[..], &header, &self.payload].concat()
    }

    /// From bytes; nothing if they are no report.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (header, payload) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let report: Self = serde_json::from_slice(header).ok()?;
        Some(Self { payload: payload.to_vec(), ..report })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_wire_and_other_bytes_are_none() {
        let report = Report {
            unit: 7,
            executor: "a".into(),
            version: "1".into(),
            seconds: 0.5,
            failure: None,
            payload: vec![1, 2, 3],
        };
        let bytes = report.encode();
        assert_eq!(Report::decode(&bytes), Some(report));
        assert_eq!(Report::decode(&bytes[..10]), None);
        assert_eq!(Report::decode(&[]), None);
        assert_eq!(Report::decode(&[0, 0, 0, 0, 1]), None);
    }
}
