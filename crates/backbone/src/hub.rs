//! Model files by name: first from the local hub cache, then from the hub.
//!
//! The cache is the one that Python's tools fill: `models--OWNER--REPO/snapshots/REVISION/FILE`, with the revision of
//! `main` in `refs/main`. A folder `snapshots/main`, filled by hand, counts as well. `HF_HUB_CACHE` and `HF_HOME` say
//! where the cache is, `HF_HUB_OFFLINE=1` forbids the network, `HF_ENDPOINT` and `HF_TOKEN` are honoured.

use std::env;
use std::path::{Path, PathBuf};

use hf_hub::Cache;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};

use crate::{Error, Result};

/// Names of weights files, the safer container first.
pub(crate) const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Files that describe the weights, where they are there.
const COMPANIONS: [&str; 2] = ["config.json", "preprocessor_config.json"];

/// The folder of downloaded models: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in `~/.cache/huggingface`.
pub fn hub_cache() -> PathBuf {
    match set("HF_HUB_CACHE") {
        Some(folder) => folder.into(),
        None => hub_home().join("hub"),
    }
}

/// Whether `HF_HUB_OFFLINE` forbids the network.
pub fn hub_offline() -> bool {
    set("HF_HUB_OFFLINE")
        .is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_ascii_lowercase().as_str()))
}

fn hub_home() -> PathBuf {
    let below = |parent: String, folder: &str| PathBuf::from(parent).join(folder);
    set("HF_HOME")
        .map(PathBuf::from)
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| below(cache, "huggingface")))
        .or_else(|| set("HOME").or_else(|| set("USERPROFILE")).map(|home| below(home, ".cache/huggingface")))
        .unwrap_or_else(|| PathBuf::from(".huggingface"))
}

/// An environment variable that is set to something.
fn set(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}

/// A weights file of a repository on this machine.
pub(crate) struct Fetched {
    /// The weights; what describes them lies beside them.
    pub(crate) weights: PathBuf,
    /// The revision, as its snapshot folder is named.
    pub(crate) revision: String,
}

/// A repository in the local cache.
struct Local<'a> {
    repo: &'a str,
    cache: &'a Path,
}

/// The weights of `owner/repo` and their companions, downloaded where they are not in the cache.
///
/// # Errors
/// [`Error::Unavailable`] if they are not there and cannot be had; it says where to put them.
pub(crate) fn fetch(repo: &str) -> Result<Fetched> {
    fetch_from(repo, &hub_cache(), hub_offline())
}

fn fetch_from(repo: &str, cache: &Path, offline: bool) -> Result<Fetched> {
    let local = Local { repo, cache };
    if offline {
        return local.weights().ok_or_else(|| local.unavailable("HF_HUB_OFFLINE is set"));
    }
    if let Some(fetched) =
        local.weights().filter(|found| found.weights.with_file_name("config.json").exists())
    {
        return Ok(fetched);
    }
    local.download()?;
    local.weights().ok_or_else(|| local.unavailable("the download left no weights there"))
}

impl Local<'_> {
    fn folder(&self) -> PathBuf {
        self.cache.join(format!("models--{}", self.repo.replace('/', "--")))
    }

    /// Where files put there by hand are looked for.
    fn by_hand(&self) -> PathBuf {
        self.folder().join("snapshots").join("main")
    }

    fn unavailable(&self, reason: impl Into<String>) -> Error {
        Error::Unavailable { repo: self.repo.to_owned(), reason: reason.into(), folder: self.by_hand() }
    }

    /// The weights in the cache: of the revision of `main`, else those put there by hand.
    fn weights(&self) -> Option<Fetched> {
        let main = std::fs::read_to_string(self.folder().join("refs/main")).ok();
        let revisions = main.iter().map(|revision| revision.trim()).chain(["main"]);
        revisions.filter(|revision| !revision.is_empty()).find_map(|revision| {
            let snapshot = self.folder().join("snapshots").join(revision);
            let weights = WEIGHTS.iter().map(|file| snapshot.join(file)).find(|path| path.is_file())?;
            Some(Fetched { weights, revision: revision.to_owned() })
        })
    }

    /// Fetches the first kind of weights that the repository has, and the companions that it has.
    fn download(&self) -> Result<()> {
        let repo = self.api()?.model(self.repo.to_owned());
        let cached = Cache::new(self.cache.to_owned()).model(self.repo.to_owned());
        let there = |file: &str| cached.get(file).is_some();
        // Companions first: once the weights are in the cache, it counts as complete.
        for file in COMPANIONS.into_iter().filter(|file| !there(file)) {
            self.get(&repo, file)?;
        }
        for file in WEIGHTS {
            if there(file) || self.get(&repo, file)? {
                return Ok(());
            }
        }
        Err(self.unavailable(format!("its repository has neither {} nor {}", WEIGHTS[0], WEIGHTS[1])))
    }

    /// Fetches one file; `false` if the repository does not have it.
    fn get(&self, repo: &ApiRepo, file: &str) -> Result<bool> {
        tracing::debug!(repo = self.repo, file, "downloading");
        match repo.download(file) {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(self.unavailable(format!("downloading {file} failed ({error})"))),
        }
    }

    fn api(&self) -> Result<hf_hub::api::sync::Api> {
        let stored =
            || std::fs::read_to_string(hub_home().join("token")).ok().map(|token| token.trim().to_owned());
        let token = set("HF_TOKEN").or_else(stored).filter(|token| !token.is_empty());
        let mut api =
            ApiBuilder::from_cache(Cache::new(self.cache.to_owned())).with_progress(false).with_token(token);
        if let Some(endpoint) = set("HF_ENDPOINT") {
            api = api.with_endpoint(endpoint);
        }
        api.build().map_err(|error| self.unavailable(format!("the hub cannot be reached ({error})")))
    }
}

/// Whether the hub answered that there is no such file.
fn is_absent(error: &ApiError) -> bool {
    error.to_string().contains("http status: 404")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &Path, file: &str, content: &str) {
        let path = cache.join("models--some--model").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    #[test]
    fn offline_and_absent_says_where_to_put_the_files() {
        let cache = tempfile::tempdir().unwrap();
        let error = fetch_from("some/model", cache.path(), true).err().unwrap();
        let folder = cache.path().join("models--some--model/snapshots/main");
        assert!(error.is_usage());
        for part in
            ["some/model", "HF_HUB_OFFLINE", "config.json", "model.safetensors", folder.to_str().unwrap()]
        {
            assert!(error.to_string().contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn files_put_there_by_hand_are_found() {
        let cache = tempfile::tempdir().unwrap();
        put(cache.path(), "snapshots/main/pytorch_model.bin", "");
        let fetched = fetch_from("some/model", cache.path(), true).unwrap();
        assert!(fetched.weights.ends_with("snapshots/main/pytorch_model.bin"));
        assert_eq!(fetched.revision, "main");
    }

    #[test]
    fn a_cached_revision_needs_no_network() {
        let cache = tempfile::tempdir().unwrap();
        put(cache.path(), "refs/main", "abc123\n");
        put(cache.path(), "snapshots/main/model.safetensors", "");
        put(cache.path(), "snapshots/abc123/pytorch_model.bin", "");
        put(cache.path(), "snapshots/abc123/model.safetensors", "");
        put(cache.path(), "snapshots/abc123/config.json", "{}");
        for offline in [true, false] {
            let fetched = fetch_from("some/model", cache.path(), offline).unwrap();
            assert!(fetched.weights.ends_with("snapshots/abc123/model.safetensors"));
            assert_eq!(fetched.revision, "abc123");
        }
    }
}
