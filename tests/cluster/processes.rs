//! The processes of a cluster, and work on it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loopback::S3;

use crate::fixture::{Scratch, expect, featlab};

/// Longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster with its store. Processes end with it.
pub(crate) struct Cluster {
    pub(crate) scratch: Scratch,
    pub(crate) s3: S3,
    address: String,
    scheduler: Option<Child>,
    executors: Vec<(String, Child)>,
    started: usize,
}

impl Cluster {
    pub(crate) fn start(executors: usize) -> Self {
        let scratch = Scratch::new();
        std::fs::create_dir_all(scratch.path("s3/bucket")).unwrap();
        let s3 = S3::start(&scratch.path("s3")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut cluster = Self { scratch, s3, address, scheduler: None, executors: Vec::new(), started: 0 };
        cluster.start_scheduler();
        (0..executors).for_each(|_| cluster.start_executor());
        cluster.wait(|status| status["executors"].as_array().unwrap().len() == executors);
        cluster
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The program in the environment of this cluster's store.
    pub(crate) fn featlab(&self) -> Command {
        let mut command = featlab();
        command.envs(self.s3.environment()).current_dir(self.scratch.path(""));
        command
    }

    /// A command on one machine, or on the cluster.
    pub(crate) fn run(&self, words: &[&str], here: bool) -> (String, String) {
        let mut command = self.featlab();
        command.args(words);
        if !here {
            command.args(["--cluster", &self.url()]);
        }
        expect(&mut command, 0)
    }

    pub(crate) fn start_scheduler(&mut self) {
        let mut command = self.featlab();
        command.args(["cluster", "scheduler", "--executor-timeout", "8", "--bind", &self.address]);
        self.scheduler = Some(spawn(&mut command, &self.scratch.path("scheduler.log")));
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(&self.address).is_err() {
            assert!(Instant::now() < deadline, "the scheduler does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn stop_scheduler(&mut self) {
        let mut scheduler = self.scheduler.take().unwrap();
        scheduler.kill().unwrap();
        scheduler.wait().unwrap();
    }

    pub(crate) fn start_executor(&mut self) {
        self.start_executor_in(&self.scratch.path(&format!("scratch-{}", self.started)));
    }

    /// An executor with a scratch folder.
    pub(crate) fn start_executor_in(&mut self, scratch: &Path) {
        self.start_executor_with(&["--scratch", scratch.to_str().unwrap()]);
    }

    /// An executor with further options.
    pub(crate) fn start_executor_with(&mut self, words: &[&str]) {
        let name = format!("e{}", self.started);
        self.started += 1;
        let mut command = self.featlab();
        command.args(["cluster", "executor", "--scheduler", &self.url(), "--name", &name]).args(words);
        command.env("RAYON_NUM_THREADS", "1");
        let child = spawn(&mut command, &self.scratch.path(&format!("{name}.log")));
        self.executors.push((name, child));
    }

    /// What the cluster says of itself.
    pub(crate) fn status(&self) -> serde_json::Value {
        let output = self.featlab().args(["cluster", "status", "--json", &self.url()]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    pub(crate) fn wait(&self, until: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if !status.is_null() && until(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "the cluster does not get there: {status}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// What the processes said.
    pub(crate) fn logs(&self) -> String {
        let names = self.executors.iter().map(|(name, _)| name.as_str()).chain(["scheduler"]);
        names
            .map(|name| {
                let log = self.scratch.path(&format!("{name}.log"));
                format!("--- {name}\n{}\n", std::fs::read_to_string(log).unwrap_or_default())
            })
            .collect()
    }

    /// Waits until a file of the store is there, if one is named, and an executor at work, and sends that a signal; its name.
    pub(crate) fn signal_one_at_work(&mut self, signal: &str, after: Option<&str>) -> String {
        let deadline = Instant::now() + PATIENCE;
        while after.is_some_and(|file| !self.object(file).exists()) {
            assert!(Instant::now() < deadline, "{after:?} does not appear\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = self.wait(|status| {
            status["executors"].as_array().unwrap().iter().any(|executor| executor["running"] != 0)
        });
        let executors = status["executors"].as_array().unwrap();
        let busy = executors.iter().find(|executor| executor["running"] != 0).unwrap();
        let name = busy["name"].as_str().unwrap().to_owned();
        self.signal(&name, signal);
        name
    }

    pub(crate) fn signal(&mut self, name: &str, signal: &str) {
        let (_, child) = self.executors.iter_mut().find(|(other, _)| other == name).unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        if signal == "KILL" {
            child.wait().unwrap();
        }
    }

    /// A command on the cluster, in the background.
    pub(crate) fn begin(&self, words: &[&str]) -> Driver {
        let mut command = self.featlab();
        command.args(words).args(["--cluster", &self.url()]);
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let log = self.scratch.path(&format!("driver-{number}.log"));
        Driver { words: words.join(" "), child: spawn(&mut command, &log), log }
    }

    /// Where an object of the store lies on this disk.
    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.scratch.path("s3/bucket").join(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.executors.iter_mut().map(|(_, child)| child).chain(self.scheduler.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command at work.
pub(crate) struct Driver {
    words: String,
    child: Child,
    log: PathBuf,
}

impl Driver {
    /// Waits for its end; what it said.
    pub(crate) fn end(mut self, code: i32, cluster: &Cluster) -> String {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("{} does not end: {}\n{}", self.words, cluster.status(), cluster.logs());
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let said = std::fs::read_to_string(&self.log).unwrap();
        assert_eq!(status.code(), Some(code), "{}\n{said}\n{}", self.words, cluster.logs());
        said
    }
}

fn spawn(command: &mut Command, log: &Path) -> Child {
    let file = std::fs::File::create(log).unwrap();
    let both = file.try_clone().unwrap();
    command.stdin(Stdio::null()).stdout(file).stderr(both).spawn().unwrap()
}
