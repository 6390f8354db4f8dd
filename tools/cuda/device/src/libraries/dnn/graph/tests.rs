//! Tests of graphs: attention as one operation and as the graphs that cudnn-frontend builds, against f64.

use std::ffi::c_void;
use std::ptr::null_mut;

use super::super::super::number::Number;
use super::super::super::testing::{Buffer, faults, noise};
use super::super::{cudnnCreate, cudnnDestroy};
use super::api::*;
use super::attribute::{kind, typed};
use super::operation::mode;

/// A descriptor, destroyed when it is dropped.
struct Made(*mut c_void);

impl Made {
    fn new(kind: i32) -> Self {
        let mut handle = null_mut();
        assert_eq!(cudnnBackendCreateDescriptor(kind, &mut handle), 0);
        Self(handle)
    }

    fn try_set<T>(&self, name: i32, given: i32, values: &[T]) -> i32 {
        // SAFETY: the elements are of the type that the caller names.
        unsafe { cudnnBackendSetAttribute(self.0, name, given, values.len() as i64, values.as_ptr().cast()) }
    }

    fn set<T>(self, name: i32, given: i32, values: &[T]) -> Self {
        assert_eq!(self.try_set(name, given, values), 0, "attribute {name}");
        self
    }

    fn child(self, name: i32, of: &Made) -> Self {
        self.set(name, typed::DESCRIPTOR, &[of.0])
    }

    fn finalise(&self) -> i32 {
        cudnnBackendFinalize(self.0)
    }

    fn done(self) -> Self {
        assert_eq!(self.finalise(), 0);
        self
    }

    fn number(&self, name: i32) -> i64 {
        let mut number = 0i64;
        // SAFETY: room for one number.
        let code =
            unsafe { cudnnBackendGetAttribute(self.0, name, typed::INT64, 1, null_mut(), (&raw mut number).cast()) };
        assert_eq!(code, 0);
        number
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        cudnnBackendDestroyDescriptor(self.0);
    }
}

const F32: i32 = 0;
const BF16: i32 = 9;
const INT32: i32 = 4;
const BOOLEAN: i32 = 11;

/// A graph that is being built.
#[derive(Default)]
struct Builder {
    ids: i64,
    kept: Vec<Made>,
    operations: Vec<Made>,
    bound: Vec<(i64, *mut c_void)>,
    by_value: Vec<Vec<f32>>,
}

type Id = usize;

impl Builder {
    fn tensor(&mut self, number: i32, dims: [i64; 4], strides: [i64; 4], is_virtual: bool, by_value: bool) -> Id {
        self.ids += 1;
        let made = Made::new(kind::TENSOR)
            .set(901, typed::DATA_TYPE, &[number])
            .set(902, typed::INT64, &dims)
            .set(903, typed::INT64, &strides)
            .set(900, typed::INT64, &[16i64])
            .set(906, typed::INT64, &[self.ids])
            .set(907, typed::BOOLEAN, &[is_virtual])
            .set(908, typed::BOOLEAN, &[by_value])
            .done();
        self.kept.push(made);
        self.kept.len() - 1
    }

    fn bound(&mut self, number: i32, dims: [i64; 4], strides: [i64; 4], buffer: &Buffer) -> Id {
        let id = self.tensor(number, dims, strides, false, false);
        self.bound.push((self.ids, buffer.pointer()));
        id
    }

    fn constant(&mut self, x: f32) -> Id {
        let id = self.tensor(F32, [1; 4], [1; 4], false, true);
        self.by_value.push(vec![x]);
        let x = self.by_value.last_mut().unwrap();
        self.bound.push((self.ids, x.as_mut_ptr().cast()));
        id
    }

    fn temporary(&mut self, number: i32, dims: [i64; 4]) -> Id {
        let [_, h, n, m] = dims;
        self.tensor(number, dims, [h * n * m, n * m, m, 1], true, false)
    }

    fn pointwise(&mut self, mode: i64, compute: i32, inputs: &[Id], y: Id, axis: Option<i64>) -> Id {
        let settings = Made::new(kind::POINTWISE).set(0, typed::POINTWISE_MODE, &[mode as i32]).set(
            1,
            typed::DATA_TYPE,
            &[compute],
        );
        let settings = match axis {
            Some(axis) => settings.set(9, typed::INT64, &[axis]),
            None => settings,
        };
        let settings = settings.done();
        let mut made = Made::new(kind::OP_POINTWISE).child(750, &settings).child(753, &self.kept[y]);
        for (name, input) in [751, 752, 758].into_iter().zip(inputs) {
            made = made.child(name, &self.kept[*input]);
        }
        self.operations.push(made.done());
        y
    }

    fn matmul(&mut self, a: Id, b: Id, c: Id) -> Id {
        let settings = Made::new(kind::MATMUL).set(1500, typed::DATA_TYPE, &[F32]).done();
        let [a, b, to] = [a, b, c].map(|id| &self.kept[id]);
        let made = Made::new(kind::OP_MATMUL).child(1523, &settings).child(1520, a).child(1521, b).child(1522, to);
        self.operations.push(made.done());
        c
    }

    fn reduce(&mut self, operator: i32, x: Id, y: Id) -> Id {
        let settings = Made::new(kind::REDUCTION)
            .set(1600, typed::REDUCTION, &[operator])
            .set(1601, typed::DATA_TYPE, &[F32])
            .done();
        let made =
            Made::new(kind::OP_REDUCTION).child(1612, &settings).child(1610, &self.kept[x]).child(1611, &self.kept[y]);
        self.operations.push(made.done());
        y
    }

    fn reshape(&mut self, x: Id, y: Id) -> Id {
        let made = Made::new(kind::OP_RESHAPE).child(2200, &self.kept[x]).child(2201, &self.kept[y]);
        self.operations.push(made.done());
        y
    }

    /// Asks for a plan and runs it. Returns the code of the heuristic if there is none.
    fn run(&self, workspace: bool) -> Result<(), i32> {
        let mut handle = null_mut();
        assert_eq!(cudnnCreate(&mut handle), 0);
        let operations: Vec<_> = self.operations.iter().map(|o| o.0).collect();
        let graph = Made::new(kind::GRAPH).set(801, typed::DESCRIPTOR, &operations).set(800, typed::HANDLE, &[handle]);
        let code = graph.finalise();
        if code != 0 {
            return Err(code);
        }
        let heuristic = Made::new(kind::HEURISTIC).child(201, &graph).set(200, typed::HEURISTIC_MODE, &[3i32]);
        let code = heuristic.finalise();
        if code != 0 {
            return Err(code);
        }
        let (config, mut count) = (Made::new(kind::CONFIG), 0i64);
        let mut configs = [config.0];
        // SAFETY: room for one configuration.
        let code = unsafe {
            cudnnBackendGetAttribute(heuristic.0, 202, typed::DESCRIPTOR, 1, &mut count, configs.as_mut_ptr().cast())
        };
        assert_eq!(code, 0);
        if count == 0 {
            return Err(super::NOT_SUPPORTED);
        }
        let plan = Made::new(kind::PLAN).child(401, &config).set(400, typed::HANDLE, &[handle]).done();
        let space = Buffer::new(Number::Bool, plan.number(402) as usize);
        let (ids, pointers): (Vec<_>, Vec<_>) = self.bound.iter().copied().unzip();
        let pack = Made::new(kind::PACK).set(1000, typed::INT64, &ids).set(1001, typed::POINTER, &pointers);
        let pack = if workspace { pack.set(1003, typed::POINTER, &[space.pointer()]) } else { pack }.done();
        // SAFETY: living descriptors.
        let code = unsafe { cudnnBackendExecute(handle, plan.0, pack.0) };
        // The results are read while everything lives.
        self.synchronise();
        cudnnDestroy(handle);
        if code == 0 { Ok(()) } else { Err(code) }
    }

    fn synchronise(&self) {
        Buffer::of(Number::F32, &[0.0]).read();
    }
}

/// One problem of attention in memory (B, N, heads, d), as the product has it, with its results in f64.
struct Problem {
    b: usize,
    h: usize,
    n: usize,
    m: usize,
    d: usize,
    causal: bool,
    scale: f32,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dy: Vec<f32>,
}

struct Exact {
    o: Vec<f64>,
    stats: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

impl Problem {
    fn new(b: usize, h: usize, n: usize, m: usize, d: usize, causal: bool) -> Self {
        let of = |len, seed| noise(Number::Bf16, len * b * h * d, seed);
        Self { b, h, n, m, d, causal, scale: 0.35, q: of(n, 1), k: of(m, 2), v: of(m, 3), dy: of(n, 4) }
    }

    /// By the definition.
    fn exact(&self) -> Exact {
        let &Self { b, h, n, m, d, .. } = self;
        let zeros = |len: usize| vec![0f64; len * b * h * d];
        let (mut o, mut dq, mut dk, mut dv) = (zeros(n), zeros(n), zeros(m), zeros(m));
        let mut stats = vec![0f64; b * h * n];
        for (s, head, i) in (0..b * h * n).map(|at| (at / (h * n), at / n % h, at % n)) {
            let at = |len: usize, row: usize, e: usize| ((s * len + row) * h + head) * d + e;
            let dot = |x: &[f32], xl, xr, y: &[f32], yl, yr| -> f64 {
                (0..d).map(|e| f64::from(x[at(xl, xr, e)]) * f64::from(y[at(yl, yr, e)])).sum()
            };
            let seen = if self.causal { i + 1 } else { m };
            let scores: Vec<_> = (0..seen).map(|j| dot(&self.q, n, i, &self.k, m, j) * f64::from(self.scale)).collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - highest).exp()).sum();
            stats[(s * h + head) * n + i] = highest + total.ln();
            let weights: Vec<_> = scores.iter().map(|s| (s - highest).exp() / total).collect();
            let gradients: Vec<_> = (0..seen).map(|j| dot(&self.dy, n, i, &self.v, m, j)).collect();
            let mean: f64 = weights.iter().zip(&gradients).map(|(w, g)| w * g).sum();
            for (j, (w, g)) in weights.iter().zip(&gradients).enumerate() {
                let ds = w * (g - mean) * f64::from(self.scale);
                for e in 0..d {
                    o[at(n, i, e)] += w * f64::from(self.v[at(m, j, e)]);
                    dv[at(m, j, e)] += w * f64::from(self.dy[at(n, i, e)]);
                    dq[at(n, i, e)] += ds * f64::from(self.k[at(m, j, e)]);
                    dk[at(m, j, e)] += ds * f64::from(self.q[at(n, i, e)]);
                }
            }
        }
        Exact { o, stats, dq, dk, dv }
    }

    /// Dimensions and strides of (B, heads, len, d), or of its transpose (B, heads, d, len).
    fn shape(&self, len: usize, turned: bool) -> ([i64; 4], [i64; 4]) {
        let [b, h, len, d] = [self.b, self.h, len, self.d].map(|n| n as i64);
        let (dims, strides) = ([b, h, len, d], [len * h * d, d, h * d, 1]);
        let turn = |[a, b, c, d]: [i64; 4]| if turned { [a, b, d, c] } else { [a, b, c, d] };
        (turn(dims), turn(strides))
    }

    fn row_stats(&self) -> ([i64; 4], [i64; 4]) {
        let [b, h, n] = [self.b, self.h, self.n].map(|n| n as i64);
        ([b, h, n, 1], [h * n, n, 1, 1])
    }

    fn scores(&self) -> [i64; 4] {
        [self.b, self.h, self.n, self.m].map(|n| n as i64)
    }
}

fn close(what: &str, got: &[f32], exact: &[f64], most: f64) {
    let highest = exact.iter().fold(0f64, |h, x| h.max(x.abs()));
    let error = got.iter().zip(exact).map(|(g, x)| (f64::from(*g) - x).abs()).fold(0f64, f64::max);
    assert!(error <= most * highest, "{what}: error {error} of {highest}");
}

fn mask(g: &mut Builder, p: &Problem, scores: Id) -> Id {
    if !p.causal {
        return scores;
    }
    let [rows, columns] = [2, 3].map(|axis| {
        let y = g.temporary(INT32, p.scores());
        g.pointwise(mode::INDEX, F32, &[scores], y, Some(axis))
    });
    let seen = g.temporary(BOOLEAN, p.scores());
    g.pointwise(mode::AT_LEAST, BOOLEAN, &[rows, columns], seen, None);
    let (hidden, masked) = (g.constant(f32::NEG_INFINITY), g.temporary(F32, p.scores()));
    g.pointwise(mode::SELECT, F32, &[scores, hidden, seen], masked, None)
}

/// The forward pass as many operations.
fn forward(g: &mut Builder, p: &Problem, [q, k, v, o, stats]: [&Buffer; 5]) {
    let (nd, ns) = p.shape(p.n, false);
    let (q, o) = (g.bound(BF16, nd, ns, q), g.bound(BF16, nd, ns, o));
    let (kd, ks) = p.shape(p.m, true);
    let k = g.bound(BF16, kd, ks, k);
    let (vd, vs) = p.shape(p.m, false);
    let v = g.bound(BF16, vd, vs, v);
    let (sd, ss) = p.row_stats();
    let stats = g.bound(F32, sd, ss, stats);
    let scale = g.constant(p.scale);
    let [raw, scaled, less, powers] = [(); 4].map(|()| g.temporary(F32, p.scores()));
    let [highest, total, log] = [(); 3].map(|()| g.temporary(F32, sd));
    g.matmul(q, k, raw);
    g.pointwise(mode::MUL, F32, &[raw, scale], scaled, None);
    let scores = mask(g, p, scaled);
    g.reduce(3, scores, highest);
    g.pointwise(mode::SUB, F32, &[scores, highest], less, None);
    g.pointwise(mode::EXP, F32, &[less], powers, None);
    g.reduce(0, powers, total);
    g.pointwise(mode::LOG, F32, &[total], log, None);
    g.pointwise(mode::ADD, F32, &[highest, log], stats, None);
    let weights = g.temporary(BF16, p.scores());
    g.pointwise(mode::DIV, F32, &[powers, total], weights, None);
    g.matmul(weights, v, o);
}

/// The backward pass as many operations.
fn backward(g: &mut Builder, p: &Problem, given: [&Buffer; 6], made: [&Buffer; 5]) {
    let ((nd, ns), (md, ms), (kd, ks)) = (p.shape(p.n, false), p.shape(p.m, false), p.shape(p.m, true));
    let (sd, ss) = p.row_stats();
    let [q, o, dy] = [given[0], given[3], given[5]].map(|b| g.bound(BF16, nd, ns, b));
    let [k, v] = [given[1], given[2]].map(|b| g.bound(BF16, kd, ks, b));
    let stats = g.bound(F32, sd, ss, given[4]);
    let dq = g.bound(BF16, nd, ns, made[0]);
    let [dk, dv] = [made[1], made[2]].map(|b| g.bound(BF16, md, ms, b));
    let sum = g.bound(F32, sd, ss, made[3]);
    let [b, h, n, d] = nd;
    let gathered = g.bound(F32, nd, [h * n * d, n * d, d, 1], made[4]);
    let (one, scale) = (g.constant(1.0), g.constant(p.scale));

    let (product, raw_sum) = (g.temporary(F32, nd), g.temporary(F32, sd));
    g.pointwise(mode::MUL, F32, &[dy, o], product, None);
    g.reduce(0, product, raw_sum);
    g.pointwise(mode::MUL, F32, &[raw_sum, one], sum, None);

    let [raw, scaled, less, powers, dp, centred, unscaled, ds] = [(); 8].map(|()| g.temporary(F32, p.scores()));
    g.matmul(q, k, raw);
    g.pointwise(mode::MUL, F32, &[raw, scale], scaled, None);
    g.pointwise(mode::SUB, F32, &[scaled, stats], less, None);
    let less = mask(g, p, less);
    g.pointwise(mode::EXP, F32, &[less], powers, None);
    let m = p.m as i64;
    let turned = ([b, h, m, n], [h * n * m, n * m, 1, m]);
    let [turned_weights, turned_ds] = [(); 2].map(|()| g.tensor(BF16, turned.0, turned.1, true, false));
    g.reshape(powers, turned_weights);
    g.matmul(turned_weights, dy, dv);
    g.matmul(dy, v, dp);
    g.pointwise(mode::SUB, F32, &[dp, sum], centred, None);
    g.pointwise(mode::MUL, F32, &[centred, powers], unscaled, None);
    g.pointwise(mode::MUL, F32, &[unscaled, scale], ds, None);
    g.reshape(ds, turned_ds);
    g.matmul(turned_ds, q, dk);
    let keys = g.tensor(BF16, md, ms, true, false);
    g.reshape(k, keys);
    g.matmul(ds, keys, gathered);
    g.pointwise(mode::IDENTITY, F32, &[gathered], dq, None);
}

#[test]
fn composite_attention_and_its_gradients() {
    for p in [Problem::new(2, 3, 5, 7, 16, false), Problem::new(1, 2, 33, 33, 8, true)] {
        let exact = p.exact();
        let [q, k, v, dy] = [&p.q, &p.k, &p.v, &p.dy].map(|x| Buffer::of(Number::Bf16, x));
        let o = Buffer::new(Number::Bf16, p.q.len());
        let stats = Buffer::new(Number::F32, exact.stats.len());
        let mut g = Builder::default();
        forward(&mut g, &p, [&q, &k, &v, &o, &stats]);
        g.run(true).unwrap();
        close("o", &o.read(), &exact.o, 0.01);
        close("stats", &stats.read(), &exact.stats, 1e-5);

        let [dq, dk, dv] = [&p.q, &p.k, &p.v].map(|x| Buffer::new(Number::Bf16, x.len()));
        let (sum, gathered) = (Buffer::new(Number::F32, exact.stats.len()), Buffer::new(Number::F32, p.q.len()));
        let mut g = Builder::default();
        backward(&mut g, &p, [&q, &k, &v, &o, &stats, &dy], [&dq, &dk, &dv, &sum, &gathered]);
        g.run(true).unwrap();
        close("dq", &dq.read(), &exact.dq, 0.01);
        close("dk", &dk.read(), &exact.dk, 0.01);
        close("dv", &dv.read(), &exact.dv, 0.01);
    }
}

/// Attention as one operation. `change` may spoil the shape of q.
fn single(p: &Problem, buffers: [&Buffer; 5], number: i32, change: impl Fn(&mut [i64; 4], &mut [i64; 4])) -> Builder {
    let mut g = Builder::default();
    let (mut nd, mut ns) = p.shape(p.n, false);
    let o = g.bound(number, nd, ns, buffers[3]);
    change(&mut nd, &mut ns);
    let q = g.bound(number, nd, ns, buffers[0]);
    let (md, ms) = p.shape(p.m, false);
    let [k, v] = [buffers[1], buffers[2]].map(|b| g.bound(number, md, ms, b));
    let (sd, ss) = p.row_stats();
    let stats = g.bound(F32, sd, ss, buffers[4]);
    let scale = g.constant(p.scale);
    let names = [2800, 2801, 2802, 2803, 2804, 2805];
    let made = names.into_iter().zip([q, k, v, o, stats, scale]);
    let made = made.fold(Made::new(kind::OP_SDPA), |made, (name, id)| made.child(name, &g.kept[id]));
    g.operations.push(made.done());
    g
}

#[test]
fn attention_in_one_operation() {
    let p = Problem::new(2, 2, 9, 6, 24, false);
    let exact = p.exact();
    for (number, code, most) in [(Number::Bf16, BF16, 0.01), (Number::F16, 2, 0.002)] {
        let [q, k, v] = [&p.q, &p.k, &p.v].map(|x| Buffer::of(number, x));
        let (o, stats) = (Buffer::new(number, p.q.len()), Buffer::new(Number::F32, exact.stats.len()));
        single(&p, [&q, &k, &v, &o, &stats], code, |_, _| ()).run(true).unwrap();
        close("o", &o.read(), &exact.o, most);
        close("stats", &stats.read(), &exact.stats, 1e-5);
    }
}

#[test]
fn attention_is_refused_as_cudnn_refuses_it() {
    let p = Problem::new(1, 2, 4, 4, 16, false);
    let [q, k, v] = [&p.q, &p.k, &p.v].map(|x| Buffer::of(Number::F32, x));
    let (o, stats) = (Buffer::new(Number::F32, p.q.len()), Buffer::new(Number::F32, 8));
    let buffers = [&q, &k, &v, &o, &stats];
    assert_eq!(single(&p, buffers, F32, |_, _| ()).run(true), Err(super::NOT_SUPPORTED));
    assert_eq!(single(&p, buffers, BF16, |_, _| ()).run(false), Err(super::NULL_POINTER));
    let odd = Problem::new(1, 2, 4, 4, 12, false);
    assert_eq!(single(&odd, buffers, BF16, |_, _| ()).run(true), Err(super::NOT_SUPPORTED));
}

#[test]
fn misaligned_addresses_are_refused() {
    let p = Problem::new(1, 2, 4, 4, 16, false);
    let [q, k, v] = [&p.q, &p.k, &p.v].map(|x| Buffer::of(Number::Bf16, x));
    let (o, stats) = (Buffer::new(Number::Bf16, p.q.len()), Buffer::new(Number::F32, 8));
    for operand in 0..4 {
        let mut g = single(&p, [&q, &k, &v, &o, &stats], BF16, |_, _| ());
        g.bound[operand].1 = g.bound[operand].1.wrapping_byte_add(8);
        assert_eq!(g.run(true), Err(super::MISALIGNED_POINTER));
    }
}

#[test]
fn attributes_are_checked() {
    let tensor = Made::new(kind::TENSOR);
    assert_eq!(tensor.finalise(), super::BAD_PARAM);
    assert_eq!(tensor.try_set(902, typed::DOUBLE, &[1.0f64]), super::ATTRIBUTE_TYPE);
    assert_eq!(tensor.try_set(700, typed::INT64, &[1i64]), super::BAD_PARAM);
    let operation = Made::new(kind::OP_SDPA);
    assert_eq!(operation.try_set(2800, typed::DESCRIPTOR, &[tensor.0]), super::NOT_FINALIZED);
    assert_eq!(operation.finalise(), super::BAD_PARAM);
}

#[test]
fn reading_past_the_end_is_a_fault() {
    faults("libraries::dnn::graph::tests::reading_past_the_end_is_a_fault", "out of bounds", || {
        let p = Problem::new(1, 2, 4, 4, 16, false);
        let [q, k, v] = [&p.q, &p.k, &p.v].map(|x| Buffer::of(Number::Bf16, x));
        let (o, stats) = (Buffer::new(Number::Bf16, p.q.len()), Buffer::new(Number::F32, 8));
        let _ = single(&p, [&q, &k, &v, &o, &stats], BF16, |_, s| s[2] = 256).run(true);
    });
}

#[test]
fn reading_what_nothing_wrote_is_a_fault() {
    faults("libraries::dnn::graph::tests::reading_what_nothing_wrote_is_a_fault", "uninitialised", || {
        let p = Problem::new(1, 2, 4, 4, 16, false);
        let [k, v] = [&p.k, &p.v].map(|x| Buffer::of(Number::Bf16, x));
        let q = Buffer::new(Number::Bf16, p.q.len());
        let (o, stats) = (Buffer::new(Number::Bf16, p.q.len()), Buffer::new(Number::F32, 8));
        let _ = single(&p, [&q, &k, &v, &o, &stats], BF16, |_, _| ()).run(true);
    });
}

#[test]
fn rows_at_odd_places_are_a_fault() {
    faults("libraries::dnn::graph::tests::rows_at_odd_places_are_a_fault", "multiples of 16 bytes", || {
        let p = Problem::new(1, 2, 4, 4, 16, false);
        let [q, k, v] = [&p.q, &p.k, &p.v].map(|x| Buffer::of(Number::Bf16, x));
        let (o, stats) = (Buffer::new(Number::Bf16, p.q.len()), Buffer::new(Number::F32, 8));
        let _ = single(&p, [&q, &k, &v, &o, &stats], BF16, |_, s| s[2] = 33).run(true);
    });
}

#[test]
fn a_destroyed_descriptor_is_a_fault() {
    faults("libraries::dnn::graph::tests::a_destroyed_descriptor_is_a_fault", "no living", || {
        let tensor = Made::new(kind::TENSOR);
        cudnnBackendDestroyDescriptor(tensor.0);
        cudnnBackendFinalize(tensor.0);
    });
}
