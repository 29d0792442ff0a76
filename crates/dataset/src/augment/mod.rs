//! Random views of pictures, as self-supervised training looks at them.
//!
//! Three layers: pure changes of an image `[h, w, 3]` (`adjust_…`, [`flip`], [`gaussian_blur`], [`grayscale`], [`solarize`]), each
//! bit for bit that of Pillow and torchvision; [`ViewConfig`], which draws what happens to one view; and
//! [`MultiCrop`], all views of one picture. Evaluation uses no randomness: that is [`Transform`](crate::Transform).

mod blur;
mod colour;
mod crop;
mod hue;
mod jitter;
mod multi_crop;
mod single;
mod view;

pub use blur::gaussian_blur;
pub use colour::{adjust_brightness, adjust_contrast, adjust_saturation, flip, grayscale, solarize};
pub use crop::RandomResizedCrop;
pub use hue::adjust_hue;
pub use jitter::{Adjustment, ColorJitter};
pub use multi_crop::{MultiCrop, view_rng};
pub use single::SingleView;
pub use view::{Draw, ViewConfig};
