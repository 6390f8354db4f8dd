//! Comparisons and selections.

use super::writer::{Writer, Written};
use crate::ptx::{Instruction, Operand, Type};

impl Writer<'_> {
    pub fn compare(&mut self, i: &Instruction) -> Written<Option<String>> {
        let ty = i.ty()?;
        match i.opcode[0].as_str() {
            "setp" => self.set_predicate(i, ty),
            "set" => self.set_number(i, ty),
            "selp" => {
                let condition = self.read(i.arg(3)?, Type::Pred)?;
                let (a, b) = (self.read(i.arg(1)?, ty)?, self.read(i.arg(2)?, ty)?);
                self.assign(i.arg(0)?, &format!("({condition} ? {a} : {b})"), ty).map(Some)
            }
            _ => {
                // `slct.T.s32 d, a, b, c`: a if c is not negative.
                let of = if ty == Type::F32 { Type::F32 } else { Type::S32 };
                let result = i.opcode.iter().find_map(|part| Type::named(part)).unwrap_or(ty);
                let condition = self.read(i.arg(3)?, of)?;
                let (a, b) = (self.read(i.arg(1)?, result)?, self.read(i.arg(2)?, result)?);
                self.assign(i.arg(0)?, &format!("({condition} >= 0 ? {a} : {b})"), result).map(Some)
            }
        }
    }

    fn set_predicate(&mut self, i: &Instruction, ty: Type) -> Written<Option<String>> {
        if matches!(ty, Type::F16x2 | Type::Bf16x2) {
            return Ok(None);
        }
        let Some(condition) = self.condition(i, i.arg(1)?, i.arg(2)?, ty)? else { return Ok(None) };
        let Some(joined) = self.joined(i, &condition, 3)? else { return Ok(None) };
        match i.arg(0)? {
            Operand::Pair(p, q) => {
                let Some(other) = self.joined(i, &format!("(!{condition})"), 3)? else { return Ok(None) };
                let (p, q) = (Operand::Name(p.clone()), Operand::Name(q.clone()));
                let (p, q) = (self.assign(&p, "v_", Type::Pred)?, self.assign(&q, "w_", Type::Pred)?);
                Ok(Some(format!("{{ int v_ = {joined}, w_ = {other}; {p} {q} }}")))
            }
            target => self.assign(target, &joined, Type::Pred).map(Some),
        }
    }

    /// `setp.lt.and.f32 p, a, b, c`: the comparison joined with a predicate.
    fn joined(&mut self, i: &Instruction, condition: &str, at: usize) -> Written<Option<String>> {
        if i.operands.len() <= at {
            return Ok(Some(condition.to_owned()));
        }
        let other = self.read(i.arg(at)?, Type::Pred)?;
        Ok(Some(match (i.has("and"), i.has("or"), i.has("xor")) {
            (true, ..) => format!("({condition} && {other})"),
            (_, true, _) => format!("({condition} || {other})"),
            (.., true) => format!("(!{condition} != !{other})"),
            _ => return Ok(None),
        }))
    }

    fn set_number(&mut self, i: &Instruction, ty: Type) -> Written<Option<String>> {
        let result = i.opcode.iter().find_map(|part| Type::named(part)).unwrap_or(ty);
        let Some(condition) = self.condition(i, i.arg(1)?, i.arg(2)?, ty)? else { return Ok(None) };
        let Some(condition) = self.joined(i, &condition, 3)? else { return Ok(None) };
        let value = match result {
            Type::F32 => format!("({condition} ? 1.0f : 0.0f)"),
            Type::F16 => format!("(uint16_t)({condition} ? 0x3c00 : 0)"),
            Type::Bf16 => format!("(uint16_t)({condition} ? 0x3f80 : 0)"),
            Type::U32 | Type::S32 => format!("({condition} ? 0xffffffffu : 0u)"),
            Type::U16 | Type::S16 => format!("(uint16_t)({condition} ? 0xffff : 0)"),
            _ => return Ok(None),
        };
        self.assign(i.arg(0)?, &value, result).map(Some)
    }

    /// Returns the comparison of two values in C.
    fn condition(&mut self, i: &Instruction, a: &Operand, b: &Operand, ty: Type) -> Written<Option<String>> {
        let Some(name) = i.opcode[1..].iter().map(String::as_str).find(|part| COMPARISONS.contains(part)) else {
            return Ok(None);
        };
        let flush = i.has("ftz") && ty == Type::F32;
        let (x, y) = (self.number(a, ty, flush)?, self.number(b, ty, flush)?);
        let ordered = |o: &str| format!("({x} {o} {y})");
        let either = |o: &str| format!("(!({x} {o} {y}))");
        Ok(Some(match name {
            "eq" => ordered("=="),
            // Of numbers with a fraction, `ne` is false if one is no number, and `neu` is true.
            "ne" if ty.float() => format!("({x} < {y} || {x} > {y})"),
            "ne" | "neu" => ordered("!="),
            "lt" | "lo" => ordered("<"),
            "le" | "ls" => ordered("<="),
            "gt" | "hi" => ordered(">"),
            "ge" | "hs" => ordered(">="),
            "equ" => format!("(!({x} < {y} || {x} > {y}))"),
            "ltu" => either(">="),
            "leu" => either(">"),
            "gtu" => either("<="),
            "geu" => either("<"),
            "num" => format!("({x} == {x} && {y} == {y})"),
            _ => format!("({x} != {x} || {y} != {y})"),
        }))
    }
}

const COMPARISONS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan",
];
