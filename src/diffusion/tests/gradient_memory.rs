//! Memory of gradients through networks, counted in the allocator: what is kept, the effect of the budget, and how the
//! peak grows.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use candle_core::{DType, Device, Tensor, Var};
use common::shapes;
use lsregen_diffusion::models::unet::{Added, Conditioning, PassOptions, UNet};
use lsregen_diffusion::models::unet::{AttentionKind, AttentionLayer};
use lsregen_diffusion::models::{Blueprint, Model};
use lsregen_tensor::noise::Generator;
use lsregen_tensor::ops;
use lsregen_weights::{ModelFiles, Precision};

/// Counts the bytes that are in use.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    TOTAL.fetch_add(bytes, Ordering::Relaxed);
    PEAK.fetch_max(LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes, Ordering::Relaxed);
}

// SAFETY: the system's allocator does all the work; this type only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the same contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// One measurement at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// The memory of a function call, in bytes: held by its result, at the peak, and allocated in total.
#[derive(Debug)]
struct Used {
    kept: usize,
    peak: usize,
    total: usize,
}

fn used<T>(f: impl FnOnce() -> T) -> (T, Used) {
    let (live, total) = (LIVE.load(Ordering::Relaxed), TOTAL.load(Ordering::Relaxed));
    PEAK.store(live, Ordering::Relaxed);
    let result = f();
    let kept = LIVE.load(Ordering::Relaxed).saturating_sub(live);
    (result, Used { kept, peak: PEAK.load(Ordering::Relaxed) - live, total: TOTAL.load(Ordering::Relaxed) - total })
}

fn noise(shape: &[usize]) -> Tensor {
    Generator::new(3).randn(shape, &Device::Cpu).unwrap()
}

fn built_in(name: &str, bytes: u64) -> Model {
    let blueprint = Blueprint::open(&ModelFiles::Folder(shapes(name)).into()).unwrap();
    Model::new(blueprint, Precision::new(DType::F32, &Device::Cpu), false).with_gradient_memory(bytes)
}

fn conditioning(name: &str, net: &UNet) -> Conditioning {
    let context = noise(&[1, 32, net.config().cross_attention_dim]);
    let time_ids = Tensor::new(&[[256f32, 256.0, 0.0, 0.0, 256.0, 256.0]], &Device::Cpu).unwrap();
    let added = (name == "xl").then(|| Added { text_embeds: noise(&[1, 64]), time_ids });
    Conditioning {
        objs: (name == "gligen").then(|| noise(&[1, 30, 64])),
        context,
        added,
        guidance: None,
        channels: None,
    }
}

/// Returns the bytes that are kept after the forward pass, and the peak of the whole gradient.
fn gradient(side: usize, f: impl Fn(&Tensor) -> Tensor) -> (usize, usize) {
    let z = Var::from_tensor(&noise(&[1, 4, side, side])).unwrap();
    let (kept, all) = used(|| {
        let (sum, forward) = used(|| f(z.as_tensor()).sum_all().unwrap());
        drop(sum.backward().unwrap());
        forward.kept
    });
    (kept, all.peak)
}

fn through_unet(name: &str, side: usize, bytes: u64) -> (usize, usize) {
    let net = built_in(name, bytes).unet().unwrap();
    let c = conditioning(name, &net);
    gradient(side, |z| net.forward(z, 501.0, &c).unwrap())
}

fn through_decoder(side: usize, bytes: u64) -> (usize, usize) {
    let vae = built_in("xl", bytes).vae().unwrap();
    gradient(side, |z| vae.decode(z).unwrap())
}

type Through = fn(usize, u64) -> (usize, usize);

/// Networks, each with the sides of two latents.
const NETWORKS: [(&str, Through, [usize; 2]); 3] = [
    ("xl", |side, bytes| through_unet("xl", side, bytes), [32, 48]),
    ("gligen", |side, bytes| through_unet("gligen", side, bytes), [16, 32]),
    ("decoder", through_decoder, [16, 24]),
];

#[test]
fn peaks_grow_at_most_half_as_fast_with_rematerialisation() {
    let _alone = alone();
    for (name, through, [small, large]) in NETWORKS {
        let grown = |bytes| (through(large, bytes).1 - through(small, bytes).1) as f64;
        let (kept, again) = (grown(u64::MAX), grown(0));
        println!("{name}: the peak grows by {kept} bytes, with everything computed again by {again}");
        assert!(again < 0.5 * kept, "{name}: {again} bytes more, kept {kept}");
    }
}

/// The budget's estimate of what blocks keep is right within a fifth, and the network does not keep much more than the
/// budget.
#[test]
fn budgets_are_kept() {
    let _alone = alone();
    for (name, through, [side, _]) in NETWORKS {
        let kept = |bytes| through(side, bytes).0;
        kept(0); // The first pass also allocates what later ones share.
        let (least, most) = (kept(0), kept(u64::MAX));
        // Finds the smallest budget with which no block is recomputed.
        let (mut low, mut high) = (0, 8 * most as u64);
        // The test harness allocates beside the network, now and then, but far less than a block keeps.
        let is_most = |bytes: usize| bytes.abs_diff(most) < 4096;
        assert!(is_most(kept(high)));
        while high - low > high / 50 {
            let middle = (low + high) / 2;
            if is_most(kept(middle)) { high = middle } else { low = middle }
        }
        let ratio = high as f64 / (most - least) as f64;
        println!(
            "{name}: blocks keep {} bytes beside what goes in and out, estimated {high}: {ratio:.2}",
            most - least
        );
        assert!((0.8..1.25).contains(&ratio), "{name}: {ratio}");
        for part in [0.2, 0.5, 0.8] {
            let budget = part * high as f64;
            let more = (kept(budget as u64) - least) as f64;
            assert!(more > 0.0 && more < 1.3 * budget, "{name}: {more} bytes where {budget} are allowed");
        }
    }
}

/// Neither the value nor the gradient of attention allocates N×M numbers.
#[test]
fn attention_never_has_all_weights() {
    let _alone = alone();
    let (n, d) = (4096, 8);
    let (q, k, v) = (noise(&[1, d, n]), noise(&[1, d, n]), noise(&[1, n, d]));
    let vars = [q, k, v].map(|t| Var::from_tensor(&t).unwrap());
    let [q, k, v] = &vars;
    let (gradients, used) = used(|| {
        let y = ops::attention(q, k, v, 1, false).unwrap();
        y.sqr().unwrap().sum_all().unwrap().backward().unwrap()
    });
    assert!(vars.iter().all(|var| gradients.get(var).is_some()));
    assert!(used.peak < n * n * 4 / 4, "{used:?}");
}

/// Layers after the last wanted map are not computed.
#[test]
fn passes_end_after_the_last_map() {
    let _alone = alone();
    let net = built_in("gligen", u64::MAX).unet().unwrap();
    let (c, z) = (conditioning("gligen", &net), noise(&[1, 4, 16, 16]));
    let total = |wanted: &dyn Fn(&AttentionLayer) -> bool| {
        let (maps, used) =
            used(|| net.attention_maps(&z, 501.0, &c, AttentionKind::Cross, wanted, &PassOptions::default()).unwrap());
        assert!(!maps.is_empty());
        used.total as f64
    };
    let places = net.attention_layers();
    let (first, last) = (total(&|p| *p == places[0]), total(&|p| *p == places[places.len() - 1]));
    let (_, whole) = used(|| net.forward(&z, 501.0, &c).unwrap());
    println!("of {} bytes: {first} to the first map, {last} to the last", whole.total);
    assert!(first < 0.3 * last && last < whole.total as f64);
}
