//! Memory of the device.
//!
//! All of it lies in one reserved arena. A shadow beside the arena has a byte for each byte: 0 outside of allocations,
//! 1 inside, and 3 once the byte was written. Kernels check each access against it. An allocation ends at a page that
//! cannot be read, freed memory cannot be read either, and addresses are used again only after the whole arena was.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, OnceLock};

use crate::code::Code;
use crate::fault::{Fault, fault};
use crate::mode::{Failure, null, settings};

/// The first address of the arena, and its size. `prelude.h` has them too.
pub const BASE: u64 = 0x1000_0000_0000;
pub const SIZE: u64 = 0x0400_0000_0000;
const PAGE: u64 = 4096;
/// CUDA aligns allocations to this.
const ALIGN: u64 = 256;
const ALLOCATED: u8 = 1;
const WRITTEN: u8 = 3;

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// How far an allocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The host has the address. The allocation has not run in its stream yet.
    Reserved,
    Live,
}

/// An allocation.
#[derive(Clone, Debug)]
struct Allocation {
    bytes: u64,
    /// The pages, without the last one, which cannot be read.
    pages: u64,
    stage: Stage,
    /// Whether it is allocated in the order of a stream.
    ordered: bool,
    /// Whether the host has freed it. The free may not have run yet.
    freed: bool,
    /// Whether a graph allocates it. Its addresses stay reserved between launches.
    graph: bool,
    /// Whether the graph was launched.
    launched: bool,
}

/// All allocations.
#[derive(Default)]
struct Registry {
    live: BTreeMap<u64, Allocation>,
    /// The last freed ones: addresses and sizes.
    freed: VecDeque<(u64, u64)>,
    next: u64,
    used: u64,
    peak: u64,
    allocations: u64,
    frees: u64,
}

fn registry() -> MutexGuard<'static, Registry> {
    lock().lock().unwrap_or_else(|e| e.into_inner())
}

fn lock() -> &'static Mutex<Registry> {
    static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        reserve_arena();
        Mutex::default()
    })
}

fn reserve_arena() {
    if null() {
        return;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    for (address, access) in [(BASE, libc::PROT_NONE), (BASE + SIZE, libc::PROT_READ | libc::PROT_WRITE)] {
        // SAFETY: a new mapping, at addresses that nothing else has.
        let at = unsafe { libc::mmap(address as *mut _, SIZE as usize, access, flags, -1, 0) };
        if at as u64 != address {
            fault(Fault::Internal, format!("cannot reserve {SIZE} bytes of addresses at {address:#x}"));
        }
    }
    crate::signal::install();
}

/// Reserves addresses for an allocation, in the order of the host. [`map`] makes them usable.
pub fn reserve(bytes: u64, ordered: bool) -> Result<u64, Code> {
    let mut registry = registry();
    registry.allocations += 1;
    if bytes == 0 {
        return Err(Code::INVALID_VALUE);
    }
    if settings().fail == Some(Failure::Memory(registry.allocations)) {
        return Err(Code::OUT_OF_MEMORY);
    }
    if registry.used + bytes > settings().memory {
        return Err(Code::OUT_OF_MEMORY);
    }
    let pages = bytes.next_multiple_of(PAGE);
    let Some(first) = registry.find(pages + PAGE) else { return Err(Code::OUT_OF_MEMORY) };
    // The allocation ends at the page that cannot be read.
    let address = first + pages - bytes.next_multiple_of(ALIGN);
    registry.next = first + pages + PAGE;
    let stage = Stage::Reserved;
    let allocation = Allocation { bytes, pages, stage, ordered, freed: false, graph: false, launched: false };
    registry.live.insert(address, allocation);
    registry.take(bytes);
    Ok(address)
}

impl Registry {
    fn take(&mut self, bytes: u64) {
        self.used += bytes;
        self.peak = self.peak.max(self.used);
    }

    /// Finds free addresses behind the last ones, so that freed ones are used again as late as possible.
    fn find(&self, span: u64) -> Option<u64> {
        let start = self.next.max(BASE);
        self.gap(start, span).or_else(|| self.gap(BASE, span))
    }

    fn gap(&self, mut at: u64, span: u64) -> Option<u64> {
        // An allocation before this address may reach behind it.
        if let Some((address, allocation)) = self.live.range(..at).next_back() {
            at = at.max(first_page(*address) + allocation.pages + PAGE);
        }
        for (address, allocation) in self.live.range(at..) {
            if first_page(*address) >= at + span {
                break;
            }
            at = first_page(*address) + allocation.pages + PAGE;
        }
        (at + span <= BASE + SIZE).then_some(at)
    }

    /// Returns the allocation that contains an address.
    fn containing(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (start, allocation) = self.live.range(..=address).next_back()?;
        (address < start + allocation.bytes).then_some((*start, allocation))
    }
}

fn first_page(address: u64) -> u64 {
    address / PAGE * PAGE
}

/// Makes a reserved allocation usable, in the order of its stream. A second call of a graph does nothing.
pub fn map(address: u64) {
    let mut registry = registry();
    let Some(allocation) = registry.live.get_mut(&address) else { return };
    if allocation.stage == Stage::Live || null() {
        return;
    }
    allocation.stage = Stage::Live;
    let (bytes, pages) = (allocation.bytes as usize, allocation.pages as usize);
    // SAFETY: the pages are of this allocation alone.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        if libc::mprotect(first_page(address) as *mut _, pages, access) != 0 {
            fault(Fault::Internal, format!("cannot map {pages} bytes; is `vm.max_map_count` reached?"));
        }
        // What nothing wrote should not look like a number.
        std::ptr::write_bytes(address as *mut u8, 0xff, bytes);
        std::ptr::write_bytes((address + SIZE) as *mut u8, ALLOCATED, bytes);
    }
}

/// Takes the memory away, in the order of its stream. The addresses stay reserved if a graph may map them again.
pub fn unmap(address: u64) {
    let mut registry = registry();
    let Some(allocation) = registry.live.get_mut(&address) else { return };
    let (bytes, pages) = (allocation.bytes, allocation.pages);
    let was_live = allocation.stage == Stage::Live;
    allocation.stage = Stage::Reserved;
    if !allocation.graph {
        registry.live.remove(&address);
    }
    registry.freed.push_back((address, bytes));
    if registry.freed.len() > 10_000 {
        registry.freed.pop_front();
    }
    if !was_live {
        return;
    }
    // SAFETY: the pages are of this allocation alone, and nothing reads freed memory.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let at = libc::mmap(first_page(address) as *mut _, pages as usize, libc::PROT_NONE, flags, -1, 0);
        assert!(at as u64 == first_page(address), "the arena is mapped");
        clear_shadow(address + SIZE, bytes);
    }
}

/// Sets shadow bytes to 0, and gives whole pages back.
///
/// # Safety
///
/// The bytes lie in the shadow.
unsafe fn clear_shadow(start: u64, bytes: u64) {
    let end = start + bytes;
    let (inner, inner_end) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
    // SAFETY: see above.
    unsafe {
        if inner >= inner_end {
            std::ptr::write_bytes(start as *mut u8, 0, bytes as usize);
            return;
        }
        std::ptr::write_bytes(start as *mut u8, 0, (inner - start) as usize);
        libc::madvise(inner as *mut _, (inner_end - inner) as usize, libc::MADV_DONTNEED);
        std::ptr::write_bytes(inner_end as *mut u8, 0, (end - inner_end) as usize);
    }
}

/// Notes that the host frees an allocation. Returns whether it is ordered by streams.
pub fn free(address: u64) -> bool {
    let mut registry = registry();
    registry.frees += 1;
    let found = registry.live.get_mut(&address).filter(|a| !a.freed);
    let Some(allocation) = found else {
        drop(registry);
        fault(Fault::InvalidFree, format!("{address:#x} is freed, but is not allocated: {}", describe(address)));
    };
    allocation.freed = true;
    let (bytes, ordered) = (allocation.bytes, allocation.ordered);
    registry.used -= bytes;
    ordered
}

/// Notes that a graph allocates this.
pub fn of_graph(address: u64) {
    if let Some(allocation) = registry().live.get_mut(&address) {
        allocation.graph = true;
    }
}

/// Notes that a graph is launched that allocates this and does not free it. Returns false if the launch before left it.
pub fn launch(address: u64) -> bool {
    let mut registry = registry();
    let Some(allocation) = registry.live.get_mut(&address) else { return true };
    let was_free = !std::mem::replace(&mut allocation.launched, true) || allocation.freed;
    let bytes = allocation.bytes;
    if std::mem::replace(&mut allocation.freed, false) {
        registry.take(bytes);
    }
    was_free
}

/// Returns free and total bytes.
pub fn info() -> (u64, u64) {
    let used = registry().used;
    (settings().memory.saturating_sub(used), settings().memory)
}

/// Returns the bytes in use, and the most that were in use.
pub fn used() -> (u64, u64) {
    let registry = registry();
    (registry.used, registry.peak)
}

/// Returns the allocation around an address: its start and its size.
pub fn allocation(address: u64) -> Option<(u64, u64)> {
    registry().containing(address).map(|(start, allocation)| (start, allocation.bytes))
}

/// Checks that the bytes lie in one live allocation and, for reads, that they were written. Reports a fault and aborts
/// otherwise. A write marks the bytes as written. Call it inside of the work that is enqueued, not when it is enqueued.
pub fn check(what: &str, address: u64, bytes: usize, access: Access) {
    if null() || bytes == 0 {
        return;
    }
    let inside = address >= BASE && address + bytes as u64 <= BASE + SIZE;
    let wanted = if access == Access::Read { WRITTEN } else { ALLOCATED };
    if inside {
        // SAFETY: the shadow has a byte for each of the arena.
        let shadow = unsafe { std::slice::from_raw_parts((address + SIZE) as *const u8, bytes) };
        if shadow.iter().fold(u8::MAX, |all, byte| all & byte) & wanted == wanted {
            if access == Access::Write {
                mark_written(address, bytes);
            }
            return;
        }
    }
    let (kind, text) = explain(address, bytes as u64, access);
    fault(kind, format!("{what}: {text}"))
}

/// Checks that the bytes lie in one live allocation, written or not.
pub fn check_allocated(what: &str, address: u64, bytes: usize) {
    if null() || bytes == 0 {
        return;
    }
    let inside = address >= BASE && address + bytes as u64 <= BASE + SIZE;
    // SAFETY: the shadow has a byte for each of the arena.
    if inside && unsafe { shadow(address, bytes) }.iter().all(|byte| byte & ALLOCATED != 0) {
        return;
    }
    let (kind, text) = explain(address, bytes as u64, Access::Read);
    fault(kind, format!("{what}: {text}"))
}

/// Marks bytes as written.
pub fn mark_written(address: u64, bytes: usize) {
    if !null() {
        // SAFETY: the bytes were checked, and are in the arena.
        unsafe { std::ptr::write_bytes((address + SIZE) as *mut u8, WRITTEN, bytes) };
    }
}

/// Returns the shadow of checked bytes.
///
/// # Safety
///
/// The bytes lie in the arena.
unsafe fn shadow(address: u64, bytes: usize) -> &'static mut [u8] {
    // SAFETY: see above.
    unsafe { std::slice::from_raw_parts_mut((address + SIZE) as *mut u8, bytes) }
}

/// Copies within the device. Bytes that nothing wrote stay so.
pub fn copy(to: u64, from: u64, bytes: usize) {
    check_allocated("source of a copy", from, bytes);
    check_allocated("target of a copy", to, bytes);
    if to < from + bytes as u64 && from < to + bytes as u64 {
        fault(Fault::Overlap, format!("a copy of {bytes} bytes from {from:#x} to {to:#x} overlaps"));
    }
    // SAFETY: both are allocated, and do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes);
        shadow(to, bytes).copy_from_slice(shadow(from, bytes));
    }
}

/// Returns the kind of a failed access, and its words.
pub fn explain(address: u64, bytes: u64, access: Access) -> (Fault, String) {
    let verb = if access == Access::Read { "reads" } else { "writes" };
    let inside = (BASE..BASE + SIZE).contains(&address);
    let mut first = 0;
    let mut unwritten = false;
    if inside && !null() {
        // SAFETY: the shadow has a byte for each of the arena.
        let shadow = unsafe { shadow(address, bytes.min(BASE + SIZE - address) as usize) };
        let wanted = if access == Access::Read { WRITTEN } else { ALLOCATED };
        first = shadow.iter().position(|byte| byte & wanted != wanted).unwrap_or(0) as u64;
        unwritten = shadow.get(first as usize).is_some_and(|byte| byte & ALLOCATED != 0);
    }
    let at = address + first;
    let freed = inside && was_freed(at);
    let kind = match (unwritten, freed) {
        (true, _) => Fault::Uninitialised,
        (_, true) => Fault::UseAfterFree,
        _ => Fault::OutOfBounds,
    };
    let from = if first > 0 { format!(", from {at:#x} on") } else { String::new() };
    (kind, format!("{verb} {bytes} bytes at {address:#x}{from}: {}", describe(at)))
}

fn was_freed(address: u64) -> bool {
    let registry = registry();
    let contains = |(start, bytes): &(u64, u64)| (*start..start + bytes).contains(&address);
    registry.containing(address).is_none_or(|(_, a)| a.freed || a.stage == Stage::Reserved)
        && (registry.freed.iter().any(contains) || registry.containing(address).is_some())
}

/// Describes where an address lies.
pub fn describe(address: u64) -> String {
    let registry = registry();
    if !(BASE..BASE + SIZE).contains(&address) {
        return "the address is not of the device".into();
    }
    let at = |start: u64, bytes: u64| format!("allocation {start:#x} of {bytes} bytes");
    if let Some((start, a)) = registry.containing(address) {
        let state = match (a.freed, a.stage) {
            (true, _) => ", which the host has freed",
            (_, Stage::Reserved) => ", whose allocation has not run in its stream",
            _ => "",
        };
        return format!("byte {} of {}{state}", address - start, at(start, a.bytes));
    }
    if let Some((start, bytes)) = registry.freed.iter().rev().find(|(s, b)| (*s..s + b).contains(&address)) {
        return format!("byte {} of freed {}", address - start, at(*start, *bytes));
    }
    let before = registry.live.range(..=address).next_back();
    let after = registry.live.range(address..).next();
    let before = before.map(|(s, a)| (address - s - a.bytes, format!("behind the end of {}", at(*s, a.bytes))));
    let after = after.map(|(s, a)| (s - address, format!("before the start of {}", at(*s, a.bytes))));
    match before.into_iter().chain(after).min() {
        Some((0, text)) => format!("just {text}"),
        Some((distance, text)) => format!("{distance} bytes {text}"),
        None => "nothing is allocated".into(),
    }
}

/// Returns the counts of memory as JSON.
pub(crate) fn report() -> serde_json::Value {
    // A fault may have interrupted the owner of the lock.
    let Ok(registry) = lock().try_lock() else { return serde_json::Value::Null };
    let left = registry.live.values().filter(|a| !a.freed);
    serde_json::json!({
        "total": settings().memory,
        "peak": registry.peak,
        "used_at_exit": registry.used,
        "allocations": registry.allocations,
        "frees": registry.frees,
        "allocations_at_exit": left.count(),
    })
}
