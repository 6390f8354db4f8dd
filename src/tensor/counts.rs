//! Counts and times of what a program asks of its device: see [`crate::profile`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Kernels, by name. Those of a CUDA graph are counted at each of its launches, without times.
    Kernels,
    /// Matrix products of cuBLAS and cuBLASLt, by dtype and shape.
    Gemms,
    /// Convolutions of cuDNN, by dtype and shape.
    Convolutions,
    /// Attentions of cuDNN, by shape.
    Attentions,
    /// Other operations of cuDNN, by name.
    Operations,
    /// Launches of CUDA graphs.
    Graphs,
    /// Copies, by direction.
    Copies,
    /// Fills of memory, by function.
    Fills,
    /// Waits of the host for the device, by function. Their time is the host's.
    Synchronisations,
    /// Allocations of device memory, by function.
    Allocations,
    /// Frees of device memory, by function.
    Frees,
    /// Calls of functions of the driver and the libraries, by function.
    Calls,
}

/// The sum of what has one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// Bytes that were copied, filled or allocated.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Time on the device, in microseconds; for a synchronisation the time that the host waited.
    #[serde(skip_serializing_if = "is_no_time", serialize_with = "to_nanoseconds")]
    pub microseconds: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_no_time(time: &f64) -> bool {
    *time == 0.0
}

/// Without the digits that summation adds.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn to_nanoseconds<S: Serializer>(time: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time * 1e3).round() / 1e3)
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.microseconds += other.microseconds;
    }
}

/// What a scope has asked of the device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// By group and name.
    pub groups: BTreeMap<Group, BTreeMap<Arc<str>, Tally>>,
    /// The most bytes of device memory that were allocated at a time, by the whole program.
    pub peak: u64,
    /// The bytes that were allocated at the end.
    pub in_use: u64,
    /// How many [`Launch`]es had begun at the end, in all scopes: their times are complete when as many are
    /// [resolved](Drained::resolved).
    pub launched: u64,
}

impl Counts {
    /// Adds to a name.
    pub fn add(&mut self, group: Group, name: &Arc<str>, tally: Tally) {
        let names = self.groups.entry(group).or_default();
        match names.get_mut(name) {
            Some(sum) => sum.add(tally),
            None => drop(names.insert(name.clone(), tally)),
        }
    }

    /// Adds what is in another's groups, such as [times](Drained::times).
    pub fn add_groups(&mut self, other: &Counts) {
        for (group, names) in &other.groups {
            names.iter().for_each(|(name, tally)| self.add(*group, name, *tally));
        }
    }

    /// Adds the counts of a later scope.
    pub fn merge(&mut self, later: &Counts) {
        self.add_groups(later);
        self.peak = self.peak.max(later.peak);
        self.in_use = later.in_use;
        self.launched = self.launched.max(later.launched);
    }

    /// The sum of a group.
    pub fn total(&self, group: Group) -> Tally {
        let mut total = Tally::default();
        self.groups.get(&group).into_iter().flat_map(BTreeMap::values).for_each(|tally| total.add(*tally));
        total
    }

    /// Whether nothing was asked.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// As an object: each group with its sum and its names, and the memory.
impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Sums<'a> {
            #[serde(flatten)]
            total: Tally,
            by_name: &'a BTreeMap<Arc<str>, Tally>,
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("memory", &BTreeMap::from([("in_use", self.in_use), ("peak", self.peak)]))?;
        for (group, by_name) in &self.groups {
            map.serialize_entry(group, &Sums { total: self.total(*group), by_name })?;
        }
        map.end()
    }
}

/// Something that ran on the device, with its times by CUDA's events.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Its group.
    pub group: Group,
    /// Its name in the group.
    pub name: Arc<str>,
    /// The scope that asked for it.
    pub scope: u64,
    /// Its stream, as the address that CUDA knows it by.
    pub stream: usize,
    /// When it began, after [`start`](crate::profile::start).
    pub start: Duration,
    /// How long it ran.
    pub duration: Duration,
}

/// The bytes of device memory in use from a moment on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemorySample {
    /// The moment, after [`start`](crate::profile::start).
    pub at: Duration,
    /// The bytes.
    pub in_use: u64,
}

/// What has ended on the device since the former call of [`drain`](crate::profile::drain).
#[derive(Debug, Default)]
pub struct Drained {
    /// What ran, in the order of the calls. Those beyond the limit of [`start`](crate::profile::start) are missing.
    pub launches: Vec<Launch>,
    /// How many are missing.
    pub left_out: u64,
    /// The times of everything that ran, by scope. Their counts are 0.
    pub times: BTreeMap<u64, Counts>,
    /// How the memory in use has changed. Small changes are left out.
    pub memory: Vec<MemorySample>,
    /// How many launches have ended, or failed, in all.
    pub resolved: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_by_group_and_name() {
        let (copy, fill) = (Arc::from("host to device"), Arc::from("cuMemsetD8Async"));
        let tally = |bytes| Tally { count: 1, bytes, microseconds: 0.5 };
        let mut counts = Counts { peak: 10, ..Counts::default() };
        counts.add(Group::Copies, &copy, tally(3));
        let mut later = Counts { peak: 7, in_use: 5, ..Counts::default() };
        later.add(Group::Copies, &copy, tally(4));
        later.add(Group::Fills, &fill, Tally { count: 1, ..Tally::default() });
        counts.merge(&later);
        let json = serde_json::to_value(&counts).unwrap();
        let sum = serde_json::json!({ "count": 2, "bytes": 7, "microseconds": 1.0 });
        assert_eq!(json["copies"]["by_name"]["host to device"], sum);
        assert_eq!(json["copies"]["bytes"], 7);
        assert_eq!(json["fills"]["by_name"]["cuMemsetD8Async"], serde_json::json!({ "count": 1 }));
        assert_eq!(json["memory"], serde_json::json!({ "in_use": 5, "peak": 10 }));
    }
}
