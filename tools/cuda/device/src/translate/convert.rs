//! Conversions between types.

use super::writer::{Writer, Written};
use crate::ptx::{Instruction, Type};

impl Writer<'_> {
    pub fn convert(&mut self, i: &Instruction) -> Written<Option<String>> {
        let types: Vec<Type> = i.opcode[1..].iter().filter_map(|part| Type::named(part)).collect();
        let [to, from] = types[..] else { return Ok(None) };
        let known = ["rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "sat", "ftz", "relu"];
        if i.opcode[1..].iter().any(|part| Type::named(part).is_none() && !known.contains(&part.as_str())) {
            return Ok(None);
        }
        if matches!(to, Type::F16x2 | Type::Bf16x2) {
            return self.pack(i, to);
        }
        if matches!(from, Type::F16x2 | Type::Bf16x2) {
            return Ok(None);
        }
        let source = self.number(i.arg(1)?, from, i.has("ftz") && from == Type::F32)?;
        let value = match (from.float(), to.float()) {
            (false, false) => integer(i, from, to, &source),
            (true, true) => float(i, from, to, source),
            (true, false) => whole(i, &source).map(|whole| format!("to_{}({whole})", name(to))),
            (false, true) => number(i, from, to, &source),
        };
        match value {
            Some(value) => self.assign(i.arg(0)?, &value, to).map(Some),
            None => Ok(None),
        }
    }

    /// `cvt.rn.f16x2.f32 d, a, b`: a becomes the upper half.
    fn pack(&mut self, i: &Instruction, to: Type) -> Written<Option<String>> {
        let lane = if to == Type::F16x2 { Type::F16 } else { Type::Bf16 };
        let (a, b) = (self.number(i.arg(1)?, Type::F32, false)?, self.number(i.arg(2)?, Type::F32, false)?);
        let (Some(high), Some(low)) = (narrow(i, lane, &a), narrow(i, lane, &b)) else { return Ok(None) };
        let value = format!("(((uint32_t){high} << 16) | {low})");
        self.assign(i.arg(0)?, &value, Type::B32).map(Some)
    }
}

fn name(ty: Type) -> String {
    format!("{}{}", if ty.signed() { "s" } else { "u" }, ty.bits())
}

fn integer(i: &Instruction, from: Type, to: Type, source: &str) -> Option<String> {
    let c = to.in_c();
    if !i.has("sat") {
        return Some(format!("(({c}){source})"));
    }
    let (low, high) = match (to.signed(), to.bits()) {
        (true, bits @ ..64) => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        (false, bits @ ..64) => (0, (1i128 << bits) - 1),
        _ => return None,
    };
    let low_test = if from.signed() { format!("(int64_t){source} < {low}ll ? ({c}){low}ll : ") } else { String::new() };
    let wide = if from.signed() { "int64_t" } else { "uint64_t" };
    Some(format!("({low_test}({wide}){source} > ({wide}){high}ll ? ({c}){high}ll : ({c}){source})"))
}

/// Between numbers with a fraction. `source` is a `float` or `double`.
fn float(i: &Instruction, from: Type, to: Type, mut source: String) -> Option<String> {
    if from == to || i.opcode.iter().any(|part| part.ends_with('i') && part.len() == 3) {
        let f = if from == Type::F64 { "" } else { "f" };
        for (part, function) in ROUNDINGS {
            if i.has(part) {
                source = format!("{function}{f}({source})");
            }
        }
    }
    for limit in ["sat", "relu"] {
        if i.has(limit) {
            source = format!("{limit}({source})");
        }
    }
    let f32_result = |value: String| if i.has("ftz") { format!("ftz({value})") } else { value };
    Some(match (to, direction(i)) {
        (Type::F64, _) => format!("((double){source})"),
        (Type::F32, Some(direction)) => f32_result(format!("dir_{direction}({source})")),
        (Type::F32, None) => f32_result(format!("((float){source})")),
        // A double passes through f32 with a sticky last bit.
        (_, None) if from == Type::F64 => format!("{}({source})", if to == Type::F16 { "d2h" } else { "d2b" }),
        _ => narrow(i, to, &format!("(float){source}"))?,
    })
}

/// From f32 to a half, as bits.
fn narrow(i: &Instruction, to: Type, value: &str) -> Option<String> {
    let value = if i.has("relu") { format!("(float)relu({value})") } else { value.to_owned() };
    match (to, direction(i)) {
        (Type::F16, None) => Some(format!("f2h({value})")),
        (Type::Bf16, None) => Some(format!("f2b({value})")),
        // Towards zero, the lower bits are cut off.
        (Type::Bf16, Some("rz")) => Some(format!("(uint16_t)(f_bits({value}) >> 16)")),
        _ => None,
    }
}

/// Rounds to a whole number.
fn whole(i: &Instruction, source: &str) -> Option<String> {
    let (_, function) = ROUNDINGS.into_iter().find(|(part, _)| i.has(part))?;
    Some(format!("{function}((double){source})"))
}

/// From an integer to a number with a fraction.
fn number(i: &Instruction, from: Type, to: Type, source: &str) -> Option<String> {
    Some(match (to, direction(i)) {
        (Type::F64, None) => format!("((double){source})"),
        (Type::F32, None) => format!("((float){source})"),
        (Type::F32, Some(direction)) if from.bits() <= 32 => format!("dir_{direction}((double){source})"),
        (Type::F16, None) => format!("d2h((double){source})"),
        (Type::Bf16, None) => format!("d2b((double){source})"),
        _ => return None,
    })
}

fn direction(i: &Instruction) -> Option<&'static str> {
    ["rz", "rm", "rp"].into_iter().find(|d| i.has(d))
}

const ROUNDINGS: [(&str, &str); 4] = [("rni", "rint"), ("rmi", "floor"), ("rpi", "ceil"), ("rzi", "trunc")];
