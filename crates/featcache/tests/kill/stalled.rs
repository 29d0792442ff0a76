//! A writer that stalls at any of its operations while another one does everything: it wakes up, and nothing has gone wrong for it.

use std::sync::{Arc, Barrier};
use std::time::Instant;

use featcache::{Form, Store};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::bulk::took;
use crate::faulty::{Faulty, Script};
use crate::work::{Job, Work, is_reference, reference};

#[test]
fn a_writer_that_stalls_at_any_operation_ends_well() {
    let (_, expected) = reference(Form::Binary);
    let (begun, mut cases, mut failed) = (Instant::now(), 0, Vec::new());
    for parts in [usize::MAX, 3000] {
        for k in 1.. {
            let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let barrier = Arc::new(Barrier::new(2));
            let script = Arc::new(Script::stalling(k, barrier.clone()));
            let faulty = Arc::new(Faulty { inner: inner.clone(), script: script.clone() });
            let slow = Store::from_object_store(faulty, Path::default(), "slow").with_part_bytes(parts);
            let store = Store::from_object_store(inner, Path::default(), "quick");
            let ended = std::thread::scope(|scope| {
                let stalled = scope.spawn(|| {
                    let ended = Job::new(Form::Binary, Work::Fill).run(&slow);
                    if !script.struck() {
                        barrier.wait();
                        barrier.wait();
                    }
                    ended
                });
                barrier.wait();
                Job::new(Form::Binary, Work::Fill).run(&store).unwrap();
                barrier.wait();
                stalled.join().unwrap()
            });
            let operations = script.operations();
            if let Err(error) = ended {
                failed.push(format!("parts of {parts}, stalled at {k} ({}): {error}", operations[k - 1]));
            }
            is_reference(&store, &expected, &format!("parts of {parts}, stalled at {k}"));
            if !script.struck() {
                break;
            }
            cases += 1;
        }
    }
    println!(
        "memory: {cases} writers stalled while another one did everything: the same files each time; {}",
        took(begun)
    );
    assert!(failed.is_empty(), "{} of them failed: {failed:#?}", failed.len());
}
