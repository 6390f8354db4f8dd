//! Logic, shifts and fields of bits.

use super::writer::{Writer, Written};
use crate::ptx::{Instruction, Type};

impl Writer<'_> {
    pub fn bits(&mut self, i: &Instruction) -> Written<Option<String>> {
        match i.opcode[0].as_str() {
            "shl" | "shr" => return self.shift(i).map(Some),
            "shf" => return self.funnel(i),
            "dp4a" => return self.dot(i).map(Some),
            "bfe" | "bfi" => return self.field(i).map(Some),
            _ => {}
        }
        let ty = i.ty()?;
        let mut x = Vec::new();
        for operand in &i.operands[1..] {
            x.push(self.read(operand, ty)?);
        }
        let c = ty.in_c();
        let predicate = ty == Type::Pred;
        let (value, result) = match i.opcode[0].as_str() {
            "and" if predicate => (format!("({} && {})", x[0], x[1]), ty),
            "or" if predicate => (format!("({} || {})", x[0], x[1]), ty),
            "xor" if predicate => (format!("(!{} != !{})", x[0], x[1]), ty),
            "not" if predicate => (format!("(!{})", x[0]), ty),
            "and" => (format!("({c})({} & {})", x[0], x[1]), ty),
            "or" => (format!("({c})({} | {})", x[0], x[1]), ty),
            "xor" => (format!("({c})({} ^ {})", x[0], x[1]), ty),
            "not" => (format!("({c})~{}", x[0]), ty),
            "cnot" => (format!("({c})({} == 0)", x[0]), ty),
            "prmt" if i.opcode.len() == 2 => (format!("prmt({}, {}, {})", x[0], x[1], x[2]), ty),
            "lop3" if x.len() == 4 => (format!("lop3({}, {}, {}, {})", x[0], x[1], x[2], x[3]), ty),
            "popc" => (format!("(uint32_t)__builtin_popcountll({})", x[0]), Type::U32),
            "clz" if ty.bits() == 64 => (format!("({0} ? (uint32_t)__builtin_clzll({0}) : 64u)", x[0]), Type::U32),
            "clz" => (format!("({0} ? (uint32_t)__builtin_clz({0}) : 32u)", x[0]), Type::U32),
            "brev" => {
                let loop_ = format!(
                    "{{ uint64_t v_ = {}, w_ = 0; for (int k_ = 0; k_ < {bits}; k_++) w_ |= (v_ >> k_ & 1) << ({bits} - 1 - k_); {} }}",
                    x[0],
                    self.assign(i.arg(0)?, &format!("({c})w_"), ty)?,
                    bits = ty.bits()
                );
                return Ok(Some(loop_));
            }
            "bfind" if !ty.signed() && !i.has("shiftamt") => {
                (format!("({0} ? 63u - (uint32_t)__builtin_clzll((uint64_t){0}) : 0xffffffffu)", x[0]), Type::U32)
            }
            _ => return Ok(None),
        };
        self.assign(i.arg(0)?, &value, result).map(Some)
    }

    /// Shifts by the width and more give zero, or the sign.
    fn shift(&mut self, i: &Instruction) -> Written {
        let ty = i.ty()?;
        let (c, bits) = (ty.in_c(), ty.bits());
        let x = self.read(i.arg(1)?, ty)?;
        let by = self.read(i.arg(2)?, Type::U32)?;
        let value = match (i.opcode[0].as_str(), ty.signed()) {
            ("shl", _) => format!("({by} >= {bits} ? 0 : ({c})((uint64_t){x} << {by}))"),
            (_, true) => format!("({c})({x} >> ({by} >= {bits} ? {} : {by}))", bits - 1),
            (_, false) => format!("({by} >= {bits} ? 0 : ({c})({x} >> {by}))"),
        };
        self.assign(i.arg(0)?, &value, ty)
    }

    fn funnel(&mut self, i: &Instruction) -> Written<Option<String>> {
        let low = self.read(i.arg(1)?, Type::U32)?;
        let high = self.read(i.arg(2)?, Type::U32)?;
        let by = self.read(i.arg(3)?, Type::U32)?;
        let by = match (i.has("wrap"), i.has("clamp")) {
            (true, _) => format!("({by} & 31)"),
            (_, true) => format!("({by} > 32 ? 32 : {by})"),
            _ => return Ok(None),
        };
        let both = format!("(((uint64_t){high} << 32) | {low})");
        let value = match (i.has("l"), i.has("r")) {
            (true, _) => format!("(uint32_t)(({both} << {by}) >> 32)"),
            (_, true) => format!("(uint32_t)({both} >> {by})"),
            _ => return Ok(None),
        };
        self.assign(i.arg(0)?, &value, Type::U32).map(Some)
    }

    fn field(&mut self, i: &Instruction) -> Written {
        let ty = i.ty()?;
        let bits = ty.bits();
        let wide = if ty.signed() { Type::S64 } else { Type::U64 };
        if i.opcode[0] == "bfi" {
            let (a, b) = (self.read(i.arg(1)?, ty)?, self.read(i.arg(2)?, ty)?);
            let (at, count) = (self.read(i.arg(3)?, Type::U32)?, self.read(i.arg(4)?, Type::U32)?);
            return self.assign(i.arg(0)?, &format!("({})bfi({a}, {b}, {at}, {count}, {bits})", ty.in_c()), ty);
        }
        let a = self.read(i.arg(1)?, ty)?;
        let (at, count) = (self.read(i.arg(2)?, Type::U32)?, self.read(i.arg(3)?, Type::U32)?);
        let function = if ty.signed() { "bfe_s" } else { "bfe_u" };
        let value =
            format!("({})({})", ty.in_c(), format_args!("{function}(({}){a}, {at}, {count}, {bits})", wide.in_c()));
        self.assign(i.arg(0)?, &value, ty)
    }

    fn dot(&mut self, i: &Instruction) -> Written {
        let signed = |part: usize| i.opcode.get(part).is_some_and(|t| t == "s32");
        let (a, b) = (self.read(i.arg(1)?, Type::B32)?, self.read(i.arg(2)?, Type::B32)?);
        let sum = self.read(i.arg(3)?, Type::S32)?;
        let value = format!("dot4({a}, {b}, {sum}, {}, {})", i32::from(signed(1)), i32::from(signed(2)));
        self.assign(i.arg(0)?, &value, Type::S32)
    }
}
