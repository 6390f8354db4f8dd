//! Attention by cuDNN, in half precision: the weights never exist at once, and no tensor is copied whose features are
//! adjacent in memory.
//!
//! Forwards, cuDNN has one operation for it (`OPERATION_SDPA_FWD`, since 9.13; without masks). Backwards it has one too
//! (`SDPA_BWD`, since 9.17), but for that 9.24 and 9.26 have no engine (JuliaGPU/CUDA.jl#3238), and nothing says since when
//! there is one. The engines recognise graphs of many operations instead, those that NVIDIA's cudnn-frontend builds
//! (node/scaled_dot_product_flash_attention.h, node/softmax.h, utils/attn_score_modifiers.h). This module builds the same,
//! and the forward one too for causal attention and for a cuDNN that refuses the single operation. Where cuDNN refuses
//! everything, the caller has another form.
//!
//! cuDNN 9.28.1, asked without a GPU (`CUDNN_ATTR_ENGINEHEUR_DEVICEPROP`) for an A100, an RTX 4090, an H100 and a B200, names
//! engines for these graphs: forwards for all heads asked about (8 to 512), backwards up to 128, on the H100 also for 160.
//! It checks no strides: engines read rows whose features are not adjacent, or that begin at odd places, wrongly.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{DType, Result, Tensor};

use super::graph::{self, ALIGNMENT, Graph, Handle, Mode, Number, Plan, Reduction, Refused, Shape};
use super::launch::{address, kept, unwritten};

/// A tensor (B, heads, N, d) in memory that cuDNN can read: the d features adjacent, rows at multiples of 16 bytes.
struct Rows {
    tensor: Tensor,
    shape: Shape,
}

impl Rows {
    /// From the logical tensor (B, heads, N, d). Copies it if cuDNN cannot read it where it is.
    fn new(t: &Tensor) -> Result<Self> {
        let (dims, strides) = (four(t.dims())?, four(t.stride())?);
        let shape = Shape { dims, strides };
        if readable(&shape, address(t)?) {
            return Ok(Self { tensor: t.clone(), shape: with_strides(shape) });
        }
        // Tokens first, so that the heads of a token are adjacent.
        let tensor = t.transpose(1, 2)?.force_contiguous()?;
        Ok(Self { tensor, shape: tokens_first(dims) })
    }

    /// From tokens (B, N, heads·d) of any strides.
    fn of_tokens(t: &Tensor, heads: usize) -> Result<Self> {
        let (b, n, c) = t.dims3()?;
        let [of_batch, of_token, of_feature] = [t.stride()[0], t.stride()[1], t.stride()[2]].map(|s| s as i64);
        let [b, n, h, d] = [b, n, heads, c / heads].map(|n| n as i64);
        let shape = Shape { dims: [b, h, n, d], strides: [of_batch, d * of_feature, of_token, of_feature] };
        if readable(&shape, address(t)?) {
            return Ok(Self { tensor: t.clone(), shape: with_strides(shape) });
        }
        Ok(Self { tensor: t.force_contiguous()?, shape: tokens_first([b, h, n, d]) })
    }

    /// A new tensor of these dimensions, tokens first in memory. Nothing has written it yet.
    fn empty(like: &Tensor, dims: [i64; 4]) -> Result<Self> {
        let [b, h, n, d] = dims.map(|n| n as usize);
        let tensor = unwritten(like, (b, n, h, d), like.dtype())?;
        Ok(Self { tensor, shape: tokens_first(dims) })
    }

    fn address(&self) -> Result<*mut c_void> {
        Ok(address(&self.tensor)? as *mut c_void)
    }
}

fn four(numbers: &[usize]) -> Result<[i64; 4]> {
    match *numbers {
        [a, b, c, d] => Ok([a, b, c, d].map(|n| n as i64)),
        _ => candle_core::bail!("attention: needs (B, heads, N, d), but got {numbers:?}"),
    }
}

/// In memory (B, N, heads, d).
fn tokens_first(dims: [i64; 4]) -> Shape {
    let [_, h, n, d] = dims;
    Shape { dims, strides: [n * h * d, d, h * d, 1] }
}

/// Whether cuDNN can read a tensor where it is: engines load 16 bytes at a time.
fn readable(shape: &Shape, address: u64) -> bool {
    let even = |i: usize| shape.dims[i] == 1 || shape.strides[i] > 0 && shape.strides[i] % 8 == 0;
    shape.strides[3] == 1 && (0..3).all(even) && address.is_multiple_of(ALIGNMENT as u64)
}

/// With the strides of dimensions of size 1 as those of a packed tensor: theirs do not matter, and may be 0.
fn with_strides(mut shape: Shape) -> Shape {
    for (i, stride) in tokens_first(shape.dims).strides.into_iter().enumerate() {
        if shape.dims[i] == 1 {
            shape.strides[i] = stride;
        }
    }
    shape
}

/// What a plan depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    number: Number,
    causal: bool,
    /// q, k, v, and backwards o and the gradient of o.
    shapes: Vec<Shape>,
}

impl Key {
    fn scores(&self) -> [i64; 4] {
        let [b, h, n, _] = self.shapes[0].dims;
        [b, h, n, self.shapes[1].dims[2]]
    }

    /// (B, heads, N, 1)
    fn one_a_row(&self) -> [i64; 4] {
        let [b, h, n, _] = self.shapes[0].dims;
        [b, h, n, 1]
    }
}

/// Attention on one device.
struct Engine {
    handle: Handle,
    /// Workspaces, each larger than the one before. The last one is used: all computation of a device is on one stream, so
    /// that plans may share it. The others stay, since recordings ([`super::replay`]) write them at their addresses.
    workspaces: Vec<CudaSlice<u8>>,
    /// `None` for what cuDNN refuses.
    plans: HashMap<Key, Option<Plan>>,
}

/// One engine for each device, to the end of the program.
static ENGINES: Mutex<Option<HashMap<DeviceId, Engine>>> = Mutex::new(None);

/// Runs the plan of `key` on these addresses. Returns whether cuDNN has a plan.
fn run(device: &CudaDevice, key: Key, addresses: &[*mut c_void]) -> Result<bool> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread()?;
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    let engine = kept(engines.get_or_insert_default(), device.id(), |_| {
        let handle = Handle::new(stream.cu_stream().cast())?;
        Ok::<_, candle_core::Error>(Engine { handle, workspaces: Vec::new(), plans: HashMap::new() })
    })?;
    let plan = kept(&mut engine.plans, key, |key| Ok::<_, Infallible>(build(key, &engine.handle)));
    let Ok(Some(plan)) = plan else { return Ok(false) };
    let largest = engine.workspaces.last().map_or(0, |w| w.len());
    if plan.workspace > largest {
        // SAFETY: cuDNN writes the workspace before it reads it.
        engine.workspaces.push(unsafe { device.alloc::<u8>(plan.workspace.max(2 * largest))? });
    }
    let workspace = engine.workspaces.last().map_or(0, |w| w.device_ptr(&stream).0);
    plan.run(&engine.handle, addresses, workspace)?;
    Ok(true)
}

/// The first of the graphs for `key` that cuDNN plans.
fn build(key: &Key, handle: &Handle) -> Option<Plan> {
    let version = graph::version();
    // cudnn-frontend's checks: these versions compute attention wrongly.
    if version < 90000 || version == 91000 || version == 91001 {
        return None;
    }
    if key.shapes.len() > 3 {
        let [.., n, m] = key.scores();
        // Up to 9.15.0 the backward pass reads past the end of keys that are no multiple of 128; it never supports one query
        // and one key.
        let wrong = version <= 91500 && m % 128 != 0 || n == 1 && m == 1;
        return if wrong { None } else { backward(key).and_then(|g| g.plan(handle)).ok() };
    }
    let single = if version >= 91301 && !key.causal { single(key).and_then(|g| g.plan(handle)).ok() } else { None };
    single.or_else(|| forward(key).and_then(|g| g.plan(handle)).ok())
}

/// The forward pass as one operation. Tensors: q, k, v, o, stats, scale.
fn single(key: &Key) -> std::result::Result<Graph, Refused> {
    let mut g = Graph::default();
    let [q, k, v] = [key.shapes[0], key.shapes[1], key.shapes[2]];
    let [b, h, n, _] = q.dims;
    let of_result = tokens_first([b, h, n, v.dims[3]]);
    let (q, k, v) = (g.tensor(key.number, q)?, g.tensor(key.number, k)?, g.tensor(key.number, v)?);
    let o = g.tensor(key.number, of_result)?;
    let stats = g.tensor(Number::F32, Shape::packed(key.one_a_row()))?;
    let scale = g.scalar()?;
    g.attention([q, k, v, o, stats, scale])?;
    Ok(g)
}

/// What hides scores above the diagonal. cuDNN before 9.10 expects a finite number.
fn hidden(version: usize) -> f32 {
    if version < 91000 { f32::MIN } else { f32::NEG_INFINITY }
}

/// Replaces the scores above the diagonal.
fn mask(
    g: &mut Graph,
    key: &Key,
    scores: graph::Tensor,
    by: graph::Tensor,
) -> std::result::Result<graph::Tensor, Refused> {
    let shape = Shape::packed(key.scores());
    let mut places = Vec::new();
    for axis in [2, 3] {
        let place = g.between(Number::I32, shape)?;
        places.push(g.pointwise_in(Number::F32, Mode::Index, &[scores], Some(axis), place)?);
    }
    let seen = g.between(Number::Boolean, shape)?;
    g.pointwise_in(Number::Boolean, Mode::AtLeast, &places, None, seen)?;
    let masked = g.between(Number::F32, shape)?;
    g.pointwise(Mode::Select, &[scores, by, seen], masked)
}

/// The forward pass as a graph. Tensors: q, k, v, o, stats, scale, and if causal the number that hides scores.
fn forward(key: &Key) -> std::result::Result<Graph, Refused> {
    let mut g = Graph::default();
    let [q, k, v] = [key.shapes[0], key.shapes[1], key.shapes[2]];
    let [b, h, n, _] = q.dims;
    let of_result = tokens_first([b, h, n, v.dims[3]]);
    let (q, k, v) = (g.tensor(key.number, q)?, g.tensor(key.number, k.turned())?, g.tensor(key.number, v)?);
    let o = g.tensor(key.number, of_result)?;
    let row = Shape::packed(key.one_a_row());
    let stats = g.tensor(Number::F32, row)?;
    let scale = g.scalar()?;
    let hidden = if key.causal { Some(g.scalar()?) } else { None };
    let shape = Shape::packed(key.scores());

    let raw = g.between(Number::F32, shape)?;
    g.matmul(q, k, raw)?;
    let mut scores = g.between(Number::F32, shape)?;
    g.pointwise(Mode::Mul, &[raw, scale], scores)?;
    if let Some(hidden) = hidden {
        scores = mask(&mut g, key, scores, hidden)?;
    }
    let (highest, total, log) =
        (g.between(Number::F32, row)?, g.between(Number::F32, row)?, g.between(Number::F32, row)?);
    g.reduce(Reduction::Max, scores, highest)?;
    let (less, powers) = (g.between(Number::F32, shape)?, g.between(Number::F32, shape)?);
    g.pointwise(Mode::Sub, &[scores, highest], less)?;
    g.pointwise(Mode::Exp, &[less], powers)?;
    g.reduce(Reduction::Sum, powers, total)?;
    g.pointwise(Mode::Log, &[total], log)?;
    g.pointwise(Mode::Add, &[highest, log], stats)?;
    // The weights are a factor of a product, in the dtype of its other factor.
    let weights = g.between(key.number, shape)?;
    g.pointwise(Mode::Div, &[powers, total], weights)?;
    g.matmul(weights, v, o)?;
    Ok(g)
}

/// The backward pass as a graph. Tensors: q, k, v, o, dy, stats, dq, dk, dv, the sums of dy · o, the gradient of q in f32,
/// 1, scale, and if causal the number that hides scores.
fn backward(key: &Key) -> std::result::Result<Graph, Refused> {
    let mut g = Graph::default();
    let &[of_q, of_k, of_v, of_o, of_dy] = key.shapes.as_slice() else { return Ok(g) };
    let number = key.number;
    let (shape, row) = (Shape::packed(key.scores()), Shape::packed(key.one_a_row()));
    let (q, k, v) = (g.tensor(number, of_q)?, g.tensor(number, of_k.turned())?, g.tensor(number, of_v.turned())?);
    let (o, dy, stats) = (g.tensor(number, of_o)?, g.tensor(number, of_dy)?, g.tensor(Number::F32, row)?);
    let dq = g.tensor(number, tokens_first(of_q.dims))?;
    let (dk, dv) = (g.tensor(number, tokens_first(of_k.dims))?, g.tensor(number, tokens_first(of_v.dims))?);
    let sum = g.tensor(Number::F32, row)?;
    let gathered = g.tensor(Number::F32, Shape::packed(of_q.dims))?;
    let (one, scale) = (g.scalar()?, g.scalar()?);
    let hidden = if key.causal { Some(g.scalar()?) } else { None };

    // The sums of dy · o, by which the gradient of the softmax is centred.
    let (product, raw_sum) = (g.between(Number::F32, tokens_first(of_o.dims))?, g.between(Number::F32, row)?);
    g.pointwise(Mode::Mul, &[dy, o], product)?;
    g.reduce(Reduction::Sum, product, raw_sum)?;
    g.pointwise(Mode::Mul, &[raw_sum, one], sum)?;

    // The weights once more, and dv = weightsᵀ dy.
    let raw = g.between(Number::F32, shape)?;
    g.matmul(q, k, raw)?;
    let scores = g.between(Number::F32, shape)?;
    g.pointwise(Mode::Mul, &[raw, scale], scores)?;
    let mut less = g.between(Number::F32, shape)?;
    g.pointwise(Mode::Sub, &[scores, stats], less)?;
    if let Some(hidden) = hidden {
        less = mask(&mut g, key, less, hidden)?;
    }
    let weights = g.between(Number::F32, shape)?;
    g.pointwise(Mode::Exp, &[less], weights)?;
    let turned = turned(key);
    let turned_weights = g.between(number, turned)?;
    g.reshape(weights, turned_weights)?;
    g.matmul(turned_weights, dy, dv)?;

    // The gradient of the scores, and dk = its transpose · q.
    let [of_weights, centred, unscaled] =
        [g.between(Number::F32, shape)?, g.between(Number::F32, shape)?, g.between(Number::F32, shape)?];
    g.matmul(dy, v, of_weights)?;
    g.pointwise(Mode::Sub, &[of_weights, sum], centred)?;
    g.pointwise(Mode::Mul, &[centred, weights], unscaled)?;
    let of_scores = g.between(Number::F32, shape)?;
    g.pointwise(Mode::Mul, &[unscaled, scale], of_scores)?;
    let turned_of_scores = g.between(number, turned)?;
    g.reshape(of_scores, turned_of_scores)?;
    g.matmul(turned_of_scores, q, dk)?;

    // dq = the gradient of the scores · k, summed in f32.
    let keys = g.between(number, of_k)?;
    g.reshape(k, keys)?;
    g.matmul(of_scores, keys, gathered)?;
    g.pointwise(Mode::Identity, &[gathered], dq)?;
    Ok(g)
}

/// The scores with queries and keys swapped, where they are.
fn turned(key: &Key) -> Shape {
    Shape::packed(key.scores()).turned()
}

fn pointer(x: &f32) -> *mut c_void {
    (&raw const *x).cast_mut().cast()
}

fn value(q: &Tensor, [q4, k4, v4]: [&Rows; 3], scale: f32, causal: bool) -> Result<Option<(Rows, Tensor)>> {
    let Some(number) = Number::of_half(q.dtype()) else { return Ok(None) };
    let shapes = vec![q4.shape, k4.shape, v4.shape];
    let [b, h, n, d] = q4.shape.dims;
    let m = k4.shape.dims[2];
    if k4.shape.dims != [b, h, m, d] || v4.shape.dims[..3] != [b, h, m] || causal && n != m {
        candle_core::bail!("attention: {:?}, {:?}, {:?} do not match", q4.shape.dims, k4.shape.dims, v4.shape.dims);
    }
    if !d.is_positive() || d % 8 != 0 || v4.shape.dims[3] % 8 != 0 || m == 0 || n == 0 || b == 0 {
        return Ok(None);
    }
    let o = Rows::empty(q, [b, h, n, v4.shape.dims[3]])?;
    let rows = (b as usize, h as usize, n as usize, 1);
    let stats = unwritten(q, rows, DType::F32)?;
    let hidden = hidden(graph::version());
    let mut addresses =
        vec![q4.address()?, k4.address()?, v4.address()?, o.address()?, address(&stats)? as *mut c_void];
    addresses.push(pointer(&scale));
    if causal {
        addresses.push(pointer(&hidden));
    }
    let ran = run(q.device().as_cuda_device()?, Key { number, causal, shapes }, &addresses)?;
    Ok(ran.then_some((o, stats)))
}

/// Attention `softmax(scale · q kᵀ) v` of tensors (B, heads, N, d) with any strides, in f16 or bf16: the result, in memory
/// (B, N, heads, d), and the logarithm of the sum of exponentials of each row, (B, heads, N, 1) in f32. With `causal`,
/// position i attends to positions 0..=i. `None` for what cuDNN does not compute: other dtypes, head sizes that are no
/// multiple of 8.
///
/// # Errors
/// If shapes do not match, or cuDNN fails.
pub fn sdpa(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, causal: bool) -> Result<Option<(Tensor, Tensor)>> {
    if Number::of_half(q.dtype()).is_none() {
        return Ok(None);
    }
    let rows = [Rows::new(q)?, Rows::new(k)?, Rows::new(v)?];
    match value(q, rows.each_ref(), scale, causal)? {
        Some((o, stats)) => Ok(Some((o.tensor.transpose(1, 2)?, stats))),
        None => Ok(None),
    }
}

/// The gradients of q, k and v (in memory (B, N, heads, d)) from `o` and `stats` of [`sdpa`] and the gradient of `o`.
///
/// # Errors
/// If shapes do not match, or cuDNN fails.
pub fn sdpa_backward(
    [q, k, v]: [&Tensor; 3],
    (o, stats): (&Tensor, &Tensor),
    dy: &Tensor,
    scale: f32,
    causal: bool,
) -> Result<Option<[Tensor; 3]>> {
    let rows = [Rows::new(q)?, Rows::new(k)?, Rows::new(v)?];
    let (o, dy) = (Rows::new(o)?, Rows::new(dy)?);
    let gradients = gradients(rows.each_ref(), (&o, stats), &dy, scale, causal)?;
    gradients.map(|[dq, dk, dv]| Ok([dq.transpose(1, 2)?, dk.transpose(1, 2)?, dv.transpose(1, 2)?])).transpose()
}

/// The gradients of q, k and v, (B, N, heads, d).
fn gradients(
    rows: [&Rows; 3],
    (o, stats): (&Rows, &Tensor),
    dy: &Rows,
    scale: f32,
    causal: bool,
) -> Result<Option<[Tensor; 3]>> {
    let [q, k, v] = rows;
    let Some(number) = Number::of_half(q.tensor.dtype()) else { return Ok(None) };
    if dy.shape.dims != o.shape.dims || dy.tensor.dtype() != q.tensor.dtype() {
        candle_core::bail!("attention: a gradient {:?} does not fit {:?}", dy.shape.dims, o.shape.dims);
    }
    let [b, h, n, d] = q.shape.dims;
    let made = [&q, &k, &v].map(|rows| Rows::empty(&q.tensor, rows.shape.dims));
    let [dq, dk, dv] = made;
    let (dq, dk, dv) = (dq?, dk?, dv?);
    let sum = unwritten(stats, stats.shape(), DType::F32)?;
    let gathered = (b as usize, h as usize, n as usize, d as usize);
    let gathered = unwritten(stats, gathered, DType::F32)?;
    let mut addresses = Vec::new();
    for rows in [q, k, v, o, dy] {
        addresses.push(rows.address()?);
    }
    addresses.push(address(stats)? as *mut c_void);
    for rows in [&dq, &dk, &dv] {
        addresses.push(rows.address()?);
    }
    addresses.extend([address(&sum)? as *mut c_void, address(&gathered)? as *mut c_void]);
    let (one, hidden) = (1f32, hidden(graph::version()));
    addresses.extend([pointer(&one), pointer(&scale)]);
    if causal {
        addresses.push(pointer(&hidden));
    }
    let shapes = vec![q.shape, k.shape, v.shape, o.shape, dy.shape];
    let ran = run(q.tensor.device().as_cuda_device()?, Key { number, causal, shapes }, &addresses)?;
    Ok(ran.then_some([dq.tensor, dk.tensor, dv.tensor]))
}

/// The arguments of [`crate::ops::attention`] as rows. All but the values are features first, and usually views of tokens.
fn rows([q, k, v]: [&Tensor; 3], heads: usize) -> Result<[Rows; 3]> {
    let features = |t: &Tensor| Rows::of_tokens(&t.transpose(1, 2)?, heads);
    Ok([features(q)?, features(k)?, Rows::of_tokens(v, heads)?])
}

/// [`crate::ops::attention`] by cuDNN: the result (B, heads·d, N) is a view of tokens. `None` where it does not apply.
///
/// # Errors
/// If cuDNN fails.
pub fn attention(args: [&Tensor; 3], heads: usize, causal: bool) -> Result<Option<Tensor>> {
    if !applies(args, heads) {
        return Ok(None);
    }
    let (b, c, n) = args[0].dims3()?;
    let rows = rows(args, heads)?;
    match value(args[0], rows.each_ref(), scale(c / heads), causal)? {
        Some((o, _)) => Ok(Some(o.tensor.reshape((b, n, c))?.transpose(1, 2)?)),
        None => Ok(None),
    }
}

/// The VJP of [`attention`], which computes the result once more.
///
/// # Errors
/// If shapes do not match, or cuDNN fails.
pub fn attention_vjp(
    args: [&Tensor; 3],
    heads: usize,
    causal: bool,
    dy: &Tensor,
) -> Result<Option<[Option<Tensor>; 3]>> {
    if !applies(args, heads) || dy.dtype() != args[0].dtype() {
        return Ok(None);
    }
    let ((b, c, n), m) = (args[0].dims3()?, args[1].dim(2)?);
    let (rows, scale) = (rows(args, heads)?, scale(c / heads));
    let Some((o, stats)) = value(args[0], rows.each_ref(), scale, causal)? else { return Ok(None) };
    let dy = Rows::of_tokens(&dy.transpose(1, 2)?, heads)?;
    let Some([dq, dk, dv]) = gradients(rows.each_ref(), (&o, &stats), &dy, scale, causal)? else { return Ok(None) };
    let features = |t: Tensor, n: usize| t.reshape((b, n, c))?.transpose(1, 2).map(Some);
    Ok(Some([features(dq, n)?, features(dk, m)?, Some(dv.reshape((b, m, c))?)]))
}

fn scale(d: usize) -> f32 {
    1.0 / (d as f32).sqrt()
}

/// Whether cuDNN may know this attention.
fn applies(args: [&Tensor; 3], heads: usize) -> bool {
    let [q, k, v] = args;
    let half = Number::of_half(q.dtype()).is_some() && k.dtype() == q.dtype() && v.dtype() == q.dtype();
    half && q.dim(1).is_ok_and(|c| (c / heads).is_multiple_of(8)) && args.iter().all(|t| t.elem_count() > 0)
}
