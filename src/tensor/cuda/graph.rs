//! Graphs of cuDNN: descriptors, operations on tensors, and plans, which run them.
//!
//! Names and numbers are those of cuDNN's header cudnn_graph.h. The functions are declared here and not taken from cudarc,
//! whose enums do not have the numbers of newer versions.

use std::ffi::c_void;
use std::ptr::null_mut;

use candle_core::{DType, Result};

#[allow(non_snake_case)]
unsafe extern "C" {
    fn cudnnCreate(handle: *mut *mut c_void) -> i32;
    fn cudnnSetStream(handle: *mut c_void, stream: *mut c_void) -> i32;
    fn cudnnGetVersion() -> usize;
    fn cudnnBackendCreateDescriptor(kind: i32, descriptor: *mut *mut c_void) -> i32;
    fn cudnnBackendDestroyDescriptor(descriptor: *mut c_void) -> i32;
    fn cudnnBackendFinalize(descriptor: *mut c_void) -> i32;
    fn cudnnBackendSetAttribute(d: *mut c_void, name: i32, of: i32, count: i64, elements: *const c_void) -> i32;
    fn cudnnBackendGetAttribute(
        d: *mut c_void,
        name: i32,
        of: i32,
        room: i64,
        count: *mut i64,
        elements: *mut c_void,
    ) -> i32;
    fn cudnnBackendExecute(handle: *mut c_void, plan: *mut c_void, pack: *mut c_void) -> i32;
}

/// The version of cuDNN: 10000 × major + 100 × minor + patch.
pub(super) fn version() -> usize {
    // SAFETY: asks for a number.
    unsafe { cudnnGetVersion() }
}

/// The code by which cuDNN refuses a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(i32);

type Accepted<T> = std::result::Result<T, Refused>;

fn accept(code: i32) -> Accepted<()> {
    if code == 0 { Ok(()) } else { Err(Refused(code)) }
}

fn succeed(code: i32, what: &str) -> Result<()> {
    if code == 0 { Ok(()) } else { candle_core::bail!("cuDNN: {what} returns {} ({code})", status(code)) }
}

/// Returns the name of a status, by which a user is advised. cuDNN's own function for it may be what is missing.
fn status(code: i32) -> &'static str {
    match code {
        1001 => "CUDNN_STATUS_NOT_INITIALIZED",
        1002 => "CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH",
        1008 => "CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED",
        2000..3000 => "CUDNN_STATUS_BAD_PARAM",
        3000..4000 => "CUDNN_STATUS_NOT_SUPPORTED",
        4000..5000 => "CUDNN_STATUS_INTERNAL_ERROR",
        5000..6000 => "CUDNN_STATUS_EXECUTION_FAILED",
        _ => "a status",
    }
}

/// A handle of cuDNN on one stream. It is never destroyed: CUDA's libraries may be gone before statics are dropped.
pub(super) struct Handle(*mut c_void);

// SAFETY: cuDNN's handle may change threads if one at a time uses it, which those who keep it see to.
unsafe impl Send for Handle {}

impl Handle {
    pub(super) fn new(stream: *mut c_void) -> Result<Self> {
        let mut handle = null_mut();
        // SAFETY: the address of a handle; a stream that exists.
        unsafe {
            succeed(cudnnCreate(&mut handle), "creating a handle")?;
            succeed(cudnnSetStream(handle, stream), "setting its stream")?;
        }
        Ok(Self(handle))
    }
}

/// Kinds of descriptors.
mod kind {
    pub const POINTWISE: i32 = 0;
    pub const CONFIG: i32 = 3;
    pub const HEURISTIC: i32 = 4;
    pub const PLAN: i32 = 5;
    pub const OP_POINTWISE: i32 = 13;
    pub const GRAPH: i32 = 15;
    pub const PACK: i32 = 16;
    pub const TENSOR: i32 = 17;
    pub const MATMUL: i32 = 18;
    pub const OP_MATMUL: i32 = 19;
    pub const REDUCTION: i32 = 21;
    pub const OP_REDUCTION: i32 = 22;
    pub const OP_RESHAPE: i32 = 31;
    pub const OP_SDPA: i32 = 41;
}

/// Types of attributes.
mod of {
    pub const HANDLE: i32 = 0;
    pub const DATA_TYPE: i32 = 1;
    pub const BOOLEAN: i32 = 2;
    pub const INT64: i32 = 3;
    pub const FLOAT: i32 = 4;
    pub const POINTER: i32 = 6;
    pub const HEURISTIC_MODE: i32 = 8;
    pub const POINTWISE_MODE: i32 = 14;
    pub const DESCRIPTOR: i32 = 15;
    pub const REDUCTION: i32 = 18;
}

/// The types of numbers in a graph (`cudnnDataType_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub(super) enum Number {
    F32 = 0,
    F16 = 2,
    I32 = 4,
    Bf16 = 9,
    Boolean = 11,
}

impl Number {
    /// Of the dtypes that attention is computed in.
    pub(super) fn of_half(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F16 => Some(Self::F16),
            DType::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }
}

/// Pointwise operations (`cudnnPointwiseMode_t`).
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(super) enum Mode {
    Add = 0,
    Mul = 1,
    Div = 6,
    Sub = 9,
    Exp = 13,
    Log = 15,
    Identity = 21,
    AtLeast = 303,
    Index = 501,
    /// The first input where the third is true, else the second.
    Select = 601,
}

/// Reductions (`cudnnReduceTensorOp_t`).
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(super) enum Reduction {
    Sum = 0,
    Max = 3,
}

struct Descriptor(*mut c_void);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: created by `new`, and owned.
        unsafe { cudnnBackendDestroyDescriptor(self.0) };
    }
}

impl Descriptor {
    fn new(kind: i32) -> Accepted<Self> {
        let mut descriptor = null_mut();
        // SAFETY: the address of a descriptor.
        accept(unsafe { cudnnBackendCreateDescriptor(kind, &mut descriptor) })?;
        Ok(Self(descriptor))
    }

    /// Sets an attribute, whose elements are of the type that `of` names.
    fn set<T>(self, name: i32, of: i32, elements: &[T]) -> Accepted<Self> {
        // SAFETY: cuDNN reads as many elements as there are, and keeps no address.
        let code =
            unsafe { cudnnBackendSetAttribute(self.0, name, of, elements.len() as i64, elements.as_ptr().cast()) };
        accept(code)?;
        Ok(self)
    }

    fn child(self, name: i32, child: &Descriptor) -> Accepted<Self> {
        self.set(name, of::DESCRIPTOR, &[child.0])
    }

    fn finalise(self) -> Accepted<Self> {
        // SAFETY: a descriptor that lives.
        accept(unsafe { cudnnBackendFinalize(self.0) })?;
        Ok(self)
    }

    fn number(&self, name: i32) -> Accepted<i64> {
        let (mut number, mut count) = (0i64, 0i64);
        // SAFETY: room for one number.
        let code =
            unsafe { cudnnBackendGetAttribute(self.0, name, of::INT64, 1, &mut count, (&raw mut number).cast()) };
        accept(code)?;
        Ok(number)
    }
}

/// The dimensions of a tensor of rank 4 and its strides, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) dims: [i64; 4],
    pub(super) strides: [i64; 4],
}

impl Shape {
    /// Row-major without gaps.
    pub(super) fn packed(dims: [i64; 4]) -> Self {
        let [_, b, c, d] = dims;
        Self { dims, strides: [b * c * d, c * d, d, 1] }
    }

    /// The last two dimensions swapped.
    pub(super) fn turned(self) -> Self {
        let turn = |[a, b, c, d]: [i64; 4]| [a, b, d, c];
        Self { dims: turn(self.dims), strides: turn(self.strides) }
    }
}

/// A tensor of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tensor(usize);

/// A graph that is being built.
#[derive(Default)]
pub(super) struct Graph {
    tensors: Vec<Descriptor>,
    operations: Vec<Descriptor>,
    /// The tensors to which a run gives addresses, in the order in which they were made.
    bound: Vec<i64>,
}

impl Graph {
    fn add(&mut self, number: Number, shape: Shape, is_virtual: bool, by_value: bool) -> Accepted<Tensor> {
        let id = self.tensors.len() as i64 + 1;
        let tensor = Descriptor::new(kind::TENSOR)?
            .set(901, of::DATA_TYPE, &[number as i32])?
            .set(902, of::INT64, &shape.dims)?
            .set(903, of::INT64, &shape.strides)?
            .set(900, of::INT64, &[ALIGNMENT])?
            .set(906, of::INT64, &[id])?
            .set(907, of::BOOLEAN, &[is_virtual])?
            .set(908, of::BOOLEAN, &[by_value])?
            .finalise()?;
        self.tensors.push(tensor);
        if !is_virtual {
            self.bound.push(id);
        }
        Ok(Tensor(self.tensors.len() - 1))
    }

    /// A tensor in device memory.
    pub(super) fn tensor(&mut self, number: Number, shape: Shape) -> Accepted<Tensor> {
        self.add(number, shape, false, false)
    }

    /// A number in f32 that each run gives.
    pub(super) fn scalar(&mut self) -> Accepted<Tensor> {
        self.add(Number::F32, Shape::packed([1; 4]), false, true)
    }

    /// A tensor between two operations, which is never in memory.
    pub(super) fn between(&mut self, number: Number, shape: Shape) -> Accepted<Tensor> {
        self.add(number, shape, true, false)
    }

    /// A pointwise operation, computed in `compute`.
    pub(super) fn pointwise_in(
        &mut self,
        compute: Number,
        mode: Mode,
        inputs: &[Tensor],
        axis: Option<i64>,
        y: Tensor,
    ) -> Accepted<Tensor> {
        let mut settings = Descriptor::new(kind::POINTWISE)?.set(0, of::POINTWISE_MODE, &[mode as i32])?.set(
            1,
            of::DATA_TYPE,
            &[compute as i32],
        )?;
        if let Some(axis) = axis {
            settings = settings.set(9, of::INT64, &[axis])?;
        }
        let settings = settings.finalise()?;
        let mut operation =
            Descriptor::new(kind::OP_POINTWISE)?.child(750, &settings)?.child(753, &self.tensors[y.0])?;
        for (name, input) in [751, 752, 758].into_iter().zip(inputs) {
            operation = operation.child(name, &self.tensors[input.0])?;
        }
        let operation = operation.set(754, of::FLOAT, &[1f32])?.set(755, of::FLOAT, &[1f32])?.finalise()?;
        self.operations.push(operation);
        Ok(y)
    }

    /// A pointwise operation in f32.
    pub(super) fn pointwise(&mut self, mode: Mode, inputs: &[Tensor], y: Tensor) -> Accepted<Tensor> {
        self.pointwise_in(Number::F32, mode, inputs, None, y)
    }

    /// `y = a b`, with sums in f32.
    pub(super) fn matmul(&mut self, a: Tensor, b: Tensor, y: Tensor) -> Accepted<Tensor> {
        let settings = Descriptor::new(kind::MATMUL)?.set(1500, of::DATA_TYPE, &[Number::F32 as i32])?.finalise()?;
        let operation = Descriptor::new(kind::OP_MATMUL)?
            .child(1520, &self.tensors[a.0])?
            .child(1521, &self.tensors[b.0])?
            .child(1522, &self.tensors[y.0])?
            .child(1523, &settings)?
            .finalise()?;
        self.operations.push(operation);
        Ok(y)
    }

    /// A reduction over the dimensions in which `y` is 1.
    pub(super) fn reduce(&mut self, by: Reduction, x: Tensor, y: Tensor) -> Accepted<Tensor> {
        let settings = Descriptor::new(kind::REDUCTION)?
            .set(1600, of::REDUCTION, &[by as i32])?
            .set(1601, of::DATA_TYPE, &[Number::F32 as i32])?
            .finalise()?;
        let operation = Descriptor::new(kind::OP_REDUCTION)?
            .child(1610, &self.tensors[x.0])?
            .child(1611, &self.tensors[y.0])?
            .child(1612, &settings)?
            .finalise()?;
        self.operations.push(operation);
        Ok(y)
    }

    /// The numbers of `x` by the dimensions and strides of `y`.
    pub(super) fn reshape(&mut self, x: Tensor, y: Tensor) -> Accepted<Tensor> {
        let operation = Descriptor::new(kind::OP_RESHAPE)?
            .child(2200, &self.tensors[x.0])?
            .child(2201, &self.tensors[y.0])?
            .finalise()?;
        self.operations.push(operation);
        Ok(y)
    }

    /// Attention as one operation.
    pub(super) fn attention(&mut self, [q, k, v, o, stats, scale]: [Tensor; 6]) -> Accepted<()> {
        let mut operation = Descriptor::new(kind::OP_SDPA)?;
        for (name, tensor) in (2800..).zip([q, k, v, o, stats, scale]) {
            operation = operation.child(name, &self.tensors[tensor.0])?;
        }
        self.operations.push(operation.finalise()?);
        Ok(())
    }

    /// Asks cuDNN for a plan: the first of those it names that can be built.
    pub(super) fn plan(self, handle: &Handle) -> Accepted<Plan> {
        let operations: Vec<_> = self.operations.iter().map(|o| o.0).collect();
        let graph = Descriptor::new(kind::GRAPH)?
            .set(801, of::DESCRIPTOR, &operations)?
            .set(800, of::HANDLE, &[handle.0])?
            .finalise()?;
        let mut last = Refused(0);
        for mode in [HEURISTIC_A, HEURISTIC_FALLBACK] {
            let configs = match configs(&graph, mode) {
                Ok(configs) => configs,
                Err(refused) => {
                    last = refused;
                    continue;
                }
            };
            for config in configs {
                let plan = Descriptor::new(kind::PLAN)?.child(401, &config)?.set(400, of::HANDLE, &[handle.0])?;
                match plan.finalise() {
                    Ok(plan) => {
                        let workspace = plan.number(402)?.max(0) as usize;
                        let bound = self.bound.clone();
                        return Ok(Plan { plan, workspace, bound, _config: config, _operations: graph, _graph: self });
                    }
                    Err(refused) => last = refused,
                }
            }
        }
        Err(last)
    }
}

/// `CUDNN_HEUR_MODE_A` and `CUDNN_HEUR_MODE_FALLBACK`.
const HEURISTIC_A: i32 = 3;
const HEURISTIC_FALLBACK: i32 = 2;

/// The alignment of tensors in memory, in bytes.
pub(super) const ALIGNMENT: i64 = 16;

/// The configurations of engines that cuDNN names for a graph, the best first.
fn configs(graph: &Descriptor, mode: i32) -> Accepted<Vec<Descriptor>> {
    let heuristic =
        Descriptor::new(kind::HEURISTIC)?.child(201, graph)?.set(200, of::HEURISTIC_MODE, &[mode])?.finalise()?;
    let mut count = 0i64;
    // SAFETY: asks for the count only.
    accept(unsafe { cudnnBackendGetAttribute(heuristic.0, 202, of::DESCRIPTOR, 0, &mut count, null_mut()) })?;
    let mut configs = Vec::new();
    for _ in 0..count {
        configs.push(Descriptor::new(kind::CONFIG)?);
    }
    let mut places: Vec<_> = configs.iter().map(|c| c.0).collect();
    // SAFETY: as many descriptors as there is room for; cuDNN fills them.
    let code = unsafe {
        cudnnBackendGetAttribute(heuristic.0, 202, of::DESCRIPTOR, count, &mut count, places.as_mut_ptr().cast())
    };
    accept(code)?;
    configs.truncate(count.max(0) as usize);
    Ok(configs)
}

/// A graph that cuDNN can run.
pub(super) struct Plan {
    plan: Descriptor,
    /// The bytes of workspace that a run needs.
    pub(super) workspace: usize,
    bound: Vec<i64>,
    // What the plan was made from lives as long as the plan.
    _config: Descriptor,
    _operations: Descriptor,
    _graph: Graph,
}

// SAFETY: descriptors belong to no thread; one thread at a time uses a plan, which those who keep it see to.
unsafe impl Send for Plan {}

impl Plan {
    /// Runs the plan on the stream of the handle. `tensors` has the addresses of the tensors and scalars of the graph, in
    /// the order in which they were made.
    ///
    /// The caller answers for the addresses: there are tensors as the graph says, and `workspace` bytes of workspace.
    pub(super) fn run(&self, handle: &Handle, tensors: &[*mut c_void], workspace: u64) -> Result<()> {
        if tensors.len() != self.bound.len() {
            candle_core::bail!("cuDNN: {} addresses for {} tensors", tensors.len(), self.bound.len());
        }
        let pack = || {
            Descriptor::new(kind::PACK)?
                .set(1000, of::INT64, &self.bound)?
                .set(1001, of::POINTER, tensors)?
                .set(1003, of::POINTER, &[workspace as *mut c_void])?
                .finalise()
        };
        let pack = match pack() {
            Ok(pack) => pack,
            Err(Refused(code)) => candle_core::bail!("cuDNN: the addresses of a graph return status {code}"),
        };
        // SAFETY: guaranteed by the caller.
        succeed(unsafe { cudnnBackendExecute(handle.0, self.plan.0, pack.0) }, "running a graph")
    }
}
