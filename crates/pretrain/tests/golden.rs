//! Agreement with PyTorch: head, loss, centre, schedules, averaging, clipping, the vision transformer's gradients, and
//! twenty whole steps.
//!
//! Heads, losses, schedules and the rest run over every case `10_*` of the reference folder `$FEATLAB_GOLDEN`, where there is
//! one, with what varies read from their `case.json`; gradients of the transformer and whole steps over our own numbers
//! (`tests/golden/pretrain`, with the script that made them). A tensor `NAME.f64` is the better reference for `NAME`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test file: helpers outside `#[test]` are tests too"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backbone::VitConfig;
use ndarray::Array3;
use pretrain::{
    Activations, BackboneConfig, Branch, Center, Dino, DinoConfig, Head, HeadActivations, HeadConfig, Layout,
    LossConfig, LossShape, Mode, OptimizerConfig, Readout, TeacherConfig, TensorSpec, TrainConfig, Views,
    ViewsConfig, Vit, clip_gradients, cosine_schedule, ema, student_loss, teacher_targets,
    teacher_temperatures,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Shape and numbers by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

fn read(path: &Path) -> Tensors {
    let Ok(bytes) = std::fs::read(path) else { return Tensors::new() };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| {
        let data = view.data();
        let values: Vec<f64> = match view.dtype() {
            Dtype::F64 => data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b).into()).collect(),
            other => panic!("{name} has dtype {other:?}"),
        };
        (name.to_owned(), (view.shape().to_vec(), values))
    });
    tensors.collect()
}

fn floats(tensors: &Tensors, name: &str) -> Vec<f32> {
    let values = tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
    values.1.iter().map(|&x| x as f32).collect()
}

/// What is expected under a name: the double-precision version if there is one.
fn wanted<'a>(tensors: &'a Tensors, name: &str) -> &'a [f64] {
    let better = tensors.get(&format!("{name}.f64"));
    &better.or_else(|| tensors.get(name)).unwrap_or_else(|| panic!("no tensor {name}")).1
}

/// All numbers within `relative` of the largest, and at least `floor`.
fn close(got: &[f32], want: &[f64], relative: f64, floor: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let limit = (relative * want.iter().fold(0.0, |top: f64, x| top.max(x.abs()))).max(floor);
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(*got) - want).abs();
        assert!(
            off <= limit,
            "{what}: entry {i} is {got}, expected {want}, off by {off:e}, allowed {limit:e}"
        );
    }
}

struct Case {
    json: Value,
    input: Tensors,
    expected: Tensors,
    name: String,
}

fn reference_cases(prefix: &str) -> Vec<Case> {
    let root = match std::env::var_os("FEATLAB_GOLDEN") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"),
    };
    let Ok(entries) = std::fs::read_dir(&root) else {
        assert!(std::env::var_os("FEATLAB_GOLDEN").is_none(), "no reference folder at {}", root.display());
        println!("skipped: no reference folder at {}", root.display());
        return Vec::new();
    };
    let folders = entries.map(|entry| entry.unwrap().path());
    let matching = folders.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix));
    let load = |folder: PathBuf| Case {
        json: serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap(),
        input: read(&folder.join("input.safetensors")),
        expected: read(&folder.join("expected.safetensors")),
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
    };
    let cases: Vec<Case> = matching.map(load).collect();
    assert!(!cases.is_empty(), "no case {prefix}* in {}", root.display());
    cases
}

impl Case {
    fn size(&self, name: &str) -> usize {
        usize::try_from(self.json["params"][name].as_u64().unwrap_or_else(|| panic!("no {name}"))).unwrap()
    }

    fn number(&self, name: &str) -> f64 {
        self.json["params"][name].as_f64().unwrap_or_else(|| panic!("no {name}"))
    }

    fn flag(&self, name: &str) -> bool {
        self.json["params"][name].as_bool().unwrap_or_else(|| panic!("no {name}"))
    }

    fn tolerance(&self, name: &str) -> f64 {
        self.json["tolerance"][name].as_f64().unwrap_or(0.0)
    }

    fn close(&self, got: &[f32], name: &str) {
        let (relative, floor) = (self.tolerance("rel_to_max"), self.tolerance("abs_floor"));
        close(got, wanted(&self.expected, name), relative, floor, &format!("{name} of {}", self.name));
    }
}

/// A vector that lies as the layout says.
fn gather(layout: &Layout, tensors: &Tensors, prefix: &str) -> Vec<f32> {
    layout.tensors().iter().flat_map(|tensor| floats(tensors, &format!("{prefix}{}", tensor.name))).collect()
}

/// One head's case: inputs and results under `prefix`, compared by `close`.
fn check_head(
    config: &HeadConfig,
    in_dim: usize,
    (input, expected): (&Tensors, &Tensors),
    prefix: &str,
    names: [&str; 2],
    close: impl Fn(&[f32], &str),
) {
    let (mut layout, mut buffers) = (Layout::default(), Layout::default());
    let head = Head::add(&mut layout, &mut buffers, "", in_dim, config);
    let params = gather(&layout, input, &format!("{prefix}state."));
    let mut running = gather(&buffers, input, &format!("{prefix}state."));
    let [x, w] = names.map(|name| floats(input, &format!("{prefix}{name}")));
    let (mut kept, mut out, mut dx) = (HeadActivations::default(), Vec::new(), Vec::new());
    let mut grads = vec![0.0; layout.len()];
    head.prepare(&params, &mut kept);
    head.forward(&params, &mut running, Mode::Train, &x, &mut kept, &mut out);
    close(&out, "out");
    head.backward(&params, &mut grads, &w, &mut kept, &mut dx);
    head.finish(&params, &mut grads, &kept);
    close(&dx, "grad_x");
    for tensor in layout.tensors().iter().filter(|t| !config.norm_last_layer || !t.name.ends_with("weight_g"))
    {
        close(tensor.slot.of(&grads), &format!("grad.{}", tensor.name));
    }
    for tensor in buffers.tensors() {
        close(tensor.slot.of(&running), &format!("after.{}", tensor.name));
    }
    if expected.contains_key(&format!("{prefix}out_eval")) {
        head.forward(&params, &mut running, Mode::Eval, &x, &mut kept, &mut out);
        close(&out, "out_eval");
    }
}

#[test]
fn reference_heads() {
    for case in reference_cases("10_dino_head") {
        let config = HeadConfig {
            out_dim: case.size("out_dim"),
            hidden_dim: case.size("hidden_dim"),
            bottleneck_dim: case.size("bottleneck_dim"),
            layers: case.size("nlayers"),
            use_bn: case.flag("use_bn"),
            norm_last_layer: !case.flag("trains_g"),
        };
        let tensors = (&case.input, &case.expected);
        check_head(&config, case.size("in_dim"), tensors, "", ["x", "w"], |got, name| case.close(got, name));
    }
}

#[test]
fn reference_losses() {
    for case in reference_cases("10_dino_loss") {
        let (batch, views, k) = (case.size("batch"), case.size("ncrops"), case.size("out_dim"));
        let temperatures = teacher_temperatures(
            case.number("warmup_teacher_temp"),
            case.number("teacher_temp"),
            case.size("warmup_teacher_temp_epochs"),
            case.size("nepochs"),
        );
        let wanted_temperatures = wanted(&case.expected, "teacher_temp_schedule");
        assert!(temperatures.iter().zip(wanted_temperatures).all(|(a, b)| (a - b).abs() < 1e-12));
        let mut center = Center::new(k, case.number("center_momentum"));
        let epochs = case.json["params"]["epochs_of_calls"].as_array().unwrap();
        for (call, epoch) in epochs.iter().enumerate() {
            let mut teacher = floats(&case.input, &format!("teacher.{call}"));
            let mut student = floats(&case.input, &format!("student.{call}"));
            let temperature = temperatures[usize::try_from(epoch.as_u64().unwrap()).unwrap()];
            center.observe(&teacher);
            teacher_targets(&mut teacher, &center.values, temperature, &mut Vec::new());
            let shape = LossShape { images: batch, views, batch, temperature: case.number("student_temp") };
            let loss = student_loss(&mut student, &teacher, shape, &mut Vec::new());
            center.update();
            case.close(&[loss as f32], &format!("loss.{call}"));
            case.close(&student, &format!("grad.{call}"));
            case.close(&center.values, &format!("center.{call}"));
        }
    }
}

#[test]
fn reference_averages_clipping_and_decay_groups() {
    for case in reference_cases("10_dino_misc") {
        let names = || (0..).map(|i| format!("student.{i}")).take_while(|name| case.input.contains_key(name));
        let mut layout = Layout::default();
        for name in names() {
            layout.add(name.clone(), &case.input[&name].0);
        }
        let of = |kind: &str| {
            names().flat_map(|name| floats(&case.input, &name.replace("student", kind))).collect::<Vec<f32>>()
        };
        let (student, mut teacher, mut grads) = (of("student"), of("teacher"), of("grad"));
        let momenta = case.json["params"]["momentum"].as_array().unwrap();
        momenta.iter().for_each(|momentum| ema(&mut teacher, &student, momentum.as_f64().unwrap()));
        let norms = clip_gradients(&layout, &mut grads, case.number("clip"));
        let norms: Vec<f32> = norms.iter().map(|&norm| norm as f32).collect();
        case.close(&norms, "norms");
        for tensor in layout.tensors() {
            case.close(tensor.slot.of(&teacher), &tensor.name.replace("student", "teacher_after"));
            case.close(tensor.slot.of(&grads), &tensor.name.replace("student", "clipped"));
        }
        check_groups(&case.json["params"]);
    }
}

/// Names and ranks decide over weight decay; a network of the case's names is made to see which.
fn check_groups(params: &Value) {
    let vit = VitConfig { depth: 1, ..VitConfig::by_name("vit_micro_patch8").unwrap() };
    let head = HeadConfig { out_dim: 4, hidden_dim: 8, bottleneck_dim: 4, ..HeadConfig::default() };
    let network = pretrain::Network::new(&vit, Readout::Class, &head);
    for (group, exempt) in [("regularised", false), ("not_regularised", true)] {
        for name in params[group].as_array().unwrap() {
            let tensor = network.layout.tensors().iter().find(|tensor| tensor.name == name.as_str().unwrap());
            assert_eq!(tensor.map(TensorSpec::is_exempt_from_decay), Some(exempt), "{name}");
        }
    }
}

#[test]
fn reference_schedules() {
    for case in reference_cases("10_schedules") {
        let per_epoch = case.size("niter_per_ep");
        let n = case.size("epochs") * per_epoch;
        for (name, want) in &case.expected {
            let about = &case.json["params"][name];
            let number = |key: &str| about[key].as_f64().unwrap_or(0.0);
            let warmup = number("warmup_epochs") as usize * per_epoch;
            let got =
                cosine_schedule(number("base"), number("final"), n, warmup, number("start_warmup_value"));
            assert_eq!(got.len(), want.1.len());
            for (i, (got, want)) in got.iter().zip(&want.1).enumerate() {
                assert!(
                    (got - want).abs() <= 1e-12 * want.abs(),
                    "{name} of {}: {i}: {got} {want}",
                    case.name
                );
            }
        }
    }
}

// Our own numbers.

#[test]
fn heads_with_and_without_batch_norm() {
    let tensors = own("head.safetensors");
    for (name, layers, use_bn, trains_g) in
        [("plain", 3, false, false), ("bn", 3, true, false), ("g", 2, true, true), ("one", 1, false, true)]
    {
        let config = HeadConfig {
            out_dim: 32,
            hidden_dim: 20,
            bottleneck_dim: 12,
            layers,
            use_bn,
            norm_last_layer: !trains_g,
        };
        let prefix = format!("{name}.");
        check_head(&config, 12, (&tensors, &tensors), &prefix, ["x", "weight"], |got, what| {
            let what = format!("{prefix}{what}");
            // A bias in front of a batch norm has no effect: its gradient is 0 but for rounding.
            close(got, wanted(&tensors, &what), 1e-5, 1e-5, &what);
        });
    }
}

fn own(name: &str) -> Tensors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/pretrain").join(name);
    let tensors = read(&path);
    assert!(!tensors.is_empty(), "{}", path.display());
    tensors
}

/// The network of `make.py`: d 12, depth 2, 3 heads, patches of 4, a table of 4 x 4.
fn small_vit() -> VitConfig {
    VitConfig {
        embed_dim: 12,
        depth: 2,
        num_heads: 3,
        mlp_dim: 48,
        patch_size: 4,
        grid: 4,
        ..VitConfig::by_name("vit_micro_patch8").unwrap()
    }
}

#[test]
fn the_way_back_through_the_transformer() {
    let tensors = own("vit.safetensors");
    for (name, readout) in [("class", Readout::Class), ("mean", Readout::Mean)] {
        for size in [(16, 16), (12, 20)] {
            let case = format!("{name}.{}x{}", size.0, size.1);
            let mut layout = Layout::default();
            let vit = Vit::add(&mut layout, "backbone.", &small_vit(), readout);
            let params = gather(&layout, &tensors, "param.");
            let (images, weight) =
                (floats(&tensors, &format!("{case}.images")), floats(&tensors, &format!("{case}.weight")));
            let (mut kept, mut out, mut grads) =
                (Activations::default(), Vec::new(), vec![0.0; layout.len()]);
            vit.forward(&params, &images, size, |_| [Branch::new(), Branch::new()], &mut kept, &mut out);
            close(&out, wanted(&tensors, &format!("{case}.out")), 1e-5, 0.0, &case);
            vit.backward(&params, &mut grads, &weight, &mut kept);
            for tensor in layout.tensors() {
                let name = format!("{case}.grad.{}", tensor.name);
                // A key's bias shifts all scores of a query alike: its gradient is 0 but for rounding.
                close(tensor.slot.of(&grads), wanted(&tensors, &name), 1e-4, 1e-6, &name);
            }
        }
    }
}

/// Steps of the run.
const STEPS: usize = 20;

/// The run of `make.py`, and its views.
fn small_run(tensors: &Tensors, micro_batch: usize) -> (Dino, Vec<Vec<Views>>) {
    let config = DinoConfig {
        backbone: BackboneConfig {
            arch: "vit_micro_patch8".into(),
            embed_dim: Some(12),
            depth: Some(2),
            num_heads: Some(3),
            patch_size: Some(4),
            table_size: 16,
            drop_path: 0.0,
            ..BackboneConfig::default()
        },
        head: HeadConfig { out_dim: 32, hidden_dim: 20, bottleneck_dim: 12, ..HeadConfig::default() },
        views: ViewsConfig { global_size: 16, local_size: 8, locals: 3, ..ViewsConfig::default() },
        loss: LossConfig::default(),
        teacher: TeacherConfig { momentum: 0.9, warmup_temp: 0.04, temp: 0.07, warmup_temp_epochs: 2 },
        optimizer: OptimizerConfig {
            lr: 0.1,
            min_lr: 4e-4,
            warmup_epochs: 1,
            clip_grad: 0.05,
            ..OptimizerConfig::default()
        },
        train: TrainConfig {
            epochs: 4,
            batch_size: 4,
            micro_batch: Some(micro_batch),
            seed: 0,
            ..TrainConfig::default()
        },
    };
    let mut dino = Dino::new(config, 20).unwrap();
    dino.state.student = gather(dino.layout(), tensors, "start.");
    dino.state.teacher = dino.state.student.clone();
    // What `make.py` calls `view`.
    let view = |step: usize, image: usize, view: usize| {
        let side = if view < 2 { 16 } else { 8 };
        let len = 3 * side * side;
        let value = |i: usize| ((image * len + i + 1000 * step + 37 * view) as f64).sin() as f32;
        Array3::from_shape_vec((3, side, side), (0..len).map(value).collect()).unwrap()
    };
    let step = |step: usize| (0..4).map(|image| (0..5).map(|v| view(step, image, v)).collect()).collect();
    let views = (0..STEPS).map(step).collect();
    (dino, views)
}

#[test]
fn twenty_steps_of_dino() {
    let tensors = own("dino.safetensors");
    for micro_batch in [4, 3, 1] {
        let (mut dino, views) = small_run(&tensors, micro_batch);
        for (step, views) in views.iter().enumerate() {
            let loss = dino.step(views).unwrap().loss;
            close(&[loss as f32], wanted(&tensors, &format!("loss.{step}")), 1e-4, 0.0, "loss");
        }
        close(&dino.state.center.values, wanted(&tensors, "center"), 1e-4, 0.0, "center");
        for (what, values) in [("student", &dino.state.student), ("teacher", &dino.state.teacher)] {
            for tensor in dino.layout().tensors() {
                let name = format!("{what}.{}", tensor.name);
                let (got, want) = (tensor.slot.of(values), wanted(&tensors, &name));
                if tensor.name.ends_with("qkv.bias") {
                    // A key's bias has no effect. Adam divides its gradient, which is rounding noise, by its size.
                    let d = want.len() / 3;
                    close(&got[..d], &want[..d], 2e-4, 0.0, &name);
                    close(&got[2 * d..], &want[2 * d..], 2e-4, 0.0, &name);
                } else {
                    close(got, want, 2e-4, 0.0, &name);
                }
            }
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let tensors = own("dino.safetensors");
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (mut dino, views) = small_run(&tensors, 2);
        pool.install(|| {
            for views in &views {
                dino.step(views).unwrap();
            }
        });
        dino.state
    };
    let one = run(1);
    assert!([2, 3, 5].into_iter().all(|threads| run(threads) == one));
}
