//! Who opens roots that are no folders of this machine: whoever uses this crate.
//!
//! A root with `://` in it is handed to the caller's [`Opener`] as it was typed, `file://` too; what the schemes mean is
//! decided there. Without an opener such roots are refused, and never taken for a folder of that name.

use std::sync::Arc;

use crate::{Files, Result};

/// Opens roots such as `s3://bucket/camvid`.
///
/// Every `Fn(&str) -> Result<Arc<dyn Files>>` is one.
pub trait Opener {
    /// The files below `root`; need not find out whether there are any.
    ///
    /// # Errors
    /// With [`Error::is_usage`](crate::Error::is_usage) if the root cannot be meant: no such scheme, no such store.
    fn files(&self, root: &str) -> Result<Arc<dyn Files>>;
}

impl<F: Fn(&str) -> Result<Arc<dyn Files>>> Opener for F {
    fn files(&self, root: &str) -> Result<Arc<dyn Files>> {
        self(root)
    }
}

/// Whether a root is for an [`Opener`].
pub(crate) fn is_url(root: &str) -> bool {
    root.contains("://")
}
