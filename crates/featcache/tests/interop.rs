//! Other languages open the shards: writes small caches and runs `tests/interop/read_shards.py` on them where
//! `$FEATLAB_PYTHON` (default python3) has the packages, else says so.

mod fixture;

use std::process::Command;

use featcache::{Dtype, Form, GoldenActivation, Opened, Store, Writer, WriterOptions};
use fixture::*;

/// The interpreter to ask: `$FEATLAB_PYTHON`, or `python3`.
fn python() -> String {
    std::env::var("FEATLAB_PYTHON").unwrap_or_else(|_| "python3".into())
}

#[test]
fn pyarrow_pandas_polars_and_duckdb_agree() {
    let probe = Command::new(python()).args(["-c", "import numpy, pyarrow, pandas, polars, duckdb"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("skipped: {} with numpy, pyarrow, pandas, polars and duckdb is not present", python());
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/interop/read_shards.py");
    for dtype in [Dtype::F16, Dtype::F32, Dtype::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let options = WriterOptions { golden: None, ..options() };
        let Opened::Resume(writer) = Writer::open(store, key(dtype), layout(), SAMPLES, options).unwrap()
        else {
            panic!("fresh folder");
        };
        for planned in writer.missing() {
            write(&writer, &planned).unwrap();
        }
        // The script finds the first image's first view under the name of golden activation.
        let first = &rows(0)[0].tokens;
        let golden = GoldenActivation { tokens: first.iter().copied().collect(), shape: [6, 5] };
        writer.commit(golden).unwrap();
        let run = Command::new(python())
            .arg(script)
            .arg(folder.path())
            .arg("--golden-is-first-row")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
        assert!(said.contains(&format!("ok: 110 rows of {dtype} [6, 5]")), "{said}");
    }
}

/// Every form and number type with every kind of column, read in one go.
#[test]
fn every_form_is_read_by_all_of_them() {
    let probe = Command::new(python()).args(["-c", "import numpy, pyarrow, pandas, polars, duckdb"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("skipped: {} with numpy, pyarrow, pandas, polars and duckdb is not present", python());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut folders = Vec::new();
    for dtype in [Dtype::F16, Dtype::F32, Dtype::Bf16, Dtype::Int8] {
        for form in Form::ALL {
            let place = folder.path().join(format!("{dtype}-{form}"));
            rich(&Store::open(place.to_str().unwrap()).unwrap(), dtype, form, 9);
            folders.push(place);
        }
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/interop/read_forms.py");
    let run = Command::new(python()).arg(script).args(&folders).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    println!("{said}");
    assert!(said.contains("ok: 16 caches"), "{said}");
}
