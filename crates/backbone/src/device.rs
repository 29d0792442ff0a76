//! From a device's name to the device.
//!
//! Which devices exist is decided when the program is built (features `cuda`, `metal`) and again by the machine.
//!
//! A CUDA device has one stream of its own, which all threads share: whatever thread asks for it, the GPU does its work in the
//! order of asking. So weights that one thread loaded, tables that another one added and memory that a third one freed need
//! no further care, nor does cuBLAS's workspace; its one handle may be used by several threads, by its documentation.
//! `Device::new_cuda` would not do: it takes the per-thread default stream (candle-core's `cuda_backend/device.rs`), which is
//! another one in each thread, while weights, handle and workspace are shared, and cudarc orders nothing between
//! such streams, since it records events only once a stream was made by its `new_stream` (`is_managing_stream_synchronization`
//! in cudarc's `driver/safe/core.rs`).

use candle_core::Device;

use crate::{Error, Result};

/// The device of a name: `auto`, `cpu`, `cuda`, `cuda:N` or `metal`.
///
/// `auto` is the first CUDA device, else Metal, else the CPU.
///
/// # Errors
/// [`Error::Device`] if the name is unknown, or this build or machine has no such device.
///
/// ```
/// assert!(backbone::device("cpu")?.is_cpu());
/// # Ok::<(), backbone::Error>(())
/// ```
pub fn device(choice: &str) -> Result<Device> {
    let refuse = |reason: String| Error::Device { choice: choice.to_owned(), reason };
    let (kind, index) = choice.split_once(':').unwrap_or((choice, "0"));
    let index = index.parse().map_err(|_| refuse(format!("\"{index}\" is no device number")))?;
    let device = match (kind, choice.contains(':')) {
        ("auto", false) => Ok(auto()),
        ("cpu", false) => Ok(Device::Cpu),
        ("cuda", _) => Device::new_cuda_with_stream(index),
        ("metal", false) => Device::new_metal(index),
        _ => return Err(refuse("expected auto, cpu, cuda:N or metal".to_owned())),
    };
    device.map_err(|error| refuse(error.to_string().lines().next().unwrap_or_default().to_owned()))
}

/// The fastest device there is; one that cannot be opened counts as absent.
fn auto() -> Device {
    let cuda = || Device::new_cuda_with_stream(0).ok();
    let metal = || Device::new_metal(0).ok();
    cuda().or_else(metal).unwrap_or(Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_strictly() {
        assert!(device("cpu").unwrap().is_cpu());
        assert!(device("auto").is_ok());
        for bad in ["", "gpu", "cpu:1", "cuda:x", "cuda:", "auto:0", "CPU"] {
            assert!(device(bad).unwrap_err().is_usage(), "{bad}");
        }
    }

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn absent_devices_are_named() {
        for absent in ["cuda:0", "cuda", "metal"] {
            let error = device(absent).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(absent), "{error}");
        }
    }
}
