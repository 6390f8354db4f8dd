//! A stack machine for the pickles that PyTorch writes. It builds values and runs nothing.
//!
//! Knows the opcodes of protocols 2 to 5. Values are numbers and slices of the pickle; containers are places in a
//! [`Heap`], as Python's may hold each other in circles. A class that is merely named, as Lightning does for the keys
//! of its callbacks, is a value like any other. A *call* is only understood where it makes a tensor or a container; a
//! few classes of settings that stand beside tensors ([`is_inert`]) become [`Value::Other`], whose content is dropped;
//! every other call is an error that names it.

use std::collections::HashMap;
use std::mem::size_of;

use safetensors::Dtype;

use super::{Outcome, Reader, damaged, refused, shown, text};

/// What a pickle builds.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Nothing that a tensor could be in or be made of: `None`, floats, bytes, sets, settings.
    Other,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    /// First item and number of items, in the heap.
    Tuple(usize, usize),
    List(usize),
    Dict(usize),
    Class(usize),
    Storage(usize),
    Tensor(usize),
}

impl Value<'_> {
    /// As a size, offset or stride.
    pub fn size(self) -> Option<usize> {
        match self {
            Value::Int(n) => n.try_into().ok(),
            _ => None,
        }
    }
}

/// A row of numbers that tensors are views of.
pub struct Storage<'a> {
    /// `None` for plain bytes, where the tensor tells.
    pub dtype: Option<Dtype>,
    pub key: &'a str,
    /// Elements; bytes for plain bytes.
    pub count: usize,
}

impl Storage<'_> {
    /// Bytes of an element.
    pub fn element(&self) -> usize {
        self.dtype.map_or(1, |dtype| dtype.bitsize() / 8)
    }
}

/// What the pickle says of a tensor; nothing of it is checked yet.
pub struct Tensor<'a> {
    pub storage: usize,
    /// Where the storage has none.
    pub dtype: Option<Dtype>,
    pub offset: Value<'a>,
    pub shape: Value<'a>,
    pub strides: Value<'a>,
}

/// Bytes that reading a file may still set aside, whatever the file claims.
pub struct Room(usize);

impl Room {
    /// A file may cost some bytes for each of its own. The honest ones need most where they hold thousands of tensors
    /// of a single number each.
    pub fn of(file: &[u8]) -> Self {
        Room(file.len().saturating_mul(16).saturating_add(1 << 20))
    }

    fn set_aside(&mut self, bytes: usize) -> Outcome<()> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| damaged("it holds more objects than its size explains"))?;
        Ok(())
    }
}

/// Everything that a pickle made.
#[derive(Default)]
pub struct Heap<'a> {
    items: Vec<Value<'a>>,
    lists: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    /// Module and name.
    classes: Vec<(&'a str, &'a str)>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<Tensor<'a>>,
}

impl<'a> Heap<'a> {
    pub fn storages(&self) -> &[Storage<'a>] {
        &self.storages
    }

    pub fn tensor(&self, index: usize) -> &Tensor<'a> {
        &self.tensors[index]
    }

    /// The items of a tuple or list.
    pub fn sequence(&self, value: Value) -> Option<&[Value<'a>]> {
        match value {
            Value::Tuple(start, length) => Some(&self.items[start..start + length]),
            Value::List(list) => Some(&self.lists[list]),
            _ => None,
        }
    }

    /// Item `index` of a container, with its key. Lists and tuples count from 0.
    pub fn item(&self, container: Value, index: usize) -> Option<(Value<'a>, Value<'a>)> {
        match container {
            Value::Dict(dict) => self.dicts[dict].get(index).copied(),
            _ => Some((Value::Int(index as i64), *self.sequence(container)?.get(index)?)),
        }
    }

    /// What a dictionary has for a key.
    pub fn child(&self, value: Value, key: &str) -> Option<Value<'a>> {
        let Value::Dict(dict) = value else { return None };
        let pairs = self.dicts[dict].iter().rev();
        pairs.copied().find_map(|(k, v)| matches!(k, Value::Text(k) if k == key).then_some(v))
    }
}

/// Reads one pickle, to its end and no further. The value that it is of, and what that refers to.
pub fn load<'a>(reader: &mut Reader<'a>, room: &mut Room) -> Outcome<(Heap<'a>, Value<'a>)> {
    let mut machine =
        Machine { reader, room, heap: Heap::default(), stack: vec![], highest: 0, marks: vec![], memo: HashMap::new() };
    let start = machine.reader.at;
    loop {
        let at = machine.reader.at - start;
        let opcode = machine.reader.u8()?;
        if opcode == b'.' {
            let value = machine.pop()?;
            return Ok((machine.heap, value));
        }
        machine.step(opcode, at)?;
    }
}

struct Machine<'a, 'm> {
    reader: &'m mut Reader<'a>,
    room: &'m mut Room,
    heap: Heap<'a>,
    stack: Vec<Value<'a>>,
    /// The most that the stack has held.
    highest: usize,
    /// Where on the stack the open containers begin.
    marks: Vec<usize>,
    memo: HashMap<usize, Value<'a>>,
}

impl<'a> Machine<'a, '_> {
    /// Does what `opcode` says, which was read `at` bytes into the pickle.
    fn step(&mut self, opcode: u8, at: usize) -> Outcome<()> {
        let value = match opcode {
            // Protocol and frames.
            0x80 => match self.reader.u8()? {
                0..=5 => return Ok(()),
                protocol => return Err(refused(format!("it is a pickle of protocol {protocol}"))),
            },
            0x95 => {
                let length = self.reader.length()?;
                return if length <= self.reader.left() { Ok(()) } else { Err(damaged("it ends too early")) };
            }

            // The stack itself.
            b'(' => {
                self.room.set_aside(size_of::<usize>())?;
                self.marks.push(self.stack.len());
                return Ok(());
            }
            b'0' => return self.pop().map(drop),
            b'1' => return self.discard().map(drop),
            b'2' => self.top()?,
            b'q' => {
                let index = self.reader.u8()?;
                return self.remember(index.into());
            }
            b'r' => {
                let index = self.reader.u32()?;
                return self.remember(index as usize);
            }
            0x94 => return self.remember(self.memo.len()),
            b'h' => {
                let index = self.reader.u8()?;
                self.recall(index.into())?
            }
            b'j' => {
                let index = self.reader.u32()?;
                self.recall(index as usize)?
            }

            // Plain values.
            b'N' => Value::Other,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => Value::Int(self.reader.u32()?.cast_signed().into()),
            b'K' => Value::Int(self.reader.u8()?.into()),
            b'M' => Value::Int(self.reader.u16()?.into()),
            0x8a => {
                let length = self.reader.u8()?;
                integer(self.reader.take(length.into())?)
            }
            0x8b => {
                let length = self.reader.u32()?;
                integer(self.reader.take(length as usize)?)
            }
            b'G' => {
                self.reader.take(8)?;
                Value::Other
            }
            b'X' => {
                let length = self.reader.u32()?;
                Value::Text(text(self.reader.take(length as usize)?)?)
            }
            0x8c => {
                let length = self.reader.u8()?;
                Value::Text(text(self.reader.take(length.into())?)?)
            }
            0x8d => {
                let length = self.reader.length()?;
                Value::Text(text(self.reader.take(length)?)?)
            }
            // Python 2's strings are texts or bytes.
            b'U' => {
                let length = self.reader.u8()?;
                text(self.reader.take(length.into())?).map_or(Value::Other, Value::Text)
            }
            b'T' => {
                let length = self.reader.u32()?;
                text(self.reader.take(length as usize)?).map_or(Value::Other, Value::Text)
            }
            b'C' => {
                let length = self.reader.u8()?;
                self.reader.take(length.into())?;
                Value::Other
            }
            b'B' => {
                let length = self.reader.u32()?;
                self.reader.take(length as usize)?;
                Value::Other
            }
            0x8e | 0x96 => {
                let length = self.reader.length()?;
                self.reader.take(length)?;
                Value::Other
            }

            // Containers.
            b']' => self.list()?,
            b'l' => {
                let start = self.close()?;
                let list = self.list()?;
                self.append(list, start)?;
                list
            }
            b'a' => {
                let start = self.last(1)?;
                return self.extend(start);
            }
            b'e' => {
                let start = self.close()?;
                return self.extend(start);
            }
            b')' => Value::Tuple(0, 0),
            b't' => {
                let start = self.close()?;
                self.tuple(start)?
            }
            0x85..=0x87 => {
                let start = self.last(usize::from(opcode - 0x84))?;
                self.tuple(start)?
            }
            b'}' => self.dict()?,
            b'd' => {
                let start = self.close()?;
                let dict = self.dict()?;
                self.set(dict, start)?;
                dict
            }
            b's' => {
                let start = self.last(2)?;
                return self.set_items(start);
            }
            b'u' => {
                let start = self.close()?;
                return self.set_items(start);
            }
            0x8f => Value::Other,
            0x90 => return self.discard().map(drop),
            0x91 => {
                self.discard()?;
                Value::Other
            }

            // Classes and what is made of them.
            b'c' => {
                let (module, name) = (self.reader.line()?, self.reader.line()?);
                self.class(module, name)?
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.class(module, name)?,
                _ => return Err(damaged("the name of a class is not a text")),
            },
            b'Q' => {
                let id = self.pop()?;
                self.storage(id)?
            }
            b'R' | 0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                self.call(class, arguments)?
            }
            0x92 => {
                self.pop()?;
                let (arguments, class) = (self.pop()?, self.pop()?);
                self.call(class, arguments)?
            }
            // The state of an object. That of a dictionary is what Python code has attached to it (`_metadata`).
            b'b' => {
                self.pop()?;
                return match self.top()? {
                    Value::Dict(_) | Value::Other => Ok(()),
                    _ => Err(refused("it sets the state of an object that is no container")),
                };
            }
            b'i' => {
                let (module, name) = (self.reader.line()?, self.reader.line()?);
                return Err(unknown(module, name));
            }
            b'o' => {
                let start = self.close()?;
                return Err(match self.stack.get(start) {
                    Some(Value::Class(class)) => unknown(self.heap.classes[*class].0, self.heap.classes[*class].1),
                    _ => damaged("it calls what is no class"),
                });
            }
            _ => {
                return Err(damaged(format!(
                    "byte {opcode:#04x} at {at} of its pickle is nothing that PyTorch writes"
                )));
            }
        };
        self.push(value)
    }

    fn push(&mut self, value: Value<'a>) -> Outcome<()> {
        if self.stack.len() == self.highest {
            self.room.set_aside(size_of::<Value>())?;
            self.highest += 1;
        }
        self.stack.push(value);
        Ok(())
    }

    /// Where the last `count` values of the stack begin. What is below a mark is not to be had until it is closed.
    fn last(&self, count: usize) -> Outcome<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.len().checked_sub(count).filter(|start| *start >= floor).ok_or_else(empty)
    }

    fn top(&self) -> Outcome<Value<'a>> {
        Ok(self.stack[self.last(1)?])
    }

    fn pop(&mut self) -> Outcome<Value<'a>> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    /// Where the innermost open container begins, which is closed by this.
    fn close(&mut self) -> Outcome<usize> {
        self.marks.pop().ok_or_else(empty)
    }

    /// The same; what it holds is dropped.
    fn discard(&mut self) -> Outcome<()> {
        let start = self.close()?;
        self.stack.truncate(start);
        Ok(())
    }

    fn remember(&mut self, index: usize) -> Outcome<()> {
        let value = self.top()?;
        if self.memo.insert(index, value).is_none() {
            self.room.set_aside(2 * size_of::<(usize, Value)>())?;
        }
        Ok(())
    }

    fn recall(&self, index: usize) -> Outcome<Value<'a>> {
        self.memo.get(&index).copied().ok_or_else(|| damaged("it refers to an object that it has not made"))
    }

    /// What is on the stack from `start` on becomes a tuple.
    fn tuple(&mut self, start: usize) -> Outcome<Value<'a>> {
        let (first, length) = (self.heap.items.len(), self.stack.len() - start);
        self.room.set_aside(length * size_of::<Value>())?;
        self.heap.items.extend(self.stack.drain(start..));
        Ok(Value::Tuple(first, length))
    }

    fn list(&mut self) -> Outcome<Value<'a>> {
        self.room.set_aside(CONTAINER)?;
        self.heap.lists.push(vec![]);
        Ok(Value::List(self.heap.lists.len() - 1))
    }

    fn dict(&mut self) -> Outcome<Value<'a>> {
        self.room.set_aside(CONTAINER)?;
        self.heap.dicts.push(vec![]);
        Ok(Value::Dict(self.heap.dicts.len() - 1))
    }

    /// What is on the stack from `start` on goes into the list below it.
    fn extend(&mut self, start: usize) -> Outcome<()> {
        let target = self.below(start)?;
        self.append(target, start)
    }

    fn append(&mut self, target: Value<'a>, start: usize) -> Outcome<()> {
        match target {
            Value::List(list) => {
                self.room.set_aside((self.stack.len() - start) * size_of::<Value>())?;
                self.heap.lists[list].extend(self.stack.drain(start..));
            }
            Value::Other => self.stack.truncate(start),
            _ => return Err(damaged("it appends to what is no list")),
        }
        Ok(())
    }

    /// What is on the stack from `start` on, key and value by turns, goes into the dictionary below it.
    fn set_items(&mut self, start: usize) -> Outcome<()> {
        let target = self.below(start)?;
        self.set(target, start)
    }

    fn set(&mut self, target: Value<'a>, start: usize) -> Outcome<()> {
        match target {
            Value::Dict(dict) => {
                let given = &self.stack[start..];
                if !given.len().is_multiple_of(2) {
                    return Err(damaged("a key of a dictionary has no value"));
                }
                self.room.set_aside(size_of_val(given))?;
                self.heap.dicts[dict].extend(given.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                self.stack.truncate(start);
            }
            Value::Other => self.stack.truncate(start),
            _ => return Err(damaged("it sets items of what is no dictionary")),
        }
        Ok(())
    }

    /// The value under what begins at `start` of the stack.
    fn below(&self, start: usize) -> Outcome<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        start.checked_sub(1).filter(|at| *at >= floor).map(|at| self.stack[at]).ok_or_else(empty)
    }

    fn class(&mut self, module: &'a str, name: &'a str) -> Outcome<Value<'a>> {
        self.room.set_aside(size_of::<(&str, &str)>())?;
        self.heap.classes.push((module, name));
        Ok(Value::Class(self.heap.classes.len() - 1))
    }

    /// The storage that a persistent id is of: `("storage", class, key, device, count)`, and `None` in older files.
    fn storage(&mut self, id: Value) -> Outcome<Value<'a>> {
        let no_storage = || damaged("it refers to something outside that is no storage");
        let Some([Value::Text("storage"), Value::Class(class), Value::Text(key), _, count, view @ ..]) =
            self.heap.sequence(id)
        else {
            return Err(no_storage());
        };
        if !matches!(view, [] | [Value::Other]) {
            return Err(refused("it has storages that are parts of other storages, as PyTorch wrote before 0.4"));
        }
        let (module, name) = self.heap.classes[*class];
        let dtype = match (module, name) {
            ("torch" | "torch.storage", "UntypedStorage") => None,
            ("torch", name) => {
                Some(name.strip_suffix("Storage").and_then(storage_dtype).ok_or_else(|| unknown(module, name))?)
            }
            _ => return Err(unknown(module, name)),
        };
        let count = count.size().ok_or_else(no_storage)?;
        self.room.set_aside(size_of::<Storage>())?;
        self.heap.storages.push(Storage { dtype, key, count });
        Ok(Value::Storage(self.heap.storages.len() - 1))
    }

    /// What a call makes, where it is one of those that make tensors and containers.
    fn call(&mut self, class: Value<'a>, arguments: Value<'a>) -> Outcome<Value<'a>> {
        let Value::Class(index) = class else { return Err(damaged("it calls what is no class")) };
        let (module, name) = self.heap.classes[index];
        let Value::Tuple(..) = arguments else { return Err(damaged("the arguments of a call are no tuple")) };
        let given = self.heap.sequence(arguments).unwrap_or(&[]);
        match (module, name, given) {
            (
                "torch._utils",
                "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3",
                [Value::Storage(storage), offset, shape, strides, rest @ ..],
            ) => {
                // The third kind is for dtypes that no class of storages is of.
                let dtype = match rest {
                    [_, _, Value::Class(dtype), ..] if name.ends_with("v3") => {
                        let (module, name) = self.heap.classes[*dtype];
                        let dtype = Some(name).filter(|_| module == "torch").and_then(tensor_dtype);
                        Some(dtype.ok_or_else(|| unknown(module, name))?)
                    }
                    _ => None,
                };
                let tensor = Tensor { storage: *storage, dtype, offset: *offset, shape: *shape, strides: *strides };
                self.room.set_aside(size_of::<Tensor>())?;
                self.heap.tensors.push(tensor);
                Ok(Value::Tensor(self.heap.tensors.len() - 1))
            }
            (
                "torch._utils",
                "_rebuild_parameter" | "_rebuild_parameter_with_state",
                [tensor @ Value::Tensor(_), ..],
            ) => Ok(*tensor),
            ("collections", "OrderedDict", []) | ("collections", "defaultdict", _) => self.dict(),
            // Python 2 gives the items at once, in pairs.
            ("collections", "OrderedDict", [pairs]) => {
                let pairs = *pairs;
                let dict = self.dict()?;
                let start = self.stack.len();
                let mut index = 0;
                while let Some((_, pair)) = self.heap.item(pairs, index) {
                    let Some([key, value]) = self.heap.sequence(pair) else {
                        return Err(damaged("an item of a dictionary is no pair"));
                    };
                    let (key, value) = (*key, *value);
                    self.push(key)?;
                    self.push(value)?;
                    index += 1;
                }
                self.set(dict, start)?;
                Ok(dict)
            }
            _ if is_inert(module, name) => Ok(Value::Other),
            _ => Err(unknown(module, name)),
        }
    }
}

/// What a container costs beside its items: its place, and the room for the first few that a vector makes at once.
const CONTAINER: usize = 256;

fn empty() -> String {
    damaged("its pickle takes more from the stack than it put there")
}

fn unknown(module: &str, name: &str) -> String {
    refused(format!("its pickle makes or calls `{}.{}`", shown(module), shown(name)))
}

/// Little-endian, of any length; what 64 bits do not hold is no number that a tensor is described by.
fn integer<'a>(bytes: &[u8]) -> Value<'a> {
    if bytes.len() > 8 {
        return Value::Other;
    }
    let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [sign; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}

/// The dtype of `torch.…Storage`.
fn storage_dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "Float" => Dtype::F32,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::BF16,
        "Double" => Dtype::F64,
        "Long" => Dtype::I64,
        "Int" => Dtype::I32,
        "Short" => Dtype::I16,
        "Char" => Dtype::I8,
        "Byte" => Dtype::U8,
        "Bool" => Dtype::BOOL,
        "ComplexFloat" => Dtype::C64,
        _ => return None,
    })
}

/// `torch.…`, of dtypes that have no class of storages.
fn tensor_dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "float8_e4m3fnuz" => Dtype::F8_E4M3FNUZ,
        "float8_e5m2fnuz" => Dtype::F8_E5M2FNUZ,
        "float8_e8m0fnu" => Dtype::F8_E8M0,
        "uint16" => Dtype::U16,
        "uint32" => Dtype::U32,
        "uint64" => Dtype::U64,
        _ => return None,
    })
}

/// Settings that trainers keep beside tensors. Their content is dropped, so what they would do in Python matters not.
fn is_inert(module: &str, name: &str) -> bool {
    match (module, name) {
        ("torch", "Size" | "device") => true,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") | ("numpy", "dtype") => true,
        ("__builtin__" | "builtins", "set" | "frozenset" | "complex" | "bytearray") | ("_codecs", "encode") => true,
        ("argparse", "Namespace") | ("pathlib", "PosixPath" | "WindowsPath") => true,
        // The configuration in GLIGEN's own files, and in Lightning's.
        (module, _) if module.starts_with("omegaconf.") => true,
        (_, "AttributeDict") => module.starts_with("pytorch_lightning.") || module.starts_with("lightning"),
        _ => false,
    }
}
