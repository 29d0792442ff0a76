//! A folder of pictures belongs to one way of making them: a small file beside them says which, so that others are not mixed in.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit::usage;
use crate::records::write_atomically;

/// Makes `folder` ours by a file of `settings`.
///
/// * `clear`: removes what an earlier run made, before other settings overwrite it.
///
/// # Errors
/// A usage error if it holds pictures of other settings and `overwrite` is not set; if it cannot be written.
pub(crate) fn claim<T: Serialize + DeserializeOwned + PartialEq>(
    folder: &Path,
    file: &str,
    settings: &T,
    overwrite: bool,
    clear: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let path = folder.join(file);
    if path.exists() {
        let theirs: Option<T> =
            std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let is_same = theirs.is_some_and(|theirs| theirs == *settings);
        if !overwrite && !is_same {
            return Err(usage(format!(
                "{} holds pictures of another input or other options (see {file}); choose another --out, or --overwrite",
                folder.display()
            )));
        }
        if overwrite {
            clear()?;
        }
    }
    write_atomically(&path, &serde_json::to_vec_pretty(settings)?)
}
