//! An upload in parts to an S3 server, which wants 5 MiB of each but the last: stopped at every operation.

use std::sync::Arc;
use std::time::Instant;

use featcache::Store;
use object_store::path::Path;

use crate::bulk::{Bulk, took};
use crate::faulty::{Fault, Faulty, Script, Then};
use crate::fixture::Bucket;
use crate::work::is_reference;

const PART_BYTES: usize = 5 << 20;

#[test]
fn s3_at_every_operation_of_an_upload_in_parts() {
    let bulk = Bulk { shards: 1, side: 96 };
    let (bucket, expected) = (Bucket::new(), bulk.reference());
    let client = bucket.client();
    let (begun, mut cases, mut seen, mut left) = (Instant::now(), 0, Vec::new(), 0);
    let then = Then::Dies;
    for fault in [Fault::Before, Fault::After, Fault::Half] {
        for k in 1.. {
            let prefix = Path::from(format!("{fault:?}-{then:?}-{k}"));
            let script = Arc::new(Script::new(k, fault, then));
            let faulty = Arc::new(Faulty { inner: client.clone(), script: script.clone() });
            let store =
                |inner| Store::from_object_store(inner, prefix.clone(), "bulk").with_part_bytes(PART_BYTES);
            let first = bulk.fill(&store(faulty), &mut || ());
            if !script.struck() {
                first.unwrap();
                seen = script.operations();
                break;
            }
            let case = format!("{fault:?} {then:?} at {k} ({})", script.operations()[k - 1]);
            let survivor = store(client.clone());
            left += survivor.leftovers().unwrap().len();
            // A plan or a manifest that was cut is for those to repair who know; here are whole ones.
            if let Err(error) = bulk.fill(&survivor, &mut || ()) {
                assert!(error.is_integrity() && fault == Fault::Half, "{case}: {error}");
                for name in ["plan.json", "manifest.json"] {
                    survivor.delete(name).unwrap();
                }
                bulk.fill(&survivor, &mut || ()).unwrap();
            }
            is_reference(&survivor, &expected, &case);
            cases += 1;
        }
    }
    assert!(seen.contains(&"put part") && seen.contains(&"copy"), "{seen:?}");
    println!(
        "S3: stopped at each of the {} operations of a shard in two parts, {cases} cases: the same files each time; {left} \
         unfinished uploads found; {}",
        seen.len(),
        took(begun)
    );
}
