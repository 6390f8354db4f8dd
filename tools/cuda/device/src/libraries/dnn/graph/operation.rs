//! Operations of a graph, and what cuDNN checks when one is finalised.

use std::sync::Arc;

use super::super::super::convolution::{Convolution, Sizes};
use super::super::super::number::Number;
use super::attribute::{Descriptor, Final, kind};
use super::tensor::Tensor;
use super::{BAD_PARAM, DATA_TYPE, DESCRIPTOR_TYPE, NOT_SUPPORTED, SHAPE_MISMATCH};

/// Modes of pointwise operations (`cudnnPointwiseMode_t`).
pub(super) mod mode {
    pub const ADD: i64 = 0;
    pub const MUL: i64 = 1;
    pub const DIV: i64 = 6;
    pub const SUB: i64 = 9;
    pub const EXP: i64 = 13;
    pub const LOG: i64 = 15;
    pub const IDENTITY: i64 = 21;
    pub const RELU: i64 = 100;
    pub const TANH: i64 = 101;
    pub const SIGMOID: i64 = 102;
    pub const GELU: i64 = 104;
    pub const SWISH: i64 = 106;
    pub const GELU_TANH: i64 = 107;
    pub const GREATER: i64 = 302;
    pub const AT_LEAST: i64 = 303;
    pub const INDEX: i64 = 501;
    pub const SELECT: i64 = 601;
}

/// Reductions (`cudnnReduceTensorOp_t`).
pub(super) const SUM: i64 = 0;
pub(super) const MAX: i64 = 3;

/// Descriptors that only hold settings of an operation.
#[derive(Clone, Debug)]
pub(super) enum Settings {
    Pointwise { mode: i64, compute: Number, axis: Option<usize>, beta: f64 },
    Convolution { convolution: Convolution, compute: Number },
    Matmul { compute: Number },
    Reduction { operator: i64, compute: Number },
}

/// The softmax within an attention: it only names more results.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub(super) q: Arc<Tensor>,
    pub(super) k: Arc<Tensor>,
    pub(super) v: Arc<Tensor>,
    pub(super) o: Arc<Tensor>,
    pub(super) stats: Option<Arc<Tensor>>,
    pub(super) scale: Option<Arc<Tensor>>,
    /// Uses attributes that no engine of this device knows.
    pub(super) more: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Pointwise {
        mode: i64,
        axis: usize,
        beta: f64,
        compute: Number,
        alphas: [f32; 2],
        inputs: Vec<Arc<Tensor>>,
        y: Arc<Tensor>,
    },
    Matmul {
        a: Arc<Tensor>,
        b: Arc<Tensor>,
        c: Arc<Tensor>,
        compute: Number,
    },
    Reduction {
        operator: i64,
        x: Arc<Tensor>,
        y: Arc<Tensor>,
        compute: Number,
    },
    Reshape {
        x: Arc<Tensor>,
        y: Arc<Tensor>,
    },
    Convolution {
        convolution: Convolution,
        x: Arc<Tensor>,
        w: Arc<Tensor>,
        y: Arc<Tensor>,
        sizes: Sizes,
        factors: [f32; 2],
        backward: bool,
        compute: Number,
    },
    Attention(Attention),
    /// The single operation of the backward pass, for which cuDNN has no engine up to 9.26. This device has none either.
    AttentionBackward(Vec<Arc<Tensor>>),
    /// Only given to an attention.
    Softmax {
        stats: Option<Arc<Tensor>>,
        more: bool,
    },
}

impl Operation {
    pub(super) fn inputs(&self) -> Vec<&Arc<Tensor>> {
        match self {
            Self::Pointwise { inputs, .. } => inputs.iter().collect(),
            Self::Matmul { a, b, .. } => vec![a, b],
            Self::Reduction { x, .. } | Self::Reshape { x, .. } => vec![x],
            Self::Convolution { x, w, y, backward, .. } => vec![if *backward { y } else { x }, w],
            Self::Attention(a) => [&a.q, &a.k, &a.v].into_iter().chain(&a.scale).collect(),
            Self::AttentionBackward(tensors) => tensors.iter().collect(),
            Self::Softmax { .. } => vec![],
        }
    }

    pub(super) fn outputs(&self) -> Vec<&Arc<Tensor>> {
        match self {
            Self::Pointwise { y, .. } | Self::Reduction { y, .. } | Self::Reshape { y, .. } => vec![y],
            Self::Matmul { c, .. } => vec![c],
            Self::Convolution { x, y, backward, .. } => vec![if *backward { x } else { y }],
            Self::Attention(a) => std::iter::once(&a.o).chain(&a.stats).collect(),
            Self::AttentionBackward(_) | Self::Softmax { .. } => vec![],
        }
    }

    pub(super) fn flops(&self) -> f64 {
        match self {
            Self::Matmul { a, c, .. } => 2.0 * c.len() as f64 * a.dims[a.dims.len() - 1] as f64,
            Self::Convolution { convolution, sizes, .. } => convolution.flops(*sizes),
            Self::Attention(a) => 2.0 * (a.q.len() * a.k.dims[2] + a.o.len() * a.k.dims[2]) as f64,
            other => other.outputs().iter().map(|y| y.len()).sum::<usize>() as f64,
        }
    }
}

/// The number of inputs of a pointwise mode. `None` for modes that this device does not know.
fn arity(mode: i64) -> Option<usize> {
    use mode::*;
    Some(match mode {
        ADD | MUL | DIV | SUB | 2 | 3 | GREATER | AT_LEAST | 304 | 305 => 2,
        EXP | LOG | IDENTITY | RELU | TANH | SIGMOID | GELU | SWISH | GELU_TANH | INDEX | 4 | 16 | 17 | 22 => 1,
        SELECT => 3,
        _ => return None,
    })
}

fn number(d: &Descriptor, name: i32) -> Result<Number, i32> {
    Number::of_cudnn(d.number(name).ok_or(BAD_PARAM)? as i32).ok_or(DATA_TYPE)
}

pub(super) fn settings(d: &Descriptor) -> Result<Settings, i32> {
    Ok(match d.kind {
        kind::POINTWISE => {
            let mode = d.number(0).ok_or(BAD_PARAM)?;
            let axis = d.number(9).and_then(|axis| usize::try_from(axis).ok());
            if mode == mode::INDEX && axis.is_none() {
                return Err(BAD_PARAM);
            }
            Settings::Pointwise { mode, compute: number(d, 1)?, axis, beta: d.real(8, 1.0) }
        }
        kind::MATMUL => Settings::Matmul { compute: number(d, 1500)? },
        kind::REDUCTION => {
            Settings::Reduction { operator: d.number(1600).ok_or(BAD_PARAM)?, compute: number(d, 1601)? }
        }
        _ => {
            if d.number(106).ok_or(BAD_PARAM)? != 2 {
                return Err(NOT_SUPPORTED);
            }
            let two = |name| <[usize; 2]>::try_from(d.sizes(name)?).map_err(|_| BAD_PARAM);
            let convolution = Convolution {
                dilation: two(102)?,
                stride: two(103)?,
                after: two(104)?,
                before: two(105)?,
                groups: 1,
                flipped: d.number(101).ok_or(BAD_PARAM)? == 0,
            };
            if convolution.stride.iter().chain(&convolution.dilation).any(|&n| n == 0) {
                return Err(BAD_PARAM);
            }
            Settings::Convolution { convolution, compute: number(d, 100)? }
        }
    })
}

fn given(d: &Descriptor, name: i32) -> Result<Settings, i32> {
    match d.children(name).first() {
        Some((_, Final::Settings(settings))) => Ok(settings.as_ref().clone()),
        Some(_) => Err(DESCRIPTOR_TYPE),
        None => Err(BAD_PARAM),
    }
}

pub(super) fn operation(d: &Descriptor) -> Result<Operation, i32> {
    match d.kind {
        kind::OP_POINTWISE => pointwise(d),
        kind::OP_MATMUL => matmul(d),
        kind::OP_REDUCTION => {
            let Settings::Reduction { operator, compute } = given(d, 1612)? else { return Err(DESCRIPTOR_TYPE) };
            let (x, y) = (d.tensor(1610)?, d.tensor(1611)?);
            if x.dims.len() != y.dims.len() || x.dims.iter().zip(&y.dims).any(|(x, y)| *y != 1 && x != y) {
                return Err(SHAPE_MISMATCH);
            }
            if operator != SUM && operator != MAX {
                return Err(NOT_SUPPORTED);
            }
            Ok(Operation::Reduction { operator, x, y, compute })
        }
        kind::OP_RESHAPE => {
            let (x, y) = (d.tensor(2200)?, d.tensor(2201)?);
            if x.len() != y.len() { Err(SHAPE_MISMATCH) } else { Ok(Operation::Reshape { x, y }) }
        }
        kind::OP_CONVOLUTION | kind::OP_CONVOLUTION_DATA => convolution(d),
        kind::OP_SDPA => attention(d),
        kind::OP_SDPA_BACKWARD => {
            let required = [2851, 2852, 2853, 2854, 2855, 2862, 2859, 2860, 2861];
            required.iter().map(|&name| d.tensor(name)).collect::<Result<_, _>>().map(Operation::AttentionBackward)
        }
        _ => {
            d.tensor(3100)?;
            d.tensor(3101)?;
            let more = [3103, 3104, 3105].iter().any(|&name| !d.children(name).is_empty());
            Ok(Operation::Softmax { stats: d.optional(3102)?, more: more || d.number(3106).unwrap_or(0) != 0 })
        }
    }
}

fn pointwise(d: &Descriptor) -> Result<Operation, i32> {
    let Settings::Pointwise { mode, compute, axis, beta } = given(d, 750)? else { return Err(DESCRIPTOR_TYPE) };
    let arity = arity(mode).ok_or(NOT_SUPPORTED)?;
    let inputs = [751, 752, 758][..arity].iter().map(|&name| d.tensor(name)).collect::<Result<Vec<_>, _>>()?;
    let (y, axis) = (d.tensor(753)?, axis.unwrap_or(0));
    let fits =
        |x: &Arc<Tensor>| x.dims.len() == y.dims.len() && x.dims.iter().zip(&y.dims).all(|(x, y)| *x == 1 || x == y);
    if !inputs.iter().all(fits) || axis >= y.dims.len() {
        return Err(SHAPE_MISMATCH);
    }
    let alphas = [754, 755].map(|name| d.real(name, 1.0) as f32);
    Ok(Operation::Pointwise { mode, axis, beta, compute, alphas, inputs, y })
}

fn matmul(d: &Descriptor) -> Result<Operation, i32> {
    let Settings::Matmul { compute } = given(d, 1523)? else { return Err(DESCRIPTOR_TYPE) };
    let (a, b, c) = (d.tensor(1520)?, d.tensor(1521)?, d.tensor(1522)?);
    let rank = c.dims.len();
    if rank < 2 || a.dims.len() != rank || b.dims.len() != rank {
        return Err(SHAPE_MISMATCH);
    }
    let batch = |x: &Tensor| x.dims.iter().zip(&c.dims).take(rank - 2).all(|(x, c)| *x == 1 || x == c);
    let (m, n, k) = (c.dims[rank - 2], c.dims[rank - 1], a.dims[rank - 1]);
    if !batch(&a) || !batch(&b) || a.dims[rank - 2] != m || b.dims[rank - 2] != k || b.dims[rank - 1] != n {
        return Err(SHAPE_MISMATCH);
    }
    if (1525..=1527).any(|name| !d.children(name).is_empty()) {
        return Err(NOT_SUPPORTED);
    }
    Ok(Operation::Matmul { a, b, c, compute })
}

fn convolution(d: &Descriptor) -> Result<Operation, i32> {
    let backward = d.kind == kind::OP_CONVOLUTION_DATA;
    let [alpha, beta, settings, w, x, y] =
        if backward { [706, 707, 708, 709, 710, 711] } else { [700, 701, 702, 703, 704, 705] };
    let Settings::Convolution { mut convolution, compute } = given(d, settings)? else { return Err(DESCRIPTOR_TYPE) };
    let (x, w, y) = (d.tensor(x)?, d.tensor(w)?, d.tensor(y)?);
    let four = |t: &Tensor| <[usize; 4]>::try_from(t.dims.as_slice()).map_err(|_| SHAPE_MISMATCH);
    let sizes = Sizes { x: four(&x)?, w: four(&w)?, y: four(&y)? };
    // The channels of x over those of w are the groups.
    convolution.groups = sizes.x[1].checked_div(sizes.w[1]).unwrap_or(0);
    if convolution.result(sizes.x, sizes.w) != Some(sizes.y) {
        return Err(SHAPE_MISMATCH);
    }
    let factors = [d.real(alpha, 1.0) as f32, d.real(beta, 0.0) as f32];
    Ok(Operation::Convolution { convolution, x, w, y, sizes, factors, backward, compute })
}

fn attention(d: &Descriptor) -> Result<Operation, i32> {
    let (q, k, v, o) = (d.tensor(2800)?, d.tensor(2801)?, d.tensor(2802)?, d.tensor(2803)?);
    let (mut stats, scale) = (d.optional(2804)?, d.optional(2805)?);
    let mut more = d.values.keys().any(|name| !(2800..=2805).contains(name) && *name != 2814);
    match d.children(2814).first() {
        None => {}
        Some((_, Final::Operation(softmax))) => match softmax.as_ref() {
            Operation::Softmax { stats: of_softmax, more: of } => {
                stats = stats.or_else(|| of_softmax.clone());
                more |= of;
            }
            _ => return Err(DESCRIPTOR_TYPE),
        },
        Some(_) => return Err(DESCRIPTOR_TYPE),
    }
    if [&q, &k, &v, &o].iter().any(|t| t.dims.len() != 4) {
        return Err(SHAPE_MISMATCH);
    }
    let [b, h, n, e] = [q.dims[0], q.dims[1], q.dims[2], q.dims[3]];
    let (m, f) = (k.dims[2], v.dims[3]);
    if k.dims != [b, h, m, e] || v.dims != [b, h, m, f] || o.dims != [b, h, n, f] {
        return Err(SHAPE_MISMATCH);
    }
    if stats.as_ref().is_some_and(|s| s.dims != [b, h, n, 1]) || scale.as_ref().is_some_and(|s| s.dims != [1, 1, 1, 1])
    {
        return Err(SHAPE_MISMATCH);
    }
    Ok(Operation::Attention(Attention { q, k, v, o, stats, scale, more }))
}
