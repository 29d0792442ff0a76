//! Caches in a bucket: the same bytes and the same numbers as on a disk, from a server that speaks S3.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use loopback::S3;

use crate::fixture::{Scratch, expect, extract, featlab, shards, sweep_file};

/// A server with one bucket, whose objects are the files of a folder.
struct Server {
    s3: S3,
    bucket: PathBuf,
}

impl Server {
    fn new(scratch: &Scratch) -> Self {
        let bucket = scratch.path("s3/bucket");
        fs::create_dir_all(&bucket).unwrap();
        Self { s3: S3::start(&scratch.path("s3")).unwrap(), bucket }
    }

    /// The command with what it needs to find the server.
    fn with<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.s3.environment())
    }
}

/// All columns of the results but the time.
fn results(out: &Path) -> Vec<String> {
    let csv = fs::read_to_string(out.join("results.csv")).unwrap();
    csv.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect()
}

#[test]
fn a_cache_in_a_bucket_is_that_on_disk_to_the_byte() {
    let scratch = Scratch::new();
    let server = Server::new(&scratch);
    let dataset = format!("camvid:{}", scratch.camvid(6, 2).display());
    let local = scratch.path("local");
    let url = Path::new("s3://bucket/features/small");
    expect(extract(&dataset, &local).args(["--shard-rows", "2"]), 0);
    expect(server.with(extract(&dataset, url).args(["--shard-rows", "2"])), 0);
    assert_eq!(shards(&server.bucket.join("features/small")), shards(&local));
    assert_eq!(shards(&local).len(), 4);

    let (stdout, _) = expect(server.with(extract(&dataset, url).args(["--shard-rows", "2"])), 0);
    assert!(stdout.contains("nothing to compute"), "{stdout}");
    let cache = |words: &[&str]| {
        let mut command = featlab();
        command.arg("cache").args(words);
        command
    };
    let (listed, _) = expect(server.with(&mut cache(&["ls", "s3://bucket"])), 0);
    assert!(listed.contains("features/small"), "{listed}");
    expect(server.with(&mut cache(&["verify", "s3://bucket/features/small"])), 0);
    let shard = server.bucket.join("features/small/shard-00001.parquet");
    let mut bytes = fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&shard, bytes).unwrap();
    let (stdout, stderr) = expect(server.with(&mut cache(&["verify", "s3://bucket/features/small"])), 4);
    assert!((stdout + &stderr).contains("shard-00001"));

    // The same extraction with --repair computes that shard again, and nothing else.
    let repair = ["--shard-rows", "2", "--repair"];
    let (stdout, _) = expect(server.with(extract(&dataset, url).args(repair)), 0);
    assert!(stdout.contains("computed 2 images"), "{stdout}");
    assert_eq!(shards(&server.bucket.join("features/small")), shards(&local));
    expect(server.with(&mut cache(&["verify", "s3://bucket/features/small"])), 0);
    let (stdout, _) = expect(server.with(extract(&dataset, url).args(repair)), 0);
    assert!(stdout.contains("nothing to compute"), "{stdout}");
    fs::write(server.bucket.join("features/small/shard-00007.parquet"), "x").unwrap();
    let (stdout, _) = expect(server.with(&mut cache(&["gc", "s3://bucket", "--dry-run"])), 0);
    assert!(stdout.contains("shard-00007.parquet") && stdout.contains("1 files"), "{stdout}");
    expect(server.with(&mut cache(&["gc", "s3://bucket"])), 0);
    assert_eq!(shards(&server.bucket.join("features/small")), shards(&local));
}

#[test]
fn a_sweep_over_caches_in_a_bucket_gives_the_same_numbers() {
    let scratch = Scratch::new();
    let server = Server::new(&scratch);
    let file = sweep_file(&scratch, &scratch.camvid(6, 3));
    let run = |out: &str, cache: &[&str]| {
        let mut command = featlab();
        command.arg("sweep").arg(&file).arg("--out").arg(scratch.path(out)).args(cache);
        expect(server.with(&mut command), 0);
        results(&scratch.path(out))
    };
    let local = run("local", &[]);
    let remote = ["--set", "how.cache=s3://bucket/caches"];
    assert_eq!(run("cold", &remote), local);
    let objects = shards(&server.bucket);
    assert_eq!(run("warm", &remote), local);
    assert_eq!(shards(&server.bucket), objects, "the caches were there");
    assert!(!scratch.path("cold/features").exists());
}

#[test]
fn a_killed_extraction_goes_on_in_the_bucket() {
    let scratch = Scratch::new();
    let server = Server::new(&scratch);
    let dataset = format!("camvid:{}", scratch.camvid(24, 1).display());
    let (local, url) = (scratch.path("local"), Path::new("s3://bucket/x"));
    let split = ["--split", "train", "--shard-rows", "1"];
    expect(extract(&dataset, &local).args(split), 0);
    let mut command = extract(&dataset, url);
    server.with(command.args(split)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let first = server.bucket.join("x/shard-00000.parquet");
    while !first.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    let killed = !child.wait().unwrap().success();
    let left = shards(&server.bucket).len();
    assert!(killed && (1..24).contains(&left), "{left} shards when it was killed");
    expect(server.with(extract(&dataset, url).args(split)), 0);
    assert_eq!(shards(&server.bucket.join("x")), shards(&local));
}

#[test]
fn a_bucket_that_is_not_ours_is_one_clear_line() {
    let scratch = Scratch::new();
    let server = Server::new(&scratch);
    let dataset = format!("camvid:{}", scratch.camvid(1, 1).display());
    let line = |stderr: &str| {
        let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{stderr}");
        errors[0].to_owned()
    };
    let mut stranger = extract(&dataset, Path::new("s3://bucket/x"));
    server.with(&mut stranger).env("AWS_SECRET_ACCESS_KEY", "another-secret");
    let (_, stderr) = expect(&mut stranger, 1);
    assert!(line(&stderr).contains("s3://bucket/x") && !stderr.contains("another-secret"), "{stderr}");
    assert!(line(&stderr).contains("check AWS_ACCESS_KEY_ID"), "{stderr}");
    let (_, stderr) = expect(&mut extract(&dataset, Path::new("s3://me:secret@bucket/x")), 2);
    assert!(line(&stderr).contains("environment") && !stderr.contains("secret@"), "{stderr}");
}
