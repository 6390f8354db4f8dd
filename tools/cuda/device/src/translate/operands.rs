//! Reads and writes of operands, with the types that an instruction gives them.

use super::writer::{Meaning, Writer, Written, c_name};
use crate::ptx::{Instruction, Operand, PtxError, Space, Type};

impl Writer<'_> {
    /// Returns an expression in C with the value of an operand, of the C type of `ty`.
    pub fn read(&mut self, operand: &Operand, ty: Type) -> Written {
        let c = ty.in_c();
        match operand {
            Operand::Integer(number) if matches!(ty, Type::F32 | Type::F64) => Ok(format!("(({c}){number})")),
            Operand::Integer(number) => {
                let bits = *number as u64 & (u64::MAX >> (64 - ty.bits().max(8)));
                Ok(format!("(({c}){bits}ull)"))
            }
            Operand::F32(bits) if ty == Type::F32 => Ok(format!("bits_f({bits}u)")),
            Operand::F32(bits) => Ok(format!("(({c}){bits}u)")),
            Operand::F64(bits) if ty == Type::F64 => Ok(format!("bits_d({bits}ull)")),
            Operand::F64(bits) => Ok(format!("(({c}){bits}ull)")),
            Operand::Not(name) => Ok(format!("(!{})", self.named(name, Type::Pred)?)),
            Operand::Name(name) => self.named(name, ty),
            Operand::Address(..) | Operand::Vector(_) | Operand::Pair(..) | Operand::List(_) => {
                Err(PtxError::new(0, format!("`{operand:?}` is no value")))
            }
        }
    }

    fn named(&mut self, name: &str, ty: Type) -> Written {
        let c = ty.in_c();
        if let Some(value) = special(name) {
            return Ok(format!("(({c}){value})"));
        }
        match self.meaning(name).cloned() {
            Some(Meaning::Register(register, held)) => Ok(cast(&register, held, ty)),
            Some(Meaning::Local(offset)) => Ok(format!("(({c})((uint64_t)local_ + {offset}))")),
            Some(Meaning::Array(array)) => Ok(format!("(({c})(uint64_t){array})")),
            None => {
                let address = self.variable_address(name)?;
                Ok(format!("(({c}){address})"))
            }
        }
    }

    /// Returns the address of a variable of the module, in its own space.
    fn variable_address(&mut self, name: &str) -> Written {
        if let Some(offset) = self.shared.offsets.get(name) {
            return Ok(offset.to_string());
        }
        if let Some(param) = self.function.params.iter().find(|p| self.function.kernel && p.name == name) {
            return Ok(format!("(uint64_t)(c->params + {})", param.offset));
        }
        let module = self.module;
        let found = module.variables.iter().find(|v| v.name == name);
        let variable = found.ok_or_else(|| PtxError::new(0, format!("`{name}` is not declared")))?;
        match variable.space {
            Space::Shared if variable.bytes == 0 => Ok("DYNAMIC".into()),
            Space::Shared => Ok(self.shared.place(name, variable.bytes, variable.align).to_string()),
            _ => {
                let text = super::constant(variable)?;
                self.shared.constants.insert(name.to_owned(), text);
                Ok(format!("(uint64_t){}", c_name(name)))
            }
        }
    }

    /// Returns the address of `[base + offset]` in its space.
    pub fn address(&mut self, operand: &Operand) -> Written {
        let Operand::Address(base, offset) = operand else {
            return Err(PtxError::new(0, "an address is expected"));
        };
        if base.is_empty() {
            return Ok(format!("((uint64_t){offset}ll)"));
        }
        let narrow = matches!(self.meaning(base), Some(Meaning::Register(_, ty)) if ty.bits() == 32);
        let base = self.named(base, if narrow { Type::U32 } else { Type::U64 })?;
        Ok(if narrow { format!("((uint64_t)(uint32_t)({base} + {offset}))") } else { format!("({base} + {offset}ll)") })
    }

    /// Returns a statement that writes an expression of the C type of `ty` to a register.
    pub fn assign(&mut self, operand: &Operand, value: &str, ty: Type) -> Written {
        let name = match operand {
            Operand::Name(name) => name,
            Operand::Pair(name, _) => name,
            _ => return Err(PtxError::new(0, "a register is expected")),
        };
        if name == "_" {
            return Ok(format!("(void)({value});"));
        }
        let Some(Meaning::Register(register, held)) = self.meaning(name).cloned() else {
            return Err(PtxError::new(0, format!("`{name}` is no register")));
        };
        Ok(match (held, ty) {
            (Type::F32, Type::F32) | (Type::F64, Type::F64) => format!("{register} = {value};"),
            (Type::F32, _) => format!("{register} = bits_f((uint32_t)({value}));"),
            (Type::F64, _) => format!("{register} = bits_d((uint64_t)({value}));"),
            (_, Type::F32) => format!("{register} = f_bits({value});"),
            (_, Type::F64) => format!("{register} = d_bits({value});"),
            (Type::Pred, _) => format!("{register} = ({value}) != 0;"),
            _ => format!("{register} = {value};"),
        })
    }

    /// Returns an operand as a number with a fraction: `float`, or `double` for f64.
    pub fn number(&mut self, operand: &Operand, ty: Type, flush: bool) -> Written {
        let value = self.read(operand, ty)?;
        Ok(match ty {
            Type::F16 => format!("h2f({value})"),
            Type::Bf16 => format!("b2f({value})"),
            Type::F32 if flush => format!("ftz({value})"),
            _ => value,
        })
    }

    /// `mov`, including those that split and join vectors.
    pub fn mov(&mut self, i: &Instruction) -> Written<Option<String>> {
        let ty = i.ty()?;
        match (i.arg(0)?, i.arg(1)?) {
            (Operand::Vector(lanes), source) => {
                let lane = lane_type(ty, lanes.len(), i.line)?;
                let mut text = format!("{{ uint64_t v_ = (uint64_t){}; ", self.read(source, bits(ty))?);
                for (at, register) in lanes.iter().enumerate() {
                    if *register != Operand::Name("_".into()) {
                        let value = format!("({})(v_ >> {})", lane.in_c(), at as u32 * lane.bits());
                        text += &self.assign(register, &value, lane)?;
                    }
                }
                Ok(Some(text + " }"))
            }
            (target, Operand::Vector(lanes)) => {
                let lane = lane_type(ty, lanes.len(), i.line)?;
                let mut parts = Vec::new();
                for (at, register) in lanes.iter().enumerate() {
                    parts.push(format!("((uint64_t){} << {})", self.read(register, lane)?, at as u32 * lane.bits()));
                }
                let value = format!("({})({})", bits(ty).in_c(), parts.join(" | "));
                self.assign(target, &value, bits(ty)).map(Some)
            }
            (target, source) => {
                let value = self.read(source, ty)?;
                self.assign(target, &value, ty).map(Some)
            }
        }
    }
}

/// Returns the type of the bits of another type.
pub fn bits(ty: Type) -> Type {
    Type::bits_type(ty.bits()).unwrap_or(ty)
}

fn lane_type(ty: Type, lanes: usize, line: u32) -> Written<Type> {
    let found = Type::bits_type(ty.bits() / lanes.max(1) as u32);
    found.ok_or_else(|| PtxError::new(line, format!("{lanes} lanes do not fit into {ty:?}")))
}

/// Reinterprets a register as another type.
fn cast(register: &str, held: Type, ty: Type) -> String {
    let c = ty.in_c();
    match (held, ty) {
        (Type::F32, Type::F32) | (Type::F64, Type::F64) => register.to_owned(),
        (Type::F32, _) => format!("(({c})f_bits({register}))"),
        (Type::F64, _) => format!("(({c})d_bits({register}))"),
        (_, Type::F32) => format!("bits_f((uint32_t){register})"),
        (_, Type::F64) => format!("bits_d((uint64_t){register})"),
        _ => format!("(({c}){register})"),
    }
}

fn special(name: &str) -> Option<&'static str> {
    Some(match name {
        "%tid.x" => "c->tid[0]",
        "%tid.y" => "c->tid[1]",
        "%tid.z" => "c->tid[2]",
        "%ntid.x" => "c->ntid[0]",
        "%ntid.y" => "c->ntid[1]",
        "%ntid.z" => "c->ntid[2]",
        "%ctaid.x" => "c->ctaid[0]",
        "%ctaid.y" => "c->ctaid[1]",
        "%ctaid.z" => "c->ctaid[2]",
        "%nctaid.x" => "c->nctaid[0]",
        "%nctaid.y" => "c->nctaid[1]",
        "%nctaid.z" => "c->nctaid[2]",
        "%laneid" => "(c->thread & 31)",
        "%warpid" => "(c->thread >> 5)",
        "%nwarpid" => "((c->ntid[0] * c->ntid[1] * c->ntid[2] + 31) >> 5)",
        "%lanemask_eq" => "(1u << (c->thread & 31))",
        "%lanemask_lt" => "((1u << (c->thread & 31)) - 1)",
        "%lanemask_le" => "((2u << (c->thread & 31)) - 1)",
        "%lanemask_gt" => "(~((2u << (c->thread & 31)) - 1))",
        "%lanemask_ge" => "(~((1u << (c->thread & 31)) - 1))",
        "WARP_SZ" => "32u",
        _ => return None,
    })
}
