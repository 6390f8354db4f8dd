//! Writes the statements of one function as C.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::Shared;
use crate::ptx::{Function, Instruction, Module, Operand, PtxError, Space, Statement, Type, Variable};

pub type Written<T = String> = Result<T, PtxError>;

/// What a name in the current scope is.
#[derive(Clone, Debug)]
pub enum Meaning {
    /// A register: its name in C, and its type.
    Register(String, Type),
    /// A variable that the C function has as an array.
    Array(String),
    /// A variable in local memory, at this offset.
    Local(usize),
}

pub struct Writer<'a> {
    pub module: &'a Module,
    pub function: &'a Function,
    pub shared: &'a mut Shared,
    scopes: Vec<HashMap<String, Meaning>>,
    labels: Vec<HashMap<String, String>>,
    targets: HashMap<String, Vec<String>>,
    declared: Vec<(String, Type)>,
    arrays: Vec<(String, usize)>,
    local: usize,
    carry: bool,
    unique: usize,
    out: String,
}

/// Returns the name in C of a name in PTX.
pub fn c_name(name: &str) -> String {
    let mut text = String::from("n_");
    for c in name.chars() {
        match c {
            '%' => text += "r_",
            '$' => text += "d_",
            '.' => text += "_",
            c => text.push(c),
        }
    }
    text
}

impl<'a> Writer<'a> {
    pub fn new(module: &'a Module, function: &'a Function, shared: &'a mut Shared) -> Self {
        Self {
            module,
            function,
            shared,
            scopes: Vec::new(),
            labels: Vec::new(),
            targets: HashMap::new(),
            declared: Vec::new(),
            arrays: Vec::new(),
            local: 0,
            carry: false,
            unique: 0,
            out: String::new(),
        }
    }

    /// Returns the body of the function: its variables and its statements.
    pub fn finish(self) -> String {
        let mut text = String::from("uint64_t read_ = 0, written_ = 0;\n");
        if self.carry {
            text += "unsigned carry_ = 0;\n";
        }
        let mut by_type: Vec<(&str, Vec<&str>)> = Vec::new();
        for (name, ty) in &self.declared {
            match by_type.iter_mut().find(|(c, _)| *c == ty.in_c()) {
                Some((_, names)) => names.push(name),
                None => by_type.push((ty.in_c(), vec![name])),
            }
        }
        for (ty, names) in by_type {
            let list: Vec<String> = names.iter().map(|name| format!("{name} = 0")).collect();
            let _ = writeln!(text, "{ty} {};", list.join(", "));
        }
        for (name, bytes) in &self.arrays {
            let _ = writeln!(text, "uint8_t {name}[{bytes}] __attribute__((aligned(16)));");
        }
        if self.local > 0 {
            let _ = writeln!(text, "uint8_t local_[{}] __attribute__((aligned(16)));", self.local);
        }
        let _ = writeln!(text, "{}end_: c->read += read_; c->written += written_; return;", self.out);
        self.shared.local += self.local + self.arrays.iter().map(|(_, bytes)| bytes + 16).sum::<usize>();
        text
    }

    /// Notes that the function has a carry.
    pub fn needs_carry(&mut self) {
        self.carry = true;
    }

    /// Bytes of local memory of this function.
    pub fn local_bytes(&self) -> usize {
        self.local
    }

    pub fn statements(&mut self, statements: &[Statement]) -> Written<()> {
        self.scopes.push(HashMap::new());
        self.labels.push(HashMap::new());
        self.declare(statements)?;
        for statement in statements {
            match statement {
                Statement::Block(inner) => self.statements(inner)?,
                Statement::Label(name) => {
                    let label = self.label(name, 0)?;
                    let _ = writeln!(self.out, "{label}:;");
                }
                Statement::Instruction(instruction) => self.guarded(instruction)?,
                Statement::Registers(..) | Statement::Variable(_) | Statement::Targets(..) => {}
            }
        }
        self.scopes.pop();
        self.labels.pop();
        Ok(())
    }

    /// Declares the names of a scope, labels included, since jumps go forwards.
    fn declare(&mut self, statements: &[Statement]) -> Written<()> {
        for statement in statements {
            match statement {
                Statement::Registers(ty, names) => {
                    for (name, count) in names {
                        match count {
                            None => self.register(name, *ty),
                            Some(count) => (0..*count).for_each(|i| self.register(&format!("{name}{i}"), *ty)),
                        }
                    }
                }
                Statement::Variable(variable) => self.variable(variable)?,
                Statement::Label(name) => {
                    self.unique += 1;
                    let label = format!("label_{}", self.unique);
                    if let Some(labels) = self.labels.last_mut() {
                        labels.insert(name.clone(), label);
                    }
                }
                Statement::Targets(name, labels) => drop(self.targets.insert(name.clone(), labels.clone())),
                Statement::Block(_) | Statement::Instruction(_) => {}
            }
        }
        Ok(())
    }

    fn insert(&mut self, name: &str, meaning: Meaning) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned(), meaning);
        }
    }

    fn register(&mut self, name: &str, ty: Type) {
        let c = if self.scopes.len() == 1 {
            c_name(name)
        } else {
            self.unique += 1;
            format!("{}_s{}", c_name(name), self.unique)
        };
        self.declared.push((c.clone(), ty));
        self.insert(name, Meaning::Register(c, ty));
    }

    fn variable(&mut self, variable: &Variable) -> Written<()> {
        match variable.space {
            Space::Shared => {
                self.shared.place(&variable.name, variable.bytes, variable.align);
            }
            Space::Local => {
                let offset = self.local.next_multiple_of(variable.align.max(1));
                self.local = offset + variable.bytes;
                self.insert(&variable.name, Meaning::Local(offset));
            }
            Space::Param => {
                self.unique += 1;
                let name = format!("{}_{}", c_name(&variable.name), self.unique);
                self.arrays.push((name.clone(), variable.bytes));
                self.insert(&variable.name, Meaning::Array(name));
            }
            _ => {
                return Err(PtxError::new(
                    variable.line,
                    format!("variable `{}` is not supported here", variable.name),
                ));
            }
        }
        Ok(())
    }

    pub fn meaning(&self, name: &str) -> Option<&Meaning> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    pub fn label(&self, name: &str, line: u32) -> Written {
        let found = self.labels.iter().rev().find_map(|labels| labels.get(name));
        found.cloned().ok_or_else(|| PtxError::new(line, format!("the label `{name}` is missing")))
    }

    pub fn targets(&self, name: &str, line: u32) -> Written<&[String]> {
        self.targets.get(name).map(Vec::as_slice).ok_or_else(|| PtxError::new(line, format!("`{name}` is missing")))
    }

    fn guarded(&mut self, instruction: &Instruction) -> Written<()> {
        let text = self.instruction(instruction).map_err(|mut e| {
            if e.line == 0 {
                e.line = instruction.line;
            }
            e.text = format!("{} in `{}`", e.text, self.function.name);
            e
        })?;
        match &instruction.guard {
            None => drop(writeln!(self.out, "{text}")),
            Some((predicate, negated)) => {
                let condition = self.read(&Operand::Name(predicate.clone()), Type::Pred)?;
                let not = if *negated { "!" } else { "" };
                let _ = writeln!(self.out, "if ({not}{condition}) {{ {text} }}");
            }
        }
        Ok(())
    }

    fn instruction(&mut self, i: &Instruction) -> Written {
        let done = match i.opcode[0].as_str() {
            "ld" | "ldu" | "st" | "atom" | "red" | "cvta" | "prefetch" | "prefetchu" | "membar" | "fence" | "cp"
            | "isspacep" => self.memory(i)?,
            "bra" | "brx" | "ret" | "exit" | "trap" | "call" | "brkpt" | "nanosleep" => self.control(i)?,
            "bar" | "barrier" | "shfl" | "vote" | "redux" | "mma" | "ldmatrix" | "activemask" => self.warp(i)?,
            "setp" | "set" | "selp" | "slct" => self.compare(i)?,
            "cvt" => self.convert(i)?,
            "mov" => self.mov(i)?,
            "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "bfe" | "bfi" | "prmt" | "lop3" | "clz"
            | "popc" | "brev" | "bfind" | "dp4a" => self.bits(i)?,
            _ => self.arithmetic(i)?,
        };
        done.ok_or_else(|| PtxError::new(i.line, format!("the instruction `{}` is not supported", i.opcode.join("."))))
    }
}

impl Instruction {
    /// Returns whether the opcode has this part.
    pub fn has(&self, part: &str) -> bool {
        self.opcode[1..].iter().any(|p| p == part)
    }

    /// Returns the type at the end of the opcode.
    pub fn ty(&self) -> Written<Type> {
        let found = self.opcode.iter().rev().find_map(|part| Type::named(part));
        found.ok_or_else(|| PtxError::new(self.line, format!("`{}` has no type", self.opcode.join("."))))
    }

    /// Returns an operand.
    pub fn arg(&self, index: usize) -> Written<&Operand> {
        let found = self.operands.get(index);
        found.ok_or_else(|| PtxError::new(self.line, format!("`{}` has too few operands", self.opcode.join("."))))
    }
}
