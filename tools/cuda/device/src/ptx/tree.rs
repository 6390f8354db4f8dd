//! The syntax tree of PTX.

/// A type of registers, memory and instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Pred,
    B8,
    U8,
    S8,
    B16,
    U16,
    S16,
    F16,
    Bf16,
    B32,
    U32,
    S32,
    F32,
    F16x2,
    Bf16x2,
    B64,
    U64,
    S64,
    F64,
}

impl Type {
    /// Reads the name of a type, without its dot.
    pub fn named(name: &str) -> Option<Type> {
        Some(match name {
            "pred" => Type::Pred,
            "b8" => Type::B8,
            "u8" => Type::U8,
            "s8" => Type::S8,
            "b16" => Type::B16,
            "u16" => Type::U16,
            "s16" => Type::S16,
            "f16" => Type::F16,
            "bf16" => Type::Bf16,
            "b32" => Type::B32,
            "u32" => Type::U32,
            "s32" => Type::S32,
            "f32" => Type::F32,
            "f16x2" => Type::F16x2,
            "bf16x2" => Type::Bf16x2,
            "b64" => Type::B64,
            "u64" => Type::U64,
            "s64" => Type::S64,
            "f64" => Type::F64,
            _ => return None,
        })
    }

    /// Returns the size in bits. A predicate has 1.
    pub fn bits(self) -> u32 {
        match self {
            Type::Pred => 1,
            Type::B8 | Type::U8 | Type::S8 => 8,
            Type::B16 | Type::U16 | Type::S16 | Type::F16 | Type::Bf16 => 16,
            Type::B32 | Type::U32 | Type::S32 | Type::F32 | Type::F16x2 | Type::Bf16x2 => 32,
            Type::B64 | Type::U64 | Type::S64 | Type::F64 => 64,
        }
    }

    pub fn bytes(self) -> usize {
        self.bits().div_ceil(8) as usize
    }

    pub fn signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    /// Returns whether this is a number with a fraction, of one lane.
    pub fn float(self) -> bool {
        matches!(self, Type::F16 | Type::Bf16 | Type::F32 | Type::F64)
    }

    /// Returns the type in C that holds such a register. Halves are held as their bits.
    pub fn in_c(self) -> &'static str {
        match self {
            Type::Pred | Type::B8 | Type::U8 => "uint8_t",
            Type::S8 => "int8_t",
            Type::B16 | Type::U16 | Type::F16 | Type::Bf16 => "uint16_t",
            Type::S16 => "int16_t",
            Type::B32 | Type::U32 | Type::F16x2 | Type::Bf16x2 => "uint32_t",
            Type::S32 => "int32_t",
            Type::F32 => "float",
            Type::B64 | Type::U64 => "uint64_t",
            Type::S64 => "int64_t",
            Type::F64 => "double",
        }
    }

    /// Returns the unsigned integer type of these many bits.
    pub fn bits_type(bits: u32) -> Option<Type> {
        Some(match bits {
            8 => Type::B8,
            16 => Type::B16,
            32 => Type::B32,
            64 => Type::B64,
            _ => return None,
        })
    }
}

/// A space of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Any of the others, by address.
    Generic,
    Global,
    Shared,
    Local,
    Param,
    Const,
}

/// A PTX file.
#[derive(Clone, Debug, Default)]
pub struct Module {
    pub variables: Vec<Variable>,
    pub functions: Vec<Function>,
}

/// A kernel, or a function that kernels call.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    /// Whether the host can launch it.
    pub kernel: bool,
    pub returns: Vec<Param>,
    pub params: Vec<Param>,
    /// None of a declaration.
    pub body: Option<Vec<Statement>>,
    pub line: u32,
    /// Where it stands in the text, in bytes.
    pub text: std::ops::Range<usize>,
}

/// A parameter, with its place in the block of parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub name: String,
    pub bytes: usize,
    pub offset: usize,
}

/// A variable in memory.
#[derive(Clone, Debug)]
pub struct Variable {
    pub name: String,
    pub space: Space,
    pub ty: Type,
    pub align: usize,
    /// Its size. 0 of shared memory whose size the launch gives.
    pub bytes: usize,
    pub init: Option<Vec<u8>>,
    pub line: u32,
}

#[derive(Clone, Debug)]
pub enum Statement {
    /// Braces. They limit the scope of registers and labels.
    Block(Vec<Statement>),
    Label(String),
    /// `.reg`: names with a type, and how many of them for `%r<5>`.
    Registers(Type, Vec<(String, Option<u32>)>),
    Variable(Variable),
    /// `label: .branchtargets a, b;`
    Targets(String, Vec<String>),
    Instruction(Instruction),
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    pub line: u32,
    /// The predicate of `@p` and `@!p`, and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// The opcode, split at its dots.
    pub opcode: Vec<String>,
    pub operands: Vec<Operand>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, variable, label or constant, such as `%tid.x`.
    Name(String),
    /// `!p`.
    Not(String),
    Integer(i128),
    F32(u32),
    F64(u64),
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `[base + offset]`. The base is empty for a number alone.
    Address(String, i64),
    /// `p|q`: two results.
    Pair(String, String),
    /// `(a, b)` of a call.
    List(Vec<String>),
}
