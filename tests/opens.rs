//! How often a command opens the files of a model, as the kernel counts it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use inotify::{EventMask, Inotify, WatchMask};

use crate::{copy_folder, lsregen, outcome, repository};

/// Files of a model. The kernel may merge two equal events in a row, so several files are watched: a second opening of the
/// model opens all of them.
const FILES: [&str; 4] = [
    "vae/config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
];

/// Runs a verb on the graph in `folder`; returns how often it opened each of [`FILES`].
fn opens(folder: &Path, arguments: &[&str]) -> [usize; FILES.len()] {
    let mut inotify = Inotify::init().unwrap();
    let watches = FILES.map(|file| {
        let mask = WatchMask::OPEN | WatchMask::CLOSE | WatchMask::ACCESS;
        inotify.watches().add(folder.join("model").join(file), mask).unwrap()
    });
    let mut command = lsregen();
    command.current_dir(folder).args(arguments).args(["graph.yaml", "--set", "prompt=a red circle"]);
    let (_, stderr, code) = outcome(command.output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    let mut counts = [0; FILES.len()];
    let mut buffer = [0; 1 << 16];
    loop {
        match inotify.read_events(&mut buffer) {
            Ok(events) => {
                for event in events.filter(|event| event.mask.contains(EventMask::OPEN)) {
                    counts[watches.iter().position(|watch| *watch == event.wd).unwrap()] += 1;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return counts,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sets the modification time of a folder and of everything in it.
fn age(folder: &Path, time: SystemTime) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => age(&path, time),
            false => fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap(),
        }
    }
    fs::File::open(folder).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_model_is_opened_once_in_a_check_and_at_most_twice_in_a_run() {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&repository("models/shapes/gligen"), &folder.path().join("model"));
    // A file or folder that was just written may be written again within the same tick of the clock, so that neither its
    // digest nor a blueprint made of it is shared.
    age(&folder.path().join("model"), SystemTime::now() - Duration::from_secs(3600));
    thread::sleep(Duration::from_millis(100));
    let graph = "lsregen: 1\nparams: { prompt: a circle }\nnodes:\n\
        \x20 model: { type: LoadModel, model: ./model }\n\
        \x20 again: { type: LoadModel, model: ./model }\n\
        \x20 layout: { type: GLIGENLayout, model: model, prompt: '${prompt}', boxes: [], steps: 1, slots: 1, cfg: 1,\n\
        \x20   width: 64, height: 64 }\n\
        \x20 image: { type: Decode, model: again, latent: layout.latent }\n\
        \x20 save: { type: SaveImage, image: image, path: out.png }\n";
    fs::write(folder.path().join("graph.yaml"), graph).unwrap();
    assert_eq!(opens(folder.path(), &["check"]), [1; FILES.len()]);
    assert_eq!(opens(folder.path(), &["graph"]), [1; FILES.len()]);
    // Once for the blueprint, and once for the digest of its content.
    let counts = opens(folder.path(), &["run", "--no-cache", "--device", "cpu"]);
    assert!(counts.iter().all(|count| (1..=2).contains(count)), "{counts:?}");
}
