//! What goes wrong on a cluster, and what becomes of the work.

use std::time::Duration;

use crate::fixture::{bytes, expect};
use crate::processes::Cluster;
use crate::same_bits::{Line, assert_same, records};

/// What a signal is sent in.
fn stages(line: &Line) -> Vec<(&'static str, Vec<String>)> {
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let (train, val, small) = (line.place("train"), line.place("val"), line.place("small"));
    let (pca, out) = (line.file("pca.safetensors"), line.file("runs"));
    let probe = [
        "probe",
        "--cache-train",
        &small,
        "--cache-val",
        &val,
        "--out",
        &out,
        "--probe",
        "linear,cluster",
        "--seeds",
        "0,1,2,3,4,5,6,7,8,9",
        "--steps",
        "400",
        "--batch-size",
        "8",
    ];
    let probe = probe.map(|word| if word == small { &train } else { word });
    vec![
        ("extract", owned(&line.extract("train", &train))),
        ("moments", owned(&["reduce", "pca", "--cache", &train, "--out", &pca])),
        ("project", owned(&["cache", "project", &train, "--reducer", &pca, "--dims", "6", "--out", &small])),
        ("probes", owned(&probe)),
    ]
}

fn in_every_stage(signal: &str, after: impl Fn(&mut Cluster, &str)) {
    let mut cluster = Cluster::start(4);
    let (one, many) = (Line::new(&cluster.scratch, "one"), Line::new(&cluster.scratch, "many"));
    for line in [&one, &many] {
        cluster.run(&line.extract("val", &line.place("val")), true);
    }
    for (_, words) in stages(&one) {
        cluster.run(&words.iter().map(String::as_str).collect::<Vec<_>>(), true);
    }
    // Units must last long enough to be caught at.
    cluster.s3.slow_down(Duration::from_millis(120));
    for (stage, words) in stages(&many) {
        let driver = cluster.begin(&words.iter().map(String::as_str).collect::<Vec<_>>());
        // Of caches, once some of the shards are there: not in the first unit, which only begins them.
        let file = match stage {
            "extract" => Some("many/train/shard-00001.parquet"),
            "project" => Some("many/small/shard-00001.parquet"),
            _ => None,
        };
        let name = cluster.signal_one_at_work(signal, file);
        let said = driver.end(0, &cluster);
        println!("{stage}: {signal} to {name}; {}", said.lines().last().unwrap_or_default());
        after(&mut cluster, &name);
    }
    cluster.s3.slow_down(Duration::ZERO);
    assert_same(&cluster, &one, &many, &["train", "small"]);
    let here = cluster.scratch.path("");
    assert!(bytes(&here, "one-pca.safetensors") == bytes(&here, "many-pca.safetensors"));
    assert!(records(&here.join("one-runs")) == records(&here.join("many-runs")));
}

#[test]
fn an_executor_killed_in_any_stage_changes_no_bit() {
    in_every_stage("KILL", |cluster, _| cluster.start_executor());
}

#[test]
fn an_executor_that_hangs_longer_than_the_heartbeat_changes_no_bit() {
    in_every_stage("STOP", |cluster, name| {
        // It wakes up with a unit that others have done since.
        cluster.signal(name, "CONT");
        std::thread::sleep(Duration::from_secs(1));
    });
}

#[test]
fn a_scheduler_that_starts_again_gets_the_rest_of_the_job() {
    let mut cluster = Cluster::start(2);
    let (one, many) = (Line::new(&cluster.scratch, "one"), Line::new(&cluster.scratch, "many"));
    cluster.run(&one.extract("train", &one.place("train")), true);
    cluster.s3.slow_down(Duration::from_millis(120));
    let place = many.place("train");
    let driver = cluster.begin(&many.extract("train", &place));
    let shard = cluster.object("many/train/shard-00002.parquet");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !shard.exists() {
        assert!(std::time::Instant::now() < deadline, "{}", cluster.logs());
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.stop_scheduler();
    std::thread::sleep(Duration::from_secs(2));
    cluster.start_scheduler();
    let said = driver.end(0, &cluster);
    assert!(said.contains("waiting for the scheduler"), "{said}");
    assert_same(&cluster, &one, &many, &["train"]);
}

#[test]
fn an_interrupted_driver_cancels_its_job_and_leaves_what_is_done() {
    let cluster = Cluster::start(1);
    let line = Line::new(&cluster.scratch, "many");
    cluster.s3.slow_down(Duration::from_millis(150));
    let place = line.place("train");
    let mut command = cluster.featlab();
    command.args(line.extract("train", &place)).args(["--cluster", &cluster.url()]);
    let status =
        crate::fixture::signalled(&mut command, "INT", &cluster.object("many/train/shard-00000.parquet"));
    assert_eq!(status.code(), Some(130));
    cluster.s3.slow_down(Duration::ZERO);
    cluster.wait(|status| status["jobs"].as_array().unwrap().is_empty());
    let (said, _) = cluster.run(&line.extract("train", &place), false);
    let computed =
        said.split("computed ").nth(1).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!(computed < 150, "what was there is kept: {said}");
}

#[test]
fn what_a_user_must_change_is_said_once_and_clearly() {
    let cluster = Cluster::start(1);
    let ask = |words: &[&str], code: i32| {
        let mut command = cluster.featlab();
        command.args(words).args(["--cluster", &cluster.url()]);
        expect(&mut command, code).1
    };
    // A data set that executors do not find, a cache that is something else, a command that is for one machine.
    let said = ask(
        &["extract", "--dataset", "folder:nowhere", "--backbone", crate::fixture::BACKBONE, "--out", "x"],
        2,
    );
    assert!(said.contains("nowhere"), "{said}");
    let line = Line::new(&cluster.scratch, "many");
    let place = line.place("val");
    cluster.run(&line.extract("val", &place), false);
    let said = ask(&line.extract("train", &place), 4);
    assert!(said.contains("split"), "{said}");
    assert!(ask(&["doctor"], 2).contains("--cluster goes with"));
    // A shard that is damaged: verify finds it, moments refuse it.
    let shard = cluster.object("many/val/shard-00000.parquet");
    let mut contents = std::fs::read(&shard).unwrap();
    contents[300] ^= 1;
    std::fs::write(&shard, contents).unwrap();
    assert!(ask(&["cache", "verify", &place], 4).contains("shard-00000"));
    let said = ask(&["reduce", "pca", "--cache", &place, "--out", "bad.safetensors"], 4);
    assert!(said.contains("shard-00000"), "{said}");
    // Nobody there.
    let mut command = cluster.featlab();
    command.args(["cache", "verify", &place, "--cluster", "http://127.0.0.1:9"]);
    assert!(expect(&mut command, 1).1.contains("no scheduler answers at http://127.0.0.1:9"));
}

#[test]
fn an_executor_without_room_for_results_ends_in_an_error_that_says_so() {
    let mut cluster = Cluster::start(0);
    // A file where the folder of results should be: nothing can be written, as on a full disk.
    let scratch = cluster.scratch.path("full");
    std::fs::create_dir_all(&scratch).unwrap();
    cluster.start_executor_in(&scratch);
    cluster.wait(|status| status["executors"].as_array().unwrap().len() == 1);
    let results = scratch.join("results");
    std::fs::remove_dir_all(&results).unwrap();
    std::fs::write(&results, "in the way").unwrap();
    let line = Line::new(&cluster.scratch, "many");
    let place = line.place("val");
    let said = cluster.begin(&line.extract("val", &place)).end(1, &cluster);
    assert!(said.contains("the cluster gave the job up 4 times"), "{said}");
    std::fs::remove_file(&results).unwrap();
    cluster.run(&line.extract("val", &place), false);
}
