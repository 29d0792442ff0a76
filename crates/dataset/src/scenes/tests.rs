//! Laws of the data set: it is a pure function, every class is there, and colour does not give it away.
//!
//! Rendering is the slow part, so one small set of pictures is shared by the statistics.

use std::sync::LazyLock;

use super::*;

const SIDE: usize = 64;

/// 96 small scenes.
static SCENES: LazyLock<Vec<Scene>> = LazyLock::new(|| (0..96).map(|i| render(0, i, (SIDE, SIDE))).collect());

/// The 64-bit FNV-1a hash.
fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn the_same_arguments_give_the_same_bytes_on_every_thread() {
    let here = render(7, 3, (48, 64));
    let there = std::thread::spawn(|| render(7, 3, (48, 64))).join().expect("no panic");
    assert_eq!(here, there);
    assert_eq!(here.image.dim(), (48, 64, 3));
    assert_eq!(here.label.dim(), (48, 64));
}

#[test]
fn other_indexes_and_seeds_are_other_scenes() {
    let base = render(0, 0, (32, 32));
    for (seed, index) in [(0, 1), (1, 0), (0, u64::MAX), (u64::MAX, 0)] {
        let other = render(seed, index, (32, 32));
        assert_ne!(base.image, other.image, "{seed}/{index}");
        assert_ne!(base.label, other.label, "{seed}/{index}");
    }
}

#[test]
fn odd_sizes_work() {
    for size in [(1, 1), (1, 9), (33, 7), (30, 100)] {
        assert_eq!(render(1, 1, size).label.dim(), size);
    }
}

#[test]
fn a_larger_picture_shows_the_same_world() {
    let (small, large) = (render(0, 5, (40, 40)), render(0, 5, (80, 80)));
    let same =
        small.label.indexed_iter().filter(|&((r, c), &class)| large.label[[2 * r, 2 * c]] == class).count();
    assert!(same as f32 > 0.93 * 1600.0, "{same} of 1600");
}

#[test]
fn the_generator_has_not_changed() {
    let sum = |index, size| {
        let scene = render(0, index, size);
        fnv(scene.image.iter().copied().chain(scene.label.iter().copied()))
    };
    let sums = [sum(0, (40, 40)), sum(1, (33, 48)), sum(2, (40, 40)), sum(11, (64, 64))];
    assert_eq!(
        sums,
        [29281571124938883, 961463101857827267, 9356152672230676439, 13801601102538232769],
        "the pictures changed: if that is meant, raise scenes::VERSION (it is part of the cache key) and put the new sums here",
    );
    assert_eq!(VERSION, 1, "the sums above are those of version 1");
}

#[test]
fn every_class_is_there_often_enough_and_none_dominates() {
    let mut counts = [0usize; CLASSES.len()];
    let mut images_with = [0usize; CLASSES.len()];
    for scene in SCENES.iter() {
        let mut here = [0usize; CLASSES.len()];
        scene.label.iter().for_each(|&class| here[usize::from(class)] += 1); // panics on a class that is none
        for class in 0..CLASSES.len() {
            counts[class] += here[class];
            images_with[class] += usize::from(here[class] > 8);
        }
    }
    let total = (SCENES.len() * SIDE * SIDE) as f32;
    for (class, (name, _)) in CLASSES.iter().enumerate() {
        let share = counts[class] as f32 / total;
        assert!((0.007..0.35).contains(&share), "{name}: {share}");
        assert!(images_with[class] >= 12, "{name}: only in {} images", images_with[class]);
    }
}

#[test]
fn labels_are_regions_not_specks() {
    let (mut alike, mut pairs) = (0, 0);
    for scene in SCENES.iter() {
        for row in scene.label.rows() {
            alike += row.windows(2).into_iter().filter(|w| w[0] == w[1]).count();
            pairs += SIDE - 1;
        }
    }
    assert!(alike as f32 > 0.88 * pairs as f32, "{alike} of {pairs}");
}

#[test]
fn pictures_use_the_range_of_a_byte() {
    for (i, scene) in SCENES.iter().enumerate() {
        let mut bytes: Vec<u8> = scene.image.iter().copied().collect();
        bytes.sort_unstable();
        let (low, high) = (bytes[bytes.len() / 50], bytes[bytes.len() * 49 / 50]);
        assert!(high - low > 25, "scene {i}: {low}..{high}");
    }
}

/// Mean colour `[n, 3]` and commonest class `[n]` of the 8 × 8 patches of some scenes.
fn patches(scenes: &[Scene]) -> Vec<([f32; 3], usize)> {
    const PATCH: usize = 8;
    let mut out = Vec::new();
    for scene in scenes {
        for (top, left) in
            (0..SIDE).step_by(PATCH).flat_map(|r| (0..SIDE).step_by(PATCH).map(move |c| (r, c)))
        {
            let area = ndarray::s![top..top + PATCH, left..left + PATCH];
            let mut votes = [0; CLASSES.len()];
            scene.label.slice(area).iter().for_each(|&class| votes[usize::from(class)] += 1);
            let class = (0..votes.len()).max_by_key(|&class| votes[class]).expect("there are classes");
            let image = scene.image.slice(ndarray::s![top..top + PATCH, left..left + PATCH, ..]);
            let mean = [0, 1, 2].map(|channel| {
                let sum: u32 = image.slice(ndarray::s![.., .., channel]).iter().map(|&v| u32::from(v)).sum();
                sum as f32 / (PATCH * PATCH) as f32
            });
            out.push((mean, class));
        }
    }
    out
}

/// Mean IoU over patches of telling classes by the nearest class mean of colour (64 scenes to learn from).
fn nearest_colour_iou(scenes: &[Scene]) -> f32 {
    let (train, val) = (patches(&scenes[..64]), patches(&scenes[64..]));
    let mut sums = [[0f32; 4]; CLASSES.len()]; // red, green, blue, patches
    for (colour, class) in train {
        (0..3).for_each(|channel| sums[class][channel] += colour[channel]);
        sums[class][3] += 1.0;
    }
    let nearest = |colour: [f32; 3]| {
        let distance =
            |sum: &[f32; 4]| (0..3).map(|c| (colour[c] - sum[c] / sum[3].max(1.0)).powi(2)).sum::<f32>();
        (0..CLASSES.len())
            .min_by(|&a, &b| distance(&sums[a]).total_cmp(&distance(&sums[b])))
            .expect("there are classes")
    };
    let mut confusion = [[0f32; CLASSES.len()]; CLASSES.len()];
    val.iter().for_each(|&(colour, class)| confusion[class][nearest(colour)] += 1.0);
    let iou = |class: usize| {
        let truth: f32 = confusion[class].iter().sum();
        let said: f32 = confusion.iter().map(|row| row[class]).sum();
        confusion[class][class] / (truth + said - confusion[class][class]).max(1.0)
    };
    (0..CLASSES.len()).map(iou).sum::<f32>() / CLASSES.len() as f32
}

#[test]
fn mean_colour_does_not_tell_the_class() {
    let found = nearest_colour_iou(&SCENES);
    assert!(found < 0.12, "{found}");
    // The measure itself works: with pictures painted in their classes' colours it finds nearly everything.
    let coded: Vec<Scene> = (SCENES.iter().cloned())
        .map(|mut scene| {
            for ((row, col, channel), byte) in scene.image.indexed_iter_mut() {
                *byte = CLASSES[usize::from(scene.label[[row, col]])].1[channel];
            }
            scene
        })
        .collect();
    let control = nearest_colour_iou(&coded);
    assert!(control > 0.5, "{control}");
}
