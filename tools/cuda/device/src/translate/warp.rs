//! Barriers, shuffles and what else the threads of a warp do together. The scheduler answers.

use std::fmt::Write as _;

use super::writer::{Writer, Written};
use crate::ptx::{Instruction, Operand, Type};

impl Writer<'_> {
    pub fn warp(&mut self, i: &Instruction) -> Written<Option<String>> {
        self.shared.collective = true;
        match i.opcode[0].as_str() {
            "bar" | "barrier" if i.has("warp") => {
                let mask = self.read(i.arg(0)?, Type::U32)?;
                Ok(Some(format!("wait_for(c, SYNC, 0, {mask}, 0, 0, 0, {});", i.line)))
            }
            "bar" | "barrier" => self.barrier(i),
            "shfl" => self.shuffle(i),
            "vote" => self.vote(i),
            "redux" => self.reduce(i),
            "mma" => self.matrix(i),
            "ldmatrix" => self.load_matrix(i),
            _ => Ok(None),
        }
    }

    fn barrier(&mut self, i: &Instruction) -> Written<Option<String>> {
        if i.has("arrive") {
            return Ok(None);
        }
        let line = i.line;
        if i.has("red") {
            // The result is over all threads of the block.
            let Some(mode) = ["popc", "and", "or"].iter().position(|mode| i.has(mode)) else { return Ok(None) };
            let Some(predicate) = i.operands.last() else { return Ok(None) };
            let (ty, held) = if mode == 0 { (Type::U32, Type::U32) } else { (Type::Pred, Type::Pred) };
            let p = self.read(predicate, Type::Pred)?;
            let value = format!("wait_for(c, BARRIER, {}, 0, 0, 0, {p}, {line})", mode + 1);
            return self.assign(i.arg(0)?, &format!("({}){value}", held.in_c()), ty).map(Some);
        }
        let name = self.read(i.arg(0)?, Type::U32)?;
        let threads = match i.operands.get(1) {
            Some(threads) => self.read(threads, Type::U32)?,
            None => "0".into(),
        };
        Ok(Some(format!("wait_for(c, BARRIER, 0, 0, {name}, {threads}, 0, {line});")))
    }

    fn shuffle(&mut self, i: &Instruction) -> Written<Option<String>> {
        // Without `.sync` the lanes are not named. sm_70 and later do not have it.
        let Some(mode) = ["up", "down", "bfly", "idx"].iter().position(|mode| i.has(mode)) else { return Ok(None) };
        if !i.has("sync") {
            return Ok(None);
        }
        let (value, by) = (self.read(i.arg(1)?, Type::B32)?, self.read(i.arg(2)?, Type::B32)?);
        let (clamp, mask) = (self.read(i.arg(3)?, Type::B32)?, self.read(i.arg(4)?, Type::B32)?);
        let call = format!("wait_for(c, SHUFFLE, {mode}, {mask}, {value}, {by}, {clamp}, {})", i.line);
        let mut text = format!("{{ uint32_t v_ = {call}; {}", self.assign(i.arg(0)?, "v_", Type::B32)?);
        if let Operand::Pair(_, predicate) = i.arg(0)? {
            text += &self.assign(&Operand::Name(predicate.clone()), "c->reply_pred", Type::Pred)?;
        }
        Ok(Some(text + " }"))
    }

    fn vote(&mut self, i: &Instruction) -> Written<Option<String>> {
        let Some(mode) = ["all", "any", "uni", "ballot"].iter().position(|mode| i.has(mode)) else { return Ok(None) };
        if !i.has("sync") {
            return Ok(None);
        }
        let predicate = self.read(i.arg(1)?, Type::Pred)?;
        let mask = self.read(i.arg(2)?, Type::B32)?;
        let ty = if mode == 3 { Type::B32 } else { Type::Pred };
        let value = format!("wait_for(c, VOTE, {mode}, {mask}, {predicate}, 0, 0, {})", i.line);
        self.assign(i.arg(0)?, &value, ty).map(Some)
    }

    fn reduce(&mut self, i: &Instruction) -> Written<Option<String>> {
        let modes = ["add", "min", "max", "and", "or", "xor"];
        let Some(mode) = modes.iter().position(|mode| i.has(mode)) else { return Ok(None) };
        let ty = i.ty()?;
        let (value, mask) = (self.read(i.arg(1)?, Type::B32)?, self.read(i.arg(2)?, Type::B32)?);
        let signed = u32::from(ty.signed());
        let call = format!("wait_for(c, REDUCE, {mode}, {mask}, {value}, {signed}, 0, {})", i.line);
        self.assign(i.arg(0)?, &call, Type::B32).map(Some)
    }

    /// `mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32`, and m16n8k8.
    fn matrix(&mut self, i: &Instruction) -> Written<Option<String>> {
        let types: Vec<Type> = i.opcode.iter().filter_map(|part| Type::named(part)).collect();
        let depth = match (i.has("m16n8k16"), i.has("m16n8k8")) {
            (true, _) => 16,
            (_, true) => 8,
            _ => return Ok(None),
        };
        let bf16 = match types[..] {
            [Type::F32, Type::F16, Type::F16, Type::F32] => 0,
            [Type::F32, Type::Bf16, Type::Bf16, Type::F32] => 1,
            _ => return Ok(None),
        };
        if !i.has("row") || !i.has("col") {
            return Ok(None);
        }
        let mut words = Vec::new();
        for at in 1..4 {
            let Operand::Vector(lanes) = i.arg(at)? else { return Ok(None) };
            for lane in lanes {
                let value = self.read(lane, if at == 3 { Type::F32 } else { Type::B32 })?;
                words.push(if at == 3 { format!("f_bits({value})") } else { value });
            }
        }
        if words.len() != depth / 4 + depth / 8 + 4 {
            return Ok(None);
        }
        let Operand::Vector(targets) = i.arg(0)? else { return Ok(None) };
        let call = format!("wait_for(c, MATRIX, {bf16}, 0xffffffffu, {depth}, 0, 0, {});", i.line);
        self.exchange(&words, targets, Type::F32, &call).map(Some)
    }

    /// `ldmatrix.sync.aligned.m8n8.x4{.trans}.shared.b16`
    fn load_matrix(&mut self, i: &Instruction) -> Written<Option<String>> {
        if !i.has("m8n8") || !i.has("b16") {
            return Ok(None);
        }
        let Some(count) = [(1, "x1"), (2, "x2"), (4, "x4")].into_iter().find(|(_, part)| i.has(part)) else {
            return Ok(None);
        };
        let (count, transposed) = (count.0, u32::from(i.has("trans")));
        let address = self.address(i.arg(1)?)?;
        let line = i.line;
        // The lanes that name a row check it.
        let check = format!(
            "uint64_t a_ = {address}; if (a_ >= SHARED_WINDOW) a_ -= SHARED_WINDOW; if ((c->thread & 31) < {rows}) \
             check_shared_load(c, a_, 16, {line}); ",
            rows = 8 * count
        );
        let targets = match i.arg(0)? {
            Operand::Vector(lanes) => lanes.clone(),
            other => vec![other.clone()],
        };
        let call = format!("wait_for(c, LOAD_MATRIX, {transposed}, 0xffffffffu, (uint32_t)a_, {count}, 0, {line});");
        let text = self.exchange(&[], &targets, Type::B32, &call)?;
        Ok(Some(format!("{{ {check}{text} }}")))
    }

    /// A call of the scheduler with words in arrays.
    fn exchange(&mut self, words: &[String], targets: &[Operand], ty: Type, call: &str) -> Written {
        let mut text =
            format!("{{ uint32_t i_[] = {{ {}, 0 }}, o_[8]; c->in = i_; c->out = o_; {call} ", words.join(", "));
        if words.is_empty() {
            text = format!("{{ uint32_t o_[8]; c->out = o_; {call} ");
        }
        for (at, target) in targets.iter().enumerate() {
            let value = if ty == Type::F32 { format!("bits_f(o_[{at}])") } else { format!("o_[{at}]") };
            let assign = self.assign(target, &value, ty)?;
            let _ = write!(text, "{assign} ");
        }
        Ok(text + "}")
    }
}
