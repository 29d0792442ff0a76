//! x
mod error;
mod moments;
mod scaler;
pub use error::{Error, Result};
pub use moments::Moments;
pub use scaler::Scaler;
