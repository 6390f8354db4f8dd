//! cuBLASLt: products that are described by layouts, with a bias and an activation. Attributes are those of cublasLt.h.

use std::collections::BTreeMap;
use std::ffi::c_void;

use super::blas::{EXECUTION_FAILED, INVALID_VALUE, NOT_SUPPORTED, SUCCESS, compute, supported};
use super::gemm::{Activation, Gemm, Operand, Scalar};
use super::number::Number;
use super::object::{create, destroy, with};
use crate::memory::{Access, check};
use crate::stream::StreamHandle;

const HANDLE: &str = "cuBLASLt handle";
const LAYOUT: &str = "cuBLASLt matrix layout";
const PRODUCT: &str = "cuBLASLt product descriptor";
const PREFERENCE: &str = "cuBLASLt preference";

struct Handle;

/// A number of an attribute: attributes have 4 or 8 bytes.
type Attributes = BTreeMap<i32, u64>;

/// A matrix layout: type, order, rows, columns, leading dimension, batch count, batch stride.
#[derive(Clone, Copy, Debug)]
struct Layout {
    number: Number,
    rows: u64,
    columns: u64,
    ld: i64,
    row_major: bool,
    batch: i32,
    stride: i64,
}

/// Attributes of products.
mod product {
    pub const COMPUTE: i32 = 0;
    pub const SCALE: i32 = 1;
    pub const POINTER_MODE: i32 = 2;
    pub const TRANSPOSE_A: i32 = 3;
    pub const TRANSPOSE_B: i32 = 4;
    pub const TRANSPOSE_C: i32 = 5;
    pub const EPILOGUE: i32 = 7;
    pub const BIAS: i32 = 8;
    pub const BIAS_TYPE: i32 = 26;
    /// Those of 8 bytes.
    pub const WIDE: [i32; 5] = [8, 10, 11, 12, 13];
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtCreate(to: *mut *mut c_void) -> i32 {
    if create(to, HANDLE, Handle) { SUCCESS } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtDestroy(handle: *mut c_void) -> i32 {
    destroy(handle, HANDLE);
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetVersion() -> usize {
    130_000
}

/// Reads an attribute of 4 or 8 bytes.
unsafe fn read(from: *const c_void, bytes: usize) -> Option<u64> {
    if from.is_null() {
        return None;
    }
    // SAFETY: the caller of the library gives as many bytes.
    unsafe {
        match bytes {
            4 => Some(u64::from(from.cast::<u32>().read_unaligned())),
            8 => Some(from.cast::<u64>().read_unaligned()),
            _ => None,
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtMatrixLayoutCreate(
    to: *mut *mut c_void,
    number: i32,
    rows: u64,
    columns: u64,
    ld: i64,
) -> i32 {
    let Some(number) = Number::of_cuda(number) else { return NOT_SUPPORTED };
    let layout = Layout { number, rows, columns, ld, row_major: false, batch: 1, stride: 0 };
    if create(to, LAYOUT, layout) { SUCCESS } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtMatrixLayoutDestroy(layout: *mut c_void) -> i32 {
    destroy(layout, LAYOUT);
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutSetAttribute(
    layout: *mut c_void,
    name: i32,
    from: *const c_void,
    bytes: usize,
) -> i32 {
    let wide = matches!(name, 2 | 3 | 4 | 6);
    // SAFETY: guaranteed by the caller.
    let Some(value) = (unsafe { read(from, bytes) }) else { return INVALID_VALUE };
    if bytes != if wide { 8 } else { 4 } {
        return INVALID_VALUE;
    }
    with(layout, LAYOUT, |l: &mut Layout| {
        match name {
            0 => match Number::of_cuda(value as i32) {
                Some(number) => l.number = number,
                None => return NOT_SUPPORTED,
            },
            // CUBLASLT_ORDER_COL and CUBLASLT_ORDER_ROW.
            1 if value <= 1 => l.row_major = value == 1,
            2 => l.rows = value,
            3 => l.columns = value,
            4 => l.ld = value as i64,
            5 => l.batch = value as i32,
            6 => l.stride = value as i64,
            _ => return NOT_SUPPORTED,
        }
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtMatmulDescCreate(to: *mut *mut c_void, compute: i32, scale: i32) -> i32 {
    let attributes =
        Attributes::from([(product::COMPUTE, compute as u64), (product::SCALE, scale as u64), (product::EPILOGUE, 1)]);
    if create(to, PRODUCT, attributes) { SUCCESS } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtMatmulDescDestroy(product: *mut c_void) -> i32 {
    destroy(product, PRODUCT);
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescSetAttribute(
    product: *mut c_void,
    name: i32,
    from: *const c_void,
    bytes: usize,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    let Some(value) = (unsafe { read(from, bytes) }) else { return INVALID_VALUE };
    if bytes != if product::WIDE.contains(&name) { 8 } else { 4 } {
        return INVALID_VALUE;
    }
    with(product, PRODUCT, |p: &mut Attributes| p.insert(name, value));
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtMatmulPreferenceCreate(to: *mut *mut c_void) -> i32 {
    if create(to, PREFERENCE, Attributes::new()) { SUCCESS } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasLtMatmulPreferenceDestroy(preference: *mut c_void) -> i32 {
    destroy(preference, PREFERENCE);
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    preference: *mut c_void,
    name: i32,
    from: *const c_void,
    bytes: usize,
) -> i32 {
    // SAFETY: guaranteed by the caller.
    let Some(value) = (unsafe { read(from, bytes) }) else { return INVALID_VALUE };
    // Workspace bytes and the mask of implementations have 8 bytes.
    if bytes != if matches!(name, 1 | 12) { 8 } else { 4 } {
        return INVALID_VALUE;
    }
    with(preference, PREFERENCE, |p: &mut Attributes| p.insert(name, value));
    SUCCESS
}

/// An algorithm that this device gives out: a mark, its workspace, and the alignment that it relies on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Algorithm {
    mark: u64,
    workspace: u64,
    alignment: u64,
    sizes: [u64; 5],
}

const MARK: u64 = 0x736f_6674_6c74;

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
pub struct Found {
    algorithm: Algorithm,
    workspace: usize,
    state: i32,
    waves: f32,
    reserved: [i32; 4],
}

/// Workspace of the algorithm, where the caller allows as much.
const WORKSPACE: u64 = 1 << 20;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    handle: *mut c_void,
    product: *mut c_void,
    a: *mut c_void,
    b: *mut c_void,
    c: *mut c_void,
    d: *mut c_void,
    preference: *mut c_void,
    room: i32,
    to: *mut Found,
    count: *mut i32,
) -> i32 {
    with(handle, HANDLE, |_: &mut Handle| ());
    if room < 1 || to.is_null() || count.is_null() {
        return INVALID_VALUE;
    }
    let described = match Described::new(product, [a, b, c, d]) {
        Ok(described) => described,
        Err(code) => return code,
    };
    let preference = with(preference, PREFERENCE, |p: &mut Attributes| p.clone());
    // Without a word, callers promise 256 bytes.
    let alignment = (5..=8).map(|name| preference.get(&name).copied().unwrap_or(256)).min().unwrap_or(256);
    let workspace = preference.get(&1).copied().unwrap_or(0).min(WORKSPACE);
    let algorithm = Algorithm { mark: MARK, workspace, alignment: alignment.min(16), sizes: described.sizes() };
    let found = Found { algorithm, workspace: workspace as usize, state: SUCCESS, waves: 1.0, reserved: [0; 4] };
    // SAFETY: the caller gives room for `room` results and a count.
    unsafe {
        to.write(found);
        *count = 1;
    }
    SUCCESS
}

/// A product whose layouts fit together.
struct Described {
    m: usize,
    n: usize,
    k: usize,
    batch: usize,
    attributes: Attributes,
    /// A, B, C and D.
    layouts: [Layout; 4],
    transposed: [bool; 2],
}

impl Described {
    fn new(product: *mut c_void, layouts: [*mut c_void; 4]) -> Result<Self, i32> {
        if product.is_null() || layouts.iter().any(|l| l.is_null()) {
            return Err(INVALID_VALUE);
        }
        let attributes = with(product, PRODUCT, |p: &mut Attributes| p.clone());
        let layouts = layouts.map(|l| with(l, LAYOUT, |l: &mut Layout| *l));
        let [a, b, c, d] = layouts;
        let get = |name| attributes.get(&name).copied().unwrap_or(0);
        if layouts.iter().any(|l| l.row_major) || get(product::TRANSPOSE_C) != 0 {
            return Err(NOT_SUPPORTED);
        }
        if layouts.iter().any(|l| l.ld < l.rows as i64 || l.batch < 1 || l.batch != d.batch) {
            return Err(INVALID_VALUE);
        }
        let transposed = [get(product::TRANSPOSE_A) != 0, get(product::TRANSPOSE_B) != 0];
        let sides = |l: Layout, t: bool| if t { (l.columns, l.rows) } else { (l.rows, l.columns) };
        let ((m, k), (inner, n)) = (sides(a, transposed[0]), sides(b, transposed[1]));
        if inner != k || (d.rows, d.columns) != (m, n) || (c.rows, c.columns) != (m, n) {
            return Err(INVALID_VALUE);
        }
        let [m, n, k] = [m, n, k].map(|n| n as usize);
        Ok(Self { m, n, k, batch: d.batch as usize, attributes, layouts, transposed })
    }

    /// What an algorithm is good for.
    fn sizes(&self) -> [u64; 5] {
        let kind =
            self.layouts[0].number as u64 * 4 + u64::from(self.transposed[0]) * 2 + u64::from(self.transposed[1]);
        [self.m as u64, self.n as u64, self.k as u64, self.batch as u64, kind]
    }

    fn get(&self, name: i32) -> u64 {
        self.attributes.get(&name).copied().unwrap_or(0)
    }

    fn activation(&self) -> Result<(Activation, bool), i32> {
        // CUBLASLT_EPILOGUE_*: relu 2, bias 4, gelu 32.
        Ok(match self.get(product::EPILOGUE) {
            1 => (Activation::None, false),
            2 => (Activation::Relu, false),
            4 => (Activation::None, true),
            6 => (Activation::Relu, true),
            32 => (Activation::Gelu, false),
            36 => (Activation::Gelu, true),
            _ => return Err(NOT_SUPPORTED),
        })
    }
}

/// The arguments of a product.
struct Call {
    addresses: [u64; 4],
    scalars: [*const c_void; 2],
    algorithm: *const Algorithm,
    workspace: (u64, usize),
    stream: *mut c_void,
}

unsafe fn multiply(described: &Described, call: Call) -> Result<(), i32> {
    let [an, bn, cn, dn] = described.layouts.map(|l| l.number);
    let (compute, scale) = compute(described.get(product::COMPUTE) as i32, false).ok_or(NOT_SUPPORTED)?;
    if Number::of_cuda(described.get(product::SCALE) as i32) != Some(scale)
        || cn != dn
        || !supported(compute, an, bn, dn)
    {
        return Err(NOT_SUPPORTED);
    }
    if call.scalars.iter().any(|s| s.is_null()) || call.addresses.contains(&0) {
        return Err(INVALID_VALUE);
    }
    let (activation, biased) = described.activation()?;
    let bias = if biased {
        let number = described.attributes.get(&product::BIAS_TYPE);
        let number = number.map_or(Some(dn), |code| Number::of_cuda(*code as i32)).ok_or(NOT_SUPPORTED)?;
        match described.get(product::BIAS) {
            0 => return Err(INVALID_VALUE),
            address => Some((address, number)),
        }
    } else {
        None
    };
    // SAFETY: an algorithm of `cublasLtMatmulAlgoGetHeuristic`, as the caller promises, or none.
    if let Some(algorithm) = unsafe { call.algorithm.as_ref() } {
        let fits = algorithm.mark == MARK && algorithm.sizes == described.sizes();
        let aligned = call.addresses.iter().all(|a| a.is_multiple_of(algorithm.alignment.max(1)));
        if !fits || !aligned || (call.workspace.1 as u64) < algorithm.workspace {
            return Err(INVALID_VALUE);
        }
    }
    if !call.workspace.0.is_multiple_of(16) {
        return Err(INVALID_VALUE);
    }
    let operand = |i: usize, transposed| {
        let l = described.layouts[i];
        let (address, number) = (call.addresses[i], l.number);
        Operand { address, number, ld: l.ld as usize, stride: l.stride.max(0) as usize, transposed }
    };
    let on_device = described.get(product::POINTER_MODE) == 1;
    // SAFETY: the caller gives scalars of the scale type.
    let [alpha, beta] = call.scalars.map(|s| unsafe { Scalar::new(s, scale, on_device) });
    let gemm = Gemm {
        m: described.m,
        n: described.n,
        k: described.k,
        batch: described.batch,
        compute,
        alpha,
        beta,
        a: operand(0, described.transposed[0]),
        b: operand(1, described.transposed[1]),
        c: operand(2, false),
        d: operand(3, false),
        bias,
        activation,
        workspace: (call.workspace.0, call.workspace.1.min(WORKSPACE as usize)),
    };
    if gemm.launch(StreamHandle(call.stream)) { Ok(()) } else { Err(EXECUTION_FAILED) }
}

/// cuBLASLt writes into its workspace while it runs.
pub(super) fn use_workspace((address, bytes): (u64, usize)) {
    if address != 0 && bytes > 0 {
        check("the workspace of a product", address, bytes, Access::Write);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmul(
    handle: *mut c_void,
    product: *mut c_void,
    alpha: *const c_void,
    a: *const c_void,
    al: *mut c_void,
    b: *const c_void,
    bl: *mut c_void,
    beta: *const c_void,
    c: *const c_void,
    cl: *mut c_void,
    d: *mut c_void,
    dl: *mut c_void,
    algorithm: *const Algorithm,
    workspace: *mut c_void,
    bytes: usize,
    stream: *mut c_void,
) -> i32 {
    with(handle, HANDLE, |_: &mut Handle| ());
    let described = match Described::new(product, [al, bl, cl, dl]) {
        Ok(described) => described,
        Err(code) => return code,
    };
    let addresses = [a as u64, b as u64, c as u64, d as u64];
    let call = Call { addresses, scalars: [alpha, beta], algorithm, workspace: (workspace as u64, bytes), stream };
    // SAFETY: guaranteed by the caller.
    unsafe { multiply(&described, call) }.err().unwrap_or(SUCCESS)
}
