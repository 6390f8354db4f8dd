//! Loads, stores, atomics and addresses.

use std::fmt::Write as _;

use super::operands::bits;
use super::writer::{Meaning, Writer, Written, c_name};
use crate::ptx::{Instruction, Operand, PtxError, Space, Type};

impl Writer<'_> {
    pub fn memory(&mut self, i: &Instruction) -> Written<Option<String>> {
        match i.opcode[0].as_str() {
            "ld" | "ldu" => self.load(i).map(Some),
            "st" => self.store(i).map(Some),
            "atom" | "red" => self.atomic(i),
            "cvta" => self.convert_address(i).map(Some),
            "cp" => self.copy(i),
            // Order between threads and caches have no meaning here: each thread sees each write at once.
            "prefetch" | "prefetchu" | "membar" | "fence" => Ok(Some(";".into())),
            _ => Ok(None),
        }
    }

    fn load(&mut self, i: &Instruction) -> Written {
        let ty = i.ty()?;
        let targets = lanes(i.arg(0)?);
        let bytes = ty.bytes() * targets.len();
        let (place, check) = self.place(i, i.arg(1)?, bytes, "load")?;
        let mut text = format!("{{ {check}");
        // A register of the address may be one of the targets.
        for (at, _) in targets.iter().enumerate() {
            let c = ty.in_c();
            let _ = write!(text, "{c} v{at}_; memcpy(&v{at}_, {place} + {}, sizeof v{at}_); ", at * ty.bytes());
        }
        for (at, target) in targets.iter().enumerate() {
            text += &self.assign(target, &format!("v{at}_"), ty)?;
        }
        Ok(text + " }")
    }

    fn store(&mut self, i: &Instruction) -> Written {
        let ty = i.ty()?;
        let values = lanes(i.arg(1)?);
        let (place, check) = self.place(i, i.arg(0)?, ty.bytes() * values.len(), "store")?;
        let mut text = format!("{{ {check}");
        for (at, value) in values.iter().enumerate() {
            let value = self.read(value, ty)?;
            let (c, to) = (ty.in_c(), at * ty.bytes());
            let _ = write!(text, "{c} v{at}_ = {value}; memcpy({place} + {to}, &v{at}_, sizeof v{at}_); ");
        }
        Ok(text + "}")
    }

    /// Returns an expression that points to the bytes of an access, and the text that checks them before.
    fn place(&mut self, i: &Instruction, address: &Operand, bytes: usize, access: &str) -> Written<(String, String)> {
        let line = i.line;
        if space(i) == Space::Param {
            return self.param(i, address).map(|place| (place, String::new()));
        }
        let at = self.address(address)?;
        let counted = if access == "load" { format!("read_ += {bytes}; ") } else { format!("written_ += {bytes}; ") };
        let global = format!("check_{access}(c, a_, {bytes}, {line}); {counted}");
        let shared = |a: &str| format!("check_shared_{access}(c, {a}, {bytes}, {line}); ");
        let frame = self.local_bytes();
        let local_check = format!(
            "if (unlikely(a_ - (uint64_t)local_ > {frame} - {bytes} || (a_ & {}))) c->bad(c, BAD_LOCAL, a_, {bytes}, {line}); ",
            bytes - 1
        );
        Ok(match space(i) {
            Space::Global | Space::Const => (String::from("(uint8_t *)a_"), format!("uint64_t a_ = {at}; {global}")),
            Space::Shared => {
                ("(c->block->shared + a_)".into(), format!("uint64_t a_ = (uint32_t){at}; {}", shared("a_")))
            }
            Space::Local if frame < bytes => return Err(PtxError::new(line, "local memory is not declared")),
            Space::Local => ("(uint8_t *)a_".into(), format!("uint64_t a_ = {at}; {local_check}")),
            _ => {
                let window = format!(
                    "if (a_ - SHARED_WINDOW < 0x1000000) {{ {} p_ = c->block->shared + (a_ - SHARED_WINDOW); }}",
                    shared("a_ - SHARED_WINDOW")
                );
                // The frame of a caller is near the frame of this function.
                let stack = "else if (a_ - (uint64_t)__builtin_frame_address(0) + 65536 < 131072) p_ = (uint8_t *)a_; ";
                let text =
                    format!("uint64_t a_ = {at}; uint8_t *p_ = (uint8_t *)a_; {window} {stack} else {{ {global} }} ");
                ("p_".into(), text)
            }
        })
    }

    /// Parameters of this function, or of a call.
    fn param(&mut self, i: &Instruction, address: &Operand) -> Written {
        let Operand::Address(base, offset) = address else {
            return Err(PtxError::new(i.line, "an address is expected"));
        };
        match self.meaning(base) {
            Some(Meaning::Array(name)) => return Ok(format!("({name} + {offset})")),
            Some(Meaning::Register(name, _)) => return Ok(format!("((uint8_t *){name} + {offset})")),
            _ => {}
        }
        let function = self.function;
        if function.kernel {
            if let Some(param) = function.params.iter().find(|p| p.name == *base) {
                return Ok(format!("(c->params + {})", param.offset as i64 + offset));
            }
        } else if function.returns.iter().chain(&function.params).any(|p| p.name == *base) {
            return Ok(format!("({} + {offset})", c_name(base)));
        }
        Err(PtxError::new(i.line, format!("`{base}` is no parameter")))
    }

    fn atomic(&mut self, i: &Instruction) -> Written<Option<String>> {
        let ty = i.ty()?;
        let returns = i.opcode[0] == "atom";
        let at = usize::from(returns);
        let line = i.line;
        let bytes = ty.bytes();
        let address = self.address(i.arg(at)?)?;
        let held = bits(ty);
        let c = held.in_c();
        let x = self.read(i.arg(at + 1)?, ty)?;
        let Some(next) = self.next_value(i, ty, &x, at)? else { return Ok(None) };
        let global = format!(
            "check_load(c, a_, {bytes}, {line}); check_store(c, a_, {bytes}, {line}); read_ += {bytes}; written_ += {bytes}; {c} *p_ = ({c} *)a_; "
        );
        let shared = format!("check_shared_atomic(c, a_, {bytes}, {line}); {c} *p_ = ({c} *)(c->block->shared + a_); ");
        let check = match space(i) {
            Space::Global => format!("uint64_t a_ = {address}; {global}"),
            Space::Shared => format!("uint64_t a_ = (uint32_t){address}; {shared}"),
            Space::Generic => format!(
                "uint64_t a_ = {address}; {c} *p_; if (a_ - SHARED_WINDOW < 0x1000000) {{ a_ -= SHARED_WINDOW; {} }} else {{ {} }}",
                shared.replace(&format!("{c} *p_"), "p_"),
                global.replace(&format!("{c} *p_"), "p_")
            ),
            _ => return Ok(None),
        };
        let result = if returns { self.assign(i.arg(0)?, "o_", held)? } else { String::new() };
        Ok(Some(format!(
            "{{ {check}{c} o_ = __atomic_load_n(p_, __ATOMIC_SEQ_CST), n_; do {{ n_ = {next}; }} while (!__atomic_compare_exchange_n(p_, &o_, n_, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)); {result} }}"
        )))
    }

    /// Returns the expression in C for the new value of an atomic, where `o_` has the bits of the old one.
    fn next_value(&mut self, i: &Instruction, ty: Type, x: &str, at: usize) -> Written<Option<String>> {
        let c = ty.in_c();
        let old = match ty {
            Type::F32 => "bits_f(o_)".to_owned(),
            Type::F64 => "bits_d(o_)".to_owned(),
            _ => format!("(({c})o_)"),
        };
        let operation = ["add", "cas", "exch", "min", "max", "and", "or", "xor", "inc", "dec"];
        let Some(name) = operation.into_iter().find(|o| i.has(o)) else { return Ok(None) };
        Ok(Some(match (name, ty) {
            ("exch", _) => x.to_owned(),
            ("cas", _) => format!("(o_ == {x} ? {} : o_)", self.read(i.arg(at + 2)?, ty)?),
            ("add", Type::F32) => format!("f_bits({old} + {x})"),
            ("add", Type::F64) => format!("d_bits({old} + {x})"),
            ("add", Type::F16) => format!("f2h(h2f(o_) + h2f({x}))"),
            ("add", Type::Bf16) => format!("f2b(b2f(o_) + b2f({x}))"),
            ("add", Type::F16x2 | Type::Bf16x2) => {
                let (up, down) = if ty == Type::F16x2 { ("h2f", "f2h") } else { ("b2f", "f2b") };
                let side = |s: u32| {
                    format!("((uint32_t){down}({up}((uint16_t)(o_ >> {s})) + {up}((uint16_t)({x} >> {s}))) << {s})")
                };
                format!("({} | {})", side(0), side(16))
            }
            (_, Type::F32 | Type::F64 | Type::F16 | Type::Bf16 | Type::F16x2 | Type::Bf16x2) => return Ok(None),
            ("add", _) => format!("(o_ + {x})"),
            ("min", _) => format!("({old} < {x} ? {old} : {x})"),
            ("max", _) => format!("({old} > {x} ? {old} : {x})"),
            ("and", _) => format!("(o_ & {x})"),
            ("or", _) => format!("(o_ | {x})"),
            ("xor", _) => format!("(o_ ^ {x})"),
            ("inc", _) => format!("(o_ >= {x} ? 0 : o_ + 1)"),
            ("dec", _) => format!("(o_ == 0 || o_ > {x} ? {x} : o_ - 1)"),
            _ => return Ok(None),
        }))
    }

    /// Between an address in a space and one of all spaces. Only shared memory has addresses of its own.
    fn convert_address(&mut self, i: &Instruction) -> Written {
        let ty = i.ty()?;
        let value = self.read(i.arg(1)?, ty)?;
        let value = match (space(i), i.has("to")) {
            (Space::Shared, true) => format!("({value} - SHARED_WINDOW)"),
            (Space::Shared, false) => format!("({value} + SHARED_WINDOW)"),
            _ => value,
        };
        self.assign(i.arg(0)?, &value, ty)
    }

    /// `cp.async`: a copy to shared memory. It is done at once, but nothing may use its bytes before its thread waits.
    fn copy(&mut self, i: &Instruction) -> Written<Option<String>> {
        if i.opcode.get(1).is_none_or(|part| part != "async") || i.has("bulk") {
            return Ok(None);
        }
        if i.has("commit_group") {
            return Ok(Some("c->copy_group++;".into()));
        }
        if i.has("wait_all") {
            return Ok(Some("c->copy_group++; finish_copies(c, 0);".into()));
        }
        if i.has("wait_group") {
            let Operand::Integer(but) = *i.arg(0)? else { return Ok(None) };
            return Ok(Some(format!("finish_copies(c, {but});")));
        }
        let Operand::Integer(bytes @ (4 | 8 | 16)) = *i.arg(2)? else { return Ok(None) };
        let line = i.line;
        let (to, from) = (self.address(i.arg(0)?)?, self.address(i.arg(1)?)?);
        // The bytes behind the size of the source become zero.
        let size = match i.operands.get(3) {
            Some(size) => self.read(size, Type::U32)?,
            None => bytes.to_string(),
        };
        Ok(Some(format!(
            "{{ uint64_t a_ = (uint32_t){to}, s_ = {from}; uint32_t n_ = {size}; check_shared_copy(c, a_, {bytes}, {line}); \
             if (n_ == {bytes}) check_load(c, s_, {bytes}, {line}); else for (uint32_t k_ = 0; k_ < n_; k_++) check_load(c, s_ + k_, 1, {line}); \
             read_ += n_; memset(c->block->shared + a_, 0, {bytes}); memcpy(c->block->shared + a_, (uint8_t *)s_, n_); }}"
        )))
    }
}

/// Returns the space of an instruction.
fn space(i: &Instruction) -> Space {
    let of = |part: &String| match part.split("::").next() {
        Some("global") => Some(Space::Global),
        Some("shared") => Some(Space::Shared),
        Some("local") => Some(Space::Local),
        Some("param") => Some(Space::Param),
        Some("const") => Some(Space::Const),
        _ => None,
    };
    i.opcode[1..].iter().find_map(of).unwrap_or(Space::Generic)
}

fn lanes(operand: &Operand) -> Vec<Operand> {
    match operand {
        Operand::Vector(lanes) => lanes.clone(),
        other => vec![other.clone()],
    }
}
