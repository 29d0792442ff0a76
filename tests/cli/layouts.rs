//! Reducers that are fitted for one dimension on a sample: `reduce umap`, and `probe` with it.

use crate::fixture::{BACKBONE, Scratch, expect, extract, featlab, probe};

#[test]
fn a_umap_is_fitted_on_a_sample_and_probed_at_its_dimension() {
    let scratch = Scratch::new();
    let dataset = format!("camvid:{}", scratch.camvid(6, 3).display());
    let (train, val) = (scratch.path("train"), scratch.path("val"));
    expect(extract(&dataset, &train).args(["--split", "train"]), 0);
    let mut command = featlab();
    command.args(["extract", "--dataset", &dataset, "--backbone", BACKBONE, "--res", "48", "--split", "val"]);
    expect(command.arg("--out").arg(&val), 0);

    let reduce = |out: &str, more: &[&str]| {
        let mut command = featlab();
        command.args(["reduce", "umap", "--cache"]).arg(&train).arg("--out").arg(scratch.path(out));
        command.args(["--rows", "60", "--images", "5", "--epochs", "30"]).args(more);
        command
    };
    let (_, stderr) = expect(&mut reduce("no.safetensors", &[]), 2);
    assert!(stderr.contains("--dims is missing"), "{stderr}");
    let (_, stderr) = expect(&mut reduce("no.safetensors", &["--dims", "4", "--whiten"]), 2);
    assert!(stderr.contains("pca only"), "{stderr}");
    let (stdout, _) = expect(&mut reduce("four.safetensors", &["--dims", "4"]), 0);
    assert!(stdout.contains("umap of 60 tokens, 192 → 4 dimensions"), "{stdout}");
    let read = |name: &str| std::fs::read(scratch.path(name)).unwrap();
    let mut again = reduce("again.safetensors", &["--dims", "4"]);
    expect(again.env("RAYON_NUM_THREADS", "3"), 0);
    assert!(read("four.safetensors") == read("again.safetensors"), "threads changed a number");

    let probe = |dims: &str| {
        let mut command = probe(&train, &val, &scratch.path("probe"));
        command.arg("--reducer").arg(scratch.path("four.safetensors"));
        command.args(["--dims", dims, "--steps", "10", "--batch-size", "4"]);
        command
    };
    expect(&mut probe("4"), 0);
    let results = std::fs::read_to_string(scratch.path("probe").join("results.csv")).unwrap();
    assert!(results.lines().skip(1).all(|line| line.contains(",umap,4,")), "{results}");
    let (_, stderr) = expect(&mut probe("3"), 2);
    assert!(stderr.contains("needs a fit of its own"), "{stderr}");
}

#[cfg(feature = "hnne")]
#[test]
fn hnne_says_what_its_authors_ask_for() {
    let scratch = Scratch::new();
    let (dataset, train) = (format!("camvid:{}", scratch.camvid(4, 1).display()), scratch.path("train"));
    expect(extract(&dataset, &train).args(["--split", "train"]), 0);
    let mut command = featlab();
    command.args(["reduce", "hnne", "--dims", "3", "--rows", "50", "--cache"]).arg(&train);
    let (_, stderr) = expect(command.arg("--out").arg(scratch.path("h.safetensors")), 0);
    assert!(stderr.contains("no commercial use"), "{stderr}");
    let (help, _) = expect(featlab().args(["reduce", "--help"]), 0);
    assert!(help.contains("no commercial use"), "{help}");
}
