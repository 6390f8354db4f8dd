//! The times of what runs on the device, by pairs of CUDA's events around each call.
//!
//! An event is asked for its time once it has passed. The times are sums of differences between events: a difference is an
//! f32 in milliseconds, which is exact enough for the length of a batch, but not for that of a run.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_void;
use std::mem::{take, transmute};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::clock::since_start;
use super::lock;
use super::state::STATE;
use crate::counts::{Counts, Drained, Group, Launch, Tally};
use crate::cuda::lazy;

pub(super) static TIMELINE: Mutex<Timeline> = Mutex::new(Timeline::new());

/// With so many calls whose times are not known yet, those that have ended are asked for them.
const MANY: usize = 1 << 13;
/// With so many, the oldest are waited for.
const MOST: usize = 1 << 16;

type Event = *mut c_void;

type GetContext = unsafe extern "C" fn(*mut *mut c_void) -> i32;
type SetContext = unsafe extern "C" fn(*mut c_void) -> i32;
type Create = unsafe extern "C" fn(*mut Event, u32) -> i32;
type Record = unsafe extern "C" fn(Event, *mut c_void) -> i32;
type OfEvent = unsafe extern "C" fn(Event) -> i32;
type Elapsed = unsafe extern "C" fn(*mut f32, Event, Event) -> i32;

/// The functions of the driver that the timeline itself uses. They are not counted.
struct Driver {
    context: GetContext,
    set_context: SetContext,
    create: Create,
    record: Record,
    query: OfEvent,
    synchronise: OfEvent,
    elapsed: Elapsed,
}

impl Driver {
    fn find() -> Option<Driver> {
        let of = |name| lazy::function(lazy::DRIVER, name);
        let elapsed = of(c"cuEventElapsedTime_v2").or_else(|| of(c"cuEventElapsedTime"))?;
        // SAFETY: the signatures of the driver's functions with these names, in every version that has them.
        unsafe {
            Some(Driver {
                context: transmute::<*mut c_void, GetContext>(of(c"cuCtxGetCurrent")?),
                set_context: transmute::<*mut c_void, SetContext>(of(c"cuCtxSetCurrent")?),
                create: transmute::<*mut c_void, Create>(of(c"cuEventCreate")?),
                record: transmute::<*mut c_void, Record>(of(c"cuEventRecord")?),
                query: transmute::<*mut c_void, OfEvent>(of(c"cuEventQuery")?),
                synchronise: transmute::<*mut c_void, OfEvent>(of(c"cuEventSynchronize")?),
                elapsed: transmute::<*mut c_void, Elapsed>(elapsed),
            })
        }
    }
}

/// A call whose times are not known yet.
struct Pending {
    group: Group,
    name: Arc<str>,
    scope: u64,
    stream: usize,
    /// Its first and its last event; `None` if they could not be recorded.
    events: Option<(Event, Event)>,
}

pub(super) struct Timeline {
    driver: Option<Driver>,
    context: *mut c_void,
    limit: u64,
    /// An event that has passed, and when.
    base: Option<(Event, Duration)>,
    /// Events that are not in use.
    free: Vec<Event>,
    pending: VecDeque<Pending>,
    launched: u64,
    resolved: u64,
    kept: u64,
    left_out: u64,
    launches: Vec<Launch>,
    times: BTreeMap<u64, Counts>,
}

// SAFETY: events and contexts are names for the driver, which any thread may use.
unsafe impl Send for Timeline {}

impl Timeline {
    const fn new() -> Timeline {
        Timeline {
            driver: None,
            context: std::ptr::null_mut(),
            limit: 0,
            base: None,
            free: vec![],
            pending: VecDeque::new(),
            launched: 0,
            resolved: 0,
            kept: 0,
            left_out: 0,
            launches: vec![],
            times: BTreeMap::new(),
        }
    }

    pub fn begin(&mut self, limit: u64) {
        since_start();
        self.limit = limit;
    }

    pub fn launched(&self) -> u64 {
        self.launched
    }

    /// Records an event on a stream. `None` if that fails.
    pub fn event(&mut self, stream: usize) -> Option<Event> {
        if self.driver.is_none() {
            self.driver = Driver::find();
        }
        let driver = self.driver.as_ref()?;
        let event = match self.free.pop() {
            Some(event) => event,
            None => {
                let mut event = std::ptr::null_mut();
                // SAFETY: the driver writes the event. 0 is an event with times.
                (unsafe { (driver.create)(&raw mut event, 0) } == 0).then_some(event)?
            }
        };
        // SAFETY: an event of ours, on the stream of the call that is measured.
        if unsafe { (driver.record)(event, stream as *mut c_void) } != 0 {
            self.free.push(event);
            return None;
        }
        if self.base.is_none() {
            // SAFETY: as above. The first event of all is waited for, so that its time is the host's.
            unsafe {
                (driver.context)(&raw mut self.context);
                (driver.synchronise)(event);
            }
            self.base = Some((event, since_start()));
            return self.event(stream);
        }
        Some(event)
    }

    /// Takes back the event of a call that failed.
    pub fn unused(&mut self, event: Option<Event>) {
        self.free.extend(event);
    }

    /// Adds a call between two events.
    pub fn add(&mut self, (group, name): (Group, Arc<str>), scope: u64, stream: usize, events: [Option<Event>; 2]) {
        let both = match events {
            [Some(first), Some(last)] => Some((first, last)),
            [one, other] => {
                self.free.extend(one.into_iter().chain(other));
                None
            }
        };
        self.launched += 1;
        self.pending.push_back(Pending { group, name, scope, stream, events: both });
        if self.pending.len().is_multiple_of(MANY) && !lock(&STATE).captures() {
            self.resolve(false);
            while self.pending.len() >= MOST {
                self.resolve_first(true);
            }
        }
    }

    pub fn drain(&mut self, wait: bool) -> Drained {
        if !self.pending.is_empty() && !lock(&STATE).captures() {
            if let Some(driver) = &self.driver {
                // SAFETY: the context of the first call, which the program keeps to its end.
                unsafe { (driver.set_context)(self.context) };
            }
            self.resolve(wait);
        }
        Drained {
            launches: take(&mut self.launches),
            left_out: self.left_out,
            times: take(&mut self.times),
            memory: vec![],
            resolved: self.resolved,
        }
    }

    /// Finds out the times of the calls that have ended; `wait`: of all.
    fn resolve(&mut self, wait: bool) {
        while self.resolve_first(wait) {}
    }

    /// Finds out the times of the oldest call. Returns whether it has ended.
    fn resolve_first(&mut self, wait: bool) -> bool {
        let Some(pending) = self.pending.front() else { return false };
        const NOT_READY: i32 = 600;
        let mut measured = None;
        if let (Some(driver), Some((first, last)), Some((base, at))) = (&self.driver, pending.events, self.base) {
            let since = |from: Event, to: Event| {
                let mut milliseconds = 0f32;
                // SAFETY: events of ours that have been recorded and have passed.
                let code = unsafe { (driver.elapsed)(&raw mut milliseconds, from, to) };
                (code == 0).then_some(f64::from(milliseconds) / 1e3)
            };
            // SAFETY: an event of ours that has been recorded.
            let code = unsafe { if wait { (driver.synchronise)(last) } else { (driver.query)(last) } };
            if code == NOT_READY {
                return false;
            }
            // After an error of the device nothing has a time.
            if let (0, Some(start), Some(duration)) = (code, since(base, first), since(first, last)) {
                // Streams run side by side: a call may begin before the end of the former one.
                let [start, duration] = [at.as_secs_f64() + start, duration].map(Duration::try_from_secs_f64);
                measured = Some((start.unwrap_or_default(), duration.unwrap_or_default()));
            }
        }
        let Some(pending) = self.pending.pop_front() else { return false };
        self.resolved += 1;
        if let (Some((first, last)), Some((start, duration))) = (pending.events, measured) {
            self.free.push(first);
            // The next differences begin here.
            if let Some((base, _)) = self.base.replace((last, start + duration)) {
                self.free.push(base);
            }
            self.keep(pending, start, duration);
        } else if let Some((first, last)) = pending.events {
            self.free.extend([first, last]);
        }
        true
    }

    fn keep(&mut self, ended: Pending, start: Duration, duration: Duration) {
        let Pending { group, name, scope, stream, .. } = ended;
        let time = Tally { microseconds: duration.as_secs_f64() * 1e6, ..Tally::default() };
        self.times.entry(scope).or_default().add(group, &name, time);
        if self.kept < self.limit {
            self.kept += 1;
            self.launches.push(Launch { group, name, scope, stream, start, duration });
        } else {
            self.left_out += 1;
        }
    }
}
