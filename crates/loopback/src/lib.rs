//! Object stores on this machine, for tests: real servers, spoken to over HTTP.
//!
//! [`S3`] and [`Gcs`] keep their objects in a folder, so that a test may stop them, look at or damage what lies there, and
//! start them again on the same data. Each tells the environment in which a program finds it.

mod gcs;
mod s3;
mod server;

pub use gcs::Gcs;
pub use s3::S3;
