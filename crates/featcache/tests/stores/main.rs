//! One behaviour on every store: a folder, memory, and the three vendors' protocols, spoken by servers on this machine.
//!
//! S3 and Google's are our own (`loopback`) and keep their objects on disk; Azure's is Azurite, where it is found (see
//! `azurite.rs`). What differs between stores is named in `conformance.rs`; there is little.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper that fails is a failed test, and says what was tried"
)]

mod azurite;
mod checks;
mod conformance;
#[path = "../fixture/mod.rs"]
mod fixture;
mod places;
mod program;

use checks::Checks;
use places::Place;

fn conforms(mut place: Place) {
    let mut checks = Checks::new(place.name);
    conformance::objects(&mut checks, &place.store("objects"));
    conformance::names(&mut checks, &place.store("names"));
    conformance::races(&mut checks, &place.store("races"));
    conformance::large(&mut checks, &place.store("large"));
    conformance::many(&mut checks, &place.store("many"));
    conformance::caches(&mut checks, &place.store("caches"));
    conformance::restarts(&mut checks, &mut place);
    program::finds(&mut checks, &place);
    program::survives(&mut checks, &mut place);
    println!("{}", checks.summary());
}

#[test]
fn a_local_folder_conforms() {
    conforms(Place::local());
}

#[test]
fn memory_conforms() {
    conforms(Place::memory());
}

#[test]
fn s3_conforms() {
    conforms(Place::s3());
}

#[test]
fn google_cloud_storage_conforms() {
    conforms(Place::gcs());
}

#[test]
fn azure_conforms() {
    match azurite::Azurite::start() {
        Some(server) => conforms(Place::azure(server)),
        None => {
            println!("Azure: skipped, there is no azurite-blob on PATH and FEATLAB_AZURITE does not name one")
        }
    }
}

/// Names that a folder takes as they are; a bucket takes them percent-encoded, and again each time that one is joined.
#[test]
fn prefixes_conform() {
    for place in [Place::local(), Place::memory(), Place::s3(), Place::gcs()] {
        conformance::prefixes(&mut Checks::new(place.name), &place.store("prefixes"));
    }
}
