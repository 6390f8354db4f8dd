//! The supported operators, a file for each family.
//!
//! Each is a function from a node's attributes to a function of tensors. Attributes are read and checked when the file is
//! opened, shapes when the network runs.

mod activation;
mod arithmetic;
mod arrange;
mod attention;
mod constant;
mod conv;
mod deform;
mod fourier;
mod index;
mod loss;
mod norm;
mod pad;
mod pool;
mod recurrent;
mod reduce;
mod resize;
mod roi;
mod rotary;
mod sample;
mod shape;
mod unpool;
mod window;

use candle_core::{DType, Device, Tensor};
use recurrent::Cell;

use crate::attributes::Attributes;
use crate::{Error, Result};

/// A node as a function from its arguments to its results.
pub type Run = Box<dyn Fn(&Inputs) -> Result<Vec<Tensor>> + Send + Sync>;

/// A node's arguments: floats are of type `float` on `device`, integers i64 on the CPU, truth values u8 on either.
pub struct Inputs<'a> {
    pub values: Vec<Option<&'a Tensor>>,
    pub device: &'a Device,
    /// f32, or f64 in the self-test.
    pub float: DType,
}

impl<'a> Inputs<'a> {
    /// Argument number `i`, counted from 0.
    pub fn get(&self, i: usize) -> Result<&'a Tensor> {
        self.optional(i).ok_or_else(|| Error::input(format!("its argument {} is missing", i + 1)))
    }

    pub fn optional(&self, i: usize) -> Option<&'a Tensor> {
        self.values.get(i).copied().flatten()
    }

    /// An argument that must be a non-empty tensor of floats.
    pub fn real(&self, i: usize) -> Result<&'a Tensor> {
        self.optional_real(i)?.ok_or_else(|| Error::input(format!("its argument {} is missing", i + 1)))
    }

    pub fn optional_real(&self, i: usize) -> Result<Option<&'a Tensor>> {
        match self.optional(i) {
            Some(t) if !t.dtype().is_float() => {
                Err(Error::input(format!("its argument {} is {}, not float", i + 1, dtype_name(t))))
            }
            Some(t) if t.elem_count() == 0 => {
                Err(Error::input(format!("its argument {} is empty: {:?}", i + 1, t.dims())))
            }
            t => Ok(t),
        }
    }

    /// An argument of integers, of any shape.
    pub fn ints(&self, i: usize) -> Result<Vec<i64>> {
        ints(self.get(i)?)
    }

    pub fn optional_ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        self.optional(i).map(ints).transpose()
    }

    /// An optional argument of floats that are settings, not features.
    pub fn floats(&self, i: usize) -> Result<Option<Vec<f32>>> {
        let Some(t) = self.optional(i) else { return Ok(None) };
        if !t.dtype().is_float() {
            return Err(Error::input(format!("its argument {} is {}, not float", i + 1, dtype_name(t))));
        }
        Ok(Some(if t.elem_count() == 0 { vec![] } else { t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()? }))
    }
}

/// ONNX's name of a tensor's element type.
pub fn dtype_name(t: &Tensor) -> &'static str {
    match t.dtype() {
        DType::F32 | DType::F64 => "float",
        DType::I64 => "int64",
        DType::U8 => "bool",
        other => other.as_str(),
    }
}

fn ints(t: &Tensor) -> Result<Vec<i64>> {
    if t.dtype() != DType::I64 {
        return Err(Error::input(format!("expected integers, got {}", dtype_name(t))));
    }
    Ok(if t.elem_count() == 0 { vec![] } else { t.flatten_all()?.to_vec1()? })
}

/// Makes an operator with one result.
fn one(f: impl Fn(&Inputs) -> Result<Tensor> + Send + Sync + 'static) -> Result<Run> {
    Ok(Box::new(move |inputs| Ok(vec![f(inputs)?])))
}

/// Makes an operator on one tensor of floats.
fn real(f: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static) -> Result<Run> {
    one(move |inputs| f(inputs.real(0)?))
}

/// How many of its results an operator returns, the first ones.
pub fn results(operator: &str) -> usize {
    match operator {
        "Split" => usize::MAX,
        "Attention" => 4,
        "LayerNormalization" | "LSTM" => 3,
        "MaxPool" | "GRU" | "RNN" | "SoftmaxCrossEntropyLoss" => 2,
        _ => 1,
    }
}

/// Whether an operator's results may be piecewise constant in its argument, so that no gradient flows.
pub fn is_piecewise_constant(operator: &str) -> bool {
    matches!(operator, "Round" | "Floor" | "Ceil" | "Sign" | "Cast")
}

/// Builds the operator of that name with a node's attributes; `None` if it is not supported.
pub fn build(operator: &str, a: &Attributes) -> Option<Result<Run>> {
    layer(operator, a)
        .or_else(|| function(operator, a))
        .or_else(|| calculation(operator, a))
        .or_else(|| rearrangement(operator, a))
}

/// Convolutions, pooling, resizing, normalisation, attention, recurrence, transforms and losses.
fn layer(operator: &str, a: &Attributes) -> Option<Result<Run>> {
    Some(match operator {
        "Conv" => conv::conv(a),
        "ConvTranspose" => conv::conv_transpose(a),
        "MaxPool" => pool::max(a),
        "AveragePool" => pool::average(a),
        "LpPool" => pool::lp(a),
        "MaxUnpool" => unpool::max_unpool(a),
        "GlobalLpPool" => pool::global_lp(a),
        "GlobalMaxPool" => pool::global_max(),
        "GlobalAveragePool" => pool::global_average(),
        "Resize" | "Upsample" => resize::resize(a),
        "BatchNormalization" => norm::batch(a),
        "InstanceNormalization" => norm::instance(a),
        "GroupNormalization" => norm::group(a),
        "LayerNormalization" => norm::layer(a),
        "RMSNormalization" => norm::rms(a),
        "LRN" => norm::local_response(a),
        "MeanVarianceNormalization" => norm::mean_variance(a),
        "DeformConv" => deform::deform_conv(a),
        "GridSample" => sample::grid_sample(a),
        "RoiAlign" => roi::roi_align(a),
        "Attention" => attention::attention(a),
        "RotaryEmbedding" => rotary::rotary_embedding(a),
        "LSTM" => recurrent::recurrent(Cell::Lstm, a),
        "GRU" => recurrent::recurrent(Cell::Gru { reset_after: false }, a),
        "RNN" => recurrent::recurrent(Cell::Rnn, a),
        "DFT" => fourier::dft(a),
        "NegativeLogLikelihoodLoss" => loss::negative_log_likelihood(a),
        "SoftmaxCrossEntropyLoss" => loss::softmax_cross_entropy(a),
        _ => return None,
    })
}

/// Elementwise functions.
fn function(operator: &str, a: &Attributes) -> Option<Result<Run>> {
    Some(match operator {
        "Relu" => activation::relu(),
        "LeakyRelu" => activation::leaky_relu(a),
        "PRelu" => activation::prelu(),
        "ThresholdedRelu" => activation::thresholded_relu(a),
        "Clip" => activation::clip(a),
        "HardSigmoid" => activation::hard_sigmoid(a),
        "HardSwish" => activation::hard_swish(),
        "Sigmoid" => activation::sigmoid(),
        "Softplus" => activation::softplus(),
        "Softsign" => activation::softsign(),
        "Mish" => activation::mish(),
        "Elu" => activation::elu(a),
        "Selu" => activation::selu(a),
        "Celu" => activation::celu(a),
        "Gelu" => activation::gelu(a),
        "Softmax" => activation::softmax(a),
        "LogSoftmax" => activation::log_softmax(a),
        "Tanh" => real(|x| Ok(x.tanh()?)),
        "Erf" => real(|x| Ok(x.erf()?)),
        "Sqrt" => real(|x| Ok(x.sqrt()?)),
        "Exp" => real(|x| Ok(x.exp()?)),
        "Log" => real(|x| Ok(x.log()?)),
        "Sin" => real(|x| Ok(x.sin()?)),
        "Cos" => real(|x| Ok(x.cos()?)),
        "Reciprocal" => real(|x| Ok(x.recip()?)),
        "Floor" => real(|x| Ok(x.detach().floor()?)),
        "Ceil" => real(|x| Ok(x.detach().ceil()?)),
        "Round" => activation::round(),
        _ => return None,
    })
}

/// Arithmetic, comparisons, casts, matrix products and reductions.
fn calculation(operator: &str, a: &Attributes) -> Option<Result<Run>> {
    use arithmetic::{Binary, Compare, Logic};
    use reduce::Reduce;
    Some(match operator {
        "Abs" => arithmetic::abs(),
        "Neg" => arithmetic::neg(),
        "Sign" => arithmetic::sign(),
        "IsNaN" => arithmetic::is_nan(),
        "Add" => arithmetic::binary(Binary::Add),
        "Sub" => arithmetic::binary(Binary::Sub),
        "Mul" => arithmetic::binary(Binary::Mul),
        "Div" => arithmetic::binary(Binary::Div),
        "Mod" => arithmetic::modulo(a),
        "Pow" => arithmetic::pow(),
        "Min" => arithmetic::fold(Binary::Min),
        "Max" => arithmetic::fold(Binary::Max),
        "Sum" => arithmetic::fold(Binary::Add),
        "Mean" => arithmetic::mean(),
        "Equal" => arithmetic::compare(Compare::Equal),
        "Less" => arithmetic::compare(Compare::Less),
        "LessOrEqual" => arithmetic::compare(Compare::LessOrEqual),
        "Greater" => arithmetic::compare(Compare::Greater),
        "GreaterOrEqual" => arithmetic::compare(Compare::GreaterOrEqual),
        "And" => arithmetic::logic(Logic::And),
        "Or" => arithmetic::logic(Logic::Or),
        "Xor" => arithmetic::logic(Logic::Xor),
        "Not" => arithmetic::not(),
        "Where" => arithmetic::choose(),
        "Cast" => arithmetic::cast(a),
        "CastLike" => arithmetic::cast_like(a),
        "MatMul" => arithmetic::matmul(),
        "Gemm" => arithmetic::gemm(a),
        "ReduceMean" => reduce::reduce(Reduce::Mean, a),
        "ReduceSum" => reduce::reduce(Reduce::Sum, a),
        "ReduceSumSquare" => reduce::reduce(Reduce::SumSquare, a),
        "ReduceMax" => reduce::reduce(Reduce::Max, a),
        "ReduceMin" => reduce::reduce(Reduce::Min, a),
        "ReduceProd" => reduce::reduce(Reduce::Product, a),
        "ReduceL1" => reduce::reduce(Reduce::L1, a),
        "ReduceL2" => reduce::reduce(Reduce::L2, a),
        "ReduceLogSumExp" => reduce::reduce(Reduce::LogSumExp, a),
        _ => return None,
    })
}

/// Operators that move numbers without changing them, and constants.
fn rearrangement(operator: &str, a: &Attributes) -> Option<Result<Run>> {
    Some(match operator {
        "Identity" => shape::identity(),
        "Dropout" => shape::dropout(a),
        "Shape" => shape::shape(a),
        "Size" => shape::size_of(),
        "Constant" => constant::constant(a),
        "ConstantOfShape" => constant::constant_of_shape(a),
        "Range" => constant::range(),
        "Reshape" => shape::reshape(a),
        "Flatten" => shape::flatten(a),
        "Squeeze" => shape::squeeze(a),
        "Unsqueeze" => shape::unsqueeze(a),
        "Transpose" => shape::transpose(a),
        "Concat" => arrange::concat(a),
        "Split" => arrange::split(a),
        "Slice" => index::slice(a),
        "Gather" => index::gather(a),
        "GatherElements" => index::gather_elements(a),
        "GatherND" => index::gather_nd(a),
        "ScatterND" => index::scatter_nd(a),
        "TensorScatter" => index::tensor_scatter(a),
        "Pad" => pad::pad(a),
        "Expand" => shape::expand(),
        "Tile" => arrange::tile(),
        "DepthToSpace" => arrange::depth_to_space(a),
        "SpaceToDepth" => arrange::space_to_depth(a),
        _ => return None,
    })
}
