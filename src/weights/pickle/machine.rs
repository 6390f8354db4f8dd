//! A stack machine for the pickles that PyTorch writes. It builds values and runs nothing.
//!
//! It supports the opcodes of protocols 2 to 5. Values are numbers and slices of the pickle; containers live in a
//! [`Heap`]. A class that is only named is a value like any other: Lightning uses classes as the keys of its callbacks.
//! A *call* is supported only where it makes a tensor or a container. Calls of a few classes of settings
//! ([`is_inert`]) become [`PickleValue::Other`], and their content is dropped. Every other call is an error that names
//! the class.

use std::collections::HashMap;
use std::mem::size_of;

use super::classes::{is_inert, storage_dtype, tensor_dtype, unsupported};
use super::heap::{Heap, MemoryBudget, PickleStorage, PickleTensor, PickleValue};
use super::opcodes::*;
use super::{Outcome, Reader, damaged, refused, text};

/// Runs one pickle up to its `STOP`. Returns its value, and the heap that the value refers to.
pub fn load<'a>(reader: &mut Reader<'a>, budget: &mut MemoryBudget) -> Outcome<(Heap<'a>, PickleValue<'a>)> {
    let (heap, memo) = (Heap::default(), HashMap::new());
    let mut machine = Machine { reader, budget, heap, stack: vec![], highest: 0, marks: vec![], memo };
    let start = machine.reader.at;
    loop {
        let at = machine.reader.at - start;
        let opcode = machine.reader.u8()?;
        if opcode == STOP {
            let value = machine.pop()?;
            return Ok((machine.heap, value));
        }
        machine.step(opcode, at)?;
    }
}

struct Machine<'a, 'm> {
    reader: &'m mut Reader<'a>,
    budget: &'m mut MemoryBudget,
    heap: Heap<'a>,
    stack: Vec<PickleValue<'a>>,
    /// The greatest length that the stack has had.
    highest: usize,
    /// Where on the stack each open mark stands.
    marks: Vec<usize>,
    memo: HashMap<usize, PickleValue<'a>>,
}

/// The opcodes. Each group returns whether the opcode belongs to it.
impl<'a> Machine<'a, '_> {
    /// Runs one opcode, which stands `at` bytes into the pickle.
    fn step(&mut self, opcode: u8, at: usize) -> Outcome<()> {
        let supported = self.framing(opcode)?
            || self.stack_and_memo(opcode)?
            || self.scalar(opcode)?
            || self.string(opcode)?
            || self.sequence(opcode)?
            || self.dict_or_set(opcode)?
            || self.object(opcode)?;
        match supported {
            true => Ok(()),
            false => Err(damaged(format!("byte {opcode:#04x} at {at} of its pickle is not one that PyTorch writes"))),
        }
    }

    fn framing(&mut self, opcode: u8) -> Outcome<bool> {
        match opcode {
            PROTO => match self.reader.u8()? {
                0..=5 => {}
                protocol => return Err(refused(format!("it is a pickle of protocol {protocol}"))),
            },
            FRAME => {
                if self.reader.length()? > self.reader.left() {
                    return Err(damaged("it ends too early"));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn stack_and_memo(&mut self, opcode: u8) -> Outcome<bool> {
        match opcode {
            MARK => {
                self.budget.spend(size_of::<usize>())?;
                self.marks.push(self.stack.len());
            }
            POP => drop(self.pop()?),
            POP_MARK => self.discard()?,
            DUP => self.push(self.top()?)?,
            BINPUT => {
                let index = self.reader.u8()?;
                self.remember(index.into())?;
            }
            LONG_BINPUT => {
                let index = self.reader.u32()?;
                self.remember(index as usize)?;
            }
            MEMOIZE => self.remember(self.memo.len())?,
            BINGET => {
                let index = self.reader.u8()?;
                self.recall(index.into())?;
            }
            LONG_BINGET => {
                let index = self.reader.u32()?;
                self.recall(index as usize)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn scalar(&mut self, opcode: u8) -> Outcome<bool> {
        let value = match opcode {
            NONE => PickleValue::Other,
            NEWTRUE => PickleValue::Bool(true),
            NEWFALSE => PickleValue::Bool(false),
            BININT => PickleValue::Int(self.reader.u32()?.cast_signed().into()),
            BININT1 => PickleValue::Int(self.reader.u8()?.into()),
            BININT2 => PickleValue::Int(self.reader.u16()?.into()),
            LONG1 => {
                let length = self.reader.u8()?;
                integer(self.reader.take(length.into())?)
            }
            LONG4 => {
                let length = self.reader.u32()?;
                integer(self.reader.take(length as usize)?)
            }
            BINFLOAT => {
                self.reader.take(8)?;
                PickleValue::Other
            }
            _ => return Ok(false),
        };
        self.push(value)?;
        Ok(true)
    }

    fn string(&mut self, opcode: u8) -> Outcome<bool> {
        let length = match opcode {
            SHORT_BINUNICODE | SHORT_BINSTRING | SHORT_BINBYTES => self.reader.u8()?.into(),
            BINUNICODE | BINSTRING | BINBYTES => self.reader.u32()? as usize,
            BINUNICODE8 | BINBYTES8 | BYTEARRAY8 => self.reader.length()?,
            _ => return Ok(false),
        };
        let bytes = self.reader.take(length)?;
        let value = match opcode {
            BINUNICODE | SHORT_BINUNICODE | BINUNICODE8 => PickleValue::Text(text(bytes)?),
            // A string of Python 2 is text or bytes.
            SHORT_BINSTRING | BINSTRING => text(bytes).map_or(PickleValue::Other, PickleValue::Text),
            _ => PickleValue::Other,
        };
        self.push(value)?;
        Ok(true)
    }

    fn sequence(&mut self, opcode: u8) -> Outcome<bool> {
        let value = match opcode {
            EMPTY_LIST => self.heap.add_list(self.budget)?,
            LIST => {
                let start = self.close()?;
                let list = self.heap.add_list(self.budget)?;
                self.append(list, start)?;
                list
            }
            APPEND | APPENDS => {
                let start = if opcode == APPEND { self.last(1)? } else { self.close()? };
                let target = self.below(start)?;
                self.append(target, start)?;
                return Ok(true);
            }
            EMPTY_TUPLE => PickleValue::Tuple(0, 0),
            TUPLE => {
                let start = self.close()?;
                self.heap.add_tuple(self.stack.drain(start..), self.budget)?
            }
            TUPLE1..=TUPLE3 => {
                let start = self.last(usize::from(opcode - TUPLE1) + 1)?;
                self.heap.add_tuple(self.stack.drain(start..), self.budget)?
            }
            _ => return Ok(false),
        };
        self.push(value)?;
        Ok(true)
    }

    fn dict_or_set(&mut self, opcode: u8) -> Outcome<bool> {
        let value = match opcode {
            EMPTY_DICT => self.heap.add_dict(self.budget)?,
            DICT => {
                let start = self.close()?;
                let dict = self.heap.add_dict(self.budget)?;
                self.set(dict, start)?;
                dict
            }
            SETITEM | SETITEMS => {
                let start = if opcode == SETITEM { self.last(2)? } else { self.close()? };
                let target = self.below(start)?;
                self.set(target, start)?;
                return Ok(true);
            }
            EMPTY_SET => PickleValue::Other,
            ADDITEMS => {
                self.discard()?;
                return Ok(true);
            }
            FROZENSET => {
                self.discard()?;
                PickleValue::Other
            }
            _ => return Ok(false),
        };
        self.push(value)?;
        Ok(true)
    }

    fn object(&mut self, opcode: u8) -> Outcome<bool> {
        let value = match opcode {
            GLOBAL => {
                let (module, name) = (self.reader.line()?, self.reader.line()?);
                self.heap.add_class(module, name, self.budget)?
            }
            STACK_GLOBAL => match (self.pop()?, self.pop()?) {
                (PickleValue::Text(name), PickleValue::Text(module)) => {
                    self.heap.add_class(module, name, self.budget)?
                }
                _ => return Err(damaged("the name of a class is not a text")),
            },
            BINPERSID => {
                let id = self.pop()?;
                self.storage(id)?
            }
            REDUCE | NEWOBJ => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                self.call(class, arguments)?
            }
            NEWOBJ_EX => {
                self.pop()?;
                let (arguments, class) = (self.pop()?, self.pop()?);
                self.call(class, arguments)?
            }
            // The state of an object. A dictionary's state holds the attributes that Python code gave it (`_metadata`).
            BUILD => {
                self.pop()?;
                return match self.top()? {
                    PickleValue::Dict(_) | PickleValue::Other => Ok(true),
                    _ => Err(refused("it sets the state of an object that is not a container")),
                };
            }
            INST => {
                let (module, name) = (self.reader.line()?, self.reader.line()?);
                return Err(unsupported(module, name));
            }
            OBJ => {
                let start = self.close()?;
                return Err(match self.stack.get(start) {
                    Some(PickleValue::Class(class)) => {
                        let (module, name) = self.heap.class(*class);
                        unsupported(module, name)
                    }
                    _ => damaged("it calls a value that is not a class"),
                });
            }
            _ => return Ok(false),
        };
        self.push(value)?;
        Ok(true)
    }
}

/// The stack and the memo.
impl<'a> Machine<'a, '_> {
    fn push(&mut self, value: PickleValue<'a>) -> Outcome<()> {
        if self.stack.len() == self.highest {
            self.budget.spend(size_of::<PickleValue>())?;
            self.highest += 1;
        }
        self.stack.push(value);
        Ok(())
    }

    /// Where the last `count` values of the stack begin. Values below an open mark are out of reach.
    fn last(&self, count: usize) -> Outcome<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.len().checked_sub(count).filter(|start| *start >= floor).ok_or_else(empty)
    }

    fn top(&self) -> Outcome<PickleValue<'a>> {
        Ok(self.stack[self.last(1)?])
    }

    fn pop(&mut self) -> Outcome<PickleValue<'a>> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    /// The value just below `start`.
    fn below(&self, start: usize) -> Outcome<PickleValue<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        start.checked_sub(1).filter(|at| *at >= floor).map(|at| self.stack[at]).ok_or_else(empty)
    }

    /// Closes the innermost mark. Returns where it stood.
    fn close(&mut self) -> Outcome<usize> {
        self.marks.pop().ok_or_else(empty)
    }

    /// Closes the innermost mark and drops everything above it.
    fn discard(&mut self) -> Outcome<()> {
        let start = self.close()?;
        self.stack.truncate(start);
        Ok(())
    }

    fn remember(&mut self, index: usize) -> Outcome<()> {
        let value = self.top()?;
        if self.memo.insert(index, value).is_none() {
            self.budget.spend(2 * size_of::<(usize, PickleValue)>())?;
        }
        Ok(())
    }

    fn recall(&mut self, index: usize) -> Outcome<()> {
        let value = self.memo.get(&index).copied();
        self.push(value.ok_or_else(|| damaged("it refers to an object that it has not created"))?)
    }
}

/// Containers and calls.
impl<'a> Machine<'a, '_> {
    /// Moves the stack from `start` on into the list `target`.
    fn append(&mut self, target: PickleValue<'a>, start: usize) -> Outcome<()> {
        match target {
            PickleValue::List(list) => self.heap.append(list, self.stack.drain(start..), self.budget),
            PickleValue::Other => {
                self.stack.truncate(start);
                Ok(())
            }
            _ => Err(damaged("it appends to a value that is not a list")),
        }
    }

    /// Moves the stack from `start` on, keys and values by turns, into the dictionary `target`.
    fn set(&mut self, target: PickleValue<'a>, start: usize) -> Outcome<()> {
        match target {
            PickleValue::Dict(dict) => self.heap.set(dict, &self.stack[start..], self.budget)?,
            PickleValue::Other => {}
            _ => return Err(damaged("it sets items of a value that is not a dictionary")),
        }
        self.stack.truncate(start);
        Ok(())
    }

    /// The storage of a persistent id: `("storage", class, key, device, count)`, with a further `None` in older files.
    fn storage(&mut self, id: PickleValue) -> Outcome<PickleValue<'a>> {
        let no_storage = || damaged("it refers to external data that is not a storage");
        let Some(
            [PickleValue::Text("storage"), PickleValue::Class(class), PickleValue::Text(key), _, count, view @ ..],
        ) = self.heap.sequence(id)
        else {
            return Err(no_storage());
        };
        if !matches!(view, [] | [PickleValue::Other]) {
            return Err(refused("it has storages that are parts of other storages, as PyTorch wrote before 0.4"));
        }
        let (module, name) = self.heap.class(*class);
        let dtype = match (module, name) {
            ("torch" | "torch.storage", "UntypedStorage") => None,
            ("torch", name) => {
                let dtype = name.strip_suffix("Storage").and_then(storage_dtype);
                Some(dtype.ok_or_else(|| unsupported(module, name))?)
            }
            _ => return Err(unsupported(module, name)),
        };
        let count = count.size().ok_or_else(no_storage)?;
        let storage = PickleStorage { dtype, key, count };
        self.heap.add_storage(storage, self.budget)
    }

    /// The result of a call, if it makes a tensor or a container, or is inert.
    fn call(&mut self, class: PickleValue<'a>, arguments: PickleValue<'a>) -> Outcome<PickleValue<'a>> {
        let PickleValue::Class(index) = class else { return Err(damaged("it calls a value that is not a class")) };
        let (module, name) = self.heap.class(index);
        let PickleValue::Tuple(..) = arguments else { return Err(damaged("the arguments of a call are not a tuple")) };
        let given = self.heap.sequence(arguments).unwrap_or(&[]);
        match (module, name, given) {
            (
                "torch._utils",
                "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3",
                [PickleValue::Storage(storage), offset, shape, strides, rest @ ..],
            ) => {
                let dtype = match rest {
                    [_, _, PickleValue::Class(dtype), ..] if name.ends_with("v3") => Some(self.dtype(*dtype)?),
                    _ => None,
                };
                let tensor =
                    PickleTensor { storage: *storage, dtype, offset: *offset, shape: *shape, strides: *strides };
                self.heap.add_tensor(tensor, self.budget)
            }
            (
                "torch._utils",
                "_rebuild_parameter" | "_rebuild_parameter_with_state",
                [tensor @ PickleValue::Tensor(_), ..],
            ) => Ok(*tensor),
            ("collections", "OrderedDict", []) | ("collections", "defaultdict", _) => self.heap.add_dict(self.budget),
            ("collections", "OrderedDict", [pairs]) => {
                let pairs = *pairs;
                self.ordered_dict(pairs)
            }
            _ if is_inert(module, name) => Ok(PickleValue::Other),
            _ => Err(unsupported(module, name)),
        }
    }

    /// The dtype that `_rebuild_tensor_v3` names: one without a storage class.
    fn dtype(&self, class: usize) -> Outcome<safetensors::Dtype> {
        let (module, name) = self.heap.class(class);
        let dtype = Some(name).filter(|_| module == "torch").and_then(tensor_dtype);
        dtype.ok_or_else(|| unsupported(module, name))
    }

    /// A dictionary of these pairs: Python 2 passes the items to the constructor.
    fn ordered_dict(&mut self, pairs: PickleValue<'a>) -> Outcome<PickleValue<'a>> {
        let dict = self.heap.add_dict(self.budget)?;
        let start = self.stack.len();
        let mut index = 0;
        while let Some((_, pair)) = self.heap.item(pairs, index) {
            let Some([key, value]) = self.heap.sequence(pair) else {
                return Err(damaged("an item of a dictionary is not a pair"));
            };
            let (key, value) = (*key, *value);
            self.push(key)?;
            self.push(value)?;
            index += 1;
        }
        self.set(dict, start)?;
        Ok(dict)
    }
}

fn empty() -> String {
    damaged("its pickle pops more values from the stack than it has pushed")
}

/// A little-endian integer of any length. One that needs more than 64 bits cannot describe a tensor.
fn integer<'a>(bytes: &[u8]) -> PickleValue<'a> {
    if bytes.len() > 8 {
        return PickleValue::Other;
    }
    let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [sign; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    PickleValue::Int(i64::from_le_bytes(all))
}
