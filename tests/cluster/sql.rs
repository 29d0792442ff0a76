//! `featlab sql`: caches in a bucket and tables on a disk.

use crate::fixture::expect;
use crate::processes::Cluster;
use crate::same_bits::Line;

/// Rows as JSON.
fn ask(cluster: &Cluster, words: &[&str]) -> Vec<serde_json::Value> {
    let mut command = cluster.featlab();
    command.args(["sql", "--json"]).args(words);
    let (said, _) = expect(&mut command, 0);
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn caches_and_tables_answer_questions() {
    let cluster = Cluster::start(0);
    let line = Line::new(&cluster.scratch, "one");
    let (val, pca) = (line.place("val"), line.file("pca.safetensors"));
    cluster.run(&line.extract("val", &val), true);
    cluster.run(&["reduce", "pca", "--cache", &val, "--dims", "6", "--out", &pca], true);
    let small = line.place("small");
    cluster.run(
        &["cache", "project", &val, "--reducer", &pca, "--dims", "3", "--dtype", "f32", "--out", &small],
        true,
    );
    let (val, small) = (format!("val={val}"), format!("small={small}"));

    let rows = ask(&cluster, &["select count(*) as n, min(grid_h) as g from val", "--table", &val]);
    assert_eq!(rows, [serde_json::json!({ "n": 12, "g": 4 })]);
    // Tokens: as many rows as images and patches; the projection is that of `cache project`.
    let query = "select count(*) as n, max(l2(t)) > 0 as b from (select unnest_tokens(tokens) as t from val)";
    assert_eq!(ask(&cluster, &[query, "--table", &val]), [serde_json::json!({ "n": 12 * 16, "b": true })]);
    let query = format!(
        "select max(l2(token(project(val.tokens, '{pca}', 3), 5))) as here, max(l2(token(small.tokens, 5))) as there, \
         min(cosine(token(project(val.tokens, '{pca}', 3), 7), token(small.tokens, 7))) as cosine \
         from val join small using (image_id)"
    );
    let row = &ask(&cluster, &[&query, "--table", &val, "--table", &small])[0];
    let number = |name: &str| row[name].as_f64().unwrap();
    assert!((number("here") / number("there") - 1.0).abs() < 1e-6 && number("cosine") > 1.0 - 1e-9, "{row}");
    // Labels: classes by pixel, by image, by patch.
    let query = "select sum(class_count(label, 3)) as three from val";
    let three = ask(&cluster, &[query, "--table", &val])[0]["three"].as_i64().unwrap();
    let query = "select class, count(*) as pixels from (select unnest_labels(label) as class from val) group by class order by class";
    let classes = ask(&cluster, &[query, "--table", &val]);
    assert!(
        classes.iter().any(|row| row["class"] == 3 && row["pixels"].as_i64() == Some(three)),
        "{classes:?}"
    );
    let query = "select class, l2(mean_vector(t)) as size, count(*) as n from (select unnest_tokens(tokens) as t, \
                 unnest(patch_classes(label, grid_h, grid_w)) as class from val) group by class order by class";
    let means = ask(&cluster, &[query, "--table", &val]);
    let patches: i64 = means.iter().map(|row| row["n"].as_i64().unwrap()).sum();
    assert!(patches == 12 * 16 && means.len() > 5, "{means:?}");

    // Parquet of our own, and back.
    let out = cluster.scratch.path("answer.parquet");
    let mut command = cluster.featlab();
    command.args(["sql", "select image_id, l2(cls) as size from val", "--table", &val, "--out"]).arg(&out);
    assert!(expect(&mut command, 0).0.contains("12 rows of 2 columns"));
    let table = format!("answer={}", out.display());
    let rows = ask(
        &cluster,
        &["select count(*) as n, count(distinct image_id) as ids from answer", "--table", &table],
    );
    assert_eq!(rows, [serde_json::json!({ "n": 12, "ids": 12 })]);

    // Only the columns that are asked for are read; mistakes are told.
    let mut command = cluster.featlab();
    command.args(["sql", "--explain", "select image_id from val", "--table", &val]);
    let plan = expect(&mut command, 0).0;
    assert!(plan.contains("CacheScan") && plan.contains("columns [image_id]"), "{plan}");
    for (query, code) in
        [("select nothing from val", 2), ("selec", 2), ("select cosine(cls, token(tokens, 0)) from val", 0)]
    {
        let mut command = cluster.featlab();
        command.args(["sql", query, "--table", &val]);
        expect(&mut command, code);
    }
}
