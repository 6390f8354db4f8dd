//! Sums, products, quotients and functions of integers and of numbers with a fraction.

use super::writer::{Writer, Written};
use crate::ptx::{Instruction, PtxError, Type};

impl Writer<'_> {
    pub fn arithmetic(&mut self, i: &Instruction) -> Written<Option<String>> {
        if i.has("cc") || matches!(i.opcode[0].as_str(), "addc" | "subc" | "madc") {
            return self.carried(i);
        }
        let ty = i.ty()?;
        match ty {
            Type::F16 | Type::Bf16 => self.half(i, ty),
            Type::F16x2 | Type::Bf16x2 => self.halves(i, ty),
            Type::F32 | Type::F64 => self.float(i, ty),
            Type::Pred => Ok(None),
            _ => self.integer(i, ty),
        }
    }

    fn integer(&mut self, i: &Instruction, ty: Type) -> Written<Option<String>> {
        if i.has("wide") {
            return self.wide(i, ty).map(Some);
        }
        if i.has("sat") {
            return Ok(None);
        }
        let mut x = Vec::new();
        for operand in &i.operands[1..] {
            x.push(self.read(operand, ty)?);
        }
        let (c, bits) = (ty.in_c(), ty.bits());
        let name = |function: &str| format!("{function}_{}{bits}", if ty.signed() { "s" } else { "u" });
        let unsigned = if bits == 64 { "uint64_t" } else { "uint32_t" };
        let big = if ty.signed() { "__int128" } else { "unsigned __int128" };
        let operator = |o: &str| format!("({unsigned}){} {o} ({unsigned}){}", x[0], x[1]);
        let high = || format!("((({big}){} * ({big}){}) >> {bits})", x[0], x[1]);
        let value = match (i.opcode[0].as_str(), x.len()) {
            ("add", 2) => operator("+"),
            ("sub", 2) => operator("-"),
            ("mul", 2) if i.has("hi") => high(),
            ("mul", 2) => operator("*"),
            ("mul24", 2) if i.has("lo") => {
                let shift = if ty.signed() { "<< 8 >> 8" } else { "& 0xffffff" };
                format!("(({c})({} {shift}) * ({c})({} {shift}))", x[0], x[1])
            }
            ("mad", 3) if i.has("hi") => format!("({unsigned}){} + ({unsigned}){}", high(), x[2]),
            ("mad", 3) => format!("{} + ({unsigned}){}", operator("*"), x[2]),
            ("div", 2) => format!("{}({}, {})", name("div"), x[0], x[1]),
            ("rem", 2) => format!("{}({}, {})", name("rem"), x[0], x[1]),
            ("min", 2) => format!("({0} < {1} ? {0} : {1})", x[0], x[1]),
            ("max", 2) => format!("({0} > {1} ? {0} : {1})", x[0], x[1]),
            ("neg", 1) => format!("0 - ({unsigned}){}", x[0]),
            ("abs", 1) => format!("({0} < 0 ? 0 - ({unsigned}){0} : ({unsigned}){0})", x[0]),
            ("sad", 3) => format!("({0} > {1} ? {0} - {1} : {1} - {0}) + {2}", x[0], x[1], x[2]),
            _ => return Ok(None),
        };
        self.assign(i.arg(0)?, &format!("({c})({value})"), ty).map(Some)
    }

    fn wide(&mut self, i: &Instruction, ty: Type) -> Written {
        let result = match ty {
            Type::S16 => Type::S32,
            Type::U16 => Type::U32,
            Type::S32 => Type::S64,
            Type::U32 => Type::U64,
            _ => return Err(PtxError::new(i.line, "`.wide` with this type is not supported")),
        };
        let c = result.in_c();
        let unsigned = if result.bits() == 64 { "uint64_t" } else { "uint32_t" };
        let mut value =
            format!("({unsigned})(({c}){} * ({c}){})", self.read(i.arg(1)?, ty)?, self.read(i.arg(2)?, ty)?);
        if i.opcode[0] == "mad" {
            value = format!("{value} + ({unsigned}){}", self.read(i.arg(3)?, result)?);
        }
        self.assign(i.arg(0)?, &format!("({c})({value})"), result)
    }

    /// Arithmetic of long integers. The carry is a variable of the thread.
    fn carried(&mut self, i: &Instruction) -> Written<Option<String>> {
        let ty = i.ty()?;
        if ty.bits() != 32 && ty.bits() != 64 {
            return Ok(None);
        }
        let bits = ty.bits();
        let mut x = Vec::new();
        for operand in &i.operands[1..] {
            x.push(format!(
                "(unsigned __int128){}",
                self.read(operand, if bits == 64 { Type::U64 } else { Type::U32 })?
            ));
        }
        let product = |x: &[String]| {
            let part = if i.has("hi") { format!(">> {bits}") } else { format!("& {}", mask(bits)) };
            format!("(({} * {}) {part})", x[0], x[1])
        };
        // A subtraction that borrows leaves ones above the result.
        let sum = match (i.opcode[0].as_str(), x.len()) {
            ("add", 2) => format!("{} + {}", x[0], x[1]),
            ("addc", 2) => format!("{} + {} + carry_", x[0], x[1]),
            ("sub", 2) => format!("{} - {}", x[0], x[1]),
            ("subc", 2) => format!("{} - {} - carry_", x[0], x[1]),
            ("mad", 3) if !ty.signed() => format!("{} + {}", product(&x), x[2]),
            ("madc", 3) if !ty.signed() => format!("{} + {} + carry_", product(&x), x[2]),
            _ => return Ok(None),
        };
        self.needs_carry();
        let carry = if i.has("cc") { format!("carry_ = (v_ >> {bits}) & 1; ") } else { String::new() };
        let assign = self.assign(i.arg(0)?, &format!("({})v_", ty.in_c()), ty)?;
        Ok(Some(format!("{{ unsigned __int128 v_ = {sum}; {carry}{assign} }}")))
    }

    fn float(&mut self, i: &Instruction, ty: Type) -> Written<Option<String>> {
        let flush = i.has("ftz") && ty == Type::F32;
        let mut x = Vec::new();
        for operand in &i.operands[1..] {
            x.push(self.number(operand, ty, flush)?);
        }
        let direction = ["rz", "rm", "rp"].into_iter().find(|d| i.has(d));
        let value = match direction {
            Some(direction) => directed(i, ty, direction, &x),
            None => plain(i, ty, &x),
        };
        let Some(mut value) = value else { return Ok(None) };
        if flush {
            value = format!("ftz({value})");
        }
        if i.has("sat") {
            value = format!("({})sat({value})", ty.in_c());
        }
        self.assign(i.arg(0)?, &value, ty).map(Some)
    }

    fn half(&mut self, i: &Instruction, ty: Type) -> Written<Option<String>> {
        let mut x = Vec::new();
        for operand in &i.operands[1..] {
            x.push(self.read(operand, ty)?);
        }
        let Some(value) = half(i, ty, &x) else { return Ok(None) };
        self.assign(i.arg(0)?, &value, ty).map(Some)
    }

    /// Arithmetic of pairs of halves.
    fn halves(&mut self, i: &Instruction, ty: Type) -> Written<Option<String>> {
        let lane = if ty == Type::F16x2 { Type::F16 } else { Type::Bf16 };
        let mut x = Vec::new();
        for operand in &i.operands[1..] {
            x.push(self.read(operand, Type::B32)?);
        }
        let side = |shift: u32| {
            let lanes: Vec<String> = x.iter().map(|x| format!("((uint16_t)({x} >> {shift}))")).collect();
            half(i, lane, &lanes)
        };
        let (Some(low), Some(high)) = (side(0), side(16)) else { return Ok(None) };
        let value = format!("((uint32_t)(uint16_t)({low}) | ((uint32_t)(uint16_t)({high}) << 16))");
        self.assign(i.arg(0)?, &value, Type::B32).map(Some)
    }
}

fn mask(bits: u32) -> String {
    format!("(unsigned __int128){}ull", u64::MAX >> (64 - bits))
}

/// Rounds to nearest.
fn plain(i: &Instruction, ty: Type, x: &[String]) -> Option<String> {
    let f = if ty == Type::F32 { "f" } else { "" };
    let of = |function: &str| format!("{function}_{}", if ty == Type::F32 { "f" } else { "d" });
    let nan = if i.has("NaN") { "_nan" } else { "" };
    let one = |function: &str| format!("{function}{f}({})", x[0]);
    Some(match (i.opcode[0].as_str(), x.len()) {
        ("add", 2) => format!("({} + {})", x[0], x[1]),
        ("sub", 2) => format!("({} - {})", x[0], x[1]),
        ("mul", 2) => format!("({} * {})", x[0], x[1]),
        ("div", 2) => format!("({} / {})", x[0], x[1]),
        ("fma" | "mad", 3) => format!("fma{f}({}, {}, {})", x[0], x[1], x[2]),
        ("neg", 1) => format!("(-{})", x[0]),
        ("abs", 1) => one("fabs"),
        ("min", 2) => format!("{}({}, {})", of(&format!("min{nan}")), x[0], x[1]),
        ("max", 2) => format!("{}({}, {})", of(&format!("max{nan}")), x[0], x[1]),
        ("copysign", 2) => format!("copysign{f}({}, {})", x[1], x[0]),
        ("rcp", 1) => format!("(1 / {})", x[0]),
        ("sqrt", 1) => one("sqrt"),
        ("rsqrt", 1) => format!("(1 / {})", one("sqrt")),
        ("ex2", 1) => one("exp2"),
        ("lg2", 1) => one("log2"),
        ("sin", 1) => one("sin"),
        ("cos", 1) => one("cos"),
        ("tanh", 1) => one("tanh"),
        _ => return None,
    })
}

/// Rounds in a direction. In f32 the exact result, or one with a sticky last bit, is there as f64.
fn directed(i: &Instruction, ty: Type, direction: &str, x: &[String]) -> Option<String> {
    let negated = |x: &String| format!("-{x}");
    Some(match (ty, i.opcode[0].as_str()) {
        (Type::F32, "add") => format!("dir_{direction}(odd_add({}, {}))", x[0], x[1]),
        (Type::F32, "sub") => format!("dir_{direction}(odd_add({}, {}))", x[0], negated(&x[1])),
        (Type::F32, "mul") => format!("dir_{direction}((double){} * {})", x[0], x[1]),
        (Type::F32, "fma") => format!("dir_{direction}(odd_add((double){} * {}, {}))", x[0], x[1], x[2]),
        (Type::F64, "add") => format!("dird_{direction}({0} + {1}, add_error({0}, {1}))", x[0], x[1]),
        (Type::F64, "sub") => format!("dird_{direction}({0} - {1}, add_error({0}, -{1}))", x[0], x[1]),
        (Type::F64, "mul") => format!("dird_{direction}({0} * {1}, mul_error({0}, {1}))", x[0], x[1]),
        _ => return None,
    })
}

/// One operation of halves, whose operands are bits. `float` has enough digits that its rounding does no harm.
fn half(i: &Instruction, ty: Type, x: &[String]) -> Option<String> {
    let (up, down, exact) = if ty == Type::F16 { ("h2f", "f2h", "d2h") } else { ("b2f", "f2b", "d2b") };
    let y: Vec<String> = x.iter().map(|x| format!("{up}({x})")).collect();
    let nan = if i.has("NaN") { "_nan" } else { "" };
    let wrap = |value: String| match (i.has("sat"), i.has("relu")) {
        (true, _) => format!("{down}((float)sat({value}))"),
        (_, true) => format!("{down}((float)relu({value}))"),
        _ => format!("{down}({value})"),
    };
    Some(match (i.opcode[0].as_str(), y.len()) {
        ("add", 2) => wrap(format!("({} + {})", y[0], y[1])),
        ("sub", 2) => wrap(format!("({} - {})", y[0], y[1])),
        ("mul", 2) => wrap(format!("({} * {})", y[0], y[1])),
        ("fma", 3) if i.has("sat") || i.has("relu") => {
            let limit = if i.has("sat") { "sat" } else { "relu" };
            format!("{exact}({limit}(odd_add((double){} * {}, {})))", y[0], y[1], y[2])
        }
        ("fma", 3) => format!("{exact}(odd_add((double){} * {}, {}))", y[0], y[1], y[2]),
        ("neg", 1) => format!("(uint16_t)({} ^ 0x8000)", x[0]),
        ("abs", 1) => format!("(uint16_t)({} & 0x7fff)", x[0]),
        ("min", 2) => format!("{down}(min{nan}_f({}, {}))", y[0], y[1]),
        ("max", 2) => format!("{down}(max{nan}_f({}, {}))", y[0], y[1]),
        ("ex2", 1) => format!("{down}(exp2f({}))", y[0]),
        ("tanh", 1) => format!("{down}(tanhf({}))", y[0]),
        _ => return None,
    })
}
