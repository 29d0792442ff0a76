//! Units on a real scheduler and real executors in this process, with a worker that can be told to fail.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use featlab_cluster::{
    Driver, DriverOptions, Error, ExecutorOptions, Report, SchedulerOptions, Status, UnitFailure, Units,
    Watch, Worker, run_executor, run_scheduler,
};

/// Squares its units; what else it does, the job says.
#[derive(Debug, Default)]
struct Squares {
    tries: Mutex<HashMap<u64, u32>>,
    /// Cuts the line to the scheduler.
    cut: Arc<AtomicBool>,
}

impl Worker for Squares {
    fn run(&self, job: &str, unit: u64) -> Result<Vec<u8>, UnitFailure> {
        let tries = *self.tries.lock().unwrap().entry(unit).and_modify(|n| *n += 1).or_insert(1);
        let fail = |again| UnitFailure { message: format!("try {tries} of {unit}"), code: 2, again };
        match job {
            "sound" => Ok((unit * unit).to_le_bytes().to_vec()),
            "large" => Ok(vec![unit as u8; 40 << 20]),
            "passes the second time" if unit == 3 && tries == 1 => Err(fail(true)),
            "passes the second time" => Ok((unit * unit).to_le_bytes().to_vec()),
            "never passes" if unit == 3 => Err(fail(true)),
            "is wrong" if unit == 3 => Err(fail(false)),
            "panics" if unit == 3 => panic!("a bug"),
            "is cut off" => {
                self.cut.store(unit == 3 && tries == 1, Ordering::Relaxed);
                Ok((unit * unit).to_le_bytes().to_vec())
            }
            "is slow" => {
                std::thread::sleep(Duration::from_millis(300));
                Ok(Vec::new())
            }
            _ => Ok(Vec::new()),
        }
    }
}

#[derive(Default)]
struct Notes {
    said: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Watch for Notes {
    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn note(&self, line: String) {
        self.said.lock().unwrap().push(line);
    }

    fn progress(&self, _: usize, _: Option<&Status>) {}
}

/// A line to a scheduler. When it is to be cut, what the engine's client sends is swallowed for a moment, and its connection closed.
struct Line {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Line {
    fn to(url: &str) -> Self {
        let target = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Self { address: listener.local_addr().unwrap(), cut: Arc::default() };
        let cut = line.cut.clone();
        // The process ends before these threads do.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&target));
                let Ok(server) = server else { continue };
                let (mut back, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut back, &mut to));
                let cut = cut.clone();
                std::thread::spawn(move || Self::carry(client, server, &cut));
            }
        });
        line
    }

    fn carry(mut client: TcpStream, mut server: TcpStream, cut: &AtomicBool) {
        let (mut bytes, mut is_engine) = ([0; 1 << 16], None);
        while let Ok(count @ 1..) = client.read(&mut bytes) {
            let is_engine = *is_engine.get_or_insert(bytes.starts_with(b"PRI * HTTP/2"));
            if is_engine && cut.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(300));
                cut.store(false, Ordering::Relaxed);
                break;
            }
            if server.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }
}

/// Servers that stop with it.
struct Cluster {
    url: String,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<(), Error>>>,
    scratch: PathBuf,
}

impl Cluster {
    fn start(token: Option<&str>, versions: &[&str]) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let scratch = std::env::temp_dir().join(format!("featlab-units-{}-{number}", std::process::id()));
        let stop = Arc::new(AtomicBool::new(false));
        let (here, there) = mpsc::channel();
        let options = SchedulerOptions {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: token.map(str::to_owned),
            executor_timeout: Duration::from_secs(6),
            version: "1".into(),
        };
        let until = stop.clone();
        let scheduler = std::thread::spawn(move || {
            run_scheduler(
                options,
                move |address| here.send(address).unwrap(),
                move || until.load(Ordering::Relaxed),
            )
        });
        let url = format!("http://{}", there.recv_timeout(Duration::from_secs(20)).unwrap());
        let mut cluster = Self { url, stop, threads: vec![scheduler], scratch };
        let line = Line { address: cluster.url["http://".len()..].parse().unwrap(), cut: Arc::default() };
        versions.iter().enumerate().for_each(|(i, version)| cluster.executor(i, token, version, &line));
        cluster
    }

    fn executor(&mut self, i: usize, token: Option<&str>, version: &str, line: &Line) {
        let options = ExecutorOptions {
            name: format!("e{i}"),
            scheduler: format!("http://{}", line.address),
            patience: Duration::from_secs(20),
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            slots: 1,
            scratch: self.scratch.join(i.to_string()),
            token: token.map(str::to_owned),
            version: version.to_owned(),
        };
        let (here, there) = mpsc::channel();
        let until = self.stop.clone();
        let worker = Arc::new(Squares { cut: line.cut.clone(), ..Squares::default() });
        self.threads.push(std::thread::spawn(move || {
            run_executor(
                options,
                worker,
                move |_| here.send(()).unwrap(),
                move || until.load(Ordering::Relaxed),
            )
        }));
        there.recv_timeout(Duration::from_secs(20)).unwrap();
    }

    /// Reports by unit.
    fn run(driver: &Driver, job: &str, units: &[u64], notes: &Notes) -> Result<BTreeMap<u64, Report>, Error> {
        let mut reports = BTreeMap::new();
        driver.run(&Units { job, units }, notes, |report| {
            assert!(reports.insert(report.unit, report).is_none(), "a report is handed on once");
            Ok::<_, Error>(())
        })?;
        Ok(reports)
    }

    fn driver(&self, token: Option<&str>, version: &str) -> Result<Driver, Error> {
        let options = DriverOptions {
            token: token.map(str::to_owned),
            version: version.into(),
            attempts: 3,
            patience: Duration::from_secs(5),
            handover: Duration::from_secs(4),
        };
        Driver::connect(&self.url, options, Duration::from_secs(5))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join().unwrap();
            assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
        }
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

#[test]
fn reports_come_back_by_unit_from_all_executors() {
    let cluster = Cluster::start(None, &["1", "1"]);
    let driver = cluster.driver(None, "1").unwrap();
    let units: Vec<u64> = (0..40).rev().collect();
    let reports = Cluster::run(&driver, "sound", &units, &Notes::default()).unwrap();
    assert!(reports.keys().copied().eq(0..40));
    for (unit, report) in &reports {
        assert_eq!(report.payload, (unit * unit).to_le_bytes());
    }
    let names: std::collections::BTreeSet<_> = reports.values().map(|report| &report.executor).collect();
    assert_eq!(names.len(), 2);
    assert_eq!(driver.status().unwrap().executors.len(), 2);
    assert!(Cluster::run(&driver, "sound", &[], &Notes::default()).unwrap().is_empty());
    // Moments of wide features are larger than the engine's messages usually may be.
    let reports = Cluster::run(&driver, "large", &[1, 2], &Notes::default()).unwrap();
    assert!(reports[&2].payload.len() == 40 << 20 && reports[&2].payload.iter().all(|&byte| byte == 2));
}

#[test]
fn failures_are_repeated_where_that_may_help_and_reported() {
    let cluster = Cluster::start(None, &["1"]);
    let driver = cluster.driver(None, "1").unwrap();
    let run = |job: &str| {
        let notes = Notes::default();
        let units: Vec<u64> = (0..6).collect();
        let done = Cluster::run(&driver, job, &units, &notes);
        (done, notes.said.into_inner().unwrap())
    };
    let (done, said) = run("passes the second time");
    assert_eq!(done.unwrap().len(), 6);
    assert!(
        said.len() == 1 && said[0].contains("unit 3 failed on e0") && said[0].contains("try 1 of 3"),
        "{said:?}"
    );
    let (done, said) = run("never passes");
    let error = done.unwrap_err();
    assert!(matches!(error, Error::Unit { unit: 3, attempts: 3, code: 2, .. }), "{error}");
    assert!(error.to_string().contains("tried 3 times") && said.len() == 2, "{error} {said:?}");
    let (done, said) = run("is wrong");
    assert!(matches!(done, Err(Error::Unit { unit: 3, attempts: 1, .. })) && said.is_empty());
    let (done, _) = run("panics");
    assert!(done.unwrap_err().to_string().contains("a panic: a bug"));
}

#[test]
fn a_task_that_is_lost_with_its_connection_is_given_out_again() {
    let mut cluster = Cluster::start(None, &[]);
    let line = Line::to(&cluster.url);
    cluster.executor(0, None, "1", &line);
    let driver = cluster.driver(None, "1").unwrap();
    let (units, notes) = ((0..6).collect::<Vec<u64>>(), Notes::default());
    let reports = Cluster::run(&driver, "is cut off", &units, &notes).unwrap();
    assert!(reports.iter().all(|(unit, report)| report.payload == (unit * unit).to_le_bytes()));
    assert_eq!(reports.len(), 6);
    let said = notes.said.into_inner().unwrap();
    assert!(said.len() == 1 && said[0].contains("6 units are given out again: a message"), "{said:?}");
}

#[test]
fn other_versions_are_refused() {
    let cluster = Cluster::start(None, &["2"]);
    let error = cluster.driver(None, "3").unwrap_err();
    assert!(matches!(&error, Error::Version { ours, theirs, .. } if ours == "3" && theirs == "1"), "{error}");
    let driver = cluster.driver(None, "1").unwrap();
    let error = Cluster::run(&driver, "sound", &[1], &Notes::default()).unwrap_err();
    assert!(
        matches!(&error, Error::Version { peer, theirs, .. } if peer == "executor e0" && theirs == "2"),
        "{error}"
    );
}

#[test]
fn only_who_has_the_token_is_answered() {
    let cluster = Cluster::start(Some("secret"), &["1"]);
    for wrong in [None, Some("other")] {
        assert!(matches!(cluster.driver(wrong, "1"), Err(Error::Token { .. })), "{wrong:?}");
    }
    let driver = cluster.driver(Some("secret"), "1").unwrap();
    let reports = Cluster::run(&driver, "sound", &[5], &Notes::default()).unwrap();
    assert_eq!(reports[&5].payload, 25u64.to_le_bytes());
}

#[test]
fn a_cancelled_job_stops() {
    let cluster = Cluster::start(None, &["1"]);
    let driver = cluster.driver(None, "1").unwrap();
    let notes = Notes::default();
    notes.stop.store(true, Ordering::Relaxed);
    let units: Vec<u64> = (0..50).collect();
    let error = Cluster::run(&driver, "is slow", &units, &notes).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !driver.status().unwrap().jobs.is_empty() {
        assert!(std::time::Instant::now() < deadline, "{:?}", driver.status());
        std::thread::sleep(Duration::from_millis(100));
    }
}
