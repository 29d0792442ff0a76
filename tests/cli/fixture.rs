//! What the tests share: a scratch folder, a small labelled data set in CamVid's layout, and the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use image::{GrayImage, Luma, Rgb, RgbImage};
use tempfile::TempDir;

/// A micro ViT with seeded random weights: patch 8, 192 dimensions.
pub(crate) const BACKBONE: &str = "random:vit_micro_patch8:0";

/// A scratch folder that goes away with the test.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A CamVid-like folder with `train` and `val` pictures of 64 × 48 pixels and 11 classes.
    pub(crate) fn camvid(&self, train: usize, val: usize) -> PathBuf {
        let root = self.path("CamVid");
        for (split, count) in [("train", train), ("val", val)] {
            for i in 0..count {
                write_pair(&root, split, &format!("frame_{i:02}"), i as u32);
            }
        }
        root
    }
}

/// One picture of coloured stripes and blobs with its label map.
pub(crate) fn write_pair(root: &Path, split: &str, stem: &str, seed: u32) {
    let class = |x: u32, y: u32| ((x / 8 + y / 12 + seed * (y / 24 + 1)) % 12) as u8; // 11 is void
    let image = RgbImage::from_fn(64, 48, |x, y| {
        let c = u32::from(class(x, y));
        let grain = (x * 7919 + y * 104_729 + seed * 31) % 23;
        Rgb([(c * 20 + grain) as u8, (255 - c * 18 - grain) as u8, ((c * c * 2 + grain * 3) % 256) as u8])
    });
    let label = GrayImage::from_fn(64, 48, |x, y| Luma([class(x, y)]));
    for (kind, picture) in [("images", image::DynamicImage::from(image)), ("labels", label.into())] {
        let folder = root.join(kind).join(split);
        std::fs::create_dir_all(&folder).expect("a folder");
        picture.save(folder.join(format!("{stem}.png"))).expect("a picture");
    }
}

/// The binary, with nothing of the caller's environment that could change what it does.
pub(crate) fn featlab() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_featlab"));
    for name in ["RAYON_NUM_THREADS", "SLURM_ARRAY_TASK_ID", "HF_HOME", "HF_TOKEN"] {
        command.env_remove(name);
    }
    for name in std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("XDG_CACHE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/caches"));
    command.env("HF_HUB_OFFLINE", "1").env("NO_COLOR", "1");
    command
}

/// Runs to the end; on an unexpected exit code the test fails with everything that was printed.
pub(crate) fn expect(command: &mut Command, code: i32) -> (String, String) {
    let output: Output = command.output().expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{command:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
    (stdout, stderr)
}

/// Starts a command and sends it a signal (`INT`, `TERM`, `KILL`) once `file` is there, or after a minute; how it ended.
pub(crate) fn signalled(command: &mut Command, signal: &str, file: &Path) -> ExitStatus {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !file.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
    let status = child.wait().expect("it ends");
    assert!(kill.expect("kill runs").success(), "it ended before {signal} was sent: {status}");
    status
}

/// A file of a folder.
pub(crate) fn bytes(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// `featlab extract` of a data set at 32 px into `out`.
pub(crate) fn extract(dataset: &str, out: &Path) -> Command {
    let mut command = featlab();
    command.args(["extract", "--dataset", dataset, "--backbone", BACKBONE, "--res", "32", "--out"]).arg(out);
    command
}

/// `featlab probe` on two caches into `out`.
pub(crate) fn probe(train: &Path, val: &Path, out: &Path) -> Command {
    let mut command = featlab();
    command.arg("probe").arg("--cache-train").arg(train).arg("--cache-val").arg(val).arg("--out").arg(out);
    command
}

/// A sweep file over a small CamVid-like folder: 3 methods, 2 probes, few steps.
pub(crate) fn sweep_file(scratch: &Scratch, root: &Path) -> PathBuf {
    let text = format!(
        "name = 'small'\n[dataset]\nname = 'camvid'\nroot = '{}'\n[features]\nbackbone = '{BACKBONE}'\n\
         train_res = 32\nval_res = 48\n[reduce]\ndims = [3, 12, 'full']\n[probe]\nsteps = 20\nbatch_size = 4\n\
         [eval]\nbootstrap = 50\ngallery = 2\n[how]\nshard_rows = 2\n",
        root.display()
    );
    let file = scratch.path("sweep.toml");
    std::fs::write(&file, text).expect("a sweep file");
    file
}

/// All Parquet shards below a folder, by relative path, with their bytes.
pub(crate) fn shards(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "parquet") {
                let name = path.strip_prefix(folder).expect("below").to_path_buf();
                found.push((name, std::fs::read(&path).expect("a file")));
            }
        }
    }
    found.sort();
    found
}
