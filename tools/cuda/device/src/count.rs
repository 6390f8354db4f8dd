//! Counts of everything that a program asks of the device, as JSON.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Map, Value, json};

use crate::mode::settings;

/// A group of the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// A call of a function of the driver or of a library, by name.
    Call,
    /// A kernel, by name.
    Kernel,
    /// A matrix product, by type and shape.
    Gemm,
    /// A convolution, by type and shape.
    Convolution,
    /// A fused attention, by type and shape.
    Attention,
    /// Random numbers, by distribution.
    Random,
    /// A copy, by direction.
    Copy,
    /// A fill of memory.
    Fill,
    /// A launch of a graph.
    Graph,
    /// A wait of the host, by function.
    Synchronisation,
    /// An allocation of device memory, by function.
    Allocation,
    /// A free of device memory, by function.
    Free,
}

impl Counted {
    fn key(self) -> &'static str {
        match self {
            Counted::Call => "calls",
            Counted::Kernel => "kernels",
            Counted::Gemm => "gemms",
            Counted::Convolution => "convolutions",
            Counted::Attention => "attentions",
            Counted::Random => "random",
            Counted::Copy => "copies",
            Counted::Fill => "fills",
            Counted::Graph => "graphs",
            Counted::Synchronisation => "synchronisations",
            Counted::Allocation => "allocations",
            Counted::Free => "frees",
        }
    }
}

/// What is added to a count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    pub count: u64,
    /// Bytes that the work must move at least.
    pub bytes: u64,
    /// Bytes that a kernel read, each access counted.
    pub read: u64,
    /// Bytes that a kernel wrote, each access counted.
    pub written: u64,
    pub flops: f64,
    /// Threads of kernels.
    pub threads: u64,
}

static COUNTS: Mutex<BTreeMap<(Counted, String), Amount>> = Mutex::new(BTreeMap::new());

/// Adds one to a count.
pub fn count(group: Counted, name: &str, bytes: u64, flops: f64) {
    add(group, name, Amount { count: 1, bytes, flops, ..Amount::default() });
}

/// Adds to a count.
pub fn add(group: Counted, name: &str, amount: Amount) {
    let mut counts = COUNTS.lock().unwrap_or_else(|e| e.into_inner());
    let total = counts.entry((group, name.to_owned())).or_default();
    total.count += amount.count;
    total.bytes += amount.bytes;
    total.read += amount.read;
    total.written += amount.written;
    total.flops += amount.flops;
    total.threads += amount.threads;
}

/// Returns the counts as JSON.
pub fn report(fault: Option<&str>) -> Value {
    let mut groups: BTreeMap<&str, (Amount, Map<String, Value>)> = BTreeMap::new();
    // A fault may have interrupted the owner of this lock. Then there are no counts.
    if let Ok(counts) = COUNTS.try_lock() {
        for ((group, name), amount) in counts.iter() {
            let (total, names) = groups.entry(group.key()).or_default();
            total.count += amount.count;
            total.bytes += amount.bytes;
            total.flops += amount.flops;
            names.insert(name.clone(), json(amount));
        }
    }
    let mut top = Map::new();
    if let Some(fault) = fault {
        top.insert("fault".into(), fault.into());
    }
    top.insert("memory".into(), crate::memory::report());
    for (group, (total, names)) in groups {
        let mut group_json = json(&total);
        group_json["by_name"] = Value::Object(names);
        top.insert(group.into(), group_json);
    }
    Value::Object(top)
}

fn json(amount: &Amount) -> Value {
    let mut value = json!({ "count": amount.count });
    for (key, number) in
        [("bytes", amount.bytes), ("read", amount.read), ("written", amount.written), ("threads", amount.threads)]
    {
        if number > 0 {
            value[key] = number.into();
        }
    }
    if amount.flops > 0.0 {
        value["flops"] = amount.flops.into();
    }
    value
}

/// Writes the counts to the file of `CUDA_DEVICE_COUNTS`.
pub fn write(fault: Option<&str>) {
    let Some(path) = &settings().counts else { return };
    let text = serde_json::to_string_pretty(&report(fault)).unwrap_or_default();
    if let Err(error) = std::fs::write(path, text + "\n") {
        eprintln!("software CUDA device: cannot write {}: {error}", path.display());
    }
}
