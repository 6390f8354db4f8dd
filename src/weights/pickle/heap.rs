//! The values that a pickle builds, and the memory that they may take.
//!
//! Containers are indices into a [`Heap`], because Python's containers may contain each other in cycles.

use std::mem::size_of;

use safetensors::Dtype;

use super::{Outcome, damaged};

/// A value on the machine's stack. Containers, classes, storages and tensors are indices into the heap.
#[derive(Clone, Copy, Debug)]
pub enum PickleValue<'a> {
    /// Anything that can neither hold a tensor nor be part of one: `None`, floats, bytes, sets, settings.
    Other,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    /// Index of the first item, and the number of items.
    Tuple(usize, usize),
    List(usize),
    Dict(usize),
    Class(usize),
    Storage(usize),
    Tensor(usize),
}

impl PickleValue<'_> {
    /// The value as a size, offset or stride.
    pub fn size(self) -> Option<usize> {
        match self {
            PickleValue::Int(n) => n.try_into().ok(),
            _ => None,
        }
    }
}

/// A flat row of numbers, of which tensors are views.
pub struct PickleStorage<'a> {
    /// `None` for untyped storages, whose dtype the tensor gives.
    pub dtype: Option<Dtype>,
    pub key: &'a str,
    /// Number of elements; of bytes, where the storage is untyped.
    pub count: usize,
}

impl PickleStorage<'_> {
    /// Bytes of an element.
    pub fn element(&self) -> usize {
        self.dtype.map_or(1, |dtype| dtype.bitsize() / 8)
    }
}

/// A tensor as the pickle describes it. Nothing of it has been checked.
pub struct PickleTensor<'a> {
    /// Index of its storage.
    pub storage: usize,
    /// Given where the storage has no dtype.
    pub dtype: Option<Dtype>,
    pub offset: PickleValue<'a>,
    pub shape: PickleValue<'a>,
    pub strides: PickleValue<'a>,
}

/// The bytes of memory that reading a file may still take, whatever lengths the file claims.
pub struct MemoryBudget(usize);

impl MemoryBudget {
    /// Sixteen bytes for each byte of the file, and 1 MiB. Well-formed files come closest to the limit if they contain
    /// thousands of tensors of one number each.
    pub fn of(length: usize) -> Self {
        MemoryBudget(length.saturating_mul(16).saturating_add(1 << 20))
    }

    pub fn spend(&mut self, bytes: usize) -> Outcome<()> {
        self.0 =
            self.0.checked_sub(bytes).ok_or_else(|| damaged("it creates more objects than a file of its size may"))?;
        Ok(())
    }
}

/// The cost of a container in addition to its items: its own record, and the space that a vector reserves for its first
/// items.
pub const CONTAINER: usize = 256;

/// Everything that a pickle has built.
#[derive(Default)]
pub struct Heap<'a> {
    items: Vec<PickleValue<'a>>,
    lists: Vec<Vec<PickleValue<'a>>>,
    dicts: Vec<Vec<(PickleValue<'a>, PickleValue<'a>)>>,
    /// Module and name.
    classes: Vec<(&'a str, &'a str)>,
    storages: Vec<PickleStorage<'a>>,
    tensors: Vec<PickleTensor<'a>>,
}

impl<'a> Heap<'a> {
    pub fn storages(&self) -> &[PickleStorage<'a>] {
        &self.storages
    }

    pub fn tensor(&self, index: usize) -> &PickleTensor<'a> {
        &self.tensors[index]
    }

    /// Module and name of a class.
    pub fn class(&self, index: usize) -> (&'a str, &'a str) {
        self.classes[index]
    }

    /// The items of a tuple or list.
    pub fn sequence(&self, value: PickleValue) -> Option<&[PickleValue<'a>]> {
        match value {
            PickleValue::Tuple(start, length) => Some(&self.items[start..start + length]),
            PickleValue::List(list) => Some(&self.lists[list]),
            _ => None,
        }
    }

    /// Item `index` of a container, with its key. The keys of lists and tuples are 0, 1, 2 and so on.
    pub fn item(&self, container: PickleValue, index: usize) -> Option<(PickleValue<'a>, PickleValue<'a>)> {
        match container {
            PickleValue::Dict(dict) => self.dicts[dict].get(index).copied(),
            _ => Some((PickleValue::Int(index as i64), *self.sequence(container)?.get(index)?)),
        }
    }

    /// The value that a dictionary has for `key`.
    pub fn child(&self, value: PickleValue, key: &str) -> Option<PickleValue<'a>> {
        let PickleValue::Dict(dict) = value else { return None };
        let pairs = self.dicts[dict].iter().rev();
        pairs.copied().find_map(|(k, v)| matches!(k, PickleValue::Text(k) if k == key).then_some(v))
    }

    pub fn add_tuple(
        &mut self,
        items: impl ExactSizeIterator<Item = PickleValue<'a>>,
        budget: &mut MemoryBudget,
    ) -> Outcome<PickleValue<'a>> {
        let (first, length) = (self.items.len(), items.len());
        budget.spend(length * size_of::<PickleValue>())?;
        self.items.extend(items);
        Ok(PickleValue::Tuple(first, length))
    }

    pub fn add_list(&mut self, budget: &mut MemoryBudget) -> Outcome<PickleValue<'a>> {
        budget.spend(CONTAINER)?;
        self.lists.push(vec![]);
        Ok(PickleValue::List(self.lists.len() - 1))
    }

    pub fn add_dict(&mut self, budget: &mut MemoryBudget) -> Outcome<PickleValue<'a>> {
        budget.spend(CONTAINER)?;
        self.dicts.push(vec![]);
        Ok(PickleValue::Dict(self.dicts.len() - 1))
    }

    pub fn add_class(&mut self, module: &'a str, name: &'a str, budget: &mut MemoryBudget) -> Outcome<PickleValue<'a>> {
        budget.spend(size_of::<(&str, &str)>())?;
        self.classes.push((module, name));
        Ok(PickleValue::Class(self.classes.len() - 1))
    }

    pub fn add_storage(&mut self, storage: PickleStorage<'a>, budget: &mut MemoryBudget) -> Outcome<PickleValue<'a>> {
        budget.spend(size_of::<PickleStorage>())?;
        self.storages.push(storage);
        Ok(PickleValue::Storage(self.storages.len() - 1))
    }

    pub fn add_tensor(&mut self, tensor: PickleTensor<'a>, budget: &mut MemoryBudget) -> Outcome<PickleValue<'a>> {
        budget.spend(size_of::<PickleTensor>())?;
        self.tensors.push(tensor);
        Ok(PickleValue::Tensor(self.tensors.len() - 1))
    }

    /// Appends to the list number `list`.
    pub fn append(
        &mut self,
        list: usize,
        items: impl ExactSizeIterator<Item = PickleValue<'a>>,
        budget: &mut MemoryBudget,
    ) -> Outcome<()> {
        budget.spend(items.len() * size_of::<PickleValue>())?;
        self.lists[list].extend(items);
        Ok(())
    }

    /// Sets items of the dictionary number `dict`; `pairs` has a key and its value by turns.
    pub fn set(&mut self, dict: usize, pairs: &[PickleValue<'a>], budget: &mut MemoryBudget) -> Outcome<()> {
        if !pairs.len().is_multiple_of(2) {
            return Err(damaged("a key of a dictionary has no value"));
        }
        budget.spend(size_of_val(pairs))?;
        self.dicts[dict].extend(pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }
}
