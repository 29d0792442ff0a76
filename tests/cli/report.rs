//! The report in a browser, and its exports in the formats of trackers.
//!
//! A headless Chromium (`$FEATLAB_CHROMIUM`, or `chromium` on `PATH`; the tests say that they skip where there is none) opens
//! `report.html` from disk with no name resolved: nothing is complained about, every figure has a size, nothing lies outside its
//! frame, in light and dark, with and without JavaScript.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixture::{Scratch, expect, featlab, sweep_file};

/// How the browser sees a page.
#[derive(Clone, Copy)]
struct View {
    dark: bool,
    width: usize,
}

const PLAIN: View = View { dark: false, width: 1280 };

/// The browser, if there is one.
fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("FEATLAB_CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found =
        named.into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join("chromium")));
    let found = found.find(|file| file.is_file());
    if found.is_none() {
        println!(
            "skipped: no Chromium ($FEATLAB_CHROMIUM, or chromium on PATH); report.html was opened in no browser"
        );
    }
    found
}

/// Runs the browser on a page and returns `(stdout, stderr)`.
fn browse(browser: &Path, page: &Path, view: View, profile: &Path, action: &str) -> (String, String) {
    let theme = if view.dark { 0 } else { 1 };
    let mut command = Command::new(browser);
    command.args(
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars".split(' '),
    );
    command.args("--disable-background-networking --disable-component-update --disable-sync".split(' '));
    command.args([
        "--enable-logging=stderr",
        "--virtual-time-budget=2000",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]);
    command.arg(format!("--blink-settings=preferredColorScheme={theme}"));
    command.arg(format!("--window-size={},2400", view.width));
    command.arg(format!("--user-data-dir={}", profile.display())).arg(action);
    command.arg(format!("file://{}", page.display()));
    let (out, err) = (profile.with_extension("out"), profile.with_extension("err"));
    command.stdin(Stdio::null());
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let mut child = command.spawn().expect("the browser starts");
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("the browser did not end: {command:?}\n{}", fs::read_to_string(&err).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (fs::read_to_string(out).unwrap(), fs::read_to_string(err).unwrap())
}

/// What the page's console was told.
fn complaints(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.contains(":CONSOLE")).collect()
}

/// A small sweep whose study is given everything that a study may know, as a report in `out`.
fn full_report(scratch: &Scratch) -> PathBuf {
    let root = scratch.camvid(6, 3);
    let out = scratch.path("out");
    expect(featlab().arg("sweep").arg(sweep_file(scratch, &root)).arg("--out").arg(&out), 0);
    let file = out.join("study.json");
    let mut study: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let refined: Vec<Value> = (study["runs"].as_array().unwrap().iter())
        .filter(|run| run["method"] == "none")
        .map(|run| {
            let mut run = run.clone();
            run["crf"] = json!(true);
            run["key"] = json!(format!("{}-crf", run["key"].as_str().unwrap()));
            run
        })
        .collect();
    for run in study["runs"].as_array_mut().unwrap() {
        run["boundary_iou"] = json!(0.1);
        run["majority"] = json!({ "miou": 0.2, "coverage": 0.5 });
    }
    study["runs"].as_array_mut().unwrap().extend(refined);
    study["dataset"] = json!("cocostuff27");
    study["stages"] = json!([{ "name": "extract", "wall_s": 3.0, "bytes_read": 1000, "bytes_written": 5_000_000, "detail": "9 images" }]);
    study["wall_s"] = json!(6.0);
    study["versions"] = json!([["instruction set", "portable"]]);
    study["geometry"] = json!({ "intrinsic_dim": [["TwoNN", 12.5]], "condition_number": 1e4, "effective_rank": 30.0, "tokens": 500 });
    study["comparisons"] = json!([{ "probe": "linear", "first": "pca, 12", "second": "rp, 12", "difference": 0.01,
        "interval": [-0.01, 0.03], "p": 0.4, "test": "paired bootstrap over 3 images" }]);
    fs::write(&file, serde_json::to_vec(&study).unwrap()).unwrap();
    expect(featlab().arg("report").arg(&out), 0);
    out
}

/// Looks at the page from inside and leaves what it saw in an attribute.
const INSPECT: &str = r##"<script>
addEventListener("load", () => {
  const seen = { figures: [], pictures: 0, outside: [], overlapping: [], tables: [], hidden: 0, tip: "" };
  for (const svg of document.querySelectorAll("figure.chart svg")) {
    const box = svg.getBoundingClientRect();
    seen.figures.push([box.width, box.height, svg.querySelectorAll("polyline, rect, polygon, circle").length]);
    const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    for (const [text, t] of texts) {
      if (t.left < box.left - 1 || t.right > box.right + 1 || t.top < box.top - 1 || t.bottom > box.bottom + 1) seen.outside.push(text);
    }
    for (const [i, [text, a]] of texts.entries()) for (const [other, b] of texts.slice(i + 1)) {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left), high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 2 && high > 3) seen.overlapping.push(`${text} | ${other}`);
    }
  }
  for (const image of document.querySelectorAll(".panels img")) seen.pictures += image.complete && image.naturalWidth > 0;
  for (const table of document.querySelectorAll("table")) {
    const frame = table.parentElement;
    seen.tables.push([table.offsetWidth <= frame.clientWidth, getComputedStyle(frame).overflowX]);
  }
  const visible = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.getClientRects().length > 0).length;
  seen.plain = [visible(".plain"), visible(".refined")];
  document.getElementById("crf").click();
  seen.refined = [visible(".plain"), visible(".refined")];
  document.querySelector(".zoom").click();
  const zoomed = document.querySelector(".zoom:checked + img").getBoundingClientRect();
  seen.zoomed = [zoomed.width, innerWidth];
  document.querySelector(".zoom").click();
  const key = document.querySelector("g.key"), svg = key.ownerSVGElement;
  const data = () => [...svg.querySelectorAll("g.data")].filter((g) => g.dataset.series === key.dataset.series && getComputedStyle(g).display !== "none").length;
  const before = data();
  key.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  seen.toggled = [before, data()];
  key.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  const mark = svg.querySelector("g.data:not(.ref) g.pt .mark").getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", { clientX: mark.x + 2, clientY: mark.y + 2, bubbles: true }));
  seen.tip = document.querySelector(".tip").hidden ? "" : document.querySelector(".tip").textContent;
  document.querySelector("table.sortable button").click();
  seen.first = document.querySelector("table.sortable tbody th").textContent;
  document.body.dataset.seen = encodeURIComponent(JSON.stringify(seen));
});
</script></body>"##;

#[test]
fn a_browser_finds_everything_and_complains_of_nothing() {
    let Some(browser) = chromium() else { return };
    let scratch = Scratch::new();
    let out = full_report(&scratch);
    let page = out.join("report.html");
    let html = fs::read_to_string(&page).unwrap();
    let charts = html.matches("<figure class=\"chart\"").count();
    assert_eq!(charts, 3 + 1 + 4, "scores, variance, confusion");

    let watched = out.join("watched.html");
    fs::write(&watched, html.replace("</body>", INSPECT)).unwrap();
    let (dom, stderr) = browse(&browser, &watched, PLAIN, &scratch.path("watched"), "--dump-dom");
    assert_eq!(complaints(&stderr), [""; 0], "{stderr}");
    let seen =
        dom.split("data-seen=\"").nth(1).unwrap_or_else(|| panic!("the page's script did not end\n{stderr}"));
    let seen: Value = serde_json::from_str(&decoded(seen.split('"').next().unwrap())).unwrap();
    let figures = seen["figures"].as_array().unwrap();
    assert_eq!(figures.len(), charts);
    for figure in figures {
        let [width, height, shapes] = [0, 1, 2].map(|i| figure[i].as_f64().unwrap());
        assert!(width > 200.0 && height > 200.0 && shapes > 5.0, "{figure}");
    }
    assert_eq!(seen["outside"], json!([]), "texts outside their figure");
    assert_eq!(seen["overlapping"], json!([]), "texts over each other");
    assert_eq!(
        seen["pictures"],
        2 * 7,
        "two images as input, label, two predictions, both refined, and components"
    );
    assert_eq!((&seen["plain"], &seen["refined"]), (&json!([4, 0]), &json!([0, 4])), "the switch of the CRF");
    assert_eq!(seen["zoomed"][0], seen["zoomed"][1], "an enlarged picture fills the window");
    assert!(seen["toggled"][0].as_u64() > Some(0) && seen["toggled"][1] == 0, "{}", seen["toggled"]);
    assert!(seen["tip"].as_str().unwrap().contains(" probe, k = "), "{}", seen["tip"]);
    assert!(html.contains("3 images, stego-train"), "our own points say what they rest on");
    assert_eq!(seen["first"], "none", "the first click on a heading of text sorts by letters");
    for table in seen["tables"].as_array().unwrap() {
        assert!(table[0] == true || table[1] == "auto", "a wide table has no way to be seen whole");
    }
}

/// Undoes `encodeURIComponent`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits = |rest: &mut std::str::Bytes<'_>| {
            String::from_utf8(vec![rest.next().unwrap(), rest.next().unwrap()]).unwrap()
        };
        bytes.push(if byte == b'%' { u8::from_str_radix(&digits(&mut rest), 16).unwrap() } else { byte });
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn it_is_readable_in_light_and_dark_with_and_without_javascript() {
    let Some(browser) = chromium() else { return };
    let scratch = Scratch::new();
    let out = full_report(&scratch);
    // The browser's own commands need scripts, so they are forbidden to a frame instead of to everything.
    let frame = "<!DOCTYPE html><meta name=\"color-scheme\" content=\"light dark\"><title>frame</title>\
                 <style>body { margin: 0 } iframe { display: block; width: 100%; height: 2400px; border: 0 }</style>\
                 <iframe sandbox src=\"report.html\"></iframe>";
    fs::write(out.join("frame.html"), frame).unwrap();
    let shot = |name: &str, page: &str, view: View| {
        let file = scratch.path(&format!("{name}.png"));
        let action = format!("--screenshot={}", file.display());
        let (_, stderr) = browse(&browser, &out.join(page), view, &scratch.path(name), &action);
        let (blocked, others): (Vec<&str>, Vec<&str>) =
            complaints(&stderr).into_iter().partition(|line| line.contains("Blocked script execution"));
        assert_eq!((blocked.len(), others), (usize::from(page == "frame.html"), vec![]), "{name}: {stderr}");
        image::open(&file).unwrap_or_else(|e| panic!("{name}: {e}\n{stderr}")).to_luma8()
    };
    let brightness = |shot: &image::GrayImage| {
        shot.pixels().map(|p| f64::from(p.0[0])).sum::<f64>() / f64::from(shot.width() * shot.height())
    };
    for dark in [false, true] {
        let with = shot(&format!("js-{dark}"), "report.html", View { dark, ..PLAIN });
        // A busy machine takes the picture of a frame before all of it is painted: of a few, the fullest counts.
        let without = (0..4)
            .map(|again| shot(&format!("nojs-{dark}-{again}"), "frame.html", View { dark, ..PLAIN }))
            .max_by(|a, b| ink(a, dark).total_cmp(&ink(b, dark)))
            .unwrap();
        let expected = if dark { 10.0..90.0 } else { 190.0..253.0 };
        for (what, shot) in [("with", &with), ("without", &without)] {
            let mean = brightness(shot);
            assert!(expected.contains(&mean), "{what} JavaScript, dark {dark}: mean brightness {mean}");
        }
        // A script adds buttons and two hints, and moves nothing but the lines after them by a line or two.
        let (inked, blank) = (ink(&with, dark), ink(&without, dark));
        assert!(
            (inked - blank).abs() < 0.15 * inked,
            "with {inked} and without {blank} JavaScript, dark {dark}"
        );
    }
    let narrow = shot("narrow", "report.html", View { width: 420, ..PLAIN });
    assert!(ink(&narrow, false) > 0.01);
}

/// Share of the pixels that are not the paper.
fn ink(shot: &image::GrayImage, dark: bool) -> f64 {
    let paper = |v: u8| if dark { v < 40 } else { v > 235 };
    let inked = shot.pixels().filter(|p| !paper(p.0[0])).count();
    inked as f64 / f64::from(shot.width() * shot.height())
}

#[test]
fn the_watcher_notices_what_a_page_complains_of() {
    let Some(browser) = chromium() else { return };
    let scratch = Scratch::new();
    let page = scratch.path("bad.html");
    fs::write(&page, "<!DOCTYPE html><title>x</title><script>console.error('broken')</script>").unwrap();
    let (_, stderr) = browse(&browser, &page, PLAIN, &scratch.path("bad"), "--dump-dom");
    assert!(complaints(&stderr).len() == 1 && stderr.contains("broken"), "{stderr}");
}

#[test]
fn runs_are_exported_for_trackers() {
    let scratch = Scratch::new();
    let root = scratch.camvid(4, 2);
    let out = scratch.path("out");
    expect(featlab().arg("sweep").arg(sweep_file(&scratch, &root)).arg("--out").arg(&out), 0);
    let report = || {
        let mut command = featlab();
        command.arg("report").arg(&out).args(["--export", "tensorboard,mlflow", "--json"]);
        command
    };
    let (stdout, _) = expect(&mut report(), 0);
    let value: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(value["exported"].as_array().unwrap().len(), 2, "{stdout}");
    let events = out.join("tensorboard/pca/linear/seed-0");
    assert_eq!(fs::read_dir(&events).unwrap().count(), 1);
    expect(&mut report(), 0);
    assert_eq!(fs::read_dir(&events).unwrap().count(), 1, "a second export replaces the first");
    let experiment = fs::read_dir(out.join("mlruns")).unwrap().next().unwrap().unwrap().path();
    let runs: Vec<PathBuf> =
        fs::read_dir(&experiment).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    assert_eq!(runs.len(), 14);
    assert!(runs.iter().all(|run| run.join("metrics/miou").is_file() && run.join("params/dim").is_file()));
    let (help, _) = expect(featlab().args(["report", "--help"]), 0);
    assert!(help.contains("wandb.init") && help.contains("migrate-filestore"), "{help}");
}

#[test]
fn a_study_of_an_earlier_version_still_makes_a_report() {
    let scratch = Scratch::new();
    let root = scratch.camvid(4, 2);
    let out = scratch.path("out");
    expect(featlab().arg("sweep").arg(sweep_file(&scratch, &root)).arg("--out").arg(&out), 0);
    let file = out.join("study.json");
    let mut study: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for new in ["versions", "stages", "wall_s", "geometry", "comparisons"] {
        study.as_object_mut().unwrap().remove(new);
    }
    for item in study["gallery"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("refined");
    }
    fs::write(&file, serde_json::to_vec(&study).unwrap()).unwrap();
    expect(featlab().arg("report").arg(&out), 0);
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains("data:image/png;base64,") && !html.contains("id=\"crf\""));
}
