//! Weights inside the program, so that it means something offline.
//!
//! They are files that `featlab pretrain` wrote (16-bit, with their provenance in the header), trained on drawn scenes only, so
//! that no picture's licence is touched. How they were made is in `experiments/pretrain/`.

/// A weights file that is compiled in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Embedded {
    /// What follows `embedded:`.
    pub(crate) name: &'static str,
    /// The safetensors file.
    pub(crate) bytes: &'static [u8],
}

/// All of them.
pub(crate) static EMBEDDED: [Embedded; 1] =
    [Embedded { name: "scenes-micro", bytes: include_bytes!("../assets/scenes-micro.safetensors") }];

/// The weights of a name.
pub(crate) fn find(name: &str) -> Option<&'static Embedded> {
    EMBEDDED.iter().find(|weights| weights.name == name)
}

/// Names of the weights inside the program, as [`load`](crate::load) takes them.
#[must_use]
pub fn embedded_names() -> Vec<String> {
    EMBEDDED.iter().map(|weights| format!("embedded:{}", weights.name)).collect()
}
