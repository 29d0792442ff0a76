//! A folder of pictures belongs to one way of making them: a small file beside them says which, so that others are not mixed in.

use std::path::Path;

use anyhow::{Context as _, Result};
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

/// Removes the files of a folder that an earlier run made, and nothing else.
///
/// # Errors
/// If one cannot be removed.
pub(crate) fn remove(folder: &Path, is_own: impl Fn(&str) -> bool) -> Result<()> {
    for entry in folder.read_dir().with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(&is_own) {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}
