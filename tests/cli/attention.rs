//! `featlab attention`: pictures of one image and of a film's frames, and how it goes on after a stop.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fixture::{BACKBONE, Scratch, expect, featlab};

fn picture(path: &Path, seed: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |x: u32, y: u32| [(x * 5 + seed * 40) as u8, (y * 6) as u8, ((x + y) * 3 + seed) as u8];
    image::RgbImage::from_fn(50, 40, |x, y| image::Rgb(pixel(x, y))).save(path).unwrap();
}

fn attention(input: &Path, out: &Path) -> Command {
    let mut command = featlab();
    command.arg("attention").arg(input).args(["--backbone", BACKBONE, "--res", "44", "--out"]).arg(out);
    command
}

/// The PNG files of a folder, by name.
fn pictures(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = (fs::read_dir(folder).unwrap().flatten())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".png"))
        .collect();
    names.sort();
    names
}

#[test]
fn an_image_gives_maps_masks_and_overlays() {
    let scratch = Scratch::new();
    let (photo, out) = (scratch.path("photo.png"), scratch.path("out"));
    picture(&photo, 0);
    let run = |extra: &[&str], code| expect(attention(&photo, &out).args(extra), code);
    run(&["--heads", "0,1"], 0);
    let plain = [
        "attn-head0.png",
        "attn-head1.png",
        "img.png",
        "overlay-head0.png",
        "overlay-head1.png",
        "overlay-heads.png",
    ];
    assert_eq!(pictures(&out), plain);
    // 44 pixels are five patches of 8 and a rest.
    let size = image::image_dimensions(out.join("attn-head0.png")).unwrap();
    assert_eq!(size, (40, 40));

    let (_, stderr) = run(&["--heads", "0,1", "--threshold", "0.6"], 2);
    assert!(stderr.contains("--overwrite"), "{stderr}");
    run(&["--heads", "0,1", "--threshold", "0.6", "--overwrite"], 0);
    assert!(pictures(&out).contains(&"mask_th0.6_head1.png".to_owned()));
    // Pictures of another choice do not stay beside these, and what is not ours does.
    fs::write(out.join("mine.png"), "mine").unwrap();
    run(&["--heads", "2", "--overwrite"], 0);
    assert_eq!(
        pictures(&out),
        ["attn-head2.png", "img.png", "mine.png", "overlay-head2.png", "overlay-heads.png"]
    );
    fs::remove_file(out.join("mine.png")).unwrap();
    run(&["--heads", "0,1", "--threshold", "0.6", "--overwrite"], 0);
    fs::remove_file(out.join("img.png")).unwrap();
    let (stdout, _) = run(&["--heads", "0,1", "--threshold", "0.6", "--json"], 0);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((value["written"].as_u64(), value["kept"].as_u64()), (Some(1), Some(7)), "{stdout}");
    // The same name with another picture behind it is another input.
    picture(&photo, 1);
    let (_, stderr) = run(&["--heads", "0,1", "--threshold", "0.6"], 2);
    assert!(stderr.contains("another input"), "{stderr}");
}

#[test]
fn frames_are_kept_skipped_and_masked() {
    let scratch = Scratch::new();
    let (frames, out) = (scratch.path("frames"), scratch.path("frames/attention"));
    (0..3).for_each(|i| picture(&frames.join(format!("frame-{i:04}.png")), i));
    fs::write(frames.join("frame-0003.jpg"), b"cut").unwrap();
    let (stdout, stderr) = expect(&mut attention(&frames, &out), 3);
    assert_eq!(pictures(&out), ["attn-frame-0000.png", "attn-frame-0001.png", "attn-frame-0002.png"]);
    assert!(stderr.contains("skipped frame-0003"), "{stderr}");
    assert!(stdout.contains("ffmpeg -framerate 30 -pattern_type glob"), "{stdout}");

    // What is there stays as it is, and our own pictures are no frames.
    fs::write(out.join("attn-frame-0001.png"), b"mine").unwrap();
    fs::remove_file(out.join("attn-frame-0002.png")).unwrap();
    let (stdout, _) = expect(attention(&frames, &out).arg("--json"), 3);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((value["written"].as_u64(), value["kept"].as_u64()), (Some(1), Some(2)), "{stdout}");
    assert_eq!(fs::read(out.join("attn-frame-0001.png")).unwrap(), b"mine");

    // With a threshold the frames are others.
    let whole = fs::read(out.join("attn-frame-0000.png")).unwrap();
    expect(attention(&frames, &out).args(["--threshold", "0.6", "--overwrite"]), 3);
    assert_ne!(fs::read(out.join("attn-frame-0000.png")).unwrap(), whole);
    assert_ne!(fs::read(out.join("attn-frame-0001.png")).unwrap(), b"mine");
}

#[cfg(unix)]
#[test]
fn a_stopped_film_goes_on() {
    let scratch = Scratch::new();
    let (frames, out) = (scratch.path("frames"), scratch.path("out"));
    (0..60).for_each(|i| picture(&frames.join(format!("{i:04}.png")), i));
    let run = || {
        let mut command = featlab();
        command
            .arg("attention")
            .arg(&frames)
            .args(["--backbone", BACKBONE, "--res", "240", "--out"])
            .arg(&out);
        command
    };
    let mut child = run().spawn().unwrap();
    while !out.join("attn-0000.png").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let code = child.wait().unwrap().code();
    let done = pictures(&out).len();
    assert_eq!(code, Some(130), "{done} frames were drawn before it could be stopped");
    assert!((1..60).contains(&done), "{done}");
    let (stdout, _) = expect(run().arg("--json"), 0);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (value["written"].as_u64(), value["kept"].as_u64()),
        (Some(60 - done as u64), Some(done as u64))
    );
}

#[test]
fn bad_inputs_end_with_one_line() {
    let scratch = Scratch::new();
    let (photo, out) = (scratch.path("photo.png"), scratch.path("out"));
    picture(&photo, 0);
    let refused = |command: &mut Command, code: i32, words: &[&str]| {
        let (_, stderr) = expect(command, code);
        let line = stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} in {line}");
    };
    refused(&mut attention(Path::new("does/not/exist.png"), &out), 2, &["does/not/exist.png"]);
    fs::create_dir(scratch.path("empty")).unwrap();
    refused(&mut attention(&scratch.path("empty"), &out), 2, &["empty"]);
    refused(attention(&photo, &out).args(["--heads", "7"]), 2, &["--heads", "7"]);
    refused(attention(&photo, &out).args(["--threshold", "1.5"]), 2, &["--threshold", "1.5"]);
    fs::write(scratch.path("text.png"), b"words").unwrap();
    refused(&mut attention(&scratch.path("text.png"), &out), 1, &["text.png"]);
    assert!(!out.exists());
}
