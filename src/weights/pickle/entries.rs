//! The tensors of a pickle's value by name, and where each one's numbers lie in the file.

use std::borrow::Cow;
use std::ops::Range;

use super::heap::{Heap, PickleStorage, PickleTensor, PickleValue};
use super::{Outcome, damaged, shown};
use crate::elements;
use crate::entry::{Directory, TensorEntry};

/// Names the tensors that can be reached from `root`. `length` is the length of the pickle in bytes, and `range` gives
/// the place of a storage in the file.
pub fn entries<'a>(
    heap: &Heap<'a>,
    root: PickleValue<'a>,
    length: usize,
    range: impl Fn(&PickleStorage) -> Outcome<Range<usize>>,
) -> Outcome<Directory> {
    let root = match heap.child(root, "state_dict") {
        Some(inner @ PickleValue::Dict(_)) => inner,
        _ => root,
    };
    let mut directory = Directory::new();
    // A container may be referenced several times, or contain itself, so that a short file can have endless paths. In a
    // well-formed file each step of a path, and most of each name, takes bytes of the file.
    let mut left = length.saturating_mul(2).saturating_add(1 << 12);
    let mut name = String::new();
    let mut path = vec![PathStep { container: root, next: 0, name: 0 }];
    while let Some(step) = path.last_mut() {
        name.truncate(step.name);
        let Some((key, value)) = heap.item(step.container, step.next) else {
            path.pop();
            continue;
        };
        step.next += 1;
        let key = if holds_tensors(value) { key_text(key) } else { None };
        let used = 1 + key.as_ref().map_or(0, |key| name.len() + key.len());
        left = left.checked_sub(used).ok_or_else(|| damaged("its containers contain each other endlessly"))?;
        let Some(key) = key else { continue };
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&key);
        let PickleValue::Tensor(tensor) = value else {
            path.push(PathStep { container: value, next: 0, name: name.len() });
            continue;
        };
        let entry = entry(heap, heap.tensor(tensor), &range);
        let entry = entry.map_err(|error| format!("tensor `{}`: {error}", shown(&name)))?;
        if directory.insert(name.clone(), entry).is_some() {
            return Err(damaged(format!("two tensors have the name `{}`", shown(&name))));
        }
    }
    if directory.is_empty() {
        return Err("a PyTorch checkpoint without a single named tensor, so not a model's".into());
    }
    Ok(directory)
}

/// A container on the path to a tensor, the index of its next item, and the length of the name so far.
struct PathStep<'a> {
    container: PickleValue<'a>,
    next: usize,
    name: usize,
}

fn holds_tensors(value: PickleValue) -> bool {
    matches!(value, PickleValue::Tensor(_) | PickleValue::Dict(_) | PickleValue::List(_) | PickleValue::Tuple(..))
}

/// A key as part of a name. Keys of other kinds (a class, a tuple) name nothing.
fn key_text(key: PickleValue<'_>) -> Option<Cow<'_, str>> {
    match key {
        PickleValue::Text(key) => Some(Cow::Borrowed(key)),
        PickleValue::Int(index) => Some(index.to_string().into()),
        _ => None,
    }
}

/// The most dimensions of a tensor, more than any network has. Tensors may share a shape, so that without a bound a long
/// one would cost nothing to repeat.
const DIMENSIONS: usize = 8;

/// The sizes in a tuple or list.
fn sizes(heap: &Heap, value: PickleValue) -> Outcome<Vec<usize>> {
    let items = heap.sequence(value).filter(|items| items.len() <= DIMENSIONS);
    let items = items.ok_or_else(|| damaged(format!("its shape does not have 0 to {DIMENSIONS} dimensions")))?;
    items.iter().map(|item| item.size().ok_or_else(|| damaged("its shape has items that are not sizes"))).collect()
}

/// Checks a tensor's description. Returns where its numbers lie in the file.
fn entry(
    heap: &Heap,
    tensor: &PickleTensor,
    range: impl Fn(&PickleStorage) -> Outcome<Range<usize>>,
) -> Outcome<TensorEntry> {
    let storage = &heap.storages()[tensor.storage];
    let dtype = tensor.dtype.or(storage.dtype).ok_or_else(|| damaged("it has no dtype"))?;
    let size = dtype.bitsize() / 8;
    let whole = range(storage)?;
    let bytes = storage.count.checked_mul(storage.element()).filter(|bytes| *bytes <= whole.len());
    let bytes = bytes.ok_or_else(|| damaged("its storage is shorter than it says"))?;
    let (shape, strides) = (sizes(heap, tensor.shape)?, sizes(heap, tensor.strides)?);
    let offset = tensor.offset.size().ok_or_else(|| damaged("its offset is not a size"))?;
    let outside = || damaged(format!("its shape {shape:?} reaches past its storage"));
    if shape.len() != strides.len() {
        return Err(damaged("its shape and strides differ in length"));
    }
    let count = elements(&shape).ok_or_else(outside)?;
    // A view that repeats elements must not be larger than its storage, or a few bytes would become a tensor of any size.
    if count.checked_mul(size).is_none_or(|view| view > bytes) {
        return Err(format!(
            "its shape {shape:?} has more elements than its storage; if it is an expanded view, save it again as a \
             contiguous tensor; otherwise download or copy the file again"
        ));
    }
    let reached = if count == 0 { Some(0) } else { reach(&shape, &strides) };
    let start = offset.checked_mul(size);
    let end = reached.and_then(|n| offset.checked_add(n)).and_then(|n| n.checked_mul(size)).filter(|end| *end <= bytes);
    let (Some(start), Some(end)) = (start, end) else { return Err(outside()) };
    let strides = (!is_contiguous(&shape, &strides)).then_some(strides);
    Ok(TensorEntry { dtype, shape, strides, bytes: whole.start + start..whole.start + end })
}

/// Number of elements from the first to the last that a view reaches; `None` if it overflows.
fn reach(shape: &[usize], strides: &[usize]) -> Option<usize> {
    let mut steps = shape.iter().zip(strides);
    let last = steps.try_fold(0usize, |at, (n, stride)| at.checked_add((n - 1).checked_mul(*stride)?))?;
    last.checked_add(1)
}

/// Whether the elements lie in the order of the shape.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut next = 1;
    shape.contains(&0)
        || shape.iter().zip(strides).rev().all(|(n, stride)| {
            let fits = *n == 1 || *stride == next;
            next *= n;
            fits
        })
}
